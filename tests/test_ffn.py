"""The expression language: parsing, rules, canonical form, and values against a slow evaluation of the text."""

import dataclasses
import math
import random
import sys

import pytest
import torch
from torch import nn

from efficientbert import EfficientBertConfig, EfficientBertModel, ffn_efficientbert
from efficientbert.ffn_efficientbert import (
    BINARY,
    UNARY,
    ExpressionError,
    check_widths,
    evaluate,
    height,
    parse,
    uses_gate,
    walk,
)


PUBLISHED = [
    "tanh(linear2(gelu(linear1(x))))",
    "elu(linear2(gelu(linear1(x))))",
    "sigmoid(linear2(relu(linear1(x))))",
    "linear2(gelu(linear1(max(x, tanh(x)))))",
    "linear2(relu(mul(linear1(x), x)))",
    "leaky_relu(linear2(gelu(linear1(x))))",
]
GATED = "linear2(mul(swish(linear1(x)), gate(x)))"


def nest(names: list[str], inner: str) -> str:
    """`inner` inside calls of `names`, the first outermost."""
    for name in reversed(names):
        inner = f"{name}({inner})"
    return inner


# Height 7 is allowed and 8 is not. Here: linear2, add, relu, linear1, max, mul, tanh, x.
SEVEN_HIGH = "linear2(add(relu(linear1(max(mul(tanh(x), x), x))), x))"
EIGHT_HIGH = f"elu({SEVEN_HIGH})"

INVALID = [
    # no well-formed call
    ("", "expected a name"),
    ("   ", "expected a name"),
    ("()", "expected a name"),
    ("linear2(gelu(linear1()))", "expected a name"),
    ("linear2(gelu(linear1((x))))", "expected a name"),
    ("linear2(gelu(linear1(x)),)", "expected a name"),
    ("linear2(gelu(linear1(,x)))", "expected a name"),
    ("linear2(gelu(linear1(-x)))", "expected a name"),
    ("linear2(gelu(linear1(x))", "expected ',' or '\\)'"),
    ("linear2(gelu(linear1(x", "expected ',' or '\\)'"),
    ("linear2(gelu(linear1(x y)))", "expected ',' or '\\)'"),
    ("linear2(gelu(linear1(x.T)))", "expected ',' or '\\)'"),
    ("linear2(gelu(linear1(x=x)))", "expected ',' or '\\)'"),
    ("linear2(gelu(linear1(x))))", "expected the end"),
    ("linear2(gelu(linear1(x))) x", "expected the end"),
    ("linear2(gelu(linear1(x)));", "expected the end"),
    ("linear2(gelu(linear1(x)))\x00", "expected the end"),
    ("linear2(gelu(linear1(ｘ)))", "expected a name"),
    # names and numbers of operands
    ("linear2(softmax(linear1(x)))", "unknown name 'softmax'"),
    ("linear2(GELU(linear1(x)))", "unknown name 'GELU'"),
    ("linear2(gelu(linear1(y)))", "unknown name 'y'"),
    ("linear3(gelu(linear1(x)))", "unknown name 'linear3'"),
    ("linear2(gelu(linear1(1)))", "unknown name '1'"),
    ("linear2(gelu(linear1(x(x))))", "x takes 0 operands, not 1"),
    ("linear2(gelu(linear1(x), x))", "gelu takes 1 operands, not 2"),
    ("linear2(add(linear1(x)))", "add takes 2 operands, not 1"),
    ("linear2(max(linear1(x), x, tanh(x)))", "max takes 2 operands, not 3"),
    ("linear2(gelu(linear1))", "linear1 takes 1 operands, not 0"),
    ("linear2(gelu(linear1(identity(x, x))))", "identity takes 1 operands, not 2"),
    # both linears exactly once, the gate once at most
    ("x", "linear1 must stand in it exactly once, not 0"),
    ("tanh(add(x, sigmoid(x)))", "linear1 must stand in it exactly once, not 0"),
    ("linear2(gelu(tanh(x)))", "linear1 must stand in it exactly once, not 0"),
    ("add(x, gelu(linear1(x)))", "linear2 must stand in it exactly once, not 0"),
    ("linear2(add(gelu(linear1(x)), tanh(linear1(x))))", "linear1 must stand in it exactly once, not 2"),
    ("linear2(gelu(linear1(tanh(linear2(gelu(x))))))", "linear2 must stand in it exactly once, not 2"),
    ("linear2(mul(add(gate(x), linear1(x)), gate(x)))", "gate may stand in it once at most, not 2"),
    # linear1 left of linear2's result
    ("linear1(gelu(linear2(x)))", "linear1 must stand to the left of linear2"),
    ("add(linear2(tanh(x)), linear1(x))", "linear1 must stand to the left of linear2"),
    # what may not stand on what
    ("linear2(gelu(tanh(linear1(x))))", "activation gelu directly on activation tanh"),
    ("relu(relu(linear2(gelu(linear1(x)))))", "activation relu directly on activation relu"),
    ("linear2(gelu(identity(tanh(linear1(x)))))", "activation gelu directly on activation tanh"),
    ("tanh(linear2(linear1(x)))", "linear2 directly on linear1"),
    ("tanh(linear2(identity(linear1(x))))", "linear2 directly on linear1"),
    ("linear2(add(relu(x), linear1(gate(x))))", "linear1 directly on gate"),
    ("mul(linear1(x), linear2(gate(x)))", "linear2 directly on gate"),
    ("linear2(gelu(linear1(add(x, x))))", "add of two equal operands x"),
    ("linear2(mul(linear1(x), max(tanh(x), tanh(x))))", "max of two equal operands"),
    ("linear2(mul(linear1(x), mul(x, identity(x))))", "mul of two equal operands x"),
    # height
    (EIGHT_HIGH, "height 8 is not between 3 and 7"),
    ("add(linear1(x), linear2(x))", "height 2 is not between 3 and 7"),
    # mixed
    ("linear2(tanh(add(x, tanh(gate(linear1(x))))))", "gate directly on linear1"),
    ("linear2(mul(gelu(linear1(x)), gate(tanh(gelu(x)))))", "activation tanh directly on activation gelu"),
    ("linear2(mul(gelu(linear1(x)), gate(max(x, linear1(x)))))", "linear1 must stand in it exactly once, not 2"),
    ("linear2(gate(tanh(linear1(x))))", "linear2 directly on gate"),
    # length
    ("linear2(gelu(linear1(x)))" + " " * 488, "513 characters: at most 512"),
    (nest(["tanh"] * 100_000, "x"), "characters: at most 512"),
    (nest(["identity"] * 50, "x"), "linear1 must stand in it exactly once, not 0"),
    ("(" * 512, "expected a name"),
    ("x(" * 256, "expected a name"),
]


@pytest.mark.parametrize(("text", "rule"), INVALID, ids=range(len(INVALID)))
def test_invalid_texts_are_refused_with_the_rule_they_break(text, rule):
    with pytest.raises(ExpressionError, match=rule) as caught:
        parse(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1200


@pytest.mark.parametrize(
    ("text", "misfit"),
    [
        ("add(linear1(x), linear2(tanh(x)))", "linear2 takes width 1 but its operand tanh\\(x\\) has width 2"),
        ("max(linear2(gelu(linear1(x))), gate(x))", "the result has width 1, not 2"),
        (
            "tanh(linear2(relu(gate(relu(linear1(x))))))",
            "gate takes width 2 but its operand relu",
        ),
    ],
)
def test_widths_that_fit_in_some_layers_only(text, misfit):
    """A valid expression, which a layer with an intermediate size below the hidden size cannot have."""
    expression = parse(text)
    with pytest.raises(ExpressionError, match=misfit):
        check_widths(expression, 2, 1)
    check_widths(expression, 3, 3)


HOSTILE = [
    "__import__('os').system('touch {path}')",
    'linear2(gelu(linear1(exec(\'open("{path}", "w")\'))))',
    'linear2(gelu(linear1(open("{path}", "w"))))',
    "linear2(gelu(linear1(x)))\nopen('{path}', 'w')",
    "linear2(gelu(linear1(x.__class__)))",
    "[open('{path}', 'w') for x in (1,)]",
    "lambda: open('{path}', 'w')",
    "f\"{{open('{path}', 'w')}}\"",
    "linear2(gelu(linear1({{open('{path}', 'w')}})))",
    "linear2(__class__(linear1(x)))",
]


def test_hostile_text_runs_no_code(tmp_path):
    path = tmp_path / "ran"
    armed, events = False, []

    def audit(event: str, arguments: tuple) -> None:
        if armed and event in {"compile", "exec", "import", "open", "os.system", "subprocess.Popen"}:
            events.append(event)

    sys.addaudithook(audit)
    for text in HOSTILE:
        with pytest.raises(ExpressionError):
            parse(text.format(path=path))  # unwatched: the parser's own patterns are compiled on first use
        armed = True
        with pytest.raises(ExpressionError):
            parse(text.format(path=path))
        armed = False
    assert events == []
    assert not path.exists()


@pytest.mark.parametrize("text", [*PUBLISHED, GATED, SEVEN_HIGH])
def test_canonical_form_is_the_text_and_reads_back(text):
    node = parse(text)
    assert str(node) == text
    assert parse(str(node)) == node


@pytest.mark.parametrize(
    "text",
    [
        "linear2(relu(mul(linear1(x),x)))",
        "  linear2 ( relu\n(mul(linear1(\tx ) , x) ) ) ",
        "identity(linear2(relu(mul(identity(linear1(x)), identity(identity(x))))))",
    ],
)
def test_spacing_and_identity_do_not_matter(text):
    assert parse(text) == parse(PUBLISHED[4])
    assert str(parse(text)) == PUBLISHED[4]


def test_identity_does_not_count_towards_the_height():
    assert height(parse(SEVEN_HIGH)) == 7
    assert height(parse(f"identity({SEVEN_HIGH})")) == 7


def test_the_lowest_valid_expressions_have_height_three():
    assert height(parse("linear2(gelu(linear1(x)))")) == 3


def test_longest_text_is_accepted():
    text = "linear2(gelu(linear1(x)))"
    assert str(parse(text + " " * (512 - len(text)))) == text


def test_nodes_are_immutable_and_hashable():
    node = parse(GATED)
    with pytest.raises(dataclasses.FrozenInstanceError):
        node.name = "linear1"
    assert {node: 1}[parse(GATED)] == 1


def test_gate_is_recognised():
    assert uses_gate(parse(GATED))
    assert not any(uses_gate(parse(text)) for text in PUBLISHED)


def test_widths_are_checked_at_the_sizes_of_a_layer():
    check_widths(parse(PUBLISHED[4]), hidden_size=6, intermediate_size=6)
    with pytest.raises(ExpressionError, match=r"linear2 takes width 7 but its operand .* has width 6"):
        check_widths(parse(PUBLISHED[4]), hidden_size=6, intermediate_size=7)
    check_widths(parse(GATED), hidden_size=6, intermediate_size=24)


# What every operator does to numbers, from its definition, one number at a time in double precision.
SCALAR_UNARY = {
    "gelu": lambda v: 0.5 * v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))),
    "sigmoid": lambda v: 1 / (1 + math.exp(-v)),
    "tanh": math.tanh,
    "relu": lambda v: max(v, 0.0),
    "leaky_relu": lambda v: v if v > 0 else 0.01 * v,
    "elu": lambda v: v if v > 0 else math.exp(v) - 1,
    "swish": lambda v: v / (1 + math.exp(-v)),
}
SCALAR_BINARY = {"add": lambda a, b: a + b, "mul": lambda a, b: a * b, "max": max}


def reference(text: str, x: list[float], weights: dict[str, tuple[list[list[float]], list[float]]]) -> list[float]:
    """The value of an expression, straight from its text, by lists of numbers."""
    text = text.replace(" ", "")
    if text == "x":
        return x
    name, inner = text[: text.index("(")], text[text.index("(") + 1 : -1]
    depth, parts = 0, [""]
    for character in inner:
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    values = [reference(part, x, weights) for part in parts]
    if name == "identity":
        return values[0]
    if name in SCALAR_UNARY:
        return [SCALAR_UNARY[name](v) for v in values[0]]
    if name in SCALAR_BINARY:
        return [SCALAR_BINARY[name](a, b) for a, b in zip(*values)]  # zip stops at the narrower: cropping
    matrix, bias = weights[name]
    assert len(matrix[0]) == len(values[0])
    return [sum(w * v for w, v in zip(row, values[0])) + b for row, b in zip(matrix, bias)]


def assert_matches_reference(text: str, hidden_size: int, intermediate_size: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    linears = {}
    for name in ("linear1", "linear2", "gate"):
        sizes = (intermediate_size, hidden_size) if name == "linear2" else (hidden_size, intermediate_size)
        linears[name] = nn.Linear(*sizes, dtype=torch.float64)
        for parameter in linears[name].parameters():
            nn.init.normal_(parameter, std=0.7, generator=generator)
    weights = {name: (linear.weight.tolist(), linear.bias.tolist()) for name, linear in linears.items()}
    x = torch.randn(2, 3, hidden_size, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        value = evaluate(parse(text), x, linears)
    expected = [[reference(text, row, weights) for row in rows] for rows in x.tolist()]
    assert value.shape == x.shape
    torch.testing.assert_close(value, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", UNARY)
def test_every_activation(name):
    assert_matches_reference(f"linear2({name}(linear1(x)))", 6, 4, seed=0)


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("text", ["linear2({}(linear1(x), tanh(x)))", "linear2({}(tanh(x), linear1(x)))"])
def test_every_binary_crops_the_wider_operand(name, text):
    assert_matches_reference(text.format(name), 6, 4, seed=1)
    assert_matches_reference(text.format(name), 6, 6, seed=2)


@pytest.mark.parametrize("text", [*PUBLISHED, GATED, SEVEN_HIGH, f"identity({GATED})"])
def test_value_of_known_expressions(text):
    assert_matches_reference(text, 6, 3, seed=3)


def random_expression(generator: random.Random, depth: int) -> str:
    """A random text over all names; most are invalid."""
    if depth == 0 or generator.random() < 0.15:
        return "x"
    name = generator.choice([*UNARY, *BINARY, "linear1", "linear2", "linear1", "linear2", "gate", "identity"])
    parts = [random_expression(generator, depth - 1) for _ in range(2 if name in BINARY else 1)]
    return f"{name}({', '.join(parts)})"


def fits(node, hidden_size, intermediate_size):
    try:
        check_widths(node, hidden_size, intermediate_size)
    except ExpressionError:
        return False
    return True


def test_random_expressions_against_the_reference():
    generator, seen = random.Random(0), set()
    while len(seen) < 200:
        text = random_expression(generator, 8)
        try:
            node = parse(text)
        except ExpressionError:
            continue
        if node in seen:
            continue
        seen.add(node)
        assert parse(str(node)) == node
        assert 3 <= height(node) <= 7
        sizes = [size for size in (2, 4, 5, 7) if fits(node, 5, size)]
        assert_matches_reference(text, 5, generator.choice(sizes), seed=len(seen))
    names = {part.name for node in seen for part in walk(node) if hasattr(part, "name")}
    assert names == {*UNARY, *BINARY, "linear1", "linear2", "gate"}


def test_a_new_operator_is_one_line(monkeypatch):
    monkeypatch.setitem(ffn_efficientbert.UNARY, "cube", lambda x: x**3)
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_sizes": 4}
    config = EfficientBertConfig(ffn_expressions="linear2(cube(linear1(x)))", vocab_size=10, ffn_stacks=1, **sizes)
    assert EfficientBertModel(config)(torch.tensor([[1, 2]])).last_hidden_state.isfinite().all()
