"""A corpus made ready for one teacher: what is held out, a sample, and what is trained on."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.arguments import EmbedArguments
from efficientbert.train.distillation.embeddings import EmbeddingTeacher
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.files.digests import digest, digest_files, digest_rows
from efficientbert.train.text.arguments import CorpusArguments
from efficientbert.train.text.batches import PaddingCollator, batches
from efficientbert.train.text.corpus import SHORTEST, cut_documents, hold_out, load_documents
from efficientbert.train.text.packing import PackingCollator, check_packing, pack_sequences
from efficientbert.train.text.passages import cut_passages


@dataclass(frozen=True)
class Text:
    """A corpus ready for one teacher: held-out and sample rows, and the sequences to train on.

    `collator` makes batches of the latter, `padding` of the others.
    """

    held_out: list[dict[str, Any]]
    sample: list[dict[str, Any]]
    training: Any
    collator: Callable[[list], dict[str, torch.Tensor]]
    padding: PaddingCollator

    def digest(self, args: CorpusArguments) -> str:
        """A checksum of all its rows; of a stream those that were read, and its files where they are here."""
        if not args.streaming:
            return digest(digest_rows(self.held_out), digest_rows(self.training))
        files = digest_files(args.corpus) if Path(args.corpus).exists() else ""
        return digest(digest_rows(self.held_out), digest_rows(self.sample), files)

    def sample_batch(self, device: torch.device) -> dict[str, torch.Tensor]:
        """The sample as one batch."""
        return next(batches(self.sample, len(self.sample), self.padding, device))


def check_max_length(length: int, longest: int, teacher: str) -> None:
    """Refuses sequences that are too short, or longer than a teacher takes.

    Raises:
        InputError: naming the bounds.
    """
    if not SHORTEST <= length <= longest:
        raise InputError(
            f"max_length: must be between {SHORTEST} and the {longest} tokens of teacher {teacher!r}, not {length}"
        )


def divide_corpus(
    args: CorpusArguments,
    cut: Callable[..., Any],
    tokenizer: PreTrainedTokenizerBase,
    longest: int,
    teacher: str,
    batch_size: int,
    seed: int,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], Any]:
    """Loads a corpus, cuts it, and divides it: held-out rows, a sample of the training rows, and the training rows.

    Args:
        args: Where it comes from.
        cut: `cut_documents`, or another function that takes and gives the same.
        tokenizer: The teacher's.
        longest: Tokens that the teacher takes.
        teacher: Its name, for messages.
        batch_size: Rows of a whole batch; at least one is needed.
        seed: Of the order in which a stream is read.

    Raises:
        InputError: if it cannot be loaded, is too short, or its sequences are longer than the teacher takes.
    """
    check_max_length(args.max_length, longest, teacher)
    documents = load_documents(args.corpus, args.corpus_name, args.corpus_split, args.text_column, args.streaming)
    rows = cut(documents, args.text_column, tokenizer, args.max_length, args.corpus)
    held_out, training = hold_out(rows, args.held_out, max(batch_size, args.init_sequences), args.corpus)
    sample = list(training.take(args.init_sequences))
    if args.streaming:
        training = training.shuffle(seed=seed, buffer_size=10_000)
    return held_out, sample, training


def prepare_text(args: CorpusArguments, teacher: Teacher, batch_size: int, seed: int) -> Text:
    """The text that a teacher distils, packed if it is asked for; see `divide_corpus`.

    Raises:
        InputError: as `divide_corpus`, or if the teacher cannot keep packed sequences apart.
    """
    held_out, sample, training = divide_corpus(
        args, cut_documents, teacher.tokenizer, teacher.max_positions, teacher.name, batch_size, seed
    )
    padding = PaddingCollator(teacher.tokenizer.pad_token_id)
    collator: PaddingCollator | PackingCollator = padding
    if args.packing:
        check_packing(teacher)
        training = pack_sequences(training, args.max_length)
        collator = PackingCollator(teacher.tokenizer.pad_token_id)
    return Text(held_out, sample, training, collator, padding)


def prepare_passages(args: EmbedArguments, teacher: EmbeddingTeacher, batch_size: int) -> Text:
    """The passages whose embeddings a teacher distils, each behind its default prompt; see `divide_corpus`."""
    cut = partial(cut_passages, prompt=teacher.prompt)
    held_out, sample, training = divide_corpus(
        args, cut, teacher.tokenizer, teacher.max_seq_length, teacher.name, batch_size, args.seed
    )
    collator = PaddingCollator(teacher.tokenizer.pad_token_id)
    return Text(held_out, sample, training, collator, collator)
