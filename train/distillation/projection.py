"""The projection of a student's hidden states to its teacher's width, which is not shipped."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from efficientbert.train.distillation.student import Student
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.engine.finite import check_finite


PROJECTION_FILE = "distillation_projection.safetensors"


def save_projection(projection: nn.Linear, folder: Path) -> None:
    """Keeps a projection beside a saved encoder, for later training.

    Raises:
        NotFiniteError: if a weight is not finite.
    """
    check_finite(projection.state_dict(), "distillation: the projection")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in projection.state_dict().items()}
    temporary = folder / (PROJECTION_FILE + ".partial")
    save_file(tensors, temporary)
    os.replace(temporary, folder / PROJECTION_FILE)


def load_projection(projection: nn.Linear, folder: Path) -> bool:
    """Loads a projection kept beside an encoder, where there is one of the same shape; tells whether it did."""
    path = folder / PROJECTION_FILE
    if not path.exists():
        return False
    tensors = load_file(path)
    if tensors["weight"].shape != projection.weight.shape:
        return False
    projection.load_state_dict(tensors)
    return True


@torch.no_grad()
def fit_projection(
    student: Student, teacher: Teacher, states: Sequence[tuple[int, int]], sample: Mapping[str, torch.Tensor]
) -> None:
    """Sets a student's projection to the least-squares map, with a bias, of its hidden states to the teacher's.

    Args:
        student: Its encoder is trained, its projection is not.
        teacher: The teacher.
        states: Pairs of student and teacher hidden states; 0 is the embedding's output.
        sample: Text as `input_ids` and `attention_mask`, each of shape `(B, L)`.
    """
    valid = sample["attention_mask"].bool()
    inputs = {name: sample[name] for name in ("input_ids", "attention_mask")}
    mine, theirs = student.encoder(**inputs, output_hidden_states=True).hidden_states, teacher(sample).hidden_states
    source = torch.cat([mine[index][valid] for index, _ in states]).double()
    target = torch.cat([theirs[index][valid] for _, index in states]).double()
    mean, target_mean = source.mean(0), target.mean(0)
    source, target = source - mean, target - target_mean
    # Channels behind a LayerNorm can depend on each other: the moments may have no inverse.
    weight = torch.linalg.pinv(source.T @ source, rtol=1e-12, hermitian=True) @ (source.T @ target)
    student.projection.weight.copy_(weight.T)
    student.projection.bias.copy_(target_mean - mean @ weight)
