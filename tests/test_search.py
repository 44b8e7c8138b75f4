"""A search from arguments to checkpoints: stages, budgets, objectives, tasks, resume and faults."""

import json
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from efficientbert.modeling_efficientbert import EfficientBertModel
from efficientbert.search import search
from efficientbert.search.architecture import Architecture
from efficientbert.search.arguments import SearchArguments
from efficientbert.search.cost import count_parameters
from efficientbert.search.storage import open_storage
from efficientbert.train.card import read_provenance
from efficientbert.train.finetune import FinetuneArguments
from efficientbert.train.finetune import main as finetune
from efficientbert.train.script import InputError


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
    path.write_text(f"data: {task_file}\ntext_column: text\nlabel_column: label\nmax_length: 16\n", encoding="utf-8")
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
        result = {key: value for key, value in trial.user_attrs["result"].items() if key != "seconds"}
        rows.append({"candidate": trial.user_attrs["candidate"], "seed": trial.user_attrs["seed"], **result})
    return rows


def test_three_stages_hand_their_winners_on(make_arguments):
    args = make_arguments()
    search.main(args)
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
    assert any(sizes(row["candidate"]) != sizes(best) for row in third)

    folder = Path(args.output_dir)
    best = min(third, key=lambda row: row["losses"][0])
    model = EfficientBertModel.from_pretrained(folder / "best")
    assert Architecture.from_config(model.config).to_json() == best["candidate"]
    record = read_provenance(folder / "best")[-1]
    assert record["step"] == "search" and record["result"]["search_loss"] == best["losses"][0]
    assert record["result"]["parameters"] == model.num_parameters()
    whole = load_file(folder / "stage-3" / "supernet.safetensors")
    assert torch.equal(
        model.embeddings.word_embeddings.weight, whole["whole.encoder.embeddings.word_embeddings.weight"]
    )
