"""Speed and memory of a distillation step beside the sum of its parts and the machine's matrix-product peak.

    python benchmarks/step.py --teacher ../shared/models/gte-small --output benchmarks/step

Everything is timed in one process, one after the other in every round, so that whatever else the machine does meets
all alike; figures are medians over the rounds. Peak memory is of a process of its own for every precision.
"""

import dataclasses
import multiprocessing
import os
import resource
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel

from efficientbert.configuration_efficientbert import PRESETS, EfficientBertConfig
from efficientbert.modeling_efficientbert import EfficientBertModel
from efficientbert.search.costs.cost import count_flops
from efficientbert.search.costs.machine import describe_machine
from efficientbert.train.cli.command import run_command
from efficientbert.train.distillation.arguments import LossArguments
from efficientbert.train.distillation.capture import Captures
from efficientbert.train.distillation.loss_choice import make_recipe
from efficientbert.train.distillation.objective import GeneralDistillation
from efficientbert.train.distillation.scales import Scales
from efficientbert.train.distillation.student import Student, choose_attention, fit_config, read_config
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.engine.arguments import LoopArguments
from efficientbert.train.engine.optimizer import make_optimizer
from efficientbert.train.files.writing import write_json
from efficientbert.train.model_folder.loading import quiet_loading


PRECISIONS = ("float32", "bfloat16")
PARTS = ("teacher forward", "student forward and backward", "projection and losses", "clip and optimizer")


@dataclass
class StepArguments:
    """Times a distillation step, its parts, and matrix products of its sizes; writes OUTPUT.json and OUTPUT.md."""

    teacher: str = field(metadata={"help": "Hub id or folder of the teacher."})
    output: str = field(metadata={"help": "Path of the results, without ending."})
    student: str = field(
        default="efficientbert-tiny", metadata={"help": f"Preset ({', '.join(PRESETS)}) or config.json."}
    )
    batch_size: int = field(default=16, metadata={"help": "Sequences, without padding."})
    length: int = field(default=128, metadata={"help": "Tokens in a sequence."})
    rounds: int = field(default=7, metadata={"help": "How often everything is timed."})
    cache_tokens: int = field(default=20_000, metadata={"help": "Tokens of teacher outputs to write and read back."})


class Bench:
    """A teacher, a student and a batch, with a step of theirs and its parts as functions without arguments.

    Args:
        args: Arguments of the script.
        precision: `float32`, or `bfloat16` by autocast.
        parts: Whether the parts of the step are wanted too.
    """

    def __init__(self, args: StepArguments, precision: str, parts: bool = True):
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.precision = precision
        self.teacher = Teacher.load(args.teacher, self.device)
        preset = args.student in PRESETS
        config = EfficientBertConfig.from_preset(args.student) if preset else read_config(Path(args.student))
        self.config = fit_config(config, self.teacher)
        torch.manual_seed(0)
        self.student = Student(EfficientBertModel(self.config), self.teacher.hidden_size).to(self.device).train()
        choose_attention(self.student.encoder)
        layers = self.teacher.num_layers
        scales = Scales((1.0,) * (layers + 1), (1.0,) * (layers + 1), (1.0,) * layers)
        self.recipe = make_recipe(LossArguments(), self.config, self.teacher)
        self.objective = GeneralDistillation(self.teacher, scales, self.recipe)
        self.optimizer = make_optimizer(self.student, LoopArguments(learning_rate=1e-6))
        shape = (args.batch_size, args.length)
        ids = torch.randint(5, len(self.teacher.tokenizer), shape, device=self.device)
        self.batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        self.counts = self.objective.count(self.batch)
        if parts:
            with quiet_loading():
                self.plain_teacher = AutoModel.from_pretrained(args.teacher, dtype=torch.float32).to(self.device)
            self.plain_teacher.eval().requires_grad_(False)
            with self.autocast():
                self.teacher_captures = self.teacher(self.batch)
                self.leaves = self._leaves()

    def autocast(self) -> Any:
        """The precision as a context."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bfloat16" else nullcontext()

    @torch.no_grad()
    def _leaves(self) -> Captures:
        """What the student's losses look at, as tensors that begin a graph of their own; states are not projected."""
        encoder = self.student.encoder
        inner = self.student.recorder.record(lambda: encoder(**self.batch, output_hidden_states=True))
        parts = (inner.hidden_states, inner.queries, inner.keys, inner.values)
        return Captures(*(tuple(t.detach().requires_grad_() for t in part) for part in parts))

    def step(self) -> None:
        """The whole step, as the training loop takes it."""
        with self.autocast():
            loss, _ = self.objective(self.student, self.batch, self.counts, 0)
        loss.backward()
        self.optimize()

    def optimize(self) -> None:
        """Cuts the gradient and updates the weights."""
        nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def teacher_forward(self) -> None:
        """The teacher without captures."""
        with torch.no_grad(), self.autocast():
            self.plain_teacher(**self.batch)

    def captured_teacher(self) -> None:
        """The teacher with captures."""
        with self.autocast():
            self.teacher(self.batch)

    def student_passes(self) -> None:
        """The student's forward and backward pass without captures, projection and losses."""
        with self.autocast():
            states = self.student.encoder(**self.batch).last_hidden_state
        states.backward(torch.ones_like(states))

    def losses(self) -> None:
        """Projection and losses, forward and backward, from captures that are there."""
        with self.autocast():
            states = tuple(self.student.projection(states) for states in self.leaves.hidden_states)
            captures = dataclasses.replace(self.leaves, hidden_states=states)
            loss, _ = self.objective.loss(captures, self.teacher_captures, self.batch, self.counts)
        loss.backward()

    def flops(self) -> dict[str, int]:
        """Operations of the matrix products of every part."""
        implementation = self.plain_teacher.config._attn_implementation
        self.plain_teacher.set_attn_implementation("eager")
        with FlopCounterMode(display=False) as teacher:
            self.teacher_forward()
        self.plain_teacher.set_attn_implementation(implementation)
        with FlopCounterMode(display=False) as losses:
            self.losses()
        batch_size, length = self.batch["input_ids"].shape
        student = 3 * count_flops(self.config, length, batch_size)  # the backward pass has two products for each
        return dict(zip(PARTS, (teacher.get_total_flops(), student, losses.get_total_flops(), 0)))

    def products(self) -> dict[str, Callable[[], None]]:
        """Matrix products of the sizes that occur in teacher and student; with the numbers of their operations."""
        tokens = self.batch["input_ids"].numel()
        wide, inner = self.teacher.hidden_size, self.teacher.model.config.to_dict().get("intermediate_size")
        narrow, factor = self.config.hidden_size, max(self.config.intermediate_sizes)
        shapes = [(tokens, wide, wide), (tokens, wide, inner or 4 * wide), (tokens, inner or 4 * wide, wide)]
        shapes += [(tokens, narrow, 3 * narrow), (tokens, narrow, factor), (narrow, tokens, factor)]
        dtype = getattr(torch, self.precision)
        found = {}
        for m, k, n in shapes:
            left, right = (torch.randn(size, dtype=dtype, device=self.device) for size in ((m, k), (k, n)))
            found[f"{m} x {k} x {n}"] = lambda left=left, right=right: torch.mm(left, right)
        return found


def seconds(function: Callable[[], None]) -> float:
    """Time of one call."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_memory(args: StepArguments, precision: str) -> dict[str, float]:
    """MB that two steps need at most, and MB before them with all weights loaded; for a process of its own."""
    bench = Bench(args, precision, parts=False)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / 1e6
    else:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    bench.step()
    bench.step()
    after = torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_available() else None
    return {"before_mb": before, "peak_mb": after or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}


def time_all(benches: dict[str, Bench], rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds of everything, by precision, all interleaved."""
    functions: dict[tuple[str, str], Callable[[], None]] = {}
    for precision, bench in benches.items():
        parts = (bench.teacher_forward, bench.student_passes, bench.losses, bench.optimize)
        named = dict(zip(PARTS, parts)) | {"step": bench.step, "teacher with captures": bench.captured_teacher}
        functions |= {(precision, name): function for name, function in (named | bench.products()).items()}
    times: dict[tuple[str, str], list[float]] = {key: [] for key in functions}
    for number in range(rounds + 1):
        for key, function in functions.items():
            if key[1] == "clip and optimizer":
                benches[key[0]].student_passes()  # gradients to cut
                benches[key[0]].losses()
            elapsed = seconds(function)
            if key[1] in PARTS[1:3]:
                benches[key[0]].optimizer.zero_grad()
            if number > 0:  # the first warms up
                times[key].append(elapsed)
    return {
        precision: {name: statistics.median(t) for (p, name), t in times.items() if p == precision}
        for precision in benches
    }


def measure_cache(bench: Bench, tokens: int) -> dict[str, float]:
    """What a cache of teacher outputs on disk would take: bytes, and seconds to read them, for every token.

    Kept would be, in 16 bits, what the losses look at: the mapped hidden states, queries and keys.
    """
    layers, states = len(bench.recipe.layers), len(bench.recipe.states)
    query = bench.teacher.attention_linears(0)[0].out_features
    size = 2 * (states * bench.teacher.hidden_size + layers * 2 * query)
    with tempfile.NamedTemporaryFile(dir=".") as file:
        block = os.urandom(1 << 20)
        start = time.perf_counter()
        for _ in range(max(1, size * tokens // len(block))):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        written = time.perf_counter() - start
        total = file.tell()
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # read from the disk, not from memory
        start = time.perf_counter()
        with open(file.name, "rb", buffering=0) as reader:
            while reader.read(1 << 20):
                pass
        read = time.perf_counter() - start
    return {
        "bytes_per_token": size,
        "write_mb_per_second": total / written / 1e6,
        "read_mb_per_second": total / read / 1e6,
        "read_seconds_per_token": read / total * size,
    }


def summarise(bench: Bench, times: dict[str, float], memory: dict[str, float]) -> dict[str, Any]:
    """The figures of one precision."""
    flops, tokens = bench.flops(), bench.batch["input_ids"].numel()
    products = {
        name: 2 * m * k * n / times[name] / 1e9
        for name in times
        if " x " in name
        for m, k, n in [map(int, name.split(" x "))]
    }
    peak = max(products.values())
    parts = {name: {"seconds": times[name], "gflops_per_second": flops[name] / times[name] / 1e9} for name in PARTS}
    whole = sum(flops.values()) / times["step"] / 1e9
    return {
        "tokens_per_second": tokens / times["step"],
        "step_seconds": times["step"],
        "sum_of_parts_seconds": sum(times[name] for name in PARTS),
        "captures_share_of_step": (times["teacher with captures"] - times["teacher forward"]) / times["step"],
        "gflops_per_second": whole,
        "peak_gflops_per_second": peak,
        "part_of_peak": whole / peak,
        "products_gflops_per_second": products,
        "parts": parts,
        "flops": flops,
        **memory,
    }


def table(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    arguments, found = result["arguments"], result["precisions"]
    rows = [("", *found), ("---", *("---:" for _ in found))]

    def add(name: str, figure: Callable[[dict[str, Any]], str]) -> None:
        rows.append((name, *(figure(figures) for figures in found.values())))

    add("tokens a second", lambda f: f"{f['tokens_per_second']:,.0f}")
    add("step, ms", lambda f: f"{1e3 * f['step_seconds']:.0f}")
    add("sum of its parts, ms", lambda f: f"{1e3 * f['sum_of_parts_seconds']:.0f}")
    for part in PARTS:
        add(f"- {part}, ms", lambda f, part=part: f"{1e3 * f['parts'][part]['seconds']:.0f}")
    add("teacher captures, part of the step", lambda f: f"{f['captures_share_of_step']:.1%}")
    add("step, GFLOP/s", lambda f: f"{f['gflops_per_second']:.0f}")
    add("best matrix product, GFLOP/s", lambda f: f"{f['peak_gflops_per_second']:.0f}")
    add("step, part of that peak", lambda f: f"{f['part_of_peak']:.0%}")
    for part in PARTS[:3]:
        share = lambda f, part=part: f"{f['parts'][part]['gflops_per_second'] / f['peak_gflops_per_second']:.0%}"  # noqa: E731
        add(f"- {part}, part of the peak", share)
    add("peak memory, MB (weights loaded: MB)", lambda f: f"{f['peak_mb']:.0f} ({f['before_mb']:.0f})")
    cache = result["cache"]
    add("teacher forward, µs a token", lambda f: f"{1e6 * f['parts'][PARTS[0]]['seconds'] / result['tokens']:.1f}")
    add("reading its outputs instead, µs a token", lambda f: f"{1e6 * cache['read_seconds_per_token']:.1f}")
    add("size of its outputs, kB a token", lambda f: f"{cache['bytes_per_token'] / 1e3:.1f}")
    add("… of 10 million tokens, GB", lambda f: f"{cache['bytes_per_token'] / 100:.0f}")
    load = result["load_average"]
    return "\n".join(
        [
            f"Distillation step of {Path(arguments['teacher']).name} to {arguments['student']}, "
            f"{arguments['batch_size']} sequences of {arguments['length']} tokens, {result['threads']} thread(s), "
            f"medians of {arguments['rounds']} rounds; load average {load['before']:.1f} before and "
            f"{load['after']:.1f} after.",
            "",
            f"`{result['command']}`",
            "",
            *("| " + " | ".join(row) + " |" for row in rows),
            "",
        ]
    )


def main(args: StepArguments) -> None:
    """Measures and writes."""
    load_before = os.getloadavg()[0]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        memory = {precision: pool.submit(peak_memory, args, precision).result() for precision in PRECISIONS}
    benches = {precision: Bench(args, precision) for precision in PRECISIONS}
    times = time_all(benches, args.rounds)
    result = {
        "command": f"python benchmarks/step.py {shlex.join(sys.argv[1:])}",
        "machine": describe_machine(),
        "threads": torch.get_num_threads(),
        "load_average": {"before": load_before, "after": os.getloadavg()[0]},
        "arguments": dataclasses.asdict(args),
        "tokens": args.batch_size * args.length,
        "precisions": {name: summarise(bench, times[name], memory[name]) for name, bench in benches.items()},
        "cache": measure_cache(benches["float32"], args.cache_tokens),
    }
    write_json(Path(args.output + ".json"), result)
    Path(args.output + ".md").write_text(table(result), encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    run_command(main, StepArguments, "step")
