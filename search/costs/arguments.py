"""What a comparison of models can be told."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from efficientbert.train.cli.errors import InputError
from efficientbert.train.files.local_paths import looks_local
from efficientbert.train.model_folder.model_names import PRESETS


def bert(layers: int, hidden_size: int, heads: int, intermediate_size: int) -> dict[str, Any]:
    """The configuration of a BERT."""
    sizes = {"num_hidden_layers": layers, "hidden_size": hidden_size, "num_attention_heads": heads}
    return {"model_type": "bert"} | sizes | {"intermediate_size": intermediate_size}


# Configurations of other encoders as published, for comparison with random weights.
PUBLISHED: dict[str, dict[str, Any]] = {
    "bert-base": bert(12, 768, 12, 3072),
    "tinybert-4": bert(4, 312, 12, 1200),
    "tinybert-6": bert(6, 768, 12, 3072),
    "minilm-l6-h384": bert(6, 384, 12, 1536),
    "minilm-l12-h384": bert(12, 384, 12, 1536),
    "xtremedistil-l6-h256": bert(6, 256, 8, 1024),
    "mobilebert-tiny": {
        "model_type": "mobilebert",
        "num_feedforward_networks": 2,
        "use_bottleneck_attention": True,
        "key_query_shared_bottleneck": False,
    },
    "ettin-17m": {
        "model_type": "modernbert",
        "vocab_size": 50368,
        "num_hidden_layers": 7,
        "hidden_size": 256,
        "num_attention_heads": 4,
        "intermediate_size": 384,
    },
}

KNOWN = (*PRESETS, *PUBLISHED)
NOT_FOUND = f"cannot be found (known names are {', '.join(KNOWN)}, .json files, folders and Hub ids)"
DTYPE_NAMES = ("float32", "float16", "bfloat16")
RUNTIMES = ("eager", "compile", "onnx", "onnx-int8")


@dataclass
class BenchmarkArguments:
    """Compares parameters, FLOPs, latency and peak memory of encoders side by side, as a Markdown table and JSON.

    All models are timed in one process, one after the other in every round, on random tokens without padding; what is
    reported is the median over the rounds, with the quartiles. A GPU is used if there is one; CUDA_VISIBLE_DEVICES=
    (empty) keeps to the CPU.
    """

    first = ("models", "batch_sizes", "sequence_length", "threads", "output_json")
    group = "how models are timed"

    models: list[str] = field(
        metadata={
            "help": f"Presets ({', '.join(PRESETS)}), published sizes ({', '.join(PUBLISHED)}), config.json "
            "files, folders or Hub ids; speed-ups are relative to the first.",
            "path": True,
            "words": KNOWN,
        }
    )
    batch_sizes: list[int] = field(
        default_factory=lambda: [1, 16], metadata={"help": "Sequences of a batch; every size is timed."}
    )
    sequence_length: int = field(default=128, metadata={"help": "Tokens of every sequence."})
    threads: int = field(default=2, metadata={"help": "CPU threads that every model uses."})
    attention: str = field(
        default="sdpa",
        metadata={"help": "Attention implementation of every model: sdpa, eager, or another of transformers."},
    )
    dtype: str = field(
        default="float32", metadata={"help": "Type of weights and activations: float32, float16 or bfloat16."}
    )
    runtimes: list[str] = field(
        default_factory=lambda: ["eager"],
        metadata={
            "help": f"What runs every model: some of {', '.join(RUNTIMES)}; onnx is onnxruntime, on the CPU. "
            "All models are timed in all of them."
        },
    )
    rounds: int = field(
        default=20, metadata={"help": "Rounds, in each of which every model is timed once at every batch size."}
    )
    output_json: str | None = field(
        default=None,
        metadata={"help": "JSON file for the results, replaced if it exists; by default none.", "path": True},
    )

    def check(self) -> None:
        """Checks what can be checked without a model.

        Raises:
            InputError: naming the argument that is wrong.
        """
        for name in ("sequence_length", "threads", "rounds"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} {getattr(self, name)}: must be positive")
        if not self.batch_sizes or min(self.batch_sizes) < 1 or len(set(self.batch_sizes)) < len(self.batch_sizes):
            raise InputError(f"--batch_sizes {self.batch_sizes}: must be positive and different")
        if not self.models:
            raise InputError("--models: name at least one")
        for name in self.models:
            if name not in KNOWN and looks_local(name) and not os.path.exists(name):  # the Hub would be asked
                raise InputError(f"model {name!r}: {NOT_FOUND}: there is no such file or folder")
        if self.dtype not in DTYPE_NAMES:
            raise InputError(f"--dtype {self.dtype!r}: unknown; known are {', '.join(DTYPE_NAMES)}")
        if not self.runtimes or len(set(self.runtimes)) < len(self.runtimes):
            raise InputError(f"--runtimes {' '.join(self.runtimes)}: name at least one, and none twice")
        for name in self.runtimes:
            if name not in RUNTIMES:
                raise InputError(f"--runtimes {name!r}: unknown; known are {', '.join(RUNTIMES)}")
            if name.startswith("onnx") and self.dtype != "float32":
                raise InputError(f"--runtimes {name!r}: runs in float32 or int8; leave out --dtype {self.dtype}")
        if self.output_json:
            path = Path(self.output_json)
            if path.is_dir() or not os.access(path.absolute().parent, os.W_OK):
                raise InputError(f"--output_json '{path}': cannot be written there")
