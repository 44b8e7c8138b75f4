"""The searched model against hand-made and random shapes, all of one latency, each distilled at equal cost.

    python benchmarks/equal_latency.py scale --teacher TEACHER --work_dir WORK
    python benchmarks/equal_latency.py train --teacher TEACHER --corpus CORPUS --glue GLUE --work_dir WORK --worker 0
    python benchmarks/equal_latency.py train --teacher TEACHER --corpus CORPUS --glue GLUE --work_dir WORK --worker 1
    python benchmarks/equal_latency.py finetune --teacher TEACHER --glue GLUE --work_dir WORK --worker 0
    python benchmarks/equal_latency.py report --teacher TEACHER --work_dir WORK

`scale` times whole models on this machine, which must be quiet: the targets are the times of two hand-made shapes, to
which the others of `hand-made.json` are scaled at their own depth, by their heads and then by their networks. Beside
them stand what `compress` would choose and random architectures of the open space. `train` distils all with every
seed; each result is a line of WORK/equal.jsonl. `finetune` trains what it has made on MRPC, with labels alone, into
WORK/mrpc.jsonl.
"""

import json
import random
import sys
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import known
import losses
import matplotlib
import numpy as np
import torch
from stand_alone import config_of, read_rows
from transformers import AutoTokenizer

from efficientbert import commands
from efficientbert.search.costs.budget import Budget
from efficientbert.search.costs.cost import Parameters
from efficientbert.search.costs.latency import measure_config_latency
from efficientbert.search.costs.machine import describe_machine
from efficientbert.search.known.choice import choose
from efficientbert.search.known.features import TeacherSizes
from efficientbert.search.known.surrogate import SHIPPED, Surrogate, read_table
from efficientbert.search.space.architecture import Architecture, LayerChoice, Shape
from efficientbert.search.space.space import SearchSpace
from efficientbert.train.cli.command import run_command
from efficientbert.train.distillation.held_out import HeldOut, capture_held_out
from efficientbert.train.distillation.loss_choice import make_recipe
from efficientbert.train.distillation.student import Student
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.files.tables import table
from efficientbert.train.files.writing import write_json, write_text
from efficientbert.train.text.preparation import prepare_text


matplotlib.use("Agg")
from matplotlib import pyplot


SHAPES = Path(__file__).with_name("hand-made.json")
TARGETS = ("TinyBERT4", "EfficientBERT-tiny")  # whose times are the targets
RANDOM = 2  # random architectures at every target
NEAR, MIDDLE = 0.94, 0.97  # of a target that the searched one takes at least, and is corrected to
SLACK = 0.9  # of a target that a searched or random architecture takes at least
HEAD_DIMS = range(2, 65, 2)  # of scaled shapes
WIDENINGS = [1 + step / 20 for step in range(21)]  # of a scaled shape's networks, which take what is left
ROUNDS = 15  # in which a model and that of the target are timed in turn
FINAL_ROUNDS = 40  # in which all models of a target are
ATTEMPTS = 50  # choices or draws until one takes as long as the target as a whole
RESAMPLES = 10_000
INTRODUCTION = """# Models of equal latency

`python benchmarks/equal_latency.py` makes this; its figures are in `equal-latency.json`, and all that was measured in
`equal-latency/`, which is a WORK.

Teacher gte-small, {steps} steps of 8 x 64 tokens of Wikipedia, hidden states alone. Every model starts from the
teacher's weights. Latency is that of one text of 128 tokens, eager, 2 threads of {processor}; all models of a target
were timed as a whole, in turn. The target is the time of TinyBERT4's own shape, or of EfficientBERT-tiny's; other
hand-made shapes are scaled to it. `searched` is the surrogate's choice from all architectures, those with layers
without attention too, which `compress` leaves out since; choosing takes seconds and no training. The table of known
architectures that it rests on was made once, and ships. `random` are architectures of the open space: the better of
the two has cost twice as much as the searched.

`searched ahead by` is in cosine, on 256 held-out texts, with 95% intervals over seeds and texts in pairs. `explained`
is the part of the variance of the teacher's mean-pooled states that a model explains. STS-B is Spearman's correlation
of cosines of mean-pooled states on 1,500 pairs, without labels, in the model's own space or, `projected`, in the
teacher's (the last seed alone). MRPC is F1 on its validation split after three passes with labels alone (one seed,
where given). Seconds are those of one core; the first models of a seed also paid for the teacher.

"""


@dataclass(kw_only=True)
class EqualArguments(known.KnownArguments):
    """Scales, trains and compares models of equal latency."""

    max_steps: int = field(default=1000, metadata={"help": "Optimizer steps of 8 sequences."})
    batch_size: int = field(default=8, metadata={"help": "Sequences of a step."})
    corpus_split: str = field(default="train[:1500]", metadata={"help": "Split or slice of the corpus."})
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2], metadata={"help": "One training for each."})
    pairs: int = field(default=1500, metadata={"help": "Pairs of STS-B."})
    output: str = field(default="benchmarks/equal-latency", metadata={"help": "Path of the report without ending."})


# Scaling


def scaled(shape: dict[str, Any], head_dim: int, widening: float = 1.0) -> Architecture:
    """A hand-made shape with heads of another width, all else in proportion, and its networks wider than that."""
    hidden = shape["heads"] * head_dim
    factor = hidden / shape["hidden_size"]
    embedding = round(shape["embedding_size"] * factor)
    layers = tuple(
        LayerChoice(expression, stack, max(1, round(width * factor * widening)), shape["heads"], head_dim)
        for expression, stack, width in zip(shape["expressions"], shape["stacks"], shape["widths"])
    )
    return Architecture(Shape(hidden, embedding), layers)


Share = Callable[[Architecture], float]  # of the target's time that an architecture takes as a whole


def fit_to(shape: dict[str, Any], share: Share) -> Architecture:
    """The largest of a hand-made shape that takes no longer than the target."""
    fitting = bisect_right(HEAD_DIMS, 1.0, lo=1, key=lambda head_dim: share(scaled(shape, head_dim)))
    head_dim = HEAD_DIMS[fitting - 1]
    wide = bisect_right(WIDENINGS, 1.0, lo=1, key=lambda widening: share(scaled(shape, head_dim, widening)))
    return scaled(shape, head_dim, WIDENINGS[wide - 1])


def choose_for(space: SearchSpace, target: float, share: Share, sizes: TeacherSizes, seed: int) -> Architecture:
    """What the surrogate chooses for the target's milliseconds, as `compress` does until the whole takes no longer."""
    asked = target
    for _ in range(ATTEMPTS):
        budget = Budget("latency", SLACK * asked, asked)
        found, _ = choose(space, [budget], Surrogate.shipped(), sizes, seed)
        took = share(found)
        if NEAR <= took <= 1:
            return found
        asked *= MIDDLE / took
    raise RuntimeError("no choice takes as long as the target")


def draw(space: SearchSpace, target: float, share: Share, rng: random.Random) -> Architecture:
    """A random architecture that takes about as long as the target."""
    within = replace(space, budgets=(Budget("latency", SLACK * target, target),))
    return next(found for found in (within.sample(rng) for _ in range(ATTEMPTS)) if SLACK <= share(found) <= 1)


def scale(args: EqualArguments) -> None:
    """Writes the models of every target."""
    work = Path(args.work_dir)
    path = work / "equal.json"
    if path.exists():
        return
    work.mkdir(parents=True, exist_ok=True)
    teacher = Teacher.load(args.teacher)
    space, latency = known.measured_space(teacher, work / "equal-latency-table.json")
    sizes = TeacherSizes(teacher.hidden_size, teacher.num_layers, teacher.num_heads)
    shapes = {shape["name"]: shape for shape in json.loads(SHAPES.read_text(encoding="utf-8"))}
    models, parameters = [], Parameters(space.base)
    for name in TARGETS:
        own = scaled(shapes[name], shapes[name]["hidden_size"] // shapes[name]["heads"])

        def share(architecture: Architecture, own: Architecture = own) -> float:
            pair = [one.to_config(space.base) for one in (own, architecture)]
            target, found = measure_config_latency(pair, latency.settings, ROUNDS)
            return found / target

        made = {shape: own if shape == name else fit_to(value, share) for shape, value in shapes.items()}
        target, rng = latency(own), random.Random(f"equal {name}")
        made["searched"] = choose_for(space, target, share, sizes, args.seed)
        made |= {f"random {number}": draw(space, target, share, rng) for number in range(1, RANDOM + 1)}
        configs = [architecture.to_config(space.base) for architecture in made.values()]
        times = dict(zip(made, measure_config_latency(configs, latency.settings, FINAL_ROUNDS)))
        for model, architecture in made.items():
            models.append(
                {
                    "target": name,
                    "latency_target_ms": times[name],
                    "model": model,
                    "runtime": "eager",
                    "latency_ms": times[model],
                    "parameters": parameters(architecture),
                    "architecture": architecture.to_json(),
                }
            )
            print({key: value for key, value in models[-1].items() if key != "architecture"}, flush=True)
    write_json(path, {"machine": describe_machine(), "models": models})


# Training


@torch.no_grad()
def text_cosines(student: Student, held_out: HeldOut) -> list[float]:
    """The mean cosine of every held-out sequence to the teacher's last states."""
    found: list[float] = []
    for batch, captures in held_out.plain:
        mask = batch["attention_mask"]
        pair = (student(**batch).hidden_states[-1], captures.hidden_states[-1])
        cosines = torch.nn.functional.cosine_similarity(*pair, dim=-1)
        found += ((cosines * mask).sum(1) / mask.sum(1)).tolist()
    return found


def stsb_projected(student: Student, args: EqualArguments) -> float:
    """As `losses.stsb_cosine`, in the teacher's space: widths differ, and cosines of raw states with them."""

    def run(**batch: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=student(**batch).hidden_states[-1])

    return losses.stsb_cosine(run, Path(args.teacher), args)


def train(args: EqualArguments) -> None:
    """Trains what is not trained yet of this worker's share."""
    work = Path(args.work_dir)
    models = json.loads((work / "equal.json").read_text(encoding="utf-8"))["models"]
    torch.set_num_threads(1)
    teacher = Teacher.load(args.teacher)
    text = prepare_text(args, teacher, args.batch_size, 0)
    architectures = [Architecture.from_json(model["architecture"]) for model in models]
    configs = [config_of(architecture, teacher) for architecture in architectures]
    students = [(config, make_recipe(args, config, teacher)) for config in configs]
    held_out = capture_held_out(text, teacher, torch.device("cpu"), students)
    stored = known.StoredTeacher(teacher, work / "teacher-equal")
    jobs = [(seed, number) for seed in args.seeds for number in range(len(models))]
    for seed, number in jobs[args.worker :: args.workers]:
        asked = {"target": models[number]["target"], "model": models[number]["model"], "seed": seed}
        if any(asked.items() <= row.items() for row in read_rows(work / "equal.jsonl")):
            continue
        seeded = replace(args, seed=seed)
        student, objective, told = known.distil(architectures[number], teacher, stored, text, seeded)
        figures = known.score(student, objective, held_out, seeded)
        figures["stsb_projected"] = stsb_projected(student, args)
        row = asked | figures | {"seconds": told["seconds"], "cosines": text_cosines(student, held_out)}
        save_student(student, models[number], seed, args)
        with (work / "equal.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print({name: value for name, value in row.items() if name != "cosines"}, flush=True)


def student_folder(model: dict[str, Any], seed: int, work: Path) -> Path:
    """Where a distilled model lies."""
    return work / "students" / f"{model['target']}-{model['model']}-{seed}".replace(" ", "-")


def save_student(student: Student, model: dict[str, Any], seed: int, args: EqualArguments) -> None:
    """Saves a distilled model with its tokenizer."""
    folder = student_folder(model, seed, Path(args.work_dir))
    student.encoder.save_pretrained(folder)
    AutoTokenizer.from_pretrained(args.teacher).save_pretrained(folder)


# A task


def finetune(args: EqualArguments) -> None:
    """Trains on a task what is distilled and not trained yet of this worker's share."""
    work = Path(args.work_dir)
    torch.set_num_threads(1)
    models = json.loads((work / "equal.json").read_text(encoding="utf-8"))["models"]
    jobs = [(seed, model) for seed in args.seeds for model in models]
    for seed, model in jobs[args.worker :: args.workers]:
        asked = {"target": model["target"], "model": model["model"], "seed": seed}
        start = student_folder(model, seed, work)
        if not start.exists() or any(asked.items() <= row.items() for row in read_rows(work / "mrpc.jsonl")):
            continue
        output = work / "mrpc" / start.name
        made = commands.finetune(
            model=start, task="mrpc", data=args.glue, num_epochs=3, max_length=96, seed=seed, output_dir=output
        )
        row = asked | made.figures["validation"]
        with (work / "mrpc.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)


# Reporting


def gain(mine: np.ndarray, theirs: np.ndarray) -> tuple[float, float, float]:
    """Mean difference of cosines, and its 95% interval over seeds and sequences drawn again, both in pairs.

    Args:
        mine, theirs: Cosines of shape `(seeds, sequences)`.
    """
    rng, differences = np.random.default_rng(0), mine - theirs
    seeds, sequences = differences.shape
    drawn = [
        differences[np.ix_(rng.integers(seeds, size=seeds), rng.integers(sequences, size=sequences))].mean()
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(differences.mean()), float(low), float(high)


def mean_of(rows: list[dict[str, Any]], figure: str, digits: int) -> str:
    """The mean of a figure over the rows that have it, for a table."""
    values = [row[figure] for row in rows if figure in row]
    return f"{np.mean(values):.{digits}f}" if values else ""


def ranking(models: list[dict[str, Any]], found: dict[str, list[dict[str, Any]]], sizes: TeacherSizes) -> str:
    """How well the surrogate ranks the models of a target, beside their parameters, in a line."""
    architectures = [Architecture.from_json(model["architecture"]) for model in models]
    expected = Surrogate.shipped().predict(architectures, sizes)[0]
    parameters = np.array([model["parameters"] for model in models])
    said = []
    for figure in ("explained_texts", "cosine", "stsb_cosine"):
        measured = np.array([np.mean([row[figure] for row in found[model["model"]]]) for model in models])
        said.append(f"{figure} {known.tau(expected, measured):.2f} ({known.tau(parameters, measured):.2f})")
    return f"Kendall's tau of what the surrogate expects, and in brackets of parameters, to {', '.join(said)}."


def report(args: EqualArguments) -> None:
    """Writes the figures, the table and the plot; the runs of seeds that all models of a target have."""
    work = Path(args.work_dir)
    made = json.loads((work / "equal.json").read_text(encoding="utf-8"))
    tuned = {(row["target"], row["model"], row["seed"]): row for row in read_rows(work / "mrpc.jsonl")}
    rows = read_rows(work / "equal.jsonl")
    sizes = TeacherSizes(**read_table(SHIPPED)["teacher_sizes"])
    for row in rows:
        scores = tuned.get((row["target"], row["model"], row["seed"]))
        row |= {"mrpc_f1": scores["f1"]} if scores else {}
    figure, panels = pyplot.subplots(1, len(TARGETS), figsize=(13, 5), layout="constrained", squeeze=False)
    text, kept = INTRODUCTION.format(steps=args.max_steps, processor=made["machine"]["processor"]), []
    for target, axes in zip(TARGETS, panels[0]):
        models = [model for model in made["models"] if model["target"] == target]
        found = {
            model["model"]: [row for row in rows if (row["target"], row["model"]) == (target, model["model"])]
            for model in models
        }
        seeds = set.intersection(*({row["seed"] for row in runs} for runs in found.values()))
        found = {
            name: sorted((row for row in runs if row["seed"] in seeds), key=lambda row: row["seed"])
            for name, runs in found.items()
        }
        cosines = {name: np.array([row["cosines"] for row in runs]) for name, runs in found.items()}
        lines = []
        for model in sorted(models, key=lambda model: -cosines[model["model"]].mean()):
            name, runs = model["model"], found[model["model"]]
            ahead, low, high = gain(cosines["searched"], cosines[name])
            lines.append(
                (
                    name,
                    f"{model['latency_ms']:.1f}",
                    f"{model['parameters'] / 1e6:.1f}M",
                    mean_of(runs, "cosine", 4),
                    "" if name == "searched" else f"{ahead:+.4f} ({low:+.4f} to {high:+.4f})",
                    mean_of(runs, "explained_texts", 3),
                    mean_of(runs, "stsb_cosine", 3),
                    mean_of(runs, "stsb_projected", 3),
                    mean_of(runs, "mrpc_f1", 3),
                    mean_of(runs, "seconds", 0),
                )
            )
            renamed = {"stsb_cosine": "spearman", "seconds": "cost_seconds"}
            kept += [
                model | {renamed.get(key, key): value for key, value in row.items() if key != "cosines"}
                for row in runs
            ]
            spread = [row["cosine"] for row in runs]
            color = "#0072B2" if name == "searched" else "#777777"
            axes.plot(spread, [name] * len(spread), "o", color=color, markersize=9)
        header = ["model", "ms", "parameters", "cosine", "searched ahead by (95%)", "explained", "STS-B"]
        header += ["STS-B, projected", "MRPC F1", "seconds"]
        text += f"{target}: {models[0]['latency_target_ms']:.1f} ms, {len(seeds)} seeds\n\n{table(header, lines)}\n\n"
        text += f"{ranking(models, found, sizes)}\n\n"
        axes.set_title(f"{models[0]['latency_target_ms']:.1f} ms ({target})", fontsize=13)
        axes.set_xlabel("cosine to the teacher, every seed", fontsize=12)
        axes.tick_params(labelsize=11)
        axes.grid(axis="x", alpha=0.3)
        axes.invert_yaxis()
    print(text)
    write_json(Path(f"{args.output}.json"), {"machine": made["machine"], "steps": args.max_steps, "rows": kept})
    write_text(Path(f"{args.output}.md"), text)
    figure.savefig(f"{args.output}.png", dpi=110)


PARTS: dict[str, Callable[[EqualArguments], None]] = {
    "scale": scale,
    "train": train,
    "finetune": finetune,
    "report": report,
}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in PARTS:
        sys.exit(f"name a part: {', '.join(PARTS)}")
    run_command(PARTS[sys.argv.pop(1)], EqualArguments, "equal_latency")
