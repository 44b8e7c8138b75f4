"""The SQuAD metrics as one module of `evaluate`: `evaluate.load("<folder>/squad.py", "squad")` or `"squad_v2"`."""

import collections
import re
import string
from collections.abc import Callable

import datasets
import evaluate


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
        ValueError: if the ids of the two are not the same set, or one occurs twice.
    """
    answers = {reference["id"]: reference["answers"]["text"] for reference in references}
    ids = {prediction["id"] for prediction in predictions}
    if len(answers) != len(references) or len(ids) != len(predictions):
        raise ValueError("predictions and references must have one entry for each id")
    if ids != answers.keys():
        name = min(ids ^ answers.keys())
        raise ValueError(f"question {name!r} is in only one of predictions and references")
    return [(prediction, answers[prediction["id"]]) for prediction in predictions]


def average(scores: list[float]) -> float:
    """Mean of fractions, as a percentage."""
    return 100.0 * sum(scores) / len(scores)


def best_threshold(
    scores: list[float], probabilities: list[float], texts: list[str], answerable: list[bool]
) -> tuple[float, float]:
    """The best average score that one no-answer threshold reaches, as a percentage, and that threshold.

    As in the official script: from "no answer" everywhere, questions are answered one by one in the order of their
    probabilities, those of equal probability in their own order.
    """
    total = highest = answerable.count(False)
    threshold = 0.0
    for index in sorted(range(len(scores)), key=probabilities.__getitem__):
        if answerable[index]:
            total += scores[index]
        elif texts[index]:
            total -= 1
        if total > highest:
            highest, threshold = total, probabilities[index]
    return 100.0 * highest / len(scores), threshold


class Squad(evaluate.Metric):
    """Exact match and F1 of extracted answers, best over the gold answers of a question; for SQuAD v1.1 and v2.0."""

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in ("squad", "squad_v2"):
            raise ValueError(f"unknown SQuAD metric {self.config_name!r}; known are squad, squad_v2")
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

    def _compute(self, predictions: list[dict], references: list[dict], **kwargs: float) -> dict[str, float]:
        pairs = pair(predictions, references)
        return self._compute_v2(pairs, **kwargs) if self.config_name == "squad_v2" else self._compute_v1(pairs)

    def _compute_v1(self, pairs: list[tuple[dict, list[str]]]) -> dict[str, float]:
        """Metrics of SQuAD v1.1.

        Raises:
            ValueError: if a question has no answers.
        """
        for prediction, answers in pairs:
            if not answers:
                raise ValueError(
                    f"question {prediction['id']!r} has no answers; squad_v2 knows unanswerable questions"
                )
        return {
            name: average([best(score, prediction["prediction_text"], answers) for prediction, answers in pairs])
            for name, score in (("exact_match", exact_match), ("f1", token_f1))
        }

    def _compute_v2(self, pairs: list[tuple[dict, list[str]]], no_answer_threshold: float = 1.0) -> dict[str, float]:
        """Metrics of SQuAD v2.0."""
        texts = [prediction["prediction_text"] for prediction, _ in pairs]
        probabilities = [prediction["no_answer_probability"] for prediction, _ in pairs]
        answerable = [bool(answers) for _, answers in pairs]
        # An answer of nothing but articles and punctuation is no answer to compare with.
        gold = [[answer for answer in answers if normalize(answer)] or [""] for _, answers in pairs]
        raw = {
            name: [best(score, text, answers) for text, answers in zip(texts, gold)]
            for name, score in (("exact", exact_match), ("f1", token_f1_v2))
        }
        scored = raw
        if None not in probabilities:
            withheld = [probability > no_answer_threshold for probability in probabilities]
            scored = {
                name: [float(not has) if no else score for score, has, no in zip(scores, answerable, withheld)]
                for name, scores in raw.items()
            }

        results = {name: average(scores) for name, scores in scored.items()} | {"total": len(pairs)}
        for prefix, wanted in (("HasAns", True), ("NoAns", False)):
            if wanted in answerable:
                for name, scores in scored.items():
                    part = [score for score, has in zip(scores, answerable) if has == wanted]
                    results[f"{prefix}_{name}"] = average(part)
                results[f"{prefix}_total"] = answerable.count(wanted)
        if None not in probabilities:
            for name, scores in raw.items():
                value, threshold = best_threshold(scores, probabilities, texts, answerable)
                results |= {f"best_{name}": value, f"best_{name}_thresh": threshold}
        return results
