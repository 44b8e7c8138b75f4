"""Packing: rows filled with several sequences that do not see each other."""

from typing import Any

import torch
from datasets import Dataset, IterableDataset

from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.text.batches import pad


BUFFER = 1000  # sequences among which rows are filled


@torch.no_grad()
def check_packing(teacher: Teacher) -> None:
    """Two sequences in one row must give what they give alone.

    Raises:
        InputError: if the teacher takes no positions or masks of pairs, or makes something else of them.
    """
    ids = torch.randint(0, len(teacher.tokenizer), (7,), generator=torch.Generator().manual_seed(0))
    ids[ids == teacher.tokenizer.pad_token_id] = teacher.tokenizer.unk_token_id or 0
    packed = PackingCollator(teacher.tokenizer.pad_token_id)([{"input_ids": ids, "lengths": [4, 3]}])
    alone = {"input_ids": ids[None, 4:], "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    try:
        found, expected = (
            teacher({name: tensor.to(teacher.model.device) for name, tensor in batch.items()}).hidden_states[-1][
                :, -3:
            ]
            for batch in (packed, alone)
        )
        same = torch.allclose(found.float(), expected.float(), rtol=1e-2, atol=1e-2)
    except (IndexError, RuntimeError, TypeError, ValueError):
        same = False
    if not same:
        raise InputError(
            f"teacher {teacher.name!r}: model type {teacher.model.config.model_type!r} cannot keep sequences of one "
            "row apart; run it with --packing false"
        )


def pack_sequences(sequences: Dataset | IterableDataset, length: int) -> Dataset | IterableDataset:
    """Rows of several sequences, as full as the best fit within every `BUFFER` sequences makes them.

    Memory does not grow with the corpus, and the rows are a pure function of the sequences. With a cached corpus the
    result is cached on disk by `datasets` and found again by the next run.

    Args:
        sequences: Rows with `input_ids` of at most `length` tokens.
        length: Tokens of a full row.

    Returns:
        Rows with `input_ids`, one sequence behind the other, and `lengths`, the tokens of each.
    """

    def pack(rows: dict[str, list]) -> dict[str, list]:
        packed: dict[str, list] = {"input_ids": [], "lengths": []}
        for chosen in best_fit([len(ids) for ids in rows["input_ids"]], length):
            packed["input_ids"].append([token for index in chosen for token in rows["input_ids"][index]])
            packed["lengths"].append([len(rows["input_ids"][index]) for index in chosen])
        return packed

    options: dict[str, Any] = {} if isinstance(sequences, IterableDataset) else {"desc": "Packing"}
    return sequences.map(pack, batched=True, batch_size=BUFFER, remove_columns=["input_ids"], **options)


def best_fit(lengths: list[int], capacity: int) -> list[list[int]]:
    """Puts sequences into rows: the longest first, each into the fullest row that still has room for it.

    Args:
        lengths: Tokens of every sequence, at most `capacity` each.
        capacity: Tokens of a full row.

    Returns:
        For every row, in the order of their first sequences, the indices of its sequences in rising order.
    """
    rows: list[list[int]] = []
    by_room: list[list[int]] = [[] for _ in range(capacity + 1)]  # rows by the tokens they have room for
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        length = lengths[index]
        room = next((room for room in range(length, capacity + 1) if by_room[room]), None)
        if room is None:
            room, row = capacity, len(rows)
            rows.append([])
        else:
            row = by_room[room].pop()
        rows[row].append(index)
        by_room[room - length].append(row)
    return sorted(sorted(row) for row in rows)


class PackingCollator:
    """Makes packed batches of rows of `pack_sequences`, padded to the longest row of the batch.

    Args:
        pad_token_id: What to pad with.
    """

    def __init__(self, pad_token_id: int):
        self.pad_token_id = pad_token_id

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask`, `position_ids` and `sequence_ids`, each of shape `(B, L)`."""
        lengths = [torch.as_tensor(row["lengths"]) for row in rows]
        sequences = [torch.repeat_interleave(torch.arange(1, len(parts) + 1), parts) for parts in lengths]
        return {
            "input_ids": pad([row["input_ids"] for row in rows], self.pad_token_id),
            "attention_mask": pad([torch.ones_like(ids) for ids in sequences]),
            "position_ids": pad([torch.cat([torch.arange(part) for part in parts]) for parts in lengths]),
            "sequence_ids": pad(sequences),
        }
