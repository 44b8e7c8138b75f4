"""Initialisation of a student from another checkpoint: its leading dimensions, its layers repeated.

So the published narrow models start from the wide one's weights, and the deep one from one of half its depth. But
attention is sliced head by head here, so that a head of the student is the leading part of a head.
"""

import torch
from torch import nn

from efficientbert.modeling_efficientbert import EfficientBertAttention, EfficientBertEmbeddings, EfficientBertModel


@torch.no_grad()
def initialize_from_checkpoint(student: EfficientBertModel, source: EfficientBertModel) -> None:
    """Copies what fits of another encoder's weights: leading rows, channels, heads, and feed-forward networks.

    Layer l of L takes layer l * K // L of the source's K. Where the student is larger, the rest keeps its weights.

    Args:
        student: Encoder to initialise, of any width and depth.
        source: Encoder to copy from.
    """
    _copy_embeddings(student.embeddings, source.embeddings)
    for index, layer in enumerate(student.layers):
        origin = source.layers[index * len(source.layers) // len(student.layers)]
        _copy_attention(layer.attention, origin.attention)
        copy_module(layer.layer_norm, origin.layer_norm)
        for ffn, other in zip(layer.ffns, origin.ffns):
            copy_module(ffn, other)


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


def _copy_embeddings(target: EfficientBertEmbeddings, source: EfficientBertEmbeddings) -> None:
    for name in ("word_embeddings", "position_embeddings", "token_type_embeddings", "layer_norm"):
        copy_module(getattr(target, name), getattr(source, name))
    copy_leading(target.projection.bias, source.projection.bias)
    mine, theirs = (
        module.projection.weight.unflatten(1, (3, -1))  # (D, 3, E): next, this and previous token
        for module in (target, source)
    )
    copy_leading(mine, theirs)


def _copy_attention(target: EfficientBertAttention, source: EfficientBertAttention) -> None:
    for part in ("weight", "bias"):
        mine, theirs = (
            getattr(module.qkv, part).unflatten(0, (3, -1, module.head_dim))  # (3, H, d, D) and (3, H, d)
            for module in (target, source)
        )
        copy_leading(mine, theirs)
    mine, theirs = (
        module.output.weight.unflatten(1, (-1, module.head_dim))  # (D, H, d)
        for module in (target, source)
    )
    copy_leading(mine, theirs)
    copy_leading(target.output.bias, source.output.bias)
