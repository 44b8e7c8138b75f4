"""What small encoders come to: many architectures of the open space, each distilled on its own, all alike.

    python benchmarks/known.py draw --teacher TEACHER --work_dir WORK
    python benchmarks/known.py train --teacher TEACHER --corpus CORPUS --glue GLUE --work_dir WORK --worker 0
    python benchmarks/known.py train --teacher TEACHER --corpus CORPUS --glue GLUE --work_dir WORK --worker 1

`draw` times the parts of the space on this machine, which must be quiet, and draws architectures in bands of equal
latency. `train` distils them in their order, as `efficientbert distill --losses hidden_states` does, from the same
text in the same order; the teacher reads each batch once for all workers. Each result is a line of WORK/rows.jsonl,
and whatever was interrupted goes on behind the last one.
"""

import hashlib
import itertools
import json
import random
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import losses
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import kendalltau
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from stand_alone import config_of, read_architectures, read_rows, start_student

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.search.costs.budget import Budget
from efficientbert.search.costs.cost import Flops, Parameters
from efficientbert.search.costs.latency import Latency, LatencySettings
from efficientbert.search.costs.machine import describe_machine
from efficientbert.search.known.features import TeacherSizes, describe
from efficientbert.search.known.surrogate import FIGURE, SHIPPED, Surrogate
from efficientbert.search.space.architecture import Architecture
from efficientbert.search.space.expressions import GATED, PLAIN
from efficientbert.search.space.open_space import open_choices
from efficientbert.search.space.space import SearchSpace
from efficientbert.train.cli.command import run_command
from efficientbert.train.distillation.arguments import GeneralArguments
from efficientbert.train.distillation.capture import Captures
from efficientbert.train.distillation.held_out import HeldOut, capture_held_out, score_student
from efficientbert.train.distillation.loss_choice import make_recipe
from efficientbert.train.distillation.objective import GeneralDistillation
from efficientbert.train.distillation.scales import teacher_scales
from efficientbert.train.distillation.student import Student, fit_config
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.engine.accelerator import make_accelerator
from efficientbert.train.engine.loop import train
from efficientbert.train.files.tables import table
from efficientbert.train.files.writing import write_json, write_text, writing
from efficientbert.train.text.preparation import Text, prepare_text


BANDS = (4.0, 6.0, 9.0, 14.0, 20.0, 30.0)  # milliseconds
TOLERANCE = 0.1  # of a band either way
# Networks of all layers, None for any, and whether all layers are alike, by how often they are drawn.
KINDS: tuple[tuple[float, str | None, bool], ...] = (
    (0.3, GATED, True),
    (0.2, PLAIN, True),
    (0.2, GATED, False),
    (0.1, PLAIN, False),
    (0.2, None, False),
)
FIGURES = ("explained_texts", "explained_tokens", "cosine", "stsb_cosine")
RESAMPLES = 2000
BEST = 5  # of a band that are shown
ATTEMPTS = 2000  # draws of equal layers before a kind counts as out of a band's reach


@dataclass(kw_only=True)
class KnownArguments(GeneralArguments):
    """Draws and distils architectures of the open space."""

    corpus: str = field(default="", metadata={"help": "Corpus, as of `efficientbert distill`."})
    glue: str = field(default="", metadata={"help": "Hub id or folder of GLUE, for STS-B."})
    work_dir: str = field(metadata={"help": "Folder of the architectures and results."})
    output_dir: str = field(default="", metadata={"help": "Not used."})
    losses: list[str] = field(default_factory=lambda: ["hidden_states"], metadata={"help": "As of `distill`."})
    corpus_split: str = field(default="train[:1500]", metadata={"help": "Split or slice of the corpus."})
    max_length: int = field(default=64, metadata={"help": "Tokens of a sequence."})
    max_steps: int = field(default=100, metadata={"help": "Optimizer steps of 16 sequences."})
    count: int = field(default=40, metadata={"help": "Architectures of every band."})
    band: float | None = field(default=None, metadata={"help": "Milliseconds of the band to train; by default all."})
    each: int | None = field(default=None, metadata={"help": "How many of each band to train; by default all."})
    held_out: int = field(default=256, metadata={"help": "Sequences to score on."})
    pairs: int = field(default=750, metadata={"help": "Pairs of STS-B."})
    worker: int = field(default=0, metadata={"help": "Number of this process among the workers."})
    workers: int = field(default=2, metadata={"help": "Processes that train beside each other."})


# Drawing


def measured_space(teacher: Teacher, path: Path) -> tuple[SearchSpace, Latency]:
    """The open space of a teacher, with the times of its parts, which are kept in a file."""
    base = fit_config(EfficientBertConfig(), teacher)
    latency = Latency(base, path, LatencySettings(threads=2))
    choices = open_choices(teacher.hidden_size, teacher.num_layers, teacher.num_heads)
    space = SearchSpace(base, choices, costs={"latency": latency})
    latency.prepare(space.parts())
    return space, latency


def within(space: SearchSpace, center: float, tolerance: float) -> SearchSpace:
    """The part of a space in a band of latency."""
    return replace(space, budgets=(Budget("latency", center * (1 - tolerance), center * (1 + tolerance)),))


def draw_one(space: SearchSpace, center: float, rng: random.Random) -> Architecture:
    """An architecture in a band of latency, of a kind that it has room for."""
    while True:
        _, expression, alike = rng.choices(KINDS, [weight for weight, *_ in KINDS])[0]
        part = space if expression is None else replace(space, expressions=(expression,))
        band = within(part, center, TOLERANCE)
        if not alike:
            return band.sample(rng)
        wide = within(part, center, 0.5)
        for _ in range(ATTEMPTS):
            found = wide.sample(rng)
            found = replace(found, layers=(rng.choice(found.layers),) * len(found.layers))
            if band.contains(found):
                return found


def draw(args: KnownArguments) -> None:
    """Writes the architectures, band after band, with what they cost."""
    work = Path(args.work_dir)
    path = work / "architectures.json"
    if path.exists():
        return
    work.mkdir(parents=True, exist_ok=True)
    teacher = Teacher.load(args.teacher)
    space, latency = measured_space(teacher, work / "latency.json")
    base = space.base
    found, costs, keys = [], [], set()
    for center in BANDS:
        rng, drawn = random.Random(f"known {center}"), 0
        while drawn < args.count:
            architecture = draw_one(space, center, rng)
            if space.key(architecture) in keys:
                continue
            keys.add(space.key(architecture))
            drawn += 1
            found.append(architecture.to_json())
            costs.append(
                {
                    "band": center,
                    "latency_ms": latency(architecture),
                    "parameters": Parameters(base)(architecture),
                    "flops": Flops(base, 128)(architecture),
                }
            )
    write_json(path, {"machine": describe_machine(), "architectures": found, "costs": costs})


# Training


class StoredTeacher:
    """A teacher that reads no batch twice, whichever process asks: what it made of it is kept in half precision.

    Args:
        teacher: The teacher.
        folder: Where its hidden states are kept, a file for each batch.
    """

    def __init__(self, teacher: Teacher, folder: Path):
        self.teacher, self.folder = teacher, folder
        self.folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, batch: Mapping[str, torch.Tensor]) -> Captures:
        """See `Teacher`; the hidden states alone."""
        digest = hashlib.blake2b(digest_size=16)
        for _, tensor in sorted(batch.items()):
            digest.update(tensor.numpy().tobytes())
        path = self.folder / f"{digest.hexdigest()}.safetensors"
        if not path.exists():
            states = torch.stack(self.teacher(batch).hidden_states).half()
            with writing(path) as temporary:
                save_file({"states": states}, temporary)
        return Captures(tuple(load_file(path)["states"].float()), (), (), ())


@torch.no_grad()
def explained(student: Student, held_out: HeldOut) -> dict[str, float]:
    """Which part of the variance of the teacher's last states a student explains: of tokens, and of means of texts."""
    mine, theirs = {"tokens": [], "texts": []}, {"tokens": [], "texts": []}
    for batch, captures in held_out.plain:
        mask = batch["attention_mask"].bool()
        for found, states in ((mine, student(**batch).hidden_states[-1]), (theirs, captures.hidden_states[-1])):
            found["tokens"].append(states[mask])
            found["texts"].append((states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))
    shares = {}
    for name in mine:
        one, other = torch.cat(mine[name]).double(), torch.cat(theirs[name]).double()
        shares[f"explained_{name}"] = (
            1 - ((one - other).square().sum() / (other - other.mean(0)).square().sum()).item()
        )
    return shares


def distil(
    architecture: Architecture, teacher: Teacher, stored: StoredTeacher, text: Text, args: KnownArguments
) -> tuple[Student, GeneralDistillation, dict[str, Any]]:
    """Trains one architecture; the student, its objective, and its training losses and seconds of processor time."""
    work = Path(args.work_dir)
    accelerator = make_accelerator(args, work)
    student, recipe = start_student(architecture, teacher, text, args)
    objective = GeneralDistillation(stored, teacher_scales(teacher, text, work, accelerator.device), recipe)
    started = time.process_time()
    log = train(
        accelerator, student, objective, text.training, text.collator, args, args.max_steps, None, "Distilling"
    )
    seconds = time.process_time() - started
    return student, objective, {"curve": {entry["step"]: entry["loss"] for entry in log}, "seconds": seconds}


def score(
    student: Student, objective: GeneralDistillation, held_out: HeldOut, args: KnownArguments
) -> dict[str, float]:
    """The figures of a student on held-out text and on STS-B."""
    figures = score_student(student, objective, held_out)
    student.eval()
    student.encoder.set_attn_implementation("sdpa")
    found = {name: figures[name] for name in ("cosine", "loss")} | explained(student, held_out)
    return found | {"stsb_cosine": losses.stsb_cosine(student.encoder, Path(args.teacher), args)}


def train_all(args: KnownArguments) -> None:
    """Trains what is not trained yet of this worker's share."""
    work = Path(args.work_dir)
    drawn = read_architectures(work / "architectures.json")
    costs = json.loads((work / "architectures.json").read_text(encoding="utf-8"))["costs"]
    by_band = {center: [n for n, cost in enumerate(costs) if cost["band"] == center] for center in BANDS}
    chosen = [by_band[center][: args.each] for center in BANDS if args.band in (None, center)]
    # Of every band in turn, so that a table that is cut short holds as many of each.
    numbers = [n for turn in zip(*chosen) for n in turn][args.worker :: args.workers]
    torch.set_num_threads(1)
    teacher = Teacher.load(args.teacher)
    text = prepare_text(args, teacher, args.batch_size, 0)
    configs = [config_of(architecture, teacher) for architecture in drawn]
    held_out = capture_held_out(
        text, teacher, torch.device("cpu"), [(c, make_recipe(args, c, teacher)) for c in configs]
    )
    stored = StoredTeacher(teacher, work / "teacher")
    for number in numbers:
        asked = {"number": number, "steps": args.max_steps, "seed": args.seed}
        if any(asked.items() <= row.items() for row in read_rows(work / "rows.jsonl")):
            continue
        student, objective, told = distil(drawn[number], teacher, stored, text, args)
        row = asked | score(student, objective, held_out, args) | told
        with (work / "rows.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print({name: value for name, value in row.items() if name != "curve"}, flush=True)


# Reporting


def known_rows(work: Path, steps: int, seed: int = 0) -> list[dict[str, Any]]:
    """What architectures came to, each with what it costs, in the order of their numbers."""
    drawn = json.loads((work / "architectures.json").read_text(encoding="utf-8"))
    rows = [row for row in read_rows(work / "rows.jsonl") if (row["steps"], row["seed"]) == (steps, seed)]
    return [
        {"number": row["number"], "architecture": drawn["architectures"][row["number"]]}
        | drawn["costs"][row["number"]]
        | {name: value for name, value in row.items() if name not in ("number", "steps", "seed")}
        for row in sorted(rows, key=lambda row: row["number"])
    ]


def export(args: KnownArguments) -> None:
    """Writes the table that ships with the package, one architecture a line."""
    work = Path(args.work_dir)
    rows = known_rows(work, args.max_steps)
    teacher = Teacher.load(args.teacher)
    head = {
        "teacher": Path(args.teacher).name,
        "teacher_sizes": asdict(TeacherSizes(teacher.hidden_size, teacher.num_layers, teacher.num_heads)),
        "recipe": {
            "losses": args.losses,
            "steps": args.max_steps,
            "sequences": args.batch_size,
            "tokens": args.max_length,
            "learning_rate": args.learning_rate,
            "corpus": "Wikipedia",
        },
        "latency": "milliseconds of one text of 128 tokens, 2 threads, float32",
        "machine": json.loads((work / "architectures.json").read_text(encoding="utf-8"))["machine"],
    }
    lines = ",\n".join(json.dumps(row) for row in rows)
    write_text(SHIPPED, json.dumps(head)[:-1] + ', "rows": [\n' + lines + "\n]}\n")


Predictor = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def gaussian_process(features: np.ndarray, qualities: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """The surrogate."""
    surrogate = Surrogate(features, qualities)
    return surrogate.process.predict((asked - surrogate.center) / surrogate.scale)


def boosting(features: np.ndarray, qualities: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Gradient-boosted trees."""
    model = GradientBoostingRegressor(n_estimators=300, learning_rate=0.05, max_depth=3, subsample=0.7, random_state=0)
    return model.fit(features, qualities).predict(asked)


def linear(features: np.ndarray, qualities: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Ridge regression on the features and their squares and products."""
    model = make_pipeline(StandardScaler(), PolynomialFeatures(2), RidgeCV(np.logspace(-2, 4, 13)))
    return model.fit(features, qualities).predict(asked)


PREDICTORS: dict[str, Predictor] = {
    "Gaussian process": gaussian_process,
    "boosted trees": boosting,
    "ridge, second order": linear,
}


def out_of_fold(predictor: Predictor, features: np.ndarray, qualities: np.ndarray, folds: int = 10) -> np.ndarray:
    """Predictions of every row by a fit to the others."""
    found = np.empty(len(qualities))
    for kept, asked in KFold(folds, shuffle=True, random_state=0).split(features):
        found[asked] = predictor(features[kept], qualities[kept], features[asked])
    return found


def tau(one: np.ndarray, other: np.ndarray) -> float:
    """Kendall's tau."""
    return float(kendalltau(one, other).statistic)


def tau_interval(one: np.ndarray, other: np.ndarray) -> str:
    """Kendall's tau with its 95% bootstrap interval over the architectures."""
    rng = np.random.default_rng(0)
    drawn = (rng.integers(len(one), size=len(one)) for _ in range(RESAMPLES))
    low, high = np.nanquantile([tau(one[rows], other[rows]) for rows in drawn], (0.025, 0.975))
    return f"{tau(one, other):.2f} ({low:.2f} to {high:.2f})"


def tau_within(bands: np.ndarray, one: np.ndarray, other: np.ndarray) -> str:
    """The mean over the bands of Kendall's tau, and the least and greatest of any band."""
    found = [tau(one[bands == band], other[bands == band]) for band in np.unique(bands)]
    return f"{np.mean(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def shown(row: dict[str, Any]) -> tuple[Any, ...]:
    """An architecture and what it came to, for a table."""
    architecture = Architecture.from_json(row["architecture"])
    shape, layers = architecture.shape, architecture.layers
    sizes = (shape.hidden_size, shape.embedding_size, len(layers), len(architecture.attentive))
    return (*sizes, f"`{layers[0].expression}`", f"{row[FIGURE]:.3f}", f"{row['stsb_cosine']:.3f}")


def report(args: KnownArguments) -> None:
    """Prints how well rankings stand over steps, and how well the surrogate ranks what it has not seen."""
    work = Path(args.work_dir)
    lengths = sorted({row["steps"] for row in read_rows(work / "rows.jsonl")})
    tables = {steps: {row["number"]: row for row in known_rows(work, steps)} for steps in lengths}
    for short, long in itertools.combinations(lengths, 2):
        common = sorted(tables[short].keys() & tables[long].keys())
        one, other = (
            {name: np.array([tables[steps][number][name] for number in common]) for name in FIGURES}
            for steps in (short, long)
        )
        lines = [(name, *(tau_interval(one[name], other[later]) for later in FIGURES)) for name in FIGURES]
        print(f"{len(common)} architectures")
        print(table((f"after {short} steps", *(f"{name} after {long}" for name in FIGURES)), lines), end="\n\n")

    rows = known_rows(work, args.max_steps)
    seconds = [row["seconds"] for row in rows]
    print(
        f"{len(rows)} trainings, {np.mean(seconds):.0f} processor seconds each, {sum(seconds) / 3600:.1f} hours",
        end="\n\n",
    )
    for band in BANDS:
        best = sorted((row for row in rows if row["band"] == band), key=lambda row: -row[FIGURE])[:BEST]
        print(f"the best of {band:g} ms by {FIGURE}")
        header = (
            "hidden",
            "embedding",
            "layers",
            "with attention",
            "network of the first layer",
            FIGURE,
            "stsb_cosine",
        )
        print(table(header, [shown(row) for row in best]), end="\n\n")
    sizes = TeacherSizes(**json.loads(SHIPPED.read_text(encoding="utf-8"))["teacher_sizes"])
    features = np.array([describe(Architecture.from_json(row["architecture"]), sizes) for row in rows])
    bands = np.array([row["band"] for row in rows])
    for figure in FIGURES:
        qualities = np.array([row[figure] for row in rows])
        rated = {name: out_of_fold(predictor, features, qualities) for name, predictor in PREDICTORS.items()}
        rated |= {name: np.array([row[name] for row in rows]) for name in ("parameters", "flops", "latency_ms")}
        rated |= {name: np.array([row[name] for row in rows]) for name in FIGURES if name != figure}
        lines = []
        for name, values in rated.items():
            error = f"{np.sqrt(np.mean((values - qualities) ** 2)):.4f}" if name in PREDICTORS else ""
            lines.append((name, tau_interval(values, qualities), tau_within(bands, values, qualities), error))
        print(f"{figure}: {len(rows)} architectures, standard deviation {qualities.std():.4f}")
        print(table(("rated by", "tau over all", "tau in a band: mean (least to most)", "error"), lines), end="\n\n")
    print(json.dumps(Surrogate(features, np.array([row[FIGURE] for row in rows])).lengths(), indent=1))


PARTS: dict[str, Callable[[KnownArguments], None]] = {
    "draw": draw,
    "train": train_all,
    "export": export,
    "report": report,
}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in PARTS:
        sys.exit(f"name a part: {', '.join(PARTS)}")
    run_command(PARTS[sys.argv.pop(1)], KnownArguments, "known")
