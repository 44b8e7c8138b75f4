"""Teachers that are fine-tuned on a task."""

import copy
from collections.abc import Mapping

import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.capture import Captures
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.model_folder.loading import load_model, load_tokenizer
from efficientbert.train.model_folder.tokenizer_check import (
    SEGMENTS,
    check_tokenizer,
    give_segments,
    ignore_segments,
    reads_segments,
)
from efficientbert.train.tasks.task import Task, is_unnamed


class TaskTeacher:
    """A frozen model that was fine-tuned on a task.

    Args:
        model: Encoder with head; from now on it takes no segments if it reads none, and gives its classes in the order
            of the task's.
        encoder: Its encoder as a `Teacher`, where inner states are wanted.
        order: Of which of the model's classes each of the task's is, where they are not the same.
        segments: Whether it reads `token_type_ids`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        encoder: Teacher | None = None,
        order: list[int] | None = None,
        segments: bool = True,
    ):
        self.model = model.eval().requires_grad_(False)
        self._encoder = encoder
        if not segments:
            ignore_segments(model)
        if order is not None:
            model.register_forward_hook(lambda module, inputs, outputs: _reorder(outputs, order))

    @classmethod
    def load(cls, name: str, task: Task, inner_states: bool, device: torch.device) -> "TaskTeacher":
        """Loads a teacher of a task. What the task encodes from now on has the segments that the teacher reads.

        Raises:
            InputError: if it cannot be loaded, has no trained head, other labels or another tokenizer, or its inner
                states are wanted and cannot be captured.
        """
        model, report = load_model(task.auto_class, name, "teacher", dtype=torch.float32)
        tokenizer = load_tokenizer(name, "teacher")
        if report["missing_keys"]:
            raise InputError(
                f"teacher {name!r}: has no trained head; fine-tune it with `efficientbert finetune` on "
                f"{task.args.title()!r} first"
            )
        order = _order(task.label_names_of(model.config), task, name)
        check_tokenizer(tokenizer, model, f"teacher {name!r}")
        if tokenizer.get_vocab() != task.tokenizer.get_vocab():
            raise InputError(
                f"teacher {name!r}: has another tokenizer than the student; both must read the same tokens"
            )
        segments = reads_segments(model, tokenizer)
        if segments and SEGMENTS not in task.tokenizer.model_input_names:
            task.tokenizer = copy.deepcopy(task.tokenizer)  # the student is saved with its own
            give_segments(task.tokenizer, True)
        model = model.to(device)
        return cls(model, Teacher(model.base_model, tokenizer, name) if inner_states else None, order, segments)

    @property
    def encoder(self) -> Teacher:
        """Its encoder, of a teacher whose inner states are wanted."""
        assert self._encoder is not None
        return self._encoder

    @torch.no_grad()
    def __call__(
        self, inputs: Mapping[str, torch.Tensor], capture: bool = False
    ) -> tuple[ModelOutput, Captures | None]:
        """Outputs and, with `capture`, captures; those of multiple choice have shape `(B * C, L, D)`."""
        outputs: list[ModelOutput] = []

        def forward() -> ModelOutput:
            outputs.append(self.model(**inputs, output_hidden_states=True))
            return outputs[0]

        captures = None
        if capture:
            captures = self.encoder.recorder.record(forward)
        else:
            outputs.append(self.model(**inputs))
        return outputs[0], captures

    def inner_states(self, inputs: Mapping[str, torch.Tensor]) -> Captures:
        """Captures alone."""
        captures = self(inputs, capture=True)[1]
        assert captures is not None
        return captures


def _reorder(outputs: ModelOutput, order: list[int]) -> ModelOutput:
    """Outputs with their classes in another order."""
    outputs.logits = outputs.logits[..., order]
    return outputs


def _order(found: tuple[str, ...] | None, task: Task, teacher: str) -> list[int] | None:
    """Where a teacher has each label of the task; None where it has all in the same place, or names none.

    Raises:
        InputError: if it has other labels.
    """
    if found == task.label_names:
        return None
    if is_unnamed(found) and len(found or ()) == len(task.label_names or ()):
        print(f"teacher {teacher!r}: names no labels; its outputs are taken as {', '.join(map(repr, task.classes))}")
        return None
    theirs, mine = (list(names or ()) for names in (found, task.label_names))
    if sorted(theirs) != sorted(mine):
        theirs, mine = ([name.casefold() for name in names] for names in (theirs, mine))
    if len(set(mine)) < len(mine) or sorted(theirs) != sorted(mine):
        listed = ["none" if names is None else ", ".join(map(repr, names)) for names in (found, task.label_names)]
        said = "predicts no classes of the task's kind" if found is None else f"has labels {listed[0]}"
        raise InputError(
            f"teacher {teacher!r}: {said}; the task's are {listed[1]}: fine-tune it with `efficientbert finetune` "
            "on the same labels"
        )
    return [theirs.index(name) for name in mine]
