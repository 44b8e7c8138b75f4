"""What is looked at and planned before a compression writes anything."""

from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.search.compression.arguments import CompressArguments
from efficientbert.search.compression.corpus import Corpus, own_documents
from efficientbert.search.compression.own_rows import (
    OwnRows,
    has_labels,
    read_own_rows,
    with_labels,
    write_labelled,
)
from efficientbert.search.compression.plan import (
    BATCH_ROUNDS,
    BATCH_SIZE,
    JOBS,
    Plan,
    find_goals,
    make_space,
    plan_models,
)
from efficientbert.search.compression.scoring import measure_models
from efficientbert.search.compression.teacher_kind import EMBEDDER, ENCODER, check_kind, recognise
from efficientbert.train.cli.threads import available_cores
from efficientbert.train.distillation.arguments import DistillArguments, EmbedArguments
from efficientbert.train.distillation.embeddings import EmbeddingTeacher, load_embedder
from efficientbert.train.distillation.student import fit_config
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.engine.device import find_device
from efficientbert.train.runtimes.session import require_runtime
from efficientbert.train.tasks.loading import load_split
from efficientbert.train.text.preparation import check_max_length, prepare_passages, prepare_text


LABELLED = "labelled"  # folder of the rows with the teacher's labels
LOOK = 0.5  # seconds in which other programs are looked at
BUSY = 0.2  # share of all cores above which they are told of


@dataclass(frozen=True)
class Prepared:
    """What is known before anything is written.

    Attributes:
        args: Arguments of the run.
        device: Where is trained.
        kind: See `recognise`.
        base: What no architecture decides.
        own: Rows of the task that is learned; None where there is none.
        labelled: Whether they have labels of their own.
        documents: The texts of the data to learn from; empty where there is a corpus.
        plan: What is made.
    """

    args: CompressArguments
    device: torch.device
    kind: str
    base: EfficientBertConfig
    own: OwnRows | None
    labelled: bool
    documents: list[str]
    plan: Plan


def prepare(args: CompressArguments, work: Path, scratch: Path) -> Prepared:
    """Looks at teacher and data, measures the machine, and plans.

    Args:
        args: Arguments of the run.
        work: Folder of the run, where an earlier start may have left what it had prepared.
        scratch: Takes what is to be in the folder of the run.

    Raises:
        InputError: if anything does not suit, or the goal cannot be reached.
    """
    if args.runtime is not None:
        require_runtime()
    device = find_device(args.device)
    kind = recognise(args.teacher)
    check_kind(kind, args)
    predicts = kind not in (EMBEDDER, ENCODER)
    print(f"teacher {args.teacher!r}: {describe(kind)}")
    if predicts:
        args = replace(args, kind=kind)
        args.check_task()
    teacher = prepare_teacher(args, kind)
    own, labelled, documents = None, True, []
    if args.has_data:
        rows = load_split(args, args.train_split, args.text_columns())
        if predicts:
            labelled = has_labels(args, rows)
            own = prepare_rows(args, labelled, teacher, device, work, scratch)
            rows = own.training.rows  # none of those that will be scored
        documents = own_documents(args, rows, teacher.tokenizer) if args.corpus is None else []
    plan = Plan.read(work)
    if plan is None:
        plan = make_plan(args, teacher, own, scratch)
        plan.write(scratch)
    return Prepared(args, device, kind, fit_config(EfficientBertConfig(), teacher), own, labelled, documents, plan)


def prepare_rows(
    args: CompressArguments, labelled: bool, teacher: Teacher, device: torch.device, work: Path, scratch: Path
) -> OwnRows:
    """Reads the rows of the task, labelled by the teacher where they have no labels; see `prepare`."""
    if labelled:
        return read_own_rows(args, teacher.tokenizer, device)
    place = work / JOBS / LABELLED
    found = place
    if not place.exists():
        found = scratch / JOBS / LABELLED
        write_labelled(args, teacher.tokenizer, device, found)
    own = read_own_rows(with_labels(args, found), teacher.tokenizer, device)
    return replace(own, args=with_labels(args, place))  # where it will lie when it is trained on


def prepare_teacher(args: CompressArguments, kind: str) -> Teacher:
    """Loads the teacher, and reads a corpus as the jobs will, so that its faults show before anything is made.

    What is cut of a corpus is kept for the jobs.

    Raises:
        InputError: naming the fault.
    """
    flags = Corpus.of_arguments(args).arguments | {"teacher": args.teacher, "output_dir": args.output_dir}
    if kind == EMBEDDER:
        embedder = EmbeddingTeacher(load_embedder(args.teacher, "cpu", "teacher"), args.teacher)
        check_max_length(args.max_length, embedder.max_seq_length, args.teacher)
        if args.corpus is not None:
            passages = EmbedArguments(**flags, max_length=args.max_length, seed=args.seed)
            prepare_passages(passages, embedder, passages.batch_size)
        return embedder.as_teacher()
    teacher = Teacher.load(args.teacher)
    check_max_length(args.max_length, teacher.max_positions, args.teacher)
    if args.corpus is not None:
        text = DistillArguments(**flags, max_length=args.max_length)
        prepare_text(text, teacher, text.batch_size, args.seed)
    return teacher


def describe(kind: str) -> str:
    """A kind of teacher in words."""
    return {EMBEDDER: "embeds texts", ENCODER: "is a bare encoder"}.get(kind, f"is for {kind}")


def make_plan(args: CompressArguments, teacher: Teacher, own: OwnRows | None, folder: Path) -> Plan:
    """Measures the machine and finds the architectures.

    Args:
        args: Arguments of the run.
        teacher: The teacher.
        own: Rows of the task, if any.
        folder: Where the table of latencies goes.

    Raises:
        InputError: if the goal cannot be reached.
    """
    threads = args.threads or available_cores()
    busy = psutil.cpu_percent(LOOK) / 100
    if busy > BUSY:
        print(f"note: other programs keep {busy:.0%} of this machine's cores busy; a quiet machine is timed better")
    measured = measure_models({"teacher": args.teacher}, args, threads, args.runtime)["teacher"]
    print(
        f"one text of {args.max_length} tokens takes the teacher {measured['latency_ms']:.1f} ms here at batch 1 "
        f"in {args.runtime or 'PyTorch'}, with {threads} threads; times of parts follow"
    )
    goals = find_goals(args, measured["latency_ms"], measured["megabytes"])
    space = make_space(teacher, args, threads, folder)
    batched = measure_models({"teacher": args.teacher}, args, threads, None, BATCH_SIZE, BATCH_ROUNDS)["teacher"]
    texts = 0.0 if own is None else own.texts(args.max_length)
    models = plan_models(space, goals, teacher, args, batched["latency_ms"], texts)
    for planned in models:
        print(planned.describe(space.base))
    return Plan(batched["latency_ms"], threads, tuple(models))
