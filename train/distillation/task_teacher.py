"""Teachers that are fine-tuned on a task."""

from collections.abc import Mapping

import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.capture import Captures
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.model_folder.loading import load_model, load_tokenizer
from efficientbert.train.tasks.task import Task


class TaskTeacher:
    """A frozen model that was fine-tuned on a task.

    Args:
        model: Encoder with head.
        encoder: Its encoder as a `Teacher`, where inner states are wanted.
        order: Of which of the model's classes each of the task's is, where they are not the same.
    """

    def __init__(self, model: PreTrainedModel, encoder: Teacher | None = None, order: list[int] | None = None):
        self.model = model.eval().requires_grad_(False)
        self.encoder = encoder
        self.order = order

    @classmethod
    def load(cls, name: str, task: Task, inner_states: bool, device: torch.device) -> "TaskTeacher":
        """Loads a teacher of a task.

        Raises:
            InputError: if it cannot be loaded, has no trained head, other labels or another tokenizer, or its inner
                states are wanted and cannot be captured.
        """
        model, report = load_model(task.auto_class, name, "teacher", dtype=torch.float32)
        tokenizer = load_tokenizer(name, "teacher")
        if report["missing_keys"]:
            raise InputError(f"teacher {name}: has no trained head; fine-tune it on {task.args.title()} first")
        order = _order(task.label_names_of(model.config), task, name)
        if tokenizer.get_vocab() != task.tokenizer.get_vocab():
            raise InputError(f"teacher {name}: has another tokenizer than the student; both must read the same tokens")
        model = model.to(device)
        return cls(model, Teacher(model.base_model, tokenizer, name) if inner_states else None, order)

    @torch.no_grad()
    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> tuple[ModelOutput, Captures | None]:
        """Outputs and, where they are wanted, captures; those of multiple choice have shape `(B * C, L, D)`."""
        outputs: list[ModelOutput] = []

        def forward() -> ModelOutput:
            outputs.append(self.model(**inputs, output_hidden_states=True))
            return outputs[0]

        captures = None
        if self.encoder is None:
            outputs.append(self.model(**inputs))
        else:
            captures = self.encoder.recorder.record(forward)
        if self.order is not None:
            outputs[0].logits = outputs[0].logits[..., self.order]
        return outputs[0], captures


def _order(found: tuple[str, ...] | None, task: Task, teacher: str) -> list[int] | None:
    """Where a teacher has each label of the task; None where it has all in the same place.

    Raises:
        InputError: if it has other labels.
    """
    if found == task.label_names:
        return None
    theirs, mine = ([name.casefold() for name in names or ()] for names in (found, task.label_names))
    if sorted(theirs) != sorted(mine):
        listed = ["none" if names is None else ", ".join(names) for names in (found, task.label_names)]
        raise InputError(
            f"teacher {teacher}: has labels {listed[0]}; the task's are {listed[1]}: fine-tune it with `efficientbert "
            "finetune` on the same labels"
        )
    return [theirs.index(name) for name in mine]
