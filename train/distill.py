"""Distils a teacher into a student on unlabelled text (paper, section 3.3, general distillation).

    efficientbert distill --teacher sentence-transformers/all-MiniLM-L6-v2 --corpus corpus.txt \
        --student efficientbert-tiny --max_steps 2000 --output_dir my-student
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import AutoConfig

from efficientbert.configuration_efficientbert import PRESETS, EfficientBertConfig
from efficientbert.modeling_efficientbert import EfficientBertModel
from efficientbert.train.checkpoint import write_checkpoint
from efficientbert.train.folders import OutputFolder, write_json
from efficientbert.train.general import (
    CorpusArguments,
    GeneralDistillation,
    Text,
    capture_held_out,
    prepare_text,
    score_student,
    teacher_scales,
)
from efficientbert.train.initialization import initialize_from_teacher
from efficientbert.train.loop import LoopArguments, make_accelerator, train
from efficientbert.train.script import LOAD_ERRORS, InputError, run_script
from efficientbert.train.student import (
    Student,
    check_heads,
    fit_config,
    load_config,
    load_projection,
    save_projection,
    uniform_layer_map,
)
from efficientbert.train.teacher import Teacher


@dataclass(kw_only=True)
class DistillArguments(LoopArguments, CorpusArguments):
    """Distils a teacher into a student on unlabelled text and writes a folder that every Auto class loads."""

    teacher: str = field(metadata={"help": "Hub id or folder of the teacher."})
    output_dir: str = field(metadata={"help": "Folder to write; an interrupted run into it is resumed."})
    student: str = field(
        default="efficientbert",
        metadata={
            "help": f"Preset ({', '.join(PRESETS)}), config.json, or a checkpoint folder or Hub id to go on from."
        },
    )
    initialization: str = field(
        default="teacher", metadata={"help": "Of a preset or config: from the 'teacher', or 'random'."}
    )
    max_steps: int = field(default=1000, metadata={"help": "Optimizer steps."})
    learning_rate: float = field(default=1.5e-3, metadata={"help": "Peak learning rate of AdamW."})
    batch_size: int = field(default=16, metadata={"help": "Sequences a process takes at a time."})

    def check(self) -> None:
        """See `LoopArguments.check`."""
        super().check()
        if self.initialization not in ("teacher", "random"):
            raise InputError(f"initialization: must be teacher or random, not {self.initialization!r}")
        if self.max_steps < 0:
            raise InputError(f"max_steps: must be at least 0, not {self.max_steps}")


def load_student(args: DistillArguments, teacher: Teacher, text: Text, device: torch.device) -> Student:
    """A student with its starting weights: from a checkpoint, from the teacher, or random.

    Raises:
        InputError: if the name is no preset, config or checkpoint, or does not fit the teacher.
    """
    path = Path(args.student)
    if args.student in PRESETS or path.suffix == ".json":
        config = EfficientBertConfig.from_preset(args.student) if args.student in PRESETS else load_config(path)
        config = fit_config(config, teacher)
        check_heads(config, teacher)
        student = Student(EfficientBertModel(config), teacher.hidden_size).to(device)
        if args.initialization == "teacher":
            layer_map = uniform_layer_map(config.num_hidden_layers, teacher)
            initialize_from_teacher(student, teacher, layer_map, text.sample_batch(device))
        return student
    try:
        kind, encoder, missing = AutoConfig.from_pretrained(args.student).model_type, None, ()
        if kind == "efficientbert":
            encoder, report = EfficientBertModel.from_pretrained(args.student, output_loading_info=True)
            missing = report["missing_keys"]
    except LOAD_ERRORS as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"student {args.student}: no preset, config.json or checkpoint: {reason}") from None
    if encoder is None or missing:
        raise InputError(f"student {args.student}: is a checkpoint of model type {kind!r}, not a whole EfficientBERT")
    check_heads(encoder.config, teacher)
    if encoder.config.vocab_size != teacher.vocab_size:
        raise InputError(
            f"student {args.student}: has a vocabulary of {encoder.config.vocab_size} but teacher {teacher.name} of "
            f"{teacher.vocab_size}"
        )
    student = Student(encoder, teacher.hidden_size).to(device)
    if path.is_dir():
        load_projection(student.projection, path)
    return student


def main(args: DistillArguments) -> None:
    """Runs the job from arguments to a finished folder."""
    args.check()
    folder = OutputFolder(args.output_dir, dataclasses.asdict(args) | {"output_dir": Path(args.output_dir).name})
    if folder.complete:
        print(f"{folder.path} is complete already")
        return
    accelerator = make_accelerator(args, folder.work)
    teacher = Teacher.load(args.teacher, accelerator.device)
    with accelerator.main_process_first():  # the others find its cache
        text = prepare_text(args, teacher, args.batch_size * accelerator.num_processes, args.seed)
    student = load_student(args, teacher, text, accelerator.device)
    if accelerator.is_main_process:
        folder.open()
    accelerator.wait_for_everyone()
    layer_map = uniform_layer_map(student.encoder.config.num_hidden_layers, teacher)
    with accelerator.main_process_first():
        scales = teacher_scales(teacher, text, folder.work, accelerator.device)
    objective = GeneralDistillation(teacher, scales, layer_map)
    if args.gradient_checkpointing:
        student.encoder.gradient_checkpointing_enable()
    log = train(
        accelerator,
        student,
        objective,
        text.training,
        text.collator,
        args,
        args.max_steps,
        folder.work / "checkpoints",
        "Distilling",
    )
    if accelerator.is_main_process:
        held_out = capture_held_out(text, teacher, accelerator.device)
        result = score_student(student, objective, held_out)
        write_checkpoint(folder.work, student.encoder, teacher.tokenizer, "distill", args, result, args.student)
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
