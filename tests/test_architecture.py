"""An architecture comes back from whatever it is turned into."""

import json

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


def test_a_configuration_has_its_sizes_and_the_rest_of_the_base():
    config = ARCHITECTURE.to_config(BASE)
    assert (config.hidden_size, config.num_attention_heads, config.head_dim, config.embedding_size) == (24, 3, 5, 6)
    assert config.num_hidden_layers == 2 and config.ffn_stacks == [2, 1] and config.intermediate_sizes == [7, 31]
    assert config.ffn_expressions == [layer.expression for layer in ARCHITECTURE.layers]
    assert (config.vocab_size, config.max_position_embeddings, config.hidden_dropout_prob) == (60, 20, 0.3)


def test_it_comes_back_from_a_configuration_and_from_json():
    for back in (
        Architecture.from_config(ARCHITECTURE.to_config(BASE)),
        Architecture.from_json(json.loads(json.dumps(ARCHITECTURE.to_json()))),
    ):
        assert back == ARCHITECTURE and hash(back) == hash(ARCHITECTURE)
