"""Keeps libraries from printing what nobody asked for."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator, MutableMapping
from contextlib import ExitStack, contextmanager


SILENT = {
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",  # which weights are missing or left over is looked at here
    "TOKENIZERS_PARALLELISM": "true",  # as it is; said aloud, no forked worker warns of it
}


def settle_output(environment: MutableMapping[str, str] = os.environ) -> None:
    """Silences progress bars and reports of the libraries, unless the user has set their variables.

    They read them when they are imported.
    """
    for name, value in SILENT.items():
        environment.setdefault(name, value)
    if not sys.stderr.isatty():  # on a terminal, a download shall show how far it is
        environment.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # transformers' bar of loaded weights is one too


@contextmanager
def quiet_logs() -> Iterator[None]:
    """Silences, for a while, what libraries log and warn of on their own ways."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextmanager
def quiet_bars() -> Iterator[None]:
    """Silences, for a while, the bars that `settle_output` silences in a command; other than it, it leaves a process
    of the user's as it was.
    """
    import datasets  # here, as a command must answer before they are loaded
    from huggingface_hub import constants
    from transformers.utils import logging as library

    with ExitStack() as after:
        unset = datasets.config.HF_DATASETS_DISABLE_PROGRESS_BARS is None
        if unset and not datasets.are_progress_bars_disabled():
            datasets.disable_progress_bars()
            after.callback(datasets.enable_progress_bars)
        unset = constants.HF_HUB_DISABLE_PROGRESS_BARS is None
        if unset and library.is_progress_bar_enabled() and not sys.stderr.isatty():
            library.disable_progress_bar()
            after.callback(library.enable_progress_bar)
        yield
