"""EfficientBERT: small, fast BERT-like encoders, searched and distilled from any teacher.

Importing the package makes the Auto classes of transformers know its models, without importing transformers or torch
before they are needed: each is registered when transformers' own Auto classes are imported.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .configuration_efficientbert import EfficientBertConfig
    from .modeling_efficientbert import (
        EfficientBertForMaskedLM,
        EfficientBertForMultipleChoice,
        EfficientBertForQuestionAnswering,
        EfficientBertForSequenceClassification,
        EfficientBertForTokenClassification,
        EfficientBertModel,
        EfficientBertPreTrainedModel,
    )

__version__ = "0.1.0"

__all__ = [
    "EfficientBertConfig",
    "EfficientBertForMaskedLM",
    "EfficientBertForMultipleChoice",
    "EfficientBertForQuestionAnswering",
    "EfficientBertForSequenceClassification",
    "EfficientBertForTokenClassification",
    "EfficientBertModel",
    "EfficientBertPreTrainedModel",
]


def __getattr__(name: str) -> Any:
    """The classes of `__all__`, and the commands as functions, imported when they are first asked for."""
    if name == "commands":
        return importlib.import_module(f"{__name__}.commands")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    file = "configuration" if name == "EfficientBertConfig" else "modeling"
    return getattr(importlib.import_module(f"{__name__}.{file}_efficientbert"), name)


AUTO = "transformers.models.auto"
# Where transformers keeps Auto classes, and the file of ours that they are to know.
PAIRS = {
    f"{AUTO}.configuration_auto": f"{__name__}.configuration_efficientbert",
    f"{AUTO}.modeling_auto": f"{__name__}.modeling_efficientbert",
}
# What our files need and what, while it is loaded itself, loads the Auto classes.
NEEDED = ("transformers.configuration_utils", "transformers.modeling_utils", "transformers.modeling_layers")


def _is_loading(file: str) -> bool:
    """Whether the import of a file has begun and not ended."""
    return file in sys.modules and getattr(sys.modules[file].__spec__, "_initializing", False)


def _register() -> None:
    """Makes the Auto classes that are loaded know ours; waits while anything that ours need is still being loaded."""
    if any(map(_is_loading, NEEDED)):
        return
    for auto_file, our_file in PAIRS.items():
        if auto_file not in sys.modules or _is_loading(auto_file):
            continue
        auto, ours = sys.modules[auto_file], importlib.import_module(our_file)
        config = importlib.import_module(PAIRS[f"{AUTO}.configuration_auto"])
        for auto_class, place in config.AUTO_MAP.items():
            file, _, name = place.rpartition(".")
            if our_file.endswith(file) and hasattr(ours, name):
                key = "efficientbert" if auto_class == "AutoConfig" else config.EfficientBertConfig
                getattr(auto, auto_class).register(key, getattr(ours, name), exist_ok=True)


class _AfterImport(importlib.abc.MetaPathFinder):
    """Finds some files as any other finder does, and registers our classes when one of them has been loaded."""

    watched = (*PAIRS, *PAIRS.values(), *NEEDED)

    def find_spec(
        self, name: str, path: Any, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        spec = importlib.machinery.PathFinder.find_spec(name, path, target) if name in self.watched else None
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                spec._initializing = False  # of it, all is there
                _register()

            spec.loader.exec_module = execute_and_register
        return spec


_register()
if not any(type(finder).__qualname__ == _AfterImport.__qualname__ for finder in sys.meta_path):
    sys.meta_path.insert(0, _AfterImport())
