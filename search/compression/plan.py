"""What a compression will make: which architectures, and how long each is trained."""

import json
import math
import statistics
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.modeling_efficientbert import EfficientBertModel
from efficientbert.search.compression.arguments import CompressArguments
from efficientbert.search.costs.arguments import BenchmarkArguments
from efficientbert.search.costs.budget import Budget
from efficientbert.search.costs.comparison import measure_times, run_in
from efficientbert.search.costs.cost import Parameters
from efficientbert.search.costs.latency import Latency, LatencySettings, measure_config_latency
from efficientbert.search.costs.timing import torch_threads
from efficientbert.search.known.choice import choose
from efficientbert.search.known.surrogate import Surrogate, TeacherSizes
from efficientbert.search.space.architecture import Architecture
from efficientbert.search.space.expressions import GATED, PLAIN
from efficientbert.search.space.open_space import open_choices
from efficientbert.search.space.space import SearchSpace
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.student import fit_config
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.files.writing import write_json


PLAN, LATENCIES = "plan.json", "latency.json"
JOBS = "jobs"  # folder of what is made on the way
BYTES = 4  # of a weight in float32
SHARES = {"half": 1 / 2, "quarter": 1 / 4, "tenth": 1 / 10}  # of the teacher's time, where no goal is given
SLACK = 0.8  # of a goal that an architecture uses, if it can
TRIALS = 4  # choices before the best of them is taken
ROUNDS = 20  # in which a chosen model is timed
BATCH_ROUNDS = 5  # in which it is timed on a batch
STEPS = 1000  # on text, where no hours are given
BATCH_SIZE = 16  # sequences of a step on text
TRAINING = 3  # a step on a text costs so many forwards of what is trained
OF_HOURS = 0.9  # of the hours that is planned; measuring and scoring take the rest
OF_DATA = 0.5  # of the planned time at most that goes to the passes over the data


@dataclass(frozen=True)
class PlannedModel:
    """One model that will be made.

    Attributes:
        name: Of its folder.
        architecture: As of `Architecture.to_json`.
        latency_ms: What one text takes it, with random weights.
        batched_ms: The same of one text of a batch.
        quality: What the surrogate expects, see `Surrogate`.
        steps: On text.
        epochs: Over the data; 0 where there is none.
    """

    name: str
    architecture: dict[str, Any]
    latency_ms: float
    batched_ms: float
    quality: float
    steps: int
    epochs: float

    def config(self, base: EfficientBertConfig) -> EfficientBertConfig:
        """Its configuration; what it does not decide is that of `base`."""
        return Architecture.from_json(self.architecture).to_config(base)

    def describe(self, base: EfficientBertConfig) -> str:
        """What will be made, in a line."""
        architecture = Architecture.from_json(self.architecture)
        shape, megabytes = architecture.shape, BYTES * Parameters(base)(architecture) / 1e6
        return (
            f"{self.name}: {len(architecture.layers)} layers of hidden size {shape.hidden_size}, embedding size "
            f"{shape.embedding_size}, {len(architecture.attentive)} with attention: {self.latency_ms:.1f} ms, "
            f"{megabytes:.3g} MB; {self.steps:,} steps on text"
            + (f", {self.epochs:.3g} passes over the data" if self.epochs else "")
        )


@dataclass(frozen=True)
class Plan:
    """All models that will be made, and what they are measured against.

    Attributes:
        teacher_batched_ms: What one text of a batch takes the teacher.
        threads: CPU threads of all times.
        models: The models, slowest first.
    """

    teacher_batched_ms: float
    threads: int
    models: tuple[PlannedModel, ...]

    def write(self, folder: Path) -> None:
        """Keeps the plan for a run that goes on."""
        write_json(folder / PLAN, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> "Plan | None":
        """The plan of a folder, if it has one."""
        if not (folder / PLAN).exists():
            return None
        found = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        return cls(**found | {"models": tuple(PlannedModel(**planned) for planned in found["models"])})


@dataclass(frozen=True)
class Goal:
    """What one model must meet.

    Attributes:
        name: Of the model's folder.
        latency: Milliseconds, or None.
        size: Megabytes of the weights, or None.
    """

    name: str
    latency: float | None
    size: float | None

    def budgets(self, floor: float) -> tuple[Budget, ...]:
        """The ranges that an architecture's costs must lie in.

        Args:
            floor: Share of the first goal that is used at least.
        """
        found = []
        if self.latency is not None:
            found.append(Budget("latency", floor * self.latency, self.latency))
        if self.size is not None:
            most = self.size * 1e6 / BYTES
            found.append(Budget("parameters", 0.0 if found else floor * most, most))
        return tuple(found)

    def __str__(self) -> str:
        """The goal in words."""
        said = [f"{self.latency:.3g} ms"] if self.latency is not None else []
        return " and ".join(said + ([f"{self.size:.3g} MB"] if self.size is not None else []))


def find_goals(args: CompressArguments, teacher_ms: float, teacher_mb: float) -> list[Goal]:
    """The goals of the arguments.

    Args:
        args: Arguments of the run.
        teacher_ms: What one text takes the teacher.
        teacher_mb: Megabytes of its weights.

    Raises:
        InputError: if the teacher meets one already.
    """
    if args.latency is None and args.size is None:
        return [Goal(name, share * teacher_ms, None) for name, share in SHARES.items()]
    for name, goal, own, unit in (
        ("latency", args.latency, teacher_ms, "ms"),
        ("size", args.size, teacher_mb, "MB"),
    ):
        if goal is not None and goal >= own:
            raise InputError(f"{name}: the teacher itself takes {own:.3g} {unit} here, no more than {goal:g}")
    return [Goal("model", args.latency, args.size)]


def make_space(teacher: Teacher, args: CompressArguments, threads: int, folder: Path) -> SearchSpace:
    """The open space of a teacher without layers that have no attention, with its costs; what lacks is measured.

    Layers without attention come out ahead under the teacher of the known architectures, and behind under another and
    at tasks on pairs of texts; see `docs/compress.md`.

    Args:
        teacher: The teacher.
        args: Arguments of the run.
        threads: CPU threads.
        folder: Where the table of latencies is kept.
    """
    base = fit_config(EfficientBertConfig(), teacher)
    latency = Latency(base, folder / LATENCIES, LatencySettings(1, args.max_length, threads=threads))
    choices = open_choices(teacher.hidden_size, teacher.num_layers, teacher.num_heads)
    choices = replace(choices, head_counts=tuple(count for count in choices.head_counts if count))
    space = SearchSpace(base, choices, costs={"latency": latency, "parameters": Parameters(base)})
    latency.prepare(replace(space, expressions=(GATED, PLAIN)).parts())  # which are all that is chosen from
    return space


def plan_models(
    space: SearchSpace,
    goals: Sequence[Goal],
    teacher: Teacher,
    args: CompressArguments,
    teacher_ms: float,
    texts: float,
) -> list[PlannedModel]:
    """What is made for every goal that can be reached.

    Args:
        space: The open space of the teacher.
        goals: The goals.
        teacher: The teacher.
        args: Arguments of the run.
        teacher_ms: What one text of a batch takes the teacher.
        texts: As of `plan_lengths`.

    Raises:
        InputError: if no goal can be reached.
    """
    sizes = TeacherSizes(teacher.hidden_size, teacher.num_layers, teacher.num_heads)
    found, faults = [], []
    for goal in goals:
        try:
            found.append((goal, *find_architecture(space, goal, sizes, args)))
        except InputError as error:
            faults.append(error)
    for fault in faults:
        if not found:
            raise fault
        print(f"left out: {fault}")
    latency = space.costs["latency"]
    assert isinstance(latency, Latency)
    configs = [architecture.to_config(space.base) for _, architecture, *_ in found]
    settings = replace(latency.settings, batch_size=BATCH_SIZE)
    batched = [time / BATCH_SIZE for time in measure_config_latency(configs, settings, BATCH_ROUNDS)]
    return [
        PlannedModel(goal.name, architecture.to_json(), milliseconds, in_batch, quality, *length)
        for (goal, architecture, quality, milliseconds), in_batch, length in zip(
            found, batched, plan_lengths(args, teacher_ms, batched, texts)
        )
    ]


def find_architecture(
    space: SearchSpace, goal: Goal, teacher: TeacherSizes, args: CompressArguments
) -> tuple[Architecture, float, float]:
    """The best architecture for a goal, the quality that is expected of it, and its milliseconds.

    The table of parts is of PyTorch and some percent off, and the best is at its edge: so the model is built and timed
    in its runtime. Where it misses the goal, another one is chosen by as much above or below.

    Args:
        space: The open space of the teacher.
        goal: What the model must meet.
        teacher: The teacher's sizes.
        args: Arguments of the run.

    Raises:
        InputError: if the goal cannot be reached.
    """
    latency, fastest = space.costs["latency"], space.least("latency")
    assert isinstance(latency, Latency)
    if goal.latency is not None and args.runtime is None and goal.latency < fastest:
        raise InputError(
            f"latency: {goal.latency:.3g} ms is out of reach; the fastest in the space takes {fastest:.1f} ms here"
        )
    least = space.least("parameters") * BYTES / 1e6
    if goal.size is not None and goal.size < least:
        raise InputError(f"size: {goal.size:g} MB is out of reach; the smallest in the space takes {least:.3g} MB")
    asked = goal if goal.latency is None else replace(goal, latency=max(fastest, goal.latency))
    found: list[tuple[Architecture, float, float]] = []
    for _ in range(TRIALS):
        architecture, quality = choose_for(space, asked, teacher, args.seed)
        milliseconds = time_whole(architecture.to_config(space.base), latency.settings, args.runtime)
        found.append((architecture, quality, milliseconds))
        if goal.latency is None or SLACK * goal.latency <= milliseconds <= goal.latency:
            return found[-1]
        if architecture in [one[0] for one in found[:-1]]:
            break  # the space has nothing nearer
        asked = replace(asked, latency=max(fastest, latency(architecture) * goal.latency / milliseconds))
    assert goal.latency is not None
    fitting = [one for one in found if one[2] <= goal.latency]
    if fitting:
        return max(fitting, key=lambda one: one[1])
    nearest = min(found, key=lambda one: one[2])
    if args.runtime is not None:
        raise InputError(
            f"latency: {goal.latency:.3g} ms is out of reach in {args.runtime}; the fastest that was found takes "
            f"{nearest[2]:.3g} ms here"
        )
    print(f"note: what the table of parts promises {goal.latency:.3g} ms for takes {nearest[2]:.3g} ms as a whole")
    return nearest


def time_whole(config: EfficientBertConfig, settings: LatencySettings, runtime: str | None) -> float:
    """Milliseconds of a whole encoder with random weights.

    Args:
        config: Of the encoder.
        settings: What is timed.
        runtime: What runs it; None for PyTorch.
    """
    if runtime is None:
        return measure_config_latency([config], settings, ROUNDS)[0]
    timed = BenchmarkArguments(["model"], [1], settings.sequence_length, settings.threads, rounds=ROUNDS)
    with torch_threads(settings.threads), TemporaryDirectory() as folder:
        call = run_in(runtime, "model", EfficientBertModel(config).eval(), settings.threads, Path(folder, "graph"))
        (times,) = measure_times([call], config.vocab_size, timed, "cpu")
    return statistics.median(times[1])


def choose_for(space: SearchSpace, goal: Goal, teacher: TeacherSizes, seed: int) -> tuple[Architecture, float]:
    """The best architecture for a goal: one that uses most of it, or else any below it.

    Raises:
        InputError: if there is none.
    """
    for floor in (SLACK, 0.0):
        with suppress(InputError):
            return choose(space, goal.budgets(floor), Surrogate.shipped(), teacher, seed)
    raise InputError(f"latency, size: nothing in the space takes no more than {goal}")


def plan_lengths(
    args: CompressArguments, teacher_ms: float, models_ms: Sequence[float], texts: float
) -> list[tuple[int, float]]:
    """Steps on text and epochs over the data of every model, within the hours.

    Args:
        args: Arguments of the run.
        teacher_ms: What one text of a batch takes the teacher.
        models_ms: What one takes every model.
        texts: How many texts of full length one pass over the data is worth; 0 without any.
    """
    found = []
    for milliseconds in models_ms:
        step, epoch = cost_of_step(teacher_ms, milliseconds), cost_of_epoch(teacher_ms, milliseconds, texts)
        steps, epochs = STEPS, args.num_epochs if texts else 0.0
        if args.hours is not None:
            seconds = OF_HOURS * 3600 * args.hours / len(models_ms)
            epochs = min(epochs, OF_DATA * seconds / epoch) if texts else 0.0
            steps = max(1, math.floor((seconds - epochs * epoch) / step))
        found.append((steps, epochs))
    return found


def cost_of_step(teacher_ms: float, milliseconds: float) -> float:
    """About how many seconds a step on text takes: a forward of the teacher, forward and backward of the student."""
    return BATCH_SIZE * (teacher_ms + TRAINING * milliseconds) / 1000


def cost_of_epoch(teacher_ms: float, milliseconds: float, texts: float) -> float:
    """About how many seconds a pass over the data takes, under the teacher and once more without it."""
    return texts * (teacher_ms + 2 * TRAINING * milliseconds) / 1000
