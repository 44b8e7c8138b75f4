"""An architecture comes back from whatever it is turned into."""

import json
from dataclasses import replace

import pytest

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.search.space.architecture import Architecture, LayerChoice, Shape


BASE = EfficientBertConfig(vocab_size=60, max_position_embeddings=20, hidden_dropout_prob=0.3)
ARCHITECTURE = Architecture(
    Shape(hidden_size=24, embedding_size=6),
    (
        LayerChoice("linear2(mul(gelu(linear1(x)), gate(x)))", 2, 7, 3, 5),
        LayerChoice("linear2(gelu(linear1(x)))", 1, 31, 3, 5),
    ),
)
MIXED = replace(
    ARCHITECTURE,
    layers=tuple(
        replace(ARCHITECTURE.layers[1], heads=heads, head_dim=head_dim)
        for heads, head_dim in ((3, 5), (0, 0), (4, 2), (3, 7))
    ),
)
NONE = replace(MIXED, layers=MIXED.layers[1:2] * 2)


def test_a_configuration_has_its_sizes_and_the_rest_of_the_base():
    config = ARCHITECTURE.to_config(BASE)
    assert (config.hidden_size, config.num_attention_heads, config.head_dim, config.embedding_size) == (24, 3, 5, 6)
    assert config.num_hidden_layers == 2 and config.ffn_stacks == [2, 1] and config.intermediate_sizes == [7, 31]
    assert config.ffn_expressions == [layer.expression for layer in ARCHITECTURE.layers]
    assert (config.vocab_size, config.max_position_embeddings, config.hidden_dropout_prob) == (60, 20, 0.3)


def test_heads_stand_layer_by_layer_where_they_differ():
    config = ARCHITECTURE.to_config(MIXED.to_config(BASE))
    assert config.attention_heads is config.head_dims is None and config.attentions == [(3, 5)] * 2
    config = MIXED.to_config(BASE)
    assert config.attention_heads == [3, 0, 4, 3] and config.head_dims == [5, 0, 2, 7]
    assert NONE.to_config(BASE).attentions == [(0, 0)] * 2
    assert [one.attentive for one in (ARCHITECTURE, MIXED, NONE)] == [(0, 1), (0, 2, 3), ()]


@pytest.mark.parametrize("architecture", [ARCHITECTURE, MIXED, NONE])
def test_it_comes_back_from_a_configuration_and_from_json(architecture):
    for back in (
        Architecture.from_config(architecture.to_config(BASE)),
        Architecture.from_json(json.loads(json.dumps(architecture.to_json()))),
    ):
        assert back == architecture and hash(back) == hash(architecture)
