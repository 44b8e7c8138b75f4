"""Uploading, for real: against a small server of the Hub's protocol on this machine."""

import json
import shutil
import socket
import sys
from pathlib import Path

import huggingface_hub
import pytest
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Trainer, TrainingArguments

from efficientbert import EfficientBertConfig, EfficientBertForSequenceClassification
from efficientbert.configuration_efficientbert import AUTO_MAP
from efficientbert.train.cli.errors import InputError
from efficientbert.train.model_folder.card import write_card
from efficientbert.train.model_folder.record import write_provenance
from efficientbert.train.model_folder.siblings import find_siblings
from efficientbert.train.push import PushArguments, cli, main


ROOT = Path(__file__).parents[1]
CODE_FILES = {f"{name}_efficientbert.py" for name in ("configuration", "ffn", "modeling", "slicing")}


def tiny_model():
    sizes = {"vocab_size": 32, "embedding_size": 4, "hidden_size": 8, "num_attention_heads": 2, "num_labels": 3}
    config = EfficientBertConfig(**sizes, num_hidden_layers=2, max_position_embeddings=16)
    return EfficientBertForSequenceClassification(config)


def tiny_tokenizer():
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "[PAD]": 1, "cat": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]")


@pytest.fixture
def folder(tmp_path):
    """A finished folder, with what a training leaves behind."""
    folder = tmp_path / "student"
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    (folder / "README.md").write_text("---\nlibrary_name: transformers\n---\n# student\n")
    (folder / "provenance.json").write_text("[]")
    (folder / ".eval_results").mkdir()
    (folder / ".eval_results" / "rte.yaml").write_text("- value: 0.5\n")
    return folder


def add_training_files(folder):
    names = [
        "run.json",
        "optimizer.bin",
        "distillation_projection.safetensors",
        "teacher_scales.json",
        "embedding_variance.json",
        "README.md.partial",
        "training_args.bin",
    ]
    names += [
        "checkpoints/step_1/model.safetensors",
        "checkpoint-500/config.json",
        "logs/events.out.tfevents.1",
        ".lock",
    ]
    names += ["corpus.partial/part.json", "__pycache__/ffn_efficientbert.pyc", "random_states_0.pkl"]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"training only")
    return names


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def environment(hub, token=None):
    reached = {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    return reached | {"HF_TOKEN": token or hub.token}


PUSH = "import runpy; runpy.run_module('efficientbert.train.push', run_name='__main__')"


def test_the_command_uploads_everything_but_training_files(fresh, hub, folder):
    finished = contents(folder)
    training = add_training_files(folder)
    words = ("--folder", folder, "--repo_id", "user/name", "--private", "--commit_message", "The model")
    code, stdout, stderr = fresh(PUSH, *words, **environment(hub))
    assert code == 0, stderr
    assert hub.files == {"main": finished}
    assert hub.repos["user/name"]["visibility"] == "private"
    assert hub.messages == ["The model"] and hub.branches == []
    assert stdout.splitlines()[-1] == f"{hub.url}/user/name"
    assert all(name in stdout.splitlines()[0] for name in training)
    assert contents(folder).keys() == {*finished, *training}


def test_a_refused_token_is_one_line(fresh, hub, folder):
    code, _, stderr = fresh(PUSH, "--folder", folder, "--repo_id", "user/name", **environment(hub, "hf_wrong"))
    assert code == 2
    assert stderr.count("\n") == 1
    assert stderr.startswith("efficientbert push: error: upload to 'user/name': the token is not accepted")
    assert "hf_wrong" not in stderr and not hub.files


def test_save_pretrained_and_push_to_hub_send_code_and_auto_map(fresh, hub, folder):
    """The library's own way to the Hub: what arrives is what the package's code is."""
    program = (
        "from efficientbert import EfficientBertForSequenceClassification\n"
        "from transformers import AutoTokenizer\n"
        "EfficientBertForSequenceClassification.from_pretrained(sys.argv[1]).push_to_hub('user/name')\n"
        "AutoTokenizer.from_pretrained(sys.argv[1]).push_to_hub('user/name')\n"
    )
    code, _, stderr = fresh(program, folder, **environment(hub))
    assert code == 0, stderr
    arrived = hub.files["main"]
    for name in CODE_FILES:
        assert arrived[name] == (ROOT / name).read_bytes()
    assert json.loads(arrived["config.json"])["auto_map"] == AUTO_MAP
    assert "tokenizer_config.json" in arrived
    for name in ("model.safetensors", "tokenizer.json"):
        assert arrived[name] == (folder / name).read_bytes()


def run(folder, capsys, monkeypatch, *arguments):
    """The command in this process: exit code, last line of stdout, stderr."""
    monkeypatch.setattr(sys, "argv", ["push", "--folder", str(folder), "--repo_id", "user/name", *arguments])
    try:
        cli()
        code = 0
    except SystemExit as stop:
        code = stop.code
    output = capsys.readouterr()
    return code, output.out.splitlines()[-1:], output.err


def test_a_revision_is_made_and_filled(in_process, folder, capsys, monkeypatch):
    code, last, _ = run(folder, capsys, monkeypatch, "--revision", "v1")
    assert (code, last) == (0, [f"{in_process.url}/user/name/tree/v1"])
    assert in_process.branches == ["v1"]
    assert in_process.files == {"v1": contents(folder)}
    assert in_process.repos["user/name"].get("visibility") != "private"


@pytest.mark.parametrize(
    ("part", "status", "message"),
    [
        ("/api/repos/create", 500, "500"),
        ("/api/repos/create", 403, "the token is not accepted"),
        ("/branch/", 400, "400"),
        ("/preupload/", 404, "404"),
        ("/commit/", 500, "500"),
        ("/commit/", 401, "the token is not accepted"),
    ],
)
def test_a_refusal_is_one_line(in_process, folder, capsys, monkeypatch, part, status, message):
    in_process.refuse[part] = status
    code, last, errors = run(folder, capsys, monkeypatch, "--revision", "v1")
    error = errors.splitlines()[-1]
    assert code == 2 and last == [] and not in_process.files
    assert error.startswith("efficientbert push: error: upload to 'user/name': ") and message in error
    assert in_process.token not in errors and "Traceback" not in errors


def test_an_unreachable_hub_is_one_line(in_process, folder, capsys, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    code, last, errors = run(folder, capsys, monkeypatch)
    assert (code, last, errors.count("\n")) == (2, [], 1)
    assert errors.startswith("efficientbert push: error: upload to 'user/name': ")


def test_offline_mode_is_one_line(in_process, folder, capsys, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    code, _, errors = run(folder, capsys, monkeypatch)
    assert (code, errors.count("\n")) == (2, 1) and "offline" in errors.lower()


def test_no_token_is_one_line(in_process, folder, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
    with pytest.raises(InputError, match="no token for the Hub"):
        main(PushArguments(folder=str(folder), repo_id="user/name"))


@pytest.mark.parametrize("repo_id", ["name", "a/b/c", "user/na me", "", "user/..", "-user/name"])
def test_bad_repo_ids(in_process, folder, repo_id):
    with pytest.raises(InputError, match=r"^repo_id '"):
        main(PushArguments(folder=str(folder), repo_id=repo_id))
    assert not in_process.repos


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", *sorted(CODE_FILES)])
def test_a_missing_file_is_named(in_process, folder, name):
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"has no {name}$"):
        main(PushArguments(folder=str(folder), repo_id="user/name"))
    assert not in_process.repos


def edit_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    config = {key: value for key, value in {**config, **changes}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))


BROKEN = {
    "other_model": (lambda f: edit_config(f, model_type="bert"), "model_type 'bert', not 'efficientbert'"),
    "no_auto_map": (lambda f: edit_config(f, auto_map=None), "auto_map in config.json has AutoConfig as None"),
    "half_auto_map": (
        lambda f: edit_config(f, auto_map={k: v for k, v in AUTO_MAP.items() if k != "AutoModelForMaskedLM"}),
        "has AutoModelForMaskedLM as None",
    ),
    "foreign_auto_map": (
        lambda f: edit_config(f, auto_map={**AUTO_MAP, "AutoModel": "other/repo--modeling.Model"}),
        "has AutoModel as 'other/repo--modeling.Model'",
    ),
    "invalid_config": (lambda f: edit_config(f, hidden_size=-8), "config.json does not load: "),
    "no_json": (lambda f: (f / "config.json").write_text("{"), "config.json is no JSON object: "),
    "no_mapping": (lambda f: (f / "config.json").write_text("[]"), "config.json is no JSON object: "),
    "other_sizes": (
        lambda f: edit_config(f, vocab_size=33),
        "model.safetensors (does not load|has mismatched keys): ",
    ),
    "more_layers": (
        lambda f: edit_config(
            f, num_hidden_layers=3, ffn_stacks=1, intermediate_sizes=4, ffn_expressions="linear2(gelu(linear1(x)))"
        ),
        "model.safetensors (does not load|has m[a-z]+ keys): ",
    ),
    "cut_weights": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-9]),
        "model.safetensors does not load: ",
    ),
    "no_weights": (
        lambda f: (f / "model.safetensors").write_bytes(b"no weights"),
        "model.safetensors does not load: ",
    ),
    "cut_code": (
        lambda f: (f / "ffn_efficientbert.py").write_text("def parse(text:\n"),
        "ffn_efficientbert.py is no Python: ",
    ),
    "cut_tokenizer": (lambda f: (f / "tokenizer.json").write_text("{"), "the tokenizer does not load: "),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_folder_that_does_not_load_is_not_uploaded(in_process, folder, capsys, monkeypatch, name):
    breaking, message = BROKEN[name]
    breaking(folder)
    code, last, errors = run(folder, capsys, monkeypatch)
    assert (code, last, errors.count("\n")) == (2, [], 1), errors
    with pytest.raises(InputError, match=message):
        main(PushArguments(folder=str(folder), repo_id="user/name"))
    assert not in_process.repos and not in_process.files


def test_code_in_the_folder_is_not_run(in_process, folder, tmp_path):
    for name in CODE_FILES:
        with open(folder / name, "a") as file:
            file.write(f"\nopen({str(tmp_path / 'ran')!r}, 'w')\n")
    main(PushArguments(folder=str(folder), repo_id="user/name"))
    assert not (tmp_path / "ran").exists()


def test_an_unfinished_or_missing_folder(in_process, folder, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        main(PushArguments(folder=str(tmp_path / "nowhere"), repo_id="user/name"))
    unfinished = folder.rename(tmp_path / "student.partial")
    with pytest.raises(InputError, match="unfinished run"):
        main(PushArguments(folder=str(unfinished), repo_id="user/name"))


def test_a_folder_without_tokenizer_is_complete(in_process, folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()
    main(PushArguments(folder=str(folder), repo_id="user/name"))
    assert in_process.files == {"main": contents(folder)}


def pushed_card(hub):
    """Metadata and text of the card that arrived."""
    _, metadata, text = hub.files["main"]["README.md"].decode().split("---\n", 2)
    return yaml.safe_load(metadata), text


def test_a_folder_of_the_trainer_gets_a_card(in_process, tmp_path, capsys):
    """transformers' Trainer writes no card; the folder stays as the Trainer left it."""
    folder = tmp_path / "by-trainer"
    settings = TrainingArguments(str(folder), report_to=[], use_cpu=True)
    Trainer(tiny_model(), settings, processing_class=tiny_tokenizer()).save_model(str(folder))
    before = contents(folder)
    assert "README.md" not in before and "training_args.bin" in before
    flags = {"license": "apache-2.0", "language": ["en", "de"]}
    main(PushArguments(folder=str(folder), repo_id="user/name", **flags))
    assert contents(folder) == before
    assert in_process.files["main"].keys() == {*before, "README.md"} - {"training_args.bin"}
    metadata, text = pushed_card(in_process)
    assert metadata.items() >= (flags | {"pipeline_tag": "text-classification"}).items()
    assert text.lstrip().startswith("# name\n") and "by-trainer" not in text
    for argument in ("", ", trust_remote_code=True"):
        assert f'AutoModelForSequenceClassification.from_pretrained("user/name"{argument})' in text
    assert text.count('AutoTokenizer.from_pretrained("user/name")') == 2
    output = capsys.readouterr().out
    assert "left out, as only training needs it: training_args.bin\n" in output and "licence" not in output


@pytest.mark.parametrize("renamed", [False, True])
def test_the_card_loads_the_model_from_where_it_is_pushed_to(in_process, folder, tmp_path, capsys, renamed):
    arguments = {"model": "me/start", "license": "mit"}
    write_provenance(folder, [{"step": "finetune", "arguments": arguments, "datasets": ["nyu-mll/glue"]}])
    write_card(folder)
    with open(folder / "README.md", "a") as file:
        file.write('\nSentenceTransformer("student") is not AutoModel.from_pretrained("bert-base") or "student".\n')
    folder = folder.rename(tmp_path / "other") if renamed else folder
    local = contents(folder)
    main(PushArguments(folder=str(folder), repo_id="user/name"))
    assert contents(folder) == local
    expected = local["README.md"].decode().replace('from_pretrained("student"', 'from_pretrained("user/name"')
    expected = expected.replace('SentenceTransformer("student")', 'SentenceTransformer("user/name")')
    assert in_process.files == {"main": local | {"README.md": expected.encode()}}
    metadata, text = pushed_card(in_process)
    assert text.count('from_pretrained("user/name"') == 4
    assert (metadata["license"], metadata["base_model"], metadata["base_model_relation"]) == (
        "mit",
        "me/start",
        "finetune",
    )
    assert metadata["datasets"] == ["nyu-mll/glue"] and "licence" not in capsys.readouterr().out


def test_licence_and_language_are_stated_by_flags(in_process, folder, capsys, monkeypatch):
    local = contents(folder)
    code, *_ = run(folder, capsys, monkeypatch)
    assert code == 0 and in_process.files["main"] == local
    main(PushArguments(folder=str(folder), repo_id="user/name"))
    assert "licence: not stated; push again with --license to state it\n" in capsys.readouterr().out
    code, *_ = run(folder, capsys, monkeypatch, "--license", "mit", "--language", "en", "de")
    assert code == 0 and contents(folder) == local
    metadata, text = pushed_card(in_process)
    assert metadata == {"library_name": "transformers", "license": "mit", "language": ["en", "de"]}
    assert text == "# student\n"


@pytest.mark.parametrize("content", [b"---\n- a list\n---\n", b"---\na: [\n---\n", b"\xff"])
def test_a_broken_card_is_one_line(in_process, folder, content):
    (folder / "README.md").write_bytes(content)
    with pytest.raises(InputError, match=r"README\.md': cannot be read: ") as error:
        main(PushArguments(folder=str(folder), repo_id="user/name"))
    assert "\n" not in str(error.value) and not in_process.repos


@pytest.fixture
def compressed(folder, tmp_path):
    """A folder as `compress` leaves it: two models, what they were held against, and figures."""
    work = tmp_path / "small"
    rows = [{"model": "teacher", "role": "teacher", "latency_ms": 20.0}]
    for name, milliseconds in (("half", 9.96), ("tenth", 1.94)):
        shutil.copytree(folder, work / name)
        (work / name / "README.md").write_text(f'---\ntags: [x]\n---\n\n# {name}\n\nfrom_pretrained("{name}")\n')
        rows.append({"model": name, "role": "compressed", "latency_ms": milliseconds})
        rows.append({"model": f"{name}, untrained", "role": "rival", "latency_ms": milliseconds})
    (work / "compression.json").write_text(json.dumps(rows))
    return work


def test_all_models_of_a_compression_and_their_collection(in_process, compressed, capsys):
    before = contents(compressed)
    made = main(PushArguments(folder=str(compressed), repo_id="user/small"))
    assert contents(compressed) == before
    names = {"user/small-10ms": "half", "user/small-1.9ms": "tenth"}
    assert in_process.repositories.keys() == names.keys()
    for repo_id, name in names.items():
        arrived, local = in_process.repositories[repo_id], contents(compressed / name)
        assert arrived.keys() == local.keys() and arrived["model.safetensors"] == local["model.safetensors"]
        title = repo_id.split("/")[1]
        assert arrived["README.md"].decode() == (f'---\ntags: [x]\n---\n\n# {title}\n\nfrom_pretrained("{repo_id}")\n')
    notes = {"user/small-10ms": "9.96 ms a text", "user/small-1.9ms": "1.94 ms a text"}
    assert in_process.collections == {"user/small-1": notes}
    assert made.figures["urls"] == [f"{in_process.url}/{repo_id}" for repo_id in names]
    assert capsys.readouterr().out.splitlines()[-1] == made.figures["collection"]


@pytest.mark.parametrize("part", ["models/user/small-1.9ms/commit", "api/collections", "/items"])
def test_an_upload_that_was_cut_goes_on(in_process, compressed, part):
    in_process.refuse = {part: 429}
    with pytest.raises(
        InputError, match=r"'user/small.*too many requests; try again later, it goes on then \(HTTP 429"
    ):
        main(PushArguments(folder=str(compressed), repo_id="user/small"))
    assert "user/small-10ms" in in_process.repositories
    in_process.refuse = {}
    for _ in range(2):
        main(PushArguments(folder=str(compressed), repo_id="user/small"))
    assert in_process.repositories.keys() == {"user/small-10ms", "user/small-1.9ms"}
    assert {slug: list(notes) for slug, notes in in_process.collections.items()} == {
        "user/small-1": ["user/small-10ms", "user/small-1.9ms"]
    }


def test_nothing_is_uploaded_where_one_model_does_not_load(in_process, compressed):
    (compressed / "tenth" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"tenth': model\.safetensors does not load"):
        main(PushArguments(folder=str(compressed), repo_id="user/small"))
    assert not in_process.repos


def test_a_dry_run_says_what_it_would_do(in_process, compressed, capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
    main(PushArguments(folder=str(compressed), repo_id="user/small", dry_run=True))
    files = len(contents(compressed / "half"))
    assert capsys.readouterr().out.splitlines() == [
        f"would upload {files} files, 0.1 MB, to user/small-10ms",
        f"would upload {files} files, 0.1 MB, to user/small-1.9ms",
        "would make the collection user/small",
    ]
    assert not in_process.repos and not in_process.collections


def test_a_compression_for_one_goal_is_one_model(in_process, compressed):
    rows = json.loads((compressed / "compression.json").read_text())
    (compressed / "compression.json").write_text(json.dumps(rows[:3]))
    made = main(PushArguments(folder=str(compressed), repo_id="user/small"))
    assert made.figures == {"url": f"{in_process.url}/user/small"} and not in_process.collections
    assert in_process.repositories.keys() == {"user/small"}


@pytest.mark.parametrize("content", ["{", "3", '[{"model": "half"}]'])
def test_a_compression_that_cannot_be_read(in_process, compressed, content):
    (compressed / "compression.json").write_text("[]")
    with pytest.raises(InputError, match=r"small': compression.json names no model that was made"):
        main(PushArguments(folder=str(compressed), repo_id="user/small"))
    (compressed / "compression.json").write_text(content)
    with pytest.raises(InputError, match=r"small': compression.json cannot be read: "):
        main(PushArguments(folder=str(compressed), repo_id="user/small"))


@pytest.mark.parametrize(
    "results, names",
    [
        ([{"latency": 4.26}, {"latency": 12.0}], ["-4.3ms", "-12ms"]),
        ([{"latency": 44.26}, {"latency": 123.0}], ["-44ms", "-120ms"]),
        ([{"latency": 4.26}, {"latency": 4.31}], ["-4.26ms", "-4.31ms"]),
        ([{"latency": 4.26, "parameters": 9e6}, {"parameters": 14.5e6}], ["-9m", "-14m"]),
        ([{"parameters": 9e6}, {"parameters": 9e6}], ["-1", "-2"]),
        ([{"parameters": 9e6}], [""]),
    ],
)
def test_names_of_the_front_of_a_search(folder, tmp_path, results, names):
    work = tmp_path / "study"
    shutil.copytree(folder, work / "best")
    for number, result in enumerate(results):
        path = work / "front" / str(number)
        path.mkdir(parents=True)
        write_provenance(path, [{"step": "search", "result": result}])
    found = find_siblings(work, "user/name")
    assert [sibling.repo_id for sibling in found] == [f"user/name{name}" for name in names]
    expected = [work / "front" / str(n) for n in range(len(results))] if len(results) > 1 else [work / "best"]
    assert [sibling.folder for sibling in found] == expected
