"""Few-shot supernets: several that share the space out among them, where one would have to be good at everything.

As in Few-Shot NAS (Zhao et al., 2021) and AutoDistil (Xu et al., 2022, K=3): weights that fewer and more alike
architectures share are nearer to what each of them would learn alone.
"""

import random
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from efficientbert.search.space.architecture import Architecture
from efficientbert.search.supernet.supernet import Supernet
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.capture import Captures
from efficientbert.train.distillation.student import Student


DRAWS = 1000  # architectures whose numbers of networks divide the space


def count_networks(architecture: Architecture) -> int:
    """Feed-forward networks of all layers."""
    return sum(layer.stack for layer in architecture.layers)


@dataclass(frozen=True)
class Partition:
    """Divides architectures by their number of feed-forward networks, few to many.

    Within a budget all cost alike. What tells them apart is whether they are many narrow networks or few wide ones,
    and the later networks of a stack are trained by the former only.

    Attributes:
        bounds: Least number of networks in every part but the first, rising.
    """

    bounds: tuple[int, ...]

    @classmethod
    def quantiles(cls, sample: Callable[[random.Random], Architecture], parts: int, seed: int) -> "Partition":
        """Parts that are drawn about equally often.

        Args:
            sample: Draws a valid architecture.
            parts: How many.
            seed: Decides the draws.

        Raises:
            InputError: if the architectures do not differ enough to be divided so often.
        """
        rng = random.Random(f"partition {seed}")
        numbers = sorted(count_networks(sample(rng)) for _ in range(DRAWS))
        bounds = tuple(numbers[DRAWS * part // parts] for part in range(1, parts))
        if len({numbers[0], *bounds}) < parts:
            raise InputError(
                f"supernets: architectures of this space have {numbers[0]} to {numbers[-1]} feed-forward networks, "
                f"which cannot be divided into {parts} parts; ask for fewer"
            )
        return cls(bounds)

    def __call__(self, architecture: Architecture) -> int:
        """Number of the part that an architecture falls into, counted from 0."""
        return bisect_right(self.bounds, count_networks(architecture))


class FewShotSupernet(nn.Module):
    """Supernets that start from one, already warmed up, and each run and train the architectures of their own part.

    A step trains only the supernets of its architectures: K supernets share the steps, and each gets as many as one
    alone in K times as many. Memory of weights and optimizer grows with K.

    Args:
        warm: Where all start from; it is copied.
        partition: Which supernet an architecture is a part of.
    """

    def __init__(self, warm: Supernet, partition: Partition):
        super().__init__()
        self.partition = partition
        supernets = []
        for _ in range(len(partition.bounds) + 1):
            supernet = Supernet(warm.base, warm.largest, warm.teacher_size)
            supernet.load_state_dict(warm.state_dict())
            supernet.whole.encoder.set_attn_implementation(warm.whole.encoder.config._attn_implementation)
            supernets.append(supernet)
        held = nn.ModuleList(supernets).to(warm.whole.encoder.device)
        self.supernets = cast(Sequence[Supernet], held)  # whose type does not say what it holds

    def for_architecture(self, architecture: Architecture) -> Supernet:
        """The supernet of an architecture."""
        return self.supernets[self.partition(architecture)]

    def forward(self, architecture: Architecture, **batch: torch.Tensor) -> Captures:
        """See [`Supernet.forward`]."""
        return self.for_architecture(architecture)(architecture, **batch)

    def extract(self, architecture: Architecture) -> Student:
        """See [`Supernet.extract`]."""
        return self.for_architecture(architecture).extract(architecture)
