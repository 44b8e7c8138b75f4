"""Distils a teacher into a student on unlabelled text (paper, section 3.3, general distillation).

    efficientbert distill --teacher sentence-transformers/all-MiniLM-L6-v2 --corpus corpus.txt \
        --student efficientbert-tiny --max_steps 2000 --output_dir my-student
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig

from efficientbert.configuration_efficientbert import PRESETS, EfficientBertConfig
from efficientbert.modeling_efficientbert import EfficientBertForMaskedLM
from efficientbert.train.checkpoint import write_checkpoint
from efficientbert.train.folders import OutputFolder, run_arguments, write_json
from efficientbert.train.general import (
    GeneralArguments,
    GeneralDistillation,
    Text,
    capture_held_out,
    even_states,
    prepare_text,
    score_student,
    source_layers,
    teacher_scales,
)
from efficientbert.train.inheritance import copy_module, initialize_from_checkpoint
from efficientbert.train.initialization import fit_projection, initialize_from_teacher
from efficientbert.train.loop import make_accelerator, train
from efficientbert.train.masking import WholeWordMasking
from efficientbert.train.recipe import LossRecipe, make_recipe, parse_losses
from efficientbert.train.script import LOAD_ERRORS, InputError, run_script
from efficientbert.train.student import (
    Student,
    choose_attention,
    fit_config,
    load_config,
    load_projection,
    save_projection,
)
from efficientbert.train.teacher import Teacher, quiet_loading


@dataclass(kw_only=True)
class StudentArguments:
    """What is trained on unlabelled text, and for how long; stands before a class of `LoopArguments`."""

    student: str = field(
        default="efficientbert",
        metadata={
            "help": f"Preset ({', '.join(PRESETS)}), config.json, or a checkpoint folder or Hub id to go on from."
        },
    )
    max_steps: int = field(default=1000, metadata={"help": "Optimizer steps."})

    def check(self) -> None:
        """See `LoopArguments.check`."""
        super().check()
        if self.max_steps < 0:
            raise InputError(f"max_steps: must be at least 0, not {self.max_steps}")


@dataclass(kw_only=True)
class DistillArguments(StudentArguments, GeneralArguments):
    """Distils a teacher into a student on unlabelled text and writes a folder that every Auto class loads."""

    initialization: str = field(
        default="teacher",
        metadata={
            "help": "Of a preset or config: 'teacher', 'random', or the folder or Hub id of a checkpoint of any width "
            "and depth, whose leading dimensions are copied."
        },
    )

    def check(self) -> None:
        """See `LoopArguments.check`."""
        super().check()
        named = self.initialization in ("teacher", "random")
        if not named and "/" not in self.initialization and not Path(self.initialization).is_dir():
            raise InputError(
                "initialization: must be teacher or random, or the folder or Hub id of a checkpoint, not "
                f"{self.initialization!r}"
            )


def load_model(args: DistillArguments, teacher: Teacher) -> tuple[EfficientBertForMaskedLM, bool]:
    """The student's encoder with a masked-LM head, and whether its weights are random, as its sizes alone were named.

    Raises:
        InputError: if the name is no preset, config or checkpoint, its vocabulary is not the teacher's, or it has
            fewer positions than sequences have tokens.
    """
    path = Path(args.student)
    if args.student in PRESETS or path.suffix == ".json":
        config = EfficientBertConfig.from_preset(args.student) if args.student in PRESETS else load_config(path)
        return EfficientBertForMaskedLM(fit_config(config, teacher)), True
    model = load_checkpoint(args.student, "student", "no preset, config.json or checkpoint", teacher)
    if model.config.max_position_embeddings < args.max_length:
        raise InputError(
            f"student {args.student}: has {model.config.max_position_embeddings} positions, fewer than --max_length "
            f"{args.max_length}"
        )
    return model, False


def load_checkpoint(name: str, argument: str, otherwise: str, teacher: Teacher) -> EfficientBertForMaskedLM:
    """An EfficientBERT with a masked-LM head, random where the checkpoint has none.

    Raises:
        InputError: if it cannot be loaded, naming the `argument` and, in the words `otherwise`, what it was to be; or
            if its vocabulary is not the teacher's.
    """
    try:
        kind, model, missing = AutoConfig.from_pretrained(name).model_type, None, ()
        if kind == "efficientbert":
            with quiet_loading():
                model, report = EfficientBertForMaskedLM.from_pretrained(name, output_loading_info=True)
            missing = [key for key in report["missing_keys"] if not key.startswith("lm_head.")]
    except LOAD_ERRORS as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{argument} {name}: {otherwise}: {reason}") from None
    if model is None or missing:
        raise InputError(f"{argument} {name}: is a checkpoint of model type {kind!r}, not a whole EfficientBERT")
    if model.config.vocab_size != teacher.vocab_size:
        raise InputError(
            f"{argument} {name}: has a vocabulary of {model.config.vocab_size} but teacher {teacher.name} of "
            f"{teacher.vocab_size}"
        )
    return model


def make_student(
    args: DistillArguments,
    model: EfficientBertForMaskedLM,
    fresh: bool,
    recipe: LossRecipe,
    teacher: Teacher,
    text: Text,
    device: torch.device,
) -> Student:
    """A student with its starting weights: from a checkpoint, from the teacher, or random.

    A checkpoint that comes without a projection to this teacher gets the one that fits its hidden states best.
    """
    encoder = model.efficientbert
    student = Student(encoder, teacher.hidden_size, model.lm_head if recipe.masks else None).to(device)
    choose_attention(student.encoder)
    layers = encoder.config.num_hidden_layers
    projected = True
    if not fresh:
        projected = load_projection(student.projection, Path(args.student))
    elif args.initialization == "teacher":
        initialize_from_teacher(student, teacher, source_layers(recipe, layers, teacher), text.sample_batch(device))
    elif args.initialization != "random":
        source = load_checkpoint(
            args.initialization, "initialization", "neither teacher, random nor a checkpoint", teacher
        )
        initialize_from_checkpoint(encoder, source.efficientbert.to(device))
        if student.head is not None:
            copy_module(student.head, source.lm_head)
        source_projection = nn.Linear(source.config.hidden_size, teacher.hidden_size).to(device)
        projected = load_projection(source_projection, Path(args.initialization))
        if projected:
            copy_module(student.projection, source_projection)
    if not projected:
        states = recipe.states or even_states(layers, teacher.num_layers)
        fit_projection(student, teacher, states, text.sample_batch(device))
    return student


def main(args: DistillArguments) -> None:
    """Runs the job from arguments to a finished folder."""
    args.check()
    folder = OutputFolder(args.output_dir, run_arguments(args))
    if folder.complete:
        print(f"{folder.path} is complete already")
        return
    losses = parse_losses(args.losses)
    accelerator = make_accelerator(args, folder.work)
    teacher = Teacher.load(args.teacher, accelerator.device, masked_lm="logits" in losses)
    model, fresh = load_model(args, teacher)
    recipe = make_recipe(args, model.config, teacher)
    with accelerator.main_process_first():  # the others find its cache
        text = prepare_text(args, teacher, args.batch_size * accelerator.num_processes, args.seed)
    masking = WholeWordMasking(text.collator, teacher.tokenizer, args.seed) if recipe.masks else None
    student = make_student(args, model, fresh, recipe, teacher, text, accelerator.device)
    if accelerator.is_main_process:
        folder.open()
    accelerator.wait_for_everyone()
    with accelerator.main_process_first():
        scales = teacher_scales(teacher, text, folder.work, accelerator.device)
    objective = GeneralDistillation(teacher, scales, recipe)
    if args.gradient_checkpointing:
        student.encoder.gradient_checkpointing_enable()
    log = train(
        accelerator,
        student,
        objective,
        text.training,
        masking or text.collator,
        args,
        args.max_steps,
        folder.work / "checkpoints",
        "Distilling",
    )
    if accelerator.is_main_process:
        result = score_student(student, objective, capture_held_out(text, teacher, accelerator.device, masking))
        write_checkpoint(folder.work, student.shipped(), teacher.tokenizer, "distill", args, result, args.student)
        save_projection(student.projection, folder.work)
        write_json(folder.work / "training_log.json", log)
        print("held-out " + "  ".join(f"{name} {value:.4f}" for name, value in result.items()))
        print(folder.finish())
    accelerator.end_training()


def cli() -> None:
    """Runs the script with this process's arguments."""
    run_script(main, DistillArguments, "distill")


if __name__ == "__main__":
    cli()
