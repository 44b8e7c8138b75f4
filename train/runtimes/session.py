"""A graph in onnxruntime, called as a model is."""

from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch

from efficientbert.train.cli.errors import InputError
from efficientbert.train.cli.threads import available_cores


def require_runtime() -> ModuleType:
    """The package onnxruntime, which only exported models need.

    Raises:
        InputError: if it is not installed, or what writes graphs is not.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"exported models need the package {error.name}; pip install 'efficientbert[onnx]'") from None
    return onnxruntime


class Session:
    """Runs a graph on the CPU.

    Idle threads wait without spinning: beside another program, or another thread pool in this one, spinning ones cost
    up to half the speed.

    Args:
        path: Of the graph.
        threads: Threads of one operator; by default as many as there are cores for this process.
    """

    def __init__(self, path: Path, threads: int | None = None):
        package = require_runtime()
        options = package.SessionOptions()
        options.intra_op_num_threads = threads or available_cores()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = package.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.inputs = [one.name for one in self.session.get_inputs()]
        self.outputs = [one.name for one in self.session.get_outputs()]

    def __call__(self, **tensors: torch.Tensor) -> SimpleNamespace:
        """The outputs of the graph by name, as tensors; inputs that it does not take are left out."""
        given = {name: tensors[name].numpy() for name in self.inputs}
        found = self.session.run(None, given)
        return SimpleNamespace(**{name: torch.from_numpy(array) for name, array in zip(self.outputs, found)})
