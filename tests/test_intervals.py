"""Confidence intervals against scipy's, slow resampling with the metrics themselves, and closed forms."""

import math
import random

import evaluate
import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from efficientbert.train.cli.errors import InputError
from efficientbert.train.metrics import compute_metric, glue
from efficientbert.train.metrics import intervals as module
from efficientbert.train.metrics.intervals import bootstrap


def classes(count, rows=37, seed=0):
    rng = random.Random(seed)
    references = [rng.randrange(count) for _ in range(rows)]
    return [true if rng.random() < 0.6 else rng.randrange(count) for true in references], references


def similarities(rows=23):
    rng = random.Random(1)
    references = [rng.choice([0.0, 1.5, 2.25, 5.0]) for _ in range(rows)]
    predictions = [reference + rng.gauss(0, 2) for reference in references]
    predictions[0] = predictions[-1]  # a tie in the ranks
    return predictions, references


def tags(rows=19):
    rng = random.Random(6)
    kinds = ["O", "O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    references = [[rng.choice(kinds) for _ in range(rng.randint(0, 6))] for _ in range(rows)]
    return [[tag if rng.random() < 0.7 else rng.choice(kinds) for tag in text] for text in references], references


def draws(rows, resamples, seed):
    """Row numbers of shape `(resamples, rows)`, drawn all at once."""
    return np.random.default_rng(seed).integers(rows, size=(resamples, rows))


def slow(metric, predictions, references, resamples, seed):
    """Every draw through the whole metric, and the middle 95% by counting."""
    drawn = {}
    for rows in draws(len(predictions), resamples, seed):
        picked = [[side[row] for row in rows] for side in (predictions, references)]
        for name, value in compute_metric(metric, *picked).items():
            drawn.setdefault(name, []).append(value)
    return {name: percentile_ends(values) for name, values in drawn.items()}


def percentile_ends(values):
    values = sorted(values)
    ends = []
    for share in (0.025, 0.975):
        place = share * (len(values) - 1)
        low = math.floor(place)
        high = min(low + 1, len(values) - 1)
        ends.append(values[low] + (place - low) * (values[high] - values[low]))
    return ends


@pytest.mark.parametrize(
    ("metric", "data"),
    [
        ("accuracy", classes(5)),
        ("rte", classes(2)),
        ("mrpc", classes(2)),
        ("mrpc", classes(2, rows=3)),  # draws without true positives
        ("cola", classes(2)),
        ("cola", classes(2, rows=4)),  # draws where one side is constant
        ("ax", classes(3)),
        ("ax", ([7, 2, 2, 9, 7, 9], [7, 2, 9, 9, 2, 2])),  # whatever the ids are
        ("entities", tags()),
        ("entities", tags(rows=2)),  # draws without entities
        ("tags", tags()),
        ("stsb", similarities()),
        ("stsb", similarities(rows=3)),
    ],
)
def test_figures_against_slow_resampling(metric, data):
    expected = slow(metric, *data, 60, seed=5)
    result = bootstrap(metric, *data, 60, seed=5)
    assert list(result) == list(expected)
    for name, ends in result.items():
        assert ends == pytest.approx(expected[name], abs=1e-12)


@pytest.mark.filterwarnings("ignore")  # scikit-learn and scipy warn of draws where one side is constant
@pytest.mark.parametrize(
    ("metric", "data", "functions"),
    [
        ("ax", classes(3), {"accuracy": accuracy_score, "matthews_correlation": matthews_corrcoef}),
        ("mrpc", classes(2), {"accuracy": accuracy_score, "f1": f1_score}),
        (
            "stsb",
            similarities(),
            {
                "pearson": lambda true, predicted: scipy.stats.pearsonr(true, predicted).statistic,
                "spearmanr": lambda true, predicted: scipy.stats.spearmanr(true, predicted).statistic,
            },
        ),
    ],
)
def test_against_scipy_on_the_metrics_of_other_libraries(metric, data, functions):
    predictions, references = map(np.array, data)
    result = bootstrap(metric, *data, 70, seed=8)
    assert list(result) == list(functions)
    for name, function in functions.items():
        expected = scipy.stats.bootstrap(
            (references, predictions),
            function,
            paired=True,
            vectorized=False,
            method="percentile",
            confidence_level=0.95,
            n_resamples=70,
            rng=np.random.default_rng(8),
        ).confidence_interval
        assert result[name] == pytest.approx(tuple(expected), abs=1e-12)


def test_a_single_row():
    assert bootstrap("mrpc", [1], [1], 5, seed=0) == {"accuracy": (1.0, 1.0), "f1": (1.0, 1.0)}


def test_figures_have_one_definition(monkeypatch):
    """Intervals are drawn through the very functions that give the figures."""
    monkeypatch.setitem(glue.METRICS, "accuracy", lambda predictions, references: 0.125)
    data = classes(2)
    assert compute_metric("rte", *data) == {"accuracy": 0.125}
    assert bootstrap("rte", *data, 10, seed=0) == {"accuracy": (0.125, 0.125)}


def questions(seed=2):
    """30 questions with ids in another order among the references, a third of them unanswerable."""
    rng = random.Random(seed)
    predictions, references = [], []
    for number in range(30):
        texts = ["black cat", "the cat"] if number % 3 else []
        references.append({"id": f"q{number}", "answers": {"text": texts, "answer_start": [0] * len(texts)}})
        text = rng.choice(["cat", "black dog", "black cat", ""])
        predictions.append({"id": f"q{number}", "prediction_text": text, "no_answer_probability": number / 30})
    rng.shuffle(references)
    return predictions, references


@pytest.mark.parametrize("metric", ["squad", "squad_v2"])
def test_squad_draws_questions(metric):
    """A question drawn twice is two questions with one answer."""
    predictions, references = questions()
    if metric == "squad":
        references = [entry for entry in references if entry["answers"]["text"]]
        known = {entry["id"] for entry in references}
        predictions = [
            {key: entry[key] for key in ("id", "prediction_text")} for entry in predictions if entry["id"] in known
        ]
    by_id = {entry["id"]: entry for entry in references}
    drawn = {}
    for rows in draws(len(predictions), 40, 3):
        picked = [
            ({**predictions[row], "id": str(place)}, by_id[predictions[row]["id"]]) for place, row in enumerate(rows)
        ]
        texts = [{**reference, "id": prediction["id"]} for prediction, reference in picked]
        for name, value in compute_metric(metric, [prediction for prediction, _ in picked], texts).items():
            drawn.setdefault(name, []).append(value)
    result = bootstrap(metric, predictions, references, 40, seed=3)
    names = {"squad": ["exact_match", "f1"], "squad_v2": ["exact", "f1", "HasAns_exact", "HasAns_f1", "NoAns_exact"]}
    assert set(result) == {*names[metric], *(["NoAns_f1"] if metric == "squad_v2" else [])}
    for name, ends in result.items():
        assert ends == pytest.approx(percentile_ends(drawn[name]), abs=1e-9)


def test_accuracy_against_the_binomial_distribution():
    """Of 200 rows with 150 right, the share right in a draw is binomial: 2.5% and 97.5% at 138 and 162."""
    predictions, references = [1] * 150 + [0] * 50, [1] * 200

    def tail(hits):  # P(X <= hits)
        return sum(math.comb(200, k) * 0.75**k * 0.25 ** (200 - k) for k in range(hits + 1))

    ends = [next(hits for hits in range(201) if tail(hits) >= share) / 200 for share in (0.025, 0.975)]
    result = bootstrap("accuracy", predictions, references, 20_000, seed=0)["accuracy"]
    assert result == pytest.approx(ends, abs=0.006)  # one row is 0.005


def test_pearson_against_fishers_interval():
    rng = np.random.default_rng(4)
    left = rng.normal(size=800)
    right = 0.8 * left + 0.6 * rng.normal(size=800)
    correlation = np.corrcoef(left, right)[0, 1]
    expected = np.tanh(np.arctanh(correlation) + np.array([-1.96, 1.96]) / math.sqrt(797))
    result = bootstrap("stsb", list(left), list(right), 4000, seed=0)["pearson"]
    assert result == pytest.approx(expected, abs=0.006)


def test_the_seed_decides():
    data = classes(3)
    first = bootstrap("ax", *data, 100, seed=1)
    assert bootstrap("ax", *data, 100, seed=1) == first != bootstrap("ax", *data, 100, seed=2)


def test_not_a_number_is_not_hidden():
    result = bootstrap("stsb", [1.0, math.nan, 2.0, 3.0], [1.0, 2.0, 3.0, 3.0], 50, seed=0)
    assert all(math.isnan(end) for ends in result.values() for end in ends)


class Foreign(evaluate.Metric):
    """Share of equal rows, with a table beside it; refuses draws without a 1."""

    def _info(self):
        import datasets

        number = datasets.Value("int64")
        features = datasets.Features({"predictions": number, "references": number})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references):
        if 1 not in references:
            raise ValueError("no\npositive rows")
        share = np.mean(np.array(predictions) == np.array(references))
        return {"share": share, "table": [1, 2], "name": "text", "rows": len(predictions)}


def test_metric_of_another_kind(monkeypatch):
    monkeypatch.setattr(module, "load_metric", lambda name: Foreign())
    predictions, references = classes(2)
    result = bootstrap("somebody/else", predictions, references, 50, seed=9)
    assert list(result) == ["share"]  # counts have no interval
    assert result["share"] == pytest.approx(slow("accuracy", predictions, references, 50, 9)["accuracy"])
    message = (
        "^metric 'somebody/else': cannot be computed on a draw of the rows: no positive rows; --bootstrap 0 leaves"
    )
    with pytest.raises(InputError, match=message):
        bootstrap("somebody/else", [0, 0, 0, 1], [0, 0, 0, 1], 50, seed=9)
