"""The accelerator of a run."""

import os
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DataLoaderConfiguration, DistributedDataParallelKwargs, InitProcessGroupKwargs, set_seed

from efficientbert.train.cli.errors import InputError
from efficientbert.train.engine.arguments import LoopArguments
from efficientbert.train.engine.device import bf16_slowdown, check_precision, find_device
from efficientbert.train.engine.tracking import check_tracker


def make_accelerator(args: LoopArguments, work: Path, find_unused_parameters: bool = False) -> Accelerator:
    """The accelerator of a run, with its seed set.

    Args:
        args: Settings of the run.
        work: Folder for the tracker's files.
        find_unused_parameters: Whether a step may leave parameters without a gradient.

    Raises:
        InputError: if device, precision or tracker are not to be had here.
    """
    device = _choose_device(args.device)
    check_precision(args.mixed_precision, device)
    check_tracker(args.tracker)
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision,
        log_with=args.tracker,
        project_dir=work / "logs",
        dataloader_config=DataLoaderConfiguration(
            # Of a stream, every process reads all and takes its rows: batches sent around had to be of one length.
            dispatch_batches=False,
            non_blocking=device.type == "cuda",
        ),
        cpu=device.type == "cpu",  # else several processes on a CPU would not find each other
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=find_unused_parameters),
            InitProcessGroupKwargs(timeout=timedelta(hours=24)),  # all wait while the first one tokenises
        ],
    )
    if args.mixed_precision == "bf16" and device.type == "cpu" and bf16_slowdown() > 1.5:
        accelerator.print(
            f"mixed_precision: on this processor 'bf16' takes {bf16_slowdown():.0f} times as long as 'no'"
        )
    set_seed(args.seed)
    return accelerator


def _choose_device(name: str | None) -> torch.device:
    """The device of a run, made the one that accelerate takes.

    Raises:
        InputError: if it is not here, or the processes cannot all have it.
    """
    device = find_device(name)
    if name is not None and device.type != "cpu" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(f"device {name!r}: is one for several processes, which take one each; leave out --device")
    if PartialState._shared_state and PartialState().device.type != device.type:
        raise InputError(
            f"device '{device}': this process computes on '{PartialState().device}' already; start another one"
        )
    if name is not None and device.type == "cuda":
        torch.cuda.set_device(device)  # accelerate takes the current one
    return device
