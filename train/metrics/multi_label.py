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
        probabilities, true = np.asarray(predictions), np.asarray(references)
        predicted = (probabilities >= THRESHOLD).astype(int)
        return {
            "micro_f1": float(f1_score(true, predicted, average="micro", zero_division=0.0)),
            "macro_f1": float(f1_score(true, predicted, average="macro", zero_division=0.0)),
            "average_precision": float(average_precision_score(true, probabilities, average="micro"))
            if true.any()
            else 0.0,
        }
