"""Measured latency of encoders."""

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.modeling_efficientbert import EfficientBertModel


def time_rounds(
    models: Sequence[nn.Module], inputs: Mapping[str, torch.Tensor], rounds: int, warmup: int = 2
) -> Iterator[list[float]]:
    """Forward times of several models, interleaved so that whatever else the machine does meets all of them alike.

    Args:
        models: Models in eval mode, all on the inputs' device.
        inputs: Keyword arguments of every model's forward.
        rounds: How often every model is timed.
        warmup: Untimed forwards of every model before that.

    Yields:
        After each round, every model's milliseconds.
    """
    device = next(iter(inputs.values())).device

    def finished() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    for number in range(-warmup, rounds):
        times = []
        for model in models:
            with torch.inference_mode():
                start = finished()
                model(**inputs)
                times.append(1000 * (finished() - start))
        if number >= 0:
            yield times


def measure_latency(
    models: Sequence[nn.Module], inputs: Mapping[str, torch.Tensor], rounds: int = 10, warmup: int = 2
) -> list[float]:
    """Median forward time of every model in milliseconds, measured as in [`time_rounds`]."""
    return [statistics.median(times) for times in zip(*time_rounds(models, inputs, rounds, warmup))]


def measure_config_latency(
    configs: Sequence[EfficientBertConfig], sequence_length: int, batch_size: int = 1, rounds: int = 10
) -> list[float]:
    """Median forward time of encoders with random weights on random tokens, in milliseconds, on the CPU.

    Args:
        configs: The architectures; their models are all built at once and timed in turn.
        sequence_length: Tokens of every sequence, at most each configuration's `max_position_embeddings`.
        batch_size: Sequences of a batch.
        rounds: How often every model is timed.
    """
    models = [EfficientBertModel(config).eval() for config in configs]
    vocab_size = min(config.vocab_size for config in configs)
    generator = torch.Generator().manual_seed(0)
    input_ids = torch.randint(vocab_size, (batch_size, sequence_length), generator=generator)
    return measure_latency(models, {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}, rounds)
