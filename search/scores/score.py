"""What a score is: it rates an architecture by a loss, so a lower score is better."""

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from accelerate.utils import set_seed

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.search.space.architecture import Architecture
from efficientbert.train.distillation.arguments import LossArguments
from efficientbert.train.distillation.loss_choice import make_recipe
from efficientbert.train.distillation.objective import GeneralDistillation
from efficientbert.train.distillation.scales import Scales
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.engine.finite import NotFiniteError


ReportRung = Callable[[float, int], None]
"""Told the loss behind a rung, and the rung's number from 0, before an evaluation is at its end; what it raises ends
the evaluation, and goes through to whoever asked for it. The last loss of all is returned, not reported. Losses of one
rung are comparable between candidates, those of two rungs are not. Every process of a group calls it, with one and the
same loss: it must raise in all of them or in none."""


class Score(Protocol):
    """Rates an architecture by a loss: the lower, the better."""

    def __call__(self, architecture: Architecture, report: ReportRung | None = None) -> float:
        """The loss of an architecture; scores in a single step have nothing to report.

        Raises:
            NotFiniteError: if it is no finite number: the candidate has failed.
        """


def finite(loss: float, what: str) -> float:
    """The loss itself.

    Raises:
        NotFiniteError: if it is no finite number, naming `what` it was measured on.
    """
    if not math.isfinite(loss):
        raise NotFiniteError(f"{what}: the loss is {loss}, not a finite number")
    return loss


@contextmanager
def isolated_randomness(seed: int) -> Iterator[None]:
    """Seeds all global random generators, and gives them back as they were.

    Args:
        seed: What is drawn within depends on it alone, not on what was drawn before.
    """
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else []):
            set_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@dataclass(frozen=True)
class ParameterCount:
    """Minus the parameters: what every other score must beat.

    Attributes:
        parameters: Exact number of an architecture's parameters.
    """

    parameters: Callable[[Architecture], float]

    def __call__(self, architecture: Architecture, report: ReportRung | None = None) -> float:
        """The loss; see `Score`."""
        return -self.parameters(architecture)


def objectives(
    args: LossArguments, base: EfficientBertConfig, teacher: Teacher, scales: Scales
) -> Callable[[Architecture], GeneralDistillation]:
    """The general distillation of every architecture: which layers are compared depends on its depth.

    Args:
        args: The losses.
        base: What no architecture decides.
        teacher: The teacher.
        scales: Its variances.
    """

    def objective(architecture: Architecture) -> GeneralDistillation:
        return GeneralDistillation(teacher, scales, make_recipe(args, architecture.to_config(base), teacher))

    return objective
