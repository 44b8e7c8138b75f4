"""Latency: timing with a fake clock; the table with fake devices whose whole and parts have closed-form costs."""

import dataclasses
import fcntl
import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from efficientbert import EfficientBertConfig, EfficientBertModel
from efficientbert.ffn_efficientbert import BINARY, UNARY
from efficientbert.search.costs import latency, timing
from efficientbert.search.costs.latency import (
    Latency,
    LatencySettings,
    measure_config_latency,
    measure_parts,
    repeat_part,
)
from efficientbert.search.costs.parts import all_network_parts, attention_part, embeddings_part
from efficientbert.search.costs.timing import time_rounds
from efficientbert.search.space.architecture import Architecture, LayerChoice, Shape
from efficientbert.train.cli.errors import InputError


SIZES = {"vocab_size": 50, "embedding_size": 8, "max_position_embeddings": 24}
BASE = EfficientBertConfig(hidden_size=24, num_attention_heads=4, **SIZES)
SETTINGS = LatencySettings(batch_size=2, sequence_length=9)
SHAPE = Shape(24, 8)
PLAIN = "linear2(gelu(linear1(x)))"
GATED = "linear2(mul(swish(linear1(x)), gate(x)))"
CROPPED = "add(x, linear2(max(relu(linear1(tanh(x))), x)))"
ARCHITECTURES = [
    Architecture(SHAPE, (LayerChoice(PLAIN, 1, 24, 4, 6),)),
    Architecture(
        SHAPE, (LayerChoice(GATED, 3, 8, 4, 6), LayerChoice(CROPPED, 2, 16, 4, 6), LayerChoice(PLAIN, 4, 40, 4, 6))
    ),
    Architecture(Shape(16, 4), (LayerChoice(CROPPED, 1, 7, 3, 5), LayerChoice(GATED, 2, 16, 3, 5))),
    Architecture(SHAPE, tuple(LayerChoice(PLAIN, 1, 8, *attention) for attention in ((0, 0), (4, 6), (2, 7)))),
    Architecture.from_config(EfficientBertConfig(hidden_size=12, num_attention_heads=2, **SIZES)),
]
HERE = {"processor": "a processor", "gpu": "none", "torch": "2.0"}


class Device:
    """A device without a clock: every part costs what its name says, and it notes what is measured."""

    def __init__(self):
        self.measured = []

    def __call__(self, parts, base, settings):
        self.measured.append(list(parts))
        return [self.cost(*part.split()) for part in parts]

    @staticmethod
    def cost(name, *sizes):
        return sum(map(ord, name)) / 7 + sum(float(size) ** 0.5 * (1 + rank) for rank, size in enumerate(sizes))


def run_whole(monkeypatch, architecture):
    """What a forward of the built model costs on that device, by watching its modules and operators at work."""
    model = EfficientBertModel(architecture.to_config(BASE)).eval()
    shape, costs = architecture.shape, []

    def watch(modules, name, *sizes):
        for module in modules:
            module.register_forward_hook(lambda *_: costs.append(Device.cost(name, *sizes)))

    def watched(name, operator):
        def call(*operands):
            # A cropped operand is a view: its rows lie as far apart as the whole one is wide.
            costs.append(Device.cost(name, *sorted(operand.stride(-2) for operand in operands)))
            return operator(*operands)

        return call

    for operators in (UNARY, BINARY):
        for name, operator in operators.items():
            monkeypatch.setitem(operators, name, watched(name, operator))
    networks = [network for layer in model.layers for network in layer.ffns]
    watch([model.embeddings], "embeddings", shape.hidden_size, shape.embedding_size)
    for module, layer in zip(model.layers, architecture.layers):
        watch([module.attention] if layer.heads else [], "attention", shape.hidden_size, layer.heads, layer.head_dim)
    watch(networks, "residual", shape.hidden_size)
    for linear in [module for network in networks for module in network.modules() if isinstance(module, nn.Linear)]:
        watch([linear], "linear", linear.in_features, linear.out_features)
    with torch.no_grad():
        model(torch.zeros(1, 5, dtype=torch.long))
    monkeypatch.undo()
    return sum(costs)


class Timed:
    """A call that moves a fake clock by the next of its times, in seconds, and is noted."""

    def __init__(self, clock, name, seconds):
        self.clock, self.name, self.seconds = clock, name, iter(seconds)

    def __call__(self):
        assert torch.is_inference_mode_enabled()
        self.clock.calls.append(self.name)
        self.clock.now += next(self.seconds)


@pytest.fixture
def clock(monkeypatch):
    fake = SimpleNamespace(now=0.0, calls=[])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: fake.now)
    return fake


def test_rounds_are_interleaved_and_yielded_as_they_are_timed(clock):
    calls = [Timed(clock, "a", [1, 0.002, 0.003]), Timed(clock, "b", [1, 0.004, 0.005])]
    rounds = time_rounds(calls, "cpu", rounds=2, warmup=1)
    assert next(rounds) == pytest.approx([2, 4]) and clock.calls == ["a", "b"] * 2
    assert next(rounds) == pytest.approx([3, 5]) and next(rounds, None) is None
    assert clock.calls == ["a", "b"] * 3


def test_latency_of_configurations_is_the_median_of_their_models(monkeypatch):
    def count_layers(calls, device, rounds):
        for call in calls:
            states, mask = call().last_hidden_state, call.args[1]
            assert states.shape[:2] == (2, 9) and states.dtype == torch.bfloat16 and mask.all()
            assert not call.func.training and torch.get_num_threads() == 3
        layers = [call.func.config.num_hidden_layers for call in calls]
        return iter([[9.0 * n for n in layers], [0.0] * len(layers), [float(n) for n in layers]][:rounds])

    monkeypatch.setattr(latency, "time_rounds", count_layers)
    before = torch.get_num_threads()
    settings = dataclasses.replace(SETTINGS, dtype="bfloat16", threads=3)
    configs = [architecture.to_config(BASE) for architecture in ARCHITECTURES]
    assert measure_config_latency(configs, settings, rounds=3) == [1, 3, 2, 3, 6]
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_prediction_is_exact_on_an_additive_device(tmp_path, monkeypatch, architecture):
    table = Latency(BASE, tmp_path / "table.json", SETTINGS, Device())
    assert table(architecture) == pytest.approx(run_whole(monkeypatch, architecture), rel=1e-12)


def test_costs_add_up_over_layers_and_stacks(tmp_path):
    table = Latency(BASE, tmp_path / "table.json", SETTINGS, Device())
    one = ARCHITECTURES[1]
    layers = sum(table.layer(SHAPE, layer) for layer in one.layers)
    assert table(one) == pytest.approx(table.embeddings(SHAPE) + layers)
    networks = table.layer(SHAPE, LayerChoice(GATED, 3, 8, 0, 0))
    assert networks == pytest.approx(3 * table.layer(SHAPE, LayerChoice(GATED, 1, 8, 0, 0)))
    attention = Device.cost("attention", 24, 4, 6)
    assert table.price(["attention 24 4 6"]) == [pytest.approx(attention)]
    assert table.layer(SHAPE, LayerChoice(GATED, 3, 8, 4, 6)) == pytest.approx(attention + networks)


def test_a_layer_without_attention_has_no_part_of_it(tmp_path):
    device = Device()
    table = Latency(BASE, tmp_path / "table.json", SETTINGS, device)
    layer = LayerChoice(PLAIN, 2, 8, 0, 0)
    networks = Device.cost("residual", 24) + Device.cost("gelu", 8)
    networks += Device.cost("linear", 24, 8) + Device.cost("linear", 8, 24)
    assert table.layer(SHAPE, layer) == pytest.approx(2 * networks)
    table.layer(SHAPE, LayerChoice(PLAIN, 1, 8, 2, 3))
    measured = [part for parts in device.measured for part in parts if part.startswith("attention")]
    assert measured == ["attention 24 2 3"]


def test_a_part_is_measured_once(tmp_path):
    device = Device()
    table = Latency(BASE, tmp_path / "table.json", SETTINGS, device)
    layer = LayerChoice(PLAIN, 2, 8, 0, 0)
    first = table.layer(SHAPE, layer)
    assert table.layer(SHAPE, layer) == first
    assert table.layer(SHAPE, LayerChoice(PLAIN, 4, 8, 0, 0)) == pytest.approx(2 * first)
    assert device.measured == [["residual 24", "linear 24 8", "gelu 8", "linear 8 24"]]
    table.layer(SHAPE, LayerChoice(GATED, 1, 8, 0, 0))
    assert device.measured[1:] == [["swish 8", "mul 8 8"]]


@pytest.mark.parametrize("size", [8, 24, 40])
def test_prepared_sizes_need_no_more_measuring(tmp_path, size):
    device = Device()
    table = Latency(BASE, tmp_path / "table.json", SETTINGS, device)
    parts = [embeddings_part(SHAPE), attention_part(24, 4, 6), *all_network_parts(24, size)]
    table.prepare(2 * parts)
    assert len(device.measured) == 1 and len(set(device.measured[0])) == len(device.measured[0])
    expressions = [
        PLAIN,
        GATED,
        *(CROPPED for _ in range(size <= 24)),
        "linear2(mul(elu(linear1(sigmoid(x))), gate(x)))",
    ]
    expressions += [f"add({name}(linear2({name}(linear1(x)))), x)" for name in UNARY]
    for expression in expressions:
        table(Architecture(SHAPE, (LayerChoice(expression, 2, size, 4, 6),)))
    assert len(device.measured) == 1


def no_measuring(parts, base, settings):
    raise AssertionError(f"{parts} are in the table")


def test_a_stored_table_gives_the_same_prices_without_measuring(tmp_path):
    path = tmp_path / "study" / "table.json"
    table = Latency(BASE, path, SETTINGS, Device())
    prices = [table(architecture) for architecture in ARCHITECTURES]
    again = Latency(BASE, path, SETTINGS, no_measuring)
    assert [again(architecture) for architecture in ARCHITECTURES] == prices
    stored = json.loads(path.read_text())
    assert stored["settings"] == dataclasses.asdict(SETTINGS) and stored["machine"]["torch"] == torch.__version__
    assert stored["milliseconds"]["gelu 24"] == Device.cost("gelu", "24")


def test_what_another_worker_stored_is_read_and_not_measured(tmp_path):
    path, device = tmp_path / "table.json", Device()
    late = Latency(BASE, path, SETTINGS, no_measuring)  # begins while there is no table
    price = Latency(BASE, path, SETTINGS, device)(ARCHITECTURES[0])
    assert late(ARCHITECTURES[0]) == price
    late.measure = device
    late(ARCHITECTURES[1])
    assert set(json.loads(path.read_text())["milliseconds"]) == {part for parts in device.measured for part in parts}


def test_the_file_is_locked_while_parts_are_measured(tmp_path):
    def locked(parts, base, settings):
        with open(tmp_path / "table.json.lock", "w") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return [1.0] * len(parts)

    Latency(BASE, tmp_path / "table.json", SETTINGS, locked)(ARCHITECTURES[0])
    with open(tmp_path / "table.json.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_measuring_that_fails_leaves_the_table_as_it_was(tmp_path):
    def fail(parts, base, settings):
        raise KeyboardInterrupt

    path = tmp_path / "table.json"
    table = Latency(BASE, path, SETTINGS, Device())
    price, before = table(ARCHITECTURES[0]), path.read_text()
    table.measure = fail
    with pytest.raises(KeyboardInterrupt):
        table(ARCHITECTURES[1])
    assert path.read_text() == before and table(ARCHITECTURES[0]) == price
    table.measure = Device()
    table(ARCHITECTURES[1])


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch_size", 1), ("sequence_length", 8), ("device", "cuda"), ("dtype", "bfloat16"), ("threads", 2)],
)
def test_a_table_of_other_settings_is_refused(tmp_path, name, value):
    path = tmp_path / "table.json"
    Latency(BASE, path, SETTINGS, Device())(ARCHITECTURES[0])
    with pytest.raises(InputError, match=f"measured with {name} {getattr(SETTINGS, name)}, not {value}; ") as error:
        Latency(BASE, path, dataclasses.replace(SETTINGS, **{name: value}), Device())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"settings": {"colour": 1}, "machine": {}, "milliseconds": {}}', '{"settings": {}, "machine'],
)
def test_a_damaged_table_is_refused(tmp_path, text):
    (tmp_path / "table.json").write_text(text)
    with pytest.raises(InputError, match=r"table\.json': holds no latency table; delete the file"):
        Latency(BASE, tmp_path / "table.json", SETTINGS, Device())


@pytest.mark.parametrize("other", [{"processor": "another"}, {"torch": "1.0"}])
def test_another_machine_may_read_a_table_but_not_add_to_it(tmp_path, monkeypatch, other):
    path, device = tmp_path / "table.json", Device()
    monkeypatch.setattr(latency, "describe_machine", lambda: HERE)
    price = Latency(BASE, path, SETTINGS, device)(ARCHITECTURES[0])
    before = path.read_text()
    monkeypatch.setattr(latency, "describe_machine", lambda: HERE | other)
    table = Latency(BASE, path, SETTINGS, device)
    assert table(ARCHITECTURES[0]) == price
    with pytest.raises(InputError, match=r"lacks 'linear 24 8', and was measured on .*a processor.*, not on"):
        table(ARCHITECTURES[1])
    assert path.read_text() == before and len(device.measured) == 2


@pytest.mark.parametrize(
    ("cold", "tokens", "copies"), [(0, 9, 4), (8_001, 64, 11), (80_000, 9, 64), (32_000, 512, 10)]
)
def test_weights_are_copied_until_no_cache_holds_them(monkeypatch, cold, tokens, copies):
    monkeypatch.setattr(latency, "COLD_BYTES", cold)
    calls = repeat_part("linear 24 8", BASE, LatencySettings(1, tokens))  # 25 * 8 weights of 4 bytes
    assert len(calls) == copies == len({call.func.weight.data_ptr() for call in calls})
    assert len({id(call.args[0]) for call in calls}) == 1


def test_measured_is_the_median_time_of_one_call(monkeypatch, clock):
    class Moves(nn.Module):
        def __init__(self, part):
            super().__init__()
            self.part = part
            self.weight = nn.Parameter(torch.zeros(3)) if part.startswith("linear") else None

        def forward(self):
            slower = (9, 9, 1, 5, 2)[len(clock.calls) // 5 % 5]  # two rounds of warm-up, three that count
            clock.now += slower * Device.cost(*self.part.split()) / 1000
            clock.calls.append(self.part)

    monkeypatch.setattr(latency, "build_part", lambda part, *rest: (Moves(part), ()))
    for name, value in {"GROUP": 2, "CALLS": 1, "COLD_BYTES": 0, "ROUNDS": 3}.items():
        monkeypatch.setattr(latency, name, value)
    parts = ["gelu 4", "linear 4 5", "tanh 6", "linear 6 4"]
    found = measure_parts(parts, BASE, SETTINGS)
    assert found == pytest.approx([2 * Device.cost(*part.split()) for part in parts])
    first, second = (["gelu 4"] + ["linear 4 5"] * 4) * 5, (["tanh 6"] + ["linear 6 4"] * 4) * 5
    assert clock.calls == first + second


def test_measuring_leaves_random_state_and_threads_alone(monkeypatch):
    monkeypatch.setattr(latency, "ROUNDS", 1)
    monkeypatch.setattr(latency, "COLD_BYTES", 0)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    found = measure_parts(["embeddings 24 8", "attention 24 4 6", "linear 24 8", "mul 8 24"], BASE, SETTINGS)
    assert len(found) == 4 and min(found) > 0
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 0}, "batch_size 0: must be positive"),
        ({"sequence_length": -1}, "sequence_length -1: must be positive"),
        ({"threads": 0}, "threads 0: must be positive"),
        ({"device": "tpu"}, "unknown device 'tpu'; known are cpu, cuda"),
        ({"dtype": "int8"}, "unknown dtype 'int8'; known are float32, float16, bfloat16"),
    ],
)
def test_impossible_settings_are_refused(fields, message):
    with pytest.raises(InputError, match=message):
        LatencySettings(**fields)


def test_sequences_longer_than_the_model_takes_are_refused(tmp_path):
    with pytest.raises(InputError, match="sequence_length 25: the model takes at most 24 tokens"):
        Latency(BASE, tmp_path / "table.json", LatencySettings(sequence_length=25))


def test_a_missing_device_is_refused_and_nothing_written(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    table = Latency(BASE, tmp_path / "table.json", dataclasses.replace(SETTINGS, device="cuda"))
    with pytest.raises(InputError, match="no CUDA device"):
        table(ARCHITECTURES[0])
    assert not (tmp_path / "table.json").exists()
