"""EfficientBERT: small, fast BERT-like encoders, searched and distilled from any teacher.

Importing the package makes the Auto classes of transformers know its models, without importing transformers or torch
before they are needed: each is registered when transformers' own Auto classes are imported.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable
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
    """The classes of `__all__`, imported when they are first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    file = "configuration_efficientbert" if name == "EfficientBertConfig" else "modeling_efficientbert"
    return getattr(importlib.import_module(f"{__name__}.{file}"), name)


def _register_config(auto: ModuleType) -> None:
    from .configuration_efficientbert import EfficientBertConfig

    auto.AutoConfig.register("efficientbert", EfficientBertConfig, exist_ok=True)


def _register_models(module: ModuleType) -> None:
    from .configuration_efficientbert import AUTO_MAP, EfficientBertConfig

    auto = sys.modules.get("transformers.models.auto.modeling_auto")
    models = importlib.import_module(f"{__name__}.modeling_efficientbert")
    # Each of the two modules may be imported first, and the models' own imports lead to the other.
    if auto is None or not all(hasattr(models, name) for name in __all__ if name != "EfficientBertConfig"):
        return
    for auto_class, place in AUTO_MAP.items():
        if auto_class != "AutoConfig":
            model = getattr(models, place.rpartition(".")[2])
            getattr(auto, auto_class).register(EfficientBertConfig, model, exist_ok=True)


REGISTER: dict[str, Callable[[ModuleType], None]] = {
    "transformers.models.auto.configuration_auto": _register_config,
    "transformers.models.auto.modeling_auto": _register_models,
    f"{__name__}.modeling_efficientbert": _register_models,
}


class _AfterImport(importlib.abc.MetaPathFinder):
    """Finds the modules of `REGISTER` as any other finder does, and registers our classes when they are loaded."""

    def find_spec(
        self, name: str, path: Any, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in REGISTER:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                REGISTER[name](module)

            spec.loader.exec_module = execute_and_register
        return spec


for _name, _register in REGISTER.items():
    if _name in sys.modules:
        _register(sys.modules[_name])
if not any(type(finder).__qualname__ == _AfterImport.__qualname__ for finder in sys.meta_path):
    sys.meta_path.insert(0, _AfterImport())
