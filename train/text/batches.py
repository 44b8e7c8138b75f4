"""Batches of sequences, and how an encoder takes them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch


def pad(values: Iterable[Sequence[int] | torch.Tensor], padding: int = 0) -> torch.Tensor:
    """Sequences of different length as one tensor of shape `(B, L)`, padded on the right."""
    tensors = [torch.as_tensor(value) for value in values]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=padding)


class PaddingCollator:
    """Pads rows of `input_ids` to the longest of the batch.

    Args:
        pad_token_id: What to pad with.
    """

    def __init__(self, pad_token_id: int):
        self.pad_token_id = pad_token_id

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """`input_ids` and `attention_mask`, each of shape `(B, L)`."""
        ids = [row["input_ids"] for row in rows]
        return {"input_ids": pad(ids, self.pad_token_id), "attention_mask": pad([[1] * len(row) for row in ids])}


def batches(
    rows: list[dict[str, Any]],
    batch_size: int,
    collator: Callable[[list], dict[str, torch.Tensor]],
    device: torch.device,
) -> Iterator[dict[str, torch.Tensor]]:
    """Collated batches of `rows` in order, on a device."""
    for start in range(0, len(rows), batch_size):
        batch = collator(rows[start : start + batch_size])
        yield {key: tensor.to(device) for key, tensor in batch.items()}


def sequence_ids(batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Which of a row's sequences a token is of: 1, 2, … in a packed batch, else 1; 0 at padding.

    Args:
        batch: `attention_mask` and, if packed, `sequence_ids`, each of shape `(B, L)`.

    Returns:
        Shape `(B, L)`.
    """
    return batch["sequence_ids"] if "sequence_ids" in batch else batch["attention_mask"]


def pool_sequences(states: torch.Tensor, sequences: torch.Tensor) -> torch.Tensor:
    """The mean of every sequence's hidden states, in at least float32.

    Args:
        states: Shape `(B, L, W)`.
        sequences: As of `sequence_ids`, of shape `(B, L)`.

    Returns:
        Shape `(B, S, W)` for at most S sequences a row; zeros where a row has fewer.
    """
    wide = states.to(torch.promote_types(states.dtype, torch.float32))
    numbers = torch.arange(1, int(sequences.max()) + 1, device=sequences.device)
    members = (sequences[:, None, :] == numbers[:, None]).to(wide.dtype)
    with torch.autocast(states.device.type, enabled=False):
        return members @ wide / members.sum(-1, keepdim=True).clamp_min(1)


def pair_mask(batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Which key counts for which query: both valid and, in a packed batch, of the same sequence.

    Args:
        batch: As of `sequence_ids`.

    Returns:
        Boolean, of shape `(B, L, L)`.
    """
    sequences = sequence_ids(batch)
    return (sequences[:, :, None] == sequences[:, None, :]) & (sequences != 0)[:, :, None]


def encoder_inputs(
    batch: Mapping[str, torch.Tensor], dtype: torch.dtype, position_offset: int = 0
) -> dict[str, torch.Tensor]:
    """What an encoder is called with: an unpacked batch as it is, a packed one with an additive mask of pairs.

    Args:
        batch: `input_ids`, `attention_mask` and, if packed, `position_ids` and `sequence_ids`, each `(B, L)`.
        dtype: The encoder's.
        position_offset: Number of the encoder's first position.

    Returns:
        Arguments of the encoder; the mask of a packed batch has the shape `(B, 1, L, L)`.
    """
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch}
    if "sequence_ids" in batch:
        # Padding sees itself: a softmax over nothing would be no number.
        visible = pair_mask(batch) | torch.eye(
            batch["input_ids"].shape[1], dtype=torch.bool, device=batch["input_ids"].device
        )
        mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
        inputs["attention_mask"] = mask.masked_fill_(~visible, torch.finfo(dtype).min)[:, None]
        inputs["position_ids"] = batch["position_ids"] + position_offset
    return inputs
