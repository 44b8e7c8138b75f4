"""Which losses a distillation is made of: names, weights and layers, checked against student and teacher."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.slicing_efficientbert import nearest_layers
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.arguments import (
    HEAD_BY_HEAD,
    MASKED_LOSSES,
    MOST_RELATION_HEADS,
    LossArguments,
    parse_losses,
)
from efficientbert.train.distillation.layer_map import match_states
from efficientbert.train.distillation.teacher import Teacher


@dataclass(frozen=True)
class LossRecipe:
    """Losses that fit a student and a teacher.

    Attributes:
        weights: By the name of the loss.
        states: Pairs of student and teacher hidden states that are compared; 0 is the embedding's output. The
            attention scores of the same layers are.
        relation_heads: Heads of the Q-Q, K-K and V-V relations.
        relation_layer: Teacher layer of all relations, counted from 0; the student's is its last.
    """

    weights: Mapping[str, float]
    states: tuple[tuple[int, int], ...]
    relation_heads: int
    relation_layer: int

    @property
    def layers(self) -> tuple[tuple[int, int], ...]:
        """Pairs of student and teacher layers that are compared, counted from 0."""
        return tuple((mine - 1, theirs - 1) for mine, theirs in self.states if mine > 0)

    @property
    def masks(self) -> bool:
        """Whether tokens are masked to be predicted."""
        return any(name in self.weights for name in MASKED_LOSSES)

    @property
    def needs_teacher(self) -> bool:
        """Whether any loss looks at the teacher."""
        return any(name != "masked_lm" for name in self.weights)


def make_recipe(args: LossArguments, config: EfficientBertConfig, teacher: Teacher) -> LossRecipe:
    """The recipe of the arguments.

    Raises:
        InputError: if a name, weight or layer is not known, or a loss does not fit student and teacher.
    """
    weights = parse_losses(args.losses)
    compared = [name for name in HEAD_BY_HEAD if name in weights]
    if compared and config.num_attention_heads != teacher.num_heads:
        raise InputError(
            f"student: has {config.num_attention_heads} attention heads but teacher {teacher.name} has "
            f"{teacher.num_heads}; {compared[0]} can only be compared head by head: use --losses hidden_states "
            f"qkv_relations"
        )
    relation_layer = teacher.num_layers if args.relation_layer is None else args.relation_layer
    if not 1 <= relation_layer <= teacher.num_layers:
        raise InputError(
            f"relation_layer: must be between 1 and the {teacher.num_layers} layers of teacher {teacher.name}, not "
            f"{relation_layer}"
        )
    mapped = "hidden_states" in weights or "attention_scores" in weights
    return LossRecipe(
        weights,
        match_states(args.layer_map, config.num_hidden_layers, teacher) if mapped else (),
        choose_relation_heads(args.relation_heads, config, teacher),
        relation_layer - 1,
    )


def choose_relation_heads(heads: int | None, config: EfficientBertConfig, teacher: Teacher) -> int:
    """Relation heads that divide what the attention heads of student and teacher measure together.

    Raises:
        InputError: if `heads` does not.
    """
    mine, theirs = config.num_attention_heads * config.head_dim, teacher.attention_linears(0)[0].out_features
    fitting = [number for number in range(1, math.gcd(mine, theirs) + 1) if mine % number == theirs % number == 0]
    if heads is None:
        return max(number for number in fitting if number <= MOST_RELATION_HEADS)
    if heads not in fitting:
        raise InputError(
            f"relation_heads: must divide the {mine} channels of the student's queries and the {theirs} of teacher "
            f"{teacher.name}: one of {', '.join(map(str, fitting))}, not {heads}"
        )
    return heads


def source_layers(recipe: LossRecipe, student_layers: int, teacher: Teacher) -> tuple[int, ...]:
    """For every student layer, the teacher layer it starts from: the one it is compared with, or the nearest."""
    return tuple((dict(enumerate(nearest_layers(student_layers, teacher.num_layers))) | dict(recipe.layers)).values())
