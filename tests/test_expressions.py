"""Expressions of the search: neighbours, the pool, and which are the same function."""

import hashlib
import math
import random

import pytest

from efficientbert.configuration_efficientbert import PUBLISHED_EXPRESSIONS
from efficientbert.ffn_efficientbert import (
    BINARY,
    UNARY,
    ExpressionError,
    Input,
    Unary,
    check_widths,
    parse,
    uses_gate,
    walk,
)
from efficientbert.search.space.expressions import (
    GATED,
    OPERATORS,
    PLAIN,
    expression_pool,
    fits,
    mutate_expression,
    operator_counts,
    replace_part,
    signature,
)


POOLS = [(gate, wide) for gate in (False, True) for wide in (False, True)]


def test_only_the_named_part_is_replaced():
    expression = parse("add(linear2(gelu(linear1(x))), gelu(x))")
    changed = replace_part(expression, expression.right, Input())
    assert str(changed) == "add(linear2(gelu(linear1(x))), x)"
    inner = expression.left.operand
    assert str(replace_part(expression, inner, Unary("tanh", inner.operand))) == (
        "add(linear2(tanh(linear1(x))), gelu(x))"
    )


def test_mutations_reach_every_operator_and_stay_valid():
    rng = random.Random(1)
    text, names = PLAIN, set()
    for _ in range(600):
        mutant = mutate_expression(text, rng, gate=True)
        assert mutant != text and str(parse(mutant)) == mutant
        text = mutant
        names |= {part.name for part in walk(parse(text)) if not isinstance(part, Input)}
    assert names == {*UNARY, *BINARY, "linear1", "linear2", "gate"}


@pytest.mark.parametrize("wide", [False, True])
def test_mutations_fit_the_widths_they_are_for(wide):
    rng, text = random.Random(5), PLAIN
    for _ in range(200):
        text = mutate_expression(text, rng, gate=True, wide=wide)
        check_widths(parse(text), *((4, 9) if wide else (9, 4)))


@pytest.mark.parametrize(
    ("text", "narrow", "wide"),
    [
        (GATED, True, True),
        ("linear2(relu(mul(linear1(x), x)))", True, False),  # cropped to the narrower: m below the hidden size
        ("add(linear2(gelu(linear1(x))), gate(x))", False, True),
        ("add(linear2(max(linear1(x), x)), gate(x))", False, False),
    ],
)
def test_whether_an_expression_fits_is_what_the_sizes_say(text, narrow, wide):
    assert (fits(text, wide=False), fits(text, wide=True)) == (narrow, wide)
    for valid, sizes in ((narrow, (12, 7)), (wide, (7, 12))):
        if valid:
            check_widths(parse(text), *sizes)
        else:
            with pytest.raises(ExpressionError):
                check_widths(parse(text), *sizes)


@pytest.mark.parametrize(("gate", "wide"), POOLS)
def test_the_pool_holds_different_valid_functions_with_their_probabilities(gate, wide):
    pool = expression_pool(gate, wide)
    sizes = (6, 9) if wide else (9, 6)
    good = [text for text in (PLAIN, GATED, *PUBLISHED_EXPRESSIONS) if fits(text, wide) and (gate or text != GATED)]
    assert len(pool) > 150 and set(good) <= pool.keys()
    assert math.isclose(sum(pool.values()), 1) and math.isclose(sum(pool[text] for text in good), 0.5)
    assert len({pool[text] for text in good}) == 1
    for text in pool:
        assert str(parse(text)) == text and (gate or not uses_gate(parse(text)))
        check_widths(parse(text), *sizes)
    assert len({signature(text, *sizes) for text in pool}) == len(pool)
    if gate:
        assert 0.15 < sum(weight for text, weight in pool.items() if uses_gate(parse(text))) < 0.5


def test_pool_and_signatures_are_the_same_everywhere():
    assert signature("linear2(add(gelu(linear1(x)), gate(x)))", 12, 11) == "974f8d6c6d25446931b75bba"
    pool = expression_pool.__wrapped__(True, False)
    assert list(pool) == list(expression_pool(True, False))
    digest = hashlib.sha256("\n".join(pool).encode()).hexdigest()
    assert digest == "6ad3e7e13ef69817ab53a81b3aa28e00f7b27f052d4d353c009e37d7d3228c1e"


def test_operators_are_counted():
    counts = dict(zip(OPERATORS, operator_counts("max(x, linear2(mul(gelu(linear1(gelu(x))), gate(x))))")))
    assert {name: count for name, count in counts.items() if count} == {"gelu": 2, "mul": 1, "max": 1}
    assert counts.keys() == {*UNARY, *BINARY}


SUM = "add(gelu(linear1(x)), gate(x))"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (f"linear2({SUM})", "linear2(add(gate(x), gelu(linear1(x))))"),  # commuted
        (f"linear2(add({SUM}, tanh(x)))", "linear2(add(gelu(linear1(x)), add(gate(x), tanh(x))))"),  # to the last bits
        ("linear2(max(sigmoid(linear1(x)), tanh(x)))", "linear2(max(tanh(x), sigmoid(linear1(x))))"),
        ("linear2(relu(max(sigmoid(linear1(x)), x)))", "linear2(max(sigmoid(linear1(x)), x))"),  # never negative
    ],
)
def test_equal_functions_share_a_signature(one, other):
    sizes = [size for size in (4, 6, 9) if all(fits(text, size > 6) for text in (one, other))]
    assert sizes[:2] == [4, 6]
    for size in sizes:
        assert signature(one, 6, size) == signature(other, 6, size)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("linear2(relu(linear1(x)))", "linear2(leaky_relu(linear1(x)))"),
        ("linear2(gelu(linear1(x)))", "linear2(swish(linear1(x)))"),
        ("linear2(mul(gelu(linear1(x)), gate(x)))", "linear2(mul(linear1(x), gelu(gate(x))))"),
        ("linear2(add(linear1(x), tanh(x)))", "linear2(max(linear1(x), tanh(x)))"),
    ],
)
def test_different_functions_have_different_signatures(one, other):
    assert signature(one, 6, 4) != signature(other, 6, 4)


def test_only_the_order_of_the_widths_matters_to_a_signature():
    text = "linear2(add(gelu(linear1(x)), gate(x)))"
    assert signature(text, 540, 270) == signature(text, 12, 11) != signature(text, 12, 12)
    assert signature(text, 12, 12) == signature(text, 540, 540) != signature(text, 360, 540) == signature(text, 1, 2)
    cropped = "add(linear2(gelu(linear1(x))), gate(x))"
    with pytest.raises(ExpressionError):
        signature(cropped, 540, 270)
