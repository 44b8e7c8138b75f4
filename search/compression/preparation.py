"""What is looked at and planned before a compression writes anything."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.search.compression.arguments import CompressArguments
from efficientbert.search.compression.jobs import Corpus
from efficientbert.search.compression.own_text import check_labelled, make_task, own_documents
from efficientbert.search.compression.plan import (
    BYTES,
    LATENCIES,
    Part,
    Plan,
    find_architectures,
    find_goals,
    make_space,
    plan_lengths,
)
from efficientbert.search.compression.scoring import measure_models
from efficientbert.search.compression.teacher_kind import EMBEDDER, ENCODER, check_kind, recognise
from efficientbert.search.known.surrogate import TeacherSizes
from efficientbert.train.cli.errors import InputError
from efficientbert.train.cli.threads import available_cores
from efficientbert.train.distillation.arguments import DistillArguments, EmbedArguments
from efficientbert.train.distillation.student import fit_config
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.tasks.task import Task
from efficientbert.train.text.corpus import cut_documents
from efficientbert.train.text.passages import cut_passages
from efficientbert.train.text.preparation import check_max_length, divide_corpus


LOOK = 0.5  # seconds in which other programs are looked at
BUSY = 0.2  # share of all cores above which they are told of


@dataclass(frozen=True)
class Prepared:
    """What is known before anything is written.

    Attributes:
        args: The arguments, with the kind of the teacher.
        kind: See `recognise`.
        base: What no architecture decides.
        task: What the data is of; None without data.
        documents: The texts of the data to learn from, where there is no corpus.
        labelled: Whether the data has labels.
        rows: Rows of the data that the task is learned from; 0 where there is none to learn.
        plan: What is made.
        measured: The table of latencies, as it stands in its file; None where it lies in the folder of the run.
    """

    args: CompressArguments
    kind: str
    base: EfficientBertConfig
    task: Task | None
    documents: list[str]
    labelled: bool
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
    task, rows, documents, labelled = None, 0, [], False
    if args.corpus is not None:
        check_corpus(args, teacher, kind)
    if args.has_data:
        task = make_task(args, kind if predicts else "text-classification", teacher.tokenizer)
        data = task.load_rows(args.train_split, labelled=False)
        rows = len(data) if predicts else 0
        documents = own_documents(task, data) if args.corpus is None else []
        labelled = task.label_column in data.column_names
        if predicts:
            check_labelled(args, task, labelled)
    base, measured, plan = fit_config(EfficientBertConfig(), teacher), None, Plan.read(work)
    if plan is None:
        with tempfile.TemporaryDirectory() as folder:
            plan = make_plan(args, teacher, rows, Path(folder))
            measured = (Path(folder) / LATENCIES).read_text(encoding="utf-8")
    return Prepared(args, kind, base, task, documents, labelled, rows, plan, measured)


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
    teacher_ms = measure_models({"teacher": args.teacher}, args, threads)["teacher"]["latency_ms"]
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
