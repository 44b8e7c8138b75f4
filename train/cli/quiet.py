"""Keeps libraries from printing what nobody asked for."""

import os
import sys
from collections.abc import MutableMapping


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
