"""Processes that train every candidate together: towards a study they are one worker."""

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from optuna.storages import BaseStorage

from efficientbert.search.study.record import Record
from efficientbert.search.study.stop_rule import StopRule
from efficientbert.search.study.study import ReportStep, StageStudy
from efficientbert.search.study.workers import describe, once


C = TypeVar("C", bound=Hashable)
EvaluateTogether = Callable[[C, ReportStep], Mapping[str, float]]


class GivenUp(RuntimeError):
    """The main process has given a candidate up."""


class Group:
    """The processes of one `accelerate launch`. The main one deals with the storage and tells the others what to do.

    Args:
        accelerator: Of the processes; there may be one alone.
    """

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator
        self.leads = accelerator.is_main_process

    def share(self, value: Any = None) -> Any:
        """What the main process gives, in all.

        Raises:
            SystemExit: if one of the processes is gone.
        """
        with _complete():
            return broadcast_object_list([value])[0]

    @contextmanager
    def _together(self) -> Iterator[None]:
        """All processes tell each other behind its body what came of it: where one has failed, all have.

        Where one was killed the others fail as well, for which the candidate or job cannot be blamed.

        Raises:
            RuntimeError: if it failed in another process alone, with the reason.
            SystemExit: if one of the processes is gone.
        """
        failed: Exception | None = None
        try:
            yield
        except Exception as error:
            failed = error
        with _complete():
            reasons = gather_object([None if failed is None else describe(failed)])
        if failed is not None:
            raise failed
        for number, reason in enumerate(reasons):
            if reason is not None:
                raise RuntimeError(f"process {number}: {reason}")

    def once(
        self, storage: BaseStorage, name: str, job: Callable[[], Any], lasts: Callable[[], bool] = lambda: True
    ) -> Any:
        """See `workers.once`; all processes do the job together, the main one's result counts."""
        if not self.leads:
            if self.share():
                with self._together():
                    job()
            return self.share()
        began = False

        def announced() -> Any:
            nonlocal began
            began = True
            self.share(True)
            with self._together():
                return job()

        try:
            value = once(storage, name, announced, lasts=lasts)
        finally:
            if not began:
                self.share(False)
        return self.share(value)

    def run(self, study: StageStudy[C], evaluate: EvaluateTogether[C], stop: StopRule) -> list[Record]:
        """See `StageStudy.run`; all processes evaluate every candidate together, the main one's figures count."""
        if not self.leads:
            while (candidate := self.share()) is not None:
                self._follow(evaluate, study.from_json(candidate))
            return self.share()

        def announced(candidate: C, number: int, report: ReportStep) -> Mapping[str, float]:
            def shared(value: float, step: int) -> None:
                try:
                    report(value, step)
                except BaseException:
                    self.share(False)
                    raise
                self.share(True)

            self.share(study.to_json(candidate))
            with self._together():
                return evaluate(candidate, shared)

        try:
            records = study.run(announced, stop)
        finally:
            self.share(None)
        return self.share(records)

    def _follow(self, evaluate: EvaluateTogether[C], candidate: C) -> None:
        """Evaluates a candidate beside the main process, which records what comes of it."""

        def report(value: float, step: int) -> None:
            if not self.share():
                raise GivenUp

        with suppress(Exception), self._together():  # the main process was told of it
            evaluate(candidate, report)


@contextmanager
def _complete() -> Iterator[None]:
    """Processes deal with each other in its body.

    Raises:
        SystemExit: if they cannot: study and jobs take that for an interruption, not for a failure.
    """
    try:
        yield
    except Exception as error:
        raise SystemExit(f"a process of this group is gone: start it again, it goes on: {describe(error)}") from error
