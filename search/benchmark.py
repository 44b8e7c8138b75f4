"""Compares parameters, FLOPs, latency and peak memory of encoders side by side, as a Markdown table and JSON.

efficientbert benchmark --models bert-base tinybert-4 efficientbert-tiny my-folder --output_json speed.json
"""

import dataclasses
import os
from pathlib import Path

from efficientbert.search.costs.arguments import BenchmarkArguments
from efficientbert.train.cli.command import run_command
from efficientbert.train.cli.outcome import Outcome
from efficientbert.train.files.writing import write_json


def main(args: BenchmarkArguments) -> Outcome:
    """Measures every model, prints the table and writes the JSON file."""
    args.check()
    from efficientbert.search.costs.comparison import benchmark, command_of, format_table, quieten
    from efficientbert.search.costs.machine import describe_machine

    quieten()
    load_before = os.getloadavg()[0]
    reports = benchmark(args)
    machine, load_after = describe_machine(), os.getloadavg()[0]
    print(f"    {command_of(args)}\n")
    print(
        f"On {machine['processor']} ({machine['cores']} cores, GPU: {machine['gpu']}), torch {machine['torch']}, ",
        end="",
    )
    print(f"transformers {machine['transformers']}; load average {load_before:.1f} before, {load_after:.1f} after.\n")
    print(format_table(reports))
    result = {
        "command": command_of(args),
        "machine": machine,
        "load_average": {"before": load_before, "after": load_after},
        "arguments": dataclasses.asdict(args),
        "models": [dataclasses.asdict(report) for report in reports],
    }
    if args.output_json:
        write_json(Path(args.output_json), result)
    return Outcome(Path(args.output_json) if args.output_json else None, result)


def cli() -> None:
    """Runs the script with this process's arguments."""
    run_command(main, BenchmarkArguments, "benchmark")


if __name__ == "__main__":
    cli()
