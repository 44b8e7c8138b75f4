"""Parts of an architecture: their names, and that each computes what it does in the model."""

import pytest
import torch

from efficientbert import EfficientBertConfig, EfficientBertModel
from efficientbert.ffn_efficientbert import BINARY
from efficientbert.search.costs.parts import (
    all_network_parts,
    attention_part,
    build_part,
    embeddings_part,
    layer_parts,
    network_parts,
)
from efficientbert.search.space.architecture import LayerChoice, Shape


BASE = EfficientBertConfig(
    hidden_size=24, num_attention_heads=4, vocab_size=50, embedding_size=8, max_position_embeddings=24
)
SHAPE = Shape(24, 8)
PLAIN = "linear2(gelu(linear1(x)))"
GATED = "linear2(mul(swish(linear1(x)), gate(x)))"
CROPPED = "add(x, linear2(max(relu(linear1(tanh(x))), x)))"


def test_parts_of_a_network():
    assert sorted(network_parts(PLAIN, 24, 8)) == ["gelu 8", "linear 24 8", "linear 8 24", "residual 24"]
    gated = ["linear 24 8", "linear 24 8", "linear 8 24", "mul 8 8", "residual 24", "swish 8"]
    assert sorted(network_parts(GATED, 24, 8)) == gated
    cropped = ["add 16 16", "linear 16 7", "linear 7 16", "max 7 16", "relu 7", "residual 16", "tanh 16"]
    assert sorted(network_parts(CROPPED, 16, 7)) == cropped
    assert "mul 7 16" in network_parts("linear2(mul(x, linear1(x)))", 16, 7)  # the narrow operand first


def test_parts_of_a_layer():
    networks = sorted(2 * network_parts(PLAIN, 24, 8))
    assert sorted(layer_parts(24, LayerChoice(PLAIN, 2, 8, 0, 0))) == networks
    assert sorted(layer_parts(24, LayerChoice(PLAIN, 2, 8, 4, 6))) == ["attention 24 4 6", *networks]


@pytest.mark.parametrize("part", [embeddings_part(SHAPE), attention_part(24, 4, 6), *all_network_parts(24, 8)])
def test_every_part_runs_at_its_widths(part):
    name, *sizes = part.split()
    module, inputs = build_part(part, BASE, 2, 9, dtype=torch.bfloat16)
    with torch.inference_mode():
        found = module(*inputs)
    found = found.last_hidden_state if name == "embeddings" else found
    sizes = [int(size) for size in sizes]
    last = min(sizes) if name in BINARY else sizes[1] if name == "linear" else sizes[0]
    assert found.shape == (2, 9, last) and found.dtype == torch.bfloat16


def test_parts_compute_what_the_model_computes():
    layer, (states, _) = build_part("attention 24 4 6", BASE, 2, 9)
    context, _ = layer.attention(states, None)
    assert torch.equal(layer(states, None), layer.layer_norm(states + context))
    assert layer.attention.config._attn_implementation == EfficientBertModel(BASE).config._attn_implementation
    frame, tokens = build_part("embeddings 24 8", BASE, 2, 9)
    assert torch.equal(frame(*tokens).last_hidden_state, frame.embeddings(*tokens, None, None, None))
    network, (states,) = build_part("residual 24", BASE, 2, 9)
    assert torch.equal(network(states), network.layer_norm(2 * states))
    cropped, _ = build_part("max 8 24", BASE, 2, 9)
    narrow, wide = cropped.operands
    assert torch.equal(cropped(), torch.maximum(narrow, wide[..., :8]))
