"""The GLUE metrics as one module of `evaluate`, over the whole corpus: `evaluate.load("<folder>/glue.py", "mrpc")`."""

import datasets
import evaluate
import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef


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


def correlation(function, predictions: np.ndarray, references: np.ndarray) -> float:
    """A correlation of two columns of shape `(N,)`; 0.0 where one of them is constant, which leaves it undefined.

    Args:
        function: `pearsonr` or `spearmanr` of scipy.
        predictions: Predicted numbers. Not-a-number among them makes the result not-a-number.
        references: True numbers.
    """
    if np.ptp(predictions) == 0 or np.ptp(references) == 0:
        return 0.0
    return float(function(predictions, references).statistic)


METRICS = {
    "accuracy": lambda predictions, references: float(accuracy_score(references, predictions)),
    "f1": lambda predictions, references: float(f1_score(references, predictions, zero_division=0.0)),
    "matthews_correlation": lambda predictions, references: float(matthews_corrcoef(references, predictions)),
    "pearson": lambda predictions, references: correlation(pearsonr, predictions, references),
    "spearmanr": lambda predictions, references: correlation(spearmanr, predictions, references),
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


class Glue(evaluate.Metric):
    """Metrics of one GLUE task, or of one's own: `accuracy` for classification, `stsb` for regression.

    Defined where the formula is not: a correlation with a constant column is 0.0, so is the Matthews correlation of
    constant predictions, and so is the F1 of no true positives.
    """

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in TASKS:
            raise ValueError(f"unknown GLUE task {self.config_name!r}; known are {', '.join(TASKS)}")
        number = datasets.Value("float64" if self.config_name == "stsb" else "int64")
        return evaluate.MetricInfo(
            description="GLUE metrics over the whole corpus",
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": number, "references": number}),
        )

    def _compute(self, predictions: list[float], references: list[float]) -> dict[str, float]:
        # format="numpy" would hand over float32.
        predictions, references = np.asarray(predictions), np.asarray(references)
        return {name: METRICS[name](predictions, references) for name in TASKS[self.config_name]}
