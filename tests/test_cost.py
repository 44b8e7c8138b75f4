"""Costs of architectures: closed forms against built models and torch's own counter; latency with a fake clock."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from efficientbert import EfficientBertConfig, EfficientBertModel
from efficientbert.search import cost
from efficientbert.search.cost import (
    Budget,
    count_flops,
    count_parameters,
    measure_config_latency,
    measure_latency,
    time_rounds,
)
from efficientbert.train.script import InputError


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


class Timed(nn.Module):
    """Moves a fake clock by the next of its times, in seconds, and notes the call."""

    def __init__(self, clock, name, seconds):
        super().__init__()
        self.clock, self.name, self.seconds = clock, name, iter(seconds)

    def forward(self, x):
        assert torch.is_inference_mode_enabled()
        self.clock.calls.append(self.name)
        self.clock.now += next(self.seconds)


@pytest.fixture
def clock(monkeypatch):
    fake = SimpleNamespace(now=0.0, calls=[])
    monkeypatch.setattr(cost.time, "perf_counter", lambda: fake.now)
    return fake


def test_latency_is_the_median_of_interleaved_rounds_after_the_warmup(clock):
    models = [Timed(clock, "a", [9, 0.003, 0.001, 0.008]), Timed(clock, "b", [9, 0.02, 0.05, 0.04])]
    latencies = measure_latency(models, {"x": torch.zeros(1)}, rounds=3, warmup=1)
    assert latencies == pytest.approx([3, 40])
    assert clock.calls == ["a", "b"] * 4


def test_rounds_are_yielded_as_they_are_timed(clock):
    models = [Timed(clock, "a", [1, 0.002, 0.003]), Timed(clock, "b", [1, 0.004, 0.005])]
    rounds = time_rounds(models, {"x": torch.zeros(1)}, rounds=2, warmup=1)
    assert next(rounds) == pytest.approx([2, 4]) and clock.calls == ["a", "b"] * 2
    assert next(rounds) == pytest.approx([3, 5]) and next(rounds, None) is None


def test_latency_of_configurations_runs_their_models(monkeypatch):
    def count_layers(models, inputs, rounds):
        assert inputs["input_ids"].shape == (2, 9) and inputs["input_ids"].max() < 50 and rounds == 4
        for model in models:
            assert not model.training and model(**inputs).last_hidden_state.shape[:2] == (2, 9)
        return [float(model.config.num_hidden_layers) for model in models]

    monkeypatch.setattr(cost, "measure_latency", count_layers)
    assert measure_config_latency(list(CONFIGS.values()), 9, batch_size=2, rounds=4) == [6, 3, 2]


def test_budget_holds_both_ends():
    budget = Budget("parameters", 15e6, 16e6)
    assert [budget.contains(cost) for cost in (14_999_999, 15_000_000, 16_000_000, 16_000_001)] == [
        False,
        True,
        True,
        False,
    ]
    assert Budget("flops", 0, math.inf).contains(3e9)


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
