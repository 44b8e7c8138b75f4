"""How good every sampler is on a table of trained encoders, and what an ask and a tell cost beside 5,000 candidates.

    python benchmarks/samplers.py --table ../shared/data/nas_bench_bert/architectures.json

Regret is the best GLUE mean of the table less the best found, in points, median over seeds; intervals are percentile
bootstraps over seeds. With two objectives, error and parameters, it is the share of the table's hypervolume that is
missed; the reference point is the worst row of each. Rows are candidates through the interface of every other space: a
mutation is the nearest row not yet evaluated, by standardised encoding. References: parameters alone take the rows by
parameters, largest first; the random forest takes the row with the highest mean + standard deviation over its trees.
Costs are in the published space (six layers, hidden 540, 15 to 16 million parameters), in processor time of one core,
which other programs on the machine do not lengthen.
"""

import json
import random
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from sklearn.ensemble import RandomForestRegressor

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.search.costs.budget import Budget
from efficientbert.search.costs.cost import Parameters
from efficientbert.search.samplers import ActionSpace, Evolution, Nsga2, OptunaSampler, RandomSampler, Sampler
from efficientbert.search.space.sizes import Choices
from efficientbert.search.space.space import SearchSpace
from efficientbert.train.cli.command import run_command
from efficientbert.train.cli.errors import InputError
from efficientbert.train.files.tables import table
from efficientbert.train.files.writing import write_json


matplotlib.use("Agg")
from matplotlib import pyplot


OPERATIONS = ("SA", "LT", "DSC")
OPERATION_PARAMETERS = ("SDP", "WMA", "DFT", "DCT", 5, 9)
LAYERS = 4
RESAMPLES = 10_000


@dataclass(kw_only=True)
class SamplerArguments:
    """Compares samplers on a table of trained encoders, and measures their cost."""

    table: str = field(
        default="../shared/data/nas_bench_bert/architectures.json", metadata={"help": "Rows: layers and scores."}
    )
    score: str = field(default="glue", metadata={"help": "Score of the rows to be maximised."})
    evaluations: int = field(default=50, metadata={"help": "Candidates a sampler may evaluate."})
    seeds: int = field(default=100, metadata={"help": "Runs of every sampler."})
    first: int = field(default=15, metadata={"help": "First sample of all samplers."})
    interval: int = field(default=5, metadata={"help": "Refit interval of the learned action space and the forest."})
    recorded: int = field(default=5000, metadata={"help": "Candidates told before an ask and a tell are timed."})
    timed: int = field(default=200, metadata={"help": "Asks and tells that are timed."})
    output_json: str | None = field(
        default=None, metadata={"help": "File for the figures; the tables (.md) and the plot (.png) go beside it."}
    )


def encoder_parameters(row: dict[str, Any]) -> int:
    """Parameters of a row's layers, without embeddings: the table does not say, so this is a count by its own formula.

    Every operation has four hidden x hidden linears, weighted multiplication one more matrix, a convolution its
    kernels; then come `num_feed_forward` networks hidden -> feed-forward -> hidden; two norms a layer.
    """
    hidden = row["hidden_size"]
    total = 0
    for layer in row["layers"]:
        inner, kind = layer["feed_forward_dimension"], layer["operation_parameter"]
        total += 4 * (hidden + 1) * hidden + 4 * hidden
        total += hidden * hidden if kind == "WMA" else hidden * kind if isinstance(kind, int) else 0
        total += layer["num_feed_forward"] * (2 * hidden * inner + hidden + inner)
    return total


def encode_row(row: dict[str, Any], with_parameters: bool = True) -> np.ndarray:
    """Features of a row: sizes, then every layer's operation (one-hot), heads and feed-forward networks, zeros where
    there is no layer; then, by default, the parameters."""
    features = [row["hidden_size"], len(row["layers"])]
    for index in range(LAYERS):
        if index >= len(row["layers"]):
            features += [0] * (len(OPERATIONS) + len(OPERATION_PARAMETERS) + 3)
            continue
        layer = row["layers"][index]
        features += [layer["operation_type"] == name for name in OPERATIONS]
        features += [layer["operation_parameter"] == name for name in OPERATION_PARAMETERS]
        features += [layer["num_operation_heads"], layer["feed_forward_dimension"], layer["num_feed_forward"]]
    return np.array(features + [encoder_parameters(row)] * with_parameters, dtype=float)


class TabularSpace:
    """Rows of a table as a space: candidates are row numbers.

    Args:
        features: `(rows, features)`.

    Attributes:
        evaluated: Rows that neither a mutation nor a crossover yields again; whoever evaluates adds them.
    """

    def __init__(self, features: np.ndarray) -> None:
        self.features = features
        spread = features.std(0)
        self._scaled = features / np.where(spread > 0, spread, 1)
        self.evaluated: set[int] = set()

    def sample(self, rng: random.Random) -> int:
        """Any row."""
        return rng.randrange(len(self.features))

    def mutate(self, candidate: int, rng: random.Random) -> int:
        """The nearest other row that is not evaluated."""
        return self._nearest(self._scaled[candidate], {candidate}, rng)

    def crossover(self, one: int, other: int, rng: random.Random) -> int:
        """The row nearest to the mix of two that is not evaluated."""
        return self._nearest((self._scaled[one] + self._scaled[other]) / 2, {one, other}, rng)

    def encode(self, candidate: int) -> np.ndarray:
        """The row's features."""
        return self.features[candidate]

    def key(self, candidate: int) -> int:
        """Every row is a function of its own."""
        return candidate

    def _nearest(self, point: np.ndarray, without: set[int], rng: random.Random) -> int:
        distances = np.square(self._scaled - point).sum(1)
        distances[list(self.evaluated | without)] = np.inf
        return int(rng.choice(np.flatnonzero(distances == distances.min())))


class RandomForest(Sampler[int]):
    """The reference: mean + standard deviation over the trees of a random forest, over all rows."""

    def __init__(self, space: TabularSpace, seed: int, first: int, interval: int) -> None:
        super().__init__(space, seed)
        self.first = first
        self.interval = interval
        self._rows: list[int] = []
        self._losses: list[float] = []
        self._order: np.ndarray = np.array([], dtype=int)

    def _learn(self, candidate: int, losses: tuple[float, ...] | None) -> None:
        self._rows.append(candidate)
        self._losses.append(losses[0])

    def _propose(self, rng: random.Random) -> Iterator[int]:
        while self._tells < self.first:
            yield self.space.sample(rng)
        if (self._tells - self.first) % self.interval == 0:
            forest = RandomForestRegressor(50, random_state=self.seed).fit(
                self.space.features[self._rows], -np.array(self._losses)
            )
            guesses = np.stack([tree.predict(self.space.features) for tree in forest.estimators_])
            self._order = np.argsort(-(guesses.mean(0) + guesses.std(0)), kind="stable")
        yield from (int(row) for row in self._order if row not in self.space.evaluated)


class Ranked(Sampler[int]):
    """The reference without learning: rows in a given order."""

    def __init__(self, space: TabularSpace, seed: int, order: Sequence[int]) -> None:
        super().__init__(space, seed)
        self.order = order

    def _learn(self, candidate: int, losses: tuple[float, ...] | None) -> None:
        pass

    def _propose(self, rng: random.Random) -> Iterator[int]:
        return iter(self.order[self._tells :])


def regret_curve(
    make: Callable[..., Sampler[int]], features: np.ndarray, scores: np.ndarray, evaluations: int, seed: int
) -> np.ndarray:
    """`(evaluations,)`: the best score of the table less the best found after each evaluation."""
    space = TabularSpace(features)
    sampler = make(space, seed)
    found = []
    for _ in range(evaluations):
        row = sampler.ask()
        space.evaluated.add(row)
        sampler.tell(row, (-scores[row],))
        found.append(scores[row])
    return scores.max() - np.maximum.accumulate(found)


def hypervolume(losses: np.ndarray, worst: np.ndarray) -> float:
    """Area between `(candidates, 2)` losses and a point that is worse than all: larger is better."""
    area, lowest = 0.0, worst[1]
    for first, second in sorted(losses.tolist()):
        if second < lowest:
            area += (worst[0] - first) * (lowest - second)
            lowest = second
    return area


def missed_hypervolume(
    make: Callable[..., Sampler[int]], features: np.ndarray, losses: np.ndarray, evaluations: int, seed: int
) -> np.ndarray:
    """`(evaluations,)`: the share of the hypervolume of the whole table that is missed after each evaluation."""
    space = TabularSpace(features)
    sampler = make(space, seed)
    worst = losses.max(0)
    areas = []
    for _ in range(evaluations):
        row = sampler.ask()
        space.evaluated.add(row)
        sampler.tell(row, tuple(losses[row]))
        areas.append(hypervolume(losses[sorted(space.evaluated)], worst))
    return 1 - np.array(areas) / hypervolume(losses, worst)


def bootstrap(values: np.ndarray) -> tuple[float, float]:
    """95% percentile interval of the median of `(seeds,)` values."""
    rng = np.random.default_rng(0)
    medians = np.median(values[rng.integers(len(values), size=(RESAMPLES, len(values)))], axis=1)
    return tuple(np.percentile(medians, [2.5, 97.5]).tolist())


def samplers(args: SamplerArguments) -> dict[str, Callable[..., Sampler[Any]]]:
    """Samplers of the package by name, their first sample scaled to the budget."""
    growth = [size * args.first // 80 for size in (400, 800, 1600, 3200)]
    return {
        "random": RandomSampler,
        "evolution": partial(Evolution, initial=args.first),
        "NSGA-II": partial(Nsga2, initial=args.first, population=args.first),
        "learned action space": partial(ActionSpace, first=args.first, interval=args.interval, growth=growth),
        "Optuna TPE": OptunaSampler,
    }


def read_rows(args: SamplerArguments) -> list[dict[str, Any]]:
    """The table.

    Raises:
        InputError: if it is no such table, or has fewer rows than evaluations.
    """
    try:
        rows = json.loads(Path(args.table).read_text(encoding="utf-8"))
        for row in rows:
            float(row["scores"][args.score])
            encode_row(row)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"table {args.table}: must be a JSON list of rows with layers and the score {args.score!r}: {error!r}"
        ) from None
    if not 1 < args.evaluations <= len(rows):
        raise InputError(f"evaluations: must be 2 to {len(rows)}, the rows of the table, not {args.evaluations}")
    return rows


def regrets(
    args: SamplerArguments, rows: list[dict[str, Any]], make: Callable[..., Sampler[int]], with_parameters: bool
) -> np.ndarray:
    """`(seeds, evaluations)`: regrets of one sampler."""
    features = np.stack([encode_row(row, with_parameters) for row in rows])
    scores = np.array([row["scores"][args.score] for row in rows])
    return np.stack([regret_curve(make, features, scores, args.evaluations, seed) for seed in range(args.seeds)])


def two_objectives(
    args: SamplerArguments, rows: list[dict[str, Any]], make: Callable[..., Sampler[int]]
) -> np.ndarray:
    """`(seeds, evaluations)`: shares of the hypervolume that one sampler misses, errors and parameters minimised."""
    features = np.stack([encode_row(row) for row in rows])
    losses = np.array([(-row["scores"][args.score], encoder_parameters(row)) for row in rows])
    return np.stack([missed_hypervolume(make, features, losses, args.evaluations, seed) for seed in range(args.seeds)])


def summarise(curves: np.ndarray) -> dict[str, Any]:
    """Figures of `(seeds, evaluations)` regrets."""
    final = curves[:, -1]
    return {
        "median": float(np.median(final)),
        "interval": bootstrap(final),
        "mean": float(final.mean()),
        "median after half": float(np.median(curves[:, curves.shape[1] // 2 - 1])),
        "best found": float(np.mean(final == 0)),
        "curve": np.median(curves, axis=0).tolist(),
        "final": final.tolist(),
    }


def contestants(
    args: SamplerArguments, rows: list[dict[str, Any]]
) -> dict[str, tuple[Callable[..., Sampler[Any]], bool]]:
    """Samplers and references by name, each with whether the parameters are among the features."""
    forest = partial(RandomForest, first=args.first, interval=args.interval)
    order = np.argsort([-encoder_parameters(row) for row in rows], kind="stable").tolist()
    found = {name: (make, True) for name, make in samplers(args).items()}
    found["parameters alone (reference)"] = (partial(Ranked, order=order), True)
    found["random-forest UCB (reference)"] = (forest, True)
    found["learned action space, parameters no feature"] = (found["learned action space"][0], False)
    found["random-forest UCB (reference), parameters no feature"] = (forest, False)
    return found


def measure_cost(args: SamplerArguments) -> dict[str, dict[str, float]]:
    """Processor milliseconds of an ask and a tell beside many recorded candidates, by sampler."""
    base = EfficientBertConfig.from_preset("efficientbert")
    space = SearchSpace(base, Choices(), (Budget("parameters", 15e6, 16e6),), {"parameters": Parameters(base)})
    rng = random.Random(0)
    candidates = [space.sample(rng) for _ in range(args.recorded)]
    makes = {
        "random": RandomSampler,
        "evolution": Evolution,
        "NSGA-II": Nsga2,
        "learned action space": ActionSpace,
        "Optuna TPE": OptunaSampler,
    }
    found = {}
    for name, make in makes.items():
        sampler = make(space, 0)
        times = []
        timed = args.timed if name != "Optuna TPE" else max(2, args.timed // 20)  # seconds each
        for number in range(args.recorded + timed):
            start = time.process_time()
            candidate = candidates[number] if number < args.recorded else sampler.ask()
            # Two objectives that pull apart, as far as a sampler takes two: a made-up loss, and the size.
            stacks = sum(layer.stack for layer in candidate.layers)
            widths = sum(layer.intermediate_size for layer in candidate.layers)
            sampler.tell(candidate, (abs(stacks - 12) + rng.random(), widths))
            times.append(1000 * (time.process_time() - start))
        asked = times[args.recorded :]
        found[name] = {
            "tell": statistics.median(times[: args.recorded]),
            "first": asked[0],
            "median": statistics.median(asked[1:]),
            "mean": statistics.fmean(asked),
        }
        print(f"{name}: {found[name]['median']:.1f} ms", file=sys.stderr)
    return found


def plot(found: dict[str, dict[str, Any]], path: Path) -> None:
    """Draws the median regret of every sampler over evaluations."""
    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for name, figures in found.items():
        style = ":" if "no feature" in name else "--" if "reference" in name else "-"
        axes.plot(range(1, len(figures["curve"]) + 1), figures["curve"], style, label=name)
    axes.set(xlabel="evaluations", ylabel="median regret")
    axes.set_yscale("symlog", linthresh=0.1)
    axes.set_ylim(0, None)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def lines_of(found: dict[str, dict[str, Any]]) -> list[tuple[str, ...]]:
    """Lines of a table of regrets."""
    lines = []
    for name, figures in found.items():
        low, high = figures["interval"]
        numbers = [f"{figures[key]:.3f}" for key in ("median", "mean", "median after half")]
        lines.append((name, numbers[0], f"{low:.3f} to {high:.3f}", *numbers[1:], f"{figures['best found']:.0%}"))
    return lines


def report(
    args: SamplerArguments,
    found: dict[str, dict[str, Any]],
    fronts: dict[str, dict[str, Any]],
    costs: dict[str, dict[str, float]],
) -> str:
    """All tables as Markdown."""
    half = args.evaluations // 2
    header = ("sampler", "median regret", "95% interval", "mean", f"median after {half}", "best row found")
    front_header = ("sampler", "median share missed", *header[2:5], "whole front found")
    cost_header = ("sampler", "tell", "first ask + tell, with a refit", "median ask + tell", "mean ask + tell")
    cost_lines = [(name, *(f"{value:.2f}" for value in cost.values())) for name, cost in costs.items()]
    return (
        f"`python {shlex.join(sys.argv)}`\n\n"
        f"Regret in points of {args.score} after {args.evaluations} evaluations, over {args.seeds} seeds:\n\n"
        f"{table(header, lines_of(found))}\n\n"
        f"Two objectives, {args.score} and parameters, likewise:\n\n"
        f"{table(front_header, lines_of(fronts))}\n\n"
        f"Processor milliseconds beside {args.recorded:,} recorded candidates of the published space:\n\n"
        f"{table(cost_header, cost_lines)}\n"
    )


def main(args: SamplerArguments) -> None:
    """Runs all and prints the tables."""
    rows = read_rows(args)
    found = {}
    for name, (make, with_parameters) in contestants(args, rows).items():
        found[name] = summarise(regrets(args, rows, make, with_parameters))
        print(f"{name}: {found[name]['median']:.3f} points", file=sys.stderr)
    fronts = {}
    for name in ("random", "NSGA-II", "learned action space"):
        fronts[name] = summarise(two_objectives(args, rows, samplers(args)[name]))
        print(f"{name}, two objectives: {fronts[name]['median']:.3f} missed", file=sys.stderr)
    costs = measure_cost(args)
    text = report(args, found, fronts, costs)
    print(text)
    if args.output_json:
        path = Path(args.output_json)
        write_json(path, {"regret": found, "two objectives": fronts, "cost": costs})
        path.with_suffix(".md").write_text(text, encoding="utf-8")
        plot(found, path.with_suffix(".png"))


if __name__ == "__main__":
    run_command(main, SamplerArguments, "samplers")
