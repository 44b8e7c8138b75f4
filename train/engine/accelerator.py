"""The accelerator of a run."""

from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, DistributedDataParallelKwargs, InitProcessGroupKwargs, set_seed

from efficientbert.train.engine.arguments import LoopArguments


def make_accelerator(args: LoopArguments, work: Path, find_unused_parameters: bool = False) -> Accelerator:
    """The accelerator of a run, with its seed set and its tracker started.

    Args:
        args: Settings of the run.
        work: Folder for the tracker's files.
        find_unused_parameters: Whether a step may leave parameters without a gradient.
    """
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision,
        log_with=args.tracker,
        project_dir=work / "logs",
        # Of a stream, every process reads all and takes its rows: batches sent around would have to be of one length.
        dataloader_config=DataLoaderConfiguration(dispatch_batches=False),
        cpu=not torch.accelerator.is_available(),  # else several processes on a CPU would not find each other
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=find_unused_parameters),
            InitProcessGroupKwargs(timeout=timedelta(hours=24)),  # all wait while the first one tokenises
        ],
    )
    set_seed(args.seed)
    return accelerator
