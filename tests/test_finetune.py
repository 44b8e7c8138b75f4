"""Fine-tuning and task distillation end to end on tiny models: what comes out, and how it resumes."""

import json
import shutil
import statistics
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.modeling_efficientbert import EfficientBertModel
from efficientbert.train import finetune
from efficientbert.train.cli.arguments import parse_arguments
from efficientbert.train.cli.command import run_command
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.model_folder.record import read_provenance
from efficientbert.train.tasks import finetuning
from efficientbert.train.tasks.arguments import FinetuneArguments, LabelledData
from efficientbert.train.tasks.division import scored_data, training_data
from efficientbert.train.tasks.finetuning import summarize
from efficientbert.train.tasks.kinds import task_of_data
from efficientbert.train.tasks.prediction import main_score
from efficientbert.train.tasks.run import described_gain
from efficientbert.train.tasks.texts import TextTask


ROOT = Path(__file__).parents[1]


def call(*argv: str) -> None:
    run_command(finetune.main, FinetuneArguments, "finetune", list(map(str, argv)))


@pytest.fixture(scope="module")
def student_folder(teacher_folder, tmp_path_factory) -> str:
    """A tiny student with random weights."""
    folder = tmp_path_factory.mktemp("student")
    torch.manual_seed(0)
    sizes = {"vocab_size": 65, "hidden_size": 18, "num_hidden_layers": 2, "num_attention_heads": 3}
    EfficientBertModel(EfficientBertConfig(**sizes, embedding_size=8, max_position_embeddings=64)).save_pretrained(
        folder
    )
    Teacher.load(teacher_folder("bert")).tokenizer.save_pretrained(folder)
    return str(folder)


def arguments(model: str, task_file: str, output: Path, *more: str) -> list[str]:
    given = ["--model", model, "--data", task_file, "--text_column", "text", "--eval_split", "train"]
    given += ["--num_epochs", "12", "--learning_rate", "3e-3", "--batch_size", "8", "--output_dir", str(output)]
    return [*given, *more]


def read(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def same_weights(one: Path, other: Path) -> bool:
    tensors = [load_file(folder / "model.safetensors") for folder in (one, other)]
    return all(torch.equal(tensor, tensors[1][name]) for name, tensor in tensors[0].items())


def test_own_data(student_folder, task_file, tmp_path):
    call(*arguments(student_folder, task_file, tmp_path / "f"))
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "f")
    assert model.config.id2label == {0: "no", 1: "yes"}
    assert read(tmp_path / "f")["train"]["accuracy"] > 0.9
    assert [step["step"] for step in read_provenance(tmp_path / "f")] == ["finetune"]


def test_rows_that_are_cut_are_told(student_folder, task_file, tmp_path, capsys):
    """The texts of the task have 4 to 10 words; with the ends, 6 to 12 tokens."""
    rows = Path(task_file).read_text(encoding="utf-8").splitlines()[1:]
    cut = sum(len(row.split()) + 2 >= 10 for row in rows)
    assert 0 < cut < 64
    call(*arguments(student_folder, task_file, tmp_path / "cut", "--max_length", "10", "--max_steps", "1"))
    assert (
        f"{cut} of 64 rows to train on fill 10 tokens; what goes on behind them is not read" in capsys.readouterr().out
    )
    call(*arguments(student_folder, task_file, tmp_path / "whole", "--max_length", "16", "--max_steps", "1"))
    assert "is not read" not in capsys.readouterr().out


def test_max_steps_are_taken_in_place_of_epochs(student_folder, task_file, tmp_path):
    call(*arguments(student_folder, task_file, tmp_path / "f", "--max_steps", "3", "--log_steps", "1"))
    log = json.loads((tmp_path / "f" / "training_log.json").read_text(encoding="utf-8"))
    assert [row["step"] for row in log] == [1, 2, 3]


@pytest.mark.parametrize("distillation", ["outputs", "together", "sequence"])
def test_a_teacher_of_the_task_teaches(distillation, student_folder, teacher_folder, task_file, tmp_path):
    """The teacher is fine-tuned by the same command; a teacher with swapped labels teaches the swapped task."""
    call(*arguments(teacher_folder(), task_file, tmp_path / "teacher"))
    assert read(tmp_path / "teacher")["train"]["accuracy"] > 0.9
    swapped = AutoModelForSequenceClassification.from_pretrained(tmp_path / "teacher")
    swapped.classifier.weight.data = swapped.classifier.weight.data.flip(0)
    swapped.classifier.bias.data = swapped.classifier.bias.data.flip(0)
    shutil.copytree(tmp_path / "teacher", tmp_path / "swapped")
    swapped.save_pretrained(tmp_path / "swapped")
    more = ["--teacher", str(tmp_path / "swapped"), "--distillation", distillation, "--num_epochs", "24"]
    call(*arguments(student_folder, task_file, tmp_path / "f", *more))
    assert read(tmp_path / "f")["train"]["accuracy"] < 0.1
    assert (tmp_path / "f" / "distillation_projection.safetensors").exists() == (distillation != "outputs")


def test_a_student_is_held_against_its_teacher_and_labels_alone(
    student_folder, teacher_folder, task_file, tmp_path, capsys
):
    """Under a teacher with swapped labels the student loses; on the labels alone it is the student without one."""
    call(*arguments(teacher_folder(), task_file, tmp_path / "teacher"))
    assert not [name for name in read(tmp_path / "teacher") if name != "train"]
    swapped = AutoModelForSequenceClassification.from_pretrained(tmp_path / "teacher")
    swapped.config.id2label = {0: "yes", 1: "no"}
    shutil.copytree(tmp_path / "teacher", tmp_path / "swapped")
    swapped.save_pretrained(tmp_path / "swapped")
    call(*arguments(student_folder, task_file, tmp_path / "alone"))
    capsys.readouterr()
    more = ["--teacher", str(tmp_path / "swapped"), "--labels_alone", "true"]
    call(*arguments(student_folder, task_file, tmp_path / "f", *more, "--seeds", "0", "1"))
    results, single = read(tmp_path / "f"), read(tmp_path / "f" / "seed-0")
    assert set(results) == set(single) == {"train", "train, teacher", "train, labels alone"}
    assert single["train, labels alone"] == read(tmp_path / "alone")["train"]
    assert single["train, teacher"]["accuracy"] < 0.1
    assert "2 seeds, train: the student does not gain by its teacher: 0." in capsys.readouterr().out
    assert not (tmp_path / "f" / "seed-0" / "labels-alone").exists()


def test_the_learning_rate_where_none_is_given():
    def rate(taught, **given):
        return FinetuneArguments(model="m", output_dir="o", **given).rate(taught)

    assert rate(True) == rate(True, distillation="sequence") == 1e-3
    assert rate(False) == rate(True, distillation="outputs") == 1e-4
    assert rate(True, learning_rate=2e-5) == rate(False, learning_rate=2e-5) == 2e-5


def test_what_is_said_of_a_students_gain():
    results = {"dev": {"accuracy": 0.75}, "dev, labels alone": {"accuracy": 0.75}}
    assert described_gain("dev", results, "accuracy") == (
        "dev: the student is as good with its teacher as without: 0.7500 under it, 0.7500 on labels alone"
    )
    results["dev"] = {"accuracy": 0.8}
    assert described_gain("dev", results, "accuracy") == (
        "dev: the student gains by its teacher: 0.8000 under it, 0.7500 on labels alone"
    )


def test_regression(student_folder, tmp_path):
    rows = ["text,label"] + [f"word{index % 8} word9,{index % 8 / 2}" for index in range(64)]
    (tmp_path / "task.csv").write_text("\n".join(rows), encoding="utf-8")
    call(*arguments(student_folder, str(tmp_path / "task.csv"), tmp_path / "f", "--num_epochs", "60"))
    assert read(tmp_path / "f")["train"]["pearson"] > 0.8
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "f").config.problem_type == "regression"


def test_starting_from_another_tasks_model(student_folder, task_file, tmp_path):
    """The encoder is kept; the head of a task with other labels, even of the same number, is made anew."""
    call(*arguments(student_folder, task_file, tmp_path / "first"))
    text = Path(task_file).read_text(encoding="utf-8").replace(",yes", ",spam").replace(",no", ",ham")
    (tmp_path / "other.csv").write_text(text, encoding="utf-8")
    names = {}
    for name, data in (("same", task_file), ("other", str(tmp_path / "other.csv"))):
        call(*arguments(str(tmp_path / "first"), data, tmp_path / name, "--learning_rate", "1e-12"))
        names[name] = load_file(tmp_path / name / "model.safetensors")
    first = load_file(tmp_path / "first" / "model.safetensors")
    for name, tensors in names.items():
        for key, tensor in tensors.items():
            anew = name == "other" and key.startswith("classifier.output")
            assert torch.allclose(tensor, first[key], atol=1e-6) != anew, (name, key)


def test_an_encoder_that_lacks_weights_is_refused(student_folder, task_file, tmp_path, capsys):
    shutil.copytree(student_folder, tmp_path / "torn")
    tensors = load_file(tmp_path / "torn" / "model.safetensors")
    del tensors["layers.0.attention.qkv.weight"]
    save_file(tensors, tmp_path / "torn" / "model.safetensors", {"format": "pt"})
    with pytest.raises(SystemExit) as ended:
        call(*arguments(str(tmp_path / "torn"), task_file, tmp_path / "f"))
    assert ended.value.code == 2
    assert "lacks 1 weights, such as 'efficientbert.layers.0.attention.qkv.weight'" in capsys.readouterr().err


def test_seeds(student_folder, task_file, tmp_path):
    output = tmp_path / "f"
    call(*arguments(student_folder, task_file, output, "--seeds", "3", "5", "--num_epochs", "2"))
    single = [read(output / f"seed-{seed}")["train"]["accuracy"] for seed in (3, 5)]
    summary = read(output)["train"]
    assert summary["accuracy"] == pytest.approx(sum(single) / 2)
    assert summary["accuracy_std"] == pytest.approx(statistics.stdev(single))
    assert not same_weights(output / "seed-3", output / "seed-5")
    call(*arguments(student_folder, task_file, tmp_path / "alone", "--seed", "5", "--num_epochs", "2"))
    assert same_weights(output / "seed-5", tmp_path / "alone")


def test_summary_of_seeds():
    found = summarize([{"f1": 1.0}, {"f1": 2.0}, {"f1": 6.0}])
    assert found == pytest.approx({"f1": 3.0, "f1_std": 7**0.5})
    assert summarize([{"f1": 1.0}]) == {"f1": 1.0, "f1_std": 0.0}


def test_the_best_weights_on_rows_kept_aside(student_folder, task_file, tmp_path, monkeypatch):
    """With a rate that ruins the model behind its best pass, selection keeps that pass."""
    scores = iter([0.25, 0.75, 0.5])
    real = finetuning.main_score
    monkeypatch.setattr(finetuning, "main_score", lambda *found: next(scores) if real(*found) >= 0 else None)
    more = ["--selection", "0.25", "--num_epochs", "3"]
    call(*arguments(student_folder, task_file, tmp_path / "f", *more))
    assert read(tmp_path / "f")["selection"] == {"step": 12, "score": 0.75}
    monkeypatch.undo()
    call(*arguments(student_folder, task_file, tmp_path / "last", "--num_epochs", "3"))
    assert not same_weights(tmp_path / "f", tmp_path / "last")
    assert not list((tmp_path / "f").glob("selected*"))


def test_an_unknown_metric_is_refused_before_anything_is_tokenised(
    student_folder, task_file, tmp_path, monkeypatch, capsys
):
    """Also where nothing is to be scored: the metric goes into the model's record."""
    monkeypatch.setattr(TextTask, "encode", lambda *_: pytest.fail("tokenises before the metric is known"))
    with pytest.raises(SystemExit):
        call(*arguments(student_folder, task_file, tmp_path / "f", "--metric", "acuracy", "--eval_split", "none"))
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "metric 'acuracy': " in last and "; known without the Hub are 'cola', " in last
    assert not list(tmp_path.iterdir())


def test_questions_about_one_context_stay_on_one_side(tmp_path, teacher_folder):
    rows = [
        {
            "id": str(i),
            "question": f"word{i}",
            "context": f"word{i % 5} word9",
            "answers": {"text": ["word9"], "answer_start": [6]},
        }
        for i in range(40)
    ]
    Dataset.from_list(rows).to_parquet(tmp_path / "questions.parquet")
    source = {"kind": "question-answering", "data": str(tmp_path / "questions.parquet"), "max_length": 64}
    data = LabelledData(**source, eval_split=["none"])
    task = task_of_data(data, Teacher.load(teacher_folder("bert")).tokenizer, "train")
    training, aside = training_data(data, task, 0.4)
    assert (len(training.rows), len(aside.rows)) == (24, 16)
    assert not set(training.rows["context"]) & set(aside.rows["context"])
    data = LabelledData(**source)  # of few contexts one is kept aside for scoring
    training, _ = training_data(data, task, 0.0)
    (scored,) = scored_data(data, task)
    assert (len(training.rows), len(scored.rows)) == (32, 8)
    assert not set(training.rows["context"]) & set(scored.rows["context"])


def test_the_number_that_weights_are_chosen_by():
    assert main_score({"accuracy": 0.1, "f1": 0.2}, "mrpc") == 0.2
    assert main_score({"pearson": 0.5, "spearmanr": 0.4}, "stsb") == 0.5
    # Percentages become fractions.
    assert main_score({"exact": 10.0, "f1": 20.0, "best_f1": 30.0}, "squad_v2") == 0.3
    assert main_score({"exact_match": 10.0, "f1": 20.0}, "squad") == 0.2


def test_augmented_rows_are_trained_on_in_place_of_the_split(student_folder, task_file, tmp_path):
    (tmp_path / "more.csv").write_text("text,label\n" + "word3 word4,yes\n" * 32, encoding="utf-8")
    more = ["--augmented_data", str(tmp_path / "more.csv"), "--num_epochs", "1", "--log_steps", "1"]
    call(*arguments(student_folder, task_file, tmp_path / "f", *more))
    log = json.loads((tmp_path / "f" / "training_log.json").read_text(encoding="utf-8"))
    assert len(log) == 32 / 8


@pytest.mark.parametrize("with_teacher", [False, True])
def test_killed_and_started_again_gives_the_same(
    with_teacher, student_folder, teacher_folder, task_file, kill_behind, tmp_path
):
    """kill -9 behind a checkpoint, with selection between checkpoints."""
    more = ["--selection", "0.25", "--num_epochs", "4", "--checkpoint_steps", "5"]
    if with_teacher:
        call(*arguments(teacher_folder(), task_file, tmp_path / "teacher", "--num_epochs", "1"))
        more += ["--teacher", str(tmp_path / "teacher"), "--distillation", "sequence"]
    whole, cut = tmp_path / "whole" / "f", tmp_path / "cut" / "f"
    call(*arguments(student_folder, task_file, whole, *more))
    given = arguments(student_folder, task_file, cut, *more)
    kill_behind(15, "finetune", *given)
    assert not cut.exists() and (tmp_path / "cut" / "f.partial").exists()
    call(*given)
    assert same_weights(whole, cut) and read(whole) == read(cut)


def test_two_processes_give_the_weights_of_one_with_the_double_batch(
    student_folder, teacher_folder, task_file, ranks, tmp_path
):
    call(*arguments(teacher_folder(), task_file, tmp_path / "teacher", "--num_epochs", "1"))
    config = json.loads((Path(student_folder) / "config.json").read_text(encoding="utf-8"))
    still = tmp_path / "still"  # without dropout, whose draws differ between processes
    shutil.copytree(student_folder, still)
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (still / "config.json").write_text(json.dumps(config), encoding="utf-8")
    more = ["--teacher", str(tmp_path / "teacher"), "--losses", "hidden_states", "qkv_relations", "--seeds", "0", "1"]
    more += ["--train_split", "train[:32]", "--num_epochs", "1"]
    call(*arguments(str(still), task_file, tmp_path / "1", *more))
    given = arguments(str(still), task_file, tmp_path / "2", *more, "--batch_size", "4")
    assert ranks(lambda: call(*given)) == [0, 0]
    one, two = (load_file(tmp_path / name / "seed-1" / "model.safetensors") for name in ("1", "2"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--selection", "0.001"], "leaves no rows on one side"),
        (["--selection", "0.5", "--augmented_data", "{task_file}"], "may hold variants of the rows"),
        (["--selection", "1.5"], "selection: must be at least 0 and below 1"),
        (["--seeds", "1", "1"], "seeds: must be different numbers"),
        (["--distillation", "both"], "distillation: must be outputs, together, sequence"),
        (["--label_weight", "2"], "label_weight: must be between 0 and 1"),
        (["--temperature", "0"], "temperature: must be above 0"),
        (["--labels_alone", "true"], "labels_alone: is what a student under a --teacher is held against"),
        (["--temperature", "2"], "are for learning from a --teacher, and there is none"),
        (["--metric", "no_such_metric"], "metric 'no_such_metric'"),
        (["--seeds", "1", "2", "--data", "nothere.csv"], "nothere.csv"),
        (["--teacher", "nowhere"], "teacher 'nowhere': cannot be loaded"),
        (["--eval_split", "dev"], 'cannot be loaded: Unknown split "dev"'),
    ],
)
def test_what_is_refused(more, message, student_folder, task_file, tmp_path):
    more = [word.replace("{task_file}", task_file) for word in more]
    namespace = arguments(student_folder, task_file, tmp_path / "f", *more)
    with pytest.raises(InputError, match=message):
        finetune.main(parse_arguments(FinetuneArguments, namespace, "efficientbert finetune", ""))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("file", ["none", "another width"])
def test_a_student_without_its_projection_starts_as_near_to_its_teacher(
    file, student_folder, teacher_folder, task_file, tmp_path
):
    """As models from the Hub do: the file stays behind."""
    call(*arguments(teacher_folder(), task_file, tmp_path / "teacher", "--num_epochs", "1"))
    more = ["--teacher", str(tmp_path / "teacher"), "--losses", "hidden_states", "--log_steps", "1"]
    call(*arguments(student_folder, task_file, tmp_path / "with", *more))
    shutil.copytree(tmp_path / "with", tmp_path / "without")
    path = tmp_path / "without" / "distillation_projection.safetensors"
    path.unlink()
    if file == "another width":
        save_file({"weight": torch.zeros(30, 18), "bias": torch.zeros(30)}, path)
    first = {}
    for name in ("with", "without"):
        steps = ["--num_epochs", "0.125", "--learning_rate", "1e-12"]
        call(*arguments(str(tmp_path / name), task_file, tmp_path / f"from-{name}", *more, *steps))
        log = json.loads((tmp_path / f"from-{name}" / "training_log.json").read_text(encoding="utf-8"))
        first[name] = log[0]["hidden_states"]
    assert 0.5 * first["with"] < first["without"] < 1.05 * first["with"]
