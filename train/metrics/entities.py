"""Metrics of tagged words as one module of `evaluate`: `evaluate.load("<folder>/entities.py", "entities")`."""

import re
from collections.abc import Iterable

import datasets
import evaluate


CITATION = """\
@inproceedings{tjong2003conll,
  title={Introduction to the {CoNLL}-2003 Shared Task: Language-Independent Named Entity Recognition},
  author={Tjong Kim Sang, Erik F. and De Meulder, Fien},
  booktitle={CoNLL},
  year={2003}
}
"""
INPUTS = """
Args:
    predictions: A list of tags for every text, one of every word.
    references: The true tags, as many.
Returns:
    Fractions over the whole corpus. entities: f1, precision and recall of entities, right only where their type, first
    and last word are, and accuracy, the share of words with the right tag. tags: accuracy alone.
"""
TAG = re.compile(r"O|[BIES]-.+")


def is_scheme(tags: Iterable[str]) -> bool:
    """Whether tags mark entities: `O`, and types behind `B-`, `I-` and, in some schemes, `E-` and `S-`."""
    tags = set(tags)
    return bool(tags - {"O"}) and all(TAG.fullmatch(tag) for tag in tags)


def entities(tags: list[str]) -> set[tuple[str, int, int]]:
    """The entities of a text as (type, first word, word behind the last one), read as `conlleval` reads them.

    An entity goes on as long as its type does and nothing says that it ends (`E-`, `S-` before) or that another
    begins (`B-`, `S-`). It may begin with any tag, so that a lost `B-` loses no entity.
    """
    found = []
    before, kind_before = "O", ""
    for index, tag in enumerate(tags):
        prefix, _, kind = tag.partition("-")
        if prefix != "O":
            if prefix in "BS" or before in "OES" or kind != kind_before:
                found.append([kind, index, index])
            found[-1][2] = index + 1
        before, kind_before = prefix, kind
    return {tuple(entity) for entity in found}


class Entities(evaluate.Metric):
    """Precision, recall and F1 of entities and accuracy of tags, over the whole corpus; 0.0 where undefined."""

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in ("entities", "tags"):
            raise ValueError(f"unknown metric of tags {self.config_name!r}; known are entities, tags")
        tags = datasets.List(datasets.Value("string"))
        return evaluate.MetricInfo(
            description="Metrics of tagged words",
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": tags, "references": tags}),
        )

    def _compute(self, predictions: list[list[str]], references: list[list[str]]) -> dict[str, float]:
        for index, (predicted, true) in enumerate(zip(predictions, references)):
            if len(predicted) != len(true):
                raise ValueError(f"text {index} has {len(true)} tags but {len(predicted)} predicted ones")
        pairs = [pair for texts in zip(predictions, references) for pair in zip(*texts)]
        accuracy = sum(predicted == true for predicted, true in pairs) / len(pairs) if pairs else 0.0
        if self.config_name == "tags":
            return {"accuracy": accuracy}
        for tag in sorted({tag for pair in pairs for tag in pair}):
            if not TAG.fullmatch(tag):
                raise ValueError(f"tag {tag!r} marks no entity; needed are O and B-, I-, E-, S- with a type")
        hits = predicted_count = true_count = 0
        for texts in zip(predictions, references):
            predicted, true = map(entities, texts)
            hits += len(predicted & true)
            predicted_count += len(predicted)
            true_count += len(true)
        return {
            "f1": 2 * hits / (predicted_count + true_count) if hits else 0.0,
            "precision": hits / predicted_count if predicted_count else 0.0,
            "recall": hits / true_count if true_count else 0.0,
            "accuracy": accuracy,
        }
