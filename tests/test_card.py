"""Model cards and provenance: what is given is said, nothing else, and nothing is lost."""

import dataclasses
import json
import re
import runpy

import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard, parse_eval_result_entries
from transformers import AutoTokenizer

import efficientbert
from efficientbert import EfficientBertConfig, EfficientBertForMaskedLM
from efficientbert.search.arguments import SearchArguments
from efficientbert.search.costs.arguments import BenchmarkArguments
from efficientbert.train.cli.arguments import field_kinds
from efficientbert.train.cli.errors import InputError
from efficientbert.train.convert import ConvertArguments
from efficientbert.train.distillation.arguments import DistillArguments, EmbedArguments
from efficientbert.train.files.local_paths import without_path
from efficientbert.train.model_folder.card import HEADS, count_parameters, make_card, write_card
from efficientbert.train.model_folder.record import read_provenance, recorded, write_provenance
from efficientbert.train.model_folder.results import add_results
from efficientbert.train.push import PushArguments
from efficientbert.train.tasks.arguments import (
    AugmentArguments,
    EvaluateArguments,
    FinetuneArguments,
    LabelledData,
    MultitaskArguments,
)


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
        "arguments": {"teacher": "thenlper/gte-small", "corpus": "./wiki.txt", "budget": 9000000},
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


def test_metadata(folder):
    stated = {"license": "mit", "language": ["en", "de"]}
    steps = [{**STEPS[0], "datasets": ["wikimedia/wikipedia", "glue"]}, {**STEPS[1], "datasets": ["glue", "squad"]}]
    steps[1]["arguments"] = STEPS[1]["arguments"] | stated
    write_provenance(folder, steps)
    write_card(folder)
    metadata, _ = card(folder)
    assert metadata == {
        "license": "mit",
        "language": ["en", "de"],
        "library_name": "transformers",
        "base_model": "thenlper/gte-small",
        "datasets": ["wikimedia/wikipedia", "glue", "squad"],
        "pipeline_tag": "fill-mask",
        "tags": ["efficientbert", "knowledge-distillation", "nas"],
    }
    assert ModelCard.load(folder / "README.md").data.to_dict() == metadata
    # The licence of a model that this one began with is not this one's.
    write_provenance(folder, [*steps, {"step": "finetune", "arguments": {"model": "./student"}}])
    write_card(folder)
    assert not {"license", "language"} & card(folder)[0].keys()


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([("finetune", {"model": "me/student", "teacher": "me/teacher"})], ("me/student", "finetune")),
        ([("distill", {"student": "me/student", "teacher": "me/teacher"})], ("me/student", "finetune")),
        ([("distill", {"student": "efficientbert-tiny", "teacher": "me/teacher"})], ("me/teacher", None)),
        ([("distill", {"student": "./sizes.json", "teacher": "me/teacher"})], ("me/teacher", None)),
        ([("distill", {"teacher": "me/teacher"}), ("finetune", {"model": "./student"})], ("me/teacher", None)),
        ([("multitask", {"model": "me/student"}), ("finetune", {"model": "./x"})], ("me/student", "finetune")),
        ([("distill", {"teacher": "./teacher"})], (None, None)),
        ([("convert", {"tokenizer": "bert-base-uncased"})], (None, None)),
    ],
)
def test_the_base_model_is_what_training_began_with(folder, steps, expected):
    write_provenance(folder, [{"step": step, "arguments": arguments} for step, arguments in steps])
    write_card(folder)
    metadata, _ = card(folder)
    assert (metadata.get("base_model"), metadata.get("base_model_relation")) == expected


def test_the_text_tells_architecture_and_every_step(folder):
    write_provenance(folder, STEPS)
    write_card(folder)
    _, text = card(folder)
    assert text.lstrip().startswith("# small-student\n")
    assert (
        "| 1 | 2 heads of size 4 | `tanh(linear2(gelu(linear1(x))))` | 3 | 5 |\n"
        "| 2 | 2 heads of size 4 | `linear2(relu(mul(linear1(x), x)))` | 1 | 8 |" in text
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


def test_the_text_tells_the_attention_of_every_layer(folder):
    tiny_config(attention_heads=[0, 3], head_dims=[0, 5]).save_pretrained(folder)
    write_card(folder)
    _, text = card(folder)
    assert "| layer | attention | feed-forward expression | stack | intermediate size |" in text
    assert "| 1 | none | `tanh" in text and "| 2 | 3 heads of size 5 | `linear2" in text


def test_the_tokenizer_is_loaded_where_there_is_one(folder):
    (folder / "tokenizer_config.json").write_text("{}")
    write_card(folder)
    assert card(folder)[1].count('tokenizer = AutoTokenizer.from_pretrained("small-student")\n') == 2


def test_nothing_is_said_that_is_not_known(folder):
    write_card(folder)
    metadata, text = card(folder)
    assert metadata == {"library_name": "transformers", "pipeline_tag": "fill-mask", "tags": ["efficientbert"]}
    for word in ("Teacher", "Corpus", "How it was made", "Results", "None", "license", "licence"):
        assert word not in text


def test_a_local_teacher_is_no_base_model(folder, tmp_path, monkeypatch):
    write_provenance(folder, [{"step": "distill", "arguments": {"teacher": "./gte-small"}}])
    write_card(folder)
    metadata, text = card(folder)
    assert "base_model" not in metadata and "knowledge-distillation" in metadata["tags"]
    assert "* Teacher: gte-small (local)\n" in text


def test_a_card_does_not_depend_on_where_it_is_made(folder, tmp_path, monkeypatch):
    """A record says what was a path; a folder of the same name beside it later says nothing."""
    write_provenance(folder, [{**STEPS[1], "datasets": ["glue"]}])
    expected = make_card(folder, "me/student")
    for name in ("thenlper/gte-small", "glue", "linear2(gelu(linear1(x)))"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").touch()
    monkeypatch.chdir(tmp_path)
    assert make_card(folder, "me/student") == expected
    assert expected.count('from_pretrained("me/student"') == 2 and "\n# student\n" in expected


@pytest.mark.parametrize("name", HEADS)
def test_every_class_names_its_auto_class_and_pipeline(tmp_path, name):
    tiny_config(architectures=[name]).save_pretrained(tmp_path)
    write_card(tmp_path)
    metadata, text = card(tmp_path)
    auto_class, pipeline_tag = HEADS[name]
    assert "AutoTokenizer" not in text
    assert metadata.get("pipeline_tag") == pipeline_tag
    assert text.count(f"from transformers import {auto_class}\n") == 2
    whole = sum(p.numel() for p in getattr(efficientbert, name)(tiny_config()).parameters())
    assert count_parameters(tiny_config(), name) == whole


LOADED = "loaded"  # printed between the two


@pytest.mark.parametrize(
    ("name", "changes", "task", "printed"),
    [
        ("EfficientBertModel", {}, {}, r"torch.Size\(\[2, \d+, 8\]\)"),
        ("EfficientBertForMaskedLM", {}, {}, r"\[('\S+'(, )?){3}\]"),
        ("EfficientBertForSequenceClassification", {}, {}, r"LABEL_0 0\.\d+\nLABEL_1 0\.\d+"),
        ("EfficientBertForSequenceClassification", {}, {"task": "rte"}, r"LABEL_0 0\.\d+\nLABEL_1 0\.\d+"),
        ("EfficientBertForSequenceClassification", {"problem_type": "regression", "num_labels": 1}, {}, r"-?\d\S+"),
        (
            "EfficientBertForSequenceClassification",
            {"problem_type": "multi_label_classification", "id2label": {0: "a", 1: "b", 2: "c"}},
            {"text_pair_column": "other"},
            r"a 0\.\d+\nb 0\.\d+\nc 0\.\d+",
        ),
        ("EfficientBertForTokenClassification", {"id2label": {0: "X", 1: "Y"}}, {}, r"\[CLS\] [XY]\n(\S+ [XY]\n?){5}"),
        ("EfficientBertForQuestionAnswering", {}, {}, r"(Ada|left|in|the|morning|\.| )+"),
        ("EfficientBertForMultipleChoice", {}, {}, r"down\.|blue\."),
    ],
)
def test_the_code_of_a_card_predicts(name, changes, task, printed, teacher_folder, tmp_path, monkeypatch, capsys):
    config = tiny_config(architectures=[name], pad_token_id=0, **changes)
    config.vocab_size = 65
    getattr(efficientbert, name)(config).save_pretrained(tmp_path / "made")
    AutoTokenizer.from_pretrained(teacher_folder()).save_pretrained(tmp_path / "made")
    write_provenance(tmp_path / "made", [{"step": "finetune", "task_arguments": task}])
    write_card(tmp_path / "made")
    loading, _, predicting = re.findall(r"```python\n(.+?)```", card(tmp_path / "made")[1], re.DOTALL)
    assert ("A second text." in predicting) == bool(task)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "predicting.py").write_text(f"{loading}\nprint('{LOADED}')\n{predicting}", encoding="utf-8")
    runpy.run_path("predicting.py", run_name="__main__")
    assert re.fullmatch(printed, capsys.readouterr().out.partition(LOADED)[2].strip())


def test_the_name_of_a_folder_in_work_is_that_of_the_finished_one(folder):
    work = folder.rename(folder.with_name("small-student.partial"))
    write_card(work)
    assert "# small-student\n" in card(work)[1] and ".partial" not in card(work)[1]


def test_a_folder_without_our_configuration_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"has no config\.json$") as error:
        write_card(tmp_path)
    assert "\n" not in str(error.value) and not (tmp_path / "README.md").exists()


def test_provenance_goes_round(tmp_path):
    assert read_provenance(tmp_path) == []
    write_provenance(tmp_path, STEPS)
    assert read_provenance(tmp_path) == STEPS
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("content", ["{", '{"step": "distill"}', '["distill"]', '[{"arguments": {}}]', "\xff"])
def test_broken_provenance_is_one_line(tmp_path, content):
    (tmp_path / "provenance.json").write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=r"provenance.json': ") as error:
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
        ("../author/..", "./{above}"),
        ("file:///home/author/x.txt", "./x.txt"),
        ("C:\\models\\student", "./student"),
        ("author/gone.csv", "./gone.csv"),
        ("author/data", "./data"),  # is there
        ("author/nothing", "author/nothing"),
        ("word", "./word"),  # is there
        ("bert-base-uncased", "bert-base-uncased"),
        ("hf://datasets/user/data", "hf://datasets/user/data"),
        ("", ""),
    ],
)
def test_a_path_is_cut_down(tmp_path, monkeypatch, value, expected):
    (tmp_path / "here" / "author" / "data").mkdir(parents=True)
    (tmp_path / "here" / "word").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert without_path(value) == expected.format(above=tmp_path.name)


ARGUMENTS = [
    *(AugmentArguments, BenchmarkArguments, ConvertArguments, DistillArguments, EmbedArguments, EvaluateArguments),
    *(FinetuneArguments, LabelledData, MultitaskArguments, PushArguments, SearchArguments),
]
PATHS = {  # what a user names files, folders or things on the Hub with
    *("augmented_data", "checkpoint", "corpus", "data", "folder", "initialization", "model", "models", "output_dir"),
    *("output_file", "output_json", "student", "submission_dir", "task_data", "task_teachers", "tasks", "teacher"),
    *("teachers", "tokenizer"),
}


@pytest.mark.parametrize("arguments", ARGUMENTS)
@pytest.mark.parametrize("word", ["rte", "author/rte"])
def test_only_paths_are_cut_down(tmp_path, monkeypatch, arguments, word):
    """With a model folder of that very name in the working directory, every argument is that word."""
    (tmp_path / word).mkdir(parents=True)
    (tmp_path / word / "config.json").touch()
    monkeypatch.chdir(tmp_path)
    kinds = field_kinds(arguments)
    values = {
        name: [word, "me/other"] if several else word for name, (kind, several, _) in kinds.items() if kind is str
    }
    others = {name: 1 for name, (kind, _, _) in kinds.items() if kind is not str and required(arguments, name)}
    record = recorded(arguments(**values, **others))
    no_paths = {"tasks"} if word == "rte" else set()
    no_paths |= {"initialization"} if arguments is EmbedArguments else set()  # teacher or random, nothing else
    for name, value in values.items():
        if name in ("output_dir", "storage"):
            assert name not in record
        elif name in PATHS - no_paths:
            assert record[name] == (["./rte", "me/other"] if isinstance(value, list) else "./rte")
        else:
            assert record[name] == value


def required(arguments, name):
    (field,) = (field for field in dataclasses.fields(arguments) if field.name == name)
    return field.default is field.default_factory is dataclasses.MISSING


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        (DistillArguments, {"student": "efficientbert-tiny", "initialization": "random"}),
        (EmbedArguments, {"student": "efficientbert-tiny", "initialization": "random"}),
        (SearchArguments, {"student": "efficientbert-plus", "tasks": ["mrpc", "rte"]}),
    ],
)
def test_words_that_mean_something_are_no_paths(tmp_path, monkeypatch, arguments, values):
    monkeypatch.chdir(tmp_path)
    words = [word for value in values.values() for word in ([value] if isinstance(value, str) else value)]
    for word in words:
        (tmp_path / word).mkdir()
    given = {"teacher": "me/teacher", "corpus": "me/corpus"} | values
    assert recorded(arguments(output_dir="out", **given)) == given


def test_defaults_are_not_recorded():
    """Also those that a factory makes; a list of the default's values is the default."""
    given = {"teacher": "me/teacher", "corpus": "me/corpus"}
    assert recorded(DistillArguments(output_dir="out", **given)) == given
    args = DistillArguments(output_dir="out", layer_map=["uniform"], losses=["logits"], seed=1, **given)
    assert recorded(args) == given | {"losses": ["logits"], "seed": 1}


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
    write_provenance(folder, [{"step": "distill", "arguments": {"license": "mit"}}])
    write_card(folder)
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
    write_provenance(folder, [{"step": "distill", "arguments": {"license": "mit"}}])
    write_card(folder)
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
    write_card(folder)
    (tmp_path / "own.csv").touch()
    add_results(folder, [result(dataset=str(tmp_path / "own.csv"), config=None)])
    assert card(folder)[0]["model-index"][0]["results"][0]["dataset"]["type"] == "./own.csv"
    assert not (folder / ".eval_results").exists()
    assert str(tmp_path) not in (folder / "README.md").read_text()


def test_a_dataset_without_configurations(folder):
    write_card(folder)
    add_results(folder, [result("f1", 80.0, config=None, dataset="rajpurkar/squad", split=None)])
    (entry,) = entries(folder, "squad")
    assert (entry.dataset_id, entry.task_id, entry.notes) == ("rajpurkar/squad", "default", "f1")


def test_a_configuration_name_cannot_leave_the_folder(folder):
    write_card(folder)
    add_results(folder, [result(config="../../x y")])
    assert [file.name for file in (folder / ".eval_results").iterdir()] == ["------x-y.yaml"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("README.md", None, "has no model card README.md"),
        ("README.md", "---\n- a list\n---\n", "README.md': cannot be read: "),
        ("README.md", "---\na: [\n---\n", "README.md': cannot be read: "),
        (".eval_results/rte.yaml", "a: 1\n", "rte.yaml': must be a list of entries"),
        (".eval_results/rte.yaml", "[", "rte.yaml': cannot be read: "),
    ],
)
def test_unreadable_files_are_one_line_and_stay(folder, name, content, message):
    write_card(folder)
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
    write_card(folder)
    assert "| labels | yes \\| no maybe |\n| best | [1, 2] |" in card(folder)[1]
