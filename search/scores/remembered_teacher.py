"""A teacher's answers, kept: candidates are trained on the same text in the same order, one after the other."""

from collections.abc import Mapping, Sequence

import psutil
import torch

from efficientbert.train.distillation.capture import Captures, Needs
from efficientbert.train.distillation.losses import LossRecipe
from efficientbert.train.distillation.teacher import Teacher


ROOM = 3 * 2**30  # bytes
SHARE = 0.25  # of the memory that is free where the teacher is


class RememberedTeacher:
    """A teacher that reads no batch twice while there is room for what it made of it.

    Args:
        teacher: The teacher.
        recipes: What of it students are compared with; nothing else is kept.
        room: Bytes to keep at most; batches that no room is left for are read anew. By default `ROOM`, but no more
            than a `SHARE` of what is free now.
    """

    def __init__(self, teacher: Teacher, recipes: Sequence[LossRecipe], room: float | None = None):
        self.teacher = teacher
        self.room = min(ROOM, SHARE * free_memory(teacher.model.device)) if room is None else room
        self.needs = Needs()
        for recipe in recipes:
            self.needs |= recipe.needs
        self._kept: dict[tuple, Captures] = {}

    def __call__(self, batch: Mapping[str, torch.Tensor]) -> Captures:
        """See `Teacher`; where nothing looks, there is None in the place of a tensor."""
        key = tuple((name, tensor.shape, tensor.cpu().numpy().tobytes()) for name, tensor in sorted(batch.items()))
        if key in self._kept:
            return self._kept[key]
        found = self.needs.of(self.teacher(batch))
        size = _size(found)
        if size <= self.room:
            self.room -= size
            self._kept[key] = found
        return found

    def forget(self) -> None:
        """Lets go of everything, for good."""
        self.room = 0
        self._kept.clear()


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


def _size(captures: Captures) -> int:
    """Bytes, of views those of all that they hold."""
    tensors = [*captures.hidden_states, *captures.queries, *captures.keys, *captures.values, captures.logits]
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in tensors if tensor is not None
    }
    return sum(storage.nbytes() for storage in storages.values())
