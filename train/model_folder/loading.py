"""Loading what users name: configurations, tokenizers, models."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.auto_factory import _BaseAutoModelClass
from transformers.utils import logging

from efficientbert.train.cli.errors import LOAD_ERRORS, InputError, bad_input_errors, one_line
from efficientbert.train.model_folder.model_names import check_model


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Keeps transformers from printing which weights are missing or left over, where the caller looks at that."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


@contextmanager
def loading(name: str, what: str, fault: str = "cannot be loaded") -> Iterator[None]:
    """Refuses at once what no loader can find, and turns what a loader raises into bad input.

    Args:
        name: Folder or Hub id.
        what: What it is to be, for messages: `model`, `teacher`, …
        fault: What is said where a loader fails, before its reason.

    Raises:
        InputError: naming it.
    """
    check_model(name, what, fault)
    try:
        with quiet_loading():
            yield
    except LOAD_ERRORS + bad_input_errors() as error:
        if isinstance(error, InputError):
            raise
        said = f"no {error} is known" if isinstance(error, KeyError) else one_line(error)
        raise InputError(f"{what} {name!r}: {fault}: {said}") from None


def find_folder(name: str, what: str) -> Path:
    """The folder of a model, fetched from the Hub where it is none. Arguments and errors as of `loading`."""
    if Path(name).is_dir():
        return Path(name)
    with loading(name, what):
        return Path(snapshot_download(name))


def load_config(name: str, what: str, fault: str = "cannot be loaded") -> PreTrainedConfig:
    """The configuration of a model. Arguments and errors as of `loading`."""
    with loading(name, what, fault):
        return AutoConfig.from_pretrained(name)


def load_tokenizer(name: str, what: str = "model") -> PreTrainedTokenizerBase:
    """The tokenizer of a model. Arguments and errors as of `loading`."""
    with loading(name, what, "no tokenizer"):
        return AutoTokenizer.from_pretrained(name)


def is_embedder(folder: Path) -> bool:
    """Whether sentence-transformers has saved the model in the folder."""
    return (folder / "modules.json").is_file()


def load_model(
    auto_class: type[_BaseAutoModelClass],
    name: str,
    what: str,
    fault: str = "cannot be loaded",
    new_head: bool = False,
    **options: Any,
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """A model, and the library's report of weights that are missing or left over, which it does not print.

    Args:
        auto_class: What loads it.
        name: As of `loading`.
        what: As of `loading`.
        fault: As of `loading`.
        new_head: Whether a head may have another shape than the checkpoint's; it is then made anew.
        **options: Of `from_pretrained`.

    Raises:
        InputError: if it cannot be loaded, has no layers, or other shapes than its configuration says.
    """
    with loading(name, what, fault):
        model, report = auto_class.from_pretrained(
            name, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    layers = getattr(model.config, "num_hidden_layers", 1)
    if layers < 1:
        raise InputError(f"{what} {name!r}: {fault}: its config.json has {layers} layers; it must have at least 1")
    inner = f"{model.base_model_prefix}."
    for key, stored, wanted in sorted(report["mismatched_keys"]):
        if key.startswith(inner) or not new_head:
            raise InputError(
                f"{what} {name!r}: {fault}: {key!r} has shape {tuple(stored)} in the checkpoint but {tuple(wanted)} "
                "by its config.json; save both together"
            )
    return model, report
