"""Fine-tuned models with the task each is for, as their folders record it."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from efficientbert.train.cli.errors import InputError, one_line
from efficientbert.train.model_folder.loading import is_embedder, load_config, load_model, load_tokenizer
from efficientbert.train.model_folder.record import read_provenance
from efficientbert.train.model_folder.tokenizer_check import check_tokenizer, fit_segments
from efficientbert.train.tasks.arguments import GLUE_LABELS, TASKS, TaskArguments
from efficientbert.train.tasks.division import splits_to_score
from efficientbert.train.tasks.kinds import task_of_model
from efficientbert.train.tasks.task import Task, is_unnamed


HEADS = ("ForSequenceClassification", "ForQuestionAnswering", "ForTokenClassification", "ForMultipleChoice")
SIZES = ("max_length", "doc_stride", "max_query_length", "max_answer_length")


def find_models(path: str) -> dict[str, str]:
    """The models of a folder by name: itself, or else those in its subfolders and in the subfolders of these.

    What has no head for a task, such as the encoder beside the models of several tasks, is left out.

    Args:
        path: A model folder, a folder of such, or a Hub id.

    Raises:
        InputError: if it is a folder without models.
    """
    folder = Path(path)
    if not folder.is_dir() or is_model(folder):
        return {folder.absolute().name if folder.is_dir() else path: path}
    found = {}
    for first in subfolders(folder):
        for second in [first] if is_model(first) else subfolders(first):
            if is_model(second) and (is_embedder(second) or has_head(second)):
                found[second.relative_to(folder).as_posix()] = str(second)
    if not found:
        raise InputError(f"model folder {path!r}: is neither a model nor holds folders of fine-tuned models")
    return found


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder by name, without those of unfinished runs."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.suffix != ".partial")


def is_model(folder: Path) -> bool:
    """Whether a model lies in the folder."""
    return (folder / "config.json").is_file() or is_embedder(folder)


def has_head(folder: Path) -> bool:
    """Whether the model in the folder says that it has a head for a task.

    Raises:
        InputError: if its configuration cannot be read.
    """
    path = folder / "config.json"
    try:
        names = json.loads(path.read_text(encoding="utf-8")).get("architectures") or []
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"config {str(path)!r}: cannot be read: {one_line(error)}") from None
    return any(name.endswith(HEADS) for name in names)


def recorded_arguments(path: str, config: PreTrainedConfig) -> dict[str, Any]:
    """What a model's folder says of the data that it was fine-tuned on last: values of `TaskArguments`.

    Args:
        path: The model's folder, or a Hub id, of which only the configuration is known.
        config: Its configuration.
    """
    steps = read_provenance(Path(path)) if Path(path).is_dir() else []
    # Records of earlier versions have them among the other arguments.
    of_tasks = [step.get("task_arguments", step.get("arguments", {})) for step in steps if is_of_task(step)]
    known = {field.name for field in fields(TaskArguments)}
    if of_tasks:
        return {name: value for name, value in of_tasks[-1].items() if name in known and value is not None}
    task = getattr(config, "finetuning_task", None)
    return {"task": task} if task in TASKS else {}


def is_of_task(step: dict[str, Any]) -> bool:
    """Whether a recorded step made a model for labelled data."""
    return "task_arguments" in step or step["step"] == "finetune"


def settle_arguments(path: str, config: PreTrainedConfig, given: TaskArguments) -> TaskArguments:
    """The data that scores a model: as given, and where nothing is given as recorded with the model.

    Args:
        path: Folder or Hub id of the model.
        config: Its configuration.
        given: What is None is not given.

    Raises:
        InputError: if it was fine-tuned on a local file, of which only the name is recorded, and no data is given.
    """
    chosen = {field.name: getattr(given, field.name) for field in fields(TaskArguments)}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    recorded = recorded_arguments(path, config)
    if chosen.get("task", recorded.get("task")) != recorded.get("task"):
        recorded = {name: value for name, value in recorded.items() if name in SIZES}
    settled = recorded | chosen
    local = "data" not in chosen and settled.get("data", "").startswith("./")
    if local and settled.get("task") is None:
        raise InputError(
            f"model {path!r}: was fine-tuned on a local {settled['data'][2:]!r}; say with --data where it is"
        )
    return TaskArguments(**{name: value for name, value in settled.items() if name != "data" or not local})


def load_trained(
    path: str, given: TaskArguments, device: torch.device | str, split: str | None = None
) -> tuple[Task, PreTrainedModel]:
    """A fine-tuned model and its task, with the labels in the order of the model's outputs.

    Args:
        path: Folder or Hub id.
        given: See `settle_arguments`.
        device: Where the model goes.
        split: What names the labels of a model that names none; by default the task's first one to score.

    Raises:
        InputError: if it cannot be loaded, or has no trained head for the task.
    """
    config = load_config(path, "model")
    untrained = f"model {path!r}: has no trained head for the task; `efficientbert finetune --model {path}` trains one"
    if config.architectures and not any(name.endswith(HEADS) for name in config.architectures):
        raise InputError(untrained)
    tokenizer = load_tokenizer(path, "model")
    task = task_of_model(settle_arguments(path, config, given), tokenizer, config)
    model, report = load_model(task.auto_class, path, "model", dtype=torch.float32)
    if report["missing_keys"]:
        raise InputError(untrained)
    check_tokenizer(tokenizer, model, f"model {path!r}")
    fit_segments(tokenizer, model)
    if is_unnamed(task.label_names):
        task.label_names = data_names(task, split or splits_to_score(task.args)[0], f"model {path!r}")
    return task, model.to(device)


def data_names(task: Task, split: str, what: str) -> tuple[str, ...]:
    """The labels of a model that names none: those of the data in its own order, whole numbers by value.

    Args:
        task: With as many labels as the model has outputs.
        split: Rows with every label; whole numbers need not all be there.
        what: What to call the model in messages.

    Raises:
        InputError: if the rows have more labels or fewer.
    """
    count = len(task.classes)
    official = GLUE_LABELS.get(task.args.task or "", ())
    names = official if len(official) == count else task.read_label_names(task.load_rows(split)) or ()
    numbers = tuple(map(str, range(count)))
    if names and set(names) <= set(task.classes):
        return task.classes
    if names and set(names) <= set(numbers):
        names = numbers
    if len(names) != count:
        raise InputError(
            f"{what}: has {count} outputs that its configuration does not name, but split {split!r} has "
            f"{len(names)} labels; give id2label in its config.json"
        )
    print(f"{what}: names no labels; its outputs are taken as {', '.join(map(repr, names))}")
    return names
