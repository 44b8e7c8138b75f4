"""The supernet: weights shared by all architectures of a space (paper, section 3.3).

Every layer holds the largest stack of full-width networks; an architecture uses the first of them, and of each the
leading rows and columns. A slice is run by the stand-alone model's own code over contiguous copies of these weights,
so it computes exactly what the extracted model computes.
"""

from collections.abc import Mapping

import torch
from torch import nn
from torch.func import functional_call

from efficientbert.modeling_efficientbert import EfficientBertModel
from efficientbert.search.architecture import Architecture
from efficientbert.search.space import SearchSpace
from efficientbert.train.capture import Captures
from efficientbert.train.student import Student


def slice_parameters(
    parameters: Mapping[str, torch.Tensor], shapes: Mapping[str, torch.Size]
) -> dict[str, torch.Tensor]:
    """The leading part of every named tensor that a smaller model has too, contiguous; gradients flow back.

    Args:
        parameters: Tensors of the supernet, by name.
        shapes: Shapes of the smaller model's tensors, by name.
    """
    return {
        name: parameters[name][tuple(slice(size) for size in shape)].contiguous() for name, shape in shapes.items()
    }


class Supernet(nn.Module):
    """A student of the largest architecture, that runs as any smaller one.

    Args:
        space: The architectures it shall hold.
        teacher_size: Hidden size of the teacher.
    """

    def __init__(self, space: SearchSpace, teacher_size: int):
        super().__init__()
        self.space = space
        self.teacher_size = teacher_size
        self.whole = Student(EfficientBertModel(space.largest().to_config(space.base)), teacher_size)

    def forward(self, architecture: Architecture, **batch: torch.Tensor) -> Captures:
        """Captures of one slice, as of [`Student`]."""
        with torch.device("meta"):  # a student without weights of its own: they are passed in
            student = Student(EfficientBertModel(architecture.to_config(self.space.base)), self.teacher_size)
        student.encoder.set_attn_implementation(self.whole.encoder.config._attn_implementation)
        student.train(self.training)
        weights = self._slice(student)
        return functional_call(student, weights, (), batch, strict=True)

    def extract(self, architecture: Architecture) -> Student:
        """A stand-alone student with a copy of the slice's weights, on the supernet's device, in eval mode."""
        student = Student(EfficientBertModel(architecture.to_config(self.space.base)), self.teacher_size)
        student.load_state_dict({name: tensor.detach() for name, tensor in self._slice(student).items()})
        return student.to(self.whole.encoder.device).eval()

    def _slice(self, student: Student) -> dict[str, torch.Tensor]:
        shapes = {name: parameter.shape for name, parameter in student.named_parameters()}
        return slice_parameters(dict(self.whole.named_parameters()), shapes)
