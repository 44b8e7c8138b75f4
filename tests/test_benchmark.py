"""The side-by-side benchmark: counts against closed forms, statistics against made-up times, output, bad input."""

import json
import math
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, BertConfig, BertModel, DistilBertConfig, DistilBertModel, T5Config, T5Model

from efficientbert import EfficientBertConfig, EfficientBertModel
from efficientbert.search.benchmark import main
from efficientbert.search.costs import comparison
from efficientbert.search.costs.arguments import RUNTIMES, BenchmarkArguments
from efficientbert.search.costs.comparison import (
    Measured,
    Timing,
    command_of,
    count_encoder_parameters,
    count_model_flops,
    format_table,
    load_config,
    load_model,
    make_inputs,
    measure_times,
    peak_memory,
    summarize,
)
from efficientbert.search.costs.cost import count_flops
from efficientbert.train.cli.command import run_command
from efficientbert.train.cli.errors import InputError


SCRIPT = str(Path(__file__).parents[1] / "search/benchmark.py")
SMALL_BERT = BertConfig(
    vocab_size=60,
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=40,
    max_position_embeddings=32,
)
SMALL_OURS = EfficientBertConfig(
    vocab_size=50, embedding_size=8, hidden_size=24, num_attention_heads=3, max_position_embeddings=32
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A small BERT, a small model of ours, and one that cannot run on tokens and a mask alone."""
    root = tmp_path_factory.mktemp("models")
    BertModel(SMALL_BERT).save_pretrained(root / "bert")
    EfficientBertModel(SMALL_OURS).save_pretrained(root / "ours")
    t5 = T5Config(vocab_size=60, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=4)
    T5Model(t5).save_pretrained(root / "t5")
    return root


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("bert-base", 108_891_648),  # 109,482,240 with the pooler
        ("tinybert-4", 14_252_592),
        ("tinybert-6", 66_364_416),
        ("minilm-l6-h384", 22_565_376),
        ("minilm-l12-h384", 33_212_160),
        ("xtremedistil-l6-h256", 12_684_288),
        ("mobilebert-tiny", 15_485_696),  # 15.1 million in its paper
        ("ettin-17m", 16_797_440),
    ],
)
def test_published_sizes(name, parameters):
    with torch.device("meta"):
        assert count_encoder_parameters(AutoModel.from_config(load_config(name))) == parameters


def test_flops_of_bert_are_its_matrix_products_without_the_pooler():
    hidden, ffn, length = 24, 40, 11
    model = BertModel._from_config(SMALL_BERT, attn_implementation="eager").eval()
    layer = 4 * hidden * hidden + 2 * hidden * ffn + 2 * length * hidden
    assert count_model_flops(model, length) == 2 * length * 2 * layer


def test_flops_of_ours_are_the_formula():
    assert count_model_flops(EfficientBertModel(SMALL_OURS), 7) == count_flops(SMALL_OURS, 7)


def test_flops_of_a_model_without_a_pooler():
    config = DistilBertConfig(vocab_size=60, dim=24, hidden_dim=40, n_layers=1, n_heads=3, max_position_embeddings=32)
    model = DistilBertModel._from_config(config, attn_implementation="eager").eval()
    assert count_model_flops(model, 5) == 2 * 5 * (4 * 24 * 24 + 2 * 24 * 40 + 2 * 5 * 24)


def test_folders_load_with_their_weights(folders):
    stored = BertModel.from_pretrained(folders / "bert").state_dict()
    loaded = load_model(str(folders / "bert"), "bfloat16")
    assert not loaded.training and loaded.dtype == torch.bfloat16
    for name, tensor in loaded.state_dict().items():
        torch.testing.assert_close(tensor.float(), stored[name], atol=1e-2, rtol=1e-2)


def test_a_configuration_is_built_with_random_weights(folders):
    built = load_model(str(folders / "ours" / "config.json"), "float32").state_dict()
    stored = EfficientBertModel.from_pretrained(folders / "ours").state_dict()
    assert {name: tensor.shape for name, tensor in built.items()} == {
        name: tensor.shape for name, tensor in stored.items()
    }
    assert not all(torch.equal(tensor, stored[name]) for name, tensor in built.items())


def test_inputs_are_of_a_vocabulary():
    inputs = make_inputs(50, 16, 30, "cpu")
    assert inputs["input_ids"].shape == (16, 30) and inputs["attention_mask"].all()
    assert inputs["input_ids"].min() == 0 and inputs["input_ids"].max() == 49


def test_statistics():
    timing = summarize(16, [5.0, 1.0, 2.0, 4.0, 3.0], [30.0, 10.0, 20.0], 1000)
    assert timing == Timing(16, 3.0, 2.0, 4.0, pytest.approx(20 / 3), 1000)


def test_times_go_to_their_model_and_batch(monkeypatch):
    def fake_rounds(calls, device, rounds):
        for number in range(rounds):
            yield [100 * index + 10 * len(call.keywords["input_ids"]) + number for index, call in enumerate(calls)]

    monkeypatch.setattr(comparison, "time_rounds", fake_rounds)
    args = BenchmarkArguments(["a", "b"], batch_sizes=[1, 4], sequence_length=3, rounds=2)
    models = [BertModel(SMALL_BERT), EfficientBertModel(SMALL_OURS)]
    assert measure_times(models, 50, args, "cpu") == [{1: [10, 11], 4: [40, 41]}, {1: [110, 111], 4: [140, 141]}]


def test_every_model_is_timed_in_every_runtime(folders, monkeypatch):
    timed, seen = [], []

    def compiled(model, dynamic):
        seen.append((model, dynamic))
        return model.forward

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(comparison, "in_fresh_process", lambda name, job, *arguments: {2: 7})

    def fake_rounds(calls, device, rounds):
        timed.extend(call.func for call in calls)
        outputs = [call() for call in calls]
        states = [output.last_hidden_state for output in outputs]
        for place in (0, 4):  # all runtimes of a model give what it gives
            for other in states[place + 1 : place + 3]:
                assert torch.allclose(states[place], other, atol=1e-4)
            assert 0 < (states[place] - states[place + 3]).abs().max() < 0.5
        return [[float(number + 1) for number in range(len(calls))]]

    monkeypatch.setattr(comparison, "time_rounds", fake_rounds)
    models, threads = [str(folders / "bert"), str(folders / "ours")], torch.get_num_threads()
    args = BenchmarkArguments(models, [2], 9, threads, runtimes=["eager", "compile", "onnx", "onnx-int8"], rounds=1)
    with torch.inference_mode():
        found = comparison.benchmark(args)
    assert [(one.model, one.runtime) for one in found] == [(name, runtime) for name in models for runtime in RUNTIMES]
    assert [one.timings[0].median_ms for one in found] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [one.timings[0].speed_up for one in found] == pytest.approx([1 / n for n in range(1, 9)])
    assert [dynamic for _, dynamic in seen] == [False, False] and timed[1] == seen[0][0].forward
    assert [type(call).__name__ for call in timed[2:4]] == ["Session", "Session"]
    assert found[3].megabytes < found[2].megabytes and found[0].megabytes == found[1].megabytes
    header, _, *rows = format_table(found).splitlines()
    assert " runtime |" in header and " onnx-int8 |" in rows[3]


def test_a_model_that_onnxruntime_cannot_run_is_refused(folders, tmp_path, monkeypatch):
    class Broken:
        def __init__(self, path, threads=None):
            raise RuntimeError("an operator\nis missing")

    model = load_model(str(folders / "ours"), "float32")
    monkeypatch.setattr(comparison, "Session", Broken)
    with pytest.raises(InputError, match="model 'mine': cannot be run in onnxruntime: an operator"):
        comparison.write_graphs("mine", model, ["onnx"], tmp_path / "graphs")


def test_a_graphs_memory_is_measured_in_a_fresh_process(folders, tmp_path):
    model = load_model(str(folders / "ours"), "float32")
    paths = comparison.write_graphs("ours", model, ["eager", "onnx"], tmp_path / "graphs")
    assert list(paths) == ["onnx"]
    args = BenchmarkArguments([], [4, 1], sequence_length=9, threads=1)
    peaks = comparison.in_fresh_process("ours", comparison.peak_memory_of_graph, paths["onnx"], 50, args)
    assert set(peaks) == {1, 4} and 0 < peaks[1] <= peaks[4] < 200e6


def test_peak_memory_holds_the_weights_and_little_else(tmp_path):
    big = BertConfig(
        vocab_size=600_000, hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    model = BertModel(big)
    weights = sum(tensor.nbytes for tensor in model.parameters())
    model.save_pretrained(tmp_path / "big")
    held = bytearray(500_000_000)  # what this process holds must not count
    args = BenchmarkArguments([], [16, 1], sequence_length=64, threads=1)
    peaks = comparison.in_fresh_process("big", peak_memory, str(tmp_path / "big"), args)
    assert len(held) and set(peaks) == {1, 16}
    assert weights <= peaks[1] <= peaks[16] < 2.5 * weights


def test_table_and_json(folders, tmp_path, capsys):
    models = [str(folders / "bert"), str(folders / "ours")]
    args = BenchmarkArguments(
        models, [2, 1], sequence_length=9, threads=1, rounds=2, output_json=str(tmp_path / "speed.json")
    )
    threads = torch.get_num_threads()
    made = main(args)
    torch.set_num_threads(threads)
    output = capsys.readouterr().out
    result = json.loads((tmp_path / "speed.json").read_text())

    assert made.figures == result and made.path == tmp_path / "speed.json"
    reports = result["models"]
    assert [report["model"] for report in reports] == models
    assert reports[1]["parameters"] == EfficientBertModel(SMALL_OURS).num_parameters()
    assert reports[1]["flops_per_sequence"] == count_flops(SMALL_OURS, 9)
    for report in reports:
        assert [timing["batch_size"] for timing in report["timings"]] == [2, 1]
        for timing, reference in zip(report["timings"], reports[0]["timings"]):
            assert 0 < timing["lower_quartile_ms"] <= timing["median_ms"] <= timing["upper_quartile_ms"]
            assert timing["peak_memory_bytes"] > 0
            assert math.isclose(timing["speed_up"], reference["median_ms"] / timing["median_ms"])
    assert result["machine"]["torch"] == torch.__version__ and result["arguments"]["sequence_length"] == 9
    assert result["command"] == command_of(args) and command_of(args) in output
    table = [line for line in output.splitlines() if line.startswith("|")]
    assert (
        len(table) == 4 and len({len(line) for line in table}) == 1 and len({line.count("|") for line in table}) == 1
    )


def test_table():
    reports = [
        Measured("bert-base", "eager", 108_891_648, 22_347_251_712, 438.0, [Timing(1, 100, 99, 104.26, 1.0, 2**20)]),
        Measured("tiny", "eager", 9_100_000, 1_420_000_000, 36.4, [Timing(1, 12.5, 12.0, 13.0, 8.0, 52_428_800)]),
    ]
    header, rule, *rows = (re.split(r" *\| *", line)[1:-1] for line in format_table(reports).splitlines())
    assert header[:4] == ["model", "encoder parameters (no pooler)", "FLOPs per sequence", "MB"]
    assert header[4:] == ["batch 1: ms (quartiles)", "speed-up", "peak MiB"] and len(rule) == 7
    assert rows == [
        ["bert-base", "108.89M", "22.35G", "438.0", "100.0 (99.0-104.3)", "1.0x", "1"],
        ["tiny", "9.10M", "1.42G", "36.4", "12.5 (12.0-13.0)", "8.0x", "50"],
    ]
    assert len({len(line) for line in format_table(reports).splitlines()}) == 1


def test_command_gives_the_arguments_back():
    assert command_of(BenchmarkArguments(["bert-base", "my folder"])) == (
        "efficientbert benchmark --models bert-base 'my folder'"
    )
    args = BenchmarkArguments(["a"], [1, 8], runtimes=["compile", "onnx"], output_json="speed.json")
    assert command_of(args) == (
        "efficientbert benchmark --models a --batch_sizes 1 8 --runtimes compile onnx --output_json speed.json"
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--models", "bert-huge"], "model 'bert-huge': cannot be found"),
        (["--models", "no/such-model"], "model 'no/such-model': cannot be found"),
        (["--models", "."], "model '.': cannot be read"),
        (["--models", "bert-base", "bert-huge"], "model 'bert-huge': cannot be found"),
        (["--models", "nowhere.json"], "there is no such file or folder"),
        (["--batch_sizes", "0"], "--batch_sizes [0]: must be positive"),
        (["--batch_sizes", "2", "2"], "--batch_sizes [2, 2]: must be positive and different"),
        (["--sequence_length", "0"], "--sequence_length 0: must be positive"),
        (["--rounds", "-1"], "--rounds -1: must be positive"),
        (["--threads", "0"], "--threads 0: must be positive"),
        (["--runtimes", "tflite"], "--runtimes 'tflite': unknown; known are eager, compile, onnx, onnx-int8"),
        (["--runtimes", "onnx", "onnx"], "--runtimes onnx onnx: name at least one, and none twice"),
        (["--runtimes", "onnx", "--dtype", "float16"], "--runtimes 'onnx': runs in float32 or int8"),
        (["--dtype", "int8"], "--dtype 'int8': unknown; known are float32"),
        (["--output_json", "no/such/folder/x.json"], "--output_json 'no/such/folder/x.json': cannot be written"),
        (["--output_json", "."], "--output_json '.': cannot be written"),
        (["--models", "t5"], "model 't5': cannot be run on 4 tokens"),
    ],
)
def test_bad_input_ends_with_one_line(folders, monkeypatch, capsys, flags, message):
    monkeypatch.chdir(folders)
    right = {"--models": "bert", "--sequence_length": "4", "--rounds": "1", "--threads": "1"}
    argv = [word for flag, value in right.items() if flag not in flags for word in (flag, value)] + flags
    threads = torch.get_num_threads()
    with pytest.raises(SystemExit) as stopped:
        run_command(main, BenchmarkArguments, "benchmark", argv)
    torch.set_num_threads(threads)
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if "error:" in line]
    assert stopped.value.code == 2 and captured.out == ""
    assert len(errors) == 1 and message in errors[0] and captured.err.endswith(errors[0] + "\n")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("ours", {"sequence_length": 33}, "model '.*ours': cannot be run on 33 tokens"),
        ("bert", {"sequence_length": 33}, "model '.*bert': cannot be run on 33 tokens"),
        (
            "bert",
            {"sequence_length": 4, "attention": "quantum"},
            "model '.*bert': cannot be run with attention 'quantum'",
        ),
    ],
)
def test_models_that_cannot_run_are_refused(folders, name, changes, message):
    args = BenchmarkArguments([], threads=torch.get_num_threads(), **changes)
    with pytest.raises(InputError, match=message):
        peak_memory(str(folders / name), args)


@pytest.mark.parametrize(
    ("program", "words"),
    [("runpy.run_module('efficientbert'", ["benchmark"]), (f"runpy.run_path({SCRIPT!r}", [])],
)
def test_runs_as_command_and_by_path(program, words, fresh):
    code, _, stderr = fresh(f"import runpy; {program}, run_name='__main__')", *words, "--models", "bert-huge")
    assert code == 2 and stderr.startswith("efficientbert benchmark: error: model 'bert-huge'")
