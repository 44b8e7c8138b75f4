"""Inheritance of weights by smaller, larger or deeper encoders: leading parts, head by head, layer for layer.

So the published narrow models start from the wide one's weights, and the deep one from one of half its depth; a
supernet shares its weights by the same rule. But what lies side by side in one weight, heads and neighbours, is cut
each for itself here, so that a head of the student is the leading part of a head.
"""

import re
from collections.abc import Sequence

import torch
from torch import nn

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.modeling_efficientbert import EfficientBertModel
from efficientbert.train.distillation.student import nearest_layers


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


def origin_name(name: str, origins: Sequence[int]) -> str:
    """The name, in another encoder, of the weight that a weight is taken from.

    Args:
        name: Of the weight, within the encoder or a model around it.
        origins: For every layer, the other encoder's.
    """
    return re.sub(r"\blayers\.(\d+)\.", lambda match: f"layers.{origins[int(match[1])]}.", name)


def split_sides(name: str, tensor: torch.Tensor, config: EfficientBertConfig) -> torch.Tensor:
    """A view of a weight that has an axis for everything that can be cut.

    In the weights themselves the three neighbours of the embedding, and queries, keys, values and heads of the
    attention lie side by side on one axis.

    Args:
        name: Of the weight, within the encoder or a model around it.
        tensor: The weight.
        config: Of the encoder.
    """
    if name.endswith("embeddings.projection.weight"):
        return tensor.unflatten(1, (3, -1))  # (D, 3, E): next, this and previous token
    if name.endswith(("attention.qkv.weight", "attention.qkv.bias")):
        return tensor.unflatten(0, (3, -1, config.head_dim))  # (3, H, d, D) or (3, H, d)
    if name.endswith("attention.output.weight"):
        return tensor.unflatten(1, (-1, config.head_dim))  # (D, H, d)
    return tensor


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
