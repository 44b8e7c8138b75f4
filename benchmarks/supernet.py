"""Speed of a supernet's step beside a plain model's of the same architecture, its memory, and what slicing loses.

    python benchmarks/supernet.py --teacher ../shared/models/gte-small --corpus ../shared/data/wikipedia \
        --output benchmarks/supernet

Both steps are whole ones: teacher, student, losses, backward pass, clipping and optimizer. They are timed in one
process, in turn, so that whatever else the machine does meets both alike: the published architecture, an architecture
drawn anew in every round within 10% of its parameters, and the whole supernet. Peak memory is of a process of its own
for every size.

Slicing: a student at hidden 540, initialised from the teacher and distilled for a few steps, is cut to hidden 360: as
a supernet is, head by head without the supernet's factors, and flat as published, with the borders of the heads
shifted; the table gives their losses on held-out text right after it.
"""

import dataclasses
import multiprocessing
import os
import random
import resource
import shlex
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.modeling_efficientbert import EfficientBertModel
from efficientbert.search.costs.budget import Budget
from efficientbert.search.costs.cost import Parameters
from efficientbert.search.costs.machine import describe_machine
from efficientbert.search.space.architecture import Architecture, Shape
from efficientbert.search.space.space import SearchSpace
from efficientbert.search.supernet.supernet import Supernet
from efficientbert.search.supernet.training import Candidates, LargestInTurns, Slices, SupernetDistillation, bounds
from efficientbert.slicing_efficientbert import slice_weights
from efficientbert.train.cli.command import run_command
from efficientbert.train.distillation.arguments import GeneralArguments, LossArguments
from efficientbert.train.distillation.held_out import capture_held_out, score_student
from efficientbert.train.distillation.loss_choice import make_recipe, source_layers
from efficientbert.train.distillation.objective import GeneralDistillation
from efficientbert.train.distillation.scales import Scales, estimate_scales
from efficientbert.train.distillation.student import Student, choose_attention, fit_config
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.engine.arguments import LoopArguments
from efficientbert.train.engine.optimizer import make_optimizer
from efficientbert.train.files.writing import write_json
from efficientbert.train.start.from_checkpoint import initialize_from_checkpoint
from efficientbert.train.start.from_teacher import initialize_from_teacher
from efficientbert.train.text.batches import batches
from efficientbert.train.text.preparation import prepare_text


@dataclass
class SupernetBenchmarkArguments:
    """Times supernet steps beside plain ones, measures memory and slicing; writes OUTPUT.json and OUTPUT.md."""

    teacher: str = field(metadata={"help": "Hub id or folder of the teacher."})
    corpus: str = field(metadata={"help": "Corpus, as of `efficientbert distill`."})
    output: str = field(metadata={"help": "Path of the results, without ending."})
    batch_size: int = field(default=16, metadata={"help": "Sequences."})
    length: int = field(default=128, metadata={"help": "Tokens in a sequence."})
    rounds: int = field(default=5, metadata={"help": "How often every step is timed."})
    distilled_steps: int = field(default=10, metadata={"help": "Steps of the student that is sliced."})


def make_space(preset: str, teacher: Teacher) -> SearchSpace:
    """The paper's space at the size of a preset, within 10% of the preset's parameters."""
    base = fit_config(EfficientBertConfig.from_preset(preset), teacher)
    cost = Parameters(base)
    published = cost(Architecture.from_config(base))
    budget = Budget("parameters", 0.9 * published, 1.1 * published)
    return SearchSpace(base, budgets=(budget,), costs={"parameters": cost})


class Bench:
    """A supernet and a batch of random tokens, with whole training steps.

    Args:
        args: Arguments of the script.
        preset: Whose sizes the supernet has.
    """

    def __init__(self, args: SupernetBenchmarkArguments, preset: str):
        self.teacher = Teacher.load(args.teacher, torch.device("cpu"))
        self.space = make_space(preset, self.teacher)
        torch.manual_seed(0)
        self.supernet = Supernet(self.space.base, self.space.largest(), self.teacher.hidden_size).train()
        choose_attention(self.supernet.whole.encoder)
        self.optimizer = make_optimizer(self.supernet, LoopArguments(learning_rate=1e-6))
        ids = torch.randint(5, len(self.teacher.tokenizer), (args.batch_size, args.length))
        self.batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def objective(self, architecture: Architecture) -> GeneralDistillation:
        """What an architecture learns."""
        layers = self.teacher.num_layers
        scales = Scales((1.0,) * (layers + 1), (1.0,) * (layers + 1), (1.0,) * layers)
        recipe = make_recipe(LossArguments(), architecture.to_config(self.space.base), self.teacher)
        return GeneralDistillation(self.teacher, scales, recipe)

    def supernet_step(self, candidates: Candidates | LargestInTurns, in_place: bool = False) -> float:
        """Seconds of a step of the supernet."""
        distillation = SupernetDistillation(self.objective, candidates, in_place)
        return step_seconds(Slices(self.supernet), distillation, self.optimizer, self.batch)

    def plain_model(self, architecture: Architecture) -> tuple[Student, torch.optim.Optimizer]:
        """A stand-alone model of an architecture."""
        student = self.supernet.extract(architecture).train()
        return student, make_optimizer(student, LoopArguments(learning_rate=1e-6))


def step_seconds(model: nn.Module, objective: Any, optimizer: torch.optim.Optimizer, batch: dict) -> float:
    """Time of a whole step, as the training loop takes it in bfloat16."""
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = objective(model, batch, objective.count(batch), 0)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return time.perf_counter() - start


def time_steps(args: SupernetBenchmarkArguments) -> dict[str, dict[str, float]]:
    """Median seconds of the steps, and of their ratio within a round."""
    bench = Bench(args, "efficientbert-tiny")
    published, whole = Architecture.from_config(bench.space.base), bench.space.largest()
    plain = {"published": bench.plain_model(published), "whole supernet": bench.plain_model(whole)}
    times: dict[str, list[tuple[float, float]]] = {"published": [], "drawn anew": [], "whole supernet": []}
    overhead: list[tuple[float, float]] = []
    for number in range(args.rounds + 1):  # the first warms up
        drawn = bench.space.sample(random.Random(number))
        for name, architecture in (("published", published), ("drawn anew", drawn), ("whole supernet", whole)):
            student, optimizer = plain.get(name) or bench.plain_model(drawn)
            alone = step_seconds(student, bench.objective(architecture), optimizer, bench.batch)
            inside = bench.supernet_step(Candidates(lambda rng, a=architecture: a, whole, seed=0))
            if number:
                times[name].append((inside, alone))
        if number:
            overhead.append(building_and_slicing(bench, drawn))
    found = {
        name: {
            "supernet_seconds": statistics.median(inside for inside, _ in pairs),
            "plain_seconds": statistics.median(alone for _, alone in pairs),
            "ratio": statistics.median(inside / alone for inside, alone in pairs),
            "ratios": [inside / alone for inside, alone in pairs],
        }
        for name, pairs in times.items()
    }
    found["parts of a drawn step"] = {
        "building_seconds": statistics.median(building for building, _ in overhead),
        "slicing_seconds": statistics.median(slicing for _, slicing in overhead),
    }
    return found


def building_and_slicing(bench: Bench, architecture: Architecture) -> tuple[float, float]:
    """Seconds to build a model without weights, and to cut its weights out, forward and backward."""
    start = time.perf_counter()
    with torch.device("meta"):
        part = bench.supernet.build(architecture)
    built = time.perf_counter()
    whole = bench.supernet.whole
    weights = slice_weights(whole, whole.encoder.config, part, part.encoder.config)
    torch.autograd.backward(list(weights.values()), [torch.ones_like(weight) for weight in weights.values()])
    sliced = time.perf_counter()
    whole.zero_grad()
    return built - start, sliced - built


def peak_memory(args: SupernetBenchmarkArguments, preset: str) -> dict[str, float]:
    """MB that steps need at most, optimizer included, first one architecture a step and then sandwiches.

    For a process of its own.
    """
    bench = Bench(args, preset)
    largest, smallest = bounds(bench.space)
    found = {}
    bench.supernet_step(LargestInTurns((largest,)))
    for name, candidates in (
        ("one", Candidates(bench.space.sample, largest, 0)),
        ("sandwich", Candidates(bench.space.sample, largest, 0, smallest=smallest)),
    ):
        bench.supernet_step(candidates, in_place=name == "sandwich")
        found[name] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return found


def flat_slice(student: EfficientBertModel, source: EfficientBertModel) -> None:
    """Cuts the attention's weights as published: leading rows and columns, whatever head they are of."""
    width = student.config.num_attention_heads * student.config.head_dim
    hidden = student.config.hidden_size
    for layer, origin in zip(student.layers, source.layers):
        for name in ("weight", "bias"):
            target = getattr(layer.attention.qkv, name).data.unflatten(0, (3, -1))
            theirs = getattr(origin.attention.qkv, name).data.unflatten(0, (3, -1))[:, :width]
            target.copy_(theirs[..., :hidden] if name == "weight" else theirs)
        layer.attention.output.weight.data.copy_(origin.attention.output.weight.data[:hidden, :width])


def measure_slicing(args: SupernetBenchmarkArguments) -> dict[str, dict[str, float]]:
    """Held-out figures of a distilled student at hidden 540, and of both kinds of its slices at hidden 360."""
    teacher = Teacher.load(args.teacher, torch.device("cpu"))
    sizes = {"max_length": args.length, "held_out": 16, "init_sequences": 32, "corpus_split": "train[:100]"}
    text_args = GeneralArguments(teacher=args.teacher, corpus=args.corpus, output_dir="", **sizes)
    text = prepare_text(text_args, teacher, args.batch_size, seed=0)
    sample = batches(text.sample, 16, text.padding, teacher.model.device)
    scales = estimate_scales((teacher(batch), batch) for batch in sample)
    base = fit_config(EfficientBertConfig.from_preset("efficientbert"), teacher)
    objective = GeneralDistillation(teacher, scales, make_recipe(text_args, base, teacher))
    torch.manual_seed(0)
    wide = Architecture.from_config(base)
    supernet = Supernet(base, wide, teacher.hidden_size)
    student = supernet.whole.train()
    choose_attention(student.encoder)
    layer_map = source_layers(objective.recipe, base.num_hidden_layers, teacher)
    initialize_from_teacher(student, teacher, layer_map, text.sample_batch(teacher.model.device))
    held_out = capture_held_out(text, teacher, teacher.model.device, [(base, objective.recipe)])
    found = {"540, from the teacher": score_student(student, objective, held_out)}

    layers = tuple(
        dataclasses.replace(layer, intermediate_size=layer.intermediate_size * 2 // 3, head_dim=30)
        for layer in wide.layers
    )
    narrow = Architecture(Shape(360, wide.shape.embedding_size), layers)

    def score_slices(what: str) -> None:
        part = supernet.extract(narrow)
        found[f"360, {what}, the slice"] = score_student(part, objective, held_out)
        initialize_from_checkpoint(part.encoder, student.encoder)
        found[f"360, {what}, head by head without factors"] = score_student(part, objective, held_out)
        flat_slice(part.encoder, student.encoder)
        found[f"360, {what}, flat as published"] = score_student(part, objective, held_out)

    score_slices("from the teacher")
    optimizer = make_optimizer(student, LoopArguments(learning_rate=5e-4))
    rows = list(text.training.take(args.distilled_steps * args.batch_size))
    training = batches(rows, args.batch_size, text.collator, teacher.model.device)
    for batch in training:
        step_seconds(student.train(), objective, optimizer, batch)
    found["540, distilled"] = score_student(student, objective, held_out)
    score_slices("distilled")
    fresh = Student(EfficientBertModel(narrow.to_config(base)), teacher.hidden_size)
    initialize_from_teacher(fresh, teacher, layer_map, text.sample_batch(teacher.model.device))
    found["360, from the teacher itself"] = score_student(fresh, objective, held_out)
    return found


def table(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    args, load = result["arguments"], result["load_average"]
    parts = result["steps"]["parts of a drawn step"]
    lines = [
        f"Step of a supernet at hidden 360 under {Path(args['teacher']).name} beside a plain model's of the same "
        f"architecture: {args['batch_size']} sequences of {args['length']} tokens, bfloat16 autocast, "
        f"{result['threads']} thread(s), medians of {args['rounds']} rounds; load average {load['before']:.1f} before "
        f"and {load['after']:.1f} after.",
        "",
        f"`{result['command']}`",
        "",
        "| architecture | supernet, ms | plain model, ms | ratio | ratios of the rounds |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, row in result["steps"].items():
        if "ratio" in row:
            seconds = [f"{1e3 * row[key]:.0f}" for key in ("supernet_seconds", "plain_seconds")]
            ratios = sorted(row["ratios"])
            spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
            lines.append(f"| {name} | {seconds[0]} | {seconds[1]} | {row['ratio']:.2f} | {spread} |")
    lines += [
        "",
        f"Of a drawn step, building the model without weights takes {1e3 * parts['building_seconds']:.0f} ms, cutting "
        f"the weights out, forward and backward, {1e3 * parts['slicing_seconds']:.0f} ms.",
        "",
        "| peak memory, MB | one architecture a step | sandwich of four, in place |",
        "| --- | ---: | ---: |",
        *(f"| {name} | {row['one']:.0f} | {row['sandwich']:.0f} |" for name, row in result["peak_mb"].items()),
        "",
        f"Slices on held-out text; distilled: for {args['distilled_steps']} steps at hidden 540.",
        "",
        "| student | loss | hidden-state MSE | attention-score MSE | cosine |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, row in result["slicing"].items():
        figures = (row[key] for key in ("loss", "hidden_state_mse", "attention_score_mse", "cosine"))
        lines.append(f"| {name} | " + " | ".join(f"{figure:.3f}" for figure in figures) + " |")
    return "\n".join(lines) + "\n"


def main(args: SupernetBenchmarkArguments) -> None:
    """Measures and writes."""
    load_before = os.getloadavg()[0]
    memory: dict[str, dict[str, float]] = {}
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        for preset in ("efficientbert-tiny", "efficientbert"):
            memory[preset] = pool.submit(peak_memory, args, preset).result()
    result = {
        "command": f"python benchmarks/supernet.py {shlex.join(sys.argv[1:])}",
        "machine": describe_machine(),
        "threads": torch.get_num_threads(),
        "arguments": dataclasses.asdict(args),
        "peak_mb": memory,
        "steps": time_steps(args),
        "slicing": measure_slicing(args),
        "load_average": {"before": load_before, "after": os.getloadavg()[0]},
    }
    write_json(Path(args.output + ".json"), result)
    Path(args.output + ".md").write_text(table(result), encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    run_command(main, SupernetBenchmarkArguments, "supernet")
