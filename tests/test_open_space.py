"""The open space: sizes in parts of the teacher's, and its cheapest architecture."""

import itertools

import pytest

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.search.costs.cost import Parameters
from efficientbert.search.space.architecture import Architecture, LayerChoice
from efficientbert.search.space.expressions import PLAIN
from efficientbert.search.space.open_space import open_choices
from efficientbert.search.space.space import SearchSpace


def test_sizes_are_parts_of_the_teachers():
    choices = open_choices(384, 12, 12)
    assert choices.depths == (2, 3, 4, 5, 6, 8, 10, 12)
    assert choices.hidden_sizes == (192, 256, 320, 384) and choices.embedding_sizes == (64, 128, 192, 384)
    assert choices.head_counts == (0, 6, 12) and choices.head_dims == (16, 32)
    assert choices.widths(192) == [128, 192, 256, 384, 512, 768, 1536] == choices.widths(384)
    base = open_choices(768, 6, 12)
    assert base.depths == (2, 3, 4, 5, 6) and base.hidden_sizes == (384, 512, 640, 768)


@pytest.mark.parametrize("sizes", [(2, 1, 1), (24, 1, 2), (30, 4, 3)])
def test_small_teachers_have_a_space_too(sizes):
    base = EfficientBertConfig(vocab_size=50, hidden_size=sizes[0], num_attention_heads=sizes[2], num_hidden_layers=1)
    space = SearchSpace(base, open_choices(*sizes), costs={"parameters": Parameters(base)})
    assert space.least("parameters") > 0


def test_the_cheapest_is_that_of_all():
    base = EfficientBertConfig(vocab_size=50, max_position_embeddings=16)
    choices = open_choices(24, 2, 3)
    space, cost = SearchSpace(base, choices, costs={"parameters": Parameters(base)}), Parameters(base)
    found = []
    for depth, shape in space.shapes:
        layers = [
            LayerChoice(PLAIN, stack, width, *attention)
            for stack, width, attention in itertools.product(
                choices.stacks, choices.widths(shape.hidden_size), space.attentions(shape.hidden_size)
            )
        ]
        all_of_them = (Architecture(shape, chosen) for chosen in itertools.product(layers, repeat=depth))
        found += [cost(architecture) for architecture in all_of_them if architecture.attentive]
    assert space.least("parameters") == min(found)
