"""Times of operations, measured in turns."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Lets torch compute with so many threads in its body."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def time_rounds(
    calls: Sequence[Callable[[], object]], device: str, rounds: int, warmup: int = 2
) -> Iterator[list[float]]:
    """Times of several calls, interleaved so that whatever else the machine does meets all of them alike.

    Args:
        calls: What is timed, in turn and without gradients.
        device: Where they run; a GPU is waited for.
        rounds: How often every call is timed.
        warmup: Untimed rounds before that.

    Yields:
        After each round, every call's milliseconds.
    """

    def finished() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    for number in range(-warmup, rounds):
        times = []
        for call in calls:
            with torch.inference_mode():
                start = finished()
                call()
                times.append(1000 * (finished() - start))
        if number >= 0:
            yield times
