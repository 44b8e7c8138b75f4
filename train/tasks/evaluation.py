"""Figures of fine-tuned models on their tasks."""

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from huggingface_hub import EvalResult
from transformers import PreTrainedModel

from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.embeddings import pair_cosines
from efficientbert.train.engine.device import find_device
from efficientbert.train.files.tables import table
from efficientbert.train.metrics import compute_metric, load_metric
from efficientbert.train.metrics.intervals import bootstrap
from efficientbert.train.model_folder.loading import is_embedder
from efficientbert.train.tasks.arguments import GLUE_COLUMNS, EvaluateArguments, TaskArguments
from efficientbert.train.tasks.division import splits_to_score
from efficientbert.train.tasks.glue_submission import FILES, official_values, submission_text, task_for_file
from efficientbert.train.tasks.loading import load_split
from efficientbert.train.tasks.prediction import check_length, predict
from efficientbert.train.tasks.task import Task
from efficientbert.train.tasks.texts import TextTask, number
from efficientbert.train.tasks.trained import SIZES, find_models, load_trained


# Flags that say what is predicted and how; a sentence embedder predicts nothing.
NOT_FOR_EMBEDDERS = ("kind", "choice_columns", "problem", "metric", *SIZES)


@dataclass(frozen=True)
class Result:
    """A model's figures on one split.

    Attributes:
        model: Its name.
        folder: Where it lies, or its Hub id.
        args: The data.
        kind: What is predicted, as the Hub calls it.
        split: Name of the split.
        rows: Raw rows of it.
        metrics: The figures.
        intervals: Ends of the 95% interval, of the figures that have one.
    """

    model: str
    folder: str
    args: TaskArguments
    kind: str
    split: str
    rows: int
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]

    def title(self) -> str:
        """The task; of MNLI with its dev set."""
        suffix = self.split.removeprefix("validation_")
        return f"mnli_{suffix}" if suffix in ("matched", "mismatched") else self.args.title()

    def as_json(self) -> dict[str, Any]:
        """What the report says of it."""
        named = {"model": self.model, "task": self.title(), "data": Path(self.args.source()).name, "split": self.split}
        return named | {"rows": self.rows, "metrics": self.metrics, "intervals": self.intervals}


def evaluate_task(
    args: EvaluateArguments, name: str, folder: str, task: Task, model: PreTrainedModel, split: str
) -> Result:
    """Scores a model on one split.

    Raises:
        InputError: if the split cannot be read or has no labels, or the metric is unknown.
    """
    load_metric(task.metric())  # refuses one that is unknown before anything is computed
    rows = task.load_rows(split)
    check_labels(task, rows, split)
    data = task.data(rows, split)
    check_length(model, data, f"model {folder!r}")
    logits = predict(model, task, data, args.batch_size)
    predictions, references, options = task.predict(logits, data), task.references(data), task.metric_options()
    metrics = compute_metric(task.metric(), predictions, references, **options)
    intervals = {}
    if args.bootstrap:
        intervals = bootstrap(task.metric(), predictions, references, args.bootstrap, args.seed, **options)
    return Result(name, folder, task.args, task.args.task_kind(), split, len(rows), metrics, intervals)


def check_labels(task: Task, rows: Dataset, split: str) -> None:
    """Refuses what would be scored without sense.

    Raises:
        InputError: if the labels of a GLUE split are with the GLUE site.
    """
    if task.args.task in GLUE_COLUMNS and all(number(label) == -1 for label in rows[task.label_column]):
        raise InputError(
            f"data {task.args.source()!r}: split {split!r} of {task.args.task!r} has no labels to score with"
        )


def evaluate_embedder(args: EvaluateArguments, name: str, folder: str) -> Result:
    """Scores a sentence embedder by the cosines of pairs of texts, Spearman's correlation first.

    Raises:
        InputError: if the data is no pairs of texts with a number, or a flag is given that is not for embedders.
    """
    unused = [name for name in NOT_FOR_EMBEDDERS if getattr(args, name) is not None]
    if unused:
        raise InputError(
            f"{', '.join(unused)}: not for model {folder!r}, which embeds texts: it is scored by the correlation of "
            "cosines with numbers, and cuts texts as sentence-transformers does"
        )
    named = (args.text_column, args.text_pair_column)
    task = args.task or ("stsb" if named == (None, None) else None)
    data = TaskArguments(task=task, data=args.data, data_name=args.data_name)
    data.check_task()
    first, second = GLUE_COLUMNS["stsb"] if named == (None, None) else named
    if task not in (None, "stsb") or first is None or second is None:
        raise InputError(
            f"model {folder!r}: embeds texts; score it with --task stsb, or with --data, --text_column, "
            "--text_pair_column and, for a number, --label_column"
        )
    columns = (first, second, args.label_column or "label")
    split = args.split or "validation"
    rows = load_split(data, split, columns[:2], columns[-1]).select_columns(list(columns)).to_list()
    for row in rows:  # of a CSV, numbers are texts
        found = number(row[columns[-1]])
        row[columns[-1]] = row[columns[-1]] if found is None else found
    cosines, numbers = pair_cosines(folder, rows, columns, data.source(), args.batch_size, find_device(args.device))
    figures = compute_metric("stsb", cosines, numbers)
    intervals = bootstrap("stsb", cosines, numbers, args.bootstrap, args.seed) if args.bootstrap else {}
    metrics = {name: figures[name] for name in ("spearmanr", "pearson")}
    return Result(name, folder, data, "sentence-similarity", split, len(rows), metrics, intervals)


def predict_tests(args: EvaluateArguments, task: Task, model: PreTrainedModel) -> dict[str, str]:
    """The submission files that a model can predict, with their text; none where its task is not one of GLUE."""
    texts: dict[str, str] = {}
    if not isinstance(task, TextTask):
        return texts
    for file in FILES.get(task.args.task or "", ()):
        test, split = task_for_file(task, file)
        official_values(test)  # refuses before anything is computed
        data = test.load(split, labelled=False)
        logits = predict(model, test, data, args.batch_size)
        predictions: list[Any] = test.predict(logits, data)
        texts[file] = submission_text(test, predictions, data)
    return texts


def evaluate_models(args: EvaluateArguments) -> tuple[list[Result], dict[str, str]]:
    """The figures of all models, and the submission files where they are asked for.

    Raises:
        InputError: if anything cannot be loaded, or two models predict the same submission file.
    """
    results: list[Result] = []
    texts: dict[str, str] = {}
    authors: dict[str, str] = {}
    for name, folder in find_models(args.model).items():
        if args.update_card and not Path(folder, "README.md").is_file():
            raise InputError(
                f"model folder {folder!r}: has no model card README.md to update; leave out "
                "--update_card: `efficientbert push` gives it one"
            )
        if is_embedder(Path(folder)):
            results.append(evaluate_embedder(args, name, folder))
            continue
        task, model = load_trained(folder, args.task_arguments(), find_device(args.device), args.split)
        splits = (args.split,) if args.split else splits_to_score(task.args)
        if args.submission_dir:
            for file in FILES.get(task.args.task or "", ()):
                if file in authors:
                    raise InputError(
                        f"submission {file!r}: both {authors[file]!r} and {name!r} predict it; give one of them"
                    )
                authors[file] = name
            texts |= predict_tests(args, task, model)
            if task.args.task == "ax" and args.split is None:
                splits = ()  # the labels are with the site
        results += [evaluate_task(args, name, folder, task, model, split) for split in splits]
    return results, texts


def glue_score(results: list[Result]) -> tuple[float, list[str]] | None:
    """The mean of the GLUE tasks' means, and these tasks; None where there are fewer than two, or rival models of one.

    As on the site, a task counts with the mean of its metrics, and MNLI with that of its two sets (Wang et al. 2019,
    section 3.4); the diagnostic set does not count.
    """
    values: dict[str, list[float]] = {}
    scored = [(result.args.task, result.split) for result in results]
    if len(set(scored)) < len(scored):
        return None
    for result in results:
        task = result.args.task
        if task in GLUE_COLUMNS and task != "ax" and result.args.metric is None:
            values.setdefault(task, []).append(statistics.fmean(result.metrics.values()))
    if len(values) < 2:
        return None
    return statistics.fmean(map(statistics.fmean, values.values())), sorted(values)


def results_table(results: list[Result]) -> str:
    """All figures as a Markdown table."""
    rows: list[tuple[Any, ...]] = []
    for result in results:
        for name, value in result.metrics.items():
            interval = " to ".join(f"{end:.4f}" for end in result.intervals.get(name, ()))
            note = " (chosen on this split)" if name.startswith("best_") else ""  # SQuAD v2.0
            shown = f"{value:.4f}" if isinstance(value, float) else value
            rows.append((result.model, result.title(), result.split, result.rows, name + note, shown, interval))
    glue = glue_score(results)
    if glue is not None:
        rows.append(("", "GLUE", "", "", f"mean of {len(glue[1])} tasks", f"{glue[0]:.4f}", ""))
    return table(("model", "task", "split", "rows", "metric", "value", "95% interval"), rows)


def card_results(result: Result) -> list[EvalResult]:
    """The figures as the model card takes them."""
    return [
        EvalResult(
            task_type=result.kind,
            dataset_type=result.args.source(),
            dataset_name=result.args.title(),
            dataset_config=result.args.configuration(),
            dataset_split=result.split,
            metric_type=name,
            metric_value=value,
            metric_args={"interval_95": list(result.intervals[name])} if name in result.intervals else None,
        )
        for name, value in result.metrics.items()
    ]
