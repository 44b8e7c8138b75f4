"""Training steps a second of a small student, alone and beside a busy process, by how idle OpenMP threads wait.

    python benchmarks/threads.py --output benchmarks/threads

There is one process for every OMP_WAIT_POLICY. In every round each trains for some seconds, alone and beside a process
that computes all the time, while the others are stopped: whatever else the machine does meets all of them alike.
"""

import dataclasses
import os
import shlex
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from efficientbert.train.cli.command import run_command
from efficientbert.train.files.writing import write_json


POLICIES = ("ACTIVE", "not set", "PASSIVE")
LOADS = ("alone", "beside a busy process")
BUSY = "while True: pass"
TRAINING = """
import sys, time
import torch
from efficientbert import EfficientBertConfig, EfficientBertModel

torch.manual_seed(0)
gelu = {"ffn_expressions": "linear2(gelu(linear1(x)))", "ffn_stacks": 1, "intermediate_sizes": 453}
model = EfficientBertModel(
    EfficientBertConfig(hidden_size=288, num_hidden_layers=4, num_attention_heads=12, **gelu)
)
optimizer = torch.optim.AdamW(model.parameters())
ids = torch.randint(model.config.vocab_size, (8, 32))

def step():
    model(ids).last_hidden_state.square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()

step()
print("ready", flush=True)
for line in sys.stdin:
    start, steps = time.perf_counter(), 0
    while steps == 0 or time.perf_counter() - start < float(line):
        step()
        steps += 1
    print(steps / (time.perf_counter() - start), flush=True)
"""


@dataclass
class ThreadsArguments:
    """Times training steps by wait policy, alone and beside a busy process; writes OUTPUT.json and OUTPUT.md."""

    output: str = field(metadata={"help": "Path of the results, without ending."})
    threads: int = field(default=2, metadata={"help": "OpenMP threads of every training."})
    seconds: float = field(
        default=3.0, metadata={"help": "How long a training goes on in a round; one step at least."}
    )
    rounds: int = field(default=3, metadata={"help": "How often everything is timed."})


class Training:
    """A process that trains when it is asked to, and is stopped otherwise: idle threads of it might spin.

    Args:
        policy: One of `POLICIES`.
        threads: OpenMP threads.
    """

    def __init__(self, policy: str, threads: int):
        environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
        environment |= {"OMP_NUM_THREADS": str(threads)} | ({} if policy == "not set" else {"OMP_WAIT_POLICY": policy})
        command = [sys.executable, "-c", TRAINING]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True, bufsize=1
        )
        self.process.stdout.readline()
        self.process.send_signal(signal.SIGSTOP)

    def steps_per_second(self, seconds: float) -> float:
        """Trains for some seconds."""
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write(f"{seconds}\n")
        rate = float(self.process.stdout.readline())
        self.process.send_signal(signal.SIGSTOP)
        return rate


@contextmanager
def busy_process(wanted: bool) -> Iterator[None]:
    """A process that computes all the time, if it is wanted."""
    if not wanted:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", BUSY])
    time.sleep(0.2)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def measure(args: ThreadsArguments) -> dict[str, dict[str, list[float]]]:
    """Steps a second of every round, by load and policy."""
    rates: dict[str, dict[str, list[float]]] = {load: {policy: [] for policy in POLICIES} for load in LOADS}
    trainings: dict[str, Training] = {}
    try:
        for policy in POLICIES:
            trainings[policy] = Training(policy, args.threads)
        for _ in tqdm(range(args.rounds), unit="round", disable=None):
            for load in LOADS:
                for policy, training in trainings.items():
                    with busy_process(load != LOADS[0]):
                        rates[load][policy].append(training.steps_per_second(args.seconds))
    finally:
        for training in trainings.values():
            training.process.kill()
            training.process.wait()
    return rates


def report(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    machine, load, arguments = result["machine"], result["load_average"], result["arguments"]
    lines = [
        "Training steps a second (forward, backward and AdamW on 8 sequences of 32 tokens) of a plain student with 4 "
        f"layers of hidden size 288 on {arguments['threads']} threads, by OMP_WAIT_POLICY, alone and beside a process "
        f"that computes all the time; medians of {arguments['rounds']} interleaved rounds, with the range.",
        "",
        f"`{result['command']}`",
        "",
        f"On {machine['processor']} ({machine['cores']} cores), torch {machine['torch']}; load average "
        f"{load['before']:.1f} before, {load['after']:.1f} after (above 3, other programs were at work, too).",
        "",
        f"| OMP_WAIT_POLICY | {' | '.join(LOADS)} | kept |",
        "|---|---:|---:|---:|",
    ]
    for policy in POLICIES:
        rates = [result["steps_per_second"][load][policy] for load in LOADS]
        alone, beside = map(statistics.median, rates)
        cells = [f"{statistics.median(ones):.2f} ({min(ones):.2f} to {max(ones):.2f})" for ones in rates]
        lines.append(f"| {policy} | {' | '.join(cells)} | {beside / alone:.0%} |")
    return "\n".join([*lines, ""])


def main(args: ThreadsArguments) -> None:
    """Measures and writes."""
    from efficientbert.search.costs.machine import describe_machine

    load_before, rates = os.getloadavg()[0], measure(args)
    result = {
        "command": f"python benchmarks/threads.py {shlex.join(sys.argv[1:])}",
        "load_average": {"before": load_before, "after": os.getloadavg()[0]},
        "machine": describe_machine(),
        "arguments": dataclasses.asdict(args),
        "steps_per_second": rates,
    }
    write_json(Path(args.output + ".json"), result)
    Path(args.output + ".md").write_text(report(result), encoding="utf-8")
    print(report(result))


if __name__ == "__main__":
    run_command(main, ThreadsArguments, "threads")
