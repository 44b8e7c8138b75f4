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
from efficientbert.search.architecture import Architecture
from efficientbert.search.cost import Flops
from efficientbert.search.latency import DTYPES, Latency, LatencySettings, measure_config_latency
from efficientbert.search.machine import describe_machine
from efficientbert.search.space import Choices, SearchSpace
from efficientbert.train.folders import write_json
from efficientbert.train.script import run_script


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
    rounds: int = field(default=5, metadata={"help": "Rounds of whole models, twice."})


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


def measure(
    args: LatencyArguments, batch_size: int, spaces: Sequence[SearchSpace], architectures: Sequence[Architecture]
) -> dict[str, Any]:
    """The figures of one batch size."""
    base = spaces[0].base
    settings = LatencySettings(batch_size, args.sequence_length, args.device, args.dtype, args.threads)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        table = Latency(base, Path(folder) / "latency.json", settings)
        for space in spaces:  # one shape at a time, as in a study of one shape
            table.prepare((shape, space.choices.widths(shape.hidden_size)) for _, shape in space.shapes)
    built = time.perf_counter() - start
    predicted = [table(architecture) for architecture in architectures]
    start = time.perf_counter()
    for architecture in architectures * 100:
        table(architecture)
    microseconds = 1e6 * (time.perf_counter() - start) / (100 * len(architectures))

    start = time.perf_counter()
    configs = [architecture.to_config(base) for architecture in architectures]
    halves = [measure_config_latency(configs, settings, args.rounds) for _ in range(2)]
    measured = [statistics.mean(pair) for pair in zip(*halves)]
    flops = [Flops(base, args.sequence_length)(architecture) for architecture in architectures]
    scale = statistics.median(time / count for time, count in zip(measured, flops))
    ways = {
        "table": predicted,
        "FLOPs, one fitted scale": [scale * count for count in flops],
        "measured again": halves[1],
    }
    hidden = [architecture.shape.hidden_size for architecture in architectures]
    groups = {str(size): [index for index, found in enumerate(hidden) if found == size] for size in args.hidden_sizes}
    groups["all"] = list(range(len(architectures)))

    def figures(name: str, indices: list[int]) -> dict[str, float]:
        reference = halves[0] if name == "measured again" else measured
        return compare([ways[name][index] for index in indices], [reference[index] for index in indices])

    return {
        "parts": len(table.milliseconds),
        "table_seconds": built,
        "whole_models_seconds": time.perf_counter() - start,
        "prediction_microseconds": microseconds,
        "ways": {name: {group: figures(name, indices) for group, indices in groups.items()} for name in ways},
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
        "and measured on whole models, which the table has not seen and nothing is fitted to.",
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
    run_script(main, LatencyArguments, "latency")
