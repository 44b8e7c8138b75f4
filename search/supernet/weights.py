"""Weights of supernets and candidates that a search keeps."""

import os
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from efficientbert.train.engine.finite import check_finite


def save_weights(module: nn.Module, path: Path) -> None:
    """Keeps all weights of a module, those that several of its parts share once.

    Raises:
        NotFiniteError: if one is not finite.
    """
    check_finite(dict(module.named_parameters()), path.stem)
    temporary = path.with_suffix(f".{os.getpid()}.partial")
    try:
        save_file({name: weight.detach().cpu().contiguous() for name, weight in module.named_parameters()}, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@torch.no_grad()
def load_weights(module: nn.Module, path: Path) -> None:
    """Gives a module the weights that `save_weights` kept of its like."""
    kept = load_file(path)
    for name, weight in module.named_parameters():
        weight.copy_(kept[name])
