"""Trains architectures on their own, all alike: what every score of a search is held against.

    python benchmarks/stand_alone.py --architectures WORK/architectures.json --teacher TEACHER --corpus CORPUS \
        --work_dir WORK --seeds 0 1

`architectures.json` is written by `benchmarks/rank_correlation.py draw`. Every architecture is distilled as
`efficientbert distill` does, from the same text in the same order; so the teacher reads each batch once and is
remembered. Each result is a line of WORK/stand_alone.jsonl, and an interrupted run goes on behind the last one.
"""

import json
import math
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from accelerate.utils import set_seed
from tqdm.auto import tqdm

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.modeling_efficientbert import EfficientBertModel
from efficientbert.search.scores.remembered_teacher import RememberedTeacher
from efficientbert.search.space.architecture import Architecture
from efficientbert.train.cli.command import run_command
from efficientbert.train.distillation.arguments import GeneralArguments
from efficientbert.train.distillation.held_out import HeldOut, capture_held_out, score_student
from efficientbert.train.distillation.loss_choice import make_recipe, source_layers
from efficientbert.train.distillation.losses import LossRecipe
from efficientbert.train.distillation.objective import GeneralDistillation
from efficientbert.train.distillation.scales import teacher_scales
from efficientbert.train.distillation.student import Student, choose_attention, fit_config
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.engine.accelerator import make_accelerator
from efficientbert.train.engine.loop import train
from efficientbert.train.start.from_teacher import initialize_from_teacher
from efficientbert.train.text.preparation import Text, prepare_text


@dataclass(kw_only=True)
class StandAloneArguments(GeneralArguments):
    """Distils every architecture of a file on its own, once for each seed."""

    architectures: str = field(metadata={"help": "JSON file with a list of architectures under 'architectures'."})
    work_dir: str = field(metadata={"help": "Folder of the results."})
    output_dir: str = field(default="", metadata={"help": "Not used."})
    corpus_split: str = field(default="train[:1500]", metadata={"help": "Split or slice of the corpus."})
    warmup_ratio: float = field(default=1 / 6, metadata={"help": "Part of all steps in which the rate rises."})
    mixed_precision: str = field(default="bf16", metadata={"help": "no, bf16 or fp16."})
    max_steps: int = field(default=100, metadata={"help": "Optimizer steps of 16 sequences of 128 tokens."})
    seeds: list[int] = field(default_factory=lambda: [0], metadata={"help": "One training for each."})


def config_of(architecture: Architecture, teacher: Teacher) -> EfficientBertConfig:
    """The configuration of an architecture for a teacher's vocabulary."""
    return architecture.to_config(fit_config(EfficientBertConfig(), teacher))


def start_student(
    architecture: Architecture, teacher: Teacher, text: Text, args: GeneralArguments
) -> tuple[Student, LossRecipe]:
    """A student of an architecture with the teacher's weights, and what it learns; seeds all randomness."""
    set_seed(args.seed)
    config = config_of(architecture, teacher)
    recipe = make_recipe(args, config, teacher)
    student = Student(EfficientBertModel(config), teacher.hidden_size)
    choose_attention(student.encoder)
    layers = source_layers(recipe, config.num_hidden_layers, teacher)
    initialize_from_teacher(student, teacher, layers, text.sample_batch(teacher.model.device))
    return student, recipe


def distil(
    architecture: Architecture,
    teacher: Teacher,
    remembered: RememberedTeacher,
    text: Text,
    held_out: HeldOut,
    args: StandAloneArguments,
    seed: int,
) -> dict[str, Any]:
    """Trains one architecture and returns its figures on held-out text, its training losses, and its seconds."""
    args = replace(args, seed=seed)
    accelerator = make_accelerator(args, Path(args.work_dir))
    student, recipe = start_student(architecture, teacher, text, args)
    scales = teacher_scales(teacher, text, Path(args.work_dir), accelerator.device)
    objective = GeneralDistillation(remembered, scales, recipe)
    started = time.perf_counter()
    log = train(
        accelerator, student, objective, text.training, text.collator, args, args.max_steps, None, "Distilling"
    )
    curve = {entry["step"]: entry["loss"] for entry in log}
    return score_student(student, objective, held_out) | {"curve": curve, "seconds": time.perf_counter() - started}


def read_architectures(path: Path) -> list[Architecture]:
    """The architectures of a file."""
    found = json.loads(path.read_text(encoding="utf-8"))["architectures"]
    return [Architecture.from_json(value) for value in found]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of results, if it is there."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def main(args: StandAloneArguments) -> None:
    """Trains what is not trained yet."""
    args.check()
    drawn = read_architectures(Path(args.architectures))
    path = Path(args.work_dir) / "stand_alone.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    device = make_accelerator(args, path.parent).device
    teacher = Teacher.load(args.teacher, device)
    for seed in args.seeds:
        text = prepare_text(args, teacher, args.batch_size, args.seed)  # the same division for every seed
        configs = [config_of(architecture, teacher) for architecture in drawn]
        recipes = [make_recipe(args, config, teacher) for config in configs]
        held_out = capture_held_out(text, teacher, device, list(zip(configs, recipes)))
        remembered = RememberedTeacher(teacher, recipes, room=math.inf)
        for number, architecture in enumerate(tqdm(drawn, desc=f"seed {seed}", unit="architecture")):
            if any(row["number"] == number and row["seed"] == seed for row in read_rows(path)):
                continue
            figures = distil(architecture, teacher, remembered, text, held_out, args, seed)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"number": number, "seed": seed} | figures) + "\n")


if __name__ == "__main__":
    run_command(main, StandAloneArguments, "stand_alone")
