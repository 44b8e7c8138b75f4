"""A compression from its plan to the finished models and their figures."""

import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from efficientbert.search.compression.corpus import Corpus, write_documents
from efficientbert.search.compression.jobs import jobs_of, rival_folder, run_jobs
from efficientbert.search.compression.plan import JOBS
from efficientbert.search.compression.preparation import Prepared
from efficientbert.search.compression.report import (
    PLOT,
    RIVAL,
    SECTION,
    TABLE,
    TEACHER,
    explain,
    make_table,
    plot_models,
)
from efficientbert.search.compression.scoring import measure_models, score_models
from efficientbert.train.files.writing import write_json, write_text
from efficientbert.train.metrics.intervals import interval
from efficientbert.train.model_folder.card import add_section
from efficientbert.train.model_folder.siblings import COMPRESSION, MADE


TEXTS = "texts.jsonl"  # the documents of the user's own rows


def make_models(prepared: Prepared, work: Path) -> list[dict[str, Any]]:
    """Makes all models of the plan, and measures them beside their teacher.

    Returns:
        Rows of the table, see `make_table`.
    """
    args, plan, own = prepared.args, prepared.plan, prepared.own
    (work / JOBS).mkdir(exist_ok=True)
    corpus = Corpus.of_arguments(args)
    if args.corpus is None:
        write_documents(prepared.documents, work / JOBS / TEXTS)
        corpus = Corpus.of_file(work / JOBS / TEXTS, len(prepared.documents))
    outcomes = run_jobs(jobs_of(prepared, corpus, work))
    models = {}
    for planned in plan.models:
        models[planned.name] = str(work / planned.name)
        rival = "simply fine-tuned" if own is not None else "untrained"
        models[f"{planned.name}, {rival}"] = str(rival_folder(planned, work))
    measured = measure_models({"teacher": args.teacher} | models, args, plan.threads, args.runtime)
    rows = [{"model": name, "role": role(number)} | costs for number, (name, costs) in enumerate(measured.items())]
    if own is not None:
        add_scores(rows, score_models(models, own, prepared.device, args.seed))
    else:
        add_cosines(rows, [outcome.figures for outcome in outcomes])
    return rows


def role(number: int) -> str:
    """What the model of a row is to the others: the teacher, then models and what each is held against in turn."""
    return TEACHER if number == 0 else MADE if number % 2 else RIVAL


def add_scores(rows: Sequence[dict[str, Any]], scores: dict[str, dict[str, Any]]) -> None:
    """Adds the quality on data to rows, and what each compressed model gains over the next one."""
    if not scores:
        return
    for row in rows:
        row |= {name: value for name, value in scores[row["model"]].items() if name != "draws"}
    for row, other in pairwise(rows):
        if row["role"] == MADE:
            gains = scores[row["model"]]["draws"] - scores[other["model"]]["draws"]
            row |= {"gain": row["quality"] - other["quality"], "gain_interval_95": list(interval(gains))}


def add_cosines(rows: Sequence[dict[str, Any]], figures: Sequence[dict[str, Any]]) -> None:
    """Adds the cosine to the teacher on held-out text to all rows but the teacher's."""
    for row, found in zip(rows[1:], figures):
        row |= {"metric": "cosine to the teacher", "quality": found["cosine"]}
    for row, other in pairwise(rows[1:]):
        if row["role"] == MADE:
            row["gain"] = row["quality"] - other["quality"]


def finish(rows: Sequence[dict[str, Any]], prepared: Prepared, work: Path) -> None:
    """Writes table, plot and figures, and the table into the cards of the models."""
    said = explain(rows, prepared.plan.threads, prepared.args, prepared.labelled)
    text = f"{make_table(rows)}\n\n{said}"
    print(f"\n{text}\n")
    write_text(work / TABLE, text + "\n")
    write_json(work / COMPRESSION, rows)
    plot_models(rows, work / PLOT)
    for planned in prepared.plan.models:
        shown = ""
        if (work / PLOT).exists():
            shutil.copyfile(work / PLOT, work / planned.name / PLOT)
            shown = f"\n\n![Quality and time of the models]({PLOT})"
        add_section(work / planned.name, SECTION, text + shown)
