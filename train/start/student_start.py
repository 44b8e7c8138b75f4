"""Where a student starts: its model, and the weights that training begins with."""

from pathlib import Path

import torch
from torch import nn
from transformers.utils import cached_file

from efficientbert.configuration_efficientbert import PRESETS, EfficientBertConfig
from efficientbert.modeling_efficientbert import EfficientBertForMaskedLM
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.arguments import START_FAULT, DistillArguments, EmbedArguments
from efficientbert.train.distillation.layer_map import even_states
from efficientbert.train.distillation.loss_choice import source_layers
from efficientbert.train.distillation.losses import LossRecipe
from efficientbert.train.distillation.projection import fit_projection, load_projection
from efficientbert.train.distillation.student import Student, choose_attention, fit_config, read_config
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.model_folder import loading
from efficientbert.train.model_folder.model_names import STUDENT_FAULT
from efficientbert.train.start.from_checkpoint import copy_module, initialize_from_checkpoint
from efficientbert.train.start.from_teacher import initialize_from_teacher
from efficientbert.train.text.preparation import Text


def load_model(args: DistillArguments | EmbedArguments, teacher: Teacher) -> tuple[EfficientBertForMaskedLM, bool]:
    """The student's encoder with a masked-LM head, and whether its weights are random, as its sizes alone were named.

    Raises:
        InputError: if the name is no preset, config or checkpoint, its vocabulary is not the teacher's, or it has
            fewer positions than sequences have tokens.
    """
    path = Path(args.student)
    if args.student in PRESETS or path.suffix == ".json":
        config = EfficientBertConfig.from_preset(args.student) if args.student in PRESETS else read_config(path)
        return EfficientBertForMaskedLM(fit_config(config, teacher)), True
    model = load_checkpoint(args.student, "student", STUDENT_FAULT, teacher)
    if model.config.max_position_embeddings < args.max_length:
        raise InputError(
            f"student {args.student!r}: has {model.config.max_position_embeddings} positions, fewer than --max_length "
            f"{args.max_length}"
        )
    return model, False


def load_checkpoint(name: str, argument: str, otherwise: str, teacher: Teacher) -> EfficientBertForMaskedLM:
    """An EfficientBERT with a masked-LM head, random where the checkpoint has none.

    Raises:
        InputError: if it cannot be loaded, naming the `argument` and, in the words `otherwise`, what it was to be; or
            if its vocabulary or tokenizer is not the teacher's.
    """
    kind, model = loading.load_config(name, argument, otherwise).model_type, None
    missing: list[str] = []
    if kind == "efficientbert":
        model, report = loading.load_model(EfficientBertForMaskedLM, name, argument, otherwise)
        missing = [key for key in report["missing_keys"] if not key.startswith("lm_head.")]
    if model is None or missing:
        raise InputError(f"{argument} {name!r}: is a checkpoint of model type {kind!r}, not a whole EfficientBERT")
    if model.config.vocab_size != teacher.vocab_size:
        raise InputError(
            f"{argument} {name!r}: has a vocabulary of {model.config.vocab_size} but teacher {teacher.name!r} of "
            f"{teacher.vocab_size}"
        )
    check_tokenizer(name, argument, teacher)
    return model


def check_tokenizer(name: str, argument: str, teacher: Teacher) -> None:
    """A checkpoint that brings a tokenizer must bring the teacher's: both read the same ids.

    Raises:
        InputError: if they differ.
    """
    missing = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    if cached_file(name, "tokenizer_config.json", **missing) is None:
        return
    mine, theirs = loading.load_tokenizer(name, argument).get_vocab(), teacher.tokenizer.get_vocab()
    if mine != theirs:
        odd = min(mine.items() ^ theirs.items())[0]
        raise InputError(
            f"{argument} {name!r}: its tokenizer is not that of teacher {teacher.name!r}: token {odd!r} is "
            f"{mine.get(odd)} here and {theirs.get(odd)} there; distil a student from this teacher first"
        )


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
        source = load_checkpoint(args.initialization, "initialization", START_FAULT, teacher)
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
