"""What in the recipe of a distillation helps: one thing changed at a time, at equal tokens, from the same start.

    python benchmarks/recipe.py --teacher TEACHER --corpus CORPUS --glue GLUE --work_dir WORK --seeds 0 1 \
        --output_json benchmarks/recipe.json

Every run is an `efficientbert distill` of the gated plain shape into WORK, so that an interrupted comparison goes on
where it was, and several processes may take a seed each. Figures are those of `losses.py`, none of them trained on.
"""

import statistics
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import losses

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.search.space.expressions import GATED
from efficientbert.train import distill
from efficientbert.train.cli.command import run_command
from efficientbert.train.files.writing import write_json
from efficientbert.train.model_folder.record import read_result


BOTH = {"losses": ["hidden_states", "attention_scores=0.3"]}
STATES = {"losses": ["hidden_states"]}
STABLE = "stable, then down in the last fifth"
VARIANTS: dict[str, dict[str, Any]] = {
    "states and scores": BOTH,
    "states": STATES,
    "states, twice the rate": STATES | {"learning_rate": 3e-3},
    f"states, twice the rate, {STABLE}": STATES | {"learning_rate": 3e-3},
    "states, 8 x 128 tokens": STATES | {"max_length": 128, "batch_size": 8},
    "states, packed": STATES | {"packing": True},
}
FIGURES = ("cosine", "stsb_cosine", "sst2_probe")


@dataclass(kw_only=True)
class RecipeArguments(losses.ComparisonArguments):
    """Distils a student once for every variant and seed, and tabulates how good they are."""

    max_steps: int = field(default=150, metadata={"help": "Optimizer steps of 16 sequences of 64 tokens."})
    seeds: list[int] = field(default_factory=lambda: [0, 1], metadata={"help": "One run for each."})


def stable_schedule(warmup_steps: int, max_steps: int) -> Any:
    """Factor of the peak learning rate: rises, stays, and falls linearly in the last fifth."""
    fall = max_steps / 5
    return lambda step: min(1.0, (step + 1) / max(1, warmup_steps), (max_steps - step) / fall)


def run(args: RecipeArguments, name: str, seed: int) -> Path:
    """Distils one student and returns its folder."""
    work = Path(args.work_dir)
    output, student = work / f"{name.replace(' ', '-').replace(',', '')}-seed{seed}", work / "student.json"
    config = EfficientBertConfig(
        hidden_size=360,
        num_hidden_layers=6,
        num_attention_heads=12,
        head_dim=30,
        embedding_size=128,
        ffn_expressions=[GATED] * 6,
        intermediate_sizes=[720] * 6,
    )
    student.parent.mkdir(parents=True, exist_ok=True)
    write_json(student, config.to_dict())
    given = {"batch_size": 16, "max_length": 64} | VARIANTS[name]
    loop = "efficientbert.train.engine.loop"
    with patch(f"{loop}.linear_schedule", stable_schedule) if STABLE in name else nullcontext():
        distill.main(
            distill.DistillArguments(
                teacher=args.teacher,
                corpus=args.corpus,
                corpus_split=args.corpus_split,
                student=str(student),
                max_steps=args.max_steps,
                seed=seed,
                output_dir=str(output),
                **given,
            )
        )
    return output


def main(args: RecipeArguments) -> None:
    """Runs all and prints the table."""
    rows = []
    for name in VARIANTS:
        for seed in args.seeds:
            folder = run(args, name, seed)
            figures = {figure: losses.score(folder, args)[figure] for figure in FIGURES}
            rows.append({"variant": name, "seed": seed} | figures | {"loss": read_result(folder)["loss"]})
    lines = []
    base = {(row["seed"], figure): row[figure] for row in rows if row["variant"] == "states" for figure in FIGURES}
    for name in VARIANTS:
        found = [row for row in rows if row["variant"] == name]
        gains = [[row[figure] - base[row["seed"], figure] for row in found] for figure in FIGURES]
        means = [statistics.fmean(row[figure] for row in found) for figure in FIGURES]
        cells = (f"{mean:.4f} ({' '.join(f'{g:+.4f}' for g in gain)})" for mean, gain in zip(means, gains))
        lines.append((name, *cells))
    losses.tell(("variant", *(f"{figure} (less `states`, by seed)" for figure in FIGURES)), lines, rows, args)


if __name__ == "__main__":
    run_command(main, RecipeArguments, "recipe")
