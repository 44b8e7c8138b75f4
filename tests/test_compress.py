"""The command `compress` on tiny teachers of every kind, with a clock that is not looked at."""

import json
import random
from pathlib import Path
from types import SimpleNamespace

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
from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.modeling_efficientbert import EfficientBertModel
from efficientbert.search.compression import making, plan, preparation, scoring
from efficientbert.search.compression.arguments import CompressArguments
from efficientbert.search.compression.corpus import Corpus, own_documents
from efficientbert.search.compression.own_rows import OwnRows, several
from efficientbert.search.compression.plan import plan_lengths
from efficientbert.search.compression.report import make_table
from efficientbert.search.compression.teacher_kind import check_kind
from efficientbert.search.costs import latency
from efficientbert.search.costs.cost import Parameters
from efficientbert.search.known.features import TeacherSizes
from efficientbert.search.space.architecture import Architecture
from efficientbert.search.space.open_space import open_choices
from efficientbert.search.space.space import SearchSpace
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.model_folder.card import add_section
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
ASKED = CompressArguments(teacher="t", corpus="c", output_dir="o")
pytestmark = pytest.mark.usefixtures("no_clock")


class Stop(Exception):
    """Ends a run where a test wants it."""


def stop(*args):
    raise Stop


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
    assert [row["role"] for row in rows] == ["teacher", "compressed", "rival"]
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
    found = json.loads((tmp_path / "out" / "plan.json").read_text(encoding="utf-8"))
    planned = found["models"][0]
    assert (found["teacher_batched_ms"], planned["batched_ms"]) == (0.75 * TEACHER_MS, 9.0)
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
    assert "the teacher's labels stand in, also for scores" in capsys.readouterr().out
    rows = Dataset.from_parquet(str(tmp_path / "out" / "jobs" / "labelled" / "train.parquet"))
    assert len(rows) == 64 and rows.features["label"].names == ["no", "yes"]
    said = (tmp_path / "out" / "compression.md").read_text(encoding="utf-8")
    assert "fine-tuned on the teacher's labels alone" in said and "quality is agreement with it" in said


def test_an_interrupted_run_keeps_its_plan_and_what_is_done(classifier, task_file, tmp_path, monkeypatch):
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
    monkeypatch.setattr(scoring, "measure_times", lambda models, *rest: [{1: [15.0], 16: [240.0]} for _ in models])
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
    questions[0]["answers"] = {"text": [], "answer_start": []}  # so that thresholds come in
    lines = "\n".join(map(json.dumps, questions))
    (tmp_path / "questions.jsonl").write_text(lines + "\n", encoding="utf-8")
    made = compress(reader, tmp_path / "a", latency=15, data=tmp_path / "questions.jsonl", **columns, doc_stride=4)
    for row in made.figures["models"]:  # the threshold that is best on the scored rows is no figure of theirs
        assert row["metric"] == "f1" and "total" in row["metrics"]  # of squad_v2
        assert not any(name.startswith("best") for name in row["metrics"])
        assert row["quality"] == row["metrics"]["f1"] / 100
    AutoModelForQuestionAnswering.from_pretrained(tmp_path / "a" / "model")
    tagger = save_teacher(tmp_path / "tagger", BertForTokenClassification, id2label={0: "A", 1: "O"})
    made = compress(tagger, tmp_path / "b", size=0.02, data=tmp_path / "tags.jsonl", text_column="words", doc_stride=4)
    assert made.figures["models"][1]["megabytes"] <= 0.02


def test_what_cannot_be_is_refused_in_one_line(classifier, teacher_folder, corpus_file, task_file, tmp_path):
    data = {"data": task_file, "text_column": "text"}
    for teacher, more, told in (
        (classifier, {"latency": 50} | data, "latency: the teacher itself takes 40 ms here, no more than 50"),
        (classifier, {"size": 50} | data, r"size: the teacher itself takes 0\.0\d+ MB here, no more than 50"),
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
        (
            classifier,
            {"latency": 15, "label_column": "lable"} | data,
            "no column 'lable'; it has 'text', 'label'",
        ),
        (classifier, {"latency": 15, "metric": "nonsense"} | data, "nonsense"),
        (classifier, {"latency": 15, "device": "cuda"} | data, "device 'cuda': is not here"),
        (
            classifier,
            {"latency": 15, "task": "squad", "doc_stride": 4},
            "task: teacher .* is for text-classification, not for question",
        ),
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
        ("few", lines[:9], "makes 3 documents to learn from, too few: at least 12 are needed; give --corpus"),
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
    args = TaskArguments(data="x", text_column="text")
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
    documents = own_documents(args, Dataset.from_list([{"text": text} for text in texts]), make_tokenizer())
    assert documents[:2] == ["a b c d e f g h", "i " + "w " * 9] and len(documents) == 13


def test_no_scored_text_is_learned_from(classifier, task_file, tmp_path):
    made = compress(classifier, tmp_path / "out", latency=15, data=task_file, text_column="text")
    lines = (tmp_path / "out" / "jobs" / "texts.jsonl").read_text(encoding="utf-8").splitlines()
    learned = " ".join(json.loads(line)["text"] for line in lines)
    texts = [line.split(",")[0] for line in Path(task_file).read_text(encoding="utf-8").splitlines()[1:]]
    assert sum(text not in learned for text in texts) == made.figures["models"][0]["rows"] == 8


def test_several_labels_without_any(task_file, tmp_path):
    names = {"num_labels": 3, "id2label": dict(enumerate("abc")), "problem_type": "multi_label_classification"}
    teacher = save_teacher(tmp_path / "several", BertForSequenceClassification, **names)
    made = compress(teacher, tmp_path / "out", latency=15, data=unlabelled(task_file, tmp_path), text_column="text")
    assert made.figures["models"][0]["quality"] == 1
    rows = Dataset.from_parquet(str(tmp_path / "out" / "jobs" / "labelled" / "train.parquet"))
    assert rows.features["label"].feature.names == ["a", "b", "c"]
    assert len({tuple(labels) for labels in rows["label"][:]}) > 1


def test_a_split_of_its_own_is_scored_without_labels_too(classifier, task_file, tmp_path):
    (tmp_path / "own").mkdir()
    texts = Path(unlabelled(task_file, tmp_path)).read_text(encoding="utf-8").splitlines()
    (tmp_path / "own" / "train.csv").write_text("\n".join(texts[:50]) + "\n", encoding="utf-8")
    (tmp_path / "own" / "validation.csv").write_text("\n".join(["text", *texts[50:]]) + "\n", encoding="utf-8")
    made = compress(classifier, tmp_path / "out", latency=15, data=tmp_path / "own", text_column="text")
    assert (made.figures["models"][0]["split"], made.figures["models"][0]["rows"]) == ("validation", 15)


def test_a_teacher_that_names_no_labels(task_file, tmp_path):
    teacher = save_teacher(tmp_path / "unnamed", BertForSequenceClassification, num_labels=2)
    texts = unlabelled(task_file, tmp_path)
    compress(teacher, tmp_path / "out", latency=15, data=texts, text_column="text")
    config = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out" / "model").config
    assert config.id2label == {0: "LABEL_0", 1: "LABEL_1"}


def test_the_teacher_is_scored_as_its_student_is(task_file, tmp_path):
    """Its record names another metric and column, and its labels differ in case and order."""
    names = {"id2label": {0: "YES", 1: "NO"}, "label2id": {"YES": 0, "NO": 1}}
    teacher = save_teacher(tmp_path / "recorded", BertForSequenceClassification, **names)
    step = {"step": "finetune", "arguments": {}, "task_arguments": {"metric": "mrpc", "label_column": "stars"}}
    (tmp_path / "recorded" / "provenance.json").write_text(json.dumps([step]), encoding="utf-8")
    made = compress(teacher, tmp_path / "out", latency=15, data=task_file, text_column="text")
    assert {row["metric"] for row in made.figures["models"]} == {"accuracy"}
    model = AutoModelForSequenceClassification.from_pretrained(teacher)
    rows = [line.split(",") for line in Path(task_file).read_text(encoding="utf-8").splitlines()[1:]]
    learned = (tmp_path / "out" / "jobs" / "texts.jsonl").read_text(encoding="utf-8")
    tokenizer, right = make_tokenizer(), []
    for text, label in rows:
        if text not in learned:
            found = model(**tokenizer(text, return_tensors="pt")).logits.argmax().item()
            right.append(model.config.id2label[found].lower() == label)
    assert made.figures["models"][0]["quality"] == sum(right) / len(right)


def test_changed_rows_are_not_gone_on_with(classifier, task_file, tmp_path, monkeypatch):
    data = tmp_path / "data.csv"
    data.write_text(Path(task_file).read_text(encoding="utf-8"), encoding="utf-8")

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(making, "run_jobs", stop)
        compress(classifier, tmp_path / "out", latency=15, data=data, text_column="text")
    with data.open("a", encoding="utf-8") as file:
        file.write("word1 word2 word3,yes\n")
    told = r"data.csv': has changed since the run began; delete out\.partial or give another --output_dir"
    with pytest.raises(InputError, match=told):
        compress(classifier, tmp_path / "out", latency=15, data=data, text_column="text")


def test_an_embedders_own_limit_holds(teacher_folder, corpus_file, tmp_path):
    embedder = SentenceTransformer(teacher_folder())
    embedder.max_seq_length = 16
    embedder.save(str(tmp_path / "embedder"))
    with pytest.raises(InputError, match="max_length: must be between 8 and the 16 tokens of teacher"):
        compress(str(tmp_path / "embedder"), tmp_path / "out", corpus=corpus_file, latency=15)
    with pytest.raises(InputError, match=r"kind: teacher .* embeds texts and predicts nothing; leave --kind out"):
        data = {"data": "x.csv", "kind": "token-classification"}
        check_kind("embedder", CompressArguments(teacher="t", output_dir="o", **data))


def open_space() -> SearchSpace:
    base = EfficientBertConfig(vocab_size=65, max_position_embeddings=64)
    table = latency.Latency(
        base, "nowhere.json", latency.LatencySettings(1, 24), lambda parts, *more: [0.01] * len(parts)
    )
    table.milliseconds = Constant()
    return SearchSpace(base, open_choices(24, 4, 3), costs={"latency": table, "parameters": Parameters(base)})


class Constant(dict):
    """A table in which every part takes as long."""

    def __missing__(self, part: str) -> float:
        return 0.5


def test_both_goals_are_ceilings(monkeypatch):
    space, sizes = open_space(), TeacherSizes(24, 4, 3)
    architecture, *_ = plan.find_architecture(space, plan.Goal("model", 30.0, 0.02), sizes, ASKED)
    assert space.costs["latency"](architecture) <= 30 and Parameters(space.base)(architecture) <= 5000

    def refuse(*args):
        raise InputError("budget: none")

    monkeypatch.setattr(plan, "choose", refuse)
    with pytest.raises(InputError, match=r"latency, size: nothing in the space takes no more than 30 ms and 0\.02 MB"):
        plan.find_architecture(space, plan.Goal("model", 30.0, 0.02), sizes, ASKED)


def test_every_layer_that_may_be_chosen_has_attention(teacher_folder, tmp_path):
    teacher = Teacher.load(teacher_folder())
    args = CompressArguments(teacher="x", corpus="x", output_dir="x", max_length=24)
    space = plan.make_space(teacher, args, 1, tmp_path)
    assert 0 in open_choices(24, 4, 3).head_counts and 0 not in space.choices.head_counts
    assert len(space.sample(random.Random(0)).attentive) == len(space.sample(random.Random(0)).layers)


def test_a_choice_that_is_too_slow_as_a_whole_gives_way(monkeypatch, capsys):
    space, sizes, timed = open_space(), TeacherSizes(24, 4, 3), []

    def measure(configs, settings, rounds) -> list[float]:
        (config,) = configs
        timed.append(1.2 * space.costs["latency"](Architecture.from_config(config)))
        return timed[-1:]

    monkeypatch.setattr(plan, "measure_config_latency", measure)
    _, _, milliseconds = plan.find_architecture(space, plan.Goal("model", 20.0, None), sizes, ASKED)
    assert timed[0] > 20 >= timed[-1] == milliseconds
    monkeypatch.setattr(plan, "measure_config_latency", lambda *args: [99.0])
    plan.find_architecture(space, plan.Goal("model", 20.0, None), sizes, ASKED)
    assert "note: what the table of parts promises 20 ms for takes 99 ms as a whole" in capsys.readouterr().out


def test_a_space_that_has_nothing_slower_is_asked_no_more(monkeypatch):
    space, sizes, timed = open_space(), TeacherSizes(24, 4, 3), []
    monkeypatch.setattr(plan, "choose_for", lambda space, goal, teacher, seed: (space.sample(random.Random(0)), 0.5))
    monkeypatch.setattr(plan, "time_whole", lambda *given: timed.append(given) or 1.0)
    _, _, milliseconds = plan.find_architecture(space, plan.Goal("model", 1000.0, None), sizes, ASKED)
    assert milliseconds == 1.0 and len(timed) == 2


def test_a_runtime_that_is_faster_gets_a_larger_model(monkeypatch):
    space, sizes = open_space(), TeacherSizes(24, 4, 3)
    table = space.costs["latency"]
    args = CompressArguments(teacher="t", corpus="c", output_dir="o", runtime="onnx-int8")

    def time_whole(config, settings, runtime) -> float:
        assert runtime == "onnx-int8"
        return 0.5 * table(Architecture.from_config(config))

    monkeypatch.setattr(plan, "time_whole", time_whole)
    found, _, milliseconds = plan.find_architecture(space, plan.Goal("model", 8.0, None), sizes, args)
    assert 6.4 <= milliseconds == 0.5 * table(found) <= 8
    fastest = 0.5 * space.least("latency")
    found, _, milliseconds = plan.find_architecture(space, plan.Goal("model", 1.2 * fastest, None), sizes, args)
    assert milliseconds <= 1.2 * fastest < space.least("latency")  # out of reach in PyTorch
    with pytest.raises(
        InputError, match=r"ms is out of reach in onnx-int8; the fastest that was found takes [\d.]+ ms"
    ):
        plan.find_architecture(space, plan.Goal("model", 0.5 * fastest, None), sizes, args)


def test_a_model_for_a_runtime(teacher_folder, corpus_file, tmp_path, monkeypatch):
    timed = []

    def measure_times(calls, vocab_size, args, device) -> list[dict[int, list[float]]]:
        timed.append([type(call).__name__ for call in calls])
        return [
            {size: [20.0 * size if number == 0 else 9.0] for size in args.batch_sizes}
            for number, _ in enumerate(calls)
        ]

    monkeypatch.setattr(scoring, "measure_times", measure_times)
    monkeypatch.setattr(plan, "measure_times", lambda *rest: [{1: [9.0]}])
    compress(teacher_folder(), tmp_path / "out", corpus=corpus_file, latency=10, runtime="onnx")
    assert timed == [["Session"], ["BertModel"], ["Session"] * 3]
    said = (tmp_path / "out" / "compression.md").read_text(encoding="utf-8")
    assert "one text of 24 tokens at batch 1 in onnx, with" in said


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


def test_a_pass_is_counted_in_texts_of_full_length():
    rows = SimpleNamespace(features={"input_ids": [[1] * 10, [1] * 30]})
    choices = SimpleNamespace(features={"input_ids": [[[1] * 10, [1] * 20], [[1] * 5, [1] * 15]]})
    assert [OwnRows(None, None, None, part, None).texts(20) for part in (rows, choices)] == [2.0, 2.5]


def test_few_texts_leave_enough_to_train_on():
    few = Corpus.of_file(Path("x"), 20).arguments
    assert (few["held_out"], few["init_sequences"], few["batch_size"]) == (2, 2, 16)
    many = Corpus.of_file(Path("x"), 5000).arguments
    assert (many["held_out"], many["init_sequences"], many["batch_size"]) == (64, 64, 16)


def test_several_labels_are_those_of_even_odds():
    assert several([0.9, 0.49, 0.5]) == [0, 2]


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


def test_a_card_holds_the_last_table_alone(tmp_path):
    (tmp_path / "README.md").write_text("# model\n\ntext\n", encoding="utf-8")
    for title, text in (("Beside", "old"), ("Other", "kept"), ("Beside", "new")):
        add_section(tmp_path, title, text)
    written = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert written == "# model\n\ntext\n\n## Other\n\nkept\n\n## Beside\n\nnew\n"
