"""The device that a command computes on."""

import torch

from efficientbert.train.cli.errors import InputError, one_line


def find_device(name: str | None = None) -> torch.device:
    """The device of a name; without one the accelerator of this machine, or else the CPU.

    Raises:
        InputError: if there is no such device here.
    """
    if name is None:
        return torch.accelerator.current_accelerator() or torch.device("cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"device {name!r}: is not here: {one_line(error, 200)}") from None
