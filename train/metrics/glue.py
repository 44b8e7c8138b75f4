"""The GLUE metrics over the whole corpus; also a module of `evaluate`: `evaluate.load("<folder>/glue.py", "mrpc")`."""

import datasets
import evaluate
import numpy as np


CITATION = """\
@inproceedings{wang2019glue,
  title={{GLUE}: A Multi-Task Benchmark and Analysis Platform for Natural Language Understanding},
  author={Wang, Alex and Singh, Amanpreet and Michael, Julian and Hill, Felix and Levy, Omer and Bowman, Samuel R.},
  booktitle={ICLR},
  year={2019}
}
"""
INPUTS = """
Args:
    predictions: Predicted classes as whole numbers; for stsb, predicted similarities.
    references: The true classes or similarities, as many as predictions.
Returns:
    accuracy, f1, matthews_correlation, pearson or spearmanr, as the task asks: fractions, not percentages.
"""


def accuracy(predictions: np.ndarray, references: np.ndarray) -> float:
    """Share of equal rows."""
    return float((predictions == references).mean())


def f1(predictions: np.ndarray, references: np.ndarray) -> float:
    """F1 of class 1; 0.0 without true positives."""
    predicted, true = predictions == 1, references == 1
    hits = np.count_nonzero(predicted & true)
    return float(2 * hits / (np.count_nonzero(predicted) + np.count_nonzero(true))) if hits else 0.0


def matthews_correlation(predictions: np.ndarray, references: np.ndarray) -> float:
    """Matthews correlation of any number of classes (Gorodkin 2004); 0.0 where one side is constant."""
    least = min(predictions.min(), references.min())
    most = max(predictions.max(), references.max())
    predicted, true = (np.bincount(side - least, minlength=most - least + 1) for side in (predictions, references))
    rows, hits = len(references), np.count_nonzero(predictions == references)
    variances = (rows**2 - predicted @ predicted) * float(rows**2 - true @ true)
    return float((hits * rows - predicted @ true) / np.sqrt(variances)) if variances else 0.0


def pearson(predictions: np.ndarray, references: np.ndarray) -> float:
    """Pearson correlation; 0.0 where one side is constant, not-a-number where there is one among the rows."""
    if np.ptp(predictions) == 0 or np.ptp(references) == 0:
        return 0.0
    left, right = predictions - predictions.mean(), references - references.mean()
    return float(np.clip(left @ right / np.sqrt((left @ left) * (right @ right)), -1, 1))


def spearmanr(predictions: np.ndarray, references: np.ndarray) -> float:
    """Pearson correlation of the ranks; see there for what is undefined."""
    return pearson(ranks(predictions), ranks(references))


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, as `scipy.stats.rankdata` gives them, but quick enough for a thousand draws of many rows.

    Equal values share the middle of theirs; not-a-number has none.
    """
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.where(np.isnan(values), np.nan, (np.cumsum(counts) - (counts - 1) / 2)[places])


METRICS = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews_correlation": matthews_correlation,
    "pearson": pearson,
    "spearmanr": spearmanr,
}
TASKS = {
    "cola": ("matthews_correlation",),
    "sst2": ("accuracy",),
    "mrpc": ("accuracy", "f1"),
    "qqp": ("accuracy", "f1"),
    "stsb": ("pearson", "spearmanr"),
    "mnli": ("accuracy",),
    "mnli_matched": ("accuracy",),
    "mnli_mismatched": ("accuracy",),
    "qnli": ("accuracy",),
    "rte": ("accuracy",),
    "wnli": ("accuracy",),
    "ax": ("accuracy", "matthews_correlation"),
    "accuracy": ("accuracy",),  # any classification task
}


def row_values(task: str, predictions: list[float], references: list[float]) -> dict[str, np.ndarray]:
    """What every row adds to the figures of a task: its class or number, predicted and true, each of shape `(N,)`.

    Raises:
        ValueError: if they are no such classes or numbers.
    """
    kinds, wanted = ("iuf", "a number") if task == "stsb" else ("iu", "the whole number of a class")
    values = {"predictions": np.asarray(predictions), "references": np.asarray(references)}
    for name, column in values.items():
        if column.ndim != 1 or column.dtype.kind not in kinds or len(column) == 0:
            raise ValueError(f"{name} must be {wanted} in every row")
    return values


def figures(task: str, values: dict[str, np.ndarray]) -> dict[str, float]:
    """The figures of a task over rows, given what each of them adds."""
    return {name: METRICS[name](**values) for name in TASKS[task]}


def compute(task: str, predictions: list[float], references: list[float]) -> dict[str, float]:
    """The figures of a task over a whole corpus.

    Raises:
        ValueError: see `row_values`.
    """
    return figures(task, row_values(task, predictions, references))


class Glue(evaluate.Metric):
    """Metrics of one GLUE task, or of one's own: `accuracy` for classification, `stsb` for regression."""

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in TASKS:
            raise ValueError(f"unknown GLUE task {self.config_name!r}; known are {', '.join(map(repr, TASKS))}")
        number = datasets.Value("float64" if self.config_name == "stsb" else "int64")
        return evaluate.MetricInfo(
            description="GLUE metrics over the whole corpus",
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": number, "references": number}),
        )

    def _compute(self, predictions: list[float], references: list[float]) -> dict[str, float]:
        return compute(self.config_name, predictions, references)
