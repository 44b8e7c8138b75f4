"""Several tasks with one encoder: which batches come, what is shared, and what the command leaves."""

import json
import shutil
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
)

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.modeling_efficientbert import EfficientBertForSequenceClassification, EfficientBertModel
from efficientbert.train import multitask
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.multitask_objective import MultitaskModel, MultitaskObjective, TaskBatches
from efficientbert.train.distillation.task_objective import TaskStudent
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.model_folder.record import read_provenance
from efficientbert.train.tasks.arguments import MultitaskArguments, check_names
from efficientbert.train.tasks.trained import recorded_arguments


CONFIG = {"vocab_size": 65, "hidden_size": 18, "num_hidden_layers": 2, "num_attention_heads": 3, "embedding_size": 8}


@pytest.fixture(scope="module")
def tokenizer(teacher_folder):
    return Teacher.load(teacher_folder("bert")).tokenizer


@pytest.fixture(scope="module")
def student_folder(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("student")
    torch.manual_seed(0)
    EfficientBertModel(EfficientBertConfig(**CONFIG, max_position_embeddings=64)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def task_files(task_file, tmp_path):
    """Two YAML tasks: classes and a number, the second one with a quarter of the rows."""
    (tmp_path / "numbers.csv").write_text(
        "first,second,score\n" + "\n".join(f"word{i},word{i % 4},{i % 4}.5" for i in range(16)), encoding="utf-8"
    )
    common = "train_split: train\neval_split: [train]\n"
    (tmp_path / "classes.yaml").write_text(f"data: {task_file}\ntext_column: text\n{common}", encoding="utf-8")
    (tmp_path / "numbers.yaml").write_text(
        f"data: {tmp_path}/numbers.csv\ntext_column: first\ntext_pair_column: second\nlabel_column: score\n{common}",
        encoding="utf-8",
    )
    return [str(tmp_path / "classes.yaml"), str(tmp_path / "numbers.yaml")]


def make_batches(sizes=(40, 10), batch_size=5, size=400, sampling=1.0, seed=0):
    return TaskBatches([[(t, row) for row in range(n)] for t, n in enumerate(sizes)], batch_size, size, sampling, seed)


def test_batches_are_of_one_task_and_every_row_comes_once_a_pass():
    batches = make_batches()
    seen = [[], []]
    for index in range(len(batches)):
        task, rows = batches[index]
        assert len(rows) == 5 and all(row[0] == task for row in rows)
        seen[task] += [row[1] for row in rows]
    for rows, size in zip(seen, (40, 10)):
        passes = [sorted(rows[start : start + size]) for start in range(0, len(rows) - size + 1, size)]
        assert len(passes) > 5 and all(found == list(range(size)) for found in passes)
        assert rows[:size] != rows[size : 2 * size]


@pytest.mark.parametrize(("sampling", "share"), [(1.0, 0.8), (0.5, 2 / 3), (0.0, 0.5)])
def test_shares_of_the_tasks(sampling, share):
    counts = Counter(make_batches(size=4000, sampling=sampling).tasks)
    assert counts[0] / 4000 == pytest.approx(share, abs=0.03)


def test_batches_depend_on_the_seed_alone():
    one, other, third = make_batches(), make_batches(), make_batches(seed=1)
    assert [one[i] for i in range(400)] == [other[i] for i in range(400)] != [third[i] for i in range(400)]


def test_the_encoder_and_the_projection_are_shared():
    students = []
    for _ in range(2):
        config = EfficientBertConfig(**CONFIG, max_position_embeddings=64)
        students.append(TaskStudent(EfficientBertForSequenceClassification(config), 24))
    model = MultitaskModel(students)
    one, other = model.models
    assert one.base_model is other.base_model and students[0].projection is students[1].projection
    heads = sum(p.numel() for single in model.models for p in single.classifier.parameters())
    shared = sum(p.numel() for p in one.base_model.parameters()) + 18 * 24 + 24
    assert sum(p.numel() for p in model.parameters()) == shared + heads
    batch = {"input_ids": torch.tensor([[5, 6, 7]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    for task in (0, 1):
        _, captures = model(task=task, capture=True, **batch)
        assert len(captures.hidden_states) == 3


def test_teachers_of_one_width_share_a_projection():
    config = EfficientBertConfig(**CONFIG, max_position_embeddings=64)
    students = [TaskStudent(EfficientBertForSequenceClassification(config), size) for size in (24, 30, 24)]
    model = MultitaskModel(students)
    assert students[0].projection is students[2].projection is not students[1].projection
    batch = {"input_ids": torch.tensor([[5, 6, 7]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    for task, size in enumerate((24, 30, 24)):
        _, captures = model(task=task, capture=True, **batch)
        assert [states.shape[-1] for states in captures.hidden_states] == [size] * 3


def test_the_batches_of_a_step_weigh_alike():
    """Each is averaged over its own targets: words of one task and rows of another are not added."""

    class Constant:
        def __init__(self, value):
            self.value = value

        def count(self, batch):
            return {"targets": torch.tensor(float(len(batch["x"])))}

        def __call__(self, model, batch, counts, step):
            loss = self.value * len(batch["x"]) / counts["targets"]
            return loss, {"labels": loss}

    objective = MultitaskObjective([Constant(2.0), Constant(6.0)])
    parts = [{"task": torch.tensor([t]), "x": torch.zeros(n)} for t, n in ((0, 600), (1, 2))]
    counts = {"batches": sum(objective.count(part)["batches"] for part in parts)}
    total = sum(objective(None, part, counts, 0)[0] for part in parts)
    assert total.item() == pytest.approx((2.0 + 6.0) / 2)


def make_arguments(student_folder, task_files, output, **changes):
    settings = {"num_epochs": 6, "learning_rate": 3e-3, "batch_size": 8, "checkpoint_steps": 3} | changes
    return MultitaskArguments(model=str(student_folder), tasks=task_files, output_dir=str(output), **settings)


def test_the_command(student_folder, task_files, tmp_path):
    output = tmp_path / "out"
    results = multitask.main(make_arguments(student_folder, task_files, output, selection=0.25)).figures
    assert results["task"]["train"]["accuracy"] > 0.8 and results["numbers"]["train"].keys() == {
        "pearson",
        "spearmanr",
    }
    encoder = AutoModel.from_pretrained(output / "encoder")
    assert sorted(path.name for path in output.iterdir() if path.is_dir()) == ["encoder", "numbers", "task"]
    for name, labels in (("task", 2), ("numbers", 1)):
        model = AutoModelForSequenceClassification.from_pretrained(output / name)
        for key, tensor in encoder.state_dict().items():
            assert torch.equal(tensor, model.efficientbert.state_dict()[key])
        assert json.loads((output / name / "results.json").read_text(encoding="utf-8")) == results[name]
        assert model.config.num_labels == labels
    # Every head records what ran, and the data that `evaluate` scores it on.
    for name, data in (
        ("task", {"data": "./task.csv", "text_column": "text"}),
        ("numbers", {"data": "./numbers.csv", "text_column": "first", "text_pair_column": "second"}),
    ):
        (step,) = read_provenance(output / name)
        assert (step["step"], step["result"]) == ("multitask", results[name])
        assert step["arguments"]["tasks"] == ["./classes.yaml", "./numbers.yaml"]
        assert step["arguments"]["num_epochs"] == 6 and "output_dir" not in step["arguments"]
        assert step["task_arguments"].items() >= data.items() and "losses" not in step["arguments"]
        found = recorded_arguments(str(output / name), AutoConfig.from_pretrained(output / name))
        assert found == step["task_arguments"]
        assert "efficientbert multitask --" in (output / name / "README.md").read_text(encoding="utf-8")
    (step,) = read_provenance(output / "encoder")
    assert step["step"] == "multitask" and "task_arguments" not in step


@pytest.mark.parametrize("widths", [(24, 24), (24, 30)])
def test_the_command_under_teachers(widths, student_folder, task_files, tokenizer, tmp_path):
    teachers = []
    for index, labels in enumerate(({0: "no", 1: "yes"}, {0: "LABEL_0"})):
        sizes = {"vocab_size": 65, "hidden_size": widths[index], "num_hidden_layers": 4, "num_attention_heads": 3}
        config = BertConfig(**sizes, intermediate_size=32, max_position_embeddings=64, id2label=labels)
        folder = tmp_path / f"teacher{index}"
        BertForSequenceClassification(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        teachers.append(str(folder))
    output = tmp_path / "out"
    arguments = make_arguments(student_folder, task_files, output, teachers=teachers, num_epochs=1, log_steps=1)
    multitask.main(arguments)
    log = json.loads((output / "training_log.json").read_text(encoding="utf-8"))
    assert all({"teacher", "hidden_states", "attention_scores"} <= row.keys() for row in log)
    for folder, width in {"task": widths[0], "numbers": widths[1], "encoder": widths[0]}.items():
        assert load_file(output / folder / "distillation_projection.safetensors")["weight"].shape == (width, 18)


def test_tasks_go_by_the_names_that_they_are_given(student_folder, task_files, tmp_path):
    """Two on one file, too."""
    tasks = [task_files[0], task_files[0]]
    arguments = make_arguments(student_folder, tasks, tmp_path / "out", names=["first", "a.2"], num_epochs=0.5)
    results = multitask.main(arguments).figures
    assert list(results) == ["first", "a.2"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == ["a.2", "encoder", "first"]
    assert multitask.main(arguments).figures == results


@pytest.mark.parametrize(
    "name",
    [
        "encoder",
        "Checkpoints",
        "logs",
        "results.json",
        "run.json",
        "",
        ".",
        "..",
        ".hidden",
        "a/b",
        "a\\b",
        "x.partial",
    ],
)
def test_names_that_no_task_can_have(name):
    with pytest.raises(InputError, match=r"names: .* of task 2 is .*; give every task .* with --names"):
        check_names(["first", name])


def test_a_data_file_whose_name_the_run_needs_is_refused(student_folder, task_file, tmp_path):
    """Not overwritten, nor deleted at the end."""
    for name in ("encoder", "checkpoints"):
        shutil.copy(task_file, tmp_path / f"{name}.csv")
        text = f"data: {tmp_path}/{name}.csv\ntext_column: text\neval_split: [train]\n"
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=f"names: '{name}' of task 1 is what the run itself writes"):
            multitask.main(make_arguments(student_folder, [str(tmp_path / f"{name}.yaml")], tmp_path / "out"))
    assert not list(tmp_path.glob("out*"))


def test_what_is_refused(student_folder, task_files, tmp_path):
    output = tmp_path / "out"
    with pytest.raises(InputError, match="teachers: 1 for 2 tasks"):
        multitask.main(make_arguments(student_folder, task_files, output, teachers=["x"]))
    with pytest.raises(InputError, match=r"names: 'task' of task 2 stands twice; .* --names"):
        multitask.main(make_arguments(student_folder, [task_files[0]] * 2, output))
    with pytest.raises(InputError, match=r"tasks: 'nli' is neither a known task .* nor a .yaml"):
        multitask.main(make_arguments(student_folder, ["nli"], output))
    with pytest.raises(InputError, match=r"tasks: 'rows.csv' is neither a known task .*, as in 'data: my.csv'"):
        multitask.main(make_arguments(student_folder, ["rows.csv"], output))
    with pytest.raises(InputError, match="names: 1 for 2 tasks; give one for each with --names"):
        multitask.main(make_arguments(student_folder, task_files, output, names=["x"]))
    with pytest.raises(InputError, match="sampling: must be between 0 and 1"):
        multitask.main(make_arguments(student_folder, task_files, output, sampling=2.0))
    with pytest.raises(InputError, match=r"data: for known tasks, such as 'rte', and none of --tasks is one; a .yaml"):
        multitask.main(make_arguments(student_folder, task_files, output, data="glue"))
    assert not list(tmp_path.glob("out*"))
