"""Packed batches: several sequences a row, each seeing itself alone, so that hardly anything is padding."""

from collections.abc import Mapping

import torch


def pair_mask(batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Which key counts for which query: both valid and, in a packed batch, of the same sequence.

    Args:
        batch: `attention_mask` and, if packed, `sequence_ids` (1, 2, … within a row, 0 at padding), each `(B, L)`.

    Returns:
        Boolean, of shape `(B, L, L)`.
    """
    sequences = batch["sequence_ids"] if "sequence_ids" in batch else batch["attention_mask"]
    return (sequences[:, :, None] == sequences[:, None, :]) & (sequences != 0)[:, :, None]
