"""Distils a sentence-transformers teacher's embeddings into a student on unlabelled text.

    efficientbert embed --teacher sentence-transformers/all-MiniLM-L6-v2 --corpus corpus.txt \
        --student my-student --max_steps 2000 --output_dir my-embedder
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from efficientbert.train.cli.command import run_script
from efficientbert.train.cli.errors import LOAD_ERRORS, InputError
from efficientbert.train.distillation.arguments import StudentArguments
from efficientbert.train.distillation.embeddings import (
    EmbeddingDistillation,
    EmbeddingStudent,
    EmbeddingTeacher,
    embedding_variance,
    load_embedder,
    save_embedder,
    score_student,
    start_dense,
)
from efficientbert.train.distillation.projection import fit_projection, load_projection
from efficientbert.train.distillation.student import Student, choose_attention, nearest_layers
from efficientbert.train.engine.accelerator import make_accelerator
from efficientbert.train.engine.arguments import LoopArguments
from efficientbert.train.engine.loop import train
from efficientbert.train.files.output_folder import OutputFolder, run_arguments
from efficientbert.train.files.writing import write_json
from efficientbert.train.model_folder.write import write_checkpoint
from efficientbert.train.start.from_teacher import initialize_from_teacher
from efficientbert.train.start.student_start import load_model
from efficientbert.train.text.arguments import CorpusArguments
from efficientbert.train.text.batches import PaddingCollator, batches
from efficientbert.train.text.passages import cut_passages
from efficientbert.train.text.preparation import Text, divide_corpus


VARIANCE_FILE = "embedding_variance.json"


@dataclass(kw_only=True)
class EmbedArguments(StudentArguments, LoopArguments, CorpusArguments):
    """Distils a sentence-transformers teacher's embeddings and writes a folder that sentence-transformers loads."""

    teacher: str = field(metadata={"help": "Hub id or folder of the teacher; a bare encoder gets mean pooling."})
    output_dir: str = field(metadata={"help": "Folder to write; an interrupted run into it is resumed."})
    initialization: str = field(
        default="teacher", metadata={"help": "Of a preset or config: from the 'teacher', or 'random'."}
    )
    batch_size: int = field(default=32, metadata={"help": "Passages a process takes at a time."})
    learning_rate: float = field(default=5e-4, metadata={"help": "Peak learning rate of AdamW."})
    held_out: int = field(default=256, metadata={"help": "Passages kept for scoring, never trained on."})
    init_sequences: int = field(
        default=128, metadata={"help": "Passages from which teacher statistics are taken at the start."}
    )
    cosine_weight: float = field(default=1.0, metadata={"help": "Weight of the cosine distance."})
    mse_weight: float = field(default=1.0, metadata={"help": "Weight of the squared error over teacher variance."})

    def check(self) -> None:
        """See `LoopArguments.check`."""
        super().check()
        if self.initialization not in ("teacher", "random"):
            raise InputError(f"initialization: must be teacher or random, not {self.initialization!r}")
        if self.packing:
            raise InputError("packing: is not for embeddings; batches hold passages of like length anyway")
        for name in ("cosine_weight", "mse_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name}: must be at least 0, not {getattr(self, name)}")
        if self.cosine_weight == self.mse_weight == 0:
            raise InputError("cosine_weight: is 0, and so is mse_weight; there is nothing to learn")
        for name in ("held_out", "init_sequences"):
            if getattr(self, name) < 2:
                raise InputError(f"{name}: must be at least 2, not {getattr(self, name)}")


def prepare_passages(args: EmbedArguments, teacher: EmbeddingTeacher, batch_size: int) -> Text:
    """The passages whose embeddings a teacher distils; see `divide_corpus`."""
    held_out, sample, training = divide_corpus(
        args, cut_passages, teacher.tokenizer, teacher.max_seq_length, teacher.name, batch_size, args.seed
    )
    collator = PaddingCollator(teacher.tokenizer.pad_token_id)
    return Text(held_out, sample, training, collator, collator)


def check_tokenizer(student: str, teacher: EmbeddingTeacher) -> None:
    """A checkpoint that brings a tokenizer must bring the teacher's: both read the same ids.

    Raises:
        InputError: if they differ.
    """
    if not Path(student, "tokenizer_config.json").is_file():
        return
    try:
        tokenizer = AutoTokenizer.from_pretrained(student)
    except LOAD_ERRORS as error:
        raise InputError(f"student {student}: no tokenizer: {' '.join(str(error).split())[:200]}") from None
    mine, theirs = tokenizer.get_vocab(), teacher.tokenizer.get_vocab()
    if mine != theirs:
        odd = min(mine.items() ^ theirs.items())[0]
        raise InputError(
            f"student {student}: its tokenizer is not that of teacher {teacher.name}: token {odd!r} is "
            f"{mine.get(odd)} here and {theirs.get(odd)} there; distil a student from this teacher first"
        )


def make_student(
    args: EmbedArguments, teacher: EmbeddingTeacher, text: Text, device: torch.device
) -> EmbeddingStudent:
    """A student with its starting weights: from a checkpoint, from the teacher, or random.

    Raises:
        InputError: as `load_model`, or if its tokenizer is not the teacher's.
    """
    check_tokenizer(args.student, teacher)
    source = teacher.as_teacher()
    model, fresh = load_model(args, source)
    encoder = model.efficientbert
    start = Student(encoder, source.hidden_size).to(device)
    choose_attention(encoder)
    if not fresh:
        if not load_projection(start.projection, Path(args.student)):
            last = (encoder.config.num_hidden_layers, source.num_layers)
            fit_projection(start, source, (last,), text.sample_batch(device))
    elif args.initialization == "teacher":
        layers = nearest_layers(encoder.config.num_hidden_layers, source.num_layers)
        initialize_from_teacher(start, source, layers, text.sample_batch(device))
    student = EmbeddingStudent(encoder, teacher.pooling, teacher.size).to(device)
    start_dense(student.dense, start.projection, teacher, Path(args.student))
    return student


def teacher_variance(teacher: EmbeddingTeacher, sample: Iterable[dict[str, torch.Tensor]], folder: Path) -> float:
    """The variance of the teacher's embeddings, estimated once in a run and kept in `folder`."""
    path = folder / VARIANCE_FILE
    if not path.exists():
        write_json(path, {"variance": embedding_variance(teacher(batch) for batch in sample)})
    return json.loads(path.read_text(encoding="utf-8"))["variance"]


def main(args: EmbedArguments) -> dict[str, Any] | None:
    """Runs the job from arguments to a finished folder; returns the held-out figures."""
    args.check()
    folder = OutputFolder(args.output_dir, run_arguments(args))
    if folder.complete:
        print(f"{folder.path} is complete already")
        return None
    accelerator = make_accelerator(args, folder.work)
    device = accelerator.device
    teacher = EmbeddingTeacher(load_embedder(args.teacher, device, "teacher"), args.teacher)
    with accelerator.main_process_first():  # the others find its cache
        text = prepare_passages(args, teacher, args.batch_size * accelerator.num_processes)
    student = make_student(args, teacher, text, device)
    if accelerator.is_main_process:
        folder.open()
    accelerator.wait_for_everyone()
    with accelerator.main_process_first():
        variance = teacher_variance(teacher, batches(text.sample, 32, text.collator, device), folder.work)
    objective = EmbeddingDistillation(teacher, variance, args.cosine_weight, args.mse_weight)
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
        "Distilling embeddings",
        lengths=None if args.streaming else text.training["length"][:],
    )
    result = None
    if accelerator.is_main_process:
        held_out = list(batches(text.held_out, 32, text.collator, device))
        result = score_student(student, objective, held_out)
        write_checkpoint(folder.work, student.encoder, teacher.tokenizer, "embed", args, result, args.student)
        save_embedder(folder.work, student, teacher)
        write_json(folder.work / "training_log.json", log)
        print("held-out " + "  ".join(f"{name} {value:.4f}" for name, value in result.items()))
        print(folder.finish())
    accelerator.end_training()
    return result


def cli() -> None:
    """Runs the script with this process's arguments."""
    run_script(main, EmbedArguments, "embed")


if __name__ == "__main__":
    cli()
