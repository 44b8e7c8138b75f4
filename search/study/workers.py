"""Workers that share the work of one study: who is at what, who has died, and what came of it.

Workers are processes, on any number of machines, that know of each other by an Optuna storage alone. All they rely on
is that a trial is created in one step, with its attributes, and that trials of a study have an order. Every attempt at
a piece of work is such a trial; of two attempts of the same number at the same piece of work the earlier counts.
"""

import json
import os
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from optuna.distributions import IntDistribution
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from efficientbert.train.cli.errors import one_line


INTERVAL = 15.0  # seconds between heartbeats
GRACE = 120.0  # seconds without a heartbeat after which a worker elsewhere counts as dead
POLL = 1.0  # seconds between two looks at what others do
INTERRUPTED = "interrupted"

# What belongs to one attempt; everything else goes on to the next attempt at the same piece of work.
_OF_THE_ATTEMPT = ("item", "attempt", "deaths", "worker", "heartbeat", "lost", "result")


@dataclass(frozen=True)
class Worker:
    """A process. One that was given the same id later is another worker.

    Args:
        host: Name of the machine, and of the process namespace there, as of a container.
        pid: Process id.
        started: When the process was started, in seconds since 1970.
    """

    host: str
    pid: int
    started: float

    @classmethod
    def here(cls) -> "Worker":
        """This process."""
        namespace = Path("/proc/self/ns/pid")
        host = f"{socket.gethostname()}/{os.stat(namespace).st_ino}" if namespace.exists() else socket.gethostname()
        return cls(host, os.getpid(), psutil.Process().create_time())

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host.partition('/')[0]}"

    def runs(self) -> bool:
        """Whether the process, which must be one of this host, is there."""
        try:
            process = psutil.Process(self.pid)
            # The clock that `started` was read from may have been set a little since.
            same = abs(process.create_time() - self.started) < 2
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


class Attempts:
    """All attempts at the pieces of work, the items, of one Optuna study, as seen by one worker.

    An attempt is a trial with the attributes `item`, `attempt` (0, 1, …), `worker` and `heartbeat`, and in the end
    either `result` (`state`, `losses` and whatever else) or `lost`, why there is none.

    Args:
        storage: Optuna storage.
        name: Of the Optuna study; made if there is none.
        objectives: Names of its values, which are all minimised.
        worker: Who looks; this process by default.
        interval: Seconds between heartbeats.
        grace: Seconds without a heartbeat after which a worker on another host counts as dead. The clocks of all
            hosts must agree much better than that.
    """

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        objectives: tuple[str, ...],
        worker: Worker | None = None,
        interval: float = INTERVAL,
        grace: float = GRACE,
    ):
        self.storage = storage
        self.study_id = _open_study(storage, name, objectives)
        self.worker = worker or Worker.here()
        self.interval = interval
        self.grace = grace
        self.latest: dict[int, FrozenTrial] = {}  # by item: its last attempt
        self._read = 0  # trials before this one are finished and known
        self._done: set[int] = set()
        self._open: set[int] = set()
        self._news: list[FrozenTrial] = []

    def refresh(self) -> None:
        """Reads what has changed."""
        trials = self.storage.get_all_trials(self.study_id, deepcopy=False)
        for trial in trials[self._read :]:
            item, latest = trial.user_attrs["item"], self.latest.get(trial.user_attrs["item"])
            if latest is None or _attempt(trial) > _attempt(latest) or trial.number == latest.number:
                self.latest[item] = trial
                self._note(item)
            elif trial.state == TrialState.RUNNING and self.dead(trial):
                self._end(trial._trial_id, TrialState.FAIL)  # one that came second, killed before it could say so
        while self._read < len(trials) and trials[self._read].state.is_finished():
            self._read += 1

    def _note(self, item: int) -> None:
        """Notes whether an item's last attempt has settled it."""
        if not self.settled(item):
            self._open.add(item)
            self._done.discard(item)
        elif item not in self._done:
            self._open.discard(item)
            self._done.add(item)
            self._news.append(self.latest[item])

    def news(self) -> list[FrozenTrial]:
        """Attempts that ended with a result since the last call, in the order of their items."""
        news, self._news = sorted(self._news, key=lambda trial: trial.user_attrs["item"]), []
        return news

    def settled(self, item: int) -> bool:
        """Whether a piece of work ended with a result."""
        trial = self.latest[item]
        # A worker that was taken for dead may have ended it all the same, and then that counts.
        return trial.state.is_finished() and ("lost" not in trial.user_attrs or trial.state != TrialState.FAIL)

    def pending(self) -> list[int]:
        """Items begun and not settled, in order."""
        return sorted(self._open)

    def abandoned(self) -> list[int]:
        """Items begun and not settled that nobody works on, in order."""
        return [item for item in self.pending() if self._free(self.latest[item])]

    def _free(self, trial: FrozenTrial) -> bool:
        return trial.state.is_finished() or self.dead(trial)

    def dead(self, trial: FrozenTrial) -> bool:
        """Whether the worker of an unfinished attempt is gone, or has let go of it."""
        worker = Worker(**trial.user_attrs["worker"])
        if worker.host == self.worker.host:
            return worker == self.worker or not worker.runs()
        return time.time() - trial.user_attrs["heartbeat"] > self.grace

    def begin(self, item: int, attributes: Mapping[str, Any], numbers: Mapping[str, int]) -> FrozenTrial | None:
        """Makes the first attempt at a new item.

        Args:
            item: Its number.
            attributes: What it is, as JSON values.
            numbers: Parts of it that a dashboard should plot, at least zero.

        Returns:
            The attempt to work on; None if another worker was faster.
        """
        return self._claim(item, 0, 0, attributes, numbers)

    def take_over(self, item: int, most_deaths: int | None = None) -> FrozenTrial | None:
        """Makes the next attempt at an abandoned item, or closes it where only that was missing.

        Args:
            item: Its number.
            most_deaths: If so many workers died of it, it is recorded as failed; by default none are too many.

        Returns:
            The attempt to work on; None if there is nothing to do.
        """
        trial = self.latest[item]
        deaths = trial.user_attrs["deaths"] + (trial.user_attrs.get("lost") != INTERRUPTED)
        if trial.state == TrialState.RUNNING:
            if "result" in trial.user_attrs:
                self._settle(trial)
                return None
            if most_deaths is not None and deaths >= most_deaths:
                self.finish(trial, {"state": "FAIL", "losses": None, "reason": f"its worker died {deaths} times"})
                return None
            self.release(trial, f"{Worker(**trial.user_attrs['worker'])} died")
        attributes = {key: value for key, value in trial.user_attrs.items() if key not in _OF_THE_ATTEMPT}
        return self._claim(item, _attempt(trial) + 1, deaths, attributes, trial.params)

    def again(self, item: int) -> FrozenTrial | None:
        """Makes another attempt at an item that is settled: it failed, or what it made is gone."""
        trial = self.latest[item]
        return self._claim(item, _attempt(trial) + 1, trial.user_attrs["deaths"], {}, {})

    def _claim(
        self, item: int, attempt: int, deaths: int, attributes: Mapping[str, Any], numbers: Mapping[str, int]
    ) -> FrozenTrial | None:
        """Records an attempt; of several with the same number, the one recorded first is made, the others end."""
        own: dict[str, Any] = {"item": item, "attempt": attempt, "deaths": deaths}
        own |= {"worker": asdict(self.worker), "heartbeat": time.time()}
        trial = create_trial(
            state=TrialState.RUNNING,
            user_attrs={**attributes, **own},
            params=dict(numbers),
            distributions={name: IntDistribution(0, 2**31) for name in numbers},
        )
        trial_id = self.storage.create_new_trial(self.study_id, trial)
        self.refresh()
        latest = self.latest[item]
        if latest._trial_id == trial_id:
            return latest
        self._end(trial_id, TrialState.FAIL)
        return None

    @contextmanager
    def beating(self, trial: FrozenTrial) -> Iterator[None]:
        """Says in regular intervals that this worker is at it, as long as the block runs."""
        done = threading.Event()

        def beat() -> None:
            while not done.wait(self.interval):
                try:
                    self.storage.set_trial_user_attr(trial._trial_id, "heartbeat", time.time())
                except UpdateFinishedTrialError:
                    return  # taken for dead: the work goes to another
                except Exception as error:  # a storage that is out of reach for a moment costs one beat
                    warnings.warn(f"no heartbeat, the next in {self.interval:g} s: {describe(error)}", stacklevel=1)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def finish(self, trial: FrozenTrial, result: Mapping[str, Any]) -> None:
        """Records how an attempt ended, unless the item was given to another worker meanwhile.

        Args:
            trial: The attempt.
            result: `state` ("COMPLETE", "FAIL" or "PRUNED"), `losses` (None where there are none), and whatever
                else, as JSON values.
        """
        try:
            # The result stands before the attempt ends: whoever is killed in between has lost nothing.
            self.storage.set_trial_user_attr(trial._trial_id, "result", dict(result))
        except UpdateFinishedTrialError:
            return
        self._end(trial._trial_id, TrialState[result["state"]], result["losses"])

    def _settle(self, trial: FrozenTrial) -> None:
        result = trial.user_attrs["result"]
        self._end(trial._trial_id, TrialState[result["state"]], result["losses"])

    def release(self, trial: FrozenTrial, reason: str) -> None:
        """Gives an attempt up, so that any worker may make the next one."""
        try:
            self.storage.set_trial_user_attr(trial._trial_id, "lost", reason)
        except UpdateFinishedTrialError:
            return
        self._end(trial._trial_id, TrialState.FAIL)

    def _end(self, trial_id: int, state: TrialState, losses: list[float] | None = None) -> None:
        try:
            self.storage.set_trial_state_values(trial_id, state, losses)
        except UpdateFinishedTrialError:
            pass  # another worker has ended it


def _attempt(trial: FrozenTrial) -> int:
    return trial.user_attrs["attempt"]


def _open_study(storage: BaseStorage, name: str, objectives: tuple[str, ...]) -> int:
    """The id of an Optuna study, which is made if there is none."""
    try:
        study_id = storage.get_study_id_from_name(name)
    except KeyError:
        try:
            study_id = storage.create_new_study([StudyDirection.MINIMIZE] * len(objectives), name)
        except DuplicatedStudyError:
            study_id = storage.get_study_id_from_name(name)
    # As Study.set_metric_names does; they are missing where the worker that made the study was killed just then.
    if objectives and "study:metric_names" not in storage.get_study_system_attrs(study_id):
        storage.set_study_system_attr(study_id, "study:metric_names", list(objectives))
    return study_id


def once(
    storage: BaseStorage,
    name: str,
    job: Callable[[], Any],
    *,
    lasts: Callable[[], bool] = lambda: True,
    worker: Worker | None = None,
    interval: float = INTERVAL,
    grace: float = GRACE,
    poll: float = POLL,
) -> Any:
    """Has a job done by one of all workers that come here, while the others wait; at once if it was done before.

    Where its worker dies, another takes the job over. Where the job fails, the error is raised, by those who wait as
    well, and the next to come tries again.

    Args:
        storage: Optuna storage.
        name: Of the job in the storage, an Optuna study of its own.
        job: Takes nothing, returns a JSON value. A job of hours should go on where a killed one stopped.
        lasts: Whether what the job has made is still there; where it is not, the job is done again.
        worker: Who works; this process by default.
        interval: Seconds between heartbeats.
        grace: Seconds without a heartbeat after which a worker on another host counts as dead.
        poll: Seconds between two looks whether the job is done.

    Returns:
        What the job returned, to all workers alike.

    Raises:
        RuntimeError: if it failed in the hands of another worker while this one was waiting.
    """
    attempts = Attempts(storage, name, ("seconds",), worker, interval, grace)
    waited = False
    while True:
        attempts.refresh()
        trial = attempts.latest.get(0)
        if trial is None:
            mine = attempts.begin(0, {}, {})
        elif trial.state == TrialState.COMPLETE:
            if lasts():
                return trial.user_attrs["result"]["value"]
            mine = attempts.again(0)
        elif attempts.settled(0):
            if waited:
                who = Worker(**trial.user_attrs["worker"])
                raise RuntimeError(f"{name} failed at {who}: {trial.user_attrs['result']['reason']}")
            mine = attempts.again(0)
        elif attempts.abandoned():
            mine = attempts.take_over(0)
        else:
            waited = True
            time.sleep(poll)
            continue
        if mine is not None:
            return _do(attempts, mine, job)


def _do(attempts: Attempts, trial: FrozenTrial, job: Callable[[], Any]) -> Any:
    """Does the job and records what came of it."""
    started = time.perf_counter()
    try:
        with attempts.beating(trial):
            value = json.loads(json.dumps(job()))  # the same kinds for all, lists for tuples
    except Exception as error:
        attempts.finish(trial, {"state": "FAIL", "losses": None, "reason": describe(error)})
        raise
    except BaseException:
        attempts.release(trial, INTERRUPTED)
        raise
    attempts.finish(trial, {"state": "COMPLETE", "losses": [time.perf_counter() - started], "value": value})
    return value


def describe(error: BaseException) -> str:
    """The kind and the message of an error, in one line."""
    kind, message = type(error).__name__, one_line(error, 500)
    return kind if message == kind else f"{kind}: {message}"
