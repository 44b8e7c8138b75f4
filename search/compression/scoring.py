"""The finished models beside their teacher: quality with paired intervals, and what each costs here."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from efficientbert.search.compression.arguments import CompressArguments
from efficientbert.search.costs.arguments import BenchmarkArguments
from efficientbert.search.costs.comparison import count_encoder_parameters, load_model, measure_times, prepare, quieten
from efficientbert.train.metrics import compute_metric
from efficientbert.train.metrics.intervals import LEVEL, figures_of_rows
from efficientbert.train.tasks.division import scored_data
from efficientbert.train.tasks.prediction import main_score, predict
from efficientbert.train.tasks.trained import load_trained


ROUNDS = 20  # in which every model is timed once
DRAWS = 2000  # of the rows, for the intervals
BYTES = 4  # of a weight in float32


def measure_models(models: Mapping[str, str], args: CompressArguments, threads: int) -> dict[str, dict]:
    """Milliseconds of one text, megabytes of the weights and parameters of the encoders of models, timed in turns.

    Args:
        models: Folders or Hub ids by name.
        args: Arguments of the run.
        threads: CPU threads.
    """
    quieten()
    timed = BenchmarkArguments([*models.values()], [1], args.max_length, threads, rounds=ROUNDS)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        loaded = [load_model(name, "float32") for name in models.values()]
        counts = [count_encoder_parameters(model) for model in loaded]
        placed = [prepare(name, model, timed, "cpu") for name, model in zip(models.values(), loaded)]
        times = measure_times(placed, timed, "cpu")
    finally:
        torch.set_num_threads(before)
    return {
        name: {
            "latency_ms": float(np.median(by_batch[1])),
            "parameters": count,
            "megabytes": BYTES * count / 1e6,
        }
        for name, by_batch, count in zip(models, times, counts)
    }


def score_models(models: Mapping[str, str], args: CompressArguments, kind: str, device: Any) -> dict[str, dict]:
    """The main figure of fine-tuned models on the rows to score, with intervals over the same draws of rows.

    Args:
        models: Folders or Hub ids by name, the teacher first.
        args: Arguments of the run.
        kind: What is predicted.
        device: Where to compute.

    Returns:
        Of every model `metrics`, `quality`, `interval_95`, and `draws`, the qualities of the draws; empty where
        nothing is to be scored.
    """
    source = replace(args, kind=kind)
    found: dict[str, dict] = {}
    for name, folder in models.items():
        task, model = load_trained(folder, source.task_arguments(), device, args.train_split)
        parts = scored_data(source, task)
        if not parts:
            return {}
        data = parts[0]
        predictions = task.predict(predict(model, task, data, 64), data)
        references, options, metric = task.references(data), task.metric_options(), task.metric()
        metrics = compute_metric(metric, predictions, references, **options)
        figures = figures_of_rows(metric, predictions, references, options)
        rng = np.random.default_rng(args.seed)
        count = len(references)
        draws = [main_score(figures(rng.integers(count, size=count)), metric) for _ in range(DRAWS)]
        found[name] = {
            "metric": main_name(metrics),
            "metrics": metrics,
            "quality": main_score(metrics, metric),
            "interval_95": interval(np.array(draws)),
            "draws": np.array(draws),
            "split": data.split,
            "rows": count,
        }
    return found


def main_name(metrics: Mapping[str, float]) -> str:
    """What the main figure is called; see `main_score`."""
    return next((name for name in ("best_f1", "f1") if name in metrics), next(iter(metrics)))


def interval(draws: np.ndarray) -> list[float]:
    """The middle 95% of draws."""
    return np.nanquantile(draws, ((1 - LEVEL) / 2, (1 + LEVEL) / 2)).tolist()
