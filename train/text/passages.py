"""Unlabelled text for sentence embeddings: single sentences and short passages, as they will be embedded in use.

An embedder meets queries, sentences and paragraphs, seldom pieces of a fixed length that begin in mid-sentence: so
documents are divided at the ends of sentences and lines, and one or more neighbours make a passage.
"""

import re
import zlib

from datasets import Dataset, IterableDataset
from transformers import PreTrainedTokenizerBase

from efficientbert.train.cli.errors import InputError
from efficientbert.train.text.corpus import check_texts, map_documents


# Where a sentence or a line ends. An abbreviation cuts a sentence in two, which a teacher embeds as well.
BOUNDARY = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\s*\n\s*")
SENTENCES = (1, 1, 2, 1, 4)  # in a passage, in turn
SHORTEST = 5  # tokens; shorter pieces are headings and debris


def passages(text: str) -> list[str]:
    """The passages of a document, together all of it, each a literal excerpt of one, two or four sentences.

    The turn in which the lengths come starts at a place that depends on the text, so that the first sentences of
    documents, which are of a kind of their own, are not always alone.
    """
    matches = list(BOUNDARY.finditer(text))
    starts = [0, *(match.end() for match in matches)]
    ends = [*(match.start() for match in matches), len(text)]
    sentences = [(start, end) for start, end in zip(starts, ends) if text[start:end].strip()]
    turn = zlib.crc32(text.encode(errors="replace"))
    found = []
    index = 0
    while index < len(sentences):
        last = min(index + SENTENCES[turn % len(SENTENCES)], len(sentences)) - 1
        found.append(text[sentences[index][0] : sentences[last][1]].strip())
        index = last + 1
        turn += 1
    return found


def cut_passages(
    documents: Dataset | IterableDataset,
    column: str,
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    source: str = "",
    prompt: str = "",
) -> Dataset | IterableDataset:
    """Passages of documents as tokens, with the tokenizer's special tokens; longer ones go on in further rows, or are
    cut where each begins with a prompt.

    With cached documents the result is cached on disk by `datasets` and found again by the next run.

    Args:
        documents: As of `load_documents`.
        column: Name of the text column.
        tokenizer: The teacher's.
        length: Most tokens in a row.
        source: Where the documents come from, for messages.
        prompt: What stands before every passage.

    Returns:
        Rows with `input_ids`, of `SHORTEST` to `length` tokens, and their number, `length`. Those of a prompt count
        to `length` alone.

    Raises:
        InputError: if the prompt leaves no room to a passage; when a row is reached whose document is no text.
    """
    least = SHORTEST + len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    if prompt and length < least:
        raise InputError(
            f"max_length: must be at least {least} with the teacher's default prompt {prompt!r}, not {length}"
        )

    def cut(rows: dict[str, list], indices: list[int]) -> dict[str, list]:
        given = check_texts(rows[column], indices, column, source)
        texts = [passage for text in given for passage in passages(text)]
        if not texts:
            return {"input_ids": [], "length": []}
        pieces = tokenizer(
            [prompt + text for text in texts],
            truncation=True,
            max_length=length,
            return_overflowing_tokens=not prompt,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        kept = [ids for ids in pieces["input_ids"] if len(ids) >= least]
        return {"input_ids": kept, "length": [len(ids) for ids in kept]}

    return map_documents(documents, cut)
