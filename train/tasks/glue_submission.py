"""Files for the GLUE site (https://gluebenchmark.com/faq): predictions for the test splits, whose labels it keeps."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from efficientbert.train.cli.errors import InputError
from efficientbert.train.files.writing import write_text
from efficientbert.train.tasks.arguments import GLUE_LABELS
from efficientbert.train.tasks.task import Task, TaskData
from efficientbert.train.tasks.texts import TextTask


FILES: dict[str, dict[str, tuple[str, str]]] = {  # task of the model: file: task and split of the data
    "cola": {"CoLA.tsv": ("cola", "test")},
    "sst2": {"SST-2.tsv": ("sst2", "test")},
    "mrpc": {"MRPC.tsv": ("mrpc", "test")},
    "stsb": {"STS-B.tsv": ("stsb", "test")},
    "qqp": {"QQP.tsv": ("qqp", "test")},
    "mnli": {
        "MNLI-m.tsv": ("mnli", "test_matched"),
        "MNLI-mm.tsv": ("mnli", "test_mismatched"),
        "AX.tsv": ("ax", "test"),
    },
    "ax": {"AX.tsv": ("ax", "test")},
    "qnli": {"QNLI.tsv": ("qnli", "test")},
    "rte": {"RTE.tsv": ("rte", "test")},
    "wnli": {"WNLI.tsv": ("wnli", "test")},
}
NAMED = ("mnli", "ax", "qnli", "rte")  # tasks whose files hold names; the others' hold ids
HIGHEST_SIMILARITY = 5.0


def all_files() -> list[str]:
    """The files that the site wants, all in one zip."""
    return sorted({file for files in FILES.values() for file in files})


def task_for_file(task: TextTask, file: str) -> tuple[TextTask, str]:
    """The task and split that a file is about, as the model of `task` is to predict it."""
    name, split = FILES[task.args.task or ""][file]
    if name != task.args.task:
        task = type(task)(replace(task.args, task=name, data_name=None), task.tokenizer, task.label_names)
    return task, split


def official_values(task: Task) -> dict[str, str] | None:
    """What stands in a file for each of a model's labels; None where it predicts numbers.

    Raises:
        InputError: if a label is none of the task's.
    """
    name = task.args.task
    if task.label_names is None and name == "stsb":
        return None
    values: dict[str, str] = {}
    for index, label in enumerate(GLUE_LABELS.get(name or "", ())):
        values |= dict.fromkeys((label, str(index)), label if name in NAMED else str(index))
    for label in task.label_names or ("a number",):
        if label not in values:
            raise InputError(
                f"submission of {name}: the model predicts {label!r}, which is none of {', '.join(values)}"
            )
    return values


def submission_text(task: TextTask, predictions: list[float] | list[int], data: TaskData) -> str:
    """The content of one file.

    Args:
        task: The task that the file is about.
        predictions: As of `task.predict`.
        data: What was predicted.

    Raises:
        InputError: as `official_values`.
    """
    values = official_values(task)
    if values is None:
        answers = [f"{min(max(prediction, 0.0), HIGHEST_SIMILARITY):.3f}" for prediction in predictions]
    else:
        answers = [values[task.metric_names()[int(prediction)]] for prediction in predictions]
    indices = map(int, data.rows["idx"]) if "idx" in data.rows.column_names else range(len(answers))
    lines = [f"{index}\t{answer}" for index, answer in sorted(zip(indices, answers))]
    return "\n".join(["index\tprediction", *lines]) + "\n"


def write_submission(folder: Path, texts: Mapping[str, str]) -> list[str]:
    """Writes the files; returns those that the site wants too.

    Raises:
        InputError: if there is nothing to write, or the folder cannot be made.
    """
    if not texts:
        raise InputError(f"submission_dir '{folder}': no model of a GLUE task to predict with")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"submission_dir '{folder}': cannot be made: {error.strerror}") from None
    for file, text in texts.items():
        write_text(folder / file, text)
    return [file for file in all_files() if file not in texts]
