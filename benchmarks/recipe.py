"""What in the recipe of a distillation helps: one thing changed at a time, at equal tokens, from the same start.

    python benchmarks/recipe.py train --teacher TEACHER --corpus CORPUS --glue GLUE --work_dir WORK --worker 0
    python benchmarks/recipe.py train --teacher TEACHER --corpus CORPUS --glue GLUE --work_dir WORK --worker 1
    python benchmarks/recipe.py report --teacher TEACHER --work_dir WORK

`train` distils one student by every recipe and seed, as `known.py` does; each result is a line of WORK/recipe.jsonl.
No figure is of what a student was trained on: held-out text, and without labels STS-B's train pairs, in the teacher's
space. A linear probe reads 2,000 sentences of SST-2's train split and is scored on 1,000 others.
"""

import json
import statistics
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import equal_latency
import known
import torch
from stand_alone import config_of, read_rows

from efficientbert.search.scores.probe import probe_error
from efficientbert.search.space.architecture import Architecture, LayerChoice, Shape
from efficientbert.search.space.expressions import GATED
from efficientbert.train.cli.command import run_command
from efficientbert.train.distillation.held_out import HeldOut, capture_held_out
from efficientbert.train.distillation.loss_choice import make_recipe
from efficientbert.train.distillation.student import Student
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.files.tables import table
from efficientbert.train.files.writing import write_json, write_text
from efficientbert.train.tasks.arguments import TaskArguments
from efficientbert.train.tasks.kinds import task_of_data
from efficientbert.train.text.preparation import prepare_text


STUDENT = Architecture(Shape(312, 128), (LayerChoice(GATED, 1, 768, 12, 26),) * 4)
STABLE: dict[str, Any] = {"stable_ratio": 0.8}
LAST: dict[str, Any] = {"layer_map": ["last"]}
POOLED: dict[str, Any] = {"losses": ["hidden_states", "pooled_states"]}
BASE = "states"
VARIANTS: dict[str, dict[str, Any]] = {
    BASE: {},
    "states and scores": {"losses": ["hidden_states", "attention_scores=0.3"]},
    "states and pooled": POOLED,
    "last state": LAST,
    "last state and pooled": LAST | POOLED,
    "half the rate": {"learning_rate": 7.5e-4},
    "twice the rate": {"learning_rate": 3e-3},
    "stable": STABLE,
    "twice the rate, stable": STABLE | {"learning_rate": 3e-3},
    "four times the rate, stable": STABLE | {"learning_rate": 6e-3},
    "last state, twice the rate, stable": LAST | STABLE | {"learning_rate": 3e-3},
    "states and a tenth of pooled, twice the rate, stable": STABLE
    | {"losses": ["hidden_states", "pooled_states=0.1"], "learning_rate": 3e-3},
    "8 x 128 tokens": {"max_length": 128, "batch_size": 8},
    "half the batch, twice the steps": {"batch_size": 8, "max_steps": 2},
    "bfloat16": {"mixed_precision": "bf16"},
}
FIGURES = ("cosine", "explained_tokens", "explained_texts", "stsb_projected", "sst2_probe")
INTRODUCTION = """# What in the recipe of a distillation helps

`python benchmarks/recipe.py` makes this; its figures are in `recipe.json`.

Teacher gte-small, student {student}, {steps} steps of 16 x 64 tokens of Wikipedia unless the recipe says otherwise,
equal tokens for all. `{base}` is squared error of the embedding's and all layers' states, a peak rate of 1.5e-3 that
falls from the end of the warm-up; a stable rate stays and falls in the last fifth. Figures are means over seeds, and
in brackets what every seed gained over `{base}`.

"""


@dataclass(kw_only=True)
class RecipeArguments(known.KnownArguments):
    """Distils a student by every recipe and seed, and tabulates what it came to."""

    max_steps: int = field(default=200, metadata={"help": "Optimizer steps of 16 sequences of 64 tokens."})
    seeds: list[int] = field(default_factory=lambda: [0, 1], metadata={"help": "One training for each."})
    probe_rows: int = field(default=3000, metadata={"help": "Rows of SST-2, the last third of them scored."})
    output_json: str = field(default="benchmarks/recipe.json", metadata={"help": "File for the figures."})


def arguments_of(args: RecipeArguments, name: str, seed: int) -> RecipeArguments:
    """The arguments of a run; a recipe's steps are a multiple of the others'."""
    given = {"losses": ["hidden_states"], "learning_rate": 1.5e-3, "stable_ratio": 0.0} | VARIANTS[name]
    given["max_steps"] = args.max_steps * given.get("max_steps", 1)
    return replace(args, seed=seed, **given)


def run(args: RecipeArguments, name: str, teacher: Teacher, held_out: HeldOut) -> dict[str, Any]:
    """Distils one student; its figures."""
    stored: Any = known.StoredTeacher(teacher, Path(args.work_dir) / "teacher")
    if any(word.startswith("attention") for word in args.losses):
        stored = teacher  # states alone are stored
    text = prepare_text(args, teacher, args.batch_size, 0)
    student, objective, told = known.distil(STUDENT, teacher, stored, text, args)
    figures = known.score(student, objective, held_out, args)
    task = task_of_data(TaskArguments(task="sst2", data=args.glue), teacher.tokenizer, "train[:1%]")
    rows = task.load(f"train[:{args.probe_rows}]")
    figures["sst2_probe"] = 1 - probe_error(Student(student.encoder, 1), task, rows)
    return figures | {"stsb_projected": equal_latency.stsb_projected(student, args), "seconds": told["seconds"]}


def train_all(args: RecipeArguments) -> None:
    """Trains what is not trained yet of this worker's share."""
    path = Path(args.work_dir) / "recipe.jsonl"
    torch.set_num_threads(1)
    teacher = Teacher.load(args.teacher)
    config = config_of(STUDENT, teacher)
    text, recipe = prepare_text(args, teacher, args.batch_size, 0), make_recipe(args, config, teacher)
    held_out = capture_held_out(text, teacher, torch.device("cpu"), [(config, recipe)])
    jobs = [(name, seed) for name in VARIANTS for seed in args.seeds]
    for name, seed in jobs[args.worker :: args.workers]:
        asked = {"recipe": name, "seed": seed, "steps": args.max_steps}
        if any(asked.items() <= row.items() for row in read_rows(path)):
            continue
        row = asked | run(arguments_of(args, name, seed), name, teacher, held_out)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)


def report(args: RecipeArguments) -> None:
    """Writes the figures and the table."""
    rows = [row for row in read_rows(Path(args.work_dir) / "recipe.jsonl") if row["steps"] == args.max_steps]
    base = {row["seed"]: row for row in rows if row["recipe"] == BASE}
    lines = []
    for name in VARIANTS:
        found = [row for row in rows if row["recipe"] == name and row["seed"] in base]
        if not found:  # not trained yet
            continue
        cells = []
        for figure in FIGURES:
            gains = " ".join(f"{row[figure] - base[row['seed']][figure]:+.4f}" for row in found)
            cells.append(f"{statistics.fmean(row[figure] for row in found):.4f} ({gains})")
        lines.append((name, *cells))
    layers = STUDENT.layers
    shape = f"of {len(layers)} gated layers of hidden size {STUDENT.shape.hidden_size}"
    text = INTRODUCTION.format(student=shape, steps=args.max_steps, base=BASE) + table(("recipe", *FIGURES), lines)
    write_json(Path(args.output_json), rows)
    write_text(Path(args.output_json).with_suffix(".md"), text + "\n")
    print(text)


PARTS = {"train": train_all, "report": report}


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in PARTS:
        sys.exit(f"name a part: {', '.join(PARTS)}")
    run_command(PARTS[sys.argv.pop(1)], RecipeArguments, "recipe")
