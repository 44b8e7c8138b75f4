"""Converts a checkpoint of the original EfficientBERT release into a folder that `from_pretrained` loads.

    efficientbert convert --checkpoint best_model.bin --num_attention_heads 12 --task sst2 --output_dir converted \
        --ffn_expr "tanh(linear4_2(gelu(linear4_2(x,wb1)),wb2))"
"""

import hashlib
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from efficientbert.train.cli.command import run_command
from efficientbert.train.cli.outcome import Outcome
from efficientbert.train.files.output_folder import OutputFolder
from efficientbert.train.model_folder.arguments import OutputArguments
from efficientbert.train.model_folder.release_input import read_bytes, read_task
from efficientbert.train.model_folder.release_tasks import CHOICE_TASKS, LABELS, NOTATION, SPAN_TASKS
from efficientbert.train.tasks.arguments import TASKS, TaskArguments


@dataclass(kw_only=True)
class ConvertArguments(OutputArguments):
    """Converts a checkpoint of the original EfficientBERT release into a folder that `from_pretrained` loads.

    Sizes are read off the tensors. `fit_dense`, the projection to the teacher's width that only training needs, is
    kept beside the model as distillation_projection.safetensors. The masked-LM head (lm_head.*) and multi-task
    classifiers (classifiers.N.*) are left out, and so is every task head when --task is not given.
    """

    first = ("checkpoint", "ffn_expr", "num_attention_heads", "task", "output_dir")
    group = "tokenizer"

    checkpoint: str = field(metadata={"help": "Checkpoint of the original release, a .bin file.", "path": True})
    ffn_expr: list[str] = field(
        metadata={
            "help": "Feed-forward networks in the release's notation: one expression for all layers, or one for each, "
            f"first to last; {NOTATION} are four networks in a row, half as wide as stored."
        }
    )
    num_attention_heads: int = field(metadata={"help": "Number of attention heads of every layer."})
    task: str | None = field(
        default=None,
        metadata={
            "help": f"Task whose head is converted ({', '.join(LABELS)}, {', '.join(SPAN_TASKS + CHOICE_TASKS)}); by "
            "default the bare encoder."
        },
    )
    tokenizer: str | None = field(
        default=None,
        metadata={
            "help": "Folder or Hub id of a tokenizer to save with the model; by default none, as in the release.",
            "path": True,
        },
    )


def main(args: ConvertArguments) -> Outcome:
    """Runs the job from a checkpoint to a finished folder."""
    task = read_task(args.task)
    file = read_bytes(args.checkpoint)
    from safetensors.torch import save_file
    from transformers.utils import logging

    from efficientbert.train.distillation.projection import PROJECTION_FILE
    from efficientbert.train.files.digests import digest_models
    from efficientbert.train.model_folder.record import read_result
    from efficientbert.train.model_folder.release_checkpoint import (
        Checkpoint,
        convert,
        fitting_tokenizer,
        read_expression,
        read_weights,
    )
    from efficientbert.train.model_folder.write import write_checkpoint

    ffns = [read_expression(text) for text in args.ffn_expr]
    record = {
        "command": "convert",
        "checkpoint_sha256": hashlib.sha256(file).hexdigest(),
        "ffn_expr": args.ffn_expr,
        "num_attention_heads": args.num_attention_heads,
        "task": task,
        "tokenizer": args.tokenizer,
    }
    folder = OutputFolder(args.output_dir, record, partial(digest_models, args, "tokenizer"))
    if folder.complete:
        print(f"{folder.path} holds this conversion already")
        return Outcome(folder.path, read_result(folder.path))
    checkpoint = Checkpoint(args.checkpoint, read_weights(args.checkpoint, file))
    model, projection, left_out = convert(checkpoint, ffns, args.num_attention_heads, task)
    tokenizer = fitting_tokenizer(args.tokenizer, model.config, Path(args.checkpoint)) if args.tokenizer else None
    folder.open()
    logging.disable_progress_bar()
    result = {"checkpoint_sha256": record["checkpoint_sha256"]} | (
        {"left_out": ", ".join(left_out)} if left_out else {}
    )
    known = task and task.removesuffix("_matched").removesuffix("_mismatched")  # MNLI's two sets are one task
    data = TaskArguments(task=known) if known in TASKS else None
    write_checkpoint(folder.work, model, tokenizer, "convert", args, result, task=data)
    if projection:
        save_file(projection, folder.work / PROJECTION_FILE)
    folder.finish()
    print(f"{type(model).__name__} with {model.num_parameters():,} parameters written to {folder.path}")
    if task in LABELS and model.config.num_labels != max(1, len(LABELS[task])):
        print(
            f"warning: {task} has {len(LABELS[task])} labels, this classifier {model.config.num_labels}: left unnamed"
        )
    if left_out:
        print(f"left out: {', '.join(left_out)}")
    return Outcome(folder.path, result)


def cli() -> None:
    """Runs the script with this process's arguments."""
    run_command(main, ConvertArguments, "convert")


if __name__ == "__main__":
    cli()
