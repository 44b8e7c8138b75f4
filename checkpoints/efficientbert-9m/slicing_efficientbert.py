"""Which part of a model a smaller one is: layers at the same part of the depth, and leading channels and heads.

The same rule gives a smaller or deeper model its starting weights, and a supernet's architectures theirs.
"""

import re
from collections.abc import Sequence

import torch
from torch import nn

from .configuration_efficientbert import EfficientBertConfig


def nearest_layers(student_layers: int, teacher_layers: int) -> tuple[int, ...]:
    """For every student layer, the teacher layer at the same part of the depth, counted from 0.

    In a student deeper than its teacher, neighbours share one.
    """
    if student_layers <= teacher_layers:
        return tuple((layer + 1) * teacher_layers // student_layers - 1 for layer in range(student_layers))
    return tuple(layer * teacher_layers // student_layers for layer in range(student_layers))


def origin_name(name: str, origins: Sequence[int]) -> str:
    """The name, in another encoder, of the weight that a weight is taken from.

    Args:
        name: Of the weight, within the encoder or a model around it.
        origins: For every layer, the other encoder's.
    """
    return re.sub(r"\blayers\.(\d+)\.", lambda match: f"layers.{origins[int(match[1])]}.", name)


def head_dim(name: str, config: EfficientBertConfig) -> int:
    """Width of a head in the layer of a weight.

    Args:
        name: Of a weight of the attention, within the encoder or a model around it.
        config: Of the encoder.
    """
    match = re.search(r"\blayers\.(\d+)\.", name)
    assert match is not None
    return config.attentions[int(match[1])][1]


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
        return tensor.unflatten(0, (3, -1, head_dim(name, config)))  # (3, H, d, D) or (3, H, d)
    if name.endswith("attention.output.weight"):
        return tensor.unflatten(1, (-1, head_dim(name, config)))  # (D, H, d)
    return tensor


def slice_weights(
    whole: nn.Module, whole_config: EfficientBertConfig, part: nn.Module, part_config: EfficientBertConfig
) -> dict[str, torch.Tensor]:
    """The shared weights of a smaller model, contiguous: what is shared, and how; gradients flow back.

    Args:
        whole: Model whose weights are shared.
        whole_config: Of the encoder in it.
        part: Model of a smaller architecture: names and shapes of its weights count.
        part_config: Of the encoder in it.

    Raises:
        ValueError: if the smaller model is larger anywhere.
    """
    if part_config.num_hidden_layers > whole_config.num_hidden_layers:
        raise ValueError(
            f"an architecture of {part_config.num_hidden_layers} layers is no part of one of "
            f"{whole_config.num_hidden_layers}"
        )
    origins = nearest_layers(part_config.num_hidden_layers, whole_config.num_hidden_layers)
    shared = dict(whole.named_parameters())
    weights = {}
    for name, parameter in part.named_parameters():
        origin = origin_name(name, origins)
        if origin not in shared:
            raise ValueError(f"the architecture is no part of the largest, which has no {origin}")
        source = split_sides(origin, shared[origin], whole_config)
        wanted = split_sides(name, parameter, part_config).shape
        if any(mine > theirs for mine, theirs in zip(wanted, source.shape)):
            raise ValueError(f"{name} of shape {tuple(wanted)} is no part of the largest's {tuple(source.shape)}")
        leading = source[tuple(slice(size) for size in wanted)]
        if name.endswith("layer_norm.weight") and part_config.hidden_size != whole_config.hidden_size:
            leading = leading * (whole_config.hidden_size / part_config.hidden_size) ** 0.5
        elif ".attention.qkv." in name and head_dim(name, part_config) != head_dim(origin, whole_config):
            factor = (head_dim(name, part_config) / head_dim(origin, whole_config)) ** 0.25
            leading = torch.cat((leading[:2] * factor, leading[2:]))  # not the values
        weights[name] = leading.reshape(parameter.shape).contiguous()
    return weights
