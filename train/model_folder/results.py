"""Evaluation results in a model's card and in `.eval_results`."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, eval_result_entries_to_yaml

from efficientbert.train.cli.errors import InputError, one_line
from efficientbert.train.files.local_paths import without_path
from efficientbert.train.files.tables import number, table
from efficientbert.train.files.writing import write_text
from efficientbert.train.model_folder.card import parse_card
from efficientbert.train.model_folder.record import is_hub_id


INTERVAL_NOTE = "95% interval"
RESULTS_START, RESULTS_END = "<!-- results: start -->", "<!-- results: end -->"


def add_results(folder: Path, results: list[EvalResult]) -> None:
    """Adds evaluation results to a model's card and `.eval_results`; a result given again replaces the earlier one.

    They go into the card's `model-index` and a table, and, where the dataset is one of the Hub, into
    `.eval_results/TASK.yaml` (https://huggingface.co/docs/hub/eval-results). All else in these files stays.

    Args:
        folder: A model folder with a card.
        results: One entry per metric.

    Raises:
        InputError: if there is no card, or a file cannot be read.
    """
    path = folder / "README.md"
    if not path.exists():
        raise InputError(f"model folder '{folder}': has no model card README.md")
    results = [replace(result, dataset_type=without_path(result.dataset_type)) for result in results]
    card = parse_card(path.read_bytes(), path)
    files = eval_result_files(folder, results)

    known = [old for old in card.data.eval_results or [] if not any(same_figure(old, new) for new in results)]
    card.data.eval_results = known + results
    card.data.model_name = card.data.model_name or folder.absolute().name.removesuffix(".partial")
    card.text = with_results_table(card.text, card.data.eval_results)
    write_text(path, card.content)
    for file, content in files.items():
        file.parent.mkdir(exist_ok=True)
        write_text(file, content)


def same_figure(old: EvalResult, new: EvalResult) -> bool:
    """Whether two results differ in nothing but the value and its interval."""
    return replace(old, metric_args=None).is_equal_except_value(replace(new, metric_args=None))


def interval_text(result: EvalResult) -> str:
    """The 95% interval of a result, kept among the arguments of its metric; empty where it has none."""
    interval = (result.metric_args or {}).get("interval_95")
    return f"{number(interval[0])} to {number(interval[1])}" if interval else ""


def eval_result_files(folder: Path, results: list[EvalResult]) -> dict[Path, str]:
    """The files of `.eval_results`, one per task, with `results` added to what they hold.

    Raises:
        InputError: if a file there cannot be read.
    """
    contents: dict[Path, list[dict[str, Any]]] = {}
    for result in results:
        if not is_hub_id(result.dataset_type):
            continue
        task = result.dataset_config or "default"
        notes = [result.metric_name or result.metric_type]
        notes += [f"{result.dataset_split} split"] if result.dataset_split else []
        notes += [f"{INTERVAL_NOTE} {interval_text(result)}"] if interval_text(result) else []
        entry = EvalResultEntry(
            dataset_id=result.dataset_type,
            task_id=task,
            value=result.metric_value,
            dataset_revision=result.dataset_revision,
            source_url=result.source_url,
            source_name=result.source_name,
            notes=", ".join(notes),
        )
        stem = result.dataset_config or result.dataset_type.split("/")[-1]
        file = folder / ".eval_results" / f"{re.sub(r'[^A-Za-z0-9_-]', '-', stem)}.yaml"
        contents.setdefault(file, read_entries(file))
        (new,) = eval_result_entries_to_yaml([entry])
        contents[file] = [old for old in contents[file] if not same_evaluation(old, new)] + [new]
    return {file: yaml.safe_dump(entries, sort_keys=False, allow_unicode=True) for file, entries in contents.items()}


def read_entries(file: Path) -> list[dict[str, Any]]:
    """The entries of one `.eval_results` file; none where it does not exist.

    Raises:
        InputError: if it holds anything but a list of entries.
    """
    if not file.exists():
        return []
    try:
        entries = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"evaluation results '{file}': cannot be read: {one_line(error)}") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"evaluation results '{file}': must be a list of entries, each with dataset and value")
    return entries


def same_evaluation(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether two entries of `.eval_results` differ in nothing but the value and its interval."""

    def rest(entry: dict[str, Any]) -> dict[str, Any]:
        return {**entry, "value": None, "notes": str(entry.get("notes", "")).split(f", {INTERVAL_NOTE}")[0]}

    return rest(old) == rest(new)


def with_results_table(text: str, results: list[EvalResult]) -> str:
    """A card's text with the table of all results, in the place of the earlier table or at the end."""
    header = ["dataset", "configuration", "split", "metric", "value"]
    rows = [
        [
            result.dataset_name,
            result.dataset_config or "",
            result.dataset_split or "",
            result.metric_name or result.metric_type,
            number(result.metric_value),
        ]
        for result in results
    ]
    intervals = [interval_text(result) for result in results]
    if any(intervals):
        header, rows = [*header, INTERVAL_NOTE], [[*row, interval] for row, interval in zip(rows, intervals)]
    block = "\n".join([RESULTS_START, table(tuple(header), [tuple(row) for row in rows]), RESULTS_END])
    before, start, rest = text.partition(RESULTS_START)
    _, end, after = rest.partition(RESULTS_END)
    if start and end:
        return before + block + after
    return f"{text.rstrip()}\n\n## Results\n\n{block}\n"
