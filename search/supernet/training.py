"""Training of a supernet: its largest architecture, then architectures that are sampled anew at every step.

Which architectures a step trains depends on the seed and the step alone: every process of a group, every batch of a
step and a run that was resumed draw the same.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

import torch
from torch import nn

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.search.space.architecture import Architecture, LayerChoice, Shape, Sizes
from efficientbert.search.space.expressions import PLAIN, fits, spread_expressions
from efficientbert.search.space.space import SearchSpace
from efficientbert.slicing_efficientbert import nearest_layers
from efficientbert.train.distillation.arguments import MOST_RELATION_HEADS, LossArguments
from efficientbert.train.distillation.capture import Captures
from efficientbert.train.distillation.loss_choice import make_recipe
from efficientbert.train.distillation.losses import count_valid, total
from efficientbert.train.distillation.multitask_objective import MultitaskObjective
from efficientbert.train.distillation.objective import GeneralDistillation
from efficientbert.train.distillation.scales import Scales
from efficientbert.train.distillation.task_objective import TaskObjective


@dataclass(frozen=True)
class LargestInTurns:
    """The warm-up: every step trains the largest architecture, and with it all weights of the supernet.

    With `gate` the steps take turns: plain networks (as published), then gated ones. Weights that had only learned to
    be multiplied by a gate would be worth little to the candidates without one.

    Attributes:
        architectures: The largest architecture with plain networks and, where gates are allowed, with gated ones.
    """

    architectures: tuple[Architecture, ...]

    @classmethod
    def of(cls, largest: Architecture) -> "LargestInTurns":
        """Those of a supernet's largest architecture."""
        plain = replace(largest, layers=tuple(replace(layer, expression=PLAIN) for layer in largest.layers))
        return cls((plain,) if plain == largest else (plain, largest))

    def __call__(self, step: int) -> tuple[Architecture, ...]:
        """The one architecture of a step, counted from 0."""
        return (self.architectures[step % len(self.architectures)],)


@dataclass(frozen=True)
class Candidates:
    """Which architectures every step trains, sampled anew.

    By default one a step, as published. The sandwich rule trains the largest, the smallest and some random ones at
    every step, so that what lies between them improves with its bounds (Yu and Huang, Universally Slimmable Networks,
    2019; BigNAS, 2020); a step then costs as much as all of them together.

    Attributes:
        sample: Draws a valid architecture.
        largest: The largest architecture.
        seed: Decides all draws.
        smallest: The smallest architecture; makes every step a sandwich.
        num_random: Random architectures in a sandwich.
    """

    sample: Callable[[random.Random], Architecture]
    largest: Architecture
    seed: int
    smallest: Architecture | None = None
    num_random: int = 2

    def __call__(self, step: int) -> tuple[Architecture, ...]:
        """The architectures of a step, counted from 0; of several, the largest comes first."""
        rng = random.Random(f"supernet {self.seed} {step}")
        if self.smallest is None:
            return (self.sample(rng),)
        return (self.largest, self.smallest, *(self.sample(rng) for _ in range(self.num_random)))


def bounds(space: SearchSpace) -> tuple[Architecture, Architecture]:
    """The largest and the smallest architecture of a space, whatever the budgets: the bounds of a sandwich.

    They have the space's expressions where these are fixed, and else those of the supernet and of a plain network.
    Where an expression fits no wider network, the largest has the widest that it fits. Both have attention in all
    layers where it is not fixed.
    """
    top, choices = space.largest(), space.choices
    depth, shape = min(space.shapes, key=lambda pair: (pair[0], *astuple(pair[1])))
    first, attention = top.layers[0], next(pair for pair in space.attentions(shape.hidden_size) if pair[0])
    smallest = Sizes(min(choices.stacks), min(choices.widths(shape.hidden_size)), *attention)
    largest = _bound(space, len(top.layers), top.shape, first.expression, first.sizes, max)
    return largest, _bound(space, depth, shape, PLAIN, smallest, min)


def _bound(
    space: SearchSpace,
    depth: int,
    shape: Shape,
    expression: str,
    sizes: Sizes,
    choose: Callable[[list[int]], int],
) -> Architecture:
    """One of the bounds: `expression`, `sizes` and, of all that fit, the width that is chosen, where none is fixed."""
    texts = [expression] * depth
    if space.expressions:
        texts = spread_expressions(space.expressions, depth)
    layers = []
    for index, text in enumerate(texts):
        widths = [width for width in space.choices.widths(shape.hidden_size) if fits(text, width > shape.hidden_size)]
        own = space.sizes[index] if space.sizes else sizes._replace(intermediate_size=choose(widths))
        layers.append(LayerChoice(text, *own))
    return Architecture(shape, tuple(layers))


class Slices(nn.Module):
    """A supernet that runs several architectures in one call: processes of a group count calls, one a step.

    Args:
        supernet: A `Supernet` or `FewShotSupernet`.
    """

    def __init__(self, supernet: nn.Module):
        super().__init__()
        self.supernet = supernet

    def forward(self, architectures: Sequence[Architecture], **batch: torch.Tensor) -> tuple[Captures, ...]:
        """Captures of every architecture."""
        return tuple(self.supernet(architecture, **batch) for architecture in architectures)


class SupernetDistillation:
    """General distillation of a step's architectures; its model is `Slices`. The loss is the mean of theirs.

    Args:
        objective: What an architecture learns from the teacher: layers are matched by its depth.
        candidates: The architectures of every step: `LargestInTurns` or `Candidates`.
        in_place: Whether in a sandwich all others learn from the largest instead of the teacher, from what it makes of
            the same batch (BigNAS, 2020; DynaBERT, 2020). They are compared in the teacher's width, through the one
            projection that all share: so different widths can be, and no weights are needed that an extracted slice
            would not have.
    """

    def __init__(
        self,
        objective: Callable[[Architecture], GeneralDistillation],
        candidates: Callable[[int], tuple[Architecture, ...]],
        in_place: bool = False,
    ):
        self.objective = objective
        self.candidates = candidates
        self.in_place = in_place

    def count(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """See `efficientbert.train.engine.loop.Objective`."""
        return count_valid(batch)

    def __call__(
        self, model: nn.Module, batch: Mapping[str, torch.Tensor], counts: Mapping[str, torch.Tensor], step: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `efficientbert.train.engine.loop.Objective`."""
        architectures = self.candidates(step)
        first = self.objective(architectures[0])
        teacher = first.teacher(batch)
        captures = model(architectures, **batch)
        found = [first.loss(captures[0], teacher, batch, counts)]
        target = detached(captures[0]) if self.in_place else teacher
        for architecture, mine in zip(architectures[1:], captures[1:]):
            objective = self.objective(architecture)
            if self.in_place:
                objective = in_place_objective(objective, architecture, first, architectures[0])
            found.append(objective.loss(mine, target, batch, counts))
        share = 1 / len(found)
        means = {name: share * total([terms[name] for _, terms in found]) for name in found[0][1]}
        return share * total([loss for loss, _ in found]), means


def detached(captures: Captures) -> Captures:
    """Captures to learn from: without a gradient."""

    def cut(part: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return tuple(tensor if tensor is None else tensor.detach() for tensor in part)  # None without attention

    return Captures(cut(captures.hidden_states), cut(captures.queries), cut(captures.keys), cut(captures.values))


def in_place_objective(
    objective: GeneralDistillation, architecture: Architecture, teaching: GeneralDistillation, largest: Architecture
) -> GeneralDistillation:
    """What an architecture learns from the largest one instead of the teacher.

    Every layer is compared with the one it is a slice of, and its loss divided by the variance of the teacher's layer
    that the latter is compared with, which puts it on the scale of the losses it stands for.

    Args:
        objective: What the architecture learns from the teacher: its losses and their weights stay.
        architecture: The architecture.
        teaching: What the largest architecture learns from the teacher.
        largest: The largest architecture.
    """
    origins = nearest_layers(len(architecture.layers), len(largest.layers))
    states = tuple((mine, 0 if mine == 0 else origins[mine - 1] + 1) for mine, _ in objective.recipe.states)
    taught, variances = dict(teaching.recipe.states), teaching.scales
    hidden_states, pooled_states = (
        tuple(known[taught[state]] if state in taught else 1.0 for state in range(len(largest.layers) + 1))
        for known in (variances.hidden_states, variances.pooled_states)
    )
    attention_scores = tuple(
        variances.attention_scores[taught[state] - 1] if state in taught else 1.0
        for state in range(1, len(largest.layers) + 1)
    )
    mine, theirs = architecture.attentive[-1], largest.attentive[-1]
    sizes = [layer.heads * layer.head_dim for layer in (architecture.layers[mine], largest.layers[theirs])]
    relation_heads = max(n for n in range(1, MOST_RELATION_HEADS + 1) if all(size % n == 0 for size in sizes))
    recipe = replace(objective.recipe, states=states, relation_heads=relation_heads, relation_layers=(mine, theirs))
    return GeneralDistillation(objective.teacher, Scales(hidden_states, pooled_states, attention_scores), recipe)


class TaskSupernetDistillation:
    """Distillation on several tasks, of one architecture a step (stage 3); its model is a `TaskSupernet`.

    Args:
        objective: What an architecture learns; see `task_objectives`.
        candidates: The architecture of every step: no sandwich.
    """

    def __init__(self, objective: Callable[[Architecture], MultitaskObjective], candidates: Candidates):
        self.objective = objective
        self.candidates = candidates

    def count(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """See `efficientbert.train.engine.loop.Objective`."""
        return self.objective(self.candidates.largest).count(batch)

    def __call__(
        self, model: nn.Module, batch: Mapping[str, torch.Tensor], counts: Mapping[str, torch.Tensor], step: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `efficientbert.train.engine.loop.Objective`."""
        (architecture,) = self.candidates(step)

        def run(**inputs: Any) -> Any:
            return model(architecture=architecture, **inputs)

        return self.objective(architecture)(run, batch, counts, step)


def task_objectives(
    objectives: Sequence[TaskObjective], args: LossArguments, base: EfficientBertConfig
) -> Callable[[Architecture], MultitaskObjective]:
    """What every architecture learns on several tasks: inner states, where they are compared, by its own depth.

    Args:
        objectives: Of every task, for any one architecture.
        args: The losses of inner states.
        base: What no architecture decides.
    """

    def objective(architecture: Architecture) -> MultitaskObjective:
        config = architecture.to_config(base)
        return MultitaskObjective([_fitted(one, args, config) for one in objectives])

    return objective


def _fitted(objective: TaskObjective, args: LossArguments, config: EfficientBertConfig) -> TaskObjective:
    """The same objective for another architecture."""
    inner = objective.inner
    if inner is not None and objective.teacher is not None:
        encoder = objective.teacher.encoder
        inner = GeneralDistillation(encoder, inner.scales, make_recipe(args, config, encoder))
    return TaskObjective(
        objective.task, objective.teacher, objective.label_weight, objective.temperature, inner, objective.inner_steps
    )
