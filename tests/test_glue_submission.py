"""Files for the GLUE site: names, order and numbers of predictions."""

from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset

from efficientbert.train.cli.errors import InputError
from efficientbert.train.tasks.arguments import GLUE_COLUMNS, TaskArguments
from efficientbert.train.tasks.glue_submission import FILES, all_files, official_values, submission_text, task_for_file
from efficientbert.train.tasks.glue_submission import write_submission as write
from efficientbert.train.tasks.task import TaskData
from efficientbert.train.tasks.texts import TextTask


def make_task(name, *labels, **arguments):
    args = TaskArguments(task=name, **arguments)
    return TextTask(replace(args, problem=args.known_problem()), None, labels or None)


def make_data(rows, **columns):
    return TaskData(Dataset.from_dict({"text": ["word"] * rows} | columns), Dataset.from_dict({}), "test")


def test_all_files_of_the_site():
    assert set(FILES) == set(GLUE_COLUMNS)
    assert all_files() == sorted(
        "AX.tsv CoLA.tsv MNLI-m.tsv MNLI-mm.tsv MRPC.tsv QNLI.tsv QQP.tsv RTE.tsv SST-2.tsv STS-B.tsv WNLI.tsv".split()
    )


@pytest.mark.parametrize(
    ("name", "labels", "predictions", "answers"),
    [
        # As the models have them, not as the data.
        ("mnli", ("contradiction", "entailment", "neutral"), [0, 1, 2], ["contradiction", "entailment", "neutral"]),
        ("rte", ("not_entailment", "entailment"), [0, 1], ["not_entailment", "entailment"]),
        ("qnli", ("entailment", "not_entailment"), [1, 0], ["not_entailment", "entailment"]),
        ("wnli", ("entailment", "not_entailment"), [0, 1], ["1", "0"]),
        ("cola", ("acceptable", "unacceptable"), [0, 1], ["1", "0"]),
        ("mrpc", ("not_equivalent", "equivalent"), [0, 1], ["0", "1"]),
        ("qqp", ("duplicate", "not_duplicate"), [0, 1], ["1", "0"]),
        ("sst2", ("positive", "negative"), [0, 1], ["1", "0"]),
        ("sst2", ("1", "0"), [0, 1], ["1", "0"]),
        ("stsb", (), [-0.2, 0.0, 2.34567, 5.3], ["0.000", "0.000", "2.346", "5.000"]),
    ],
)
def test_labels_by_name(name, labels, predictions, answers):
    task, data = make_task(name, *labels), make_data(len(predictions))
    if labels:
        logits = [np.eye(len(labels))[prediction] for prediction in predictions]
    else:
        logits = [np.array([prediction]) for prediction in predictions]
    text = submission_text(task, task.predict(logits, data), data)
    assert text == "".join(f"{index}\t{answer}\n" for index, answer in [("index", "prediction"), *enumerate(answers)])


def test_rows_are_numbered_as_the_data_does():
    data = make_data(3, idx=[2, 0, 1])
    text = submission_text(make_task("cola", "unacceptable", "acceptable"), [1, 0, 0], data)
    assert text == "index\tprediction\n0\t0\n1\t0\n2\t1\n"


@pytest.mark.parametrize(
    ("name", "labels", "message"),
    [
        (
            "mnli",
            ("LABEL_0", "entailment", "neutral"),
            "submission of mnli: the model predicts 'LABEL_0', which is none",
        ),
        ("rte", ("yes", "no"), "of rte: the model predicts 'yes', which is none of entailment, 0, not_entailment, 1"),
        ("sst2", (), "of sst2: the model predicts 'a number'"),
        ("stsb", ("0", "1"), "of stsb: the model predicts '0'"),
    ],
)
def test_other_labels_are_refused(name, labels, message):
    with pytest.raises(InputError, match=message):
        official_values(make_task(name, *labels))


def test_the_diagnostic_set_is_for_the_mnli_model():
    mnli = make_task("mnli", "neutral", "entailment", "contradiction", data="my/glue", data_name="mnli", max_length=48)
    task, split = task_for_file(mnli, "AX.tsv")
    assert (task.args.task, task.args.data, task.args.data_name, split) == ("ax", "my/glue", None, "test")
    assert task.args.max_length == 48 and task.label_names == mnli.label_names
    assert task_for_file(mnli, "MNLI-mm.tsv") == (mnli, "test_mismatched")


def test_written_and_missing(tmp_path):
    missing = write(tmp_path / "a" / "b", {"RTE.tsv": "x", "CoLA.tsv": "y"})
    assert missing == [name for name in all_files() if name not in ("RTE.tsv", "CoLA.tsv")]
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == ["CoLA.tsv", "RTE.tsv"]
    assert (tmp_path / "a" / "b" / "CoLA.tsv").read_text(encoding="utf-8") == "y"
    with pytest.raises(InputError, match="no model of a GLUE task"):
        write(tmp_path / "c", {})
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match=r"submission_dir .*file/c': cannot be made: Not a directory"):
        write(tmp_path / "file" / "c", {"RTE.tsv": "x"})
