"""What earlier versions of this package have written still loads, scores the same, and goes on.

`earlier.tar.gz` holds a tiny teacher, corpus and task, and what version 0.1.0 made of them on a CPU: a distilled
student, a fine-tuned one with its score, a distillation that was killed behind its fourth step beside the same one run
through, and a search.
"""

import json
import tarfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForSequenceClassification

from efficientbert.search import search
from efficientbert.search.arguments import SearchArguments
from efficientbert.train import distill, scoring
from efficientbert.train.cli.command import run_command
from efficientbert.train.distillation.arguments import DistillArguments
from efficientbert.train.tasks.arguments import EvaluateArguments


TEXT = ["--teacher", "teacher", "--corpus", "corpus.txt", "--student", "student.json", "--max_length", "24"]
TEXT += ["--held_out", "8", "--init_sequences", "16", "--batch_size", "4"]


@pytest.fixture
def earlier(tmp_path, monkeypatch) -> Path:
    """The files, in the working directory."""
    with tarfile.open(Path(__file__).with_name("earlier.tar.gz")) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_model_folders_load(earlier):
    ids = torch.arange(5, 12)[None]
    plain = AutoModel.from_pretrained("distilled")
    remote = AutoModel.from_pretrained("distilled", trust_remote_code=True)
    assert type(remote) is not type(plain) or plain.config.model_type == "efficientbert"
    with torch.no_grad():
        assert torch.equal(plain(ids).last_hidden_state, remote(ids).last_hidden_state)
        assert AutoModelForSequenceClassification.from_pretrained("finetuned")(ids).logits.shape == (1, 2)


def test_scores_are_the_same(earlier):
    words = ["--model", "finetuned", "--data", "task.csv", "--split", "train", "--output_json", "now.json"]
    run_command(scoring.main, EvaluateArguments, "evaluate", words)
    then, now = (json.loads(Path(name).read_text(encoding="utf-8"))["results"] for name in ("scores.json", "now.json"))
    assert [(row["rows"], row["metrics"]) for row in now] == [(row["rows"], row["metrics"]) for row in then]


def test_a_killed_run_goes_on_to_the_same_weights(earlier):
    words = [*TEXT, "--max_steps", "6", "--checkpoint_steps", "2", "--output_dir", "killed/distilled"]
    run_command(distill.main, DistillArguments, "distill", words)
    for name in ("model.safetensors", "distillation_projection.safetensors"):
        then, now = load_file(f"whole/distilled/{name}"), load_file(f"killed/distilled/{name}")
        assert then.keys() == now.keys()
        for key, tensor in then.items():
            torch.testing.assert_close(now[key], tensor, rtol=1e-4, atol=1e-6)  # processors round differently


def test_a_search_of_another_format_is_refused_in_one_line(earlier, capsys):
    before = {path: path.stat().st_mtime_ns for path in Path("searched", "best").iterdir()}
    words = [*TEXT, "--warmup_steps", "2", "--general_steps", "2", "--sampled_steps", "2", "--num_candidates", "2"]
    words += ["--initial", "1", "--stages", "1", "--output_dir", "searched"]
    with pytest.raises(SystemExit) as ended:
        run_command(search.main, SearchArguments, "search", words)
    line = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 2 and line.startswith("efficientbert search: error: study ")
    assert line.endswith("was begun with format=None, not 2; choose another folder or name")
    assert {path: path.stat().st_mtime_ns for path in Path("searched", "best").iterdir()} == before
