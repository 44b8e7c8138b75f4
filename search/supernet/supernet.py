"""The supernet: weights shared by all architectures of a space (paper, section 3.3).

Every dimension is elastic, by one rule, `slice_weights`. An architecture takes

* the leading channels of hidden states, embeddings and feed-forward networks, the leading heads and the leading part
  of each head, and the first networks of a stack. In the initialisation from the teacher these carry the most:
  channels are principal directions, and factors of heads are sorted by strength.
* a subset of the layers, evenly spread and the last among them: a layer is the supernet's at the same part of the
  depth. Where one depth divides the other it is compared with the same layer of the teacher in both: no weight is
  taught two layers, and it starts from the teacher layer that a stand-alone student of its depth starts from.

Two factors keep what is left at its scale where nearly all lies in the leading part. A LayerNorm gives fewer channels
the same mean square, though in the supernet the leading ones have more than their share of it: its weight is
multiplied by the square root of the supernet's hidden size over the slice's. Attention scores are divided by the
square root of the head size: queries and keys are multiplied by the fourth root of the slice's over the supernet's.

A slice is run by the stand-alone model's own code over contiguous copies of these weights, so it computes exactly what
the extracted model computes.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn
from torch.func import functional_call
from transformers import PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.modeling_efficientbert import EfficientBertModel
from efficientbert.search.space.architecture import Architecture
from efficientbert.slicing_efficientbert import slice_weights
from efficientbert.train.distillation.capture import Captures
from efficientbert.train.distillation.student import Student
from efficientbert.train.distillation.task_objective import TaskStudent
from efficientbert.train.tasks.task import Task


class Supernet(nn.Module):
    """A student of the largest architecture, that runs as any smaller one.

    Args:
        base: What no architecture decides.
        largest: The architecture that every other one is a part of.
        teacher_size: Hidden size of the teacher.

    Attributes:
        whole: The student of the largest architecture, which holds all weights; files of studies name them by it.
    """

    def __init__(self, base: EfficientBertConfig, largest: Architecture, teacher_size: int):
        super().__init__()
        self.base = base
        self.largest = largest
        self.teacher_size = teacher_size
        self.whole = self.build(largest)

    def build(self, architecture: Architecture) -> Student:
        """A student of an architecture with weights of its own, on the default device."""
        return Student(EfficientBertModel(architecture.to_config(self.base)), self.teacher_size)

    def forward(self, architecture: Architecture, **batch: torch.Tensor) -> Captures:
        """Captures of one slice, as of [`Student`].

        Raises:
            ValueError: if the architecture is no part of the largest.
        """
        with torch.device("meta"):  # a student without weights of its own: they are passed in
            student = self.build(architecture)
        return run_slice(self.whole, self.whole.encoder, student, student.encoder, batch)

    def extract(self, architecture: Architecture) -> Student:
        """A stand-alone student with a copy of the slice's weights, on the supernet's device, in eval mode.

        Raises:
            ValueError: if the architecture is no part of the largest.
        """
        student = self.build(architecture)
        copy_slice(self.whole, self.whole.encoder, student, student.encoder)
        return student.to(self.whole.encoder.device).eval()


class TaskSupernet(nn.Module):
    """A supernet with a head for each of several tasks: its slices are task students that share all but the heads.

    Args:
        supernet: Encoder and projection are those of it, not copies; its teacher and those of the tasks have one
            hidden size.
        tasks: The tasks; their heads are made anew.

    Attributes:
        wholes: For each task, the task student of the largest architecture.
    """

    def __init__(self, supernet: Supernet, tasks: Sequence[Task]):
        super().__init__()
        self.supernet = supernet
        self.tasks = tuple(tasks)
        wholes = [self.build(supernet.largest, index) for index in range(len(tasks))]
        for whole in wholes:
            setattr(whole.model, whole.model.base_model_prefix, supernet.whole.encoder)
            whole.projection = supernet.whole.projection
        held = nn.ModuleList(wholes).to(supernet.whole.encoder.device)
        self.wholes = cast(Sequence[TaskStudent], held)  # whose type does not say what it holds

    def build(self, architecture: Architecture, task: int) -> TaskStudent:
        """A task student of an architecture with weights of its own, on the default device."""
        config = architecture.to_config(self.supernet.base)
        self.tasks[task].configure(config)
        return TaskStudent(self.tasks[task].auto_class.from_config(config), self.supernet.teacher_size)

    def forward(
        self, architecture: Architecture, task: int, capture: bool | None = None, **inputs: torch.Tensor
    ) -> ModelOutput | tuple[ModelOutput, Captures | None]:
        """What the slice's model yields for a task, or with `capture` given, what its [`TaskStudent`] yields.

        Raises:
            ValueError: if the architecture is no part of the largest.
        """
        with torch.device("meta"):
            student = self.build(architecture, task)
        whole = self.wholes[task]
        arguments = {"capture": bool(capture), **inputs}
        found = run_slice(whole, whole.model.base_model, student, student.model.base_model, arguments)
        return found[0] if capture is None else found

    def extract(self, architecture: Architecture, task: int) -> TaskStudent:
        """A stand-alone task student with a copy of the slice's weights, on the same device, in eval mode.

        Raises:
            ValueError: if the architecture is no part of the largest.
        """
        student, whole = self.build(architecture, task), self.wholes[task]
        copy_slice(whole, whole.model.base_model, student, student.model.base_model)
        return student.to(whole.model.device).eval()


def run_slice(
    whole: nn.Module,
    whole_encoder: PreTrainedModel,
    student: nn.Module,
    student_encoder: PreTrainedModel,
    inputs: dict[str, Any],
) -> Any:
    """What a model without weights yields with those of its slice.

    Args:
        whole: Model of the largest architecture.
        whole_encoder: The encoder in it.
        student: The same model of a smaller architecture, on the meta device.
        student_encoder: The encoder in it.
        inputs: Keyword arguments of the model.
    """
    student_encoder.set_attn_implementation(whole_encoder.config._attn_implementation)
    student.train(whole.training)
    weights = slice_weights(whole, whole_encoder.config, student, student_encoder.config)
    return functional_call(student, weights, (), inputs, strict=True)


def copy_slice(
    whole: nn.Module, whole_encoder: PreTrainedModel, student: nn.Module, student_encoder: PreTrainedModel
) -> None:
    """Gives a model the weights of its slice, and the same attention function; arguments as of `run_slice`."""
    student_encoder.set_attn_implementation(whole_encoder.config._attn_implementation)
    weights = slice_weights(whole, whole_encoder.config, student, student_encoder.config)
    student.load_state_dict({name: weight.detach() for name, weight in weights.items()})
