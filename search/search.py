"""Searches an architecture: warms up a supernet by distillation, then scores slices of it within a budget.

    efficientbert search --teacher sentence-transformers/all-MiniLM-L6-v2 --corpus corpus.txt \
        --student efficientbert-tiny --maximum 9.2e6 --output_dir my-search

The output folder holds the best slice as a checkpoint, to go on from with `efficientbert distill --student my-search`.
"""

import json
import math
import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import nn
from tqdm.auto import tqdm

from efficientbert.configuration_efficientbert import PRESETS, EfficientBertConfig
from efficientbert.search.architecture import Architecture
from efficientbert.search.cost import Budget, count_flops, count_parameters
from efficientbert.search.latency import LatencySettings, measure_config_latency
from efficientbert.search.plot import plot_search
from efficientbert.search.sampler import Evaluated, Evolution, rank
from efficientbert.search.scores import HeldOutText, Score, TaskProbe
from efficientbert.search.space import SearchSpace
from efficientbert.search.supernet import Supernet
from efficientbert.train.checkpoint import write_checkpoint
from efficientbert.train.folders import OutputFolder, run_arguments, write_json
from efficientbert.train.general import (
    GeneralArguments,
    GeneralDistillation,
    Text,
    capture_held_out,
    prepare_text,
    score_student,
    source_layers,
    teacher_scales,
)
from efficientbert.train.initialization import initialize_from_teacher
from efficientbert.train.loop import make_accelerator, train
from efficientbert.train.recipe import make_recipe
from efficientbert.train.script import InputError, run_script
from efficientbert.train.student import choose_attention, fit_config, load_config, save_projection
from efficientbert.train.tasks import TaskArguments, task_of_data
from efficientbert.train.teacher import Teacher


@dataclass(kw_only=True)
class SearchArguments(GeneralArguments):
    """Searches the feed-forward networks of a student within a budget and writes the best slice of the supernet."""

    least_held_out: ClassVar[int] = 1  # candidates are scored on it

    student: str = field(
        default="efficientbert",
        metadata={"help": f"Sizes that are not searched: a preset ({', '.join(PRESETS)}) or a config.json."},
    )
    base_width: int | None = field(
        default=None, metadata={"help": "Inner width at expansion 1; by default the hidden size."}
    )
    gate: bool = field(default=True, metadata={"help": "Whether expressions may use the third linear."})
    budget: str = field(default="parameters", metadata={"help": "parameters, flops (a sequence) or latency (ms)."})
    minimum: float = field(default=0.0, metadata={"help": "Least cost of a candidate."})
    maximum: float = field(default=float("inf"), metadata={"help": "Largest cost of a candidate."})
    warmup_steps: int = field(default=250, metadata={"help": "Steps that distil the whole supernet."})
    sampled_steps: int = field(default=750, metadata={"help": "Steps that distil one random candidate each."})
    num_candidates: int = field(default=100, metadata={"help": "Candidates to score."})
    score: str = field(default="text", metadata={"help": "On held-out 'text', or by a linear probe on a 'task'."})
    task: str | None = field(default=None, metadata={"help": "GLUE task for --score task."})
    task_data: str = field(default="nyu-mll/glue", metadata={"help": "Hub id, folder or file for --score task."})
    task_text_column: str | None = field(default=None, metadata={"help": "Its text column, if it is no GLUE task."})
    task_text_pair_column: str | None = field(default=None, metadata={"help": "Its second text column, if any."})
    task_label_column: str = field(default="label", metadata={"help": "Its label column."})
    task_rows: int = field(default=1000, metadata={"help": "Rows of its train split for --score task."})

    def check(self) -> None:
        """See `LoopArguments.check`."""
        super().check()
        Budget(self.budget, self.minimum, self.maximum)
        if self.compile:
            raise InputError("compile: is not for a search, which would compile anew at every step")
        if self.gradient_checkpointing:
            raise InputError("gradient_checkpointing: is not for a search; lower --batch_size")
        if self.score not in ("text", "task"):
            raise InputError(f"score: must be text or task, not {self.score!r}")
        if self.num_candidates < 1:
            raise InputError(f"num_candidates: must be at least 1, not {self.num_candidates}")
        if self.warmup_steps < 0 or self.sampled_steps < 0:
            raise InputError("warmup_steps, sampled_steps: must be at least 0")


class SupernetDistillation:
    """General distillation of the whole supernet, then of one random candidate a step.

    Args:
        objective: What is minimised.
        space: Where candidates come from.
        warmup_steps: Steps that train the whole supernet.
        seed: With the step, decides the candidate.
    """

    def __init__(self, objective: GeneralDistillation, space: SearchSpace, warmup_steps: int, seed: int):
        self.objective = objective
        self.space = space
        if space.budget.metric == "latency":  # measuring every step's candidate would take longer than the step
            self.space = replace(space, budget=Budget("parameters", 0, math.inf), cost=count_parameters)
        self.warmup_steps = warmup_steps
        self.seed = seed
        self.count = objective.count

    def __call__(
        self, model: nn.Module, batch: Mapping[str, torch.Tensor], counts: Mapping[str, torch.Tensor], step: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `efficientbert.train.loop.Objective`."""
        if step < self.warmup_steps:
            architecture = self.space.largest()
        else:
            architecture = self.space.sample(random.Random(f"supernet {self.seed} {step}"))
        return self.objective.loss(model(architecture, **batch), self.objective.teacher(batch), batch, counts)


def make_space(args: SearchArguments, teacher: Teacher) -> SearchSpace:
    """The space of the arguments, checked to hold at least one architecture.

    Raises:
        InputError: if the student's sizes do not fit the teacher, or the budget cannot be met.
    """
    if args.student in PRESETS:
        base = EfficientBertConfig.from_preset(args.student)
    elif Path(args.student).suffix == ".json":
        base = load_config(Path(args.student))
    else:
        raise InputError(f"student {args.student}: no preset ({', '.join(PRESETS)}) and no .json file")
    base = fit_config(base, teacher)
    costs = {
        "parameters": count_parameters,
        "flops": lambda config: count_flops(config, args.max_length),
        "latency": lambda config: measure_config_latency([config], LatencySettings(sequence_length=args.max_length))[
            0
        ],
    }
    budget = Budget(args.budget, args.minimum, args.maximum)
    space = SearchSpace(base, args.base_width or base.hidden_size, args.gate, budget, costs[args.budget])
    space.sample(random.Random(args.seed))
    return space


def train_supernet(
    accelerator: Accelerator,
    supernet: Supernet,
    objective: GeneralDistillation,
    text: Text,
    args: SearchArguments,
    work: Path,
) -> None:
    """Distils the supernet in place, or loads it where an interrupted search had finished that."""
    path = work / "supernet.safetensors"
    if not path.exists():
        distillation = SupernetDistillation(objective, supernet.space, args.warmup_steps, args.seed)
        steps = args.warmup_steps + args.sampled_steps
        log = train(
            accelerator,
            supernet,
            distillation,
            text.training,
            text.collator,
            args,
            steps,
            work / "checkpoints",
            "Supernet",
        )
        if accelerator.is_main_process:
            write_json(work / "supernet_log.json", log)
            temporary = path.with_suffix(".partial")
            save_file({name: t.detach().cpu().contiguous() for name, t in supernet.state_dict().items()}, temporary)
            os.replace(temporary, path)
        accelerator.wait_for_everyone()
    supernet.load_state_dict(load_file(path))


def evaluate_candidates(supernet: Supernet, score: Score, args: SearchArguments, path: Path) -> list[dict[str, Any]]:
    """Proposes and scores candidates until there are `num_candidates`; every one is a line of `path`, written at once.

    Returns:
        All candidates in order: `architecture`, `cost`, `loss` and `seconds`.
    """
    space, evolution = supernet.space, Evolution()
    rows = read_history(path)
    history = [Evaluated(Architecture.from_json(row["architecture"]), row["loss"]) for row in rows]
    bar = tqdm(total=args.num_candidates, initial=len(rows), desc="Searching", unit="candidate")
    with path.open("a", encoding="utf-8") as file:
        while len(rows) < args.num_candidates:
            started = time.perf_counter()
            architecture = evolution.propose(space, history, args.seed)
            loss = score(supernet.extract(architecture))
            row = {
                "architecture": architecture.to_json(),
                "cost": space.cost_of(architecture),
                "loss": loss,
                "seconds": time.perf_counter() - started,
            }
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
            rows.append(row)
            history.append(Evaluated(architecture, loss))
            bar.update()
            bar.set_postfix(best=f"{min(rank(e.loss) for e in history):.4f}")
    bar.close()
    return rows


def read_history(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a history; a last one that was cut off in writing is dropped from the file."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole, encoding="utf-8")
    return [json.loads(line) for line in whole.splitlines()]


def main(args: SearchArguments) -> None:
    """Runs the job from arguments to a finished folder."""
    args.check()
    folder = OutputFolder(args.output_dir, run_arguments(args))
    if folder.complete:
        print(f"{folder.path} is complete already")
        return
    accelerator = make_accelerator(args, folder.work, find_unused_parameters=True)
    teacher = Teacher.load(args.teacher, accelerator.device)
    space = make_space(args, teacher)
    recipe = make_recipe(args, space.base, teacher)
    if recipe.masks:
        raise InputError("losses: masked_lm and logits need a head, which no supernet has; distil its slice with them")
    with accelerator.main_process_first():  # the others find its cache
        text = prepare_text(args, teacher, args.batch_size * accelerator.num_processes, args.seed)
    probe = None
    if args.score == "task":
        task_args = TaskArguments(
            task=args.task,
            kind="text-classification",
            data=args.task_data,
            text_column=args.task_text_column,
            text_pair_column=args.task_text_pair_column,
            label_column=args.task_label_column,
            max_length=args.max_length,
        )
        split = f"train[:{args.task_rows}]"
        task = task_of_data(task_args, teacher.tokenizer, split)
        probe = TaskProbe(task, task.load(split))
    if accelerator.is_main_process:
        folder.open()
    accelerator.wait_for_everyone()

    with accelerator.main_process_first():
        scales = teacher_scales(teacher, text, folder.work, accelerator.device)
    objective = GeneralDistillation(teacher, scales, recipe)
    supernet = Supernet(space, teacher.hidden_size).to(accelerator.device)
    choose_attention(supernet.whole.encoder)
    layer_map = source_layers(recipe, space.base.num_hidden_layers, teacher)
    initialize_from_teacher(supernet.whole, teacher, layer_map, text.sample_batch(accelerator.device))
    train_supernet(accelerator, supernet, objective, text, args, folder.work)
    if accelerator.is_main_process:
        held_out = capture_held_out(text, teacher, accelerator.device)
        score: Score = HeldOutText(objective, held_out) if probe is None else probe
        rows = evaluate_candidates(supernet, score, args, folder.work / "history.jsonl")
        best = min(rows, key=lambda row: rank(row["loss"]))
        if not math.isfinite(best["loss"]):
            raise InputError(
                f"search: the loss of none of {len(rows)} candidates is a finite number; lower --learning_rate"
            )
        student = supernet.extract(Architecture.from_json(best["architecture"]))
        result = score_student(student, objective, held_out)
        result |= {args.budget: best["cost"], "candidates": len(rows)}
        write_checkpoint(folder.work, student.encoder, teacher.tokenizer, "search", args, result)
        save_projection(student.projection, folder.work)
        plot_search(rows, args.budget, folder.work / "search.png")
        print(f"best of {len(rows)}: {args.budget} {best['cost']:,.6g}, {args.score} loss {best['loss']:.4f}")
        print("held-out " + "  ".join(f"{name} {value:.4f}" for name, value in result.items()))
        print(folder.finish())
    accelerator.end_training()


def cli() -> None:
    """Runs the script with this process's arguments."""
    run_script(main, SearchArguments, "search")


if __name__ == "__main__":
    cli()
