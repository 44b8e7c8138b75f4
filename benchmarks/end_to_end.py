"""What a search is worth: its winner beside models that cost as much in all and were not searched.

    python benchmarks/end_to_end.py --recipe recipes/search-tiny.yaml --teacher TEACHER --corpus CORPUS --steps 1000 \
        --work_dir WORK --output benchmarks/end-to-end

For every seed the search of the recipe is run and its winner distilled for `steps` more. The others are distilled for
as many more steps as the winner would have made in the time of the search: a random architecture of the space, the one
with most parameters of as many random ones as the search had candidates (parameters alone), and the plain shape, also
gated. With `--further_steps` every model then goes on for as many, from text in another order, which makes the search
a smaller part of the cost. All are scored on the same held-out text and timed in one process. An interrupted
comparison goes on where it was.
"""

import json
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import torch
from scipy import stats

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.search import search
from efficientbert.search.arguments import SearchArguments
from efficientbert.search.costs.latency import LatencySettings, measure_config_latency
from efficientbert.search.costs.machine import describe_machine
from efficientbert.search.preparation import make_space
from efficientbert.search.space.architecture import Architecture
from efficientbert.search.space.expressions import GATED
from efficientbert.train import distill
from efficientbert.train.cli.arguments import parse_arguments
from efficientbert.train.cli.command import run_command
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.files.tables import table
from efficientbert.train.files.writing import write_json
from efficientbert.train.model_folder.record import read_provenance


matplotlib.use("Agg")
from matplotlib import pyplot


@dataclass(kw_only=True)
class EndToEndArguments:
    """Compares the winners of a search with models of equal total cost that were not searched."""

    recipe: str = field(metadata={"help": "YAML recipe of the search."})
    teacher: str = field(metadata={"help": "Hub id or folder."})
    corpus: str = field(metadata={"help": "Corpus, as of `efficientbert distill`."})
    work_dir: str = field(metadata={"help": "Folder of all runs."})
    output: str = field(metadata={"help": "Path of the report's files, without their endings."})
    corpus_split: str = field(default="train", metadata={"help": "Split or slice of the corpus."})
    steps: int = field(default=1000, metadata={"help": "Steps that distil the winner."})
    further_steps: int = field(default=0, metadata={"help": "Steps that distil every model once more, behind that."})
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2], metadata={"help": "One comparison for each."})


def timed(path: Path, job: Callable[[], object]) -> float:
    """Runs a job once; its seconds, of the start that finished it, are kept in `path`."""
    if not path.exists():
        started = time.perf_counter()
        job()
        write_json(path, time.perf_counter() - started)
    return json.loads(path.read_text(encoding="utf-8"))


def distil(
    args: EndToEndArguments, searched: SearchArguments, student: Path, steps: int, seed: int, output: Path
) -> float:
    """Distils a student and gives its seconds."""
    found = distill.DistillArguments(
        teacher=args.teacher,
        corpus=args.corpus,
        corpus_split=args.corpus_split,
        student=str(student),
        max_length=searched.max_length,
        batch_size=searched.batch_size,
        mixed_precision=searched.mixed_precision,
        max_steps=steps,
        seed=seed,
        output_dir=str(output),
    )
    return timed(output.with_name(output.name + ".seconds.json"), lambda: distill.main(found))


def compare(args: EndToEndArguments, seed: int) -> list[dict[str, Any]]:
    """The models of one seed, each with its cost and held-out figures."""
    work = Path(args.work_dir) / f"seed-{seed}"
    work.mkdir(parents=True, exist_ok=True)
    flags = ["--teacher", args.teacher, "--corpus", args.corpus, "--corpus_split", args.corpus_split]
    flags += ["--seed", str(seed), "--output_dir", str(work / "search")]
    searched = parse_arguments(SearchArguments, [args.recipe, *flags], "end_to_end", "")
    seconds = timed(work / "search.seconds.json", lambda: search.main(searched))
    costs = {"searched": distil(args, searched, work / "search" / "best", args.steps, seed, work / "searched")}
    steps = args.steps + round(seconds / (costs["searched"] / args.steps))
    costs["searched"] += seconds

    space = make_space(searched, Teacher.load(args.teacher))
    rng = random.Random(f"baseline {seed}")
    drawn = [space.sample(rng) for _ in range(searched.num_candidates * len(searched.stages))]
    largest = max(drawn, key=space.costs["parameters"])
    others = {"random": drawn[0], "parameters alone": largest, "plain": space.plain(), "gated": space.plain(GATED)}
    for name, architecture in others.items():
        config = work / f"{name}.json"
        architecture.to_config(space.base).to_json_file(config)
        costs[name] = distil(args, searched, config, steps, seed, work / name)
    rows = []
    for name, cost in costs.items():
        folder = work / name
        if args.further_steps:
            folder = work / f"{name}, {args.further_steps} further steps"
            cost += distil(args, searched, work / name, args.further_steps, seed + 1, folder)
        rows.append(
            {
                "model": name,
                "seed": seed,
                "seconds": cost,
                "steps": (args.steps if name == "searched" else steps) + args.further_steps,
                **read_provenance(folder)[-1]["result"],
                "architecture": Architecture.from_config(EfficientBertConfig.from_pretrained(folder)).to_json(),
            }
        )
    return rows


def main(args: EndToEndArguments) -> None:
    """Runs all comparisons and writes table, figures and plot."""
    rows = [row for seed in args.seeds for row in compare(args, seed)]
    found = [Architecture.from_json(row["architecture"]) for row in rows]
    any_model = EfficientBertConfig.from_pretrained(Path(args.work_dir) / f"seed-{args.seeds[0]}" / "plain")
    configs = [architecture.to_config(any_model) for architecture in found]
    length = min(128, configs[0].max_position_embeddings)
    settings = LatencySettings(sequence_length=length, threads=torch.get_num_threads())
    latencies = measure_config_latency(configs, settings)
    for row, milliseconds in zip(rows, latencies):
        row["latency"] = milliseconds
    figures = ("seconds", "steps", "cosine", "latency")
    lines = []
    for name in dict.fromkeys(row["model"] for row in rows):
        ours = [row for row in rows if row["model"] == name]
        summaries = [summarize([row[figure] for row in ours]) for figure in figures]
        lines.append((name, *summaries, difference(rows, name)))
    output = Path(args.output)
    write_json(output.with_suffix(".json"), {"machine": describe_machine(), "rows": rows})
    command = (
        f"python benchmarks/end_to_end.py --recipe {args.recipe} --teacher gte-small --corpus wikipedia "
        f"--corpus_split {args.corpus_split} --steps {args.steps} "
        f"{f'--further_steps {args.further_steps} ' if args.further_steps else ''}"
        f"--seeds {' '.join(map(str, args.seeds))} "
        f"--work_dir W --output {args.output}"
    )
    output.with_suffix(".md").write_text(
        f"`{command}`\n\n{len(args.seeds)} seeds, means and standard deviations; latency in ms of one sequence of "
        f"{length} tokens. The last column is the cosine above that of the searched model of the same seed, with the "
        f"95% interval of a paired t-test.\n\n{table(('model', *figures, 'cosine above the searched'), lines)}\n",
        encoding="utf-8",
    )
    plot(rows, output.with_suffix(".png"))


def summarize(values: list[float]) -> str:
    """Mean and standard deviation."""
    deviation = f" ± {statistics.stdev(values):.3g}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4g}{deviation}"


def difference(rows: list[dict[str, Any]], name: str) -> str:
    """Mean of a model's cosine above the searched one's of the same seed, and half the width of its 95% interval."""
    cosines = {(row["model"], row["seed"]): row["cosine"] for row in rows}
    values = [cosine - cosines["searched", seed] for (model, seed), cosine in cosines.items() if model == name]
    if name == "searched" or len(values) < 2:
        return ""
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.fmean(values):+.4f} ± {half:.4f}"


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draws quality over latency."""
    figure, axis = pyplot.subplots(figsize=(5, 4), layout="constrained")
    for name in dict.fromkeys(row["model"] for row in rows):
        ours = [row for row in rows if row["model"] == name]
        axis.plot([row["latency"] for row in ours], [row["cosine"] for row in ours], "o", label=name)
    axis.set(xlabel="latency, ms", ylabel="cosine to the teacher, held-out text")
    axis.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    run_command(main, EndToEndArguments, "end_to_end")
