"""Fine-tunes a model on a labelled task, alone or with the logits of a fine-tuned teacher (paper, section 3.3).

efficientbert finetune --model my-student --task rte --output_dir my-student-rte
efficientbert finetune --model my-student --data reviews.csv --text_column review --output_dir my-student-reviews \
    --train_split "train[:90%]" --eval_split "train[90%:]"
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from efficientbert.train.checkpoint import write_checkpoint
from efficientbert.train.folders import OutputFolder, write_json
from efficientbert.train.loop import LoopArguments, make_accelerator, train
from efficientbert.train.scoring import predict, score_predictions
from efficientbert.train.script import LOAD_ERRORS, InputError, run_script
from efficientbert.train.tasks import TaskArguments, TaskCollator, load_task


@dataclass(kw_only=True)
class FinetuneArguments(LoopArguments, TaskArguments):
    """Fine-tunes a model on a labelled task and writes a folder that every Auto class loads."""

    model: str = field(metadata={"help": "Folder or Hub id to start from: a student, or a teacher to be."})
    output_dir: str = field(metadata={"help": "Folder to write; an interrupted run into it is resumed."})
    teacher: str | None = field(
        default=None, metadata={"help": "Folder or Hub id of a teacher fine-tuned on the same task."}
    )
    train_split: str = field(default="train", metadata={"help": "Split, or slice of it, to train on."})
    eval_split: str | None = field(
        default="validation", metadata={"help": "Split to score the final weights on; nothing is selected by it."}
    )
    num_epochs: float = field(default=5, metadata={"help": "Passes over the training split."})
    learning_rate: float = field(default=1e-4, metadata={"help": "Peak learning rate of AdamW."})

    def check(self) -> None:
        """See `LoopArguments.check`."""
        super().check()
        if not self.num_epochs > 0:
            raise InputError(f"num_epochs: must be above 0, not {self.num_epochs}")


def soft_cross_entropy(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the student's distribution against the teacher's, summed over rows (paper, section 3.3).

    Args:
        student, teacher: Logits of shape `(B, classes)`.
    """
    return -(teacher.float().softmax(-1) * student.float().log_softmax(-1)).sum()


class TaskObjective:
    """Loss of the labels, or of a teacher's logits where there is a teacher and the task has classes.

    Args:
        teacher: A model fine-tuned on the same task, or None.
    """

    def __init__(self, teacher: PreTrainedModel | None):
        self.teacher = teacher

    def count(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Rows of a batch."""
        labels = batch["labels"]
        return {"rows": torch.tensor(float(len(labels)), device=labels.device)}

    def __call__(
        self, model: nn.Module, batch: Mapping[str, torch.Tensor], counts: Mapping[str, torch.Tensor], step: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of a batch as a share of the whole one."""
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        logits, labels = model(**inputs).logits, batch["labels"]
        if labels.is_floating_point():
            total = nn.functional.mse_loss(logits.float().squeeze(-1), labels, reduction="sum")
        elif self.teacher is None:
            total = nn.functional.cross_entropy(logits.float(), labels, reduction="sum")
        else:
            with torch.no_grad():
                targets = self.teacher(**inputs).logits
            total = soft_cross_entropy(logits, targets)
        return total / counts["rows"], {}


def load_for_task(name: str, task: str | None, label_names: tuple[str, ...] | None, what: str) -> PreTrainedModel:
    """A model with a head for the given labels; a head of another shape is made anew.

    Args:
        name: Folder or Hub id.
        task: Recorded in the config as `finetuning_task`.
        label_names: Names of the classes; None for regression.
        what: The argument's name, for messages.

    Raises:
        InputError: if it cannot be loaded.
    """
    try:
        config = AutoConfig.from_pretrained(name)
        config.finetuning_task = task
        if label_names is None:
            config.num_labels = 1
            config.problem_type = "regression"
        else:
            config.id2label = dict(enumerate(label_names))
            config.label2id = {label: index for index, label in enumerate(label_names)}
            config.problem_type = "single_label_classification"
        return AutoModelForSequenceClassification.from_pretrained(
            name, config=config, dtype=torch.float32, ignore_mismatched_sizes=True
        )
    except LOAD_ERRORS as error:
        raise InputError(f"{what} {name}: cannot be loaded: {' '.join(str(error).split())[:300]}") from None


def load_task_teacher(name: str, label_names: tuple[str, ...] | None) -> PreTrainedModel:
    """A teacher fine-tuned on the same task, its outputs in the order of `label_names`.

    Raises:
        InputError: if it cannot be loaded or has other labels.
    """
    try:
        teacher = AutoModelForSequenceClassification.from_pretrained(name, dtype=torch.float32)
    except LOAD_ERRORS as error:
        raise InputError(f"teacher {name}: cannot be loaded: {' '.join(str(error).split())[:300]}") from None
    found = tuple(teacher.config.id2label[index] for index in range(teacher.config.num_labels))
    if label_names is not None and found != label_names:
        raise InputError(f"teacher {name}: has labels {', '.join(found)}; the task's are {', '.join(label_names)}")
    return teacher.eval().requires_grad_(False)


def main(args: FinetuneArguments) -> None:
    """Runs the job from arguments to a finished folder."""
    args.check()
    folder = OutputFolder(args.output_dir, dataclasses.asdict(args) | {"output_dir": Path(args.output_dir).name})
    if folder.complete:
        print(f"{folder.path} is complete already")
        return
    accelerator = make_accelerator(args, folder.work)
    try:
        tokenizer = AutoTokenizer.from_pretrained(args.model)
    except LOAD_ERRORS as error:
        raise InputError(f"model {args.model}: no tokenizer: {' '.join(str(error).split())[:300]}") from None
    data = load_task(args, args.train_split, tokenizer)
    scored = load_task(args, args.eval_split, tokenizer, data.label_names) if args.eval_split else None
    model = load_for_task(args.model, args.task, data.label_names, "model").to(accelerator.device)
    teacher = load_task_teacher(args.teacher, data.label_names).to(accelerator.device) if args.teacher else None
    if args.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    if accelerator.is_main_process:
        folder.open()
    accelerator.wait_for_everyone()
    rows_a_step = args.batch_size * args.gradient_accumulation_steps * accelerator.num_processes
    max_steps = math.ceil(args.num_epochs * len(data.rows) / rows_a_step)
    collator = TaskCollator(tokenizer.pad_token_id)
    log = train(
        accelerator,
        model,
        TaskObjective(teacher),
        data.rows,
        collator,
        args,
        max_steps,
        folder.work / "checkpoints",
        f"Fine-tuning on {args.task or Path(args.data).name}",
    )
    if accelerator.is_main_process:
        result = {}
        if scored is not None:
            outputs = predict(model, scored.rows, collator, args.batch_size)
            result = score_predictions(outputs, scored, args.metric_name(scored.label_names is None))
            write_json(folder.work / "results.json", {"split": args.eval_split, "metrics": result})
            print("  ".join(f"{name} {value:.4f}" for name, value in result.items()))
        write_checkpoint(folder.work, model, tokenizer, "finetune", args, result, args.model)
        write_json(folder.work / "training_log.json", log)
        print(folder.finish())
    accelerator.end_training()


def cli() -> None:
    """Runs the script with this process's arguments."""
    run_script(main, FinetuneArguments, "finetune")


if __name__ == "__main__":
    cli()
