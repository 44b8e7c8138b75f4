"""A search from arguments to checkpoints: stages, budgets, objectives, tasks, resume and faults."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save
from transformers import AutoTokenizer, BertConfig, BertModel

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.modeling_efficientbert import EfficientBertModel
from efficientbert.search import result as results
from efficientbert.search import search, supernets
from efficientbert.search.arguments import SearchArguments
from efficientbert.search.preparation import make_space
from efficientbert.search.scores import short_training
from efficientbert.search.scores.held_out_text import HeldOutText, held_out_loss
from efficientbert.search.scores.score import objectives
from efficientbert.search.scores.trained_candidates import TrainedCandidates
from efficientbert.search.space.architecture import Architecture
from efficientbert.search.study.storage import JOURNAL, open_storage
from efficientbert.search.supernet.supernet import Supernet
from efficientbert.train.cli.arguments import make_parser
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.held_out import capture_held_out
from efficientbert.train.distillation.projection import load_projection
from efficientbert.train.distillation.scales import teacher_scales
from efficientbert.train.distillation.student import Student
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.engine import loop
from efficientbert.train.finetune import main as finetune
from efficientbert.train.model_folder.record import read_provenance
from efficientbert.train.tasks.arguments import FinetuneArguments
from efficientbert.train.text.preparation import prepare_text


@pytest.fixture(scope="module")
def task_teacher(teacher_folder, task_file, tmp_path_factory) -> str:
    """The tiny teacher, fine-tuned on the tiny task."""
    output = tmp_path_factory.mktemp("task-teacher") / "teacher"
    finetune(
        FinetuneArguments(
            model=teacher_folder(), data=task_file, text_column="text", label_column="label", max_length=16,
            eval_split=["none"], num_epochs=1, batch_size=16, output_dir=str(output),
        )
    )  # fmt: skip
    return str(output)


@pytest.fixture(scope="module")
def task_recipe(task_file, tmp_path_factory) -> str:
    """A YAML file that names the tiny task's data."""
    path = tmp_path_factory.mktemp("task-recipe") / "first-word.yaml"
    path.write_text(
        f"data: {task_file}\ntext_column: text\nlabel_column: label\nmax_length: 16\neval_split: none\n", "utf-8"
    )
    return str(path)


@pytest.fixture
def make_arguments(teacher_folder, corpus_file, student_file, tmp_path):
    """Gives the arguments of a search of seconds; some of them changed."""

    def arguments(**changes) -> SearchArguments:
        fields = {
            "teacher": teacher_folder(), "corpus": corpus_file, "student": student_file, "max_length": 16,
            "held_out": 8, "init_sequences": 8, "batch_size": 4, "warmup_steps": 2, "general_steps": 2,
            "sampled_steps": 2, "num_candidates": 3, "initial": 2, "losses": ["hidden_states", "attention_scores"],
            "output_dir": str(tmp_path / "study"),
        }  # fmt: skip
        return SearchArguments(**(fields | changes))

    return arguments


def candidates(args: SearchArguments, stage: int) -> list[dict]:
    """What the storage holds of a stage, without the tellings of time."""
    storage = open_storage(args.storage or args.output_dir)
    name = args.name or Path(args.output_dir).name
    trials = storage.get_all_trials(storage.get_study_id_from_name(f"{name}/stage-{stage}"))
    rows = []
    for trial in trials:
        result = trial.user_attrs.get("result", {"state": "LOST"})
        result = {key: value for key, value in result.items() if key != "seconds"}
        rows.append({"candidate": trial.user_attrs["candidate"], "seed": trial.user_attrs["seed"], **result})
    return rows


def test_three_stages_hand_their_winners_on(make_arguments, capsys):
    args = make_arguments()
    search.main(args)
    said = capsys.readouterr()
    assert "candidate/s" not in said.err and said.err.count("study/stage-1: candidate") == 3  # no terminal, no bar
    assert [line for line in said.out.splitlines() if "/" not in line and "complete" not in line] == [
        "measuring the teacher on the corpus",
        "making the supernet from the teacher's weights",
        "training the supernet as its largest architecture: 2 steps",
        "stage 1: rating candidates by short",
        "stage 2: rating candidates by short",
        "training the supernet by architectures drawn at random: 2 steps",
        "stage 3: rating candidates by text",
    ]
    assert f"loading teacher {args.teacher!r}\nreading corpus {args.corpus!r}\n" in said.out

    first, second, third = (candidates(args, stage) for stage in (1, 2, 3))
    assert [len(rows) for rows in (first, second, third)] == [3, 3, 3]
    best = min(first, key=lambda row: row["losses"][0])["candidate"]

    def sizes(candidate):
        return [(layer["stack"], layer["intermediate_size"]) for layer in candidate["layers"]]

    def expressions(candidate):
        return [layer["expression"] for layer in candidate["layers"]]

    assert all(sizes(row["candidate"]) == sizes(best) for row in second)
    assert any(expressions(row["candidate"]) != expressions(best) for row in second)
    best = min([*first, *second], key=lambda row: row["losses"][0])["candidate"]
    assert all(expressions(row["candidate"]) == expressions(best) for row in third)
    assert third[0]["candidate"] == best  # scored beside those it is to be compared with
    assert any(sizes(row["candidate"]) != sizes(best) for row in third)

    folder = Path(args.output_dir)
    best = min(third, key=lambda row: row["losses"][0])
    model = EfficientBertModel.from_pretrained(folder / "best")
    assert Architecture.from_config(model.config).to_json() == best["candidate"]
    record = read_provenance(folder / "best")[-1]
    assert record["step"] == "search" and record["result"]["search_loss"] == best["losses"][0]
    assert record["result"]["parameters"] == model.num_parameters()
    report = (folder / "report.md").read_text(encoding="utf-8")
    assert all(f"study/stage-{stage}" in report for stage in (1, 2, 3))
    assert len(list(folder.glob("*-history.png"))) == 3
    whole = load_file(folder / "stage-3" / "supernet.safetensors")
    assert torch.equal(
        model.embeddings.word_embeddings.weight, whole["whole.encoder.embeddings.word_embeddings.weight"]
    )


def test_an_interrupted_stage_goes_on_as_if_nothing_had_been(make_arguments, tmp_path, monkeypatch):
    whole = make_arguments(stages=[1], num_candidates=4, output_dir=str(tmp_path / "whole" / "study"))
    search.main(whole)
    for evaluations in (1, 2, 4):  # as if it had been stopped behind each of them
        args = make_arguments(stages=[1], num_candidates=evaluations)
        search.main(args)
    assert candidates(args, 1) == candidates(whole, 1)
    one, other = (load_file(Path(a.output_dir) / "best" / "model.safetensors") for a in (whole, args))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_stage_two_mutates_the_winner_of_stage_one(make_arguments, tmp_path):
    student = tmp_path / "student.json"
    sizes = {"hidden_size": 18, "num_hidden_layers": 4, "num_attention_heads": 3, "embedding_size": 8}
    student.write_text(json.dumps(sizes), encoding="utf-8")
    args = make_arguments(
        stages=[1, 2], student=str(student), scores=["parameters"], warmup_steps=0, num_candidates=6, initial=4
    )
    search.main(args)
    best = min(candidates(args, 1), key=lambda row: row["losses"][0])["candidate"]["layers"]
    for row in candidates(args, 2)[:3]:  # told the winner, the sampler draws three more before it goes by losses
        pairs = zip(best, row["candidate"]["layers"])
        assert 1 <= sum(one["expression"] != other["expression"] for one, other in pairs) <= 3


@pytest.mark.parametrize("stage, gate", [(1, True), (3, False)])
def test_a_search_begins_with_plain_and_gated_networks(stage, gate, make_arguments):
    args = make_arguments(stages=[stage], gate=gate, scores=["parameters"], warmup_steps=0, sampled_steps=0)
    search.main(args)
    found = [{layer["expression"] for layer in row["candidate"]["layers"]} for row in candidates(args, stage)]
    known = [{"linear2(mul(gelu(linear1(x)), gate(x)))"}, {"linear2(gelu(linear1(x)))"}]
    assert found[: 1 + gate] == known[not gate :]


def test_the_best_of_trained_candidates_keeps_what_it_has_learned(make_arguments):
    args = make_arguments(stages=[1, 2], general_steps=6, learning_rate=5e-3)
    search.main(args)
    folder = Path(args.output_dir)
    teacher = Teacher.load(args.teacher)
    text = prepare_text(args, teacher, args.batch_size, args.seed)
    scales = teacher_scales(teacher, text, folder, torch.device("cpu"))
    objective = objectives(args, search_base(args), teacher, scales)
    student = Student(EfficientBertModel.from_pretrained(folder / "best"), teacher.hidden_size)
    assert load_projection(student.projection, folder / "best")
    learned = objective(Architecture.from_config(student.encoder.config))
    students = [(student.encoder.config, learned.recipe)]
    held_out = capture_held_out(text, teacher, torch.device("cpu"), students)
    loss = held_out_loss(student, learned, held_out)
    rows = [row for stage in (1, 2) for row in candidates(args, stage)]
    assert loss == pytest.approx(min(row["losses"][0] for row in rows), rel=1e-5)


def test_a_best_candidate_without_its_weights_is_told(make_arguments, monkeypatch):
    monkeypatch.setattr(TrainedCandidates, "keep", lambda *_: None)
    with pytest.warns(UserWarning, match="trained': lacks a candidate's weights; it is as it began"):
        search.main(make_arguments(stages=[1]))


@pytest.mark.parametrize("kill_at", [1, 2, 5])
def test_killed_and_started_again_gives_the_same(kill_at, make_arguments, forks, tmp_path):
    """kill -9 behind a checkpoint of the warm-up, of the sampled steps, and when the third candidate is scored."""
    more = {"stages": [3], "warmup_steps": 4, "sampled_steps": 4, "checkpoint_steps": 2, "num_candidates": 4}
    whole = make_arguments(**more, output_dir=str(tmp_path / "whole" / "study"))
    search.main(whole)
    args = make_arguments(**more)
    events = []

    def dies(function):
        def call(*given, **named):
            events.append(1)
            result = function(*given, **named)
            if len(events) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    def job():
        loop.save_checkpoint = dies(loop.save_checkpoint)
        HeldOutText.__call__ = dies(HeldOutText.__call__)
        search.main(args)

    assert forks(job) == [-signal.SIGKILL]
    assert not (Path(args.output_dir) / "best").exists()
    search.main(args)
    for name in ("best/model.safetensors", "stage-3/supernet.safetensors"):
        one, other = (load_file(Path(a.output_dir) / name) for a in (whole, args))
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert finished(candidates(args, 3)) == candidates(whole, 3)


def finished(rows: list[dict]) -> list[dict]:
    """Without attempts whose worker died."""
    return [row for row in rows if row["state"] != "LOST"]


def test_two_workers_share_a_search(make_arguments, forks):
    args = make_arguments(stages=[1, 3], num_candidates=4)
    assert forks(*[lambda: search.main(args)] * 2) == [0, 0]
    for stage in (1, 3):
        rows = finished(candidates(args, stage))
        assert len(rows) == 4 and len({str(row["candidate"]) for row in rows}) == 4
        assert all(row["state"] == "COMPLETE" for row in rows)
    assert (Path(args.output_dir) / "best" / "model.safetensors").exists()


def test_a_supernet_that_takes_no_step_is_not_told_of(make_arguments, capsys):
    search.main(make_arguments(stages=[3], warmup_steps=0, sampled_steps=0, num_candidates=1))
    said = capsys.readouterr().out
    assert "stage 3: rating candidates by text" in said and "steps" not in said


def test_stages_run_one_at_a_time(make_arguments, tmp_path):
    whole = make_arguments(stages=[1, 3], output_dir=str(tmp_path / "whole" / "study"))
    search.main(whole)
    with pytest.raises(InputError, match="stage 1: no candidate of it is complete; run it first: --only_stage 1"):
        search.main(make_arguments(stages=[1, 3], only_stage=3))
    for stage in (1, 3):
        args = make_arguments(stages=[1, 3], only_stage=stage)
        search.main(args)
        assert (Path(args.output_dir) / "best").exists() == (stage == 3)
    assert candidates(args, 3) == candidates(whole, 3)


def test_a_stage_misses_the_one_before_it_at_once(make_arguments, monkeypatch):
    search.main(make_arguments(only_stage=1))
    monkeypatch.setattr(supernets, "Supernet", None)  # nothing is trained before it says so
    with pytest.raises(InputError, match="stage 2: no candidate of it is complete; run it first: --only_stage 2"):
        search.main(make_arguments(only_stage=3))


def test_candidates_keep_all_budgets(make_arguments):
    args = make_arguments(
        stages=[3], sampled_steps=0, warmup_steps=0, num_candidates=8, depths=[1, 2], hidden_sizes=[12, 18],
        budgets=["parameters=3000:6000", "flops=:250000"], losses=["hidden_states"], width_multiple=2,
    )  # fmt: skip
    search.main(args)
    rows = candidates(args, 3)
    assert len({str(row["candidate"]) for row in rows}) == 8
    for row in rows:
        config = Architecture.from_json(row["candidate"]).to_config(search_base(args))
        assert row["figures"]["parameters"] == EfficientBertModel(config).num_parameters()
        assert 3000 <= row["figures"]["parameters"] <= 6000 and row["figures"]["flops"] <= 250_000
        assert all(width % 2 == 0 for width in config.intermediate_sizes)
    assert len({row["candidate"]["hidden_size"] for row in rows}) == 2


def search_base(args: SearchArguments) -> EfficientBertConfig:
    """The configuration that candidates of a search stand on."""
    return make_space(args, Teacher.load(args.teacher)).base


@pytest.mark.parametrize("sampler", ["action_space", "nsga2"])
def test_several_objectives_give_a_front_of_checkpoints(sampler, make_arguments):
    args = make_arguments(
        stages=[3], sampled_steps=0, num_candidates=6, objectives=["loss", "parameters"], sampler=sampler
    )
    search.main(args)
    rows = [tuple(row["losses"]) for row in candidates(args, 3)]
    front = {row for row in rows if not any(o != row and all(x <= y for x, y in zip(o, row)) for o in rows)}
    folders = sorted((Path(args.output_dir) / "front").iterdir(), key=lambda path: int(path.name))
    found = [read_provenance(folder)[-1]["result"] for folder in folders]
    assert [(result["search_loss"], result["parameters"]) for result in found] == sorted(front)
    for folder, result in zip(folders, found):
        assert EfficientBertModel.from_pretrained(folder).num_parameters() == result["parameters"]


def test_a_front_is_replaced_as_a_whole(make_arguments, monkeypatch):
    more = {"stages": [3], "sampled_steps": 0, "objectives": ["loss", "parameters"]}
    search.main(make_arguments(**more))
    args = make_arguments(**more, num_candidates=12)
    front = Path(args.output_dir) / "front"
    before = {path.name: path.stat().st_ino for path in front.iterdir()}
    write = results.write_candidate

    def fails(material, architecture, losses, extract, folder):
        if folder.name == "1":
            raise OSError("no room")
        write(material, architecture, losses, extract, folder)

    with monkeypatch.context() as patch:
        patch.setattr(results, "write_candidate", fails)
        with pytest.raises(OSError, match="no room"):
            search.main(args)
    assert {path.name: path.stat().st_ino for path in front.iterdir()} == before
    search.main(args)
    assert {path.stat().st_ino for path in front.iterdir()}.isdisjoint(before.values())
    assert sorted(path.name for path in Path(args.output_dir).glob("*.partial")) == []


def test_candidates_learn_a_task(make_arguments, task_recipe, task_teacher):
    args = make_arguments(
        tasks=[task_recipe], task_teachers=[task_teacher], stages=[1, 3], task_batch_size=8, task_epochs=1.0,
        task_steps=2, num_candidates=2, supernet_scores=["tasks"], student=str(Path(make_arguments().student)),
    )  # fmt: skip
    search.main(args)
    for stage in (1, 3):
        losses = [row["losses"][0] for row in candidates(args, stage)]
        assert len(losses) == 2 and all(0 <= loss <= 1 for loss in losses)  # of 13 held-out rows
        assert all(loss * 13 == pytest.approx(round(loss * 13), abs=1e-9) for loss in losses)


def test_halving_gives_candidates_up_on_the_way(make_arguments, task_recipe):
    args = make_arguments(
        stages=[1], scores=["parameters", "wpca", "probe", "text"], reduction_factor=2, num_candidates=8,
        tasks=[task_recipe], sampler="random",
    )  # fmt: skip
    search.main(args)
    states = [row["state"] for row in candidates(args, 1)]
    assert set(states) == {"COMPLETE", "PRUNED"}
    best = min((row for row in candidates(args, 1) if row["losses"]), key=lambda row: row["losses"][0])
    model = EfficientBertModel.from_pretrained(Path(args.output_dir) / "best")
    assert Architecture.from_config(model.config).to_json() == best["candidate"]


@pytest.mark.parametrize(
    "more",
    [
        {"sandwich": True, "in_place": True},
        {"sandwich": True, "in_place": True, "head_counts": [0, 3], "head_dims": [4, 6], "num_candidates": 8},
        {"supernets": 2},
        {"sampler": "evolution"},
    ],
)
def test_ways_to_train_and_sample(make_arguments, more):
    args = make_arguments(stages=[3], **more)
    search.main(args)
    rows = candidates(args, 3)
    assert all(row["state"] == "COMPLETE" for row in rows)
    heads = [{layer["heads"] for layer in row["candidate"]["layers"]} for row in rows]
    assert all(3 in found for found in heads) and ({0, 3} in heads) == ("head_counts" in more)
    assert (Path(args.output_dir) / "best" / "model.safetensors").exists()


def test_a_failing_candidate_is_recorded_and_the_search_goes_on(make_arguments, monkeypatch):
    extract, made = Supernet.extract, []

    def broken(self, architecture):
        made.append(architecture)
        student = extract(self, architecture)
        if len(made) == 2:
            student.encoder.embeddings.layer_norm.weight.data.fill_(float("nan"))
        return student

    monkeypatch.setattr(Supernet, "extract", broken)
    args = make_arguments(stages=[3])
    search.main(args)
    rows = candidates(args, 3)
    assert [row["state"] for row in rows] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert rows[1]["losses"] is None and "held-out text" in rows[1]["reason"]


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"stages": [2, 1]}, "stages: must be some of 1 2 3, in order"),
        ({"stages": [1, 3], "only_stage": 2}, r"only_stage: must be one of the stages \[1, 3\], not 2"),
        ({"budgets": ["parameters"]}, "budgets: 'parameters': must be METRIC=LEAST:MOST"),
        ({"budgets": ["size=1:2"]}, "budget: unknown metric 'size'"),
        ({"budgets": ["flops=:1e9", "flops=1:"]}, "budgets: a metric stands twice"),
        ({"budgets": ["parameters=1:2"]}, "no architecture"),
        ({"objectives": ["loss", "latency"], "sampler": "evolution"}, "sampler: 'evolution' looks at one objective"),
        ({"objectives": ["parameters"]}, "objectives: must be loss, then others"),
        ({"sampler": "guess"}, "sampler: must be random, evolution"),
        ({"scores": ["text", "short"]}, "several are for successive halving"),
        ({"scores": ["guess"]}, "scores: must be some of parameters, wpca"),
        ({"supernet_scores": ["tasks"]}, "tasks: none is named"),
        ({"tasks": ["mrpc"]}, "task_teachers: candidates learn tasks from teachers"),
        ({"in_place": True}, "in_place: is for a --sandwich"),
        ({"general_steps": 0}, "general_steps: must be at least 1 for score short without --tasks"),
        ({"task_steps": 0}, "task_steps: must be at least 1"),
        ({"num_candidates": None}, "num_candidates, hours, patience: give at least one"),
        ({"head_counts": [2, 3]}, "attention_scores"),
        ({"head_counts": [0]}, "no hidden size is a multiple of a number of heads above 0"),
        ({"student": "guess"}, "student 'guess': must be a preset"),
        ({"compile": True}, "compile: is not for a search"),
        ({"storage": "study.db"}, "storage 'study.db': must be the URL of a database"),
        (
            {"tasks": ["my-data.csv"]},
            "tasks: 'my-data.csv' is neither a known task .* nor a .yaml; for data of your own",
        ),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(make_arguments, changes, message):
    args = make_arguments(**changes)
    with pytest.raises(InputError, match=message):
        search.main(args)
    assert not Path(args.output_dir).exists()


def test_a_folder_of_another_search_is_refused(make_arguments):
    args = make_arguments(stages=[3], num_candidates=1, sampled_steps=0, warmup_steps=0)
    search.main(args)
    with pytest.raises(InputError, match="holds a run with warmup_steps=0, not 1; choose another --output_dir"):
        search.main(make_arguments(stages=[3], num_candidates=1, sampled_steps=0, warmup_steps=1))


@pytest.mark.parametrize(
    ("changes", "flags"),
    [
        ({"task_data": "glue"}, "task_data"),
        ({"task_data": "glue", "task_split": "train[:9]"}, "task_data, task_split"),
    ],
)
def test_flags_for_known_tasks_are_refused_where_there_is_none(make_arguments, task_recipe, changes, flags):
    args = make_arguments(tasks=[task_recipe], scores=["probe"], **changes)
    with pytest.raises(InputError, match=f"^{flags}: for known tasks, such as 'rte', and none of --tasks is one"):
        search.main(args)
    assert not Path(args.output_dir).exists()


def test_a_task_teacher_of_another_width_is_refused(make_arguments, teacher_folder, task_file, task_recipe, tmp_path):
    encoder = BertModel(
        BertConfig(
            vocab_size=65, hidden_size=30, num_hidden_layers=1, num_attention_heads=3, intermediate_size=8,
            max_position_embeddings=64,
        )
    )  # fmt: skip
    encoder.save_pretrained(tmp_path / "wide")
    AutoTokenizer.from_pretrained(teacher_folder()).save_pretrained(tmp_path / "wide")
    finetune(
        FinetuneArguments(
            model=str(tmp_path / "wide"), data=task_file, text_column="text", label_column="label", max_length=16,
            eval_split=["none"], num_epochs=1, batch_size=16, output_dir=str(tmp_path / "wide-task"),
        )
    )  # fmt: skip
    args = make_arguments(
        stages=[3], tasks=[task_recipe], task_teachers=[str(tmp_path / "wide-task")], supernet_scores=["tasks"]
    )
    with pytest.raises(InputError, match=r"task_teachers: '.*' has hidden size 30, not the 24 of teacher '.*'"):
        search.main(args)
    assert not Path(args.output_dir).exists()


class Killed(BaseException):
    """Ends a search at once."""


def test_killed_at_its_first_file_it_can_be_started_again(make_arguments, monkeypatch):
    args = make_arguments(stages=[3], num_candidates=1)

    def kill(*_):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(search, "write_json", kill)
        search.main(args)
    search.main(args)
    assert len(candidates(args, 3)) == 1


def test_a_supernet_that_is_there_is_not_trained_again(make_arguments, monkeypatch):
    args = make_arguments(stages=[3])
    search.main(args)
    rows = candidates(args, 3)
    monkeypatch.setattr(supernets, "train", None)
    (Path(args.output_dir) / JOURNAL).unlink()  # as if its worker had been killed before it could say so
    search.main(args)
    assert candidates(args, 3) == rows
    (Path(args.output_dir) / "stage-3" / "supernet.safetensors").unlink()
    with pytest.raises(InputError, match=r"supernet '.*': is not there, though study 'study' has trained it"):
        search.main(args)


def test_a_database_is_named_without_its_password(make_arguments, tmp_path):
    args = make_arguments(stages=[3], num_candidates=1, storage=f"sqlite:///{tmp_path}/study.db")
    search.main(args)
    assert len(candidates(args, 3)) == 1
    assert "storage" not in read_provenance(Path(args.output_dir) / "best")[-1]["arguments"]
    assert make_arguments(storage="postgresql://me:secret@host/name").decisive()["storage"] == (
        "postgresql://me:***@host/name"
    )


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_result_that_was_deleted_is_written_again_and_nothing_is_trained(make_arguments, monkeypatch):
    args = make_arguments(stages=[1, 3], num_candidates=3, objectives=["loss", "parameters"])
    search.main(args)
    folder, rows = Path(args.output_dir), candidates(args, 3)
    files, weights = listing(folder), load_file(folder / "best" / "model.safetensors")
    monkeypatch.setattr(supernets, "train", None)
    monkeypatch.setattr(short_training, "train", None)
    for gone in ("best", "front"):
        shutil.rmtree(folder / gone)
        search.main(args)
        assert listing(folder) == files
    for path in [*folder.glob("*.png"), folder / "report.md"]:
        path.unlink()
    shutil.rmtree(folder / "front")
    written = {path: path.stat().st_mtime_ns for path in (folder / "warm-up").iterdir()}
    search.main(args)
    assert listing(folder) == files and candidates(args, 3) == rows
    assert {path: path.stat().st_mtime_ns for path in (folder / "warm-up").iterdir()} == written
    again = load_file(folder / "best" / "model.safetensors")
    assert all(torch.equal(again[name], weight) for name, weight in weights.items())


def test_a_supernet_file_of_other_weights_is_told_in_one_line(make_arguments):
    args = make_arguments(stages=[3], num_candidates=1)
    search.main(args)
    path = Path(args.output_dir) / "stage-3" / "supernet.safetensors"
    for broken, message in (
        (save({"other": torch.zeros(2)}), "lack a weight 'whole.encoder"),
        (b"x", "cannot be read"),
    ):
        path.write_bytes(broken)
        with pytest.raises(InputError, match=f"weights '.*supernet.safetensors': {message}"):
            search.main(args)


def test_the_help_lists_every_flag_in_a_named_group_and_what_matters_first():
    text = make_parser(SearchArguments, "efficientbert search").format_help()
    groups = re.split(r"\n(?=[a-z][^\n]*:\n)", text)
    of_group = {group.partition(":")[0]: re.findall(r"(?m)^  --(\w+)", group) for group in groups}
    matters = ["teacher", "output_dir", "corpus", *SearchArguments.first]
    assert sorted(of_group["the flags that matter first"]) == sorted(matters)
    own = {
        "which architectures are searched", "budgets and objectives", "stages and their length",
        "how candidates are proposed", "how stages 1 and 2 rate candidates", "supernet and stage 3",
        "tasks to rate candidates on", "where candidates are recorded",
    }  # fmt: skip
    assert own <= of_group.keys()
    assert not set(of_group.get("other", [])) & {name for owner in OWNERS for name in owner.__annotations__}


OWNERS = [owner for owner in SearchArguments.__mro__ if owner.__module__ == SearchArguments.__module__]
