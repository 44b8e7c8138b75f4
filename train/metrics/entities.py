"""Metrics of tagged words; also a module of `evaluate`: `evaluate.load("<folder>/entities.py", "entities")`."""

import re
from collections.abc import Iterable

import datasets
import evaluate
import numpy as np


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
    tags: entities only: all tags there are; by default those that occur.
Returns:
    Fractions over the whole corpus. entities: f1, precision and recall of entities, right only where their type, first
    and last word are, and accuracy, the share of words with the right tag. tags: accuracy alone.
"""
SCHEMES = {"BIO": "BI", "IOE": "IE", "IOBES": "BIES", "BILOU": "BILU", "BMES": "BMES", "BMEWO": "BMEW"}
PLACES = {"B": "B", "I": "I", "M": "I", "E": "E", "L": "E", "S": "S", "U": "S", "W": "S"}  # in the letters of IOBES
LETTER = "(?P<letter>[BIMELSUW])"
FORMS = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (f"{LETTER}[-_](?P<type>.+)", f"(?P<type>.+)[-_]{LETTER}", f"{LETTER}(?P<type>)")
)


def read_tags(tags: Iterable[str]) -> dict[str, tuple[str, str]]:
    """What every tag says of a word: its place in an entity, as IOBES calls it, and the type of that entity.

    The schemes are those of `SCHEMES`, IOB1 and IOB2 alike, in letters of any case. The type stands behind the letter
    (`B-PER`), before it (`PER-B`), or there is none (`B`); it is the same form in all tags.

    Args:
        tags: All tags there are: the form and the scheme are read off them together.

    Raises:
        ValueError: if they follow no scheme, saying why.
    """
    tags = set(tags)
    outside = {tag for tag in tags if tag.upper() == "O"}
    read = dict.fromkeys(outside, ("O", ""))
    marks = sorted(tags - outside)
    for form in FORMS:
        matches = [match for tag in marks if (match := form.fullmatch(tag))]
        if len(matches) == len(marks):
            break
    else:
        strange = [tag for tag in marks if not any(form.fullmatch(tag) for form in FORMS)]
        if strange:
            raise ValueError(f"tag {strange[0]!r} marks no entity: it is neither 'O' nor like 'B-PER' or 'PER-B'")
        raise ValueError(f"tags {', '.join(map(repr, marks))} are of different forms, such as 'B-PER' and 'PER-B'")
    letters = {match["letter"].upper() for match in matches}
    strangers = not any(letters <= set(scheme) for scheme in SCHEMES.values())
    if strangers or (form is FORMS[-1] and not ("B" in letters and letters & set("IMEL"))):  # such as sizes, S and M
        raise ValueError(f"the letters {', '.join(map(repr, sorted(letters)))} are of no scheme: {', '.join(SCHEMES)}")
    return read | {match.string: (PLACES[match["letter"].upper()], match["type"]) for match in matches}


def why_no_entities(tags: Iterable[str]) -> str | None:
    """Why tags mark no entities; None where they do."""
    try:
        read = read_tags(tags)
    except ValueError as error:
        return str(error)
    return None if any(place != "O" for place, _ in read.values()) else "no tag marks an entity"


def entities(words: Iterable[tuple[str, str]]) -> set[tuple[str, int, int]]:
    """The entities of a text as (type, first word, word behind the last one), read as `conlleval` reads them.

    An entity goes on as long as its type does and nothing says that it ends (`E`, `S` before) or that another begins
    (`B`, `S`). It may begin with any place, so that a lost `B` loses no entity.

    Args:
        words: What `read_tags` says of the tag of every word.
    """
    found: list[tuple[str, int, int]] = []
    place_before, kind_before = "O", ""
    for index, (place, kind) in enumerate(words):
        if place != "O":
            if place in "BS" or place_before in "OES" or kind != kind_before:
                found.append((kind, index, index))
            found[-1] = (*found[-1][:2], index + 1)
        place_before, kind_before = place, kind
    return set(found)


def row_values(
    metric: str, predictions: list[list[str]], references: list[list[str]], tags: Iterable[str] = ()
) -> dict[str, np.ndarray]:
    """What every text adds to the figures: words, those with the right tag, and for `entities` true, predicted and
    right entities, each of shape `(N,)`.

    Raises:
        ValueError: if a text has not as many predicted tags as true ones, or the tags mark no entities.
    """
    for name, texts in (("predictions", predictions), ("references", references)):
        if not all(isinstance(text, list) and all(isinstance(tag, str) for tag in text) for text in texts):
            raise ValueError(f"{name} must be a list of tags in every row")
    for index, (predicted, true) in enumerate(zip(predictions, references, strict=True)):
        if len(predicted) != len(true):
            raise ValueError(f"text {index} has {len(true)} tags but {len(predicted)} predicted ones")
    pairs = list(zip(predictions, references))
    values = {
        "words": [len(true) for true in references],
        "right_words": [sum(map(str.__eq__, predicted, true)) for predicted, true in pairs],
    }
    if metric == "entities":
        read = read_tags({*tags, *(tag for texts in (predictions, references) for text in texts for tag in text)})
        found = [[entities(map(read.__getitem__, text)) for text in pair] for pair in pairs]
        values |= {
            "true": [len(true) for _, true in found],
            "predicted": [len(predicted) for predicted, _ in found],
            "right": [len(predicted & true) for predicted, true in found],
        }
    return {name: np.array(counts, dtype=np.int64) for name, counts in values.items()}


def figures(metric: str, values: dict[str, np.ndarray]) -> dict[str, float]:
    """The figures over texts, given what each of them adds; 0.0 where undefined."""
    total = {name: int(counts.sum()) for name, counts in values.items()}
    accuracy = {"accuracy": total["right_words"] / max(total["words"], 1)}
    if metric == "tags":
        return accuracy
    return {
        "f1": 2 * total["right"] / max(total["predicted"] + total["true"], 1),
        "precision": total["right"] / max(total["predicted"], 1),
        "recall": total["right"] / max(total["true"], 1),
    } | accuracy


def compute(
    metric: str, predictions: list[list[str]], references: list[list[str]], tags: Iterable[str] = ()
) -> dict[str, float]:
    """Precision, recall and F1 of entities and accuracy of tags, over a whole corpus.

    Args:
        metric: `entities`, or `tags` for accuracy alone.
        predictions, references: A list of tags for every text, one of every word.
        tags: All tags there are; those that occur are added.

    Raises:
        ValueError: see `row_values`.
    """
    return figures(metric, row_values(metric, predictions, references, tags))


class Entities(evaluate.Metric):
    """Precision, recall and F1 of entities and accuracy of tags, over the whole corpus; 0.0 where undefined."""

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in ("entities", "tags"):
            raise ValueError(f"unknown metric of tags {self.config_name!r}; known are 'entities', 'tags'")
        tags = datasets.List(datasets.Value("string"))
        return evaluate.MetricInfo(
            description="Metrics of tagged words",
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": tags, "references": tags}),
        )

    def _compute(
        self, predictions: list[list[str]], references: list[list[str]], tags: Iterable[str] = ()
    ) -> dict[str, float]:
        return compute(self.config_name, predictions, references, tags)
