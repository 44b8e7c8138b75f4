"""Expressions as the search sees them: neighbours, a pool to draw from, and which of them are the same function."""

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import lru_cache

import torch

from efficientbert.configuration_efficientbert import PUBLISHED_EXPRESSIONS
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
    evaluate,
    parse,
    uses_gate,
    walk,
)
from efficientbert.search.space.architecture import Architecture
from efficientbert.slicing_efficientbert import nearest_layers


PLAIN = "linear2(gelu(linear1(x)))"
GATED = "linear2(mul(gelu(linear1(x)), gate(x)))"
OPERATORS = (*UNARY, *BINARY)
POOL_MUTANTS = 16  # of every known good expression in the pool, and as many of their mutants together
PROBE_SIZES = {-1: (6, 4), 0: (6, 6), 1: (6, 9)}  # hidden size and m, by the sign of m minus hidden size
PROBE_ROWS = 12
PROBE_STEP = 1e-6  # outputs are told apart in this step: far above rounding errors, far below real differences


def replace_part(node: Expression, old: Expression, new: Expression) -> Expression:
    """A copy of an expression with one part, found by identity, put in another's place."""
    if node is old:
        return new
    if isinstance(node, Input):
        return node
    if isinstance(node, Binary):
        return Binary(node.name, replace_part(node.left, old, new), replace_part(node.right, old, new))
    return type(node)(node.name, replace_part(node.operand, old, new))


@lru_cache(maxsize=65536)
def fits(expression: str, wide: bool) -> bool:
    """Whether an expression fits every inner width up to the hidden size or, if `wide`, every one above it.

    At an inner width of just the hidden size every expression would do; it must fit narrower ones too, so that widths
    may change.
    """
    try:
        check_widths(parse(expression), *((1, 2) if wide else (2, 1)))
    except ExpressionError:
        return False
    return True


def mutate_expression(text: str, rng: random.Random, gate: bool, wide: bool = False) -> str:
    """A valid neighbour of an expression: an operator exchanged, put in or taken out (paper, section 3.3).

    Args:
        text: The expression.
        rng: Source of randomness.
        gate: Whether the third linear may be used.
        wide: Whether it shall fit inner widths above the hidden size, where crops go the other way; else those below.
    """
    expression = parse(text)
    partners: list[Expression] = [Input(), *(Unary(name, Input()) for name in UNARY)]
    partners += [Linear("gate", Input())] * (len(partners) if gate else 0)
    while True:
        part = rng.choice(list(walk(expression)))
        edits: list[Expression] = [Unary(rng.choice(list(UNARY)), part)]
        edits.append(Binary(rng.choice(list(BINARY)), part, rng.choice(partners)))
        if isinstance(part, Unary):
            edits += [part.operand, Unary(rng.choice(list(UNARY)), part.operand)]
        elif isinstance(part, Binary):
            edits += [part.left, part.right, Binary(rng.choice(list(BINARY)), part.left, part.right)]
        changed = replace_part(expression, part, rng.choice(edits))
        try:
            mutant = parse(str(changed))
        except ExpressionError:
            continue
        if mutant != expression and (gate or not uses_gate(mutant)) and fits(str(mutant), wide):
            return str(mutant)


@lru_cache(maxsize=65536)
def operator_counts(expression: str) -> tuple[int, ...]:
    """How often every one of `OPERATORS` stands in an expression."""
    counts = Counter(getattr(part, "name", "x") for part in walk(parse(expression)))
    return tuple(counts[name] for name in OPERATORS)


@lru_cache(maxsize=1)
def _probes() -> dict[str, torch.Tensor]:
    """Numbers between -2 and 2 to probe functions with: the same bits on every machine."""
    rng = random.Random("probes")
    widest = max(max(sizes) for sizes in PROBE_SIZES.values())
    rows = {"x": PROBE_ROWS} | {f"{name} {kind}": widest for name in ("linear1", "linear2", "gate") for kind in "wb"}
    return {
        name: torch.tensor([[4 * rng.random() - 2 for _ in range(widest)] for _ in range(count)], dtype=torch.float64)
        for name, count in rows.items()
    }


def probe(node: Expression, order: int) -> torch.Tensor:
    """Outputs of an expression on fixed inputs with fixed linears.

    Args:
        node: The expression.
        order: The sign of m minus the hidden size.

    Returns:
        Float64 tensor of shape `(PROBE_ROWS, hidden)`.
    """
    hidden, size = PROBE_SIZES[order]
    probes = _probes()

    def linear(name: str, takes: int, gives: int) -> Callable[[torch.Tensor], torch.Tensor]:
        weight, bias = probes[f"{name} w"][:gives, :takes], probes[f"{name} b"][0, :gives]
        return lambda x: x @ weight.T + bias

    linears = {"linear1": linear("linear1", hidden, size), "gate": linear("gate", hidden, size)}
    linears["linear2"] = linear("linear2", size, hidden)
    return evaluate(node, probes["x"][:, :hidden], linears)


@lru_cache(maxsize=65536)
def _signature(expression: str, order: int) -> str:
    node = parse(expression)
    check_widths(node, *PROBE_SIZES[order])
    steps = torch.round(probe(node, order) / PROBE_STEP).to(torch.int64)
    return hashlib.blake2b(repr(steps.tolist()).encode(), digest_size=12).hexdigest()


def signature(expression: str, hidden_size: int, intermediate_size: int) -> str:
    """A text that two expressions share if they are the same function: equal outputs on fixed inputs.

    Only whether m is below, at or above the hidden size matters, as only that decides what is cropped.

    Raises:
        ExpressionError: if the expression does not fit the sizes.
    """
    return _signature(expression, (intermediate_size > hidden_size) - (intermediate_size < hidden_size))


def function_key(architecture: Architecture) -> Hashable:
    """Equal for architectures of the same shape and sizes of layers whose expressions are the same functions."""
    hidden = architecture.shape.hidden_size
    layers = (
        replace(layer, expression=signature(layer.expression, hidden, layer.intermediate_size))
        for layer in architecture.layers
    )
    return architecture.shape, tuple(layers)


def spread_expressions(expressions: Sequence[str], depth: int) -> list[str]:
    """The expressions of all layers at another depth: each is that of the layer at the same part of the depth."""
    return [expressions[layer] for layer in nearest_layers(depth, len(expressions))]


@lru_cache(maxsize=4)
def expression_pool(gate: bool, wide: bool) -> dict[str, float]:
    """Expressions to draw from with their probabilities, all of them different functions (paper, section 3.3).

    Half of the probability is on the known good ones (the plain, the gated and the published six, as far as they
    fit), a quarter on mutants of those and a quarter on mutants of the mutants. The pool is always the same.

    Args:
        gate: Whether the third linear may be used.
        wide: As in [`mutate_expression`].
    """
    rng = random.Random(f"pool {gate} {wide}")
    order = 1 if wide else -1
    good = [PLAIN, *([GATED] if gate else []), *PUBLISHED_EXPRESSIONS]
    level = [text for text in good if fits(text, wide)]
    seen = {_signature(text, order) for text in level}
    pool = {text: 0.5 / len(level) for text in level}
    for count in (POOL_MUTANTS, 1):
        mutants: list[tuple[str, str]] = []
        for text in level:
            while sum(parent == text for parent, _ in mutants) < count:
                mutant = mutate_expression(text, rng, gate, wide)
                if _signature(mutant, order) not in seen:
                    seen.add(_signature(mutant, order))
                    mutants.append((text, mutant))
        level = [mutant for _, mutant in mutants]
        pool |= dict.fromkeys(level, 0.25 / len(level))
    return pool
