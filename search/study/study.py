"""A stage of a search: its candidates in an Optuna storage, evaluated once each, by any number of workers.

A stage is one Optuna study and a candidate one trial (one more for every worker that died of it), so that Optuna's
dashboard shows them all. A stage goes on from what is recorded: killed and started again, one worker comes to the
same result as if it had never been killed.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import numpy as np
import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.pruners import BasePruner
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial
from tqdm.auto import tqdm

from efficientbert.search.samplers.sampler import Exhausted, Sampler
from efficientbert.search.study.record import Record
from efficientbert.search.study.stop_rule import Progress, StopRule
from efficientbert.search.study.workers import GRACE, INTERRUPTED, INTERVAL, POLL, Attempts, Worker, describe
from efficientbert.train.cli.errors import InputError, disk_full
from efficientbert.train.engine.display import Lines


C = TypeVar("C", bound=Hashable)
ReportStep = Callable[
    [float, int], None
]  # value, step; raises optuna.TrialPruned where the candidate is to be given up
Evaluate = Callable[[C, int, ReportStep], Mapping[str, float]]  # candidate, number, report: figures by name

MOST_DEATHS = 5  # a candidate that killed so many workers, say of memory, has failed
MOST_FAILURES = 5  # if so many fail and none succeeds, something other than the candidates is wrong


class StageStudy(Generic[C]):
    """All candidates of one stage, as one worker sees and adds to them.

    Args:
        storage: Optuna storage, shared by all workers.
        name: Of the stage, as in "study/stage-1": an Optuna study.
        sampler: Proposes candidates. It is new: the stage tells it all that is recorded.
        to_json: A candidate as a JSON value.
        from_json: And back.
        objectives: Names of the figures that are minimised.
        seed: Of the stage; every candidate gets one from it, for its evaluation.
        settings: Whatever else decides the result, as JSON values: a stage goes on only with the same.
        first: Candidates to evaluate before any that the sampler proposes.
        numbers: Whole numbers of a candidate, at least zero, that a dashboard should plot.
        pruner: Optuna pruner that decides which candidates are given up half-way; for one objective.
        worker: Who works; this process by default.
        interval: Seconds between heartbeats.
        grace: Seconds without a heartbeat after which a worker on another host counts as dead.

    Raises:
        InputError: if the stage was begun with other settings.
    """

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        sampler: Sampler[C],
        *,
        to_json: Callable[[C], Any],
        from_json: Callable[[Any], C],
        objectives: tuple[str, ...],
        seed: int,
        settings: Mapping[str, Any] | None = None,
        first: Sequence[C] = (),
        numbers: Callable[[C], Mapping[str, int]] | None = None,
        pruner: BasePruner | None = None,
        worker: Worker | None = None,
        interval: float = INTERVAL,
        grace: float = GRACE,
    ):
        if pruner is not None and len(objectives) > 1:
            raise InputError(f"study {name!r}: candidates are given up half-way for one objective, not {objectives}")
        self.name = name
        self.sampler = sampler
        self.to_json = to_json
        self.from_json = from_json
        self.objectives = objectives
        self.seed = seed
        self.first = first
        self.numbers = numbers or (lambda candidate: {})
        self.attempts = Attempts(storage, name, objectives, worker, interval, grace)
        self._check_settings({"objectives": objectives, "seed": seed, **(settings or {})})
        self._judge = None if pruner is None else _Judge(self.attempts, name, pruner)
        self._records: dict[int, Record] = {}
        self._progress = Progress()
        self._spent = {"sampler": 0.0, "storage": 0.0}

    def _check_settings(self, settings: Mapping[str, Any]) -> None:
        storage, study_id = self.attempts.storage, self.attempts.study_id
        settings = json.loads(json.dumps(settings))
        if "settings" not in storage.get_study_user_attrs(study_id):
            storage.set_study_user_attr(study_id, "settings", settings)
        earlier = storage.get_study_user_attrs(study_id)["settings"]
        for key in sorted(earlier.keys() | settings.keys()):
            if earlier.get(key) != settings.get(key):
                raise InputError(
                    f"study {self.name!r}: was begun with {key}={earlier.get(key)!r}, not {settings.get(key)!r}; "
                    "choose another folder or name"
                )

    def seed_of(self, number: int) -> int:
        """The seed of a candidate's evaluation, 32 bits, whoever evaluates it and however often."""
        return int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])

    def run(self, evaluate: Evaluate[C], stop: StopRule, *, poll: float = POLL) -> list[Record]:
        """Evaluates candidates, beside other workers, until the stop rule says so and all candidates are finished.

        A candidate whose evaluation raises, or comes to no finite loss, is recorded as failed with its reason.

        Args:
            evaluate: Called with a candidate, its number, and `report(value, step)` for intermediate losses; gives
                all objectives and any other figures. It must depend on these arguments and `seed_of` alone.
            stop: When to stop.
            poll: Seconds between two looks at other workers' last candidates.

        Returns:
            All candidates in order.

        Raises:
            InputError: if the first candidates all fail.
        """
        done = self._catch_up()
        lines = Lines(done)
        with tqdm(
            desc=self.name,
            unit="candidate",
            initial=done,
            total=stop.expected(self._progress),
            disable=None,  # wherever stderr is no terminal
        ) as bar:
            failed = len(self._records)
            while True:
                new = self._catch_up()
                self._show(bar, stop, lines)
                bar.update(new)
                self._check_failures(len(self._records) - failed)
                if abandoned := self.attempts.abandoned():
                    with self._timed("storage"):
                        trial = self.attempts.take_over(abandoned[0], MOST_DEATHS)
                elif stop.reached(self._progress) or (candidate := self._ask()) is None:
                    if not self.attempts.pending():
                        return self.records()
                    time.sleep(poll)
                    continue
                else:
                    trial = self._begin(candidate)
                if trial is not None:
                    self._evaluate(evaluate, trial)

    def records(self) -> list[Record]:
        """All finished candidates, in order."""
        self._catch_up()
        return [record for _, record in sorted(self._records.items())]

    def _catch_up(self) -> int:
        """Reads what has been finished and tells it to the sampler, in order; gives the number of candidates."""
        before = len(self._records)
        with self._timed("storage"):
            self.attempts.refresh()
        for trial in self.attempts.news():
            record = Record.of(trial)
            if record.number in self._records:
                continue  # by a worker that was taken for dead, and another
            self._records[record.number] = record
            self._progress.add(record.losses, sum(record.seconds.values()))
            with self._timed("sampler"):
                self.sampler.tell(self.from_json(record.candidate), record.losses)
        self._progress.started = len(self.attempts.latest)
        return len(self._records) - before

    def _ask(self) -> C | None:
        """The next candidate, none of those at work; None if there is none."""
        if self._progress.started < len(self.first):
            return self.first[self._progress.started]
        latest = self.attempts.latest
        pending = [self.from_json(latest[number].user_attrs["candidate"]) for number in self.attempts.pending()]
        try:
            with self._timed("sampler"):
                return self.sampler.ask(pending)
        except Exhausted:
            return None

    def _begin(self, candidate: C) -> FrozenTrial | None:
        number = self._progress.started
        attributes = {"candidate": self.to_json(candidate), "seed": self.seed_of(number)}
        with self._timed("storage"):
            return self.attempts.begin(number, attributes, self.numbers(candidate))

    def _evaluate(self, evaluate: Evaluate[C], trial: FrozenTrial) -> None:
        """Evaluates the candidate of an attempt and records what came of it."""
        candidate, number = self.from_json(trial.user_attrs["candidate"]), trial.user_attrs["item"]
        losses, figures, reason, started = None, {}, None, time.perf_counter()
        try:
            with self.attempts.beating(trial):
                figures = _as_numbers(evaluate(candidate, number, self._reporter(trial)))
            losses, state = self._losses(figures), "COMPLETE"
        except optuna.TrialPruned as pruned:
            state, reason = "PRUNED", str(pruned)
        except Exception as error:
            if disk_full(error):  # no fault of the candidate's
                self.attempts.release(trial, INTERRUPTED)
                raise
            state, reason = "FAIL", describe(error)
            tqdm.write(f"{self.name}: candidate {number} failed: {reason}")
        except BaseException:
            self.attempts.release(trial, INTERRUPTED)
            raise
        seconds = {"evaluation": time.perf_counter() - started, **self._spent}
        self._spent = dict.fromkeys(self._spent, 0.0)
        figures = {name: figure for name, figure in figures.items() if math.isfinite(figure)}
        result = {"state": state, "losses": losses, "figures": figures, "reason": reason, "seconds": seconds}
        with self._timed("storage"):
            self.attempts.finish(trial, result)

    def _losses(self, figures: Mapping[str, float]) -> list[float]:
        losses = [figures[name] for name in self.objectives]
        for name, loss in zip(self.objectives, losses):
            if not math.isfinite(loss):
                raise FloatingPointError(f"{name} is {loss}")
        return losses

    def _reporter(self, trial: FrozenTrial) -> ReportStep:
        def report(value: float, step: int) -> None:
            if not math.isfinite(value):
                raise FloatingPointError(f"{self.objectives[0]} is {value} at step {step}")
            try:
                self.attempts.storage.set_trial_intermediate_value(trial._trial_id, step, float(value))
                if self._judge is not None and self._judge.gives_up(trial):
                    raise optuna.TrialPruned(f"given up at step {step} with {self.objectives[0]} {value:.6g}")
            except UpdateFinishedTrialError:
                raise optuna.TrialPruned("another worker has taken it over") from None

        return report

    def _check_failures(self, since: int) -> None:
        """Stops a worker whose candidates all fail.

        Raises:
            InputError: if so many have failed since this worker started, and none ever came to a loss.
        """
        if since < MOST_FAILURES or self._progress.front:
            return
        failures = [record for record in self.records() if record.state == "FAIL"]
        if len(failures) == len(self._records):
            raise InputError(
                f"study {self.name!r}: all {len(failures)} candidates failed, the last with {failures[-1].reason}; "
                "set that right and start it again"
            )

    def _show(self, bar: tqdm, stop: StopRule, lines: Lines) -> None:
        bar.total = stop.expected(self._progress)
        front = self._progress.front
        best = f"best {front[0][0]:.5g}" if len(self.objectives) == 1 and front else f"front of {len(front)}"
        shown = best if front else "none complete"
        bar.set_postfix_str(shown, refresh=False)
        if bar.disable and lines.due(len(self._records), bar.total):
            count = len(self._records) if bar.total is None else f"{len(self._records)} of {bar.total}"
            print(f"{self.name}: candidate {count}, {shown}", file=sys.stderr, flush=True)

    @contextmanager
    def _timed(self, kind: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self._spent[kind] += time.perf_counter() - started


class _Judge(optuna.Study):
    """The stage as a pruner sees it: as if no attempt had ever been lost, so that it decides as it would have."""

    def __init__(self, attempts: Attempts, name: str, pruner: BasePruner):
        super().__init__(name, attempts.storage, sampler=RandomSampler(), pruner=pruner)
        self.attempts = attempts

    def get_trials(self, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
        trials = super().get_trials(deepcopy, states)
        counted = {trial.number for trial in self.attempts.latest.values()}
        return [trial for trial in trials if trial.number in counted]

    def gives_up(self, trial: FrozenTrial) -> bool:
        """Whether the candidate of an attempt that goes on is not worth it."""
        self.attempts.refresh()
        return self.pruner.prune(self, self.attempts.storage.get_trial(trial._trial_id))


def _as_numbers(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: float(figure) for name, figure in figures.items()}
