"""What distillation looks at inside an encoder: hidden states, queries, keys and values of every layer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput

from efficientbert.modeling_efficientbert import EfficientBertModel


class CaptureError(RuntimeError):
    """An encoder did not yield what was to be captured: never taken for a zero loss."""


@dataclass(frozen=True)
class Captures:
    """Inner tensors of one forward pass.

    Attributes:
        hidden_states: Embedding output and every layer's output, each of shape `(B, L, D)`.
        queries, keys, values: One tensor a layer, each of shape `(B, H, L, d)`; None of a layer without attention.
        logits: Masked-LM scores of the tokens to predict, of shape `(M, V)`, where the batch has such tokens and the
            model a head for them.
    """

    hidden_states: tuple[torch.Tensor, ...]
    queries: tuple[torch.Tensor, ...]
    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]
    logits: torch.Tensor | None = None

    def predictions(self) -> torch.Tensor:
        """The logits.

        Raises:
            CaptureError: if there are none.
        """
        if self.logits is None:
            raise CaptureError("captured no logits")
        return self.logits

    def attention_scores(self, layer: int) -> torch.Tensor:
        """Scaled dot products before softmax, without mask or position bias, of shape `(B, H, L, L)`."""
        query, key = self.queries[layer], self.keys[layer]
        return torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(-1, -2))


NOTHING = Captures((), (), (), ())  # of a teacher that no loss looks at


class CapturingTeacher(Protocol):
    """What plays the teacher in a distillation of inner states."""

    def __call__(self, batch: Mapping[str, torch.Tensor]) -> Captures:
        """The captures of a batch; None in the place of those that nobody reads."""


@dataclass(frozen=True)
class Needs:
    """Which captures of a teacher are read, by their numbers.

    Attributes:
        hidden_states: From 0, the embedding's output.
        queries, keys, values: Layers from 0.
        logits: Whether the logits are.
    """

    hidden_states: frozenset[int] = frozenset()
    queries: frozenset[int] = frozenset()
    keys: frozenset[int] = frozenset()
    values: frozenset[int] = frozenset()
    logits: bool = False

    def __or__(self, other: "Needs") -> "Needs":
        return Needs(
            self.hidden_states | other.hidden_states,
            self.queries | other.queries,
            self.keys | other.keys,
            self.values | other.values,
            self.logits or other.logits,
        )

    def of(self, captures: Captures) -> Captures:
        """The captures that are read, with None in the place of all others."""

        def only(tensors: tuple[torch.Tensor, ...], numbers: frozenset[int]) -> tuple[torch.Tensor, ...]:
            kept = tuple(tensor if number in numbers else None for number, tensor in enumerate(tensors))
            return cast(tuple[torch.Tensor, ...], kept)  # the others are never read

        return Captures(
            only(captures.hidden_states, self.hidden_states),
            only(captures.queries, self.queries),
            only(captures.keys, self.keys),
            only(captures.values, self.values),
            captures.logits if self.logits else None,
        )


class Recorder:
    """Records the captures of an encoder through hooks, leaving its code alone.

    Args:
        encoder: A model that takes `output_hidden_states=True`.
        projections: For every layer, its query, key and value linears, or the one linear that computes all three; none
            of a layer without attention.
        num_heads: Attention heads of every layer.
    """

    def __init__(self, encoder: nn.Module, projections: Sequence[Sequence[nn.Module]], num_heads: Sequence[int]):
        self.encoder = encoder
        self.num_layers = len(projections)
        self.num_heads = num_heads
        # Only while recording: gradient checkpointing runs layers again, and what it made then would be kept alive.
        self._outputs: dict[tuple[int, int], torch.Tensor] | None = None
        for layer, linears in enumerate(projections):
            for index, linear in enumerate(linears):
                linear.register_forward_hook(self._hook(layer, index))

    def _hook(self, layer: int, index: int) -> Callable:
        def keep(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
            if self._outputs is not None:
                self._outputs[layer, index] = output

        return keep

    def record(self, forward: Callable[[], BaseModelOutput]) -> Captures:
        """Runs `forward`, a call of the encoder with `output_hidden_states=True`, and returns what passed by.

        Raises:
            CaptureError: if a layer is missing or a tensor has the wrong shape.
        """
        outputs: dict[tuple[int, int], torch.Tensor] = {}
        self._outputs = outputs
        try:
            hidden_states = forward().hidden_states
        finally:
            self._outputs = None
        if hidden_states is None or len(hidden_states) != self.num_layers + 1:
            found = 0 if hidden_states is None else len(hidden_states)
            raise CaptureError(f"captured {found} hidden states of an encoder with {self.num_layers} layers")
        captured = []
        for layer, heads in enumerate(self.num_heads):
            if heads == 0:
                captured.append([None] * 3)
                continue
            parts = [outputs[key] for key in sorted(outputs) if key[0] == layer]
            parts = list(parts[0].chunk(3, dim=-1)) if len(parts) == 1 else parts
            if len(parts) != 3 or any(part.shape[:2] != hidden_states[0].shape[:2] for part in parts):
                raise CaptureError(f"captured no queries, keys and values in layer {layer} of {self.num_layers}")
            captured.append([part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in parts])
        queries, keys, values = zip(*captured)
        return Captures(tuple(hidden_states), queries, keys, values)


def student_recorder(encoder: EfficientBertModel) -> Recorder:
    """The recorder of our own encoder."""
    projections = [[] if layer.attention is None else [layer.attention.qkv] for layer in encoder.layers]
    return Recorder(encoder, projections, [heads for heads, _ in encoder.config.attentions])
