"""Which losses a distillation is made of: names, weights and layers, checked against student and teacher."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.train.script import InputError
from efficientbert.train.student import uniform_layer_map
from efficientbert.train.teacher import Teacher


CAPTURE_LOSSES = ("hidden_states", "attention_scores", "minilm_relations", "qkv_relations")
MASKED_LOSSES = ("masked_lm", "logits")  # of tokens that are masked to be predicted
HEAD_BY_HEAD = ("attention_scores", "minilm_relations")
MOST_RELATION_HEADS = 48  # MiniLMv2, section 4.2


@dataclass(kw_only=True)
class LossArguments:
    """What a student learns from its teacher."""

    losses: list[str] = field(
        default_factory=lambda: ["hidden_states", "attention_scores=0.3"],
        metadata={
            "help": f"Of {', '.join((*CAPTURE_LOSSES, *MASKED_LOSSES))}; name=weight where the weight shall not be 1."
        },
    )
    layer_map: list[str] = field(
        default_factory=lambda: ["uniform"],
        metadata={
            "help": "Teacher layers of hidden_states and attention_scores: 'uniform' (the embedding, layers evenly "
            "spaced), 'last' (the last layer from the last, nothing else), or one number for each student layer, "
            "counted from 1."
        },
    )
    relation_heads: int | None = field(
        default=None,
        metadata={"help": f"Heads of qkv_relations; by default as many as fit, up to {MOST_RELATION_HEADS}."},
    )
    relation_layer: int | None = field(
        default=None,
        metadata={"help": "Teacher layer of minilm_relations and qkv_relations, counted from 1; by default the last."},
    )


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


def parse_losses(words: Sequence[str] | str) -> dict[str, float]:
    """Weights by name, of words such as `hidden_states` and `attention_scores=0.5`.

    Raises:
        InputError: if a name is unknown or stands twice, a weight is no number above 0, or there is no word.
    """
    known = (*CAPTURE_LOSSES, *MASKED_LOSSES)
    weights: dict[str, float] = {}
    for word in words.split() if isinstance(words, str) else words:
        name, given, number = word.partition("=")
        if name not in known:
            raise InputError(f"losses: unknown loss {name!r}; known are {', '.join(known)}")
        if name in weights:
            raise InputError(f"losses: {name} stands twice")
        try:
            weights[name] = float(number) if given else 1.0
        except ValueError:
            weights[name] = math.nan
        if not 0 < weights[name] < math.inf:
            raise InputError(f"losses: the weight of {name} must be a number above 0, not {number!r}")
    if not weights:
        raise InputError(f"losses: name at least one of {', '.join(known)}")
    return weights


def match_states(
    words: Sequence[str | int] | str, student_layers: int, teacher: Teacher
) -> tuple[tuple[int, int], ...]:
    """Pairs of student and teacher hidden states, counted from 0, the embedding's output.

    Args:
        words: `uniform`, which is the embedding and layers as of `uniform_layer_map`; `last`, the last layer alone, as
            in MiniLM, which leaves all layers below it free; or the teacher layers of the student's, counted from 1,
            with the embedding.
        student_layers: Layers of the student.
        teacher: The teacher.

    Raises:
        InputError: if it is none of these, or does not fit.
    """
    words = [str(word) for word in (words.split() if isinstance(words, str) else words)]
    if words == ["uniform"]:
        return (
            (0, 0),
            *((index + 1, layer + 1) for index, layer in enumerate(uniform_layer_map(student_layers, teacher))),
        )
    if words == ["last"]:
        return ((student_layers, teacher.num_layers),)
    if not words or not all(word.isdecimal() for word in words):
        raise InputError(f"layer_map: must be uniform, last or teacher layers such as 2 4 6, not {' '.join(words)!r}")
    if len(words) != student_layers:
        raise InputError(f"layer_map: names {len(words)} teacher layers, but the student has {student_layers} layers")
    for word in words:
        if not 1 <= int(word) <= teacher.num_layers:
            raise InputError(f"layer_map: teacher {teacher.name} has layers 1 to {teacher.num_layers}, not {word}")
    return ((0, 0), *((index + 1, int(word)) for index, word in enumerate(words)))


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
