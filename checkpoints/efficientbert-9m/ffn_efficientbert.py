"""The feed-forward expression language of EfficientBERT (Dong et al., Findings of EMNLP 2021, section 3.1).

An expression says what one feed-forward network computes from its input `x`, for example
`linear2(gelu(linear1(x)))`. It is parsed into immutable nodes, checked against the rules of the search space, printed
in one canonical form, and evaluated on tensors. No text is ever executed.

A new unary or binary operator is one more line in `UNARY` or `BINARY`.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn


MAX_LENGTH = 512  # characters of the text
MIN_HEIGHT, MAX_HEIGHT = 3, 7  # edges on the longest path from the root to an input

UNARY: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": lambda x: nn.functional.gelu(x, approximate="tanh"),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": nn.functional.relu,
    "leaky_relu": nn.functional.leaky_relu,
    "elu": nn.functional.elu,
    "swish": nn.functional.silu,
}
BINARY: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "add": torch.add,
    "mul": torch.mul,
    "max": torch.maximum,
}
LINEAR = ("linear1", "linear2", "gate")  # hidden -> m, m -> hidden, hidden -> m


class ExpressionError(ValueError):
    """A text that is no valid feed-forward expression; the message names the text and the rule it breaks."""


@dataclass(frozen=True)
class Input:
    """The input `x` of the feed-forward network, of width hidden."""

    def __str__(self) -> str:
        return "x"


@dataclass(frozen=True)
class Linear:
    """`linear1`, `linear2` or `gate` of an operand."""

    name: str
    operand: "Expression"

    def __str__(self) -> str:
        return f"{self.name}({self.operand})"


@dataclass(frozen=True)
class Unary:
    """An activation of an operand."""

    name: str
    operand: "Expression"

    def __str__(self) -> str:
        return f"{self.name}({self.operand})"


@dataclass(frozen=True)
class Binary:
    """An elementwise operation on two operands, both cropped to the narrower one's width."""

    name: str
    left: "Expression"
    right: "Expression"

    def __str__(self) -> str:
        return f"{self.name}({self.left}, {self.right})"


Expression = Input | Linear | Unary | Binary


@dataclass(frozen=True)
class Call:
    """A name with its arguments, as written: what any text of nested calls means before names are looked up."""

    name: str
    arguments: tuple["Call", ...] = ()


def read_calls(text: str) -> Call:
    """Reads nested calls such as `f(g(x), y)` without giving the names a meaning.

    Raises:
        ExpressionError: if the text is too long or is not one well-formed call.
    """
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"expression of {len(text)} characters: at most {MAX_LENGTH} are allowed")
    tokens = re.findall(r"\s*([A-Za-z0-9_]+|[^\sA-Za-z0-9_])", text)
    position = 0

    def fail(expected: str) -> ExpressionError:
        found = repr(tokens[position]) if position < len(tokens) else "the end"
        return ExpressionError(f"expression {text!r}: expected {expected} but found {found} at token {position + 1}")

    def read() -> Call:
        nonlocal position
        if position >= len(tokens) or not re.fullmatch(r"\w+", tokens[position], re.ASCII):
            raise fail("a name")
        name = tokens[position]
        position += 1
        arguments: list[Call] = []
        if position < len(tokens) and tokens[position] == "(":
            while not arguments or tokens[position] == ",":
                position += 1
                arguments.append(read())
                if position >= len(tokens) or tokens[position] not in ",)":
                    raise fail("',' or ')'")
            position += 1
        return Call(name, tuple(arguments))

    call = read()
    if position != len(tokens):
        raise fail("the end")
    return call


def build(call: Call, text: str) -> Expression:
    """Gives the names of a call their meaning; `identity` is transparent and leaves no node.

    Raises:
        ExpressionError: for an unknown name or a wrong number of arguments; `text` is quoted in the message.
    """
    arity = 0 if call.name == "x" else 2 if call.name in BINARY else 1
    if call.name not in {"x", "identity", *LINEAR, *UNARY, *BINARY}:
        known = ", ".join(["x", "identity", *LINEAR, *UNARY, *BINARY])
        raise ExpressionError(f"expression {text!r}: unknown name {call.name!r}; known are {known}")
    if len(call.arguments) != arity:
        raise ExpressionError(f"expression {text!r}: {call.name} takes {arity} operands, not {len(call.arguments)}")
    operands = [build(argument, text) for argument in call.arguments]
    if call.name == "x":
        return Input()
    if call.name == "identity":
        return operands[0]
    kind = Linear if call.name in LINEAR else Binary if call.name in BINARY else Unary
    return kind(call.name, *operands)


def children(node: Expression) -> tuple[Expression, ...]:
    """The operands of a node, left to right."""
    if isinstance(node, Input):
        return ()
    return (node.left, node.right) if isinstance(node, Binary) else (node.operand,)


def walk(node: Expression) -> Iterator[Expression]:
    """All nodes, operands before the node that uses them: the order of evaluation."""
    for child in children(node):
        yield from walk(child)
    yield node


def height(node: Expression) -> int:
    """Edges on the longest path from `node` to an input."""
    return 1 + max(map(height, children(node))) if children(node) else 0


def width(node: Expression, hidden_size: int, intermediate_size: int) -> int:
    """Channels of a node's value, for one pair of sizes.

    Raises:
        ExpressionError: if a linear gets an operand of another width than it takes.
    """
    if isinstance(node, Input):
        return hidden_size
    if isinstance(node, Unary):
        return width(node.operand, hidden_size, intermediate_size)
    if isinstance(node, Binary):
        return min(width(child, hidden_size, intermediate_size) for child in children(node))
    takes, gives = (intermediate_size, hidden_size) if node.name == "linear2" else (hidden_size, intermediate_size)
    found = width(node.operand, hidden_size, intermediate_size)
    if found != takes:
        raise ExpressionError(f"{node.name} takes width {takes} but its operand {node.operand} has width {found}")
    return gives


def check_widths(node: Expression, hidden_size: int, intermediate_size: int) -> None:
    """Checks that every linear of `node` gets the width it takes and that the result has width `hidden_size`.

    Raises:
        ExpressionError: naming the part that does not fit.
    """
    sizes = f"at hidden size {hidden_size} and intermediate size {intermediate_size}"
    try:
        found = width(node, hidden_size, intermediate_size)
    except ExpressionError as error:
        raise ExpressionError(f"expression '{node}' {sizes}: {error}") from None
    if found != hidden_size:
        raise ExpressionError(f"expression '{node}' {sizes}: the result has width {found}, not {hidden_size}")


def check_rules(node: Expression) -> None:
    """Checks the rules of the search space (paper, section 3.1), with `gate` counted as a linear.

    Whether widths fit depends on the sizes of a layer, at equal ones they always do: see `check_widths`.

    Raises:
        ExpressionError: naming the rule that is broken.
    """

    def fail(rule: str) -> ExpressionError:
        return ExpressionError(f"expression '{node}': {rule}")

    order = [part.name for part in walk(node) if isinstance(part, Linear)]
    for name in ("linear1", "linear2"):
        if order.count(name) != 1:
            raise fail(f"{name} must stand in it exactly once, not {order.count(name)} times")
    if order.count("gate") > 1:
        raise fail(f"gate may stand in it once at most, not {order.count('gate')} times")
    if order.index("linear1") > order.index("linear2"):
        raise fail("linear1 must stand to the left of linear2")
    for part in walk(node):
        if isinstance(part, Unary) and isinstance(part.operand, Unary):
            raise fail(f"activation {part.name} directly on activation {part.operand.name}")
        if isinstance(part, Linear) and isinstance(part.operand, Linear):
            raise fail(f"{part.name} directly on {part.operand.name}")
        if isinstance(part, Binary) and part.left == part.right:
            raise fail(f"{part.name} of two equal operands {part.left}")
    if not MIN_HEIGHT <= height(node) <= MAX_HEIGHT:
        raise fail(f"height {height(node)} is not between {MIN_HEIGHT} and {MAX_HEIGHT}")


def parse(text: str) -> Expression:
    """Parses and checks one expression; `str` of the result is its canonical form, `parse(str(e)) == e`.

    Raises:
        ExpressionError: if the text is malformed, too long, or breaks a rule of the search space.
    """
    node = build(read_calls(text), text)
    check_rules(node)
    return node


def uses_gate(node: Expression) -> bool:
    """Whether the expression needs the third linear."""
    return any(isinstance(part, Linear) and part.name == "gate" for part in walk(node))


def evaluate(
    node: Expression, x: torch.Tensor, linears: Mapping[str, Callable[[torch.Tensor], torch.Tensor]]
) -> torch.Tensor:
    """The value of an expression at `x`.

    Args:
        node: The expression.
        x: Tensor of shape `(..., hidden)`.
        linears: The maps called `linear1`, `linear2` and, where it is used, `gate`.

    Returns:
        Tensor of shape `(..., hidden)`.
    """
    if isinstance(node, Input):
        return x
    if isinstance(node, Linear):
        return linears[node.name](evaluate(node.operand, x, linears))
    if isinstance(node, Unary):
        return UNARY[node.name](evaluate(node.operand, x, linears))
    left, right = evaluate(node.left, x, linears), evaluate(node.right, x, linears)
    if left.shape[-1] != right.shape[-1]:
        narrow = min(left.shape[-1], right.shape[-1])
        left, right = left[..., :narrow], right[..., :narrow]
    return BINARY[node.name](left, right)
