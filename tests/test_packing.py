"""Packed rows: packed equals separate, for students and teachers."""

import torch

from efficientbert.train.packing import pair_mask


def test_pairs_are_of_one_sequence_and_valid():
    unpacked = {"attention_mask": torch.tensor([[1, 1, 0], [1, 1, 1]])}
    expected = torch.tensor([[[1, 1, 0], [1, 1, 0], [0, 0, 0]], [[1, 1, 1]] * 3]).bool()
    assert torch.equal(pair_mask(unpacked), expected)
    packed = {"attention_mask": torch.tensor([[1, 1, 1, 0]]), "sequence_ids": torch.tensor([[1, 2, 2, 0]])}
    expected = torch.tensor([[[1, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]]).bool()
    assert torch.equal(pair_mask(packed), expected)
