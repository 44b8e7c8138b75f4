"""The jobs that make the models of a plan: every one is a command of the package, in a folder of its own."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from efficientbert import commands
from efficientbert.search.compression.corpus import Corpus
from efficientbert.search.compression.plan import JOBS, PlannedModel, cost_of_epoch, cost_of_step
from efficientbert.search.compression.preparation import Prepared
from efficientbert.search.compression.teacher_kind import EMBEDDER
from efficientbert.train.cli.outcome import Outcome
from efficientbert.train.files.writing import write_json
from efficientbert.train.tasks.arguments import LabelledData


LOSSES = {"losses": ["hidden_states"]}  # heads may differ from the teacher's; see `benchmarks/known.md`
LARGEST_BATCH = 32  # rows of a step on the data


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


def jobs_of(prepared: Prepared, corpus: Corpus, work: Path) -> list[Job]:
    """All jobs of a plan, in order.

    Args:
        prepared: What is made, of what.
        corpus: Text.
        work: Folder of the run.
    """
    jobs = []
    for planned in prepared.plan.models:
        student = work / JOBS / f"{planned.name}.json"
        write_json(student, planned.config(prepared.base).to_dict())
        jobs += _jobs_of_model(planned, prepared, corpus, student, work)
    return jobs


def rival_folder(planned: PlannedModel, work: Path) -> Path:
    """Where the model lies that one is held against: its shape, started from the teacher's weights, not distilled."""
    return work / JOBS / f"{planned.name}-rival"


def _jobs_of_model(planned: PlannedModel, prepared: Prepared, corpus: Corpus, student: Path, work: Path) -> list[Job]:
    """The jobs of one model and of what it is held against."""
    args, own = prepared.args, prepared.own
    teacher_ms, milliseconds = prepared.plan.teacher_batched_ms, planned.batched_ms
    step = cost_of_step(teacher_ms, milliseconds)
    common = {"seed": args.seed, "device": args.device}
    card = {"license": args.license, "language": args.language}
    text = (
        common | corpus.arguments | {"teacher": args.teacher, "max_length": args.max_length, "student": str(student)}
    )
    learns, name = commands.embed, planned.name
    if prepared.kind != EMBEDDER:
        learns, text = commands.distill, text | LOSSES

    def on_text(steps: int, folder: Path) -> Job:
        title = f"{name}: distils {steps:,} steps on text" if steps else f"{name}: takes the teacher's weights"
        return Job(title, steps * step, learns, text | card | {"max_steps": steps, "output_dir": str(folder)})

    if own is None:
        return [on_text(planned.steps, work / name), on_text(0, rival_folder(planned, work))]
    start, untrained = work / JOBS / f"{name}-text", work / JOBS / f"{name}-start"
    data = {field.name: getattr(own.args, field.name) for field in fields(LabelledData)}
    texts = own.texts(args.max_length)
    under, alone = cost_of_epoch(teacher_ms, milliseconds, texts), cost_of_epoch(0, milliseconds, texts) / 2
    batch_size = min(LARGEST_BATCH, len(own.training.features))
    passes = common | card | data | {"num_epochs": planned.epochs, "batch_size": batch_size}
    taught = passes | LOSSES | {"model": str(start), "teacher": args.teacher, "output_dir": str(work / name)}
    simply = passes | {"model": str(untrained), "output_dir": str(rival_folder(planned, work))}
    return [
        on_text(planned.steps, start),
        Job(f"{name}: learns the task from the teacher", (under - alone) * planned.epochs, commands.finetune, taught),
        on_text(0, untrained),
        Job(f"{name}: the same shape, simply fine-tuned", alone * planned.epochs, commands.finetune, simply),
    ]
