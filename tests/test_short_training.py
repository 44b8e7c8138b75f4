"""Short training of a candidate: the same number whenever it is asked for, honest rows, rungs, and what it leaves."""

import gc
import json
import random
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.search.scores import short_training
from efficientbert.search.scores.held_out_text import HeldOutText
from efficientbert.search.scores.score import objectives
from efficientbert.search.scores.short_training import (
    GeneralTraining,
    ShortTraining,
    TaskTraining,
    model_for_task,
    prepare_task,
)
from efficientbert.search.scores.task_slices import task_error
from efficientbert.search.space.architecture import Architecture, LayerChoice, Shape
from efficientbert.search.supernet.supernet import Supernet
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.arguments import LossArguments
from efficientbert.train.distillation.held_out import capture_held_out
from efficientbert.train.distillation.scales import Scales
from efficientbert.train.distillation.student import fit_config
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.engine.accelerator import make_accelerator
from efficientbert.train.engine.arguments import LoopArguments
from efficientbert.train.engine.finite import NotFiniteError
from efficientbert.train.tasks.arguments import LabelledData, TaskArguments
from efficientbert.train.tasks.kinds import task_of_data
from efficientbert.train.text.arguments import CorpusArguments
from efficientbert.train.text.preparation import prepare_text


SHAPE = Shape(18, 8)
WIDE = Architecture(SHAPE, (LayerChoice("linear2(gelu(linear1(x)))", 2, 20, 3, 6),) * 2)
NARROW = Architecture(SHAPE, (LayerChoice("linear2(relu(linear1(x)))", 1, 9, 3, 6),) * 2)
SCALES = Scales((2.0, 3.0, 5.0, 7.0, 11.0), (0.2, 0.3, 0.5, 0.7, 0.9), (13.0, 17.0, 19.0, 23.0))


class GivenUp(Exception):
    """What a pruner raises."""


def save_task_teacher(folder: Path, teacher: Teacher, task_file: str, **sizes: int) -> str:
    """A random model with a head for the task of `task_file`."""
    task = task_of_data(TaskArguments(data=task_file, text_column="text"), teacher.tokenizer, "train")
    torch.manual_seed(1)
    config = BertConfig(**(teacher.model.config.to_diff_dict() | {"architectures": None} | sizes))
    task.configure(config)
    BertForSequenceClassification(config).save_pretrained(folder)
    teacher.tokenizer.save_pretrained(folder)
    return str(folder)


def make_general(teacher, base, corpus_file, args, steps=6, rungs=()) -> GeneralTraining:
    corpus = CorpusArguments(corpus=corpus_file, max_length=24, held_out=8, init_sequences=4)
    text = prepare_text(corpus, teacher, 4, 0)
    objective = objectives(LossArguments(), base, teacher, SCALES)
    students = [(one.to_config(base), objective(one).recipe) for one in (WIDE, NARROW)]
    held_out = capture_held_out(text, teacher, torch.device("cpu"), students)
    return GeneralTraining(objective, text, held_out, args, steps, rungs)


def make_score(
    teacher_name: str,
    task_teacher: str,
    corpus_file: str,
    task_file: str,
    folder: Path,
    parts: tuple[str, ...] = ("general", "task"),
    batch_size: int = 4,
    learning_rate: float = 1e-3,
    epochs: float = 2,
    rungs: tuple[int, ...] = (),
    steps: int = 6,
    inner: bool = True,
    seed: int = 0,
) -> ShortTraining:
    """A score of slices of a random supernet."""
    args = LoopArguments(batch_size=batch_size, learning_rate=learning_rate, seed=seed)
    accelerator = make_accelerator(args, folder, find_unused_parameters=True)
    teacher = Teacher.load(teacher_name)
    torch.manual_seed(0)
    supernet = Supernet(fit_config(EfficientBertConfig(), teacher), WIDE, teacher.hidden_size)
    general = task = None
    if "general" in parts:
        general = make_general(teacher, supernet.base, corpus_file, args, steps, rungs)
    if "task" in parts:
        source = LabelledData(data=task_file, text_column="text", eval_split=["none"])
        losses = LossArguments() if inner else None
        task = prepare_task(source, task_teacher, teacher, losses, 0.25, args, epochs, accelerator, folder)
    return ShortTraining(supernet.extract, accelerator, general, task)


@pytest.fixture(scope="module")
def task_teacher(teacher_folder, task_file, tmp_path_factory) -> str:
    return save_task_teacher(tmp_path_factory.mktemp("task-teacher"), Teacher.load(teacher_folder()), task_file)


@pytest.fixture
def make(teacher_folder, task_teacher, corpus_file, task_file, tmp_path):
    def made(**options) -> ShortTraining:
        return make_score(teacher_folder(), task_teacher, corpus_file, task_file, tmp_path, **options)

    return made


def test_a_loss_depends_on_the_architecture_alone(make, monkeypatch):
    """To the last bit, of the trained weights too: the error on a few rows is coarse."""
    trained = []

    def keep(model, *rest):
        trained.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
        return task_error(model, *rest)

    monkeypatch.setattr(short_training, "task_error", keep)
    score, fresh = make(epochs=1), make(epochs=1)
    torch.manual_seed(123)
    wide, narrow = score(WIDE), score(NARROW)
    torch.rand(17)
    assert [fresh(NARROW), fresh(WIDE), fresh(WIDE)] == [narrow, wide, wide]
    assert torch.equal(trained[0], trained[3]) and torch.equal(trained[0], trained[4])
    assert torch.equal(trained[1], trained[2])


def test_another_seed_is_another_training(make):
    losses = {make(parts=("general",), seed=seed)(WIDE) for seed in (0, 1, 2)}
    assert len(losses) == 3


def test_global_randomness_and_the_supernet_are_left_alone(make):
    score = make()
    supernet = score.extract.__self__
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    score(NARROW)
    assert random.getstate() == states[0] and np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])
    for name, tensor in supernet.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_what_learns_nothing_is_scored_as_the_slice(make):
    """With hardly any learning rate the loss on text is that of the slice, which learning lowers."""
    idle, learning = (make(parts=("general",), learning_rate=rate, steps=20) for rate in (1e-12, 3e-3))
    slices = HeldOutText(idle.extract, idle.general.objective, idle.general.held_out)
    assert idle(WIDE) == pytest.approx(slices(WIDE), rel=1e-5)
    assert learning(WIDE) < 0.9 * slices(WIDE)


@pytest.mark.parametrize("inner", [True, False])
def test_a_task_is_learned_from_its_teacher_without_labels(inner, make, monkeypatch):
    score, train, logs = make(parts=("task",), epochs=4, inner=inner), short_training.train, []

    def record(accelerator, model, objective, *rest, **options):
        assert objective.teacher is score.task.teacher and objective.label_weight == 0
        logs.extend(train(accelerator, model, objective, *rest, **options))

    monkeypatch.setattr(short_training, "train", record)
    score(WIDE)
    terms = {"teacher", "hidden_states", "attention_scores"} if inner else {"teacher"}
    assert set(logs[0]) - {"step", "learning_rate", "skipped", "loss"} == terms
    assert logs[-1]["step"] == 48 and logs[-1]["loss"] < logs[0]["loss"]


@pytest.mark.parametrize("width", [24, 30])
def test_a_projection_to_a_task_teacher_of_another_width_is_fitted(
    width, teacher_folder, corpus_file, task_file, tmp_path, monkeypatch
):
    """To its own width the student has one; either way the first inner loss is less than of a constant."""
    teacher = Teacher.load(teacher_folder())
    name = save_task_teacher(tmp_path / "teacher", teacher, task_file, hidden_size=width)
    score = make_score(teacher_folder(), name, corpus_file, task_file, tmp_path, ("task",), batch_size=16, epochs=1)
    train, logs = short_training.train, []

    def record(accelerator, model, objective, data, collate, args, *rest, **options):
        objective.inner.recipe.weights.pop("attention_scores")
        changed = replace(args, log_steps=1, learning_rate=1e-12)
        logs.extend(train(accelerator, model, objective, data, collate, changed, *rest, **options))

    monkeypatch.setattr(short_training, "train", record)
    fitted = []
    fit = short_training.fit_to_task
    monkeypatch.setattr(short_training, "fit_to_task", lambda *given: (fitted.append(True), fit(*given)))
    score(WIDE)
    assert bool(fitted) == (width != teacher.hidden_size)
    if fitted:
        assert np.mean([row["hidden_states"] for row in logs]) < 3  # one for each of the compared states


def test_heads_and_orders_are_the_same_for_all_candidates(make, monkeypatch):
    score, starts, rows = make(epochs=1), [], []
    train, collate = short_training.train, score.task.task.collate

    def record(accelerator, model, objective, *rest, **options):
        if hasattr(model, "model"):
            starts.append(model.model.classifier.output.weight.detach().clone())
        return train(accelerator, model, objective, *rest, **options)

    monkeypatch.setattr(short_training, "train", record)

    def keep(features):
        rows.append([feature["input_ids"] for feature in features])
        return collate(features)

    monkeypatch.setattr(score.task.task, "collate", keep)
    score(WIDE)
    first, rows[:] = list(rows), []
    score(NARROW)
    assert len(starts) == 2 and torch.equal(*starts) and starts[0].abs().max() > 0
    assert len(rows) > 12 and rows == first[-len(rows) :]  # before them, the first candidate has the teacher measured


def test_rows_that_are_scored_are_never_trained_on_and_the_same_for_all(make, monkeypatch):
    held_out = []
    for seed in (0, 1):
        score, seen = make(parts=("task",), seed=seed, epochs=2), set()
        collate, train, training = score.task.task.collate, short_training.train, []

        def record(*arguments, train=train, training=training, **options):
            training.append(True)
            try:
                return train(*arguments, **options | {"after_step": None})
            finally:
                training.clear()

        def keep(features, collate=collate, training=training, seen=seen):
            if training:
                seen |= {tuple(feature["input_ids"]) for feature in features}
            return collate(features)

        with monkeypatch.context() as patch:
            patch.setattr(short_training, "train", record)
            patch.setattr(score.task.task, "collate", keep)
            score(NARROW)
        kept = [tuple(ids) for ids in score.task.held_out.features["input_ids"]]
        assert len(kept) == 16 and len(seen) == 48 and not seen & set(kept)
        held_out.append(kept)
    assert held_out[0] == held_out[1]


def test_rungs_come_in_order_and_change_nothing(make):
    score, seen = make(rungs=(2, 4), epochs=3), []
    loss = score(NARROW, lambda loss, rung: seen.append((rung, loss)))
    assert [rung for rung, _ in seen] == [0, 1, 2, 3, 4]
    text, task = [loss for _, loss in seen[:3]], [loss for _, loss in seen[3:]]
    assert text[0] > text[1] > text[2] > 0 and all((error * 16).is_integer() for error in (*task, loss))
    assert make(epochs=3)(NARROW) == loss
    assert make(parts=("general",))(NARROW) == text[2]
    assert make(parts=("general",), rungs=(3,))(NARROW, lambda *_: None) == text[2]


@pytest.mark.parametrize("last", [0, 1, 2])
def test_what_is_given_up_is_let_go(last, make):
    score, alive = make(rungs=(2,)), []
    whole, extract = score(NARROW), score.extract
    state = torch.get_rng_state()

    def watched(architecture):
        student = extract(architecture)
        alive.append(weakref.ref(student.encoder.layers[0].attention.qkv.weight))
        return student

    def report(loss, rung):
        if rung == last:
            raise GivenUp(f"rung {rung}")

    score.extract = watched
    with pytest.raises(GivenUp, match=f"rung {last}"):
        score(NARROW, report)
    assert torch.equal(torch.get_rng_state(), state)
    assert score(NARROW) == whole
    gc.collect()
    assert len(alive) == 2 and all(reference() is None for reference in alive)


@pytest.mark.parametrize(
    ("steps", "message"), [(6, "6 of 6 steps were skipped"), (12, "step 11: loss, hidden_states")]
)
def test_what_is_broken_has_no_loss(steps, message, make):
    score = make(parts=("general",), steps=steps)
    extract = score.extract

    def broken(architecture):
        student = extract(architecture)
        student.encoder.layers[0].ffns[0].linear1.bias.data[2] = float("nan")
        return student

    score.extract = broken
    with pytest.raises(NotFiniteError, match=message):
        score(NARROW)
    score.extract = extract
    assert np.isfinite(score(NARROW))


def test_a_model_for_a_task_has_the_students_encoder(make):
    score = make(parts=("task",))
    student = score.extract(NARROW)
    model = model_for_task(student, score.task.task, 0)
    for (name, mine), (_, theirs) in zip(
        model.base_model.named_parameters(), student.encoder.named_parameters(), strict=True
    ):
        assert torch.equal(mine, theirs) and mine.data_ptr() != theirs.data_ptr(), name
    assert model.config.id2label == {0: "no", 1: "yes"} and student.encoder.config.id2label != model.config.id2label
    other = model_for_task(score.extract(WIDE), score.task.task, 0)
    for one, another in zip(*(part.classifier.parameters() for part in (model, other)), strict=True):
        assert torch.equal(one, another)
    assert model.classifier.output.weight.std() > 0


def test_bad_settings_are_named(make, teacher_folder, task_teacher, task_file, tmp_path):
    score = make()
    with pytest.raises(InputError, match="needs general distillation, a task or both"):
        ShortTraining(score.extract, score.accelerator, None, None)
    for rungs in ((4, 2), (2, 2), (6,), (0, 2)):
        with pytest.raises(InputError, match="rungs: must be ascending steps below the 6"):
            make(parts=("general",), rungs=rungs)
    with pytest.raises(InputError, match="num_epochs: must be above 0"):
        make(parts=("task",), epochs=0)
    with pytest.raises(InputError, match="48 rows to train on, less than a batch of 64"):
        make(parts=("task",), batch_size=64)
    source = LabelledData(data=task_file, text_column="text")
    teacher = Teacher.load(teacher_folder())
    for share in (0.0, 1.0):
        with pytest.raises(InputError, match="held_out: must be a share"):
            prepare_task(source, task_teacher, teacher, None, share, LoopArguments(), 1, score.accelerator, tmp_path)
    assert isinstance(score.task, TaskTraining)


def test_two_processes_score_as_one_with_the_double_batch(
    teacher_folder, task_teacher, corpus_file, task_file, ranks, tmp_path
):
    def work(name: str, batch_size: int) -> None:
        given = (teacher_folder(), task_teacher, corpus_file, task_file, tmp_path)
        score, seen = make_score(*given, batch_size=batch_size, rungs=(3,), learning_rate=3e-3), []
        losses = [score(architecture, lambda loss, rung: seen.append(loss)) for architecture in (NARROW, WIDE)]
        rank = score.accelerator.process_index
        (tmp_path / f"{name}-{rank}.json").write_text(json.dumps({"losses": losses, "seen": seen}))

    work("1", 4)
    assert ranks(lambda: work("2", 2)) == [0, 0]
    one, first, second = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("1-0", "2-0", "2-1"))
    assert first == second
    assert len(one["seen"]) == 2 * 3
    # The losses on text, of two rungs a candidate; errors on 16 rows may differ by a row that lies on the border.
    for mine, theirs in zip(np.reshape(first["seen"], (2, 3)), np.reshape(one["seen"], (2, 3))):
        assert mine[:2] == pytest.approx(theirs[:2], rel=1e-3)
        assert mine[2] == pytest.approx(theirs[2], abs=1 / 8)
