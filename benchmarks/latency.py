"""Latency predicted from a table of measured parts, beside measured whole models.

python benchmarks/latency.py --output benchmarks/latency
"""

import dataclasses
import os
import random
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau, spearmanr

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.search.costs.cost import Flops
from efficientbert.search.costs.latency import DTYPES, Latency, LatencySettings, measure_config_latency
from efficientbert.search.costs.machine import describe_machine
from efficientbert.search.space.architecture import Architecture
from efficientbert.search.space.sizes import Choices
from efficientbert.search.space.space import SearchSpace
from efficientbert.train.cli.command import run_command
from efficientbert.train.files.writing import write_json


@dataclass
class LatencyArguments:
    """Predicts the latency of random architectures and measures them; writes OUTPUT.json and OUTPUT.md."""

    output: str = field(metadata={"help": "Path of the results, without ending."})
    hidden_sizes: list[int] = field(default_factory=lambda: [360, 540], metadata={"help": "Hidden sizes."})
    architectures: int = field(default=16, metadata={"help": "How many at every hidden size."})
    batch_sizes: list[int] = field(default_factory=lambda: [1, 16], metadata={"help": "Sequences of a batch."})
    sequence_length: int = field(default=128, metadata={"help": "Tokens of every sequence."})
    device: str = field(default="cpu", metadata={"help": "cpu or cuda."})
    dtype: str = field(default="float32", metadata={"help": f"Weights and activations: {', '.join(DTYPES)}."})
    threads: int = field(default=1, metadata={"help": "Threads of one operation on the CPU."})
    rounds: int = field(default=3, metadata={"help": "Rounds of whole models in every repetition."})
    repetitions: int = field(default=3, metadata={"help": "How often a table, then the whole models, are measured."})


def compare(predicted: Sequence[float], measured: Sequence[float]) -> dict[str, float]:
    """How far predictions are off, and how well they rank."""
    ratio = np.array(predicted) / np.array(measured)
    return {
        "bias": float(np.median(ratio) - 1),
        "median_error": float(np.median(abs(ratio - 1))),
        "error_90": float(np.quantile(abs(ratio - 1), 0.9)),
        "kendall": float(kendalltau(predicted, measured).statistic),
        "spearman": float(spearmanr(predicted, measured).statistic),
    }


def build_table(settings: LatencySettings, spaces: Sequence[SearchSpace]) -> Latency:
    """A table of all that the spaces need; its file is not kept."""
    with tempfile.TemporaryDirectory() as folder:
        table = Latency(spaces[0].base, Path(folder) / "latency.json", settings)
        for space in spaces:  # one shape at a time, as in a study of one shape
            table.prepare(space.parts())
    return table


def measure(
    args: LatencyArguments, batch_size: int, spaces: Sequence[SearchSpace], architectures: Sequence[Architecture]
) -> dict[str, Any]:
    """The figures of one batch size."""
    settings = LatencySettings(batch_size, args.sequence_length, args.device, args.dtype, args.threads)
    base = spaces[0].base
    configs = [architecture.to_config(base) for architecture in architectures]
    start, table_seconds = time.perf_counter(), []
    predicted, measured = [], []
    for _ in range(args.repetitions):  # the machine is shared and drifts: each table is compared to what follows it
        before = time.perf_counter()
        table = build_table(settings, spaces)
        table_seconds.append(time.perf_counter() - before)
        predicted.append([table(architecture) for architecture in architectures])
        measured.append(measure_config_latency(configs, settings, args.rounds))
    whole_seconds = time.perf_counter() - start - sum(table_seconds)
    start = time.perf_counter()
    for architecture in architectures * 100:
        table(architecture)
    microseconds = 1e6 * (time.perf_counter() - start) / (100 * len(architectures))

    flops = [Flops(base, args.sequence_length)(architecture) for architecture in architectures]
    scales = [statistics.median(time / count for time, count in zip(times, flops)) for times in measured]
    ways = {
        "table": predicted,
        "FLOPs, one fitted scale": [[scale * count for count in flops] for scale in scales],
        "measured before": measured[-1:] + measured[:-1],
    }
    hidden = [architecture.shape.hidden_size for architecture in architectures]
    groups = {str(size): [index for index, found in enumerate(hidden) if found == size] for size in args.hidden_sizes}
    groups["all"] = list(range(len(architectures)))

    def figures(way: str, indices: list[int]) -> dict[str, float]:
        repetitions = [
            compare([ones[index] for index in indices], [others[index] for index in indices])
            for ones, others in zip(ways[way], measured)
        ]
        return {name: statistics.median(one[name] for one in repetitions) for name in repetitions[0]}

    return {
        "parts": len(table.milliseconds),
        "table_seconds": statistics.median(table_seconds),
        "whole_models_seconds": whole_seconds / args.repetitions,
        "prediction_microseconds": microseconds,
        "ways": {way: {group: figures(way, indices) for group, indices in groups.items()} for way in ways},
        "hidden_sizes": hidden,
        "predicted_ms": predicted,
        "measured_ms": measured,
        "table_ms": table.milliseconds,
    }


def report(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    arguments, machine, load = result["arguments"], result["machine"], result["load_average"]
    lines = [
        f"Latency of {arguments['architectures']} random architectures at each hidden size ({arguments['dtype']}, "
        f"{arguments['threads']} thread(s), {arguments['sequence_length']} tokens), predicted from a table of parts "
        "and measured on whole models, which the table has not seen and nothing is fitted to. Every figure is the "
        f"median of {arguments['repetitions']} repetitions, each with a table of its own; `measured before` predicts "
        "by the same models' times in another repetition.",
        "",
        f"`{result['command']}`",
        "",
        f"On {machine['processor']} ({machine['cores']} cores, GPU: {machine['gpu']}), torch {machine['torch']}; load "
        f"average {load['before']:.1f} before, {load['after']:.1f} after.",
        "",
        "| batch | prediction | hidden size | bias | median error | 90th percentile | Kendall tau | Spearman |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for batch_size, found in result["batches"].items():
        for way, groups in found["ways"].items():
            for group, figures in groups.items():
                errors = [f"{figures['bias']:+.1%}", f"{figures['median_error']:.1%}", f"{figures['error_90']:.1%}"]
                ranks = [f"{figures['kendall']:.3f}", f"{figures['spearman']:.3f}"]
                lines.append("| " + " | ".join([batch_size, way, group, *errors, *ranks]) + " |")
    lines += [
        "",
        "| batch | parts | table, s | whole models, s | one prediction, µs |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    for batch_size, found in result["batches"].items():
        seconds = f"{found['table_seconds']:.0f} | {found['whole_models_seconds']:.0f}"
        lines.append(f"| {batch_size} | {found['parts']} | {seconds} | {found['prediction_microseconds']:.0f} |")
    return "\n".join([*lines, ""])


def main(args: LatencyArguments) -> None:
    """Measures and writes."""
    load_before = os.getloadavg()[0]
    rng = random.Random(0)
    configs = [EfficientBertConfig(hidden_size=size, num_attention_heads=12) for size in args.hidden_sizes]
    spaces = [SearchSpace(config, Choices()) for config in configs]
    architectures = [space.sample(rng) for _ in range(args.architectures) for space in spaces]
    result = {
        "command": f"python benchmarks/latency.py {shlex.join(sys.argv[1:])}",
        "machine": describe_machine(),
        "arguments": dataclasses.asdict(args),
        "batches": {str(size): measure(args, size, spaces, architectures) for size in args.batch_sizes},
        "load_average": {"before": load_before, "after": os.getloadavg()[0]},
    }
    write_json(Path(args.output + ".json"), result)
    Path(args.output + ".md").write_text(report(result), encoding="utf-8")
    print(report(result))


if __name__ == "__main__":
    run_command(main, LatencyArguments, "latency")
