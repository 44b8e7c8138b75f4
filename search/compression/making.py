"""A compression from its arguments to the finished models and their figures."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.search.compression.arguments import CompressArguments
from efficientbert.search.compression.jobs import JOBS, UNTRAINED, Corpus, jobs_of, run_jobs
from efficientbert.search.compression.own_text import make_task, own_documents, write_documents, write_labelled
from efficientbert.search.compression.plan import (
    BYTES,
    Part,
    Plan,
    find_architectures,
    find_goals,
    make_space,
    plan_lengths,
)
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
from efficientbert.search.compression.teacher_kind import EMBEDDER, ENCODER, check_kind, recognise
from efficientbert.search.known.surrogate import TeacherSizes
from efficientbert.train.cli.errors import InputError
from efficientbert.train.cli.threads import available_cores
from efficientbert.train.distillation.arguments import DistillArguments, EmbedArguments
from efficientbert.train.distillation.student import fit_config
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.engine.device import find_device
from efficientbert.train.files.writing import write_json, write_text
from efficientbert.train.tasks.task import Task
from efficientbert.train.text.corpus import cut_documents
from efficientbert.train.text.passages import cut_passages
from efficientbert.train.text.preparation import check_max_length, divide_corpus


LOOK = 0.5  # seconds in which other programs are looked at
BUSY = 0.2  # share of all cores above which they are told of
ROUNDS = 20  # in which every model is timed once
LATENCIES = "latency.json"
TEXTS, LABELLED = "texts.jsonl", "labelled.jsonl"


@dataclass(frozen=True)
class Prepared:
    """What is known before anything is written.

    Attributes:
        args: The arguments, with the kind of the teacher.
        kind: See `recognise`.
        base: What no architecture decides.
        task: What the data is of; None without data.
        documents: The texts of the data to learn from, where there is no corpus.
        rows: Rows of the data that the task is learned from; 0 where there is none to learn.
        plan: What is made.
        measured: The table of latencies, as it stands in its file; None where it lies in the folder of the run.
    """

    args: CompressArguments
    kind: str
    base: EfficientBertConfig
    task: Task | None
    documents: list[str]
    rows: int
    plan: Plan
    measured: str | None


def prepare(args: CompressArguments, work: Path) -> Prepared:
    """Looks at teacher and data, measures the machine, and plans.

    Args:
        args: Arguments of the run.
        work: Folder of the run, where an earlier start may have left its plan.

    Raises:
        InputError: if anything does not suit, or the goal cannot be reached.
    """
    kind = recognise(args.teacher)
    check_kind(kind, args.kind, args.has_data, args.teacher)
    predicts = kind not in (EMBEDDER, ENCODER)
    print(f"teacher {args.teacher!r}: {describe(kind)}")
    if predicts and not args.has_data:
        raise InputError(
            f"teacher {args.teacher!r}: is for {kind}; give --data with texts for it, with labels or without"
        )
    if predicts:
        args = replace(args, kind=kind)
        args.check_task()
    teacher = Teacher.load(args.teacher)
    check_max_length(args.max_length, teacher.max_positions, teacher.name)
    task, rows, documents = None, 0, []
    if args.corpus is not None:
        check_corpus(args, teacher, kind)
    if args.has_data:
        task = make_task(args, kind if predicts else "text-classification", teacher.tokenizer)
        data = task.load_rows(args.train_split, labelled=False)
        rows = len(data) if predicts else 0
        documents = own_documents(task, data) if args.corpus is None else []
    base, measured, plan = fit_config(EfficientBertConfig(), teacher), None, Plan.read(work)
    if plan is None:
        with tempfile.TemporaryDirectory() as folder:
            plan = make_plan(args, teacher, rows, Path(folder))
            measured = (Path(folder) / LATENCIES).read_text(encoding="utf-8")
    return Prepared(args, kind, base, task, documents, rows, plan, measured)


def check_corpus(args: CompressArguments, teacher: Teacher, kind: str) -> None:
    """Reads a corpus as the jobs will, so that its faults show before anything is made; what is cut is kept for them.

    Raises:
        InputError: naming the fault.
    """
    flags = Corpus.of_arguments(args).arguments | {"teacher": args.teacher, "output_dir": args.output_dir}
    made, cut = (EmbedArguments, cut_passages) if kind == EMBEDDER else (DistillArguments, cut_documents)
    text = made(**flags, max_length=args.max_length)
    divide_corpus(text, cut, teacher.tokenizer, teacher.max_positions, teacher.name, text.batch_size, args.seed)


def describe(kind: str) -> str:
    """A kind of teacher in words."""
    return {EMBEDDER: "embeds texts", ENCODER: "a bare encoder"}.get(kind, f"is for {kind}")


def make_plan(args: CompressArguments, teacher: Teacher, rows: int, folder: Path) -> Plan:
    """Measures the machine and finds the architectures.

    Args:
        args: Arguments of the run.
        teacher: The teacher.
        rows: Rows of the data that models learn from; 0 without any.
        folder: Where the table of latencies goes.

    Raises:
        InputError: if the goal cannot be reached.
    """
    threads = args.threads or available_cores()
    busy = psutil.cpu_percent(LOOK) / 100
    if busy > BUSY:
        print(f"note: other programs keep {busy:.0%} of this machine's cores busy; a quiet machine is timed better")
    teacher_ms = measure_models({"teacher": args.teacher}, args, threads, ROUNDS)["teacher"]["latency_ms"]
    print(
        f"one text of {args.max_length} tokens takes the teacher {teacher_ms:.1f} ms here at batch 1, with {threads} "
        "threads; times of parts follow"
    )
    goals = find_goals(args, teacher_ms)
    space = make_space(teacher, args, threads, folder)
    sizes = TeacherSizes(teacher.hidden_size, teacher.num_layers, teacher.num_heads)
    found = find_architectures(space, goals, sizes, args.seed)
    latencies = [space.costs["latency"](architecture) for _, architecture, _ in found]
    lengths = plan_lengths(args, teacher_ms, latencies, rows)
    parts = []
    for (goal, architecture, quality), milliseconds, (steps, epochs) in zip(found, latencies, lengths):
        parts.append(Part(goal.name, architecture.to_json(), milliseconds, quality, steps, epochs))
        shape, layers = architecture.shape, architecture.layers
        megabytes = space.costs["parameters"](architecture) * BYTES / 1e6
        print(
            f"{goal.name}: {len(layers)} layers of hidden size {shape.hidden_size}, embedding size "
            f"{shape.embedding_size}, {len(architecture.attentive)} with attention: about {milliseconds:.1f} ms, "
            f"{megabytes:.0f} MB; {steps:,} steps on text" + (f", {epochs:.3g} passes over the data" if rows else "")
        )
    return Plan(teacher_ms, threads, tuple(parts))


def make_models(prepared: Prepared, work: Path) -> list[dict[str, Any]]:
    """Makes all models of the plan, and measures them beside their teacher.

    Returns:
        Rows of the table, see `make_table`.
    """
    args, plan, task = prepared.args, prepared.plan, prepared.task
    if prepared.measured is not None:
        write_text(work / LATENCIES, prepared.measured)
        plan.write(work)
    (work / JOBS).mkdir(exist_ok=True)
    device = find_device(args.device)
    corpus = Corpus.of_arguments(args)
    if args.corpus is None:
        write_documents(prepared.documents, work / JOBS / TEXTS)
        corpus = Corpus.of_file(work / JOBS / TEXTS, len(prepared.documents))
    if task is not None and prepared.rows:
        if task.label_column not in task.load_rows(args.train_split, labelled=False).column_names:
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
        for number, (name, figures) in enumerate(measure_models(models, args, plan.threads, ROUNDS).items())
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
        shutil.copyfile(work / PLOT, work / part.name / PLOT)
