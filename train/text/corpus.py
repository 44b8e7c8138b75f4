"""Unlabelled text: documents from any `datasets` source, cut to sequences of a fixed length."""

from collections.abc import Callable
from typing import Any

from datasets import Dataset, IterableDataset
from transformers import PreTrainedTokenizerBase

from efficientbert.train.cli.errors import InputError
from efficientbert.train.files.data_files import check_column, reading
from efficientbert.train.files.loading import load_data


SHORTEST = 8  # tokens; shorter documents carry too little to learn from


def load_documents(
    source: str, name: str | None, split: str, column: str, streaming: bool
) -> Dataset | IterableDataset:
    """Documents, one a row, in the column `column`.

    Args:
        source: A Hub id, a folder that `load_dataset` understands, a file (text: a document a line), or a pattern of
            files.
        name: Configuration of the data set.
        split: Split or slice of it, such as `train[:1000]` (a slice is not for streaming).
        column: Name of the text column.
        streaming: Whether to read it as it is needed, rather than cache it as a whole.

    Raises:
        InputError: if it cannot be loaded or has no such column.
    """
    documents = load_data(source, name, split, "corpus", streaming)
    with reading(f"corpus {source!r}"):
        columns = documents.column_names or list(next(iter(documents), {}))
    check_column(column, columns, f"corpus {source!r}")
    return documents


def check_texts(texts: list[Any], indices: list[int], column: str, source: str) -> list[str]:
    """Documents of a block of rows; one that is missing is empty.

    Raises:
        InputError: naming the row of a document that is no text.
    """
    for text, index in zip(texts, indices):
        if text is not None and not isinstance(text, str):
            raise InputError(f"corpus {source!r}: row {index}: {column!r} is {text!r:.50}, not a text")
    return [text or "" for text in texts]


def cut_documents(
    documents: Dataset | IterableDataset,
    column: str,
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    source: str = "",
) -> Dataset | IterableDataset:
    """Sequences of at most `length` tokens, each from one document, with the tokenizer's special tokens.

    A document's last piece is kept if it fills half a sequence, or is the only one and no shorter than `SHORTEST`.
    With cached documents the result is cached on disk by `datasets` and found again by the next run.

    Args:
        documents: As of `load_documents`.
        column: Name of the text column.
        tokenizer: What to cut them to tokens with.
        length: Tokens of a full sequence.
        source: Where the documents come from, for messages.

    Returns:
        Rows with `input_ids`.

    Raises:
        InputError: when a row is reached whose document is no text.
    """

    def cut(rows: dict[str, list], indices: list[int]) -> dict[str, list]:
        pieces = tokenizer(
            check_texts(rows[column], indices, column, source),
            truncation=True,
            max_length=length,
            return_overflowing_tokens=True,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        origins = pieces["overflow_to_sample_mapping"]
        kept = []
        for index, ids in enumerate(pieces["input_ids"]):
            only = origins.count(origins[index]) == 1 if len(ids) < length // 2 else False
            if len(ids) >= (SHORTEST if only else length // 2):
                kept.append(ids)
        return {"input_ids": kept}

    return map_documents(documents, cut)


def map_documents(
    documents: Dataset | IterableDataset, cut: Callable[[dict[str, list], list[int]], dict[str, list]]
) -> Dataset | IterableDataset:
    """The rows that `cut` makes of blocks of documents and their numbers; as many as it likes."""
    options: dict[str, Any] = {} if isinstance(documents, IterableDataset) else {"desc": "Tokenising"}
    names = documents.column_names or list(next(iter(documents)))
    return documents.map(cut, batched=True, with_indices=True, batch_size=64, remove_columns=names, **options)


def hold_out(
    sequences: Dataset | IterableDataset, held_out: int, needed: int, source: str
) -> tuple[list[dict[str, Any]], Dataset | IterableDataset]:
    """The first `held_out` sequences, for scoring, and the rest, for training.

    Raises:
        InputError: if fewer than `needed` sequences are left for training.
    """
    with reading(f"corpus {source!r}"):
        first = list(sequences.take(held_out + needed))
    if len(first) < held_out + needed:
        raise InputError(
            f"corpus {source!r}: gives {len(first)} sequences, too few: at least {held_out + needed} are needed, "
            f"{held_out} of them held out"
        )
    return first[:held_out], sequences.skip(held_out)
