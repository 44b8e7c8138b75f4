"""Model cards and provenance: what is given is said, nothing else, and nothing is lost."""

import json

import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard, parse_eval_result_entries

import efficientbert
from efficientbert import EfficientBertConfig, EfficientBertForMaskedLM
from efficientbert.train.cli.errors import InputError
from efficientbert.train.model_folder.card import HEADS, ModelCardInfo, count_parameters, write_card
from efficientbert.train.model_folder.record import read_provenance, without_paths, write_provenance
from efficientbert.train.model_folder.results import add_results


def tiny_config(**changes):
    sizes = {"vocab_size": 32, "embedding_size": 4, "hidden_size": 8, "num_attention_heads": 2}
    expressions = ["tanh(linear2(gelu(linear1(x))))", "linear2(relu(mul(linear1(x), x)))"]
    per_layer = {"ffn_expressions": expressions, "ffn_stacks": [3, 1], "intermediate_sizes": [5, 8]}
    return EfficientBertConfig(**sizes, **per_layer, num_hidden_layers=2, max_position_embeddings=16, **changes)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "small-student"
    folder.mkdir()
    tiny_config(architectures=["EfficientBertForMaskedLM"]).save_pretrained(folder)
    return folder


STEPS = [
    {
        "step": "search",
        "arguments": {"teacher": "thenlper/gte-small", "corpus": "/home/author/texts/wiki.txt", "budget": 9000000},
        "result": {"score": 0.123456789, "cost": {"parameters": 8999000}},
        "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
    },
    {
        "step": "distill",
        "arguments": {"teacher": "thenlper/gte-small", "stacks": [1, 2], "expression": "linear2(gelu(linear1(x)))"}
        | {"seed": None, "bf16": True},
        "result": {"hidden_loss": 0.5939999, "steps": 300},
        "versions": {"torch": "2.13.0"},
    },
]


def card(folder):
    """Metadata and text of the card."""
    _, metadata, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(metadata), text


def test_metadata(folder, tmp_path, monkeypatch):
    (tmp_path / "own_data").mkdir()
    monkeypatch.chdir(tmp_path)
    write_provenance(folder, STEPS)
    datasets = ["wikimedia/wikipedia", str(tmp_path / "own_data"), "own_data", "glue"]
    write_card(folder, ModelCardInfo(license="mit", language="en", datasets=datasets))
    metadata, _ = card(folder)
    assert metadata == {
        "license": "mit",
        "language": "en",
        "library_name": "transformers",
        "base_model": "thenlper/gte-small",
        "datasets": ["wikimedia/wikipedia", "glue"],
        "pipeline_tag": "fill-mask",
        "tags": ["efficientbert", "knowledge-distillation", "nas"],
    }
    assert ModelCard.load(folder / "README.md").data.to_dict() == metadata


def test_the_text_tells_architecture_and_every_step(folder):
    write_provenance(folder, STEPS)
    write_card(folder, ModelCardInfo())
    _, text = card(folder)
    assert text.lstrip().startswith("# small-student\n")
    assert (
        "| 1 | `tanh(linear2(gelu(linear1(x))))` | 3 | 5 |\n| 2 | `linear2(relu(mul(linear1(x), x)))` | 1 | 8 |"
        in text
    )
    whole = sum(p.numel() for p in EfficientBertForMaskedLM(tiny_config()).parameters())
    encoder = sum(p.numel() for p in efficientbert.EfficientBertModel(tiny_config()).parameters())
    assert f"`EfficientBertForMaskedLM`, {whole:,} parameters ({encoder:,} in the encoder): 2 layers" in text
    assert (
        "* Teacher: [thenlper/gte-small](https://huggingface.co/thenlper/gte-small)\n* Corpus: wiki.txt (local)"
        in text
    )
    assert "efficientbert search --teacher thenlper/gte-small --corpus ./wiki.txt --budget 9000000\n" in text
    expression = "'linear2(gelu(linear1(x)))'"
    assert f"distill --teacher thenlper/gte-small --stacks 1 2 --expression {expression} --bf16 True\n" in text
    assert text.index("### 1. search") < text.index("### 2. distill")
    assert "| score | 0.12346 |\n| cost.parameters | 8999000 |" in text
    assert "| hidden_loss | 0.594 |\n| steps | 300 |" in text
    assert "With torch 2.13.0, transformers 5.23.0." in text
    assert 'AutoModelForMaskedLM.from_pretrained("small-student")' in text
    assert 'AutoModelForMaskedLM.from_pretrained("small-student", trust_remote_code=True)' in text
    assert "/home" not in text and "author" not in text


def test_the_tokenizer_is_loaded_where_there_is_one(folder):
    (folder / "tokenizer_config.json").write_text("{}")
    write_card(folder, ModelCardInfo())
    assert card(folder)[1].count('tokenizer = AutoTokenizer.from_pretrained("small-student")\n') == 2


def test_a_record_of_other_origin_is_cut_down_too(folder):
    arguments = {"corpus": "/home/author/wiki.txt", "seed": 0, "bf16": False, "tasks": [], "limit": None}
    (folder / "provenance.json").write_text(json.dumps([{"step": "distill", "arguments": arguments}]))
    write_card(folder, ModelCardInfo())
    assert "efficientbert distill --corpus ./wiki.txt --seed 0 --bf16 False\n" in card(folder)[1]


def test_nothing_is_said_that_is_not_known(folder):
    write_card(folder, ModelCardInfo())
    metadata, text = card(folder)
    assert metadata == {"library_name": "transformers", "pipeline_tag": "fill-mask", "tags": ["efficientbert"]}
    for word in ("Teacher", "Corpus", "How it was made", "Results", "None", "license", "licence"):
        assert word not in text


def test_a_local_teacher_is_no_base_model(folder, tmp_path, monkeypatch):
    (tmp_path / "models" / "gte-small").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for teacher in ("models/gte-small", str(tmp_path / "models" / "gte-small"), "./models/gte-small"):
        write_card(folder, ModelCardInfo(teacher=teacher))
        metadata, text = card(folder)
        assert "base_model" not in metadata and "knowledge-distillation" in metadata["tags"]
        assert "* Teacher: gte-small (local)\n" in text
    # Also when the record is read on a machine that has no such folder.
    write_provenance(folder, [{"step": "distill", "arguments": {"teacher": "models/gte-small"}}])
    monkeypatch.chdir(folder)
    write_card(folder, ModelCardInfo())
    metadata, text = card(folder)
    assert "base_model" not in metadata and "* Teacher: gte-small (local)\n" in text


@pytest.mark.parametrize("name", HEADS)
def test_every_class_names_its_auto_class_and_pipeline(tmp_path, name):
    tiny_config(architectures=[name]).save_pretrained(tmp_path)
    write_card(tmp_path, ModelCardInfo())
    metadata, text = card(tmp_path)
    auto_class, pipeline_tag = HEADS[name]
    assert "AutoTokenizer" not in text
    assert metadata.get("pipeline_tag") == pipeline_tag
    assert text.count(f"from transformers import {auto_class}\n") == 2
    whole = sum(p.numel() for p in getattr(efficientbert, name)(tiny_config()).parameters())
    assert count_parameters(tiny_config(), name) == whole


def test_the_name_of_a_folder_in_work_is_that_of_the_finished_one(folder):
    work = folder.rename(folder.with_name("small-student.partial"))
    write_card(work, ModelCardInfo())
    assert "# small-student\n" in card(work)[1] and ".partial" not in card(work)[1]


def test_a_folder_without_our_configuration_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"has no config\.json$") as error:
        write_card(tmp_path, ModelCardInfo())
    assert "\n" not in str(error.value) and not (tmp_path / "README.md").exists()


def test_provenance_goes_round_without_local_paths(tmp_path):
    assert read_provenance(tmp_path) == []
    write_provenance(tmp_path, STEPS)
    (search, distill) = read_provenance(tmp_path)
    assert search == {**STEPS[0], "arguments": {**STEPS[0]["arguments"], "corpus": "./wiki.txt"}}
    assert distill == STEPS[1]
    write_provenance(tmp_path, [search, distill])
    assert read_provenance(tmp_path) == [search, distill]
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("content", ["{", '{"step": "distill"}', '["distill"]', '[{"arguments": {}}]', "\xff"])
def test_broken_provenance_is_one_line(tmp_path, content):
    (tmp_path / "provenance.json").write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=r"provenance.json: ") as error:
        read_provenance(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/home/author/a model", "./a model"),
        ("/home/author/model/", "./model"),
        ("~/model", "./model"),
        ("../author/model", "./model"),
        ("./model", "./model"),
        ("file:///home/author/x.txt", "./x.txt"),
        ("text:/home/author/x.txt", "text:./x.txt"),
        ("/home/author/x.txt,/home/author/y.txt", "./x.txt,./y.txt"),
        ("see /home/author/x.txt and ~/y.txt", "see ./x.txt and ./y.txt"),
        ("user/model", "user/model"),
        ("bert-base-uncased", "bert-base-uncased"),
        ("https://huggingface.co/user/model", "https://huggingface.co/user/model"),
        ("hf://datasets/user/data", "hf://datasets/user/data"),
        ("m" * 300, "m" * 300),
        ("linear2(relu(mul(linear1(x), x)))", "linear2(relu(mul(linear1(x), x)))"),
        ("1/2 and/or ~3", "1/2 and/or ~3"),
        ("", ""),
        (3, 3),
        (None, None),
        ({"a": ["/home/author/x", 0.5]}, {"a": ["./x", 0.5]}),
    ],
)
def test_without_paths(value, expected):
    assert without_paths(value) == expected


def test_an_existing_relative_path_is_one_too(tmp_path, monkeypatch):
    (tmp_path / "author" / "data").mkdir(parents=True)
    (tmp_path / "search").mkdir()
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "config.json").touch()
    monkeypatch.chdir(tmp_path)
    assert without_paths(["author/data", "author/nothing", tmp_path / "x"]) == ["./data", "author/nothing", "./x"]
    # A single word says too little, unless it is a model folder.
    assert without_paths(["search", "student"]) == ["search", "./student"]


def result(metric="accuracy", value=0.5, config="rte", dataset="nyu-mll/glue", split="validation"):
    return EvalResult(
        task_type="text-classification",
        dataset_type=dataset,
        dataset_name="GLUE",
        dataset_config=config,
        dataset_split=split,
        metric_type=metric,
        metric_value=value,
    )


def entries(folder, task):
    return parse_eval_result_entries(yaml.safe_load((folder / ".eval_results" / f"{task}.yaml").read_text()))


def test_results_in_both_forms(folder):
    write_card(folder, ModelCardInfo(license="mit"))
    before = card(folder)
    add_results(folder, [result("accuracy", 0.8125, "mrpc"), result("f1", 0.875, "mrpc"), result(value=0.6)])
    metadata, text = card(folder)
    (index,) = metadata.pop("model-index")
    assert metadata == before[0] and text.startswith(before[1].rstrip())
    assert index["name"] == "small-student"
    assert index["results"][0] == {
        "task": {"type": "text-classification"},
        "dataset": {"name": "GLUE", "type": "nyu-mll/glue", "config": "mrpc", "split": "validation"},
        "metrics": [{"type": "accuracy", "value": 0.8125}, {"type": "f1", "value": 0.875}],
    }
    assert "| GLUE | mrpc | validation | f1 | 0.875 |\n| GLUE | rte | validation | accuracy | 0.6 |" in text
    accuracy, f1 = entries(folder, "mrpc")
    assert (accuracy.dataset_id, accuracy.task_id, accuracy.value) == ("nyu-mll/glue", "mrpc", 0.8125)
    assert (accuracy.notes, f1.notes, f1.value) == ("accuracy, validation split", "f1, validation split", 0.875)
    assert [entry.value for entry in entries(folder, "rte")] == [0.6]


def test_results_are_added_and_replaced_and_nothing_is_lost(folder):
    write_card(folder, ModelCardInfo(license="mit"))
    path = folder / "README.md"
    add_results(folder, [result(value=0.5), result(value=0.25, split="test")])
    # What a person, or another program, wrote in between.
    path.write_text(path.read_text().replace("license: mit\n", "license: mit\ncustom: kept\n") + "\nMy own words.\n")
    file = folder / ".eval_results" / "rte.yaml"
    foreign = {"dataset": {"id": "nyu-mll/glue", "task_id": "rte"}, "value": 1, "date": "2026-01-01", "extra": "kept"}
    file.write_text(yaml.safe_dump([*yaml.safe_load(file.read_text()), foreign]))
    add_results(folder, [result(value=0.75), result("f1", 0.7)])

    metadata, text = card(folder)
    assert metadata["custom"] == "kept" and metadata["license"] == "mit"
    metrics = {
        (part["dataset"]["split"], metric["type"]): metric["value"]
        for part in metadata["model-index"][0]["results"]
        for metric in part["metrics"]
    }
    assert metrics == {("test", "accuracy"): 0.25, ("validation", "accuracy"): 0.75, ("validation", "f1"): 0.7}
    assert text.count("## Results") == 1 and text.count("| accuracy |") == 2 and "| accuracy | 0.5 |" not in text
    assert text.rstrip().endswith("My own words.")
    written = yaml.safe_load(file.read_text())
    assert foreign in written
    assert sorted(entry["value"] for entry in written) == [0.25, 0.7, 0.75, 1]
    assert "model-index" in path.read_text() and ModelCard.load(path).data.eval_results
    assert not list(folder.rglob("*.partial"))


def test_results_on_a_card_of_others(folder):
    (folder / "README.md").write_text("---\nlicense: mit\nlanguage:\n- de\n---\n# Theirs\n\nText.\n")
    add_results(folder, [result()])
    metadata, text = card(folder)
    assert metadata["license"] == "mit" and metadata["language"] == ["de"]
    assert text.startswith("# Theirs\n\nText.\n\n## Results\n")


def test_results_on_local_data_stay_out_of_eval_results(folder, tmp_path):
    write_card(folder, ModelCardInfo())
    (tmp_path / "own.csv").touch()
    add_results(folder, [result(dataset=str(tmp_path / "own.csv"), config=None)])
    assert card(folder)[0]["model-index"][0]["results"][0]["dataset"]["type"] == "./own.csv"
    assert not (folder / ".eval_results").exists()
    assert str(tmp_path) not in (folder / "README.md").read_text()


def test_a_dataset_without_configurations(folder):
    write_card(folder, ModelCardInfo())
    add_results(folder, [result("f1", 80.0, config=None, dataset="rajpurkar/squad", split=None)])
    (entry,) = entries(folder, "squad")
    assert (entry.dataset_id, entry.task_id, entry.notes) == ("rajpurkar/squad", "default", "f1")


def test_a_configuration_name_cannot_leave_the_folder(folder):
    write_card(folder, ModelCardInfo())
    add_results(folder, [result(config="../../x y")])
    assert [file.name for file in (folder / ".eval_results").iterdir()] == ["--x-y.yaml"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("README.md", None, "has no model card README.md"),
        ("README.md", "---\n- a list\n---\n", "README.md: cannot be read: "),
        ("README.md", "---\na: [\n---\n", "README.md: cannot be read: "),
        (".eval_results/rte.yaml", "a: 1\n", "rte.yaml: must be a list of entries"),
        (".eval_results/rte.yaml", "[", "rte.yaml: cannot be read: "),
    ],
)
def test_unreadable_files_are_one_line_and_stay(folder, name, content, message):
    write_card(folder, ModelCardInfo())
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.unlink() if content is None else path.write_text(content)
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    with pytest.raises(InputError, match=message) as error:
        add_results(folder, [result()])
    assert "\n" not in str(error.value)
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before


def test_cells_cannot_break_a_table(folder):
    steps = [{"step": "finetune", "arguments": {}, "result": {"labels": "yes | no\nmaybe", "best": [1, 2]}}]
    write_provenance(folder, steps)
    assert json.loads((folder / "provenance.json").read_text()) == steps
    write_card(folder, ModelCardInfo())
    assert "| labels | yes \\| no maybe |\n| best | [1, 2] |" in card(folder)[1]
