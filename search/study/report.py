"""The report of a study: its stages, where the time went, the Pareto front, winners and failures, as Markdown."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage

from efficientbert.search.study.pareto import pareto_front
from efficientbert.search.study.plot import plot_front, plot_history
from efficientbert.search.study.record import Record
from efficientbert.search.study.workers import Attempts
from efficientbert.train.files.tables import table
from efficientbert.train.files.writing import write_text


REPORT = "report.md"
LONGEST_FRONT = 30  # rows of a table that anyone reads


@dataclass(frozen=True)
class Stage:
    """What is recorded of a stage.

    Args:
        name: As in the storage.
        objectives: Names of the figures that are minimised.
        records: Finished candidates, in order.
        running: How many are at work.
    """

    name: str
    objectives: tuple[str, ...]
    records: list[Record]
    running: int

    def complete(self) -> list[Record]:
        """Candidates that came to a loss."""
        return [record for record in self.records if record.state == "COMPLETE"]

    def best(self) -> list[Record]:
        """Candidates that no other dominates, by their first loss; with one objective the first of the best."""
        complete = self.complete()
        front = [complete[index] for index in pareto_front([record.losses or () for record in complete])]
        return sorted(front, key=lambda record: record.losses or ()) if len(self.objectives) > 1 else front[:1]

    def seconds(self) -> dict[str, float]:
        """Spent on all candidates, by kind."""
        kinds = ("evaluation", "sampler", "storage")
        return {kind: sum(record.seconds.get(kind, 0.0) for record in self.records) for kind in kinds}


@dataclass(frozen=True)
class Job:
    """A job that is done once: `seconds` and `worker` of the one who did it, and how many attempts it took."""

    name: str
    state: str
    seconds: float | None
    attempts: int


def read_study(storage: BaseStorage, name: str) -> tuple[list[Stage], list[Job]]:
    """All stages and jobs `NAME/…` of a storage, in the order in which they were begun."""
    stages, jobs = [], []
    for study in storage.get_all_studies():
        if not study.study_name.startswith(f"{name}/"):
            continue
        objectives = tuple(study.system_attrs.get("study:metric_names", ()))
        attempts = Attempts(storage, study.study_name, objectives)
        attempts.refresh()
        if "settings" in study.user_attrs:
            records = [Record.of(trial) for trial in attempts.news()]
            stages.append(Stage(study.study_name, objectives, records, len(attempts.pending())))
        elif trial := attempts.latest.get(0):
            seconds = trial.values[0] if trial.values else None
            jobs.append(Job(study.study_name, trial.state.name, seconds, trial.user_attrs["attempt"] + 1))
    return stages, jobs


def write_report(storage: BaseStorage, name: str, folder: Path, cost: str | None = None) -> Path:
    """Writes `report.md` and its pictures.

    Args:
        storage: Optuna storage.
        name: Of the study: its stages are named `NAME/…`.
        folder: Where the files go; it is there.
        cost: Name of a figure that losses of a stage with one objective are drawn over, if they have it.

    Returns:
        The report.
    """
    stages, jobs = read_study(storage, name)
    parts = [f"# Search `{name}`", _stage_table(stages)]
    if jobs:
        parts += ["## Jobs", _job_table(jobs)]
    parts += [_stage_section(stage, folder, cost) for stage in stages]
    path = folder / REPORT
    write_text(path, "\n\n".join(parts) + "\n")
    return path


def _stage_table(stages: Sequence[Stage]) -> str:
    rows = []
    for stage in stages:
        states = Counter(record.state for record in stage.records)
        seconds = stage.seconds()
        whole = sum(seconds.values()) or 1.0
        best = stage.best()
        rows.append(
            {
                "stage": stage.name,
                "candidates": len(stage.records),
                "complete": states["COMPLETE"],
                "failed": states["FAIL"],
                "given up": states["PRUNED"],
                "running": stage.running,
                "best": f"{stage.objectives[0]} {best[0].losses[0]:.5g}" if best and best[0].losses else "",
                "seconds": f"{sum(seconds.values()):.1f}",
            }
            | {kind: f"{spent / whole:.2%}" for kind, spent in seconds.items()}
        )
    note = "Seconds are those of all workers together; `sampler` is asking and telling, `storage` reading and writing."
    return f"{_table(rows)}\n\n{note}"


def _job_table(jobs: Sequence[Job]) -> str:
    return _table(
        [
            {
                "job": job.name,
                "state": job.state,
                "seconds": "" if job.seconds is None else f"{job.seconds:.1f}",
                "attempts": job.attempts,
            }
            for job in jobs
        ]
    )


def _stage_section(stage: Stage, folder: Path, cost: str | None) -> str:
    parts = [f"## {stage.name}", f"Minimised: {', '.join(stage.objectives)}."]
    if "loss" in stage.objectives:
        parts.append(
            "`loss` is what the score gives (`--scores`, `--supernet_scores`). It does not compare with the loss of "
            "`efficientbert distill`, which is a sum over all layers."
        )
    stem = stage.name.rpartition("/")[2]
    if stage.records:
        plot_history(stage.records, stage.objectives[0], folder / f"{stem}-history.png")
        parts.append(f"![history]({stem}-history.png)")
    if best := stage.best():
        parts.append(_best_part(stage, best))
        over = stage.objectives[1] if len(stage.objectives) > 1 else cost
        if over is not None and all(over in record.figures for record in stage.complete()):
            plot_front(stage.complete(), over, stage.objectives[0], folder / f"{stem}-front.png")
            parts.append(f"![front]({stem}-front.png)")
    reasons = Counter((record.state, record.reason) for record in stage.records if record.state == "FAIL")
    if reasons:
        rows = [{"failures": count, "reason": reason} for (_, reason), count in reasons.most_common()]
        parts += ["### Failures", _table(rows)]
    return "\n\n".join(parts)


def _best_part(stage: Stage, best: Sequence[Record]) -> str:
    title = "Pareto front" if len(stage.objectives) > 1 else "Best candidate"
    rows = [{"candidate": record.number} | _figures(stage, record) for record in best[:LONGEST_FRONT]]
    parts = [f"### {title}", _table(rows)]
    if len(best) > LONGEST_FRONT:
        parts.append(f"The first {LONGEST_FRONT} of {len(best)}.")
    winners = best[:LONGEST_FRONT]
    parts += [f"Candidate {record.number}:\n\n```json\n{json.dumps(record.candidate)}\n```" for record in winners]
    return "\n\n".join(parts)


def _figures(stage: Stage, record: Record) -> dict[str, str]:
    others = sorted(record.figures.keys() - set(stage.objectives))
    return {name: f"{record.figures[name]:.6g}" for name in (*stage.objectives, *others)}


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table; a row may lack columns."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return table(columns, [[row.get(column, "") for column in columns] for row in rows])
