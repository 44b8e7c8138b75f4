"""The one training loop, over Accelerate: accumulate, clip, step, log, checkpoint, resume."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.data_loader import DataLoaderDispatcher, DataLoaderShard
from accelerate.utils import set_seed
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from efficientbert.train.cli.errors import InputError
from efficientbert.train.cli.threads import available_cores
from efficientbert.train.engine.arguments import LoopArguments
from efficientbert.train.engine.checkpoints import Progress, newest_checkpoint, save_checkpoint
from efficientbert.train.engine.display import Display
from efficientbert.train.engine.finite import NotFiniteError
from efficientbert.train.engine.optimizer import make_optimizer, make_schedule
from efficientbert.train.engine.order import EpochSampler, LengthSampler, Stream
from efficientbert.train.engine.tracking import tracking


PARTS, RISE = 10, 1.5  # of a log that are compared, and how far above the lowest the last one may be
WORKERS = 4  # processes that collate batches while a GPU computes


class Objective(Protocol):
    """What a run minimises. The loop adds nothing to it and knows nothing of it."""

    def count(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What the losses of this batch are sums over, such as its valid tokens."""

    def __call__(
        self, model: nn.Module, batch: Mapping[str, torch.Tensor], counts: Mapping[str, torch.Tensor], step: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of a batch as a share of the whole one, and terms to log; `counts` are of the whole batch."""


def train(
    accelerator: Accelerator,
    model: nn.Module,
    objective: Objective,
    dataset: Any,
    collator: Callable[[list], dict[str, torch.Tensor]],
    args: LoopArguments,
    max_steps: int,
    checkpoints: Path | None,
    description: str,
    lengths: Sequence[int] | None = None,
    after_step: Callable[[int], None] | None = None,
) -> list[dict[str, float]]:
    """Trains `model` in place for `max_steps` optimizer steps, going on from the newest checkpoint if there is one.

    Mixed precision ends with the training: the model computes in full precision behind it.

    Args:
        accelerator: As of `make_accelerator`; it lets go what it had prepared for an earlier run.
        model: What to train; every call of it in the objective goes through the prepared module.
        objective: What to minimise.
        dataset: Rows with a length, or a stream of rows with `set_epoch`.
        collator: Rows to a batch of tensors.
        args: Settings of the run.
        max_steps: Optimizer steps.
        checkpoints: Folder of this run's checkpoints; None for a run too short to have any, which no tracker follows
            either.
        description: What is trained, for the bar and the tracker.
        lengths: Tokens of every row; batches then hold rows of like length. Not for streams.
        after_step: Called on every process behind optimizer step number `step`, counted from 1, before a checkpoint
            of that step is written; the model is in training mode. It must leave random states alone.

    Returns:
        One row for every `log_steps` steps: step, learning rate, loss and its terms, averaged over the steps since the
        last row that were taken, and the number of those that were skipped.

    Raises:
        InputError: if an epoch holds less than one batch for every process.
        NotFiniteError: if more than `max_skipped_steps` steps, or more than half of all, had a loss or gradient that
            is not finite, or a weight is not when a checkpoint is due.
    """
    # One accelerator may train several models in turn: what it holds of the last one is no part of this run's
    # checkpoints.
    accelerator.free_memory()
    accelerator._custom_objects.clear()
    loader = _make_loader(accelerator, dataset, collator, args, lengths)
    training = _Training(accelerator, model, objective, loader, args, max_steps, checkpoints)
    progress = training.progress
    followed = nullcontext() if checkpoints is None else tracking(accelerator, args, description)
    shown = accelerator.is_main_process
    with followed, Display(description, progress.step, max_steps, shown, lines=checkpoints is not None) as display:
        training.model.train()
        batches = _groups(accelerator, training.loader, progress, args)
        while progress.step < max_steps:
            training.step(next(batches))
            display.step()
            due = checkpoints is not None and progress.step % args.checkpoint_steps == 0 and progress.step < max_steps
            # Every checkpoint ends a log row, so that a run that goes on from it averages over the same steps.
            if progress.step % args.log_steps == 0 or progress.step == max_steps or due:
                row = training.log_row()
                display.row(row)
                accelerator.log(row, step=progress.step)
            if after_step is not None:
                after_step(progress.step)
            if checkpoints is not None and due:
                save_checkpoint(accelerator, checkpoints, progress.step)
    accelerator.wait_for_everyone()
    accelerator.unwrap_model(model, keep_fp32_wrapper=False)  # weights are scored as they are saved: in full precision
    _tell_outcome(accelerator, progress, max_steps, description)
    rise = describe_rise(progress.log)
    if rise is not None:
        accelerator.print(f"{description}: {rise}")
    return progress.log


def _make_loader(
    accelerator: Accelerator,
    dataset: Any,
    collator: Callable[[list], dict[str, torch.Tensor]],
    args: LoopArguments,
    lengths: Sequence[int] | None,
) -> DataLoader:
    """Batches of a process's rows; see `train`."""
    sampler, workers = None, 0
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        dataset = Stream(dataset)  # read here: every worker would read it whole, and wrap its faults in long texts
    else:
        rows_a_batch = args.batch_size * accelerator.num_processes
        if lengths is None:
            sampler = EpochSampler(len(dataset), args.seed)
        else:
            sampler = LengthSampler(lengths, rows_a_batch, args.seed)
        if accelerator.device.type == "cuda":
            workers = max(0, min(WORKERS, available_cores() // accelerator.num_processes - 1))
    return DataLoader(
        dataset,
        args.batch_size,
        sampler=sampler,
        collate_fn=collator,
        drop_last=True,
        # Workers start anew in every epoch, so that they know which it is.
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,  # collators may be closures
        pin_memory=accelerator.device.type == "cuda",
    )


class _Training:
    """What changes in a training: weights, optimizer, learning rate, progress, and sums since the last log row.

    Arguments are those of `train`; there is `loader` in the place of its rows.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        objective: Objective,
        loader: DataLoader,
        args: LoopArguments,
        max_steps: int,
        checkpoints: Path | None,
    ):
        self.accelerator = accelerator
        self.objective = objective
        self.args = args
        self.max_steps = max_steps
        optimizer = make_optimizer(model, args)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, make_schedule(args, max_steps))
        self.rate = 0.0
        if args.compile:
            model.compile()  # in place: a wrapper would rename the weights in checkpoints
        self.model, self.optimizer, self.loader = accelerator.prepare(model, optimizer, loader)
        if accelerator.num_processes > 1:
            set_seed(args.seed, device_specific=True)  # weights began equal; dropout shall differ
        self.progress = Progress()
        if checkpoints is not None:
            accelerator.register_for_checkpointing(self.schedule, self.progress)
            newest = newest_checkpoint(checkpoints)
            if newest is not None:
                accelerator.load_state(str(newest))
        self.sums: dict[str, torch.Tensor] = {}
        self.skipped_before = self.progress.skipped

    def step(self, group: list[dict[str, torch.Tensor]]) -> None:
        """One optimizer step on its batches, or none where anything is not finite.

        Raises:
            NotFiniteError: if too many steps were skipped.
        """
        values = self._backward(group)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.args.max_grad_norm)
        faults = _not_finite(self.accelerator, values, norm)
        if not faults:
            self.optimizer.step()
            for name, value in values.items():
                self.sums[name] = self.sums.get(name, 0) + value
        elif self.accelerator.scaler is not None:
            self.accelerator.scaler.update()  # it has looked at these gradients, and awaits the next
        self.optimizer.zero_grad()
        self.rate = float(self.schedule.get_last_lr()[0])
        self.schedule.step()
        self.progress.step += 1
        if faults:
            self._note_skipped(faults)

    def _backward(self, group: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Adds up the gradients of a step's batches; returns its loss and terms, of this process."""
        counts = _whole_counts(self.accelerator, self.objective, group)
        values: dict[str, torch.Tensor] = {}
        for index, batch in enumerate(group):
            last = index == len(group) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                with self.accelerator.autocast():
                    loss, terms = self.objective(self.model, batch, counts, self.progress.step)
                # Gradients are averaged over processes, but counts are of all of them together.
                self.accelerator.backward(loss * self.accelerator.num_processes)
            for name, value in {"loss": loss, **terms}.items():
                values[name] = values.get(name, 0) + value.detach()
        return values

    def _note_skipped(self, faults: list[str]) -> None:
        """Counts the step that is just over as skipped.

        Raises:
            NotFiniteError: if it is one too many.
        """
        progress, most = self.progress, self.args.max_skipped_steps
        progress.skipped += 1
        if progress.first_skipped is None:
            progress.first_skipped = progress.step
        if progress.skipped > most:
            raise NotFiniteError(
                f"training: step {progress.step}: {', '.join(faults)} not finite; with it {progress.skipped} steps "
                f"were skipped, --max_skipped_steps allows {most}: lower --learning_rate or look at the data"
            )

    def log_row(self) -> dict[str, float]:
        """Adds to the log: averages of the terms over the steps taken since the last row, and over all processes."""
        progress, skipped = self.progress, self.progress.skipped - self.skipped_before
        taken = progress.step - (progress.log[-1]["step"] if progress.log else 0) - skipped
        row = {"step": progress.step, "learning_rate": self.rate, "skipped": skipped}
        for name, total in self.sums.items():
            row[name] = self.accelerator.reduce(total, "sum").item() / taken
        progress.log.append(row)
        self.sums, self.skipped_before = {}, progress.skipped
        return row


def _tell_outcome(accelerator: Accelerator, progress: Progress, max_steps: int, description: str) -> None:
    """Says what of a training that is over did not train anything.

    Raises:
        NotFiniteError: if that is most of it.
    """
    if max_steps == 0:
        accelerator.print(f"{description}: 0 steps, so nothing was trained")
    if progress.skipped == 0:
        return
    told = (
        f"{progress.skipped} of {max_steps} steps were skipped: loss or gradient not finite (first at step "
        f"{progress.first_skipped})"
    )
    if 2 * progress.skipped > max_steps:
        raise NotFiniteError(f"training: {told}; lower --learning_rate or look at the data")
    accelerator.print(f"{description}: {told}")


def describe_rise(log: list[dict[str, float]]) -> str | None:
    """Says that a training has come off its way: its loss is far above what it was before, by tenths of the log.

    Args:
        log: As of `train`; a short one tells too little.
    """
    losses = [(row["step"], row["loss"]) for row in log if "loss" in row]
    if len(losses) < 2 * PARTS:
        return None
    bounds = [len(losses) * part // PARTS for part in range(PARTS + 1)]
    means = [statistics.fmean(loss for _, loss in losses[a:b]) for a, b in pairwise(bounds)]
    lowest = min(range(PARTS), key=means.__getitem__)
    if not means[-1] > RISE * means[lowest]:
        return None
    until, _ = losses[bounds[lowest + 1] - 1]
    return (
        f"note: the loss was {means[lowest]:.4g} until step {until} and is {means[-1]:.4g} in the end; a lower "
        "--learning_rate keeps it down"
    )


def _not_finite(accelerator: Accelerator, values: Mapping[str, torch.Tensor], norm: torch.Tensor | None) -> list[str]:
    """Names of what is no finite number in a step, on any process; all processes get the same.

    With fp16 the gradient is left to the gradient scaler: it skips steps whose gradients overflow by itself, until it
    has found a scale, and they are no fault.

    Args:
        accelerator: Of the run.
        values: Loss and terms of this process.
        norm: Of the gradient; None where the backend keeps it to itself.
    """
    checked = dict(values)
    if norm is not None and accelerator.scaler is None:
        checked["gradient"] = torch.as_tensor(norm, device=accelerator.device)
    faults = torch.stack([~value.isfinite().all() for value in checked.values()]).float()
    return [name for name, fault in zip(checked, accelerator.reduce(faults, "sum").tolist()) if fault]


def _groups(
    accelerator: Accelerator, loader: DataLoaderShard | DataLoaderDispatcher, progress: Progress, args: LoopArguments
) -> Iterator[list[dict[str, torch.Tensor]]]:
    """The batches of one optimizer step at a time, epoch after epoch, from where `progress` stands."""
    group = []
    while True:
        loader.set_epoch(progress.epoch)
        if hasattr(loader.collate_fn, "set_epoch"):
            loader.collate_fn.set_epoch(progress.epoch)
        resumed = progress.batch > 0
        batches = iter(accelerator.skip_first_batches(loader, progress.batch) if resumed else loader)
        taken = 0
        while True:
            # An iterator draws random numbers when it starts; dropout's must not depend on where a run was resumed.
            with torch.random.fork_rng(devices=[]):
                batch = next(batches, None)
            if batch is None:
                break
            taken += 1
            progress.batch += 1
            group.append(batch)
            if len(group) == args.gradient_accumulation_steps:
                yield group
                group = []
        if taken == 0 and not resumed:
            raise InputError(f"data: less than one batch of {args.batch_size} rows for every process")
        progress.epoch += 1
        progress.batch = 0


def _whole_counts(
    accelerator: Accelerator, objective: Objective, group: list[dict[str, torch.Tensor]]
) -> dict[str, torch.Tensor]:
    """Counts summed over the batches of one step and over all processes."""
    counts: dict[str, torch.Tensor] = {}
    for batch in group:
        for name, count in objective.count(batch).items():
            counts[name] = counts.get(name, 0) + count
    return {name: accelerator.reduce(count, "sum") for name, count in counts.items()}
