"""Latency with a fake clock."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from efficientbert import EfficientBertConfig
from efficientbert.search import latency
from efficientbert.search.latency import measure_config_latency, measure_latency, time_rounds


SIZES = {"vocab_size": 50, "embedding_size": 8, "max_position_embeddings": 24}
CONFIGS = [
    EfficientBertConfig(hidden_size=24, num_hidden_layers=layers, num_attention_heads=4, **SIZES)
    for layers in (6, 3, 2)
]


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
    monkeypatch.setattr(latency.time, "perf_counter", lambda: fake.now)
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

    monkeypatch.setattr(latency, "measure_latency", count_layers)
    assert measure_config_latency(CONFIGS, 9, batch_size=2, rounds=4) == [6, 3, 2]
