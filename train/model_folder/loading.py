"""Loading models and tokenizers of users."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging

from efficientbert.train.cli.errors import LOAD_ERRORS, InputError


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Keeps transformers from printing which weights are missing or left over, where the caller looks at that."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model.

    Raises:
        InputError: if it has none.
    """
    try:
        return AutoTokenizer.from_pretrained(name)
    except LOAD_ERRORS as error:
        raise InputError(f"model {name}: no tokenizer: {' '.join(str(error).split())[:300]}") from None
