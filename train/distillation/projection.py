"""The projection of a student's hidden states to its teacher's width, which is not shipped."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from efficientbert.train.distillation.student import Student
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.engine.finite import check_finite
from efficientbert.train.files.writing import writing


PROJECTION_FILE = "distillation_projection.safetensors"


def save_projection(projection: nn.Linear, folder: Path) -> None:
    """Keeps a projection beside a saved encoder, for later training.

    Raises:
        NotFiniteError: if a weight is not finite.
    """
    check_finite(projection.state_dict(), "distillation: the projection")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in projection.state_dict().items()}
    with writing(folder / PROJECTION_FILE) as temporary:
        save_file(tensors, temporary)


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
    """Fits a student's projection to text; see `fit_to_states`.

    Args:
        student: Its encoder is trained, its projection is not.
        teacher: The teacher.
        states: Pairs of student and teacher hidden states; 0 is the embedding's output.
        sample: Text as `input_ids` and `attention_mask`, each of shape `(B, L)`.
    """
    inputs = {name: sample[name] for name in ("input_ids", "attention_mask")}
    mine, theirs = student.encoder(**inputs, output_hidden_states=True).hidden_states, teacher(sample).hidden_states
    fit_to_states(student.projection, states, [(mine, theirs, sample["attention_mask"])])


@torch.no_grad()
def fit_to_states(
    projection: nn.Linear,
    states: Sequence[tuple[int, int]],
    samples: Iterable[tuple[Sequence[torch.Tensor], Sequence[torch.Tensor], torch.Tensor]],
) -> None:
    """Sets a projection to the least-squares map, with a bias, of a student's hidden states to its teacher's.

    Args:
        projection: From the student's width to the teacher's.
        states: Pairs of student and teacher hidden states; 0 is the embedding's output.
        samples: For every batch the student's and the teacher's hidden states, each of shape `(B, L, D)`, and its
            attention mask, of shape `(B, L)`.
    """
    mine_size, target_size = projection.in_features, projection.out_features
    zeros = partial(projection.weight.new_zeros, dtype=torch.float64)
    count, sums, target_sums = 0, zeros(mine_size), zeros(target_size)
    moment, product = zeros(mine_size, mine_size), zeros(mine_size, target_size)
    for mine, theirs, mask in samples:
        valid = mask.bool()
        for index, target_index in states:
            source, target = mine[index][valid].double(), theirs[target_index][valid].double()
            count += len(source)
            sums, target_sums = sums + source.sum(0), target_sums + target.sum(0)
            moment, product = moment + source.T @ source, product + source.T @ target
    mean, target_mean = sums / count, target_sums / count
    moment, product = moment / count - mean.outer(mean), product / count - mean.outer(target_mean)
    # Channels behind a LayerNorm can depend on each other: the moments may have no inverse.
    weight = torch.linalg.pinv(moment, rtol=1e-12, hermitian=True) @ product
    projection.weight.copy_(weight.T)
    projection.bias.copy_(target_mean - mean @ weight)
