"""The finished models beside their teacher: quality on the same rows, and what each costs here."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from efficientbert.search.compression.arguments import CompressArguments
from efficientbert.search.compression.own_rows import BATCH_SIZE, OwnRows
from efficientbert.search.compression.plan import BYTES
from efficientbert.search.costs.arguments import BenchmarkArguments
from efficientbert.search.costs.comparison import (
    count_encoder_parameters,
    load_model,
    measure_times,
    prepare,
    quieten,
    run_in,
)
from efficientbert.search.costs.timing import torch_threads
from efficientbert.train.metrics.intervals import interval
from efficientbert.train.model_folder import loading
from efficientbert.train.model_folder.tokenizer_check import ignore_segments, reads_segments
from efficientbert.train.tasks.prediction import predict, score_draws
from efficientbert.train.tasks.task import TaskData


ROUNDS = 20  # in which every model is timed once
DRAWS = 2000  # of the rows, for the intervals


def measure_models(
    models: Mapping[str, str],
    args: CompressArguments,
    threads: int,
    runtime: str | None,
    batch_size: int = 1,
    rounds: int = ROUNDS,
) -> dict[str, dict[str, float]]:
    """Milliseconds of one text, megabytes of the weights and parameters of the encoders of models, timed in turns.

    Args:
        models: Folders or Hub ids by name.
        args: Arguments of the run.
        threads: CPU threads.
        runtime: What runs them; None for PyTorch.
        batch_size: Texts at a time.
        rounds: In which every model is timed once.
    """
    quieten()
    timed = BenchmarkArguments([*models.values()], [batch_size], args.max_length, threads, rounds=rounds)
    with torch_threads(threads), TemporaryDirectory() as folder:
        loaded = [load_model(name, "float32") for name in models.values()]
        counts = [count_encoder_parameters(model) for model in loaded]
        placed = [prepare(name, model, timed, "cpu") for name, model in zip(models.values(), loaded)]
        vocab_size = min(model.config.vocab_size for model in placed)
        calls = [
            run_in(runtime, name, model, threads, Path(folder, str(number)))
            for number, (name, model) in enumerate(zip(models.values(), placed))
        ]
        times = measure_times(calls, vocab_size, timed, "cpu")
    return {
        name: {
            "latency_ms": float(np.median(by_batch[batch_size])) / batch_size,
            "parameters": count,
            "megabytes": BYTES * count / 1e6,
        }
        for name, by_batch, count in zip(models, times, counts)
    }


def score_models(
    models: Mapping[str, str], own: OwnRows, device: torch.device, seed: int
) -> dict[str, dict[str, Any]]:
    """The main figure of the teacher and of models on the rows to score, with intervals over the same draws of rows.

    Args:
        models: Folders of what was fine-tuned on the rows, by name.
        own: The rows.
        device: Where to compute.
        seed: Of the draws.

    Returns:
        Of `teacher` and every model `metric`, `quality`, `interval_95`, all `metrics`, `split`, `rows`, and `draws`,
        the qualities of the draws; empty where nothing is to be scored.
    """
    if own.scored is None:
        return {}
    found = {"teacher": score_model(own.teacher.model, own, own.scored, seed)}
    for name, folder in models.items():
        model, _ = loading.load_model(own.task.auto_class, folder, "model", dtype=torch.float32)
        if not reads_segments(model, own.task.tokenizer):
            ignore_segments(model)
        found[name] = score_model(model.to(device), own, own.scored, seed)
    return found


def score_model(model: PreTrainedModel, own: OwnRows, data: TaskData, seed: int) -> dict[str, Any]:
    """The figures of one model; see `score_models`."""
    scored = score_draws(own.task, predict(model, own.task, data, BATCH_SIZE), data, DRAWS, seed)
    return {
        "metric": scored.name,
        "metrics": scored.metrics,
        "quality": scored.score,
        "interval_95": list(interval(scored.draws)),
        "draws": scored.draws,
        "split": data.split,
        "rows": len(data.rows),
    }
