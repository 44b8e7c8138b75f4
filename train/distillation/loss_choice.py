"""Which losses a distillation is made of: names, weights and layers, checked against student and teacher."""

import math

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.slicing_efficientbert import nearest_layers
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.arguments import MOST_RELATION_HEADS, LossArguments, parse_losses
from efficientbert.train.distillation.layer_map import match_states
from efficientbert.train.distillation.losses import LOSSES, LossRecipe
from efficientbert.train.distillation.teacher import Teacher


def make_recipe(args: LossArguments, config: EfficientBertConfig, teacher: Teacher) -> LossRecipe:
    """The recipe of the arguments.

    Raises:
        InputError: if a name, weight or layer is not known, or a loss does not fit student and teacher.
    """
    weights = parse_losses(args.losses)
    attentive = [layer for layer, (heads, _) in enumerate(config.attentions) if heads]
    compared = [name for name in weights if LOSSES[name].by_heads]
    other = {config.attentions[layer][0] for layer in attentive} - {teacher.num_heads}
    if compared and other:
        raise InputError(
            f"student: has {min(other)} attention heads but teacher {teacher.name!r} has {teacher.num_heads}; "
            f"{compared[0]} can only be compared head by head: use --losses hidden_states qkv_relations"
        )
    if not attentive and any(LOSSES[name].of_attention for name in weights):
        raise InputError("student: no layer has attention, which losses compare; use --losses hidden_states")
    relation_layer = teacher.num_layers if args.relation_layer is None else args.relation_layer
    if not 1 <= relation_layer <= teacher.num_layers:
        raise InputError(
            f"relation_layer: must be between 1 and the {teacher.num_layers} layers of teacher {teacher.name!r}, not "
            f"{relation_layer}"
        )
    mapped = any(LOSSES[name].maps_layers for name in weights)
    return LossRecipe(
        weights,
        match_states(args.layer_map, config.num_hidden_layers, teacher) if mapped else (),
        choose_relation_heads(args.relation_heads, config, teacher),
        (max(attentive, default=0), relation_layer - 1),
        frozenset(attentive),
    )


def choose_relation_heads(heads: int | None, config: EfficientBertConfig, teacher: Teacher) -> int:
    """Relation heads that divide what the attention heads of student and teacher measure together.

    Raises:
        InputError: if `heads` does not.
    """
    mine, theirs = query_channels(config), teacher.attention_linears(0)[0].out_features
    fitting = [number for number in range(1, math.gcd(mine, theirs) + 1) if mine % number == theirs % number == 0]
    if heads is None:
        return max(number for number in fitting if number <= MOST_RELATION_HEADS)
    if heads not in fitting:
        raise InputError(
            f"relation_heads: must divide the {mine} channels of the student's queries and the {theirs} of teacher "
            f"{teacher.name!r}: one of {', '.join(map(str, fitting))}, not {heads}"
        )
    return heads


def query_channels(config: EfficientBertConfig) -> int:
    """What the attention heads of a student's last layer with attention measure together; 1 without any attention."""
    sizes = [heads * size for heads, size in config.attentions if heads]
    return sizes[-1] if sizes else 1


def source_layers(recipe: LossRecipe, student_layers: int, teacher: Teacher) -> tuple[int, ...]:
    """For every student layer, the teacher layer it starts from: the one it is compared with, or the nearest."""
    return tuple((dict(enumerate(nearest_layers(student_layers, teacher.num_layers))) | dict(recipe.layers)).values())
