"""Inheritance of weights by smaller, larger or deeper encoders: leading parts, head by head, layer for layer.

So the published narrow models start from the wide one's weights, and the deep one from one of half its depth; a
supernet shares its weights by the same rule. But what lies side by side in one weight, heads and neighbours, is cut
each for itself here, so that a head of the student is the leading part of a head.
"""

import torch
from torch import nn

from efficientbert.modeling_efficientbert import EfficientBertModel
from efficientbert.slicing_efficientbert import nearest_layers, origin_name, split_sides


@torch.no_grad()
def initialize_from_checkpoint(student: EfficientBertModel, source: EfficientBertModel) -> None:
    """Copies what fits of another encoder's weights; where the student is larger, the rest keeps its weights.

    Every layer takes the source's at the same part of the depth (see `nearest_layers`): both are then compared with
    the same layer of a teacher.

    Args:
        student: Encoder to initialise, of any width and depth.
        source: Encoder to copy from.
    """
    origins = nearest_layers(len(student.layers), len(source.layers))
    theirs = dict(source.named_parameters())
    for name, parameter in student.named_parameters():
        origin = origin_name(name, origins)
        if origin in theirs:
            copy_leading(
                split_sides(name, parameter, student.config), split_sides(origin, theirs[origin], source.config)
            )


@torch.no_grad()
def copy_leading(target: torch.Tensor, source: torch.Tensor) -> None:
    """Copies the leading part that both tensors have, in every dimension."""
    common = tuple(slice(min(sizes)) for sizes in zip(target.shape, source.shape, strict=True))
    target[common] = source[common].to(target)


def copy_module(target: nn.Module, source: nn.Module) -> None:
    """Leading parts of all parameters that both modules have by name."""
    theirs = dict(source.named_parameters())
    for name, parameter in target.named_parameters():
        if name in theirs:
            copy_leading(parameter, theirs[name])
