"""The search space (paper, section 3.1): what each layer may be, drawn and changed without leaving the budget."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from efficientbert.configuration_efficientbert import PUBLISHED_EXPRESSIONS, EfficientBertConfig
from efficientbert.ffn_efficientbert import (
    BINARY,
    UNARY,
    Binary,
    Expression,
    ExpressionError,
    Input,
    Linear,
    Unary,
    check_widths,
    parse,
    uses_gate,
    walk,
)
from efficientbert.search.architecture import Architecture, LayerChoice, Shape
from efficientbert.search.cost import Budget
from efficientbert.train.script import InputError


PLAIN = "linear2(gelu(linear1(x)))"
GATED = "linear2(mul(gelu(linear1(x)), gate(x)))"
STACKS = (1, 2, 3, 4)
DIVISORS = (1, 2, 3, 4)  # expansion 1, 1/2, 1/3 and 1/4 of the base width
REPAIRS = 200  # changes of one layer tried to bring one draw into the budget
DRAWS = 100  # draws tried before a budget counts as impossible


def replace_part(node: Expression, old: Expression, new: Expression) -> Expression:
    """A copy of an expression with one part, found by identity, put in another's place."""
    if node is old:
        return new
    if isinstance(node, Input):
        return node
    if isinstance(node, Binary):
        return Binary(node.name, replace_part(node.left, old, new), replace_part(node.right, old, new))
    return type(node)(node.name, replace_part(node.operand, old, new))


def mutate_expression(text: str, rng: random.Random, gate: bool, wide: bool = False) -> str:
    """A valid neighbour of an expression: an operator exchanged, put in or taken out (paper, section 3.3).

    Args:
        text: The expression.
        rng: Source of randomness.
        gate: Whether the third linear may be used.
        wide: Whether it must also hold for an inner width above the hidden size, where crops go the other way.
    """
    expression = parse(text)
    partners = [Input(), *(Unary(name, Input()) for name in UNARY)]
    partners += [Linear("gate", Input())] * (len(partners) if gate else 0)
    while True:
        part = rng.choice(list(walk(expression)))
        edits = [Unary(rng.choice(list(UNARY)), part), Binary(rng.choice(list(BINARY)), part, rng.choice(partners))]
        if isinstance(part, Unary):
            edits += [part.operand, Unary(rng.choice(list(UNARY)), part.operand)]
        elif isinstance(part, Binary):
            edits += [part.left, part.right, Binary(rng.choice(list(BINARY)), part.left, part.right)]
        changed = replace_part(expression, part, rng.choice(edits))
        try:
            mutant = parse(str(changed))
            check_widths(mutant, hidden_size=2, intermediate_size=1)
            if wide:
                check_widths(mutant, hidden_size=1, intermediate_size=2)
        except ExpressionError:
            continue
        if mutant != expression and (gate or not uses_gate(mutant)):
            return str(mutant)


def random_expression(rng: random.Random, gate: bool, wide: bool = False) -> str:
    """An expression that is known to be good, or a few mutations away from one (paper, section 3.3).

    Args:
        rng: Source of randomness.
        gate: Whether the third linear may be used.
        wide: As in [`mutate_expression`].
    """
    good = [PLAIN, GATED] if gate else [PLAIN]
    text = rng.choice([*good, *(PUBLISHED_EXPRESSIONS if not wide else [])])
    for _ in range(rng.choice((0, 0, 1, 2))):
        text = mutate_expression(text, rng, gate, wide)
    return text


@dataclass(frozen=True)
class SearchSpace:
    """All architectures over a base configuration that a budget allows.

    Attributes:
        base: Sizes that are not searched.
        base_width: Inner width at expansion 1.
        gate: Whether expressions may use the third linear.
        budget: What a candidate may cost.
        cost: Cost of a configuration in the budget's metric.
    """

    base: EfficientBertConfig
    base_width: int
    gate: bool
    budget: Budget
    cost: Callable[[EfficientBertConfig], float]

    def largest(self) -> Architecture:
        """The whole supernet: every slice of it is an architecture of this space."""
        layer = LayerChoice(GATED if self.gate else PLAIN, max(STACKS), self.base_width)
        return Architecture(self._shape, (layer,) * self.base.num_hidden_layers)

    def cost_of(self, architecture: Architecture) -> float:
        """What an architecture costs."""
        return self.cost(architecture.to_config(self.base))

    def sample(self, rng: random.Random) -> Architecture:
        """A random architecture within the budget.

        Raises:
            InputError: if the budget cannot be met.
        """
        for _ in range(DRAWS):
            layers = tuple(
                LayerChoice(
                    random_expression(rng, self.gate, self._wide),
                    rng.choice(STACKS),
                    self._width(rng.choice(DIVISORS)),
                )
                for _ in range(self.base.num_hidden_layers)
            )
            found = self._repair(Architecture(self._shape, layers), rng)
            if found is not None:
                return found
        raise self._impossible()

    def mutate(self, architecture: Architecture, rng: random.Random) -> Architecture:
        """A neighbour within the budget: one layer gets another expression, stack or width.

        Raises:
            InputError: if no neighbour meets the budget.
        """
        for _ in range(DRAWS):
            index = rng.randrange(len(architecture.layers))
            layer = architecture.layers[index]
            kind = rng.choice(("expression", "stack", "intermediate_size"))
            if kind == "expression":
                value = mutate_expression(layer.expression, rng, self.gate, self._wide)
            else:
                value = rng.choice(STACKS) if kind == "stack" else self._width(rng.choice(DIVISORS))
            found = self._repair(_with_layer(architecture, index, replace(layer, **{kind: value})), rng)
            if found is not None and found != architecture:
                return found
        raise self._impossible()

    def plain(self) -> EfficientBertConfig:
        """The plain shape: one gelu network a layer, all of one width, as large as the budget allows.

        Raises:
            InputError: if no width meets the budget.
        """

        def config(width: int) -> EfficientBertConfig:
            layer = LayerChoice(PLAIN, 1, width)
            return Architecture(self._shape, (layer,) * self.base.num_hidden_layers).to_config(self.base)

        low, high = 1, 64 * self.base_width  # cost rises with width: bisection for the largest that is allowed
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.cost(config(middle)) <= self.budget.maximum else (low, middle - 1)
        if not self.budget.contains(self.cost(config(low))):
            raise self._impossible()
        return config(low)

    @property
    def _shape(self) -> Shape:
        return Architecture.from_config(self.base).shape

    @property
    def _wide(self) -> bool:
        return self.base_width > self.base.hidden_size

    def _width(self, divisor: int) -> int:
        return max(1, self.base_width // divisor)

    def _repair(self, architecture: Architecture, rng: random.Random) -> Architecture | None:
        """Changes stacks and widths one step at a time until the budget is met, if it can be."""
        widths = sorted({self._width(divisor) for divisor in DIVISORS})
        for _ in range(REPAIRS):
            cost = self.cost_of(architecture)
            if self.budget.contains(cost):
                return architecture
            step = -1 if cost > self.budget.maximum else 1
            moves = []
            for index, layer in enumerate(architecture.layers):
                for name, options in (("stack", STACKS), ("intermediate_size", widths)):
                    position = options.index(getattr(layer, name)) + step
                    if 0 <= position < len(options):
                        moves.append(_with_layer(architecture, index, replace(layer, **{name: options[position]})))
            if not moves:
                return None
            architecture = rng.choice(moves)
        return None

    def _impossible(self) -> InputError:
        layer = LayerChoice(PLAIN, 1, self._width(max(DIVISORS)))
        smallest = Architecture(self._shape, (layer,) * self.base.num_hidden_layers)
        return InputError(
            f"budget: no architecture has {self.budget.metric} between {self.budget.minimum:,.6g} and "
            f"{self.budget.maximum:,.6g}; those of this space range from {self.cost_of(smallest):,.6g} to "
            f"{self.cost_of(self.largest()):,.6g}"
        )


def _with_layer(architecture: Architecture, index: int, layer: LayerChoice) -> Architecture:
    """A copy with one layer replaced."""
    return replace(architecture, layers=architecture.layers[:index] + (layer,) + architecture.layers[index + 1 :])
