"""Numbers that are not finite end a training, and are never saved."""

from collections.abc import Mapping

import torch

from efficientbert.train.cli.errors import InputError


class NotFiniteError(InputError):
    """Loss, gradient, outputs or weights of a model are not finite."""


def check_finite(weights: Mapping[str, torch.Tensor], what: str) -> None:
    """Refuses weights that must not be saved.

    Args:
        weights: By name, such as a module's `state_dict`.
        what: What they are of, for the message.

    Raises:
        NotFiniteError: naming the first that is not finite.
    """
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise NotFiniteError(
                f"{what}: weight {name!r} is not finite and not saved; lower --learning_rate or look at the data"
            )
