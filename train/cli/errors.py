"""What bad input raises, and what is told of other errors."""

import errno

from safetensors import SafetensorError


class InputError(ValueError):
    """Bad input of a user: the message names what, where and what would be right, in one line."""


# What loading a model, a configuration or a tokenizer raises where there is none, or a broken one.
LOAD_ERRORS = (AttributeError, KeyError, OSError, RuntimeError, SafetensorError, TypeError, ValueError)


def disk_full(error: Exception) -> bool:
    """Whether an error says that a disk, or a quota, is full."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error)
