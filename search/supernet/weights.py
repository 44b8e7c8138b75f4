"""Weights of supernets and candidates that a search keeps."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from efficientbert.train.cli.errors import InputError
from efficientbert.train.engine.finite import check_finite
from efficientbert.train.files.writing import writing


def save_weights(module: nn.Module, path: Path, notes: Mapping[str, str] | None = None) -> None:
    """Keeps all weights of a module, those that several of its parts share once, and notes beside them.

    Raises:
        NotFiniteError: if one is not finite.
    """
    check_finite(dict(module.named_parameters()), path.stem)
    weights = {name: weight.detach().cpu().contiguous() for name, weight in module.named_parameters()}
    with writing(path) as temporary:
        save_file(weights, temporary, dict(notes or {}))


@torch.no_grad()
def load_weights(module: nn.Module, path: Path) -> None:
    """Gives a module the weights that `save_weights` kept of its like.

    Raises:
        InputError: if the file cannot be read, or holds the weights of another module.
    """
    try:
        kept = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"weights '{path}': cannot be read: {error}") from None
    for name, weight in module.named_parameters():
        if name not in kept or kept[name].shape != weight.shape:
            raise InputError(
                f"weights '{path}': lack a weight '{name}' of shape {list(weight.shape)}; they were written for "
                "another search or by another version: choose another --output_dir"
            )
        weight.copy_(kept[name])


def read_note(path: Path, name: str) -> str | None:
    """A note that `save_weights` kept; None if there is none, or the file was dropped meanwhile."""
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get(name)
    except (OSError, SafetensorError):
        return None
