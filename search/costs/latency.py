"""Latency: forwards timed in interleaved rounds, and a table of timed parts that prices an architecture at once.

A forward is taken for the sum of its parts, see `parts.py`. `benchmarks/latency.md` has the error of that beside whole
models.
"""

import copy
import fcntl
import json
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from tqdm.auto import tqdm

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.modeling_efficientbert import EfficientBertModel
from efficientbert.search.costs.arguments import DTYPE_NAMES
from efficientbert.search.costs.cost import Cost
from efficientbert.search.costs.machine import describe_machine
from efficientbert.search.costs.parts import build_part, random_tokens
from efficientbert.search.costs.timing import time_rounds, torch_threads
from efficientbert.train.cli.errors import InputError
from efficientbert.train.files.writing import write_json


DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in DTYPE_NAMES}
ROUNDS = 9  # timings of every part, of which the median counts
GROUP = 32  # parts timed in turn, and held in memory at once
COLD_BYTES = 32_000_000  # weights that copies of a part make up together, as many as a model's: no cache holds them
CALLS = 16  # calls of a part without weights in one timing


@dataclass(frozen=True)
class LatencySettings:
    """What is timed where: one forward without gradients on random tokens without padding.

    Attributes:
        batch_size: Sequences.
        sequence_length: Tokens of every sequence.
        device: `cpu` or `cuda`.
        dtype: Weights and activations, one of `DTYPES`.
        threads: Threads of one operation on the CPU.

    Raises:
        InputError: if a value is not one of these.
    """

    batch_size: int = 1
    sequence_length: int = 128
    device: str = "cpu"
    dtype: str = "float32"
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("batch_size", "sequence_length", "threads"):
            if getattr(self, name) < 1:
                raise InputError(f"latency: {name} {getattr(self, name)}: must be positive")
        for name, known in (("device", ("cpu", "cuda")), ("dtype", DTYPES)):
            if getattr(self, name) not in known:
                raise InputError(f"latency: unknown {name} {getattr(self, name)!r}; known are {', '.join(known)}")


@contextmanager
def _measuring(settings: LatencySettings) -> Iterator[None]:
    """Runs its body with as many threads as the settings say, and leaves the global random state as it was.

    Raises:
        InputError: if the device is not there.
    """
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise InputError("latency: there is no CUDA device here to measure on; choose device cpu")
    # Everything is drawn on the CPU.
    with torch_threads(settings.threads), torch.random.fork_rng(devices=[]):
        yield


def measure_config_latency(
    configs: Sequence[EfficientBertConfig], settings: LatencySettings, rounds: int = ROUNDS
) -> list[float]:
    """Median forward time of whole encoders with random weights, in milliseconds, all built at once.

    Raises:
        InputError: if the device is not there.
    """
    with _measuring(settings):
        place = {"device": settings.device, "dtype": DTYPES[settings.dtype]}
        models = [EfficientBertModel(config).eval().to(**place) for config in configs]
        vocab_size = min(config.vocab_size for config in configs)
        tokens = random_tokens(vocab_size, settings.batch_size, settings.sequence_length, settings.device)
        times = time_rounds([partial(model, *tokens) for model in models], settings.device, rounds)
        return [statistics.median(one_models) for one_models in zip(*times)]


def repeat_part(part: str, base: EfficientBertConfig, settings: LatencySettings) -> list[Callable[[], object]]:
    """Calls of copies of a part, each of which finds its weights as a forward finds them: not in a cache.

    The more tokens share a weight the less its way from memory counts, and the fewer copies are made. Many calls in
    one timing also let a GPU run behind the CPU, as it does in a forward.
    """
    place = (settings.device, DTYPES[settings.dtype])
    module, inputs = build_part(part, base, settings.batch_size, settings.sequence_length, *place)
    size = sum(tensor.nbytes for tensor in module.parameters())
    if not size:
        return [partial(module, *inputs)] * CALLS
    tokens = settings.batch_size * settings.sequence_length
    copies = math.ceil(COLD_BYTES / size / max(1, tokens / 128))
    modules = [module] + [copy.deepcopy(module) for _ in range(min(max(copies, 4), 64) - 1)]
    return [partial(module, *inputs) for module in modules]


def measure_parts(parts: Sequence[str], base: EfficientBertConfig, settings: LatencySettings) -> list[float]:
    """Median milliseconds of one call of every part.

    Raises:
        InputError: if the device is not there.
    """

    def call_all(calls: list[Callable[[], object]]) -> None:
        for call in calls:
            call()

    medians = []
    with _measuring(settings), tqdm(total=len(parts), desc="latency", unit="part", disable=None) as progress:
        for start in range(0, len(parts), GROUP):
            repeated = [repeat_part(part, base, settings) for part in parts[start : start + GROUP]]
            rounds = time_rounds([partial(call_all, calls) for calls in repeated], settings.device, ROUNDS)
            medians += [statistics.median(times) / len(calls) for times, calls in zip(zip(*rounds), repeated)]
            progress.update(len(repeated))
    return medians


class Latency(Cost):
    """Milliseconds of one forward, predicted in microseconds as the sum of measured parts, without any fit.

    The table is a JSON file. What it lacks is measured when it is asked for and stored before it is used, so that a
    restarted study prices as before; `prepare` measures all that a space needs in one go, which is the more exact as
    all parts then meet the same machine. Several workers may share the file: one measures at a time, under a lock
    (`PATH.lock`; it ends with its process), while others that lack a part wait and then read what it has stored.

    Where everything needed is in the table it may be read on any machine: search on one, with latencies of another.

    Args:
        base: What no architecture decides.
        path: The table; made if it is missing.
        settings: What is timed where.
        measure: Gives the milliseconds of parts.

    Raises:
        InputError: if the sequences are longer than the base allows, or the file is no table or one of other settings.
    """

    metric = "latency"

    def __init__(
        self,
        base: EfficientBertConfig,
        path: str | Path,
        settings: LatencySettings,
        measure: Callable[[Sequence[str], EfficientBertConfig, LatencySettings], list[float]] = measure_parts,
    ):
        if settings.sequence_length > base.max_position_embeddings:
            raise InputError(
                f"latency: sequence_length {settings.sequence_length}: the model takes at most "
                f"{base.max_position_embeddings} tokens"
            )
        super().__init__()
        self.base, self.path, self.settings, self.measure = base, Path(path), settings, measure
        self.machine: dict[str, str] | None = None
        self.milliseconds: dict[str, float] = {}
        self._read()

    def prepare(self, parts: Iterable[str]) -> None:
        """Measures and stores those of some parts that neither this table nor its file has.

        Raises:
            InputError: as [`price`].
        """
        wanted = list(dict.fromkeys(parts))
        if all(part in self.milliseconds for part in wanted):
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path.with_name(self.path.name + ".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._read()
            missing = [part for part in wanted if part not in self.milliseconds]
            if not missing:
                return
            here = self._here()
            if self.machine not in (None, here):
                raise InputError(
                    f"latency table '{self.path}': lacks {missing[0]!r}, and was measured on {self.machine}, not on "
                    f"{here}; complete it there or choose another file"
                )
            found = dict(zip(missing, self.measure(missing, self.base, self.settings)))
            table = self.milliseconds | found
            write_json(self.path, {"settings": asdict(self.settings), "machine": here, "milliseconds": table})
            self.machine, self.milliseconds = here, table

    def price(self, parts: Sequence[str]) -> list[float]:
        """Milliseconds of one call of each of some parts.

        Raises:
            InputError: if a part must be measured, but this is not the table's machine, or the device is not there.
        """
        try:
            return [self.milliseconds[part] for part in parts]
        except KeyError:
            self.prepare(parts)
            return [self.milliseconds[part] for part in parts]

    def _here(self) -> dict[str, str]:
        """What measured times depend on besides the settings."""
        machine = describe_machine()
        return {
            "device": str(machine["gpu" if self.settings.device == "cuda" else "processor"]),
            "torch": str(machine["torch"]),
        }

    def _read(self) -> None:
        """Reads the file, if there is one."""
        if not self.path.exists():
            return
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            settings, machine = LatencySettings(**found["settings"]), found["machine"]
            milliseconds = {str(part): float(value) for part, value in found["milliseconds"].items()}
        except (OSError, AttributeError, KeyError, TypeError, ValueError):
            raise InputError(
                f"latency table '{self.path}': holds no latency table; delete the file, and it is measured again"
            ) from None
        for name, value in asdict(self.settings).items():
            if getattr(settings, name) != value:
                raise InputError(
                    f"latency table '{self.path}': measured with {name} {getattr(settings, name)}, not {value}; "
                    "choose another file"
                )
        self.machine, self.milliseconds = machine, milliseconds
