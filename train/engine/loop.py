"""The one training loop, over Accelerate: accumulate, clip, step, log, checkpoint, resume."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from torch.utils.data import DataLoader, IterableDataset
from tqdm.auto import tqdm

from efficientbert.train.cli.errors import InputError
from efficientbert.train.engine.arguments import LoopArguments
from efficientbert.train.engine.checkpoints import Progress, newest_checkpoint, save_checkpoint
from efficientbert.train.engine.optimizer import linear_schedule, make_optimizer
from efficientbert.train.engine.order import EpochSampler, LengthSampler, Stream


class NotFiniteError(InputError):
    """Loss, gradient or outputs of a model are no finite numbers."""


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
        checkpoints: Folder of this run's checkpoints; None for a run too short to have any.
        description: Text of the progress bar.
        lengths: Tokens of every row; batches then hold rows of like length. Not for streams.
        after_step: Called on every process behind optimizer step number `step`, counted from 1, before a checkpoint
            of that step is written; the model is in training mode. It must leave random states alone.

    Returns:
        One row for every `log_steps` steps: step, learning rate, loss and its terms, averaged over the steps since the
        last row that were taken, and the number of those that were skipped.

    Raises:
        InputError: if an epoch holds less than one batch for every process.
        NotFiniteError: if more than `max_skipped_steps` steps had a loss or gradient that is no finite number.
    """
    # One accelerator may train several models in turn: what it holds of the last one is no part of this run's
    # checkpoints.
    accelerator.free_memory()
    accelerator._custom_objects.clear()
    streaming = isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__")
    if streaming:
        dataset, sampler = Stream(dataset), None
    elif lengths is None:
        sampler = EpochSampler(len(dataset), args.seed)
    else:
        sampler = LengthSampler(lengths, args.batch_size * accelerator.num_processes, args.seed)
    loader = DataLoader(dataset, args.batch_size, sampler=sampler, collate_fn=collator, drop_last=True)
    optimizer = make_optimizer(model, args)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, linear_schedule(math.ceil(args.warmup_ratio * max_steps), max_steps)
    )
    if args.compile:
        model.compile()  # in place: a wrapper would rename the weights in checkpoints
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    if accelerator.num_processes > 1:
        set_seed(args.seed, device_specific=True)  # weights began equal; dropout shall differ
    if args.tracker:
        accelerator.init_trackers(description.lower().replace(" ", "-"), config=_plain(args))
    progress = Progress()
    if checkpoints is not None:
        accelerator.register_for_checkpointing(schedule, progress)
        newest = newest_checkpoint(checkpoints)
        if newest is not None:
            accelerator.load_state(str(newest))

    bar = tqdm(
        total=max_steps,
        initial=progress.step,
        desc=description,
        unit="step",
        leave=None,  # within another bar it vanishes when it is full
        disable=not accelerator.is_main_process,
    )
    model.train()
    sums: dict[str, torch.Tensor] = {}
    skipped_before = progress.skipped
    groups = _groups(accelerator, loader, progress, args)
    while progress.step < max_steps:
        group = next(groups)
        counts = _whole_counts(accelerator, objective, group)
        values: dict[str, torch.Tensor] = {}
        for index, batch in enumerate(group):
            last = index == len(group) - 1
            with nullcontext() if last else accelerator.no_sync(model):
                with accelerator.autocast():
                    loss, terms = objective(model, batch, counts, progress.step)
                # Gradients are averaged over processes, but counts are of all of them together.
                accelerator.backward(loss * accelerator.num_processes)
            for name, value in {"loss": loss, **terms}.items():
                values[name] = values.get(name, 0) + value.detach()
        norm = accelerator.clip_grad_norm_(model.parameters(), args.max_grad_norm)
        faults = _not_finite(accelerator, values, norm)
        if faults:
            progress.skipped += 1
            if accelerator.scaler is not None:
                accelerator.scaler.update()  # it has looked at these gradients, and awaits the next
        else:
            optimizer.step()
            for name, value in values.items():
                sums[name] = sums.get(name, 0) + value
        optimizer.zero_grad()
        rate = schedule.get_last_lr()[0]
        schedule.step()
        progress.step += 1
        if progress.skipped > args.max_skipped_steps:
            raise NotFiniteError(
                f"training: step {progress.step}: {', '.join(faults)} not finite; with it {progress.skipped} steps "
                f"were skipped, --max_skipped_steps allows {args.max_skipped_steps}: lower --learning_rate or look at "
                "the data"
            )
        bar.update()
        checkpoint_due = (
            checkpoints is not None and progress.step % args.checkpoint_steps == 0 and progress.step < max_steps
        )
        # Every checkpoint ends a log row, so that a run that goes on from it averages over the same steps.
        if progress.step % args.log_steps == 0 or progress.step == max_steps or checkpoint_due:
            row = _log_row(accelerator, sums, progress, rate, progress.skipped - skipped_before)
            sums, skipped_before = {}, progress.skipped
            bar.set_postfix({name: f"{row[name]:.3f}" for name in ("loss",) if name in row})
            if args.tracker:
                accelerator.log(row, step=progress.step)
        if after_step is not None:
            after_step(progress.step)
        if checkpoint_due:
            save_checkpoint(accelerator, checkpoints, progress.step)
    bar.close()
    accelerator.wait_for_everyone()
    accelerator.unwrap_model(model, keep_fp32_wrapper=False)  # weights are scored as they are saved: in full precision
    return progress.log


def _plain(args: LoopArguments) -> dict[str, int | float | bool | str]:
    """Arguments as trackers take them: TensorBoard knows no lists and no None."""
    fields = asdict(args).items()
    return {name: value if isinstance(value, int | float | bool | str) else str(value) for name, value in fields}


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
    accelerator: Accelerator, loader: DataLoader, progress: Progress, args: LoopArguments
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


def _log_row(
    accelerator: Accelerator, sums: dict[str, torch.Tensor], progress: Progress, rate: float, skipped: int
) -> dict[str, float]:
    """Averages of the logged terms over the steps taken since the last row, over all processes, added to the log."""
    taken = progress.step - (progress.log[-1]["step"] if progress.log else 0) - skipped
    row = {"step": progress.step, "learning_rate": rate, "skipped": skipped}
    for name, total in sums.items():
        row[name] = accelerator.reduce(total, "sum").item() / taken
    progress.log.append(row)
    return row
