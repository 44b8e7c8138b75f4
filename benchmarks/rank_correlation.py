"""Whether scores rank architectures as training them on their own does, at equal parameters, and what they cost.

    python benchmarks/rank_correlation.py draw --space paper --teacher TEACHER --corpus CORPUS --work_dir WORK
    python benchmarks/stand_alone.py --architectures WORK/architectures.json --teacher TEACHER --corpus CORPUS \
        --work_dir WORK --seeds 0 1
    python benchmarks/rank_correlation.py score --space paper --teacher TEACHER --corpus CORPUS --glue GLUE \
        --work_dir WORK
    python benchmarks/rank_correlation.py report --space paper --work_dir WORK --output benchmarks/rank-paper

Draws architectures of equal parameters, in the paper's space or with depth, hidden size and embedding size free, and
beside them the published one, the plain shape and the gated plain shape. Scores are those of `efficientbert search`;
the supernet is that of its third stage. Every part goes on where it was interrupted.
"""

import json
import math
import random
import statistics
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from scipy.stats import kendalltau, spearmanr
from stand_alone import read_architectures, read_rows
from tqdm.auto import tqdm

from efficientbert.search import search
from efficientbert.search.arguments import SearchArguments
from efficientbert.search.costs.budget import Budget
from efficientbert.search.costs.cost import Parameters
from efficientbert.search.preparation import make_space
from efficientbert.search.scores.held_out_text import HeldOutText
from efficientbert.search.scores.probe import TaskProbe
from efficientbert.search.scores.remembered_teacher import RememberedTeacher
from efficientbert.search.scores.score import ParameterCount, ReportRung, Score, objectives
from efficientbert.search.scores.short_training import GeneralTraining, ShortTraining
from efficientbert.search.scores.wpca import RandomEncoders, WPca
from efficientbert.search.space.architecture import Architecture
from efficientbert.search.space.expressions import GATED, PLAIN
from efficientbert.search.space.space import SearchSpace
from efficientbert.search.supernet.supernet import Supernet
from efficientbert.search.supernet.weights import load_weights
from efficientbert.train.cli.command import run_command
from efficientbert.train.distillation.held_out import capture_held_out, score_student
from efficientbert.train.distillation.objective import GeneralDistillation
from efficientbert.train.distillation.scales import teacher_scales
from efficientbert.train.distillation.student import choose_attention
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.engine.accelerator import make_accelerator
from efficientbert.train.files.writing import write_json
from efficientbert.train.text.preparation import prepare_text


matplotlib.use("Agg")
from matplotlib import pyplot


TOLERANCE = 0.005  # of the published tiny model's parameters
SHAPES = {"depths": [4, 6, 8], "hidden_sizes": [300, 360, 420], "embedding_sizes": [96, 128, 160], "head_dims": [30]}
OUTCOMES = {"loss": "loss a state", "distance": "1 - cosine to the teacher"}
RESAMPLES = 10_000
COLUMNS = 4  # of the plot
WAYPOINTS = (20, 40, 50, 60)  # steps after which a training is looked at


@dataclass(kw_only=True)
class RankArguments:
    """Ranks architectures by scores and by stand-alone training."""

    space: str = field(metadata={"help": "'paper' or 'shapes'."})
    work_dir: str = field(metadata={"help": "Folder of architectures, results and the supernet."})
    teacher: str | None = field(default=None, metadata={"help": "Hub id or folder."})
    corpus: str | None = field(default=None, metadata={"help": "Corpus, as of `efficientbert distill`."})
    glue: str | None = field(default=None, metadata={"help": "Hub id or folder of GLUE, for the probe on SST-2."})
    count: int = field(default=24, metadata={"help": "Architectures to draw."})
    warmup_steps: int = field(default=100, metadata={"help": "Steps of the whole supernet."})
    sampled_steps: int = field(default=300, metadata={"help": "Steps of sampled architectures."})
    short_steps: int = field(default=20, metadata={"help": "Steps of a short training."})
    output: str = field(default="rank", metadata={"help": "Path of the report's files, without their endings."})


def search_arguments(args: RankArguments) -> SearchArguments:
    """The search whose supernet and scores are used: any one candidate of it, by weight sharing alone."""
    shapes = SHAPES if args.space == "shapes" else {}
    return SearchArguments(
        teacher=args.teacher,
        corpus=args.corpus,
        corpus_split="train[:1500]",
        student="efficientbert-tiny",
        stages=[3],
        num_candidates=1,
        warmup_steps=args.warmup_steps,
        sampled_steps=args.sampled_steps,
        mixed_precision="bf16",
        checkpoint_steps=50,
        tasks=["sst2"],
        task_data=args.glue,
        task_split="train[:3000]",
        supernet_scores=["probe"],
        output_dir=str(Path(args.work_dir) / "search"),
        **shapes,
    )


def equal_space(args: RankArguments) -> SearchSpace:
    """The space, within so few parameters of the published tiny model's that all count as equal."""
    space = make_space(search_arguments(args), Teacher.load(args.teacher))
    parameters = Parameters(space.base)(Architecture.from_config(space.base))
    budget = Budget("parameters", (1 - TOLERANCE) * parameters, (1 + TOLERANCE) * parameters)
    return replace(space, budgets=(budget,))


def uniform(space: SearchSpace, expression: str) -> Architecture:
    """One network of an expression in every layer of the base's shape, as near the parameters as a width comes."""
    published = Architecture.from_config(space.base)
    wanted, cost = space.costs["parameters"](published), space.costs["parameters"]
    candidates = (
        replace(
            published,
            layers=tuple(
                replace(layer, expression=expression, stack=1, intermediate_size=width) for layer in published.layers
            ),
        )
        for width in range(1, 2000)
    )
    return min(candidates, key=lambda architecture: abs(cost(architecture) - wanted))


def draw(args: RankArguments) -> None:
    """Writes the architectures."""
    path = Path(args.work_dir) / "architectures.json"
    if path.exists():
        return
    space = equal_space(args)
    found = [Architecture.from_config(space.base), uniform(space, PLAIN), uniform(space, GATED)]
    rng = random.Random(f"rank {args.space}")
    keys = {space.key(architecture) for architecture in found}
    while len(found) < args.count + 3:
        architecture = space.sample(rng)
        if space.key(architecture) not in keys:
            keys.add(space.key(architecture))
            found.append(architecture)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"space": args.space, "architectures": [architecture.to_json() for architecture in found]})


@dataclass(frozen=True)
class EveryLoss(HeldOutText):
    """All losses of a slice on held-out text, means over states or layers: what is trained, not what counts."""

    def __call__(self, architecture: Architecture, report: ReportRung | None = None) -> float:
        """The loss; see `Score`."""
        figures = score_student(self.extract(architecture), self.objective(architecture), self.held_out)
        return outcomes(figures, len(architecture.layers))["loss"]


def score(args: RankArguments) -> None:
    """Trains the supernet and rates every architecture; each rating is a line of `scores.jsonl`."""
    work = Path(args.work_dir)
    searched = search_arguments(args)
    search.main(searched)
    accelerator = make_accelerator(searched, work)
    device = accelerator.device
    teacher = Teacher.load(args.teacher, device)
    space = make_space(searched, teacher)
    text = prepare_text(searched, teacher, searched.batch_size, searched.seed)
    found = read_architectures(work / "architectures.json")
    scales = teacher_scales(teacher, text, work / "search", device)
    objective = objectives(searched, space.base, teacher, scales)
    # Short trainings read the same batches: the teacher reads each once, for all.
    recipes = [objective(architecture).recipe for architecture in found]
    students = [(architecture.to_config(space.base), recipe) for architecture, recipe in zip(found, recipes)]
    held_out = capture_held_out(text, teacher, device, students)
    remembered = RememberedTeacher(teacher, recipes, room=math.inf)
    training = GeneralTraining(
        lambda architecture: GeneralDistillation(remembered, scales, objective(architecture).recipe),
        text,
        held_out,
        searched,
        args.short_steps,
    )
    task, rows = search.load_probe(searched, teacher, accelerator)

    def supernet(stage: str) -> Supernet:
        found = Supernet(space.base, space.largest(), teacher.hidden_size).to(device)
        choose_attention(found.whole.encoder)
        load_weights(found, work / "search" / stage / "supernet.safetensors")
        return found

    warm, trained = supernet("warm-up"), supernet("stage-3")
    parameters, sample = space.costs["parameters"], text.sample_batch(device)
    scores: dict[str, Score] = {
        "parameters": ParameterCount(parameters),
        "W-PCA": WPca(RandomEncoders(space.base, 0, device), parameters, sample),
        f"short training of {args.short_steps} steps, text": ShortTraining(warm.extract, accelerator, training, None),
        "slice of the warm supernet, text": HeldOutText(warm.extract, objective, held_out),
        "slice of the trained supernet, text": HeldOutText(trained.extract, objective, held_out),
        "slice of the trained supernet, text, mean of all losses": EveryLoss(trained.extract, objective, held_out),
        "slice of the trained supernet, SST-2 probe": TaskProbe(trained.extract, task, rows),
    }
    path = work / "scores.jsonl"
    done = {(row["number"], row["score"]) for row in read_rows(path)}
    with path.open("a", encoding="utf-8") as file:
        for number, architecture in enumerate(tqdm(found, desc="Scoring", unit="architecture")):
            for name, rate in scores.items():
                if (number, name) not in done:
                    started = time.perf_counter()
                    try:
                        loss = rate(architecture)
                    except ValueError:
                        continue  # wider than the supernet, which has no such slice
                    row = {"number": number, "score": name, "loss": loss, "seconds": time.perf_counter() - started}
                    file.write(json.dumps(row) + "\n")
                    file.flush()


def outcomes(row: dict[str, Any], states: int) -> dict[str, float]:
    """What a stand-alone training came to, comparable over depths."""
    loss = row["hidden_states_loss"] / (states + 1) + 0.3 * row["attention_scores_loss"] / states
    return {"loss": loss, "distance": 1 - row["cosine"]}


def interval(figure: Callable[[np.ndarray], float], count: int) -> list[float]:
    """95% bootstrap interval of a figure over the architectures."""
    rng = np.random.default_rng(0)
    drawn = [figure(rng.integers(count, size=count)) for _ in range(RESAMPLES)]
    return [float(bound) for bound in np.nanquantile(drawn, (0.025, 0.975))]


def correlate(one: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    """Kendall's tau with its interval, and Spearman's rho."""
    return {
        "tau": float(kendalltau(one, other).statistic),
        "interval": interval(lambda rows: kendalltau(one[rows], other[rows]).statistic, len(one)),
        "spearman": float(spearmanr(one, other).statistic),
    }


def cut_short(rows: list[dict[str, Any]], outcome: str, states: int) -> dict[str, dict[str, Any]]:
    """How well training losses on the way rank what the same trainings come to, with the last seed that has them."""
    rows = [row for row in rows if "curve" in row]
    if not rows:
        return {}
    rows = [row for row in rows if row["seed"] == rows[-1]["seed"]]
    ends = np.array([outcomes(row, states)[outcome] for row in rows])
    seconds = statistics.median(row["seconds"] for row in rows)
    last = max(map(int, rows[0]["curve"]))
    return {
        f"training loss of the same training after {step} of {last} steps": correlate(
            np.array([row["curve"][str(step)] for row in rows]), ends
        )
        | {"seconds": seconds * step / last}
        for step in WAYPOINTS
    }


def report(args: RankArguments) -> None:
    """Writes the table, its figures and the plot."""
    work = Path(args.work_dir)
    found = read_architectures(work / "architectures.json")
    trained: dict[int, dict[int, dict[str, float]]] = {}
    for row in read_rows(work / "stand_alone.jsonl"):
        trained.setdefault(row["seed"], {})[row["number"]] = outcomes(row, len(found[row["number"]].layers))
    seeds = sorted(trained)
    both = sorted(set.intersection(*(set(rows) for rows in trained.values())))
    first = sorted(trained[seeds[0]])
    result: dict[str, Any] = {
        "space": args.space,
        "short steps": args.short_steps,
        "architectures": len(first),
        "seeds": seeds,
        "outcomes": {},
    }
    scores: dict[str, dict[int, dict[str, Any]]] = {}
    for row in read_rows(work / "scores.jsonl"):
        scores.setdefault(row["score"], {})[row["number"]] = row
    # Losses are sums over layers: between depths they cannot be compared.
    one_depth = len({len(architecture.layers) for architecture in found}) == 1
    for outcome in OUTCOMES if one_depth else ["distance"]:
        values = np.array([trained[seeds[0]][number][outcome] for number in first])
        entry: dict[str, Any] = {
            "least": float(values.min()),
            "median": float(np.median(values)),
            "most": float(values.max()),
            "deviation over architectures": float(values.std(ddof=1)),
            "published, plain, gated": [float(value) for value in values[:3]],
            "scores": {},
        }
        if len(seeds) > 1 and len(both) > 2:
            pairs = [np.array([trained[seed][number][outcome] for number in both]) for seed in seeds[:2]]
            entry["two seeds"] = correlate(*pairs) | {"architectures": len(both)}
            # What both seeds share, such as an easier order of the rows, moves no rank.
            entry["deviation over seeds"] = float(np.std(pairs[0] - pairs[1], ddof=1) / np.sqrt(2))
        if outcome == "distance":
            name = f"mean of all losses of the same training, at its end, seed {seeds[0]}"
            losses = np.array([trained[seeds[0]][number]["loss"] for number in first])
            entry["scores"][name] = correlate(losses, values)
        if one_depth:
            entry["scores"] |= cut_short(read_rows(work / "stand_alone.jsonl"), outcome, len(found[0].layers))
        for name, rows in scores.items():
            common = [number for number in first if number in rows]
            ours = np.array([rows[number]["loss"] for number in common])
            theirs = np.array(
                [statistics.fmean(t[number][outcome] for t in trained.values() if number in t) for number in common]
            )
            entry["scores"][name] = correlate(ours, theirs) | {
                "seconds": statistics.median(rows[number]["seconds"] for number in common)
            }
        result["outcomes"][outcome] = entry
    result["training seconds"] = statistics.median(row["seconds"] for row in read_rows(work / "stand_alone.jsonl"))
    result["rows"] = {"stand_alone": read_rows(work / "stand_alone.jsonl"), "scores": read_rows(work / "scores.jsonl")}
    result["drawn"] = [architecture.to_json() for architecture in found]
    output = Path(args.output)
    write_json(output.with_suffix(".json"), result)
    output.with_suffix(".md").write_text(format_report(result), encoding="utf-8")
    plot(scores, trained, next(iter(result["outcomes"])), output.with_suffix(".png"))


def format_report(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    space, seeds = result["space"], " ".join(map(str, result["seeds"]))
    rank, shared = "python benchmarks/rank_correlation.py", "--teacher gte-small --corpus wikipedia --work_dir W"
    lines = [
        "```bash",
        f"{rank} draw --space {space} {shared}",
        f"python benchmarks/stand_alone.py --architectures W/architectures.json {shared} --seeds {seeds}",
        f"{rank} score --space {space} {shared} --glue glue --short_steps {result['short steps']}",
        f"{rank} report --space {space} --work_dir W --short_steps {result['short steps']} "
        f"--output benchmarks/rank-{space}",
        "```",
        "",
        f"{result['architectures']} architectures of equal parameters (within {TOLERANCE:.1%}), space: "
        f"{result['space']}; each distilled on its own in {result['training seconds']:.0f} s (median), seeds "
        f"{', '.join(map(str, result['seeds']))}. Correlations with 95% bootstrap intervals. What is wider than "
        "the supernet has no slice.",
    ]
    for outcome, entry in result["outcomes"].items():
        published, plain, gated = entry["published, plain, gated"]
        lines += [
            "",
            f"Outcome: {OUTCOMES[outcome]}, {entry['least']:.4f} to {entry['most']:.4f} (median "
            f"{entry['median']:.4f}); published {published:.4f}, plain {plain:.4f}, gated plain {gated:.4f}. "
            f"Standard deviation over architectures {entry['deviation over architectures']:.4f}"
            + (f", over seeds {entry['deviation over seeds']:.4f}" if "deviation over seeds" in entry else "")
            + ".",
            "",
            "| score | Kendall tau | 95% interval | Spearman | seconds |",
            "|---|---:|---|---:|---:|",
        ]
        rows = [*entry["scores"].items()]
        if "two seeds" in entry:
            ceiling = entry["two seeds"]
            rows.append((f"training with another seed ({ceiling['architectures']} architectures)", ceiling))
        for name, row in rows:
            low, high = row["interval"]
            seconds = row.get("seconds", result["training seconds"])
            lines.append(
                f"| {name} | {row['tau']:.2f} | {low:.2f} to {high:.2f} | {row['spearman']:.2f} | {seconds:.2g} |"
            )
    return "\n".join(lines) + "\n"


def plot(
    scores: dict[str, dict[int, dict[str, Any]]],
    trained: dict[int, dict[int, dict[str, float]]],
    outcome: str,
    path: Path,
) -> None:
    """Draws every score, and the outcome with another seed, over the first seed's outcome."""
    (_, first), *others = sorted(trained.items())
    drawn = {name: {number: row["loss"] for number, row in rows.items()} for name, rows in scores.items()}
    for seed, rows in others[:1]:
        drawn[f"trained alone with seed {seed}"] = {number: row[outcome] for number, row in rows.items()}
    rows = math.ceil(len(drawn) / COLUMNS)
    figure, axes = pyplot.subplots(rows, COLUMNS, figsize=(12, 3 * rows), layout="constrained", squeeze=False)
    for axis in axes.flat[len(drawn) :]:
        axis.set_axis_off()
    for axis, (name, values) in zip(axes.flat, drawn.items()):
        numbers = sorted(set(values) & set(first))
        axis.plot([first[number][outcome] for number in numbers], [values[number] for number in numbers], ".")
        axis.set_title(textwrap.fill(name, 36), fontsize=9)
    figure.supxlabel(f"{OUTCOMES[outcome]}, trained alone")
    figure.supylabel("score: lower is better")
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


if __name__ == "__main__":
    parts = {"draw": draw, "score": score, "report": report}
    if len(sys.argv) < 2 or sys.argv[1] not in parts:
        sys.exit("rank_correlation: error: name a part: draw, score or report")
    run_command(parts[sys.argv[1]], RankArguments, "rank_correlation", sys.argv[2:])
