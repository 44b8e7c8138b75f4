"""Fine-tunes a model on a labelled task, alone or distilled from a fine-tuned teacher (paper, section 3.3).

efficientbert finetune --model my-student --task rte --output_dir my-student-rte
efficientbert finetune --model my-student --task rte --teacher my-teacher-rte --output_dir my-student-rte
efficientbert finetune --model my-student --data reviews.csv --text_column review --output_dir my-student-reviews \
    --train_split "train[:90%]" --eval_split "train[90%:]"
"""

import json
import math
import statistics
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from efficientbert.train.checkpoint import write_checkpoint
from efficientbert.train.folders import OutputFolder, run_arguments, write_json
from efficientbert.train.loop import LoopArguments, make_accelerator, train
from efficientbert.train.prediction import check_length, length, main_score, predict, score
from efficientbert.train.recipe import LossArguments, LossRecipe
from efficientbert.train.script import LOAD_ERRORS, InputError, run_script
from efficientbert.train.selection import Selection, training_data
from efficientbert.train.student import choose_attention, load_projection, save_projection
from efficientbert.train.task_distillation import (
    TaskObjective,
    TaskStudent,
    TaskTeacher,
    inner_distillation,
    inner_recipe,
)
from efficientbert.train.tasks import task_of_data
from efficientbert.train.tasks.arguments import LabelledData
from efficientbert.train.tasks.task import Task, TaskData
from efficientbert.train.teacher import quiet_loading


REHEARSED = 8  # rows of every split that are scored before the training
DISTILLATIONS = ("outputs", "together", "sequence")


@dataclass(kw_only=True)
class TaskTrainingArguments(LoopArguments, LossArguments):
    """How a model is trained on labelled tasks, whether one or several."""

    model: str = field(metadata={"help": "Folder or Hub id to start from: a student, or a teacher to be."})
    output_dir: str = field(metadata={"help": "Folder to write; an interrupted run into it is resumed."})
    distillation: str = field(
        default="together",
        metadata={
            "help": "What is learned from a teacher: its 'outputs', those and its inner states 'together', or inner "
            "states in the first half of the steps and outputs in the second ('sequence')."
        },
    )
    label_weight: float = field(default=0.0, metadata={"help": "Share of the labels beside a teacher's outputs."})
    temperature: float = field(default=1.0, metadata={"help": "Of the student's and the teacher's distributions."})
    num_epochs: float = field(default=5, metadata={"help": "Passes over the training rows."})
    selection: float = field(
        default=0.0,
        metadata={
            "help": "Part of the training rows kept aside, on which the best weights are chosen after every pass, and "
            "thresholds; with 0 the last weights are kept."
        },
    )
    learning_rate: float = field(default=1e-4, metadata={"help": "Peak learning rate of AdamW."})

    def check(self) -> None:
        """See `LoopArguments.check`."""
        super().check()
        if self.distillation not in DISTILLATIONS:
            raise InputError(f"distillation: must be {', '.join(DISTILLATIONS)}, not {self.distillation!r}")
        if not self.num_epochs > 0:
            raise InputError(f"num_epochs: must be above 0, not {self.num_epochs}")
        if not 0 <= self.label_weight <= 1:
            raise InputError(f"label_weight: must be between 0 and 1, not {self.label_weight}")
        if not self.temperature > 0:
            raise InputError(f"temperature: must be above 0, not {self.temperature}")
        if not 0 <= self.selection < 1:
            raise InputError(f"selection: must be at least 0 and below 1, not {self.selection}")


@dataclass(kw_only=True)
class FinetuneArguments(TaskTrainingArguments, LabelledData):
    """Fine-tunes a model on a labelled task and writes a folder that every Auto class loads."""

    teacher: str | None = field(
        default=None, metadata={"help": "Folder or Hub id of a teacher fine-tuned on the same task."}
    )
    seeds: list[int] | None = field(
        default=None, metadata={"help": "Train once with every one of these seeds, and report mean and deviation."}
    )

    def check(self) -> None:
        """See `LoopArguments.check`."""
        super().check()
        self.check_task()
        if self.teacher is None and (self.label_weight, self.temperature) != (0.0, 1.0):
            raise InputError("label_weight, temperature: are for learning from a --teacher, and there is none")
        if self.seeds is not None and len(set(self.seeds)) != len(self.seeds):
            raise InputError(f"seeds: must be different numbers, not {self.seeds}")


def load_for_task(name: str, task: Task) -> PreTrainedModel:
    """A model with a head for a task; a head of another shape, or for other labels, is made anew.

    Raises:
        InputError: if it cannot be loaded, or its encoder lacks weights.
    """
    try:
        config = AutoConfig.from_pretrained(name)
        head_fits = task.label_names_of(config) == task.label_names
        task.configure(config)
        with quiet_loading():
            model, report = task.auto_class.from_pretrained(
                name, config=config, dtype=torch.float32, ignore_mismatched_sizes=True, output_loading_info=True
            )
    except LOAD_ERRORS as error:
        raise InputError(f"model {name}: cannot be loaded: {' '.join(str(error).split())[:300]}") from None
    prefix = model.base_model_prefix + "."
    missing = sorted(key for key in report["missing_keys"] if key.startswith(prefix) and ".pooler." not in key)
    if missing:
        raise InputError(f"model {name}: its checkpoint lacks {len(missing)} weights, such as {missing[0]}")
    if not head_fits:
        reset_outputs(model)
    return model


def reset_outputs(model: PreTrainedModel) -> None:
    """Makes the last linear of a model's head anew: its rows meant other labels."""
    *_, last = (module for name, module in model.named_modules() if isinstance(module, nn.Linear))
    nn.init.normal_(last.weight, std=model.config.initializer_range)
    nn.init.zeros_(last.bias)


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model.

    Raises:
        InputError: if it has none.
    """
    try:
        return AutoTokenizer.from_pretrained(name)
    except LOAD_ERRORS as error:
        raise InputError(f"model {name}: no tokenizer: {' '.join(str(error).split())[:300]}") from None


@dataclass(frozen=True)
class Prepared:
    """What a run on one task needs, loaded and checked; nothing is written yet.

    Attributes:
        task: The task.
        data: Rows to train on.
        kept_aside: Rows to choose weights and thresholds on, if any.
        scored: Splits to score the final weights on.
        model: The model to train, on its device.
        teacher: Its teacher, if it has one.
        recipe: What inner states are compared, if they are.
    """

    task: Task
    data: TaskData
    kept_aside: TaskData | None
    scored: list[TaskData]
    model: PreTrainedModel
    teacher: TaskTeacher | None
    recipe: LossRecipe | None


def prepare(
    args: TaskTrainingArguments,
    source: LabelledData,
    teacher_name: str | None,
    tokenizer: PreTrainedTokenizerBase,
    accelerator: Accelerator,
) -> Prepared:
    """Loads data, model and teacher, and rehearses the scoring, whose faults would else show behind the training.

    Raises:
        InputError: if anything does not suit.
    """
    with accelerator.main_process_first():
        task = task_of_data(source, tokenizer, source.train_split)
        data, kept_aside = training_data(source, task, args.selection)
        scored = [task.load(split) for split in source.scored_splits()]
    model = load_for_task(args.model, task).to(accelerator.device)
    choose_attention(model)
    if args.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    teacher = recipe = None
    if teacher_name is not None:
        inner_states = args.distillation != "outputs"
        teacher = TaskTeacher.load(teacher_name, task, inner_states, accelerator.device)
        recipe = inner_recipe(args, model, teacher) if inner_states else None
    for part in (data, *scored):
        check_length(model, part, f"model {args.model}")
    if teacher is not None:
        check_length(teacher.model, data, f"teacher {teacher_name}")
    for part in ([] if kept_aside is None else [kept_aside]) + scored:
        few = task.data(part.rows.select(range(min(REHEARSED, len(part.rows)))), part.split)
        score(task, predict(model, task, few, REHEARSED), few)
    return Prepared(task, data, kept_aside, scored, model, teacher, recipe)


def make_objective(
    args: TaskTrainingArguments, prepared: Prepared, max_steps: int, accelerator: Accelerator, folder: Path
) -> tuple[nn.Module, TaskObjective]:
    """What is trained, and on what: the model on labels, or a student under a teacher.

    Args:
        args: Settings of the run.
        prepared: Of the task.
        max_steps: Optimizer steps.
        accelerator: Of the run.
        folder: Where the teacher's variances are kept.
    """
    task, teacher = prepared.task, prepared.teacher
    if prepared.recipe is None:
        return prepared.model, TaskObjective(task, teacher, args.label_weight, args.temperature)
    student = TaskStudent(prepared.model, teacher.encoder.hidden_size).to(accelerator.device)
    if Path(args.model).is_dir():
        load_projection(student.projection, Path(args.model))
    with accelerator.main_process_first():
        inner = inner_distillation(prepared.recipe, teacher, task, prepared.data, folder)
    inner_steps = max_steps // 2 if args.distillation == "sequence" else 0
    return student, TaskObjective(task, teacher, args.label_weight, args.temperature, inner, inner_steps)


def run(args: FinetuneArguments) -> dict[str, dict[str, float]]:
    """One run, from arguments to a finished folder; returns the figures of every scored split."""
    folder = OutputFolder(args.output_dir, run_arguments(args))
    if folder.complete:
        print(f"{folder.path} is complete already")
        return read_results(folder.path)
    accelerator = make_accelerator(args, folder.work, find_unused_parameters=args.distillation == "sequence")
    tokenizer = load_tokenizer(args.model)
    prepared = prepare(args, args, args.teacher, tokenizer, accelerator)
    task, data, model = prepared.task, prepared.data, prepared.model
    if prepared.kept_aside is None and task.metric() == "squad_v2":
        print("no-answer threshold: 0.5; with --selection 0.1 it is chosen on a tenth of the training rows")
    if accelerator.is_main_process:
        folder.open()
    accelerator.wait_for_everyone()
    rows_a_step = args.batch_size * args.gradient_accumulation_steps * accelerator.num_processes
    max_steps = math.ceil(args.num_epochs * len(data.features) / rows_a_step)
    trained, objective = make_objective(args, prepared, max_steps, accelerator, folder.work)
    selection = None
    if prepared.kept_aside is not None:
        aside = prepared.kept_aside
        selection = Selection(
            model,
            lambda: main_score(score(task, predict(model, task, aside, args.batch_size), aside)),
            folder.work / "selected.safetensors",
            every=math.ceil(len(data.features) / rows_a_step),
            last=max_steps,
            writes=accelerator.is_main_process,
        )
    log = train(
        accelerator,
        trained,
        objective,
        data.features,
        task.collate,
        args,
        max_steps,
        folder.work / "checkpoints",
        f"Fine-tuning on {args.title()}",
        lengths=[length(ids) for ids in data.features["input_ids"]],
        after_step=selection,
    )
    accelerator.unwrap_model(trained, keep_fp32_wrapper=False)  # scored in full precision, as it will be saved
    results: dict[str, dict[str, float]] = {}
    if accelerator.is_main_process:
        if selection is not None:
            step, best = selection.restore()
            task.calibrate(model, predict(model, task, aside, args.batch_size), aside)
            results["selection"] = {"step": step, "score": best}
        for part in prepared.scored:
            results[part.split] = score(task, predict(model, task, part, args.batch_size), part)
            print(f"{part.split}: " + "  ".join(f"{name} {value:.4f}" for name, value in results[part.split].items()))
        finish(folder, args, trained, model, tokenizer, results, log)
    accelerator.wait_for_everyone()
    for tracker in accelerator.trackers:
        tracker.finish()
    return results


def finish(
    folder: OutputFolder,
    args: FinetuneArguments,
    trained: nn.Module,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    results: dict[str, dict[str, float]],
    log: list[dict[str, float]],
) -> None:
    """Writes the model with its record, figures and log, and moves the folder to its name."""
    write_json(folder.work / "results.json", results)
    write_checkpoint(folder.work, model, tokenizer, "finetune", args, results, args.model)
    if isinstance(trained, TaskStudent):
        save_projection(trained.projection, folder.work)
    write_json(folder.work / "training_log.json", log)
    (folder.work / "selected.safetensors").unlink(missing_ok=True)
    print(folder.finish())


def read_results(folder: Path) -> dict[str, dict[str, float]]:
    """The figures of a finished folder."""
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def run_seeds(args: FinetuneArguments) -> dict[str, dict[str, float]]:
    """One run a seed, each in a folder of its own, and the mean and standard deviation of their figures."""
    folder = OutputFolder(args.output_dir, run_arguments(args))
    if folder.complete:
        print(f"{folder.path} is complete already")
        return read_results(folder.path)
    accelerator = make_accelerator(args, folder.work)
    prepare(args, args, args.teacher, load_tokenizer(args.model), accelerator)  # refuses before anything is written
    if accelerator.is_main_process:
        folder.open()
    accelerator.wait_for_everyone()
    runs = [
        run(replace(args, seed=seed, seeds=None, output_dir=str(folder.work / f"seed-{seed}"))) for seed in args.seeds
    ]
    if not accelerator.is_main_process:
        return {}
    summary = {split: summarize([result[split] for result in runs]) for split in runs[0]}
    for split, figures in summary.items():
        print(f"{split}, {len(runs)} seeds: " + "  ".join(f"{name} {value:.4f}" for name, value in figures.items()))
    write_json(folder.work / "results.json", summary)
    print(folder.finish())
    return summary


def summarize(results: list[dict[str, float]]) -> dict[str, float]:
    """Mean of every figure over runs and, as NAME_std, its sample standard deviation; 0 of a single run."""
    summary: dict[str, float] = {}
    for name in results[0]:
        values = [result[name] for result in results]
        summary[name] = statistics.fmean(values)
        summary[f"{name}_std"] = statistics.stdev(values) if len(values) > 1 else 0.0
    return summary


def main(args: FinetuneArguments) -> dict[str, Any]:
    """Runs the job from arguments to a finished folder; returns the figures."""
    args.check()
    results = run(args) if args.seeds is None else run_seeds(args)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return results


def cli() -> None:
    """Runs the script with this process's arguments."""
    run_script(main, FinetuneArguments, "finetune")


if __name__ == "__main__":
    cli()
