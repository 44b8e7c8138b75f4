"""The SQuAD metrics; also a module of `evaluate`: `evaluate.load("<folder>/squad.py", "squad")` or `"squad_v2"`."""

import collections
import re
import string
from collections.abc import Callable

import datasets
import evaluate
import numpy as np


METRICS = ("squad", "squad_v2")
CITATION = """\
@inproceedings{rajpurkar2016squad,
  title={{SQuAD}: 100,000+ Questions for Machine Comprehension of Text},
  author={Rajpurkar, Pranav and Zhang, Jian and Lopyrev, Konstantin and Liang, Percy},
  booktitle={EMNLP},
  year={2016}
}
@inproceedings{rajpurkar2018know,
  title={Know What You Don't Know: Unanswerable Questions for {SQuAD}},
  author={Rajpurkar, Pranav and Jia, Robin and Liang, Percy},
  booktitle={ACL},
  year={2018}
}
"""
INPUTS = """
Args:
    predictions: One dict per question: id, prediction_text and, for squad_v2, no_answer_probability (None where no
        model gives one: for all questions or for none). An empty prediction_text says that there is no answer.
    references: One dict per question: id and answers, a dict of the lists text and answer_start. In squad_v2, an
        unanswerable question has empty lists.
    no_answer_threshold: squad_v2 only: above this probability, the answer counts as "no answer". 1.0 by default.
Returns:
    Percentages. squad: exact_match and f1. squad_v2: exact, f1 and total, the same of answerable (HasAns_) and
    unanswerable (NoAns_) questions where there are any, and with probabilities the best exact and f1 that a threshold
    on them reaches, with that threshold.
"""


def normalize(text: str) -> str:
    """An answer without case, punctuation, articles and superfluous space, as in the official scripts."""
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(prediction: str, answer: str) -> float:
    """1.0 where the normalised texts are equal, else 0.0."""
    return float(normalize(prediction) == normalize(answer))


def token_f1(prediction: str, answer: str) -> float:
    """F1 of the words of the normalised texts, as multisets; 0.0 where none is common."""
    predicted, true = normalize(prediction).split(), normalize(answer).split()
    common = sum((collections.Counter(predicted) & collections.Counter(true)).values())
    return 2 * common / (len(predicted) + len(true)) if common else 0.0


def token_f1_v2(prediction: str, answer: str) -> float:
    """As `token_f1`, but 1.0 of two texts without a word: there v2.0 departs from v1.1."""
    return max(token_f1(prediction, answer), exact_match(prediction, answer))


def best(score: Callable[[str, str], float], prediction: str, answers: list[str]) -> float:
    """The score of a prediction against the answer that suits it best."""
    return max(score(prediction, answer) for answer in answers)


def pair(predictions: list[dict], references: list[dict]) -> list[tuple[dict, list[str]]]:
    """Every prediction with the texts of its question's answers, by id.

    Raises:
        ValueError: if they are no predictions and references of SQuAD's form, the ids of the two are not the same
            set, or one occurs twice.
    """
    for needed, entries in (("prediction_text", predictions), ("answers", references)):
        if not all(isinstance(entry, dict) and {"id", needed} <= entry.keys() for entry in entries):
            raise ValueError(f"needed is a dict with 'id' and {needed!r} for every question")
    answers = {reference["id"]: reference["answers"]["text"] for reference in references}
    ids = {prediction["id"] for prediction in predictions}
    if len(answers) != len(references) or len(ids) != len(predictions):
        raise ValueError("predictions and references must have one entry for each id")
    if ids != answers.keys():
        name = min(ids ^ answers.keys())
        raise ValueError(f"question {name!r} is in only one of predictions and references")
    return [(prediction, answers[prediction["id"]]) for prediction in predictions]


def row_values(
    metric: str, predictions: list[dict], references: list[dict], no_answer_threshold: float = 1.0
) -> dict[str, np.ndarray]:
    """What every question adds to the figures, each of shape `(N,)` in the order of the predictions.

    For `squad` its `exact_match` and `f1`; for `squad_v2` its `exact` and `f1`, whether it is `answerable`, whether
    the prediction is a `text`, what its scores are where no text is withheld (`exact_of_text`, `f1_of_text`), and,
    if predictions have one, its `probability` of no answer.

    Raises:
        ValueError: as `pair` does, or if `squad` is asked of a question without answers.
    """
    pairs = pair(predictions, references)
    texts = [prediction["prediction_text"] for prediction, _ in pairs]
    if metric == "squad":
        for prediction, answers in pairs:
            if not answers:
                name = prediction["id"]
                raise ValueError(
                    f"question {name!r} has no answers; 'squad_v2' counts such questions, 'squad' does not"
                )
        return {
            name: np.array([best(score, text, answers) for text, (_, answers) in zip(texts, pairs)])
            for name, score in (("exact_match", exact_match), ("f1", token_f1))
        }
    values = {
        "answerable": np.array([bool(answers) for _, answers in pairs]),
        "text": np.array([bool(text) for text in texts]),
    }
    # An answer of nothing but articles and punctuation is no answer to compare with.
    gold = [[answer for answer in answers if normalize(answer)] or [""] for _, answers in pairs]
    for name, score in (("exact", exact_match), ("f1", token_f1_v2)):
        scores = np.array([best(score, text, answers) for text, answers in zip(texts, gold)])
        values |= {name: scores, f"{name}_of_text": scores}
    probabilities = [prediction.get("no_answer_probability") for prediction, _ in pairs]
    if None not in probabilities:
        values["probability"] = np.array(probabilities)
        withheld = values["probability"] > no_answer_threshold
        values |= {name: np.where(withheld, ~values["answerable"], values[name]) for name in ("exact", "f1")}
    return values


def figures(metric: str, values: dict[str, np.ndarray]) -> dict[str, float]:
    """The figures over questions, given what each of them adds: means as percentages, and counts."""
    if metric == "squad":
        return {name: percentage(scores) for name, scores in values.items()}
    scores = {name: values[name] for name in ("exact", "f1")}
    found = {name: percentage(column) for name, column in scores.items()} | {"total": len(values["answerable"])}
    for prefix, part in (("HasAns", values["answerable"]), ("NoAns", ~values["answerable"])):
        if part.any():
            found |= {f"{prefix}_{name}": percentage(column[part]) for name, column in scores.items()}
            found[f"{prefix}_total"] = int(part.sum())
    return found


def percentage(fractions: np.ndarray) -> float:
    """Their mean in percent."""
    return 100.0 * float(fractions.mean())


def best_figures(values: dict[str, np.ndarray]) -> dict[str, float]:
    """The best exact and F1 of `squad_v2` that one no-answer threshold reaches, as percentages, and that threshold.

    As in the official script: from "no answer" everywhere, questions are answered one by one in the order of their
    probabilities, those of equal probability in their own order.

    Args:
        values: Of `row_values`, with probabilities.
    """
    order = np.argsort(values["probability"], kind="stable")
    unanswerable = np.count_nonzero(~values["answerable"])
    found = {}
    for name in ("exact", "f1"):
        gains = np.where(values["answerable"], values[f"{name}_of_text"], -1.0 * values["text"])[order]
        totals = unanswerable + np.concatenate([[0.0], np.cumsum(gains)])
        answered = int(totals.argmax())
        threshold = values["probability"][order[answered - 1]] if answered else 0.0
        found[f"best_{name}"] = 100.0 * float(totals[answered]) / len(order)
        found[f"best_{name}_thresh"] = float(threshold)
    return found


def compute(
    metric: str, predictions: list[dict], references: list[dict], no_answer_threshold: float = 1.0
) -> dict[str, float]:
    """Exact match and F1 of extracted answers over a whole corpus, as percentages; see `INPUTS`.

    Args:
        metric: `squad` (v1.1) or `squad_v2`.
        predictions, references: One dict of every question.
        no_answer_threshold: `squad_v2` only: above this probability, the answer counts as "no answer".

    Raises:
        ValueError: see `row_values`.
    """
    values = row_values(metric, predictions, references, no_answer_threshold)
    return figures(metric, values) | (best_figures(values) if "probability" in values else {})


class Squad(evaluate.Metric):
    """Exact match and F1 of extracted answers, best over the gold answers of a question; for SQuAD v1.1 and v2.0."""

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in METRICS:
            raise ValueError(f"unknown SQuAD metric {self.config_name!r}; known are 'squad', 'squad_v2'")
        text = datasets.Value("string")
        prediction = {"id": text, "prediction_text": text}
        if self.config_name == "squad_v2":
            prediction["no_answer_probability"] = datasets.Value("float64")
        answers = {"text": datasets.List(text), "answer_start": datasets.List(datasets.Value("int32"))}
        return evaluate.MetricInfo(
            description="SQuAD exact match and F1",
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": prediction, "references": {"id": text, "answers": answers}}),
        )

    def _compute(
        self, predictions: list[dict], references: list[dict], no_answer_threshold: float = 1.0
    ) -> dict[str, float]:
        return compute(self.config_name, predictions, references, no_answer_threshold)
