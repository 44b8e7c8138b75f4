"""Checkpoints of a training, and how far it has come."""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors import SafetensorError

from efficientbert.train.cli.errors import InputError, disk_full, one_line
from efficientbert.train.engine.finite import check_finite


@dataclass
class Progress:
    """How far a run has come; part of every checkpoint."""

    step: int = 0
    epoch: int = 0
    batch: int = 0  # batches of this process already taken in this epoch
    skipped: int = 0  # steps without an update, because loss or gradient were not finite
    first_skipped: int | None = None
    log: list[dict[str, float]] = field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        """For accelerate's checkpoints."""
        return vars(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """For accelerate's checkpoints."""
        vars(self).update(state)


def save_checkpoint(accelerator: Accelerator, checkpoints: Path, step: int) -> None:
    """Writes a checkpoint under a temporary name, moves it, and drops the older ones.

    Raises:
        InputError: if the disk is full or refuses it; the older ones stay.
        NotFiniteError: if a weight is not finite; the older ones stay.
    """
    final = checkpoints / f"step-{step:08d}"
    for model in accelerator._models:
        check_finite(accelerator.unwrap_model(model).state_dict(), f"training: step {step}")
    temporary = checkpoints / "writing"
    accelerator.wait_for_everyone()
    try:
        if accelerator.is_main_process:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(temporary))
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        # torch tells a full disk as a RuntimeError of its writer, without the reason
        full = disk_full(error) or any(writer in str(error) for writer in ("PytorchStreamWriter", "inline_container"))
        if not full and not isinstance(error, OSError):
            raise
        reason = one_line(error)
        free = shutil.disk_usage(next(path for path in temporary.parents if path.exists())).free / 1e6
        raise InputError(
            f"checkpoint '{final}': cannot be written, with {free:.1f} MB free: {reason}; "
            f"{'make room and ' if full else ''}start it again: it goes on from its last checkpoint"
        ) from error
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        os.replace(temporary, final)
        for old in checkpoints.glob("step-*"):
            if old != final:
                shutil.rmtree(old)
    accelerator.wait_for_everyone()


def newest_checkpoint(checkpoints: Path) -> Path | None:
    """The newest complete checkpoint, if there is one."""
    return max(checkpoints.glob("step-*"), default=None)
