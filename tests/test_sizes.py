"""What a search may choose: shapes and widths, and what a recipe may not ask."""

import pytest

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.search.space.architecture import Shape
from efficientbert.search.space.sizes import Choices
from efficientbert.train.cli.errors import InputError


BASE = EfficientBertConfig(hidden_size=24, num_hidden_layers=3, num_attention_heads=3, head_dim=5, embedding_size=7)


def test_what_is_not_chosen_is_the_bases():
    assert Choices().shapes(BASE) == [(3, Shape(24, 7))]


def test_shapes_are_all_combinations_with_whole_heads():
    found = Choices(depths=(2, 4), hidden_sizes=(24, 30), head_counts=(3, 4), embedding_sizes=(5, 6)).shapes(BASE)
    whole = {
        (24, 3): 5,
        (24, 4): 6,
        (30, 3): 10,
    }  # the base's own head size where hidden size and heads are the base's
    expected = {
        (depth, Shape(*pair, head_dim, embedding))
        for depth in (2, 4)
        for pair, head_dim in whole.items()
        for embedding in (5, 6)
    }
    assert set(found) == expected and len(found) == len(expected)


def test_head_sizes_may_be_chosen_apart_from_the_hidden_size():
    found = Choices(head_counts=(2, 7), head_dims=(4, 9)).shapes(BASE)
    assert found == [(3, Shape(24, 7)) for heads in (2, 7) for size in (4, 9)]


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
        ("head_counts", (True,), "head_counts: must be whole numbers of at least 1, not (True,)"),
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
