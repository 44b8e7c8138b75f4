"""Parameters, FLOPs, latency and memory of models side by side."""

import multiprocessing
import os
import resource
import shlex
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import torch
import transformers
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm.auto import tqdm
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from efficientbert.configuration_efficientbert import PRESETS, EfficientBertConfig
from efficientbert.search.costs.arguments import NOT_FOUND, PUBLISHED, BenchmarkArguments
from efficientbert.search.costs.cost import count_flops
from efficientbert.search.costs.latency import DTYPES
from efficientbert.search.costs.timing import time_rounds
from efficientbert.train.cli.arguments import changed_arguments
from efficientbert.train.cli.errors import InputError, one_line
from efficientbert.train.files.tables import table
from efficientbert.train.runtimes.session import Session, require_runtime


@dataclass(frozen=True)
class Timing:
    """One model at one batch size."""

    batch_size: int
    median_ms: float
    lower_quartile_ms: float
    upper_quartile_ms: float
    speed_up: float
    peak_memory_bytes: int


@dataclass(frozen=True)
class Measured:
    """One model in one runtime.

    Attributes:
        model: Its name.
        runtime: What ran it.
        parameters: Of the encoder, without a pooler.
        flops_per_sequence: Of one sequence.
        megabytes: Of its weights in memory, or of the file of its graph.
        timings: What was measured, by batch size.
    """

    model: str
    runtime: str
    parameters: int
    flops_per_sequence: int
    megabytes: float
    timings: list[Timing]


@contextmanager
def refusing(model: str, fault: str) -> Iterator[None]:
    """Turns whatever a foreign model raises into an [`InputError`] of one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # any architecture's own code runs here
        raise InputError(f"model {model!r}: {fault}: {one_line(error)}") from None


def has_weights(name: str) -> bool:
    """Whether a name stands for a trained model: a folder or a Hub id."""
    return not (name in PRESETS or name in PUBLISHED or name.endswith(".json"))


def load_config(name: str) -> PreTrainedConfig:
    """The configuration of a preset, a published size, a .json file, a folder or a Hub id.

    Raises:
        InputError: if it is none of these.
    """
    if name in PRESETS:
        return EfficientBertConfig.from_preset(name)
    if name in PUBLISHED:
        return AutoConfig.for_model(**PUBLISHED[name])
    with refusing(name, "cannot be read" if os.path.exists(name) else NOT_FOUND):
        return AutoConfig.from_pretrained(name, trust_remote_code=False)


def load_model(name: str, dtype: str) -> PreTrainedModel:
    """The encoder of a name in eval mode, with eager attention, on the CPU, with random weights where it has none.

    Raises:
        InputError: if it cannot be loaded.
    """
    config = load_config(name)
    options = {"attn_implementation": "eager", "dtype": DTYPES[dtype]}
    with refusing(name, "cannot be loaded"):
        if has_weights(name):
            return AutoModel.from_pretrained(name, trust_remote_code=False, **options).eval()
        return AutoModel.from_config(config, **options).eval()


def count_encoder_parameters(model: nn.Module) -> int:
    """Parameters of a model, without those of a pooler."""
    return sum(tensor.numel() for name, tensor in model.named_parameters() if "pooler" not in name.split("."))


def count_model_flops(model: PreTrainedModel, sequence_length: int) -> int:
    """FLOPs of one sequence's matrix products, without those of a pooler; the model must have eager attention.

    Ours by the exact formula, others by running torch's counter, which misses fused attention on the CPU.
    """
    if model.config.model_type == EfficientBertConfig.model_type:
        return count_flops(model.config, sequence_length)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(**make_inputs(model.config.vocab_size, 1, sequence_length, "cpu"))
    by_module = counter.get_flop_counts()
    pooler = sum(sum(by_module[name].values()) for name in by_module if name.endswith(".pooler"))
    return counter.get_total_flops() - pooler


def make_inputs(vocab_size: int, batch_size: int, sequence_length: int, device: str) -> dict[str, torch.Tensor]:
    """Random tokens of a vocabulary, and an attention mask without padding, of shape `(B, L)`."""
    generator = torch.Generator().manual_seed(0)
    input_ids = torch.randint(vocab_size, (batch_size, sequence_length), generator=generator).to(device)
    return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}


def prepare(name: str, model: PreTrainedModel, args: BenchmarkArguments, device: str) -> PreTrainedModel:
    """Gives a loaded model its attention and moves it to the device.

    Raises:
        InputError: if the model or the machine lacks this attention.
    """
    with refusing(name, f"cannot be run with attention {args.attention!r}"):
        model.set_attn_implementation(args.attention)
    return model.to(device)


def check_length(name: str, model: PreTrainedModel, sequence_length: int) -> None:
    """Runs one sequence on the CPU, where a sequence that is too long is an ordinary error.

    Raises:
        InputError: if the model cannot run it.
    """
    with refusing(name, f"cannot be run on {sequence_length} tokens"), torch.inference_mode():
        model(**make_inputs(model.config.vocab_size, 1, sequence_length, "cpu"))


def write_graphs(name: str, model: PreTrainedModel, runtimes: Sequence[str], folder: Path) -> dict[str, Path]:
    """The graphs of a model that some runtimes run, written to a folder, by runtime.

    Args:
        name: Of the model.
        model: The model.
        runtimes: Some of `RUNTIMES`.
        folder: To be made.

    Raises:
        InputError: if the model cannot be drawn as a graph, or onnxruntime cannot run it.
    """
    wanted = [runtime for runtime in runtimes if runtime.startswith("onnx")]
    if not wanted:
        return {}
    require_runtime()
    from efficientbert.train.runtimes.graph import BATCH, LENGTH, TensorModel, Traced, write_graph
    from efficientbert.train.runtimes.quantization import write_int8

    inputs, outputs = ("input_ids", "attention_mask"), ("last_hidden_state",)
    traced = Traced(TensorModel(model, inputs, outputs), inputs, outputs, (BATCH, LENGTH))
    paths = {"onnx": folder / "model.onnx", "onnx-int8": folder / "int8.onnx"}
    folder.mkdir()
    write_graph(traced, model.config.vocab_size, paths["onnx"])
    if "onnx-int8" in wanted:
        write_int8(paths["onnx"], paths["onnx-int8"])
    with refusing(name, "cannot be run in onnxruntime"):
        Session(paths["onnx"])(**make_inputs(model.config.vocab_size, 2, 3, "cpu"))
    return {runtime: paths[runtime] for runtime in wanted}


def run_in(
    runtime: str | None, name: str, model: PreTrainedModel, threads: int, folder: Path
) -> Callable[..., object]:
    """What runs a model: its graph in a runtime of onnxruntime, or else the model itself.

    Args:
        runtime: One of `RUNTIMES` that begin with onnx, or None.
        name: Of the model, for messages.
        model: The model.
        threads: CPU threads.
        folder: To be made for the graph.

    Raises:
        InputError: as `write_graphs`.
    """
    return model if runtime is None else Session(write_graphs(name, model, [runtime], folder)[runtime], threads)


def peak_resident_bytes() -> int:
    """The most memory this process ever held."""
    status = Path("/proc/self/status")
    if status.exists():  # unlike getrusage, it forgets what the parent process held
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def peak_memory_of_graph(path: Path, vocab_size: int, args: BenchmarkArguments) -> dict[int, int]:
    """Loads a graph in this process, which must be fresh, and runs it; see `peak_memory`."""
    require_runtime()
    before = psutil.Process().memory_info().rss
    session = Session(path, args.threads)
    peaks = {}
    for batch_size in sorted(args.batch_sizes):
        session(**make_inputs(vocab_size, batch_size, args.sequence_length, "cpu"))
        peaks[batch_size] = peak_resident_bytes() - before
    return peaks


def peak_memory(name: str, args: BenchmarkArguments) -> dict[int, int]:
    """Loads a model in this process, which must be fresh, and runs it.

    Returns:
        By batch size, the most bytes held so far: on a GPU, by tensors there; else by the process, less what the
        imports took. Batches run in ascending order, so that each one's peak is its own.

    Raises:
        InputError: if the model cannot be loaded or run.
    """
    quieten()
    torch.set_num_threads(args.threads)
    device = pick_device()
    with refusing(name, "cannot be built"), torch.device("meta"):
        AutoModel.from_config(load_config(name))  # imports its code, allocates nothing
    before = psutil.Process().memory_info().rss
    model = load_model(name, args.dtype)
    for tensor in model.parameters():
        tensor.sum()  # weights mapped from a file take memory only once they are read
    check_length(name, model, args.sequence_length)
    model = prepare(name, model, args, device)
    peaks = {}
    for batch_size in sorted(args.batch_sizes):
        inputs = make_inputs(model.config.vocab_size, batch_size, args.sequence_length, device)
        with refusing(name, f"cannot be run on {batch_size} sequences"), torch.inference_mode():
            model(**inputs)
        peaks[batch_size] = torch.cuda.max_memory_allocated() if device == "cuda" else peak_resident_bytes() - before
    return peaks


def in_fresh_process(name: str, job: Callable[..., dict[int, int]], *arguments: object) -> dict[int, int]:
    """What a job returns that runs in a process of its own.

    Raises:
        InputError: if the job does, or its process is killed.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(job, *arguments).result()
        except BrokenProcessPool:
            raise InputError(f"model {name!r}: its process was killed, probably for want of memory") from None


def measure_times(
    calls: Sequence[Callable[..., object]], vocab_size: int, args: BenchmarkArguments, device: str
) -> list[dict[int, list[float]]]:
    """Milliseconds of every round of everything that is called as a model is, by batch size."""
    times: list[dict[int, list[float]]] = [{} for _ in calls]
    for batch_size in args.batch_sizes:
        inputs = make_inputs(vocab_size, batch_size, args.sequence_length, device)
        rounds = time_rounds([partial(call, **inputs) for call in calls], device, args.rounds)
        progress = tqdm(rounds, desc=f"latency, batch {batch_size}", total=args.rounds, disable=None)
        for by_call, one_calls_times in zip(times, zip(*progress)):
            by_call[batch_size] = list(one_calls_times)
    return times


def summarize(
    batch_size: int, times: Sequence[float], reference_times: Sequence[float], peak_memory_bytes: int
) -> Timing:
    """Median and quartiles of a model's milliseconds, and how many times faster it is than the first model."""
    quartiles = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    lower, median, upper = torch.tensor(times, dtype=torch.float64).quantile(quartiles).tolist()
    reference = torch.tensor(reference_times, dtype=torch.float64).quantile(0.5).item()
    return Timing(batch_size, median, lower, upper, reference / median, peak_memory_bytes)


def benchmark(args: BenchmarkArguments) -> list[Measured]:
    """Measures every model in every runtime.

    Raises:
        InputError: if a model cannot be found, loaded or run.
    """
    configs = [load_config(name) for name in args.models]
    torch.set_num_threads(args.threads)
    device = pick_device()
    vocab_size = min(config.vocab_size for config in configs)
    # Every model and what it takes in PyTorch, before anything is held here.
    memory = {
        name: in_fresh_process(name, peak_memory, name, args)
        for name in tqdm(args.models, desc="memory", disable=None)
    }
    calls: list[Callable[..., object]] = []
    subjects: list[tuple[partial[Measured], dict[int, int]]] = []  # without their times, and with their memory
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(args.models):
            model = load_model(name, args.dtype)
            counts = (count_encoder_parameters(model), count_model_flops(model, args.sequence_length))
            model = prepare(name, model, args, device)
            graphs = write_graphs(name, model, args.runtimes, Path(folder, str(number)))
            weights = sum(tensor.nbytes for tensor in model.parameters()) / 1e6
            for chosen in args.runtimes:
                if chosen in graphs:
                    path = graphs[chosen]
                    peaks = in_fresh_process(name, peak_memory_of_graph, path, vocab_size, args)
                    calls.append(Session(path, args.threads))
                    subjects.append((partial(Measured, name, chosen, *counts, path.stat().st_size / 1e6), peaks))
                else:
                    calls.append(torch.compile(model, dynamic=False) if chosen == "compile" else model)
                    subjects.append((partial(Measured, name, chosen, *counts, weights), memory[name]))
        times = measure_times(calls, vocab_size, args, device)
    return [
        subject([summarize(size, by_batch[size], times[0][size], peaks[size]) for size in args.batch_sizes])
        for (subject, peaks), by_batch in zip(subjects, times)
    ]


def pick_device() -> str:
    """The GPU if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def quieten() -> None:
    """Keeps the library's notes on unused weights and its loading bars out of the output."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def command_of(args: BenchmarkArguments) -> str:
    """The shortest command line that gives these arguments."""
    words = ["efficientbert", "benchmark"]
    for name, value in changed_arguments(args).items():
        words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(words)


def format_table(reports: Sequence[Measured]) -> str:
    """The reports as an aligned Markdown table."""
    several = len({report.runtime for report in reports}) > 1 or reports[0].runtime != "eager"
    header = ["model", *(["runtime"] if several else []), "encoder parameters (no pooler)", "FLOPs per sequence", "MB"]
    for timing in reports[0].timings:
        header += [f"batch {timing.batch_size}: ms (quartiles)", "speed-up", "peak MiB"]
    rows = []
    for report in reports:
        row = [report.model, *([report.runtime] if several else []), f"{report.parameters / 1e6:.2f}M"]
        row += [f"{report.flops_per_sequence / 1e9:.2f}G", f"{report.megabytes:.1f}"]
        for timing in report.timings:
            quartiles = f"{timing.lower_quartile_ms:.1f}-{timing.upper_quartile_ms:.1f}"
            row += [f"{timing.median_ms:.1f} ({quartiles})", f"{timing.speed_up:.1f}x"]
            row.append(f"{timing.peak_memory_bytes / 2**20:.0f}")
        rows.append(row)
    return table(header, rows, aligned=True)
