"""The folder of a trimmed model: all that its source has, with the model and its tokenizer anew."""

import shutil
from fnmatch import fnmatch
from pathlib import Path

from efficientbert.train.distillation.projection import PROJECTION_FILE
from efficientbert.train.model_folder.upload import split_files


# What a smaller vocabulary makes wrong, and is written anew or left out.
OF_THE_WHOLE = (
    "model*.safetensors*",
    "config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "onnx/*",
    "openvino/*",
    "export.json",
    "README.md",
)


def copy_parts(source: Path, work: Path) -> None:
    """Copies what a model's folder has beside its weights and tokenizer: its code, and the parts of an embedder."""
    kept, _ = split_files(source)
    if (source / PROJECTION_FILE).exists():  # which later training goes on from
        kept.append(PROJECTION_FILE)
    for name in kept:
        if not any(fnmatch(name, pattern) for pattern in OF_THE_WHOLE):
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, work / name)
