"""Costs of architectures: sums over parts against whole models and torch's own counter."""

import math
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from efficientbert import EfficientBertConfig, EfficientBertModel
from efficientbert.search.costs.budget import Budget
from efficientbert.search.costs.cost import Flops, Parameters, count_flops, count_parameters
from efficientbert.search.space.architecture import Architecture, LayerChoice
from efficientbert.train.cli.errors import InputError


SIZES = {"vocab_size": 50, "embedding_size": 8, "max_position_embeddings": 24}
GATED = "linear2(mul(swish(linear1(x)), gate(x)))"
CONFIGS = {
    "published": EfficientBertConfig(hidden_size=24, num_attention_heads=4, **SIZES),
    "other sizes": EfficientBertConfig(
        hidden_size=20,
        num_hidden_layers=3,
        num_attention_heads=5,
        ffn_expressions=["linear2(gelu(linear1(x)))", GATED, "linear2(relu(mul(linear1(x), x)))"],
        ffn_stacks=[3, 2, 1],
        intermediate_sizes=[7, 31, 13],
        type_vocab_size=3,
        **SIZES,
    ),
    "free head size": EfficientBertConfig(
        hidden_size=18, num_hidden_layers=2, num_attention_heads=4, head_dim=6, ffn_expressions=GATED, **SIZES
    ),
    "other heads in every layer": EfficientBertConfig(
        hidden_size=20, num_hidden_layers=4, attention_heads=[5, 0, 2, 3], head_dims=[4, 0, 7, 4], head_dim=1, **SIZES
    ),
    "no attention": EfficientBertConfig(hidden_size=12, num_hidden_layers=2, attention_heads=[0, 0], **SIZES),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_equal_the_built_model(name):
    assert count_parameters(CONFIGS[name]) == EfficientBertModel(CONFIGS[name]).num_parameters()


@pytest.mark.parametrize(
    ("preset", "millions"),
    [
        ("efficientbert-tiny", 9.10),
        ("efficientbert", 15.32),
        ("efficientbert-plus", 15.32),
        ("efficientbert-plus-plus", 15.70),
    ],
)
def test_parameters_of_presets(preset, millions):
    assert round(count_parameters(EfficientBertConfig.from_preset(preset)) / 1e6, 2) == millions


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("sequence_length", [1, 17])
@pytest.mark.parametrize("name", CONFIGS)
def test_flops_equal_torchs_counter(name, sequence_length, batch_size):
    model = EfficientBertModel(CONFIGS[name]).eval()
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(batch_size, sequence_length, dtype=torch.long))
    assert count_flops(CONFIGS[name], sequence_length, batch_size) == counter.get_total_flops()


def count_weights(model, part):
    return sum(parameter.numel() for name, parameter in model.named_parameters() if part(name))


@pytest.mark.parametrize("name", CONFIGS)
def test_the_parts_of_a_cost_are_those_of_the_model(name):
    config = CONFIGS[name]
    architecture, cost = Architecture.from_config(config), Parameters(config)
    model = EfficientBertModel(config)
    for index, layer in enumerate(architecture.layers):
        inside = f"layers.{index}."
        networks = count_weights(model, lambda name, inside=inside: name.startswith(f"{inside}ffns."))
        both = count_weights(model, lambda name, inside=inside: name.startswith(inside))
        shape = architecture.shape
        assert cost.layer(shape, replace(layer, heads=0, head_dim=0)) == networks
        assert cost.layer(shape, layer) == both
    assert cost.embeddings(shape) == count_weights(model, lambda name: name.startswith("embeddings."))


@pytest.mark.parametrize("cost", [Parameters(CONFIGS["published"]), Flops(CONFIGS["published"], 9)])
def test_a_kind_of_expressions_costs_the_same(cost):
    shape = Architecture.from_config(CONFIGS["published"]).shape
    texts = [GATED, "linear2(max(gate(x), linear1(x)))", "linear2(gelu(linear1(x)))", "elu(linear2(relu(linear1(x))))"]
    gated, same_gated, plain, same_plain = (
        (cost.kind(t), cost.layer(shape, LayerChoice(t, 2, 9, 4, 6))) for t in texts
    )
    assert gated == same_gated and plain == same_plain and gated[0] != plain[0] and gated[1] > plain[1]


def test_budget_holds_both_ends():
    budget = Budget("parameters", 15e6, 16e6)
    assert [budget.contains(cost) for cost in (14_999_999, 15_000_000, 16_000_000, 16_000_001)] == [
        False,
        True,
        True,
        False,
    ]
    assert Budget("flops", maximum=3e9).contains(0) and not Budget("flops", maximum=3e9).contains(3e9 + 1)
    assert Budget("latency", minimum=2).contains(math.inf) and not Budget("latency", minimum=2).contains(1.9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("memory", 0, 1), "unknown metric 'memory'; known are parameters, flops, latency"),
        (("latency", 2, 1), "latency from 2 to 1 is empty"),
        (("flops", -1, 1), "flops from -1 to 1 is empty"),
        (("flops", 0, math.nan), "flops from 0 to nan is empty"),
    ],
)
def test_budget_that_nothing_fits_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        Budget(*arguments)
