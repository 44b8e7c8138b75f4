"""The device that a command computes on."""

import time
from functools import cache

import torch

from efficientbert.train.cli.errors import InputError, one_line


def find_device(name: str | None = None) -> torch.device:
    """The device of a name; without one the accelerator of this machine, or else the CPU.

    Raises:
        InputError: if there is no such device here.
    """
    if name is None:
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"device {name!r}: is not here: {one_line(error, 200)}") from None


@cache
def bf16_slowdown() -> float:
    """How many times as long as in float32 the CPU takes for a product in bfloat16: many only emulate it."""

    def milliseconds(dtype: torch.dtype) -> float:
        matrix = torch.ones(256, 256, dtype=dtype)
        times = []
        for _ in range(3):
            started = time.perf_counter()
            matrix @ matrix
            times.append(time.perf_counter() - started)
        return 1000 * min(times)

    return milliseconds(torch.bfloat16) / milliseconds(torch.float32)


def check_precision(precision: str, device: torch.device) -> None:
    """Refuses a mixed precision that a device cannot train in.

    Args:
        precision: "no", "bf16" or "fp16".
        device: The device.

    Raises:
        InputError: naming both.
    """
    if precision == "fp16" and device.type == "cpu":
        raise InputError("mixed_precision: 'fp16' is for GPUs; on device 'cpu' choose bf16 or no")
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise InputError(f"mixed_precision: device '{device}' cannot compute in 'bf16'; choose fp16 or no")
