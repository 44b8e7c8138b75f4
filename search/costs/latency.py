"""Latency: forwards timed in interleaved rounds, and a table of timed parts that prices an architecture at once.

A forward is taken for the sum of its parts: the frame of the model with its embeddings, attention with residual and
LayerNorm, every linear and every operator of the feed-forward expressions at its widths, and their residuals with
LayerNorm. `benchmarks/latency.md` has the error of that beside whole models.
"""

import copy
import fcntl
import json
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.ffn_efficientbert import BINARY, UNARY, Binary, Input, Linear, Unary, evaluate, parse, walk, width
from efficientbert.modeling_efficientbert import EfficientBertModel
from efficientbert.search.costs.arguments import DTYPE_NAMES
from efficientbert.search.costs.cost import Cost
from efficientbert.search.costs.machine import describe_machine
from efficientbert.search.costs.timing import time_rounds, torch_threads
from efficientbert.search.space.architecture import Architecture, LayerChoice, Shape
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


def _tokens(vocab_size: int, settings: LatencySettings) -> tuple[torch.Tensor, torch.Tensor]:
    """Random token ids and a mask of ones, both of shape `(batch_size, sequence_length)`."""
    input_ids = torch.randint(vocab_size, (settings.batch_size, settings.sequence_length)).to(settings.device)
    return input_ids, torch.ones_like(input_ids)


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
        tokens = _tokens(min(config.vocab_size for config in configs), settings)
        times = time_rounds([partial(model, *tokens) for model in models], settings.device, rounds)
        return [statistics.median(one_models) for one_models in zip(*times)]


@lru_cache(maxsize=65536)
def network_parts(expression: str, hidden_size: int, intermediate_size: int) -> tuple[str, ...]:
    """The parts of one feed-forward network: `linear 540 180`, `gelu 180` or, narrow operand first, `mul 180 540`."""
    parts = [f"residual {hidden_size}"]
    for node in walk(parse(expression)):
        if isinstance(node, Linear):
            sizes = (hidden_size, intermediate_size)
            parts.append("linear {} {}".format(*(sizes[::-1] if node.name == "linear2" else sizes)))
        elif isinstance(node, Unary):
            parts.append(f"{node.name} {width(node, hidden_size, intermediate_size)}")
        elif isinstance(node, Binary):
            operands = (width(operand, hidden_size, intermediate_size) for operand in (node.left, node.right))
            parts.append("{} {} {}".format(node.name, *sorted(operands)))
    return tuple(parts)


def all_network_parts(hidden_size: int, intermediate_size: int) -> list[str]:
    """Every part that a feed-forward network of these sizes may have; at equal ones some are named twice."""
    narrow, wide = sorted((hidden_size, intermediate_size))
    parts = [f"residual {hidden_size}"]
    parts += [f"linear {hidden_size} {intermediate_size}", f"linear {intermediate_size} {hidden_size}"]
    parts += [f"{name} {size}" for name in UNARY for size in (narrow, wide)]
    parts += [
        f"{name} {one} {other}" for name in BINARY for one, other in ((narrow, narrow), (narrow, wide), (wide, wide))
    ]
    return parts


def embeddings_part(shape: Shape) -> str:
    """The part that a model has once: `embeddings 540 128`."""
    return f"embeddings {shape.hidden_size} {shape.embedding_size}"


def attention_part(hidden_size: int, num_heads: int, head_dim: int) -> str:
    """The attention of one layer: `attention 540 12 45`."""
    return f"attention {hidden_size} {num_heads} {head_dim}"


def build_part(part: str, base: EfficientBertConfig, settings: LatencySettings) -> tuple[nn.Module, tuple]:
    """The module of a part, and what it is called with."""
    name, *numbers = part.split()
    sizes = tuple(map(int, numbers))
    place: dict[str, Any] = {"device": settings.device, "dtype": DTYPES[settings.dtype]}

    def states(size: int) -> torch.Tensor:
        return torch.randn(settings.batch_size, settings.sequence_length, size).to(**place)

    def model(hidden: int, heads: int = 1, head_dim: int = 1, embedding: int = 1) -> EfficientBertModel:
        layer = LayerChoice("linear2(gelu(linear1(x)))", 1, 1, heads, head_dim)
        architecture = Architecture(Shape(hidden, embedding), (layer,))
        return EfficientBertModel(architecture.to_config(base)).eval().to(**place)

    if name == "embeddings":
        whole = model(sizes[0], embedding=sizes[1])
        del whole.layers[:]
        return whole, _tokens(base.vocab_size, settings)
    if name == "attention":
        layer = model(*sizes).layers[0]
        del layer.ffns[:]
        return layer, (states(sizes[0]), None)
    if name == "residual":
        network = model(*sizes).layers[0].ffns[0]
        network.expression = Input()
        return network, (states(sizes[0]),)
    if name == "linear":
        return nn.Linear(sizes[0], sizes[1]).to(**place), (states(sizes[0]),)
    return _Operator(name, [states(size) for size in sizes]), ()


class _Operator(nn.Module):
    """One elementwise operator as an expression evaluates it, crop included."""

    def __init__(self, name: str, operands: list[torch.Tensor]):
        super().__init__()
        other = Linear("linear1", Input())  # stands for the second operand
        self.node = Unary(name, Input()) if name in UNARY else Binary(name, Input(), other)
        self.operands = operands

    def forward(self) -> torch.Tensor:
        return evaluate(self.node, self.operands[0], {"linear1": lambda x: self.operands[1]})


def repeat_part(part: str, base: EfficientBertConfig, settings: LatencySettings) -> list[Callable[[], object]]:
    """Calls of copies of a part, each of which finds its weights as a forward finds them: not in a cache.

    The more tokens share a weight the less its way from memory counts, and the fewer copies are made. Many calls in
    one timing also let a GPU run behind the CPU, as it does in a forward.
    """
    module, inputs = build_part(part, base, settings)
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
        self.base, self.path, self.settings, self.measure = base, Path(path), settings, measure
        self.machine: dict[str, str] | None = None
        self.milliseconds: dict[str, float] = {}
        self._read()

    def prepare(self, sizes: Iterable[tuple[Shape, Iterable[tuple[int, int]], Iterable[int]]]) -> None:
        """Measures what the table lacks of the parts of some shapes.

        Args:
            sizes: Of every shape its pairs of heads and width of a head, and its inner widths.

        Raises:
            InputError: as [`networks`].
        """
        parts: list[str] = []
        for shape, attentions, widths in sizes:
            parts.append(embeddings_part(shape))
            parts += [attention_part(shape.hidden_size, *attention) for attention in attentions if attention[0]]
            parts += [part for size in widths for part in all_network_parts(shape.hidden_size, size)]
        self._complete(parts)

    def embeddings(self, shape: Shape) -> float:
        """Milliseconds of the embeddings.

        Raises:
            InputError: as [`networks`].
        """
        return sum(self._times([embeddings_part(shape)]))

    def attention(self, hidden_size: int, num_heads: int, head_dim: int) -> float:
        """Milliseconds of the attention of one layer.

        Raises:
            InputError: as [`networks`].
        """
        return sum(self._times([attention_part(hidden_size, num_heads, head_dim)]))

    def networks(self, hidden_size: int, layer: LayerChoice) -> float:
        """Milliseconds of the feed-forward networks of one layer.

        Raises:
            InputError: if a part must be measured, but this is not the table's machine, or the device is not there.
        """
        return layer.stack * sum(self._times(network_parts(layer.expression, hidden_size, layer.intermediate_size)))

    def _times(self, parts: Sequence[str]) -> list[float]:
        """Milliseconds of some parts."""
        try:
            return [self.milliseconds[part] for part in parts]
        except KeyError:
            self._complete(parts)
            return [self.milliseconds[part] for part in parts]

    def _complete(self, parts: Iterable[str]) -> None:
        """Measures and stores the parts that neither this table nor its file has."""
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
