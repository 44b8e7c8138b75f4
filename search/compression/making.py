"""A compression from its plan to the finished models and their figures."""

import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from efficientbert.search.compression.jobs import JOBS, UNTRAINED, Corpus, jobs_of, run_jobs
from efficientbert.search.compression.own_text import write_documents, write_labelled
from efficientbert.search.compression.plan import LATENCIES
from efficientbert.search.compression.preparation import Prepared
from efficientbert.search.compression.report import (
    FIGURES,
    PLOT,
    TABLE,
    add_section,
    explain,
    make_table,
    plot_models,
)
from efficientbert.search.compression.scoring import interval, measure_models, score_models
from efficientbert.train.engine.device import find_device
from efficientbert.train.files.writing import write_json, write_text


TEXTS, LABELLED = "texts.jsonl", "labelled.jsonl"


def make_models(prepared: Prepared, work: Path) -> list[dict[str, Any]]:
    """Makes all models of the plan, and measures them beside their teacher.

    Returns:
        Rows of the table, see `make_table`.
    """
    args, plan = prepared.args, prepared.plan
    if prepared.measured is not None:
        write_text(work / LATENCIES, prepared.measured)
        plan.write(work)
    (work / JOBS).mkdir(exist_ok=True)
    device = find_device(args.device)
    corpus = Corpus.of_arguments(args)
    if args.corpus is None:
        write_documents(prepared.documents, work / JOBS / TEXTS)
        corpus = Corpus.of_file(work / JOBS / TEXTS, len(prepared.documents))
    if prepared.rows and not prepared.labelled:
        args = write_labelled(args, work / JOBS / LABELLED, device)
    outcomes = run_jobs(jobs_of(plan, args, prepared.kind, corpus, prepared.base, prepared.rows, work))
    models = {"teacher": args.teacher}
    for part in plan.parts:
        models[part.name] = str(work / part.name)
        models[f"{part.name}, simply fine-tuned" if prepared.rows else f"{part.name}, untrained"] = str(
            work / JOBS / f"{part.name}-{UNTRAINED}"
        )
    rows = [
        {"model": name, "role": role(number), **figures}
        for number, (name, figures) in enumerate(measure_models(models, args, plan.threads).items())
    ]
    if prepared.rows:
        add_scores(rows, score_models(models, args, prepared.kind, device))
    else:
        add_cosines(rows, [outcome.figures for outcome in outcomes])
    return rows


def role(number: int) -> str:
    """What the model of a row is to the others: the teacher, then models and what each is held against in turn."""
    return "teacher" if number == 0 else "compressed" if number % 2 else "untrained"


def add_scores(rows: Sequence[dict[str, Any]], scores: dict[str, dict]) -> None:
    """Adds the quality on data to rows, and what each compressed model gains over the next one."""
    for row in rows:
        if row["model"] in scores:
            found = scores[row["model"]]
            row |= {name: found[name] for name in ("metric", "quality", "interval_95", "metrics", "split", "rows")}
    for row, other in pairwise(rows):
        if row["role"] == "compressed" and row["model"] in scores:
            gains = scores[row["model"]]["draws"] - scores[other["model"]]["draws"]
            row |= {"gain": row["quality"] - other["quality"], "gain_interval_95": interval(gains)}


def add_cosines(rows: Sequence[dict[str, Any]], figures: Sequence[dict[str, Any]]) -> None:
    """Adds the cosine to the teacher on held-out text to all rows but the teacher's."""
    for row, found in zip(rows[1:], figures):
        row |= {"metric": "cosine to the teacher", "quality": found["cosine"]}
    for row, other in pairwise(rows[1:]):
        if row["role"] == "compressed":
            row["gain"] = row["quality"] - other["quality"]


def finish(rows: Sequence[dict[str, Any]], prepared: Prepared, work: Path) -> None:
    """Writes table, plot and figures, and the table into the cards of the models."""
    text = f"{make_table(rows)}\n\n{explain(rows, prepared.plan.threads, prepared.args.max_length)}"
    print(f"\n{text}\n")
    write_text(work / TABLE, text + "\n")
    write_json(work / FIGURES, rows)
    plot_models(rows, work / PLOT)
    for part in prepared.plan.parts:
        add_section(work / part.name, text)
        if (work / PLOT).exists():
            shutil.copyfile(work / PLOT, work / part.name / PLOT)
