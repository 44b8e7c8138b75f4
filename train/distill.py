"""Distils a teacher into a student on unlabelled text (paper, section 3.3, general distillation).

    efficientbert distill --teacher sentence-transformers/all-MiniLM-L6-v2 --corpus corpus.txt \
        --student efficientbert-tiny --max_steps 2000 --output_dir my-student
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from efficientbert.configuration_efficientbert import PRESETS, EfficientBertConfig
from efficientbert.modeling_efficientbert import EfficientBertModel
from efficientbert.train.capture import Captures
from efficientbert.train.checkpoint import write_checkpoint
from efficientbert.train.corpus import PaddingCollator, batches, cut_documents, hold_out, load_documents
from efficientbert.train.folders import OutputFolder, write_json
from efficientbert.train.initialization import initialize_from_teacher
from efficientbert.train.loop import LoopArguments, make_accelerator, train
from efficientbert.train.losses import Scales, count_valid, distillation_terms, estimate_scales
from efficientbert.train.script import InputError, run_script
from efficientbert.train.student import Student, fit_config, load_projection, save_projection, uniform_layer_map
from efficientbert.train.teacher import Teacher


SCALES_FILE = "teacher_scales.json"


@dataclass(kw_only=True)
class CorpusArguments:
    """Where unlabelled text comes from and how it is cut."""

    corpus: str = field(metadata={"help": "Hub id, folder, or a .txt, .json, .jsonl, .csv or .parquet file."})
    corpus_name: str | None = field(default=None, metadata={"help": "Configuration of the corpus."})
    corpus_split: str = field(default="train", metadata={"help": "Split of the corpus, or a slice: train[:1000]."})
    text_column: str = field(default="text", metadata={"help": "Column with the documents."})
    streaming: bool = field(default=False, metadata={"help": "Read the corpus as it is needed; nothing is cached."})
    max_length: int = field(default=128, metadata={"help": "Tokens in a sequence."})
    held_out: int = field(default=64, metadata={"help": "Sequences kept for scoring, never trained on."})
    init_sequences: int = field(
        default=64, metadata={"help": "Sequences from which teacher statistics are taken at the start."}
    )


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


class GeneralDistillation:
    """Hidden states and attention scores of all layers, each term over the teacher's own variance.

    Args:
        teacher: The teacher.
        scales: Its variances.
        layer_map: For every student layer, the teacher layer it learns from, counted from 0.
    """

    def __init__(self, teacher: Teacher, scales: Scales, layer_map: tuple[int, ...]):
        self.teacher = teacher
        self.scales = scales
        self.layer_map = layer_map

    def count(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Valid tokens and pairs of a batch."""
        return count_valid(batch["attention_mask"])

    def __call__(
        self, model: nn.Module, batch: Mapping[str, torch.Tensor], counts: Mapping[str, torch.Tensor], step: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The scaled sum of all terms, and the sums per kind."""
        return self.loss(model(**batch), self.teacher(batch), batch, counts)

    def loss(
        self,
        student: Captures,
        teacher: Captures,
        batch: Mapping[str, torch.Tensor],
        counts: Mapping[str, torch.Tensor],
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """As calling it, for captures that are there already."""
        terms = distillation_terms(student, teacher, self.layer_map, batch["attention_mask"], counts)
        states = (0, *(layer + 1 for layer in self.layer_map))
        hidden = sum(t / self.scales.hidden_states[state] for t, state in zip(terms["hidden_states"], states))
        scores = sum(
            t / self.scales.attention_scores[layer] for t, layer in zip(terms["attention_scores"], self.layer_map)
        )
        return hidden + scores, {"hidden_states": hidden, "attention_scores": scores}


@torch.no_grad()
def score_student(
    student: nn.Module, objective: GeneralDistillation, held_out: list[dict[str, Any]], collator: PaddingCollator
) -> dict[str, float]:
    """How near a student is to its teacher on held-out text.

    Returns:
        `loss` as trained, `hidden_state_mse` and `attention_score_mse` as raw sums over all terms, and `cosine` to the
        teacher's last hidden states, averaged over tokens.
    """
    student.eval()
    device = next(student.parameters()).device
    totals: dict[str, float] = {}
    tokens = pairs = 0
    for batch in batches(held_out, 16, collator, device):
        counts = count_valid(batch["attention_mask"])
        mine, theirs = student(**batch), objective.teacher(batch)
        terms = distillation_terms(mine, theirs, objective.layer_map, batch["attention_mask"], counts)
        _, scaled = objective.loss(mine, theirs, batch, counts)
        cosine = nn.functional.cosine_similarity(mine.hidden_states[-1], theirs.hidden_states[-1], dim=-1)
        cosine = (cosine * batch["attention_mask"]).sum() / counts["tokens"]
        by_token = {
            "hidden_state_mse": sum(terms["hidden_states"]),
            "scaled_hidden_states": scaled["hidden_states"],
            "cosine": cosine,
        }
        by_pair = {
            "attention_score_mse": sum(terms["attention_scores"]),
            "scaled_attention_scores": scaled["attention_scores"],
        }
        for name, value in by_token.items():
            totals[name] = totals.get(name, 0.0) + value.item() * counts["tokens"].item()
        for name, value in by_pair.items():
            totals[name] = totals.get(name, 0.0) + value.item() * counts["pairs"].item()
        tokens += counts["tokens"].item()
        pairs += counts["pairs"].item()
    student.train()
    means = {name: total / (pairs if "attention" in name else tokens) for name, total in totals.items()}
    return {
        "loss": means["scaled_hidden_states"] + means["scaled_attention_scores"],
        "hidden_state_mse": means["hidden_state_mse"],
        "attention_score_mse": means["attention_score_mse"],
        "cosine": means["cosine"],
    }


@dataclass(frozen=True)
class Text:
    """A corpus ready for one teacher: held-out and sample rows, and the sequences to train on."""

    held_out: list[dict[str, Any]]
    sample: list[dict[str, Any]]
    training: Any
    collator: PaddingCollator

    def sample_batch(self, device: torch.device) -> dict[str, torch.Tensor]:
        """The sample as one batch."""
        return next(batches(self.sample, len(self.sample), self.collator, device))


def prepare_text(args: CorpusArguments, teacher: Teacher, batch_size: int, seed: int) -> Text:
    """Loads, cuts and divides the corpus.

    Raises:
        InputError: if it cannot be loaded, is too short, or its sequences are longer than the teacher takes.
    """
    if not 8 <= args.max_length <= teacher.max_positions:
        raise InputError(
            f"max_length: must be between 8 and the {teacher.max_positions} positions of teacher {teacher.name}, "
            f"not {args.max_length}"
        )
    documents = load_documents(args.corpus, args.corpus_name, args.corpus_split, args.text_column, args.streaming)
    sequences = cut_documents(documents, args.text_column, teacher.tokenizer, args.max_length)
    held_out, training = hold_out(sequences, args.held_out, max(batch_size, args.init_sequences), args.corpus)
    sample = list(training.take(args.init_sequences))
    if args.streaming:
        training = training.shuffle(seed=seed, buffer_size=10_000)
    return Text(held_out, sample, training, PaddingCollator(teacher.tokenizer.pad_token_id))


def teacher_scales(teacher: Teacher, text: Text, folder: Path, device: torch.device) -> Scales:
    """The teacher's variances, estimated once in a run and kept in `folder`."""
    path = folder / SCALES_FILE
    if not path.exists():
        sample = batches(text.sample, 16, text.collator, device)
        scales = estimate_scales((teacher(batch), batch["attention_mask"]) for batch in sample)
        write_json(path, dataclasses.asdict(scales))
    stored = json.loads(path.read_text(encoding="utf-8"))
    return Scales(tuple(stored["hidden_states"]), tuple(stored["attention_scores"]))


def check_heads(config: EfficientBertConfig, teacher: Teacher) -> None:
    """Attention scores are compared head by head.

    Raises:
        InputError: if student and teacher have different numbers of heads.
    """
    if config.num_attention_heads != teacher.num_heads:
        raise InputError(
            f"student: has {config.num_attention_heads} attention heads but teacher {teacher.name} has "
            f"{teacher.num_heads}; their attention scores can only be compared head by head"
        )


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
        encoder = EfficientBertModel.from_pretrained(args.student)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"student {args.student}: no preset, config.json or checkpoint: {reason}") from None
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


def load_config(path: Path) -> EfficientBertConfig:
    """A configuration from a JSON file.

    Raises:
        InputError: if it cannot be read or is invalid.
    """
    try:
        return EfficientBertConfig.from_json_file(path)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"config {path}: {' '.join(str(error).split())}") from None


def distill(
    accelerator: Accelerator, student: Student, objective: GeneralDistillation, text: Text, args: Any, work: Path
):
    """Trains a student by general distillation; see `efficientbert.train.loop.train` for what is returned."""
    if args.gradient_checkpointing:
        student.encoder.gradient_checkpointing_enable()
    return train(
        accelerator,
        student,
        objective,
        text.training,
        text.collator,
        args,
        args.max_steps,
        work / "checkpoints",
        "Distilling",
    )


def main(args: DistillArguments) -> None:
    """Runs the job from arguments to a finished folder."""
    args.check()
    folder = OutputFolder(args.output_dir, dataclasses.asdict(args) | {"output_dir": Path(args.output_dir).name})
    if folder.complete:
        print(f"{folder.path} is complete already")
        return
    accelerator = make_accelerator(args, folder.work)
    teacher = Teacher.load(args.teacher, accelerator.device)
    text = prepare_text(args, teacher, args.batch_size * accelerator.num_processes, args.seed)
    student = load_student(args, teacher, text, accelerator.device)
    if accelerator.is_main_process:
        folder.open()
    accelerator.wait_for_everyone()
    layer_map = uniform_layer_map(student.encoder.config.num_hidden_layers, teacher)
    scales = teacher_scales(teacher, text, folder.work, accelerator.device)
    objective = GeneralDistillation(teacher, scales, layer_map)
    log = distill(accelerator, student, objective, text, args, folder.work)
    if accelerator.is_main_process:
        result = score_student(student, objective, text.held_out, text.collator)
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
