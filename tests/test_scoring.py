"""Evaluation of folders of tiny models on tiny GLUE, against one row at a time."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from scipy.stats import spearmanr
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
)

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.modeling_efficientbert import EfficientBertForSequenceClassification
from efficientbert.train import scoring
from efficientbert.train.cli.command import run_command
from efficientbert.train.cli.errors import InputError
from efficientbert.train.model_folder.card import write_card
from efficientbert.train.model_folder.results import add_results
from efficientbert.train.tasks import evaluation
from efficientbert.train.tasks.arguments import EvaluateArguments, TaskArguments
from efficientbert.train.tasks.evaluation import Result, card_results, glue_score
from efficientbert.train.tasks.prediction import length, predict
from efficientbert.train.tasks.trained import load_trained


NLI = ["entailment", "neutral", "contradiction"]
LABELS = {"mnli": NLI, "ax": NLI, "mrpc": ["not_equivalent", "equivalent"], "stsb": None, "cola": ["bad", "good"]}
SPLITS = {
    "mnli": ["validation_matched", "validation_mismatched", "test_matched", "test_mismatched"],
    "ax": ["test"],
    "mrpc": ["validation", "test"],
    "stsb": ["validation", "test"],
}
COLUMNS = {"mnli": ("premise", "hypothesis"), "ax": ("premise", "hypothesis")}
PAIR = ("sentence1", "sentence2")


@pytest.fixture(scope="module")
def glue(tmp_path_factory):
    """A folder with a few rows of four tasks; the test splits have no labels."""
    folder, rng = tmp_path_factory.mktemp("glue"), np.random.default_rng(0)
    configs = []
    for task, splits in SPLITS.items():
        configs.append(f"- config_name: {task}\n  data_files:")
        for split in splits:
            rows = 13 if "test" in split else 29
            texts = [
                [" ".join(f"word{i}" for i in rng.integers(60, size=rng.integers(2, 9))) for _ in range(rows)]
                for _ in PAIR
            ]
            if LABELS[task] is None:
                kind, labels = Value("float32"), rng.random(rows) * 5
            else:
                kind, labels = ClassLabel(names=LABELS[task]), rng.integers(len(LABELS[task]), size=rows)
            labels = [-1] * rows if "test" in split else labels.tolist()
            first, second = COLUMNS.get(task, PAIR)
            columns = {first: texts[0], second: texts[1], "label": labels, "idx": list(range(rows))}
            features = {first: Value("string"), second: Value("string"), "label": kind, "idx": Value("int32")}
            Dataset.from_dict(columns, features=Features(features)).to_parquet(folder / task / f"{split}.parquet")
            configs.append(f"  - split: {split}\n    path: {task}/{split}.parquet")
    (folder / "README.md").write_text("\n".join(["---", "configs:", *configs, "---", ""]), encoding="utf-8")
    return folder


def save_model(folder, tokenizer_from, labels, seed, **recorded):
    """A random classifier with the record of a fine-tuning."""
    torch.manual_seed(seed)
    sizes = {"vocab_size": 65, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
    sizes |= {"intermediate_size": 40, "max_position_embeddings": 64, "initializer_range": 0.6}
    named = {"num_labels": 1} if labels is None else {"id2label": dict(enumerate(labels))}
    model = BertForSequenceClassification(BertConfig(**sizes, **named, finetuning_task=recorded.get("task")))
    model.classifier.weight.data.normal_()
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer_from).save_pretrained(folder)
    steps = [{"step": "distill", "arguments": {"max_length": 9}}, {"step": "finetune", "arguments": recorded}]
    (folder / "provenance.json").write_text(json.dumps(steps), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory, teacher_folder):
    """A folder of three models; labels in other orders than the data's. `encoder` and a run in work are no models."""
    folder = tmp_path_factory.mktemp("models")
    names = ["contradiction", "entailment", "neutral"]
    save_model(folder / "mnli", teacher_folder(), names, 1, task="mnli", data="./glue", learning_rate=0.1)
    save_model(
        folder / "mrpc" / "seed-0", teacher_folder(), ["equivalent", "not_equivalent"], 2, task="mrpc", max_length=8
    )
    save_model(folder / "stsb", teacher_folder(), None, 3, task="stsb")
    save_model(folder / "rte.partial", teacher_folder(), names, 4, task="rte")
    model = AutoModelForSequenceClassification.from_pretrained(folder / "stsb").bert
    model.save_pretrained(folder / "encoder")
    return folder


def evaluate(*argv):
    run_command(scoring.main, EvaluateArguments, "evaluate", list(map(str, argv)))


def slow_logits(folder, rows, columns, max_length=128):
    """One row at a time, straight from transformers."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    logits = []
    for row in rows:
        text = tokenizer(*(row[name] for name in columns), truncation=True, max_length=max_length, return_tensors="pt")
        with torch.no_grad():
            logits.append(model(**text).logits[0].numpy())
    return logits


def rows_of(glue, task, split):
    return list(Dataset.from_parquet(str(glue / task / f"{split}.parquet")))


def slow_accuracy(folder, glue, task, split, max_length=128):
    names = AutoModelForSequenceClassification.from_pretrained(folder).config.id2label
    rows = rows_of(glue, task, split)
    logits = slow_logits(folder, rows, COLUMNS.get(task, PAIR), max_length)
    right = [names[int(row.argmax())] == LABELS[task][true["label"]] for row, true in zip(logits, rows)]
    return sum(right) / len(right)


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_predictions_in_order_whatever_the_batch_size(batch_size, models, glue):
    task, model = load_trained(str(models / "mnli"), TaskArguments(data=str(glue)), "cpu")
    data = task.load("validation_matched")
    expected = slow_logits(models / "mnli", rows_of(glue, "mnli", "validation_matched"), COLUMNS["mnli"])
    model.train()
    assert np.allclose(predict(model, task, data, batch_size), expected, atol=1e-4)
    assert model.training
    assert predict(model.eval(), task, data, batch_size)[0].shape == (3,) and not model.training


def test_length_of_a_feature():
    assert length([5, 6, 7]) == 3 and length([[5, 6], [5, 6, 7, 8], [5]]) == 4 and length([]) == 0


def test_a_folder_of_models(models, glue, tmp_path, capsys):
    """Every model on its own task, MNLI on both dev sets, with what the records say; the mean over tasks."""
    evaluate("--model", models, "--data", glue, "--output_json", tmp_path / "s.json", "--bootstrap", "50")
    report = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    results = {(result["model"], result["task"]): result for result in report["results"]}
    assert list(results) == [
        ("mnli", "mnli_matched"),
        ("mnli", "mnli_mismatched"),
        ("mrpc/seed-0", "mrpc"),
        ("stsb", "stsb"),
    ]
    means = []
    for kind in ("matched", "mismatched"):
        result = results["mnli", f"mnli_{kind}"]
        expected = slow_accuracy(models / "mnli", glue, "mnli", f"validation_{kind}")
        assert result["metrics"] == {"accuracy": pytest.approx(expected)} and result["rows"] == 29
        low, high = result["intervals"]["accuracy"]
        assert low < expected < high
        means.append(expected)
    mrpc = results["mrpc/seed-0", "mrpc"]["metrics"]
    assert mrpc["accuracy"] == pytest.approx(slow_accuracy(models / "mrpc" / "seed-0", glue, "mrpc", "validation", 8))
    assert mrpc["accuracy"] != pytest.approx(slow_accuracy(models / "mrpc" / "seed-0", glue, "mrpc", "validation"))
    rows = rows_of(glue, "stsb", "validation")
    predicted = [row[0] for row in slow_logits(models / "stsb", rows, PAIR)]
    stsb = results["stsb", "stsb"]["metrics"]
    assert stsb["spearmanr"] == pytest.approx(spearmanr(predicted, [row["label"] for row in rows]).statistic)
    score = (sum(means) / 2 + (mrpc["accuracy"] + mrpc["f1"]) / 2 + (stsb["pearson"] + stsb["spearmanr"]) / 2) / 3
    assert report["glue"] == {"score": pytest.approx(score), "tasks": ["mnli", "mrpc", "stsb"]}
    out = capsys.readouterr().out
    low, high = results["stsb", "stsb"]["intervals"]["pearson"]
    assert f"| stsb | stsb | validation | 29 | pearson | {stsb['pearson']:.4f} | {low:.4f} to {high:.4f} |" in out
    assert f"| mean of 3 tasks | {score:.4f} |" in out


def test_flags_win_over_the_record(models, glue, tmp_path):
    folder = models / "mrpc" / "seed-0"
    flags = ["--data", glue, "--max_length", "128", "--bootstrap", "0", "--output_json", tmp_path / "s.json"]
    evaluate("--model", folder, *flags)
    (result,) = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))["results"]
    assert result["metrics"]["accuracy"] == pytest.approx(slow_accuracy(folder, glue, "mrpc", "validation"))
    assert result["intervals"] == {}


def test_own_data_with_the_recorded_columns(glue, teacher_folder, tmp_path, capsys):
    """Another file of the same columns; where it is has to be said."""
    arguments = {
        "data": "./old.parquet",
        "text_column": "sentence2",
        "text_pair_column": "sentence1",
        "metric": "mrpc",
    }
    folder = save_model(tmp_path / "m", teacher_folder(), ["equivalent", "not_equivalent"], 2, **arguments)
    file = glue / "mrpc" / "validation.parquet"
    evaluate("--model", folder, "--data", file, "--split", "train", "--output_json", tmp_path / "s.json")
    (result,) = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))["results"]
    rows = rows_of(glue, "mrpc", "validation")
    logits = slow_logits(folder, rows, PAIR[::-1])
    right = [int(row.argmax()) != true["label"] for row, true in zip(logits, rows)]  # the orders are opposite
    assert result["metrics"]["accuracy"] == pytest.approx(sum(right) / len(right)) and "f1" in result["metrics"]
    assert result["task"] == "validation" and "GLUE" not in capsys.readouterr().out


def test_submission(models, glue, tmp_path, capsys):
    evaluate("--model", models, "--data", glue, "--submission_dir", tmp_path / "sub", "--bootstrap", "0")
    files = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "sub").iterdir()}
    assert sorted(files) == ["AX.tsv", "MNLI-m.tsv", "MNLI-mm.tsv", "MRPC.tsv", "STS-B.tsv"]
    names = ["contradiction", "entailment", "neutral"]
    for file, task, split in (("MNLI-mm.tsv", "mnli", "test_mismatched"), ("AX.tsv", "ax", "test")):
        logits = slow_logits(models / "mnli", rows_of(glue, task, split), COLUMNS[task])
        lines = [f"{index}\t{names[row.argmax()]}" for index, row in enumerate(logits)]
        assert files[file].splitlines() == ["index\tprediction", *lines]
    logits = slow_logits(models / "stsb", rows_of(glue, "stsb", "test"), PAIR)
    expected = [min(max(float(row[0]), 0), 5) for row in logits]
    written = [line.split("\t")[1] for line in files["STS-B.tsv"].splitlines()[1:]]
    assert [float(value) for value in written] == pytest.approx(expected, abs=6e-4)
    out = capsys.readouterr().out
    assert "not written for want of a model: CoLA.tsv, QNLI.tsv, QQP.tsv, RTE.tsv, SST-2.tsv, WNLI.tsv" in out


def test_diagnostics_have_no_labels_but_are_submitted(models, glue, tmp_path, capsys):
    flags = ["--model", models / "mnli", "--data", glue, "--task", "ax"]
    with pytest.raises(SystemExit):
        evaluate(*flags)
    assert "split 'test' of 'ax' has no labels to score with" in capsys.readouterr().err
    evaluate(*flags, "--submission_dir", tmp_path / "sub")
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["AX.tsv"]


METRIC = """
import datasets
import evaluate
class Share(evaluate.Metric):
    def _info(self):
        number = datasets.Value("int64")
        features = datasets.Features({"predictions": number, "references": number})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)
    def _compute(self, predictions, references):
        share = sum(p == r for p, r in zip(predictions, references)) / len(references)
        return {"table": [1, 2], "share": share, "name": "x"}
"""


def test_any_metric_of_which_numbers_are_kept(models, glue, tmp_path):
    (tmp_path / "share.py").write_text(METRIC, encoding="utf-8")
    flags = ["--data", glue, "--metric", tmp_path / "share.py", "--bootstrap", "20"]
    evaluate("--model", models / "mnli", *flags, "--output_json", tmp_path / "s.json")
    report = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    expected = slow_accuracy(models / "mnli", glue, "mnli", "validation_matched")
    assert report["results"][0]["metrics"] == {"share": pytest.approx(expected)}
    assert list(report["results"][0]["intervals"]) == ["share"] and "glue" not in report


def test_an_unknown_metric_is_told_before_anything_is_computed(models, glue, monkeypatch, capsys):
    monkeypatch.setattr(evaluation, "predict", lambda *_: pytest.fail("predicts before the metric is known"))
    with pytest.raises(SystemExit):
        evaluate("--model", models / "mnli", "--data", glue, "--metric", "acuracy")
    assert "metric 'acuracy': " in capsys.readouterr().err.splitlines()[-1]


def test_a_model_knows_no_answer_whatever_is_scored(teacher_folder, tmp_path):
    """The threshold and the metric are the model's, also on rows that all have answers."""
    torch.manual_seed(3)
    sizes = {"vocab_size": 65, "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3}
    config = BertConfig(**sizes, intermediate_size=40, initializer_range=0.3)
    config.no_answer_threshold = 0.0  # never an answer
    BertForQuestionAnswering(config).save_pretrained(tmp_path / "m")
    AutoTokenizer.from_pretrained(teacher_folder()).save_pretrained(tmp_path / "m")
    row = {"question": "word1", "context": "word3 word4"}
    answered = row | {"answers": {"text": ["word4"], "answer_start": [6]}}
    unanswered = row | {"answers": {"text": [], "answer_start": []}}
    for name, rows, exact in (("answered", [answered] * 4, 0.0), ("mixed", [answered] * 3 + [unanswered], 25.0)):
        file = tmp_path / f"{name}.parquet"
        Dataset.from_list(rows).to_parquet(file)
        flags = ["--kind", "question-answering", "--data", file, "--split", "train", "--bootstrap", "5"]
        evaluate("--model", tmp_path / "m", *flags, "--output_json", tmp_path / "s.json")
        (result,) = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))["results"]
        assert result["metrics"]["exact"] == exact and "total" not in result["intervals"]
        assert not [figure for figure in result["intervals"] if figure.startswith("best_")]


def test_embedder(teacher_folder, glue, tmp_path, capsys):
    package = pytest.importorskip("sentence_transformers")
    embedder = package.SentenceTransformer(teacher_folder(), device="cpu")  # mean pooling
    embedder.save(str(tmp_path / "models" / "embedder"))
    flags = ["--data", glue, "--output_json", tmp_path / "s.json", "--bootstrap", "20"]
    evaluate("--model", tmp_path / "models", *flags)
    (result,) = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))["results"]
    rows = rows_of(glue, "stsb", "validation")
    pairs = [embedder.encode([row[name] for name in PAIR]) for row in rows]
    cosines = [left @ right / np.linalg.norm(left) / np.linalg.norm(right) for left, right in pairs]
    expected = spearmanr(cosines, [row["label"] for row in rows]).statistic
    assert result["task"] == "stsb" and list(result["metrics"]) == ["spearmanr", "pearson"]
    assert result["metrics"]["spearmanr"] == pytest.approx(expected, abs=1e-6)
    assert set(result["intervals"]) == {"spearmanr", "pearson"}
    with pytest.raises(SystemExit):
        evaluate("--model", tmp_path / "models", "--data", glue, "--task", "mrpc")
    assert "embeds texts; score it with --task stsb" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--label_column", "label"], "data 'pairs.jsonl': row 0: 'label' is 'high', no finite number"),
        (["--metric", "f1"], "metric: not for model 'embedder', which embeds texts: it is scored by the correlation"),
        (["--max_length", "16", "--kind", "text-classification"], "kind, max_length: not for model 'embedder', which"),
        (["--problem", "regression"], "problem: not for model 'embedder', which embeds texts"),
        (["--task", "stsb", "--label_column", "label"], "data 'pairs.jsonl': row 0: 'label' is 'high', no finite"),
    ],
)
def test_what_an_embedder_is_not_scored_by(teacher_folder, tmp_path, monkeypatch, capsys, flags, message):
    package = pytest.importorskip("sentence_transformers")
    monkeypatch.chdir(tmp_path)
    package.SentenceTransformer(teacher_folder(), device="cpu").save("embedder")
    rows = [{"a": "word1", "b": "word2", "label": label} for label in ("high", "low")]
    Path("pairs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    pairs = ["--data", "pairs.jsonl", "--split", "train", "--text_column", "a", "--text_pair_column", "b"]
    with pytest.raises(SystemExit):
        evaluate("--model", "embedder", *pairs, *flags)
    assert message in capsys.readouterr().err.splitlines()[-1]


def results_of(folder, interval=(0.7, 0.9), value=0.8, **arguments):
    result = Result("m", str(folder), TaskArguments(**arguments), "text-classification", "validation", 9, {}, {})
    return card_results(
        Result(**(vars(result) | {"metrics": {"accuracy": value}, "intervals": {"accuracy": interval}}))
    )


def test_intervals_in_the_card(tmp_path, student_file):
    """A second evaluation takes the place of the first, whatever its interval."""
    folder = tmp_path / "m"
    EfficientBertForSequenceClassification(EfficientBertConfig.from_json_file(student_file)).save_pretrained(folder)
    write_card(folder)
    add_results(folder, results_of(folder, task="rte"))
    add_results(folder, results_of(folder, (0.75, 0.95), 0.85, task="rte"))
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "| rte | rte | validation | accuracy | 0.85 | 0.75 to 0.95 |" in card
    assert card.count("value: 0.85") == 1 and "0.8\n" not in card and "interval_95" in card
    entries = (folder / ".eval_results" / "rte.yaml").read_text(encoding="utf-8")
    assert entries.count("value:") == 1 and "accuracy, validation split, 95% interval 0.75 to 0.95" in entries


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "{tmp}"], "model folder '.*': is neither a model nor holds folders of fine-tuned models"),
        (
            ["--model", "{models}/encoder"],
            "model '.*encoder': has no trained head for the task; `efficientbert finetune --model .*encoder` trains",
        ),
        (["--model", "{headless}"], "model '.*headless': has no trained head for the task; `efficientbert finetune"),
        (
            ["--model", "efficientbert-tiny"],
            "model 'efficientbert-tiny': is a preset, .* `efficientbert distill --student efficientbert-tiny`",
        ),
        (
            ["--model", "{models}/mnli", "--metric", "acuracy"],
            "metric 'acuracy': .*; known without the Hub are",
        ),
        (["--model", "{models}/stsb", "--split", "dev"], 'Unknown split "dev"'),
        (["--model", "{models}/stsb", "--split", "test"], "split 'test' of 'stsb' has no labels"),
        (["--model", "{models}/mnli", "--task", "mrpc"], "label .* is not among 'contradiction', 'entailment'"),
        (["--model", "{models}/stsb", "--task", "mnli"], "mnli has one class .*, but the model predicts a number"),
        (["--model", "{models}/own"], "was fine-tuned on a local 'reviews.csv'; say with --data where it is"),
        (["--model", "{models}", "--update_card", "true"], "has no model card README.md to update"),
        (["--model", "{models}", "--batch_size", "0"], "batch_size: must be at least 1, not 0"),
        (["--model", "{models}", "--bootstrap", "-1"], "bootstrap: must be at least 0, not -1"),
        (["--model", "{models}", "--device", "abacus"], "device 'abacus': "),
        (["--model", "{models}/mrpc", "--metric", "squad"], "metric 'squad': cannot be computed"),
        (["--model", "{models}/mrpc", "--output_json", "{tmp}/a/b.json"], "output_json .*: its folder does not exist"),
        (
            ["--model", "{twice}", "--submission_dir", "{tmp}/sub"],
            "submission 'STS-B.tsv': both 'a' and 'b' predict",
        ),
    ],
)
def test_bad_input_gets_one_line(flags, message, models, glue, teacher_folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    values = {"tmp": tmp_path / "empty", "models": models, "twice": tmp_path / "twice"}
    if "own" in flags[1]:
        own = {"data": "./reviews.csv", "text_column": "text"}
        values["models"] = save_model(tmp_path / "own", teacher_folder(), ["a", "b"], 0, **own).parent
    else:
        flags = [*flags, "--data", str(glue)]
    if "headless" in flags[1]:  # says nothing of a head, and its weights have none
        values["headless"] = shutil.copytree(models / "encoder", tmp_path / "headless")
        AutoTokenizer.from_pretrained(teacher_folder()).save_pretrained(tmp_path / "headless")
        config = json.loads((tmp_path / "headless" / "config.json").read_text(encoding="utf-8")) | {
            "architectures": None,
            "finetuning_task": "stsb",
        }
        (tmp_path / "headless" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for name in ("a", "b"):
        if "twice" in flags[1]:
            save_model(tmp_path / "twice" / name, teacher_folder(), None, 0, task="stsb")
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        evaluate(*(flag.format(**values) for flag in flags))
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert ended.value.code == 2 and last.startswith("efficientbert evaluate: error: ")
    assert re.search(message, last), last
    assert not any(Path(values["tmp"]).iterdir())


def test_rival_models_of_one_task_have_no_common_mean():
    def result(model, task):
        arguments = TaskArguments(task=task, data="x")
        return Result(model, model, arguments, "text-classification", "validation", 10, {"accuracy": 0.5}, {})

    assert glue_score([result("a", "rte"), result("b", "cola")]) == (0.5, ["cola", "rte"])
    assert glue_score([result("a", "rte"), result("b", "cola"), result("c", "rte")]) is None


@pytest.mark.parametrize("labels", [[2, 0, 1, 10, 9, 3, 4, 5, 6, 7, 8], [1, 1, 2, 3], ["b", "a", "c"]], ids=str)
def test_outputs_without_names_are_the_datas_labels_in_order(labels, teacher_folder, tmp_path, capsys):
    """A model of transformers' Trainer; whole numbers by value, whichever of them the split has."""
    count = 11 if 10 in labels else 4 if 3 in labels else 3
    names = [f"LABEL_{index}" for index in range(count)]
    folder = save_model(tmp_path / "model", teacher_folder(), names, 7)
    (folder / "provenance.json").unlink()
    rows = [f"word{index} word{index * 7 % 13},{label}" for index, label in enumerate(labels * 4)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    evaluate("--model", folder, "--data", tmp_path / "rows.csv", "--text_column", "text", "--split", "train")
    order = sorted(labels) if isinstance(labels[0], str) else list(range(count))
    logits = slow_logits(folder, [{"text": row.split(",")[0]} for row in rows], ["text"])
    expected = np.mean([order[row.argmax()] == label for row, label in zip(logits, labels * 4)])
    out = capsys.readouterr().out
    assert (
        f"model '{folder}': names no labels; its outputs are taken as {', '.join(repr(str(o)) for o in order)}" in out
    )
    assert f"| {expected:.4f} |" in out


def test_labels_that_call_themselves_so_are_taken_at_their_word(teacher_folder, tmp_path, capsys):
    folder = save_model(tmp_path / "model", teacher_folder(), ["LABEL_0", "LABEL_1"], 7)
    (tmp_path / "rows.csv").write_text("text,label\nword1,LABEL_1\nword2,LABEL_0\n", encoding="utf-8")
    given = TaskArguments(data=str(tmp_path / "rows.csv"), text_column="text")
    assert load_trained(str(folder), given, "cpu", "train")[0].label_names == ("LABEL_0", "LABEL_1")
    assert "names no labels" not in capsys.readouterr().out
    (tmp_path / "rows.csv").write_text("text,label\nword1,b\nword2,a\nword3,c\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"has 2 outputs that its configuration does not name, but .* has 3 labels"):
        load_trained(str(folder), given, "cpu", "train")
