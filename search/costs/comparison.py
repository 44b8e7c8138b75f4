"""Parameters, FLOPs, latency and memory of models side by side."""

import multiprocessing
import os
import resource
import shlex
from collections.abc import Iterator, Sequence
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
from transformers import AutoConfig, AutoModel, BertConfig, PreTrainedConfig, PreTrainedModel

from efficientbert.configuration_efficientbert import PRESETS, EfficientBertConfig
from efficientbert.search.costs.arguments import NOT_FOUND, PUBLISHED_SIZES, BenchmarkArguments
from efficientbert.search.costs.cost import count_flops
from efficientbert.search.costs.latency import DTYPES
from efficientbert.search.costs.timing import time_rounds
from efficientbert.train.cli.arguments import changed_arguments
from efficientbert.train.cli.errors import InputError, one_line
from efficientbert.train.files.tables import table


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
    """One model: encoder parameters without a pooler, FLOPs of one sequence, and what was measured."""

    model: str
    parameters: int
    flops_per_sequence: int
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
    return not (name in PRESETS or name in PUBLISHED_SIZES or name.endswith(".json"))


def load_config(name: str) -> PreTrainedConfig:
    """The configuration of a preset, a published size, a .json file, a folder or a Hub id.

    Raises:
        InputError: if it is none of these.
    """
    if name in PRESETS:
        return EfficientBertConfig.from_preset(name)
    if name in PUBLISHED_SIZES:
        layers, hidden_size, heads, intermediate_size = PUBLISHED_SIZES[name]
        return BertConfig(
            num_hidden_layers=layers,
            hidden_size=hidden_size,
            num_attention_heads=heads,
            intermediate_size=intermediate_size,
        )
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
        model(**make_inputs([model], 1, sequence_length, "cpu"))
    by_module = counter.get_flop_counts()
    pooler = sum(sum(by_module[name].values()) for name in by_module if name.endswith(".pooler"))
    return counter.get_total_flops() - pooler


def make_inputs(
    models: Sequence[PreTrainedModel], batch_size: int, sequence_length: int, device: str
) -> dict[str, torch.Tensor]:
    """Random tokens that every model knows, and an attention mask without padding, of shape `(B, L)`."""
    vocab_size = min(model.config.vocab_size for model in models)
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
        model(**make_inputs([model], 1, sequence_length, "cpu"))


def peak_resident_bytes() -> int:
    """The most memory this process ever held."""
    status = Path("/proc/self/status")
    if status.exists():  # unlike getrusage, it forgets what the parent process held
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


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
        inputs = make_inputs([model], batch_size, args.sequence_length, device)
        with refusing(name, f"cannot be run on {batch_size} sequences"), torch.inference_mode():
            model(**inputs)
        peaks[batch_size] = torch.cuda.max_memory_allocated() if device == "cuda" else peak_resident_bytes() - before
    return peaks


def measure_memory(args: BenchmarkArguments) -> list[dict[int, int]]:
    """The peak memory of every model by batch size, each model in a process of its own.

    Raises:
        InputError: if a model cannot be loaded or run, or its process is killed.
    """
    peaks = []
    for name in tqdm(args.models, desc="memory", disable=None):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            try:
                peaks.append(pool.submit(peak_memory, name, args).result())
            except BrokenProcessPool:
                raise InputError(f"model {name!r}: its process was killed, probably for want of memory") from None
    return peaks


def measure_times(
    models: list[PreTrainedModel], args: BenchmarkArguments, device: str
) -> list[dict[int, list[float]]]:
    """Milliseconds of every round of every model by batch size."""
    timed = [torch.compile(model, dynamic=False) for model in models] if args.compile else models
    times: list[dict[int, list[float]]] = [{} for _ in models]
    for batch_size in args.batch_sizes:
        inputs = make_inputs(models, batch_size, args.sequence_length, device)
        rounds = time_rounds([partial(model, **inputs) for model in timed], device, args.rounds)
        progress = tqdm(rounds, desc=f"latency, batch {batch_size}", total=args.rounds, disable=None)
        for by_model, one_models_times in zip(times, zip(*progress)):
            by_model[batch_size] = list(one_models_times)
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
    """Measures every model.

    Raises:
        InputError: if a model cannot be found, loaded or run.
    """
    for name in args.models:
        load_config(name)
    torch.set_num_threads(args.threads)
    device = pick_device()
    memory = measure_memory(args)
    models, counts = [], []
    for name in args.models:
        model = load_model(name, args.dtype)
        counts.append((count_encoder_parameters(model), count_model_flops(model, args.sequence_length)))
        models.append(prepare(name, model, args, device))
    times = measure_times(models, args, device)
    reports = []
    for name, (parameters, flops), by_batch, peaks in zip(args.models, counts, times, memory):
        timings = [summarize(size, by_batch[size], times[0][size], peaks[size]) for size in args.batch_sizes]
        reports.append(Measured(name, parameters, flops, timings))
    return reports


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
    header = ["model", "encoder parameters (no pooler)", "FLOPs per sequence"]
    for timing in reports[0].timings:
        header += [f"batch {timing.batch_size}: ms (quartiles)", "speed-up", "peak MiB"]
    rows = []
    for report in reports:
        row = [report.model, f"{report.parameters / 1e6:.2f}M", f"{report.flops_per_sequence / 1e9:.2f}G"]
        for timing in report.timings:
            quartiles = f"{timing.lower_quartile_ms:.1f}-{timing.upper_quartile_ms:.1f}"
            row += [f"{timing.median_ms:.1f} ({quartiles})", f"{timing.speed_up:.1f}x"]
            row.append(f"{timing.peak_memory_bytes / 2**20:.0f}")
        rows.append(row)
    return table(header, rows, aligned=True)
