"""Metrics of several labels a row as one module of `evaluate`: `evaluate.load("<folder>/multi_label.py")`."""

import datasets
import evaluate
import numpy as np
from sklearn.metrics import average_precision_score, f1_score


CITATION = """\
@article{scikit-learn,
  title={Scikit-learn: Machine Learning in {P}ython},
  author={Pedregosa, Fabian and Varoquaux, Ga{\\"e}l and Gramfort, Alexandre and Michel, Vincent and others},
  journal={Journal of Machine Learning Research},
  volume={12},
  year={2011}
}
"""
INPUTS = """
Args:
    predictions: A list for every row with the probability of every label.
    references: As many lists of 0 and 1.
Returns:
    Fractions over the whole corpus. micro_f1 of all labels together and macro_f1, their mean, where a label is
    predicted from a probability of 0.5 on; average_precision of all labels together, whatever the threshold.
"""
THRESHOLD = 0.5


def row_values(name: str, predictions: list[list[float]], references: list[list[int]]) -> dict[str, np.ndarray]:
    """What every row adds to the figures: probabilities and the true 0 and 1, each of shape `(N, labels)`.

    Raises:
        ValueError: if they are no such lists, or not as many of one length.
    """
    values = {"predictions": np.asarray(predictions, float), "references": np.asarray(references, int)}
    if values["predictions"].ndim != 2 or values["predictions"].shape != values["references"].shape:
        raise ValueError("predictions and references must be as many lists of one length")
    return values


def figures(name: str, values: dict[str, np.ndarray]) -> dict[str, float]:
    """The figures over rows, given what each of them adds; 0.0 where there is nothing to find."""
    probabilities, true = values["predictions"], values["references"]
    predicted = (probabilities >= THRESHOLD).astype(int)
    # Without a true label scikit-learn warns and gives the same.
    average_precision = average_precision_score(true, probabilities, average="micro") if true.any() else 0.0
    return {
        "micro_f1": float(f1_score(true, predicted, average="micro", zero_division=0.0)),
        "macro_f1": float(f1_score(true, predicted, average="macro", zero_division=0.0)),
        "average_precision": float(average_precision),
    }


def compute(name: str, predictions: list[list[float]], references: list[list[int]]) -> dict[str, float]:
    """The figures over a whole corpus.

    Raises:
        ValueError: see `row_values`.
    """
    return figures(name, row_values(name, predictions, references))


class MultiLabel(evaluate.Metric):
    """F1 and average precision of several labels a row; 0.0 where there is nothing to find and nothing found."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Metrics of several labels a row",
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.List(datasets.Value("float64")),
                    "references": datasets.List(datasets.Value("int64")),
                }
            ),
        )

    def _compute(self, predictions: list[list[float]], references: list[list[int]]) -> dict[str, float]:
        return compute(self.config_name, predictions, references)
