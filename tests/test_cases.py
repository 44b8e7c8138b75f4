"""Data as people have it: through the commands, and either right or refused in one line with nothing written."""

import csv
import json
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from datasets import Dataset, load_dataset
from huggingface_hub.errors import HFValidationError
from sklearn.metrics import accuracy_score
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainingArguments,
)

from efficientbert.commands import job_of
from efficientbert.train.cli.command import run_command
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.arguments import EmbedArguments
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.files import loading
from efficientbert.train.tasks.arguments import (
    LabelledData,
    TaskArguments,
)
from efficientbert.train.tasks.division import scored_data, training_data
from efficientbert.train.tasks.kinds import task_of_data


FORMS = ("csv", "jsonl", "json", "parquet", "folder", "pattern")
QUICK = ("--num_epochs", "1", "--batch_size", "8", "--max_length", "16")


@pytest.fixture(scope="module")
def tokenizer(teacher_folder):
    return Teacher.load(teacher_folder("bert")).tokenizer


@pytest.fixture
def command(capsys):
    """Runs a command; gives its exit code and what it said, of bad input the last line."""

    def run(name: str, *words: object) -> tuple[int, str]:
        capsys.readouterr()
        try:
            run_command(*job_of(name), name, list(map(str, words)))
        except SystemExit as end:
            return end.code, capsys.readouterr().err.strip().splitlines()[-1]
        return 0, capsys.readouterr().out

    return run


@pytest.fixture
def refused(command, teacher_folder, tmp_path):
    """Gives what `finetune` says of data that it refuses; nothing may be written."""

    def run(source: object, *words: object) -> str:
        output = tmp_path / "refused"
        code, said = command(
            "finetune",
            *("--model", teacher_folder("bert"), "--data", source, "--text_column", "text", "--output_dir", output),
            *words,
        )
        assert code == 2 and said.startswith("efficientbert finetune: error: "), said
        assert not output.exists() and not output.with_name("refused.partial").exists()
        return said

    return run


def write(folder: Path, form: str, labels: list, texts: list | None = None) -> str:
    """Rows in a file of a kind, a folder or files of a pattern; what `--data` is to be."""
    texts = [f"word{index % 60}" for index in range(len(labels))] if texts is None else texts
    if form == "parquet":
        Dataset.from_dict({"text": texts, "label": labels}).to_parquet(folder / "rows.parquet")
        return str(folder / "rows.parquet")
    if form in ("json", "jsonl"):
        rows = [json.dumps({"text": text, "label": label}) for text, label in zip(texts, labels)]
        path = folder / f"rows.{form}"
        path.write_text("\n".join(rows) if form == "jsonl" else f"[{', '.join(rows)}]", encoding="utf-8")
        return str(path)
    folder = folder / form
    folder.mkdir()
    with (folder / "train.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *zip(texts, ["" if one is None else one for one in labels])])
    return {"csv": str(folder / "train.csv"), "folder": str(folder), "pattern": str(folder / "*.csv")}[form]


def task_on(source: str, tokenizer, **arguments):
    return task_of_data(TaskArguments(data=source, text_column="text", **arguments), tokenizer, "train")


@pytest.mark.parametrize("form", FORMS)
def test_a_missing_label_is_no_class(form, refused, tmp_path):
    source = write(tmp_path, form, ["yes", "None", "no", None, "yes", None])
    assert "row 3: 'label' is missing, as in 2 of 6 rows; label these rows or remove them" in refused(source)


def test_every_command_refuses_a_missing_label(command, teacher_folder, tmp_path):
    source = write(tmp_path, "csv", ["yes", "no", "", "yes"])
    model, said = tmp_path / "model", "row 2: 'label' is missing"
    sizes = {"vocab_size": 65, "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3}
    config = BertConfig(**sizes, intermediate_size=8, id2label={0: "no", 1: "yes"})
    BertForSequenceClassification(config).save_pretrained(model)
    Teacher.load(teacher_folder("bert")).tokenizer.save_pretrained(model)
    (tmp_path / "mine.yaml").write_text(f"data: {source}\ntext_column: text\n", encoding="utf-8")
    words = ("--data", source, "--text_column", "text")
    for name, more in (
        ("evaluate", ("--model", model, "--split", "train", *words)),
        ("augment", ("--model", model, "--output_file", tmp_path / "more.parquet", *words)),
        ("multitask", ("--model", model, "--tasks", tmp_path / "mine.yaml", "--output_dir", tmp_path / "several")),
    ):
        code, found = command(name, *more)
        assert code == 2 and said in found, found
    assert {path.name for path in tmp_path.iterdir()} == {"csv", "model", "mine.yaml"}


@pytest.mark.parametrize("form", FORMS)
def test_words_for_nothing_and_numbers_are_what_stands_there(form, tokenizer, tmp_path):
    words = ["None", "null", "NA", "nan", "01", "1E5", "1.0"]
    task = task_on(write(tmp_path, form, words, words), tokenizer)
    data = task.load("train")
    assert data.rows["text"][:] == words and task.label_names == tuple(sorted(words))
    assert [task.label_names[label] for label in data.features["labels"]] == words


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["0", "1", 0, 1], "row 2: 'label' is a number, 0, but a text, '0', in row 0; write all as one type"),
        ([True, False, 1], "row 2: 'label' is a number, 1, but true or false, True, in row 0"),
        ([["a"], "a"], "row 1: 'label' is a text, 'a', but a list of a text, ['a'], in row 0"),
        ([["a"], ["a", 1]], "row 1: 'label' is a list of a number and a text, ['a', 1], but a list of a text"),
    ],
)
def test_a_row_of_another_type_is_named(labels, said, refused, tmp_path):
    for form in ("jsonl", "json"):
        found = refused(write(tmp_path, form, labels))
        assert said in found, found


def test_a_row_is_named_by_its_number_in_the_file_where_rows_are_kept_aside(refused, tmp_path):
    labels = [f"{index}.5" for index in range(40)]
    for row in (3, 17, 39):
        wrong = labels[:row] + ["NA"] + labels[row + 1 :]
        source = write(tmp_path, "jsonl", wrong)
        assert f"row {row}: label 'NA' is no finite number" in refused(source)
        assert f"row {row}: label 'NA' is no finite number" in refused(source, "--selection", "0.5")


def test_columns_are_quoted_and_the_nearest_is_named(refused, tmp_path):
    (tmp_path / "spaces.csv").write_text(" text,label \nword1,a\nword2,b\n", encoding="utf-8")
    assert "no column 'text'; it has ' text', 'label '; did you mean ' text'?" in refused(tmp_path / "spaces.csv")


@pytest.mark.parametrize("source", ["./gone.csv", "gone.jsonl", "../gone", "~/gone", "/gone/away", "gone/*.csv"])
def test_a_file_that_is_not_there_is_not_looked_for_elsewhere(source):
    for arguments in (TaskArguments(data=source), LabelledData(task="rte", augmented_data=source)):
        with pytest.raises(InputError, match=r"(does not exist|no file matches)"):
            arguments.check_sources()
    with pytest.raises(InputError, match=r"corpus .*(does not exist|no file matches)"):
        EmbedArguments(student="s", teacher="t", corpus=source, output_dir="o").check_sources()


def test_files_that_cannot_be_read_are_named(refused, tmp_path):
    rows = "text,label\n" + "word1,a\nword2,b\n" * 20
    for number, (name, content, said) in enumerate(
        (
            ("b.csv", rows.encode() + "caf\xe9,a\n".encode("latin-1"), "b.csv': cannot be loaded: is not UTF-8"),
            ("b.csv", b"", "b.csv': is empty"),
            (
                "b.csv",
                b"text,label\nword1,a,x\nword2,b,x\n",
                "b.csv': row 0 has more fields than the file has columns",
            ),
            ("b.csv", rows.encode() + b"word1,a,x\n", "b.csv': cannot be loaded: Error tokenizing data"),
            (
                "b.csv",
                b"body,label\nword1,a\n",
                "b.csv': has columns 'body', 'label', but .*a.csv' has 'text', 'label'",
            ),
        )
    ):
        folder = tmp_path / f"folder{number}"
        folder.mkdir()
        (folder / "a.csv").write_text(rows, encoding="utf-8")
        (folder / name).write_bytes(content)
        for source in (folder, f"{folder}/*.csv"):
            found = refused(source)
            assert re.search(said, found), found
    (tmp_path / "empty").mkdir()
    (tmp_path / "header.csv").write_text("text,label\n", encoding="utf-8")
    (tmp_path / "cut.jsonl").write_text('{"text": "word1", "label": "a"}\n{"text": "wor', encoding="utf-8")
    (tmp_path / "latin.jsonl").write_bytes('{"text": "caf\xe9", "label": "a"}\n'.encode("latin-1"))
    (tmp_path / "latin.txt").write_bytes("caf\xe9\n".encode("latin-1"))
    (tmp_path / "a.png").write_bytes(b"x")
    for name, said in (
        ("empty", "doesn't contain any data files"),
        ("header.csv", "split 'train' is empty"),
        ("cut.jsonl", "cut.jsonl': cannot be loaded: JSON parse error"),
        ("latin.jsonl", "latin.jsonl': cannot be loaded: is not UTF-8; save it as UTF-8"),
        ("latin.txt", "latin.txt': cannot be loaded: is not UTF-8; save it as UTF-8"),
        ("a.png", "unknown kind of file; known are .txt"),
    ):
        assert said in refused(tmp_path / name)


def test_several_labels_from_the_command_line(command, teacher_folder, tmp_path):
    labels = [["hot", "dry"], ["hot"], [], ["dry"]] * 10
    source = write(tmp_path, "jsonl", labels)
    words = ("--data", source, "--text_column", "text", *QUICK)
    first, second = tmp_path / "first", tmp_path / "second"
    code, said = command("finetune", "--model", teacher_folder("bert"), "--output_dir", first, *words)
    assert code == 0, said
    assert "labels: 2, several a row (multi_label): 'dry', 'hot'" in said and "held_out: micro_f1 " in said
    config = AutoConfig.from_pretrained(first)
    assert config.problem_type == "multi_label_classification" and config.id2label == {0: "dry", 1: "hot"}
    report = tmp_path / "report.json"
    code, said = command(
        *("evaluate", "--model", first, "--data", source, "--split", "held_out", "--bootstrap", "0"),
        *("--output_json", report),
    )
    assert code == 0, said
    (result,) = json.loads(report.read_text(encoding="utf-8"))["results"]
    assert result["metrics"] == json.loads((first / "results.json").read_text(encoding="utf-8"))["held_out"]
    assert set(result["metrics"]) == {"micro_f1", "macro_f1", "average_precision"} and result["rows"] == 7
    code, said = command("evaluate", "--model", first, "--data", source, "--task", "sst2")
    assert code == 2 and "sst2 has one class a row (single_label), but the model predicts several labels" in said
    code, said = command("evaluate", "--model", first, "--data", source)
    assert code == 2 and " has the split 'train' alone, as any one file has; give --split train" in said
    taught = ("--teacher", first, "--distillation", "outputs", "--eval_split", "none")
    code, said = command("finetune", "--model", first, "--output_dir", second, *taught, *words)
    assert code == 0 and "held_out" not in said, said
    classes = write(tmp_path, "csv", ["dry", "hot"] * 8)
    third = tmp_path / "third"
    words = ("--data", classes, "--text_column", "text", *QUICK)
    code, said = command("finetune", "--model", first, "--output_dir", third, "--eval_split", "none", *words)
    assert code == 0, said
    stale = "its problem type 'multi_label_classification' becomes 'single_label_classification'"
    assert stale in said and "labels: 2 classes (single_label): 'dry', 'hot'" in said
    assert AutoConfig.from_pretrained(third).problem_type == "single_label_classification"


def test_one_file_is_enough(tokenizer, tmp_path):
    labels = ["common"] * 100 + ["rare"] * 20
    source = write(tmp_path, "csv", labels, [f"word{index % 60} word{index // 60}" for index in range(120)])
    args = LabelledData(data=source, text_column="text")
    task = task_of_data(args, tokenizer, "train")
    data, kept_aside = training_data(args, task, 0.2)
    (scored,) = scored_data(args, task)
    assert scored.split == "held_out"
    found = Counter(scored.rows["label"])
    assert 5 <= found["common"] <= 20 and 1 <= found["rare"] <= 6  # about a tenth of every class
    parts = [set(part.rows["text"]) for part in (data, kept_aside, scored)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 120
    assert task.load_rows("held_out")["text"][:] == scored.rows["text"][:]
    for eval_split, splits in ((["train"], ["train"]), (["none"], [])):
        args.eval_split = eval_split
        assert len(training_data(args, task, 0)[0].rows) == 120
        assert [part.split for part in scored_data(args, task)] == splits


def test_few_rows_leave_one_to_score_and_one_alone_is_refused(tokenizer, tmp_path):
    task = task_on(write(tmp_path, "csv", [f"{index}.5" for index in range(3)]), tokenizer)
    rows = task.load_rows("train")
    kept, aside = task.divide(rows)
    assert sorted(kept["text"][:] + aside["text"][:]) == sorted(rows["text"][:]) and len(aside) == 1
    with pytest.raises(InputError, match="of 1 rows none can be kept aside for scoring; give --eval_split"):
        task.divide(rows.select(range(1)))
    with pytest.raises(InputError, match="of 2 rows none can be kept aside for scoring, as all hold the same text;"):
        task.divide(rows.select([0, 0]))


def test_augmented_rows_are_refused_where_rows_are_kept_aside(refused, tmp_path):
    source = write(tmp_path, "csv", ["a", "b"] * 10)
    said = refused(source, "--augmented_data", write(tmp_path, "parquet", ["a", "b"] * 10))
    assert "augmented_data: may hold variants of the rows that are kept aside" in said


def test_the_hub_is_asked_once(monkeypatch):
    def answer(error):
        def ask(self, name, timeout):
            raise error

        monkeypatch.setattr(loading.HfApi, "dataset_info", ask)

    monkeypatch.setattr(loading.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(loading, "load_dataset_builder", None)  # asks for half a minute
    answer(HFValidationError("not a name"))
    with pytest.raises(
        InputError, match="data 'some/data': is neither a file or folder here nor a data set on the Hub"
    ):
        loading.load_data("some/data", None, "train", "data")
    answer(ConnectionError("no network"))
    with pytest.raises(
        InputError, match=r"'some/data': .* the Hub cannot be reached \(no network\); a copy in the cache"
    ):
        loading.load_data("some/data", None, "train", "data")


def test_a_model_of_the_trainer_scores_and_teaches(command, tokenizer, teacher_folder, tmp_path):
    """Classes that are whole numbers, of a model that names none: what the README's Trainer block saves."""
    source = write(tmp_path, "csv", ["0", "1", "1", "0"] * 10)
    model, taught = tmp_path / "final", tmp_path / "taught"
    rows = load_dataset("csv", data_files=source, split="train")
    rows = rows.map(lambda row: tokenizer(row["text"], truncation=True, max_length=16))
    classifier = AutoModelForSequenceClassification.from_pretrained(teacher_folder("bert"), num_labels=2)
    settings = TrainingArguments(str(tmp_path / "tuned"), max_steps=1, save_strategy="no", report_to=[], use_cpu=True)
    trainer = Trainer(classifier, settings, train_dataset=rows, processing_class=tokenizer)
    trainer.train()
    trainer.save_model(str(model))
    report = tmp_path / "report.json"
    words = ("--data", source, "--text_column", "text")
    code, said = command(
        *("evaluate", "--model", model, *words, "--split", "train", "--bootstrap", "0", "--output_json", report)
    )
    assert code == 0 and "its outputs are taken as '0', '1'" in said, said
    (result,) = json.loads(report.read_text(encoding="utf-8"))["results"]
    with torch.no_grad():
        ids = [tokenizer(text, return_tensors="pt") for text in rows["text"]]
        predicted = [int(classifier.eval()(**row).logits.argmax()) for row in ids]
    assert result["metrics"]["accuracy"] == accuracy_score(rows["label"], predicted)
    taught_by = ("--teacher", model, "--distillation", "outputs")
    code, said = command(
        "finetune", "--model", teacher_folder("bert"), "--output_dir", taught, *taught_by, *words, *QUICK
    )
    assert code == 0 and "its outputs are taken as '0', '1'" in said, said
    assert AutoConfig.from_pretrained(taught).id2label == {0: "0", 1: "1"}


@pytest.mark.parametrize("columns", [("choice a", "choice b"), ("a: b", " c")])
def test_columns_with_spaces_from_a_recipe(columns, command, teacher_folder, tmp_path):
    with (tmp_path / "choices.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("the question", *columns, "label"), *[("word1", "word2", "word3", "1")] * 16])
    recipe = tmp_path / "choices.yaml"
    recipe.write_text(
        f"model: {teacher_folder('bert')}\nkind: multiple-choice\ndata: {tmp_path / 'choices.csv'}\n"
        f"text_column: the question\nchoice_columns: {list(columns)}\neval_split: [train]\n",
        encoding="utf-8",
    )
    code, said = command("finetune", recipe, "--output_dir", tmp_path / "out", *QUICK)
    assert code == 0 and "train: accuracy " in said, said


def test_a_model_that_knows_no_answer_is_scored_so_on_any_rows(command, teacher_folder, tmp_path):
    answered = {"text": ["word2"], "answer_start": [6]}
    row = {"question": "word9", "context": "word1 word2 word3"}
    for name, unanswered in (("all", 0), ("some", 8)):
        rows = [row | {"answers": answered}] * 16
        rows[:unanswered] = [row | {"answers": {"text": [], "answer_start": []}}] * unanswered
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    model = tmp_path / "model"
    words = ("--kind", "question-answering", "--doc_stride", "2", "--eval_split", "none", *QUICK)
    code, said = command(
        *("finetune", "--model", teacher_folder("bert"), "--data", tmp_path / "some.jsonl", "--output_dir", model),
        *words,
    )
    assert code == 0, said
    for name, unanswered in (("all", 0), ("some", 8)):
        code, said = command(
            *("evaluate", "--model", model, "--data", tmp_path / f"{name}.jsonl", "--split", "train"),
            *("--bootstrap", "0", "--output_json", tmp_path / "report.json"),
        )
        assert code == 0, said
        (result,) = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["results"]
        assert result["metrics"]["HasAns_total"] == 16 - unanswered
        assert result["metrics"].get("NoAns_total", 0) == unanswered


@pytest.mark.parametrize("tags", ["B-PER L-PER O U-LOC", "b_per e_per o s_loc", "PER-B PER-E O LOC-S"])
def test_entities_of_any_scheme_get_f1(tags, command, teacher_folder, tmp_path):
    row = {"tokens": ["word1", "word2", "word3", "word4"], "tags": tags.split()}
    (tmp_path / "tags.jsonl").write_text("\n".join([json.dumps(row)] * 16), encoding="utf-8")
    words = ("--kind", "token-classification", "--text_column", "tokens", "--label_column", "tags", *QUICK)
    code, said = command(
        *("finetune", "--model", teacher_folder("bert"), "--data", tmp_path / "tags.jsonl"),
        *("--output_dir", tmp_path / "out", "--eval_split", "train", *words),
    )
    assert code == 0 and "train: f1 " in said, said
    assert f"labels: 4 tags: {', '.join(map(repr, sorted(tags.split())))}" in said
