"""The metrics against slow, obvious versions, other libraries and numbers worked out by hand."""

import math
import random
from pathlib import Path

import evaluate
import numpy as np
import pytest
from scipy.stats import pearsonr, rankdata, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from efficientbert.train import metrics
from efficientbert.train.cli.errors import InputError
from efficientbert.train.metrics import OURS, compute_metric, load_metric
from efficientbert.train.metrics import glue as glue_metrics


def slow_accuracy(predictions, references):
    return sum(p == r for p, r in zip(predictions, references)) / len(references)


def slow_f1(predictions, references):
    hits = sum(p == r == 1 for p, r in zip(predictions, references))
    precision, recall = hits / predictions.count(1), hits / references.count(1)
    return 2 * precision * recall / (precision + recall)


def slow_matthews(predictions, references):
    """Correlation of the two one-hot tables: for two classes, the Pearson correlation of the columns."""
    classes = sorted({*predictions, *references})

    def covariance(left, right):
        total = 0.0
        for c in classes:
            a, b = [x == c for x in left], [x == c for x in right]
            total += sum((x - sum(a) / len(a)) * (y - sum(b) / len(b)) for x, y in zip(a, b))
        return total

    variances = covariance(predictions, predictions) * covariance(references, references)
    return covariance(predictions, references) / math.sqrt(variances)


def slow_pearson(predictions, references):
    p, r = sum(predictions) / len(predictions), sum(references) / len(references)
    covariance = sum((x - p) * (y - r) for x, y in zip(predictions, references))
    return covariance / math.sqrt(sum((x - p) ** 2 for x in predictions) * sum((y - r) ** 2 for y in references))


def slow_spearman(predictions, references):
    def ranks(values):
        return [sum(v < value for v in values) + (values.count(value) + 1) / 2 for value in values]

    return slow_pearson(ranks(predictions), ranks(references))


SLOW = {
    "accuracy": slow_accuracy,
    "f1": slow_f1,
    "matthews_correlation": slow_matthews,
    "pearson": slow_pearson,
    "spearmanr": slow_spearman,
}
CLASSIFICATION = ["sst2", "mnli", "mnli_matched", "mnli_mismatched", "qnli", "rte", "wnli", "accuracy"]
EXPECTED = {name: ["accuracy"] for name in CLASSIFICATION} | {
    "cola": ["matthews_correlation"],
    "mrpc": ["accuracy", "f1"],
    "qqp": ["accuracy", "f1"],
    "stsb": ["pearson", "spearmanr"],
    "ax": ["accuracy", "matthews_correlation"],
}


@pytest.mark.parametrize("task", EXPECTED)
def test_glue_task_against_slow_versions(task):
    rng = random.Random(3)
    if task == "stsb":
        references = [rng.choice([0.0, 1.5, 2.25, 5.0]) for _ in range(57)]
        predictions = [reference + rng.gauss(0, 2) for reference in references]
        predictions[3] = predictions[7]  # a tie in the ranks
    else:
        references = [rng.randrange(3 if task in ("mnli", "ax") else 2) for _ in range(57)]
        predictions = [reference if rng.random() < 0.6 else rng.randrange(2) for reference in references]
    result = compute_metric(task, predictions, references)
    assert list(result) == EXPECTED[task]
    for name, value in result.items():
        assert type(value) is float
        assert value == pytest.approx(SLOW[name](predictions, references), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_glue_figures_against_scikit_learn_and_scipy(seed):
    rng = np.random.default_rng(seed)
    for count in (2, 3, 5):
        references, predictions = rng.integers(count, size=(2, 40))
        predictions = np.where(rng.random(40) < 0.5, references, predictions)
        figures = {name: function(predictions, references) for name, function in glue_metrics.METRICS.items()}
        assert figures == pytest.approx(
            {
                "accuracy": accuracy_score(references, predictions),
                "f1": f1_score(references == 1, predictions == 1),
                "matthews_correlation": matthews_corrcoef(references, predictions),
                "pearson": pearsonr(predictions, references).statistic,
                "spearmanr": spearmanr(predictions, references).statistic,
            },
            abs=1e-12,
        )
    values = np.round(rng.normal(size=50), 1)
    assert np.array_equal(glue_metrics.ranks(values), rankdata(values))


def test_matthews_correlation_whatever_the_ids_are():
    predictions, references = np.array([7, 2, 2, 9, 7, -9]), np.array([7, 2, 9, 9, 2, 2])
    found = glue_metrics.matthews_correlation(predictions, references)
    assert found == pytest.approx(matthews_corrcoef(references, predictions))


@pytest.mark.parametrize("name", OURS)
def test_modules_of_evaluate_give_the_same(name):
    """Every one of our metrics is also a module of `evaluate`, which adds nothing of its own."""
    predictions, references, file = [1, 0, 1, 1], [1, 0, 0, 1], "glue.py"
    if name == "stsb":
        predictions = [1.5, 0.25, 1.0, 2.0]
    elif name in ("squad", "squad_v2"):
        file, references = "squad.py", [answer(str(row), "cat") for row in range(4)]
        predictions = [say(str(row), text, row / 4) for row, text in enumerate(["cat", "black cat", "dog", ""])]
        if name == "squad":
            predictions = [{key: entry[key] for key in ("id", "prediction_text")} for entry in predictions]
    elif name in ("entities", "tags"):
        file, references, predictions = "entities.py", [["B-A", "I-A"], ["O"]], [["B-A", "O"], ["O"]]
    elif name == "multi_label":
        file, references, predictions = "multi_label.py", [[1, 0], [0, 1]], [[0.9, 0.2], [0.6, 0.4]]
    module = evaluate.load(str(Path(metrics.__file__).parent / file), name, keep_in_memory=True)
    found = module.compute(predictions=predictions, references=references)
    assert found == compute_metric(name, predictions, references) and found


def test_every_glue_name_is_known_to_the_module():
    assert set(glue_metrics.TASKS) == set(EXPECTED)
    with pytest.raises(ValueError, match="unknown GLUE task 'sst-3'"):
        evaluate.load(str(Path(metrics.__file__).parent / "glue.py"), "sst-3")


def test_glue_by_hand():
    # 3 hits, 1 miss, 1 false alarm, 1 correct rejection.
    predictions, references = [1, 1, 1, 0, 1, 0], [1, 1, 1, 1, 0, 0]
    assert compute_metric("mrpc", predictions, references) == {
        "accuracy": pytest.approx(4 / 6),
        "f1": pytest.approx(0.75),
    }
    result = compute_metric("cola", predictions, references)
    assert result["matthews_correlation"] == pytest.approx((3 * 1 - 1 * 1) / math.sqrt(4 * 4 * 2 * 2))


def test_glue_counts_over_the_whole_corpus_not_per_batch():
    metric = evaluate.load(str(Path(metrics.__file__).parent / "glue.py"), "mrpc", keep_in_memory=True)
    batches = [([1, 0], [1, 0]), ([0, 1], [1, 1]), ([0, 0], [0, 1])]
    for predictions, references in batches:
        metric.add_batch(predictions=np.array(predictions), references=np.array(references))
    result = metric.compute()
    assert result["f1"] == pytest.approx(slow_f1([1, 0, 0, 1, 0, 0], [1, 0, 1, 1, 0, 1]))
    per_batch = [compute_metric("mrpc", p, r)["f1"] for p, r in batches]
    assert result["f1"] != pytest.approx(sum(per_batch) / 3)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("task", "predictions", "references", "expected"),
    [
        ("stsb", [2.5, 2.5, 2.5], [1.0, 2.0, 3.0], {"pearson": 0.0, "spearmanr": 0.0}),
        ("stsb", [1.0, 2.0, 3.0], [2.5, 2.5, 2.5], {"pearson": 0.0, "spearmanr": 0.0}),
        ("stsb", [4.0], [3.0], {"pearson": 0.0, "spearmanr": 0.0}),
        ("cola", [1, 1, 1], [1, 0, 1], {"matthews_correlation": 0.0}),
        ("mrpc", [0, 0], [1, 1], {"accuracy": 0.0, "f1": 0.0}),
        ("mrpc", [0, 0], [0, 0], {"accuracy": 1.0, "f1": 0.0}),
    ],
)
def test_degenerate_glue_inputs(task, predictions, references, expected):
    assert compute_metric(task, predictions, references) == expected


@pytest.mark.parametrize(
    ("name", "predictions", "references", "message"),
    [
        ("accuracy", ["cat"], [1], "predictions must be the whole number of a class in every row"),
        ("accuracy", [1], [0.5], "references must be the whole number"),
        ("mrpc", [[1, 2]], [[1, 2]], "predictions must be the whole number"),
        ("stsb", ["cat"], [0.5], "predictions must be a number in every row"),
        ("squad", [1], [1], "needed is a dict with 'id' and 'prediction_text' for every question"),
        ("squad", [{"id": "1", "prediction_text": "a"}], [{"id": "1"}], "'id' and 'answers' for every question"),
        ("entities", [1], [1], "predictions must be a list of tags in every row"),
    ],
)
def test_rows_of_another_kind(name, predictions, references, message):
    with pytest.raises(InputError, match=f"^metric '{name}': cannot be computed: .*{message}"):
        compute_metric(name, predictions, references)


def test_not_a_number_is_not_hidden():
    result = compute_metric("stsb", [1.0, math.nan, 2.0], [1.0, 2.0, 3.0])
    assert math.isnan(result["pearson"]) and math.isnan(result["spearmanr"])


def answer(identity, *texts):
    return {"id": identity, "answers": {"text": list(texts), "answer_start": [0] * len(texts)}}


def say(identity, text, probability=None):
    return {"id": identity, "prediction_text": text, "no_answer_probability": probability}


def squad(predictions, references):
    predictions = [{key: p[key] for key in ("id", "prediction_text")} for p in predictions]
    return compute_metric("squad", predictions, references)


@pytest.mark.parametrize(
    ("prediction", "answers", "exact", "f1"),
    [
        ("the Cat!", ["cat"], 100, 100),  # case, article and punctuation do not count
        ("a  cat   sat", ["cat sat"], 100, 100),
        ("theatre", ["atre"], 0, 0),  # an article only as a word
        ("black cat", ["black dog house", "cat"], 0, 200 / 3),  # best answer: 1 common of 2 and 1
        ("cat cat", ["cat cat dog"], 0, 80),  # common words as a multiset: 2 of 2 and 3
        ("cat cat dog", ["cat dog dog"], 0, 200 / 3),  # cat and dog once each
        ("well-known", ["wellknown"], 100, 100),
        ("", ["cat"], 0, 0),
        ("", ["The"], 100, 0),  # as the official v1.1 script has it
        ("ein Haus", ["eine Haus"], 0, 50),
    ],
)
def test_squad_by_hand(prediction, answers, exact, f1):
    result = squad([say("q", prediction)], [answer("q", *answers)])
    assert result == {"exact_match": pytest.approx(exact), "f1": pytest.approx(f1)}


def test_squad_pairs_by_id():
    references = [answer("1", "cat"), answer("2", "dog")]
    assert squad([say("2", "dog"), say("1", "fish")], references) == {"exact_match": 50.0, "f1": 50.0}


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([say("1", "cat")], [answer("2", "cat")], "question '1' is in only one of predictions and references"),
        ([say("1", "a"), say("1", "b")], [answer("1", "a"), answer("2", "a")], "one entry for each id"),
        ([say("1", "cat")], [answer("1")], "question '1' has no answers"),
    ],
)
def test_squad_refuses(predictions, references, message):
    with pytest.raises(ValueError, match=message):
        squad(predictions, references)


def test_squad_v2_by_hand():
    references = [answer("1", "black cat"), answer("2", "dog"), answer("3"), answer("4"), answer("5", "the")]
    references += [answer("6", "the", "cow")]
    texts = ["cat", "dog", "", "fish", "", ""]
    predictions = [say(str(i + 1), text) for i, text in enumerate(texts)]
    # f1: 2/3, 1, 1, 0, 1 and 0, for "the" is no answer to compare with where there is another.
    assert compute_metric("squad_v2", predictions, references) == {
        "exact": pytest.approx(50.0),
        "f1": pytest.approx(100 * (2 / 3 + 3) / 6),
        "total": 6,
        "HasAns_exact": pytest.approx(50.0),
        "HasAns_f1": pytest.approx(100 * (2 / 3 + 2) / 4),
        "HasAns_total": 4,
        "NoAns_exact": 50.0,
        "NoAns_f1": 50.0,
        "NoAns_total": 2,
    }


def test_squad_v2_leaves_out_a_kind_that_does_not_occur():
    result = compute_metric("squad_v2", [say("1", "cat")], [answer("1", "cat")])
    assert result == {"exact": 100.0, "f1": 100.0, "total": 1, "HasAns_exact": 100.0, "HasAns_f1": 100.0} | {
        "HasAns_total": 1
    }


def squad_v2_cases():
    """60 questions with distinct probabilities, and what a no-answer threshold makes of each."""
    rng = random.Random(5)
    references, predictions, scores = [], [], []
    for number in range(60):
        probability = (number * 37 % 60 + 1) / 64
        has_answer = rng.random() < 1 - probability
        kinds = [("cat", 1.0, 1.0), ("black dog", 0.0, 0.0), ("black cat", 0.0, 2 / 3), ("", 0.0, 0.0)]
        text, exact, f1 = rng.choices(kinds, [4, 1, 2, 1])[0]
        references.append(answer(str(number), *(["cat"] if has_answer else [])))
        predictions.append(say(str(number), text, probability))
        empty = float(text == "")
        scores.append((probability, has_answer, exact if has_answer else empty, f1 if has_answer else empty))
    return predictions, references, scores


def slow_average(scores, column, threshold):
    """Average with every answer above the threshold withheld, as a percentage."""
    return 100 * sum(s[column] if s[0] <= threshold else float(not s[1]) for s in scores) / len(scores)


def test_squad_v2_best_thresholds_against_all_thresholds():
    predictions, references, scores = squad_v2_cases()
    result = compute_metric("squad_v2", predictions, references)
    for name, column in (("exact", 2), ("f1", 3)):
        assert result[name] == pytest.approx(slow_average(scores, column, 1.0))
        all_of_them = {t: slow_average(scores, column, t) for t in [0.0] + [s[0] for s in scores]}
        best = max(all_of_them.values())
        assert result[f"best_{name}"] == pytest.approx(best)
        assert all_of_them[result[f"best_{name}_thresh"]] == pytest.approx(best)
        assert best > result[name] and result[f"best_{name}_thresh"] > 0


def test_squad_v2_threshold_withholds_answers():
    predictions, references, scores = squad_v2_cases()
    result = compute_metric("squad_v2", predictions, references, no_answer_threshold=0.4)
    assert result["exact"] == pytest.approx(slow_average(scores, 2, 0.4))
    assert result["f1"] == pytest.approx(slow_average(scores, 3, 0.4))
    unanswerable = [s for s in scores if not s[1]]
    assert result["NoAns_f1"] == pytest.approx(slow_average(unanswerable, 3, 0.4))
    untouched = compute_metric("squad_v2", predictions, references)
    assert result["best_f1"] == untouched["best_f1"]


def test_squad_v2_best_is_no_answer_where_answers_only_hurt():
    predictions = [say("1", "fish", 0.1), say("2", "fish", 0.2)]
    result = compute_metric("squad_v2", predictions, [answer("1"), answer("2", "cat")])
    assert (result["exact"], result["best_exact"], result["best_exact_thresh"]) == (0.0, 50.0, 0.0)


def test_a_metric_on_disk_loads_by_path():
    path = str(Path(metrics.__file__).parent / "glue.py")
    with pytest.raises(InputError, match="unknown GLUE task 'default'"):
        load_metric(path)


@pytest.mark.parametrize("name", ["no_such_metric", "", "nobody/no_such_metric", "no/such/metric"])
def test_unknown_metric_is_one_line(name):
    with pytest.raises(InputError, match=f"^metric '{name}': ") as error:
        load_metric(name)
    assert "\n" not in str(error.value)


def test_modules_load_without_the_package(fresh, tmp_path):
    """As a user does with a copy of the file: nothing of the package may be imported by it."""
    for name in ("glue", "squad", "entities"):
        (tmp_path / f"{name}.py").write_bytes((Path(metrics.__file__).parent / f"{name}.py").read_bytes())
    program = (
        f"os.chdir({str(tmp_path)!r})\nimport evaluate\n"
        "assert evaluate.load('glue.py', 'rte').compute(predictions=[1, 0], references=[1, 1]) == {'accuracy': 0.5}\n"
        "evaluate.load('squad.py', 'squad_v2'), evaluate.load('entities.py', 'tags')\n"
        "assert not [name for name in sys.modules if name.startswith('efficientbert')]\n"
    )
    code, _, stderr = fresh(program)
    assert code == 0, stderr
