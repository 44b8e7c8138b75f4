"""The jobs that make the models of a plan: every one is a command of the package, in a folder of its own."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from efficientbert import commands
from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.search.compression.arguments import CompressArguments
from efficientbert.search.compression.own_text import COLUMN
from efficientbert.search.compression.plan import BATCH_SIZE, Part, Plan, cost_of_epoch, cost_of_step
from efficientbert.search.compression.teacher_kind import EMBEDDER, ENCODER
from efficientbert.train.cli.outcome import Outcome
from efficientbert.train.files.writing import write_json
from efficientbert.train.tasks.arguments import LabelledData


LOSSES = {"losses": ["hidden_states"]}  # heads may differ from the teacher's; see `benchmarks/known.md`
JOBS = "jobs"  # folder of what is made on the way
HELD_OUT = 64  # sequences of text to score on, at most
OF_TEXTS = 8  # an eighth of few texts at most is held out, and as much measures the teacher
UNTRAINED = (
    "untrained"  # what a model is held against: the same shape from the teacher's weights, without distillation
)


@dataclass(frozen=True)
class Corpus:
    """The text to learn from.

    Attributes:
        arguments: Flags of `distill` and `embed` for it.
    """

    arguments: dict[str, Any]

    @classmethod
    def of_arguments(cls, args: CompressArguments) -> "Corpus":
        """The corpus that the arguments name."""
        return cls(
            {
                "corpus": args.corpus,
                "corpus_name": args.corpus_name,
                "corpus_split": args.corpus_split,
                "text_column": args.corpus_column,
            }
        )

    @classmethod
    def of_file(cls, path: Path, texts: int) -> "Corpus":
        """The user's own texts, see `write_documents`."""
        few = max(2, min(HELD_OUT, texts // OF_TEXTS))
        batch_size = max(1, min(BATCH_SIZE, texts - few))
        lengths = {"held_out": few, "init_sequences": few, "batch_size": batch_size}
        return cls({"corpus": str(path), "text_column": COLUMN} | lengths)


@dataclass(frozen=True)
class Job:
    """One command.

    Attributes:
        title: What it does.
        seconds: About how long it takes.
        command: Its function.
        arguments: Its flags.
    """

    title: str
    seconds: float
    command: Callable[..., Outcome]
    arguments: dict[str, Any]


def run_jobs(jobs: Sequence[Job]) -> list[Outcome]:
    """Runs jobs one after the other; those that are complete are not run again."""
    outcomes = []
    for number, job in enumerate(jobs, start=1):
        left = sum(later.seconds for later in jobs[number - 1 :])
        print(f"\njob {number} of {len(jobs)}: {job.title} (about {minutes(left)} left in all)", flush=True)
        outcomes.append(job.command(**job.arguments))
    return outcomes


def minutes(seconds: float) -> str:
    """A time in words."""
    return "a minute" if seconds < 90 else f"{math.ceil(seconds / 60):,} minutes"


def jobs_of(
    plan: Plan, args: CompressArguments, kind: str, corpus: Corpus, base: EfficientBertConfig, rows: int, work: Path
) -> list[Job]:
    """All jobs of a plan, in order.

    Args:
        plan: The plan.
        args: Arguments of the run; their data has labels, if there is any.
        kind: The teacher's.
        corpus: Text.
        base: What no architecture decides.
        rows: Rows of the data; 0 without any.
        work: Folder of the run.
    """
    jobs = []
    (work / JOBS).mkdir(exist_ok=True)
    for part in plan.parts:
        student = work / JOBS / f"{part.name}.json"
        write_json(student, part.config(base).to_dict())
        jobs += _jobs_of_part(part, plan.teacher_ms, args, kind, corpus, student, rows, work)
    return jobs


def _jobs_of_part(
    part: Part,
    teacher_ms: float,
    args: CompressArguments,
    kind: str,
    corpus: Corpus,
    student: Path,
    rows: int,
    work: Path,
) -> list[Job]:
    """The jobs of one model and of what it is held against."""
    step = cost_of_step(teacher_ms, part.latency_ms)
    common = {"seed": args.seed, "device": args.device}
    card = {"license": args.license, "language": args.language}
    text = (
        common | corpus.arguments | {"teacher": args.teacher, "student": str(student), "max_length": args.max_length}
    )
    learns, name = commands.embed if kind == EMBEDDER else commands.distill, part.name
    if kind != EMBEDDER:
        text |= LOSSES

    def on_text(steps: int, folder: Path) -> Job:
        title = f"{name}: distils {steps:,} steps on text" if steps else f"{name}: takes the teacher's weights"
        return Job(title, steps * step, learns, text | card | {"max_steps": steps, "output_dir": str(folder)})

    if not rows or kind in (EMBEDDER, ENCODER):
        return [on_text(part.steps, work / name), on_text(0, work / JOBS / f"{name}-{UNTRAINED}")]
    start, untrained = work / JOBS / f"{name}-text", work / JOBS / f"{name}-start"
    data = {field.name: getattr(args, field.name) for field in fields(LabelledData)} | {"kind": kind}
    under, alone = cost_of_epoch(teacher_ms, part.latency_ms, rows), cost_of_epoch(0, part.latency_ms, rows) / 2
    passes = common | card | data | {"num_epochs": part.epochs, "batch_size": min(32, rows // 2)}
    taught = passes | LOSSES | {"model": str(start), "teacher": args.teacher, "output_dir": str(work / name)}
    simply = passes | {"model": str(untrained), "output_dir": str(work / JOBS / f"{name}-{UNTRAINED}")}
    return [
        on_text(part.steps, start),
        Job(f"{name}: learns the task from the teacher", (under - alone) * part.epochs, commands.finetune, taught),
        on_text(0, untrained),
        Job(f"{name}: the same shape, simply fine-tuned", alone * part.epochs, commands.finetune, simply),
    ]
