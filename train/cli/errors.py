"""What bad input raises, and what is told of other errors."""

import difflib
import errno
from collections.abc import Iterable

from safetensors import SafetensorError


class InputError(ValueError):
    """Bad input of a user: the message names what, where and what would be right, in one line."""


# What loading a model, a configuration or a tokenizer raises where there is none, or a broken one.
LOAD_ERRORS: tuple[type[Exception], ...] = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    SafetensorError,
    TypeError,
    ValueError,
)


def bad_input_errors() -> tuple[type[Exception], ...]:
    """What bad input raises here and in the files that travel with a model, which know no `InputError`.

    They are imported here, when something has been raised: a command must answer before torch is loaded.
    """
    from huggingface_hub.errors import StrictDataclassError

    from efficientbert.ffn_efficientbert import ExpressionError

    return (InputError, ExpressionError, StrictDataclassError)


def one_line(error: BaseException, longest: int = 300) -> str:
    """What an error says, in one line; its kind where it says nothing."""
    return " ".join(str(error).split())[:longest] or type(error).__name__


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """What a message on an unknown name ends with: a question for the nearest of the known ones, if any is near."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def disk_full(error: BaseException) -> bool:
    """Whether an error says that a disk, or a quota, is full."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error)
