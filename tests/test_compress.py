"""The command `compress` on tiny teachers of every kind, with a clock that is not looked at."""

import json
import random
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)

from efficientbert import commands
from efficientbert.modeling_efficientbert import EfficientBertModel
from efficientbert.search.compression import making, plan, preparation, scoring
from efficientbert.search.compression.arguments import CompressArguments
from efficientbert.search.compression.jobs import Corpus
from efficientbert.search.compression.own_text import make_task, named, own_documents
from efficientbert.search.compression.plan import plan_lengths
from efficientbert.search.compression.report import make_table
from efficientbert.train.cli.errors import InputError
from efficientbert.train.model_folder.record import read_provenance
from efficientbert.train.tasks.arguments import TaskArguments

from .conftest import WORDS, make_tokenizer


SIZES = {
    "vocab_size": 5 + len(WORDS),
    "hidden_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
TEACHER_MS = 40.0
pytestmark = pytest.mark.usefixtures("no_clock")


def save_teacher(folder: Path, model_class: type, **fields) -> str:
    torch.manual_seed(0)
    model_class(BertConfig(**SIZES, **fields)).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> str:
    """A teacher of two classes."""
    names = {"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}
    return save_teacher(tmp_path_factory.mktemp("classifier"), BertForSequenceClassification, **names)


def unlabelled(task_file: str, folder: Path) -> str:
    """The texts of the task file without their labels."""
    lines = Path(task_file).read_text(encoding="utf-8").splitlines()
    path = folder / "texts.csv"
    path.write_text("\n".join(line.split(",")[0] for line in lines) + "\n", encoding="utf-8")
    return str(path)


def compress(teacher: str, output: Path, **more):
    options = {"max_length": 24, "num_epochs": 1.0} | more
    return commands.compress(teacher=teacher, output_dir=output, **options)


def test_a_classifier_becomes_a_small_one_beside_its_teacher(classifier, task_file, tmp_path, capsys):
    made = compress(classifier, tmp_path / "out", latency=15, data=task_file, text_column="text", license="mit")
    assert made.path == tmp_path / "out"
    rows = made.figures["models"]
    assert [row["role"] for row in rows] == ["teacher", "compressed", "untrained"]
    assert rows[0]["latency_ms"] == TEACHER_MS and rows[1]["metric"] == "accuracy"
    assert rows[1]["gain"] == pytest.approx(rows[1]["quality"] - rows[2]["quality"])
    low, high = rows[1]["gain_interval_95"]
    assert low <= rows[1]["gain"] <= high
    assert rows[0]["split"] == "held_out" and rows[0]["rows"] == 8
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out" / "model")
    assert model.config.id2label == {0: "no", 1: "yes"} and model.config.model_type == "efficientbert"
    encoder = EfficientBertModel(model.config)
    assert rows[1]["parameters"] == encoder.num_parameters()
    assert rows[1]["megabytes"] == pytest.approx(4 * encoder.num_parameters() / 1e6)
    planned = json.loads((tmp_path / "out" / "plan.json").read_text(encoding="utf-8"))["parts"][0]
    assert 0.8 * 15 <= planned["latency_ms"] <= 15 and planned["epochs"] == 1
    steps = [step["step"] for step in read_provenance(tmp_path / "out" / "model")]
    assert steps == ["distill", "finetune"]
    card = (tmp_path / "out" / "model" / "README.md").read_text(encoding="utf-8")
    assert "license: mit" in card and "## Beside its teacher" in card and "simply fine-tuned" in card
    assert (tmp_path / "out" / "model" / "compression.png").read_bytes()[:4] == b"\x89PNG"
    said = capsys.readouterr().out
    assert "is for text-classification" in said and "job 4 of 4" in said and "takes the teacher 40.0 ms" in said
    assert "note: other programs keep 50% of this machine's cores busy" in said
    again = compress(classifier, tmp_path / "out", latency=15, data=task_file, text_column="text", license="mit")
    assert again == made and "is complete already" in capsys.readouterr().out


def test_texts_without_labels_get_those_of_the_teacher(classifier, task_file, tmp_path, capsys):
    texts = unlabelled(task_file, tmp_path)
    made = compress(classifier, tmp_path / "out", latency=15, data=texts, text_column="text")
    assert made.figures["models"][0]["quality"] == 1  # the labels are its own
    assert "has no labels; those of the teacher stand in" in capsys.readouterr().out
    rows = (tmp_path / "out" / "jobs" / "labelled.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 64 and set(json.loads(rows[0])) == {"text", "label"}
    assert {json.loads(row)["label"] for row in rows} <= {"yes", "no"}


def test_an_interrupted_run_keeps_its_plan_and_what_is_done(classifier, task_file, tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    def stop(*args):
        raise Stop

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(making, "score_models", stop)
        compress(classifier, tmp_path / "out", latency=15, data=task_file, text_column="text")
    work = tmp_path / "out.partial"
    planned = (work / "plan.json").read_bytes()
    weights = (work / "model" / "model.safetensors").stat().st_mtime_ns
    monkeypatch.setattr(preparation, "make_plan", stop)  # what is planned is not planned anew
    compress(classifier, tmp_path / "out", latency=15, data=task_file, text_column="text")
    assert (tmp_path / "out" / "plan.json").read_bytes() == planned
    assert (tmp_path / "out" / "model" / "model.safetensors").stat().st_mtime_ns == weights


def test_a_bare_encoder_gives_three_to_choose_from(teacher_folder, corpus_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(scoring, "measure_times", lambda models, args, device: [{1: [15.0]} for _ in models])
    made = compress(teacher_folder(), tmp_path / "out", corpus=corpus_file)
    names = [row["model"] for row in made.figures["models"]]
    assert names == ["teacher", "half", "half, untrained", "quarter", "quarter, untrained"]
    assert "left out: latency: 1.5 ms is out of reach; the fastest in the space takes" in capsys.readouterr().out
    for name in ("half", "quarter"):
        assert EfficientBertModel.from_pretrained(tmp_path / "out" / name).config.hidden_size <= 24
    assert made.figures["models"][1]["metric"] == "cosine to the teacher"
    assert "gain" in made.figures["models"][3] and "gain" not in made.figures["models"][4]


def test_an_embedder_stays_one(teacher_folder, task_file, tmp_path):
    SentenceTransformer(teacher_folder()).save(str(tmp_path / "embedder"))
    made = compress(str(tmp_path / "embedder"), tmp_path / "out", data=task_file, text_column="text", latency=15)
    vectors = SentenceTransformer(str(tmp_path / "out" / "model"), device="cpu").encode(["word1 word2", "word3"])
    assert vectors.shape == (2, 24) and 0 < made.figures["models"][1]["quality"] <= 1


def test_questions_and_tags_are_learned_too(tmp_path):
    rng = random.Random(0)
    questions, tags = [], []
    for index in range(40):
        words = [rng.choice(WORDS) for _ in range(12)]
        start = len(" ".join(words[:3])) + 1
        answer = {"text": [words[3]], "answer_start": [start]}
        questions.append({"id": str(index), "question": "word1", "context": " ".join(words), "answers": answer})
        tags.append({"words": words, "tags": ["A" if word < "word3" else "O" for word in words]})
    for name, rows in (("questions", questions), ("tags", tags)):
        lines = "\n".join(map(json.dumps, rows))
        (tmp_path / f"{name}.jsonl").write_text(lines + "\n", encoding="utf-8")
    reader = save_teacher(tmp_path / "reader", BertForQuestionAnswering)
    columns = {"text_column": "question", "text_pair_column": "context"}
    compress(reader, tmp_path / "a", latency=15, data=tmp_path / "questions.jsonl", **columns, doc_stride=4)
    AutoModelForQuestionAnswering.from_pretrained(tmp_path / "a" / "model")
    tagger = save_teacher(tmp_path / "tagger", BertForTokenClassification, id2label={0: "A", 1: "O"})
    made = compress(tagger, tmp_path / "b", size=0.02, data=tmp_path / "tags.jsonl", text_column="words", doc_stride=4)
    assert made.figures["models"][1]["megabytes"] <= 0.02


def test_what_cannot_be_is_refused_in_one_line(classifier, teacher_folder, corpus_file, task_file, tmp_path):
    data = {"data": task_file, "text_column": "text"}
    for teacher, more, told in (
        (classifier, {"latency": 50} | data, r"latency: the teacher itself takes 40\.0 ms here, no more than 50"),
        (classifier, {"latency": 1} | data, "latency: 1 ms is out of reach; the fastest in the space takes"),
        (classifier, {"size": 1e-4} | data, "size: 0.0001 MB is out of reach; the smallest"),
        (classifier, {"latency": 15, "corpus": corpus_file}, "is for text-classification; give --data with texts"),
        (classifier, {"latency": 15}, "corpus: there is no text to learn from; give --corpus, or --data or --task"),
        (
            classifier,
            {"latency": 15, "kind": "token-classification"} | data,
            "is for text-classification, not for",
        ),
        (classifier, {"latency": 15} | data | {"text_column": "review"}, "no column 'review'"),
        (classifier, {"latency": 15, "max_length": 80} | data, "max_length: must be between 8 and the 64 tokens"),
        (classifier, {"latency": -1} | data, "latency: must be a number above 0, not -1"),
        (classifier, {"hours": 0.0} | data, "hours: must be a number above 0, not 0"),
        (classifier, {"threads": 0} | data, "threads: must be at least 1, not 0"),
        (teacher_folder(), {"latency": 15} | data, "is a bare encoder, which predicts nothing for --data; fine-tune"),
        (str(tmp_path / "none"), {"latency": 15, "corpus": corpus_file}, "teacher .*none': cannot be loaded"),
    ):
        with pytest.raises(InputError, match=told) as fault:
            compress(teacher, tmp_path / "out", **more)
        assert "\n" not in str(fault.value)
        assert not list(tmp_path.glob("out*"))


def test_faults_of_rows_show_before_anything_is_made(classifier, task_file, tmp_path):
    lines = Path(task_file).read_text(encoding="utf-8").splitlines()
    for name, changed, told in (
        ("gap", [*lines[:5], lines[5].split(",")[0] + ",", *lines[6:]], r"row 4: 'label' is missing"),
        ("other", [line.replace(",yes", ",perhaps") for line in lines], "perhaps"),
        ("few", lines[:9], "has 5 texts to learn from, too few: at least 12 are needed; give --corpus"),
    ):
        path = tmp_path / f"{name}.csv"
        path.write_text("\n".join(changed) + "\n", encoding="utf-8")
        with pytest.raises(InputError, match=told):
            compress(classifier, tmp_path / "out", latency=15, data=path, text_column="text")
        assert not list(tmp_path.glob("out*"))
    words = [{"words": ["word1", "word2", "word3"] * 3}] * 30
    path = tmp_path / "words.jsonl"
    path.write_text("\n".join(map(json.dumps, words)) + "\n", encoding="utf-8")
    tagger = save_teacher(tmp_path / "tagger", BertForTokenClassification)
    with pytest.raises(InputError, match="no column 'tags', and the teacher can stand in for labels of text-class"):
        compress(tagger, tmp_path / "out", latency=15, data=path, text_column="words", doc_stride=4)


def test_nothing_to_score_is_no_fault(classifier, task_file, tmp_path):
    options = {"data": task_file, "text_column": "text", "eval_split": ["none"]}
    made = compress(classifier, tmp_path / "out", latency=15, **options)
    assert "quality" not in made.figures["models"][1]
    assert not (tmp_path / "out" / "compression.png").exists()


def test_short_texts_are_joined_to_documents():
    task = make_task(TaskArguments(data="x", text_column="text"), "text-classification", make_tokenizer())
    texts = [
        "a b c",
        "d",
        "a b c",
        "",
        "e f g h",
        "i",
        *("w " * 9 for _ in range(2)),
        *(f"{n} " * 8 for n in range(11)),
    ]
    documents = own_documents(task, Dataset.from_list([{"text": text} for text in texts]))
    assert documents[:2] == ["a b c d e f g h", "i " + "w " * 9] and len(documents) == 13


def test_hours_are_shared_out():
    args = CompressArguments(teacher="t", corpus="c", output_dir="o", hours=1.0)
    # 0.9 hours for two models: 1620 s each. A step takes 16 * (50 + 3 * 10) ms = 1.28 s, and of the slower 1.76 s.
    assert plan_lengths(args, 50, [20, 10], 0) == [(920, 0.0), (1265, 0.0)]
    # A pass over 1,000 rows takes 1000 * (50 + 6 * 10) ms = 110 s; five take less than half of the time.
    ((steps, epochs),) = plan_lengths(args, 50, [10], 1000)
    assert epochs == 5 and steps == int((3240 - 5 * 110) / 1.28)
    ((steps, epochs),) = plan_lengths(args, 50, [10], 10_000)
    assert epochs == pytest.approx(1620 / 1100) and steps == int(1620 / 1.28)
    args = CompressArguments(teacher="t", corpus="c", output_dir="o")
    assert plan_lengths(args, 50, [10], 1000) == [(plan.STEPS, 5.0)]


def test_few_texts_leave_enough_to_train_on():
    few = Corpus.of_file(Path("x"), 20).arguments
    assert (few["held_out"], few["init_sequences"], few["batch_size"]) == (2, 2, 16)
    many = Corpus.of_file(Path("x"), 5000).arguments
    assert (many["held_out"], many["init_sequences"], many["batch_size"]) == (64, 64, 16)


def test_predictions_are_written_by_name():
    assert named(1, ("no", "yes")) == "yes"
    assert named([1, 0, 1], ("a", "b", "c")) == ["a", "c"]


def test_the_table_tells_speed_and_gain():
    rows = [
        {
            "model": "teacher",
            "latency_ms": 40.0,
            "megabytes": 133.2,
            "parameters": 33.3e6,
            "metric": "f1",
            "quality": 0.9,
        },
        {
            "model": "model",
            "latency_ms": 10.0,
            "megabytes": 20.0,
            "parameters": 5e6,
            "metric": "f1",
            "quality": 0.85,
            "interval_95": [0.8, 0.9],
            "gain": 0.05,
            "gain_interval_95": [0.01, 0.09],
        },
    ]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in make_table(rows).splitlines()]
    assert lines[0] == ["model", "f1", "gained by distillation", "ms a text", "speed-up", "MB", "parameters"]
    assert lines[2] == ["teacher", "0.900", "", "40.0", "1.0x", "133", "33.3M"]
    assert lines[3][1:5] == ["0.850 (0.800 to 0.900)", "+0.050 (0.010 to 0.090)", "10.0", "4.0x"]


def test_the_tokenizer_of_the_model_is_the_teachers(classifier, task_file, tmp_path):
    compress(classifier, tmp_path / "out", latency=15, data=task_file, text_column="text", corpus=None)
    text = "word1 word2"
    one, other = (AutoTokenizer.from_pretrained(path) for path in (classifier, tmp_path / "out" / "model"))
    assert one(text)["input_ids"] == other(text)["input_ids"]
