"""What a search may choose: shapes and widths, and what a recipe may not ask."""

import pytest

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.search.space.architecture import LayerChoice, Shape, Sizes
from efficientbert.search.space.sizes import ATTENTION, LAYER_DIMENSIONS, Choices
from efficientbert.train.cli.errors import InputError


BASE = EfficientBertConfig(hidden_size=24, num_hidden_layers=3, num_attention_heads=3, head_dim=5, embedding_size=7)


def test_what_is_not_chosen_is_the_bases():
    assert Choices().shapes(BASE) == [(3, Shape(24, 7))]


def test_shapes_are_all_combinations_at_which_heads_are_whole():
    choices = Choices(depths=(2, 4), hidden_sizes=(24, 25, 30), head_counts=(3, 4), embedding_sizes=(5, 6))
    expected = {(depth, Shape(hidden, embedding)) for depth in (2, 4) for hidden in (24, 30) for embedding in (5, 6)}
    found = choices.shapes(BASE)
    assert set(found) == expected and len(found) == len(expected)


def test_heads_of_a_layer_are_whole_and_narrowest_first():
    choices = Choices(head_counts=(4, 3))
    # The base's own head size where hidden size and heads are the base's.
    assert {size: choices.attentions(size, BASE) for size in (24, 25, 30)} == {
        24: [(3, 5), (4, 6)],
        25: [],
        30: [(3, 10)],
    }
    assert Choices().attentions(24, BASE) == [(3, 5)] and Choices().attentions(36, BASE) == [(3, 12)]


def test_head_sizes_may_be_chosen_apart_from_the_hidden_size():
    choices = Choices(head_counts=(2, 7), head_dims=(4, 9))
    assert choices.shapes(BASE) == [(3, Shape(24, 7))]
    assert choices.attentions(24, BASE) == [(2, 4), (2, 9), (7, 4), (7, 9)]


def test_a_layer_may_have_no_attention_whatever_the_size_of_a_head():
    for choices in (Choices(head_counts=(0, 3)), Choices(head_counts=(3, 0), head_dims=(5,))):
        assert choices.attentions(24, BASE) == [(0, 0), (3, 5)]


def test_heads_that_are_not_chosen_are_those_of_any_layer_of_the_base():
    base = EfficientBertConfig(hidden_size=24, num_hidden_layers=3, attention_heads=[2, 0, 4], head_dims=[7, 0, 3])
    assert Choices().attentions(24, base) == [(0, 0), (4, 3), (2, 7)]
    assert Choices().attentions(36, base) == [(0, 0), (2, 18), (4, 9)]


@pytest.mark.parametrize(
    ("choices", "hidden_size", "widths"),
    [
        (Choices(), 540, [135, 180, 270, 540]),
        (Choices(base_width=540), 360, [135, 180, 270, 540]),
        (Choices(width_multiple=16), 540, [128, 176, 256, 528]),
        (Choices(width_multiple=16), 40, [16, 32]),
        (Choices(divisors=(2, 5)), 3, [1]),
    ],
)
def test_widths_are_parts_of_the_base_width_rounded_down_to_a_multiple(choices, hidden_size, widths):
    assert choices.widths(hidden_size) == widths


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("depths", (4, 0), "depths: must be whole numbers of at least 1, not (4, 0)"),
        ("hidden_sizes", (2.5,), "hidden_sizes: must be whole numbers of at least 1, not (2.5,)"),
        ("head_counts", (True,), "head_counts: must be whole numbers of at least 0, not (True,)"),
        ("base_width", -3, "base_width: must be whole numbers of at least 1, not -3"),
        ("width_multiple", 0, "width_multiple: must be whole numbers of at least 1, not 0"),
        ("stacks", (1, 2, 1), "stacks: every number may stand in it once only, not (1, 2, 1)"),
        ("stacks", (), "stacks: at least one is needed, such as 1"),
        ("divisors", (), "divisors: at least one is needed, such as 1"),
    ],
)
def test_what_cannot_be_is_refused_by_name(field, value, message):
    with pytest.raises(InputError) as error:
        Choices(**{field: value})
    assert str(error.value) == message


def test_dimensions_of_a_layer_are_all_its_sizes_in_their_order():
    assert tuple(name for dimension in LAYER_DIMENSIONS for name in dimension.sizes) == Sizes._fields
    choices, layer = Choices(head_counts=(0, 3), stacks=(2, 1)), LayerChoice("linear2(linear1(x))", 1, 24, 3, 5)
    assert [one.options(choices, BASE, 24) for one in LAYER_DIMENSIONS] == [
        [(2,), (1,)],
        [(6,), (8,), (12,), (24,)],
        [(0, 0), (3, 5)],
    ]
    assert [one.read(layer) for one in LAYER_DIMENSIONS] == [(1,), (24,), (3, 5)]
    assert ATTENTION.change(layer, (0, 0)) == LayerChoice("linear2(linear1(x))", 1, 24, 0, 0)
