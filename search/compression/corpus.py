"""The text that a compression learns from: a corpus, or the texts of the user's own rows."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from efficientbert.search.compression.arguments import CompressArguments
from efficientbert.search.compression.plan import BATCH_SIZE
from efficientbert.train.cli.errors import InputError
from efficientbert.train.files.writing import writing
from efficientbert.train.tasks.arguments import TaskArguments
from efficientbert.train.text.corpus import SHORTEST


COLUMN = "text"  # of the file of texts
LEAST = 12  # documents to learn from
HELD_OUT = 64  # sequences of text to score on, at most
OF_TEXTS = 8  # an eighth of few texts at most is held out, and as much measures the teacher


@dataclass(frozen=True)
class Corpus:
    """The text to learn from.

    Attributes:
        arguments: Flags of `distill` and `embed` for it.
    """

    arguments: dict[str, Any]

    @classmethod
    def of_arguments(cls, args: CompressArguments) -> "Corpus":
        """The corpus that the arguments name."""
        return cls(
            {
                "corpus": args.corpus,
                "corpus_name": args.corpus_name,
                "corpus_split": args.corpus_split,
                "text_column": args.corpus_column,
                "batch_size": BATCH_SIZE,
            }
        )

    @classmethod
    def of_file(cls, path: Path, texts: int) -> "Corpus":
        """The user's own texts, see `own_documents`."""
        few = max(2, min(HELD_OUT, texts // OF_TEXTS))
        batch_size = max(1, min(BATCH_SIZE, texts - few))
        lengths = {"held_out": few, "init_sequences": few, "batch_size": batch_size}
        return cls({"corpus": str(path), "text_column": COLUMN} | lengths)


def own_documents(args: TaskArguments, rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The texts of rows as documents to learn from: every text once, short ones joined.

    A list of words is one text. What is shorter than a few tokens would be left out of a corpus.

    Args:
        args: Which columns hold texts.
        rows: The rows.
        tokenizer: What tells how long a text is.

    Raises:
        InputError: if there are too few.
    """
    texts: dict[str, None] = {}
    for row in rows.select_columns(list(args.text_columns())):
        for value in row.values():
            text = " ".join(map(str, value)) if isinstance(value, list) else value
            if isinstance(text, str) and text.strip():
                texts.setdefault(text)
    lengths = [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]] if texts else []
    documents, joined, tokens = [], "", 0
    for text, length in zip(texts, lengths):
        joined, tokens = f"{joined} {text}".lstrip(), tokens + length
        if tokens >= SHORTEST:
            documents.append(joined)
            joined, tokens = "", 0
    if joined and documents:
        documents[-1] += f" {joined}"
    if len(documents) < LEAST:
        raise InputError(
            f"data {args.source()!r}: makes {len(documents)} documents to learn from, too few: at least {LEAST} "
            "are needed; give --corpus"
        )
    return documents


def write_documents(documents: Sequence[str], path: Path) -> None:
    """Writes a corpus as JSON lines with the column `COLUMN`."""
    with writing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for text in documents:
            file.write(json.dumps({COLUMN: text}) + "\n")
