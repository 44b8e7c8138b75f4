"""Weights of supernets and candidates that a search keeps."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from efficientbert.train.files.writing import writing


def save_weights(module: nn.Module, path: Path) -> None:
    """Keeps all weights of a module, those that several of its parts share once."""
    with writing(path) as temporary:
        save_file({name: weight.detach().cpu().contiguous() for name, weight in module.named_parameters()}, temporary)


@torch.no_grad()
def load_weights(module: nn.Module, path: Path) -> None:
    """Gives a module the weights that `save_weights` kept of its like."""
    kept = load_file(path)
    for name, weight in module.named_parameters():
        weight.copy_(kept[name])
