"""In what order rows are trained on: a pure function of the seed and the epoch, so that resumed runs see the same."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import IterableDataset, Sampler

from efficientbert.train.files.data_files import reading


BLOCK_BATCHES = 50  # batches among which rows are sorted by length


class EpochSampler(Sampler[int]):
    """All indices in an order that depends on the seed and the epoch alone, so that a resumed run sees the same.

    `SeedableRandomSampler` of accelerate adds seed and epoch: the second epoch of one seed is then the first of the
    next, and who goes on with another seed would see the same order again.
    """

    def __init__(self, size: int, seed: int):
        self.size = size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of an epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return iter(torch.randperm(self.size, generator=generator).tolist())

    def __len__(self) -> int:
        return self.size


class LengthSampler(EpochSampler):
    """Batches of rows of like length: all rows are shuffled, sorted within blocks of many batches, cut into batches,
    and these are shuffled again. What does not fill a batch stands last, and is another in every epoch.

    Args:
        lengths: Of every row.
        rows_a_batch: Rows of one batch, over all processes together.
        seed: Seed of the order.
    """

    def __init__(self, lengths: Sequence[int], rows_a_batch: int, seed: int):
        super().__init__(len(lengths), seed)
        self.lengths = lengths
        self.rows_a_batch = rows_a_batch

    def __iter__(self) -> Iterator[int]:
        order = list(super().__iter__())
        whole = len(order) // self.rows_a_batch * self.rows_a_batch
        # Small data has two blocks at least, or every epoch would have the same batches.
        block = self.rows_a_batch * min(BLOCK_BATCHES, math.ceil(whole / self.rows_a_batch / 2))
        batches = []
        for start in range(0, whole, max(1, block)):
            rows = sorted(order[start : min(start + block, whole)], key=self.lengths.__getitem__)
            batches += [rows[i : i + self.rows_a_batch] for i in range(0, len(rows), self.rows_a_batch)]
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        shuffled = torch.randperm(len(batches), generator=generator).tolist()
        return iter([row for index in shuffled for row in batches[index]] + order[whole:])


class Stream(IterableDataset):
    """A stream as every process reads it, whole: accelerate then takes for each process its rows of every batch.

    Streams of `datasets` it would divide by files instead: unevenly, in an order that depends on the number of
    processes, and with rows that were skipped because they are held out.

    Args:
        rows: A stream of rows, with `set_epoch` where its order depends on the epoch.
    """

    def __init__(self, rows: Iterable[dict[str, Any]]):
        self.rows = rows

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of an epoch."""
        if hasattr(self.rows, "set_epoch"):
            self.rows.set_epoch(epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        with reading("data"):
            yield from self.rows
