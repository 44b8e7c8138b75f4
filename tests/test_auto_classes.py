"""Saved folders under the Auto classes: with the package installed, and on a machine that does not have it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import BertTokenizer

import efficientbert
from efficientbert.configuration_efficientbert import AUTO_MAP
from efficientbert.train.model_folder.upload_check import CODE_FILES


AUTO = {
    "AutoModel": "EfficientBertModel",
    "AutoModelForMaskedLM": "EfficientBertForMaskedLM",
    "AutoModelForSequenceClassification": "EfficientBertForSequenceClassification",
    "AutoModelForTokenClassification": "EfficientBertForTokenClassification",
    "AutoModelForQuestionAnswering": "EfficientBertForQuestionAnswering",
    "AutoModelForMultipleChoice": "EfficientBertForMultipleChoice",
}
CODE = set(CODE_FILES)
WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] a bad film good in is paris the was .".split()
IDS = torch.tensor([[2, 8, 7, 3], [2, 6, 3, 0]])

# What a fresh process finds: for every folder and Auto class, what was missing or did not fit, and what the model
# computes. Without the package `import efficientbert` fails there, and all code comes from the folder.
PROCESS = """
import json

task = json.loads(sys.argv[1])

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "efficientbert":
            raise ModuleNotFoundError(name)

if task["installed"]:
    import efficientbert
    trust = {}
else:
    sys.meta_path.insert(0, Absent())
    trust = {"trust_remote_code": True}
import torch, transformers

report, ids = {}, torch.tensor(task["ids"])
for folder, again in task["folders"].items():
    config = transformers.AutoConfig.from_pretrained(folder, **trust)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **trust)
    plain = transformers.AutoTokenizer.from_pretrained(folder)
    report[folder] = {
        "tokens": [tokenizer("a good film").input_ids, plain("a good film").input_ids],
        "config": type(config).__module__,
        "auto": {},
    }
    for auto in task["autos"]:
        inputs = ids if auto != "AutoModelForMultipleChoice" else ids[:, None]
        load = getattr(transformers, auto).from_pretrained
        model, info = load(folder, output_loading_info=True, **trust)
        own = type(model).__name__ == config.architectures[0]
        with torch.no_grad():
            outputs = model(inputs, output_hidden_states=True)
        found = report[folder]["auto"][auto] = {
            "class": [type(model).__module__, type(model).__name__],
            "missing": sorted(info["missing_keys"]),
            "mismatched": len(info["mismatched_keys"]),
            "labels": model.config.num_labels,
            "first": outputs[0].tolist(),
            "hidden": outputs.hidden_states[-1].tolist(),
        }
        if folder.endswith("-2") and not (own and auto.endswith(("SequenceClassification", "TokenClassification"))):
            found["five"] = list(load(folder, num_labels=5, **trust)(inputs)[0].shape)
        made = getattr(transformers, auto).from_config(config, **trust)
        assert type(made).__name__ == type(model).__name__
        if own and again:
            model.save_pretrained(again)
            tokenizer.save_pretrained(again)
assert ("efficientbert" in sys.modules) == task["installed"]
json.dump(report, open(task["report"], "w"))
"""


def run_process(fresh: Callable, folders: dict[str, str], work: Path, installed: bool) -> dict:
    """Runs PROCESS over `folders`, each mapped to where its model is saved again (or to nothing)."""
    report = work / "report.json"
    task = {
        "folders": folders,
        "installed": installed,
        "report": str(report),
        "autos": list(AUTO),
        "ids": IDS.tolist(),
    }
    code, _, stderr = fresh(PROCESS, json.dumps(task), HF_MODULES_CACHE=str(work / "modules"))
    assert code == 0, stderr[-3000:]
    return json.loads(report.read_text())


def name_of(class_name: str, num_labels: int) -> str:
    return f"{class_name}-{num_labels}"


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """Every class with two and with five labels, saved with a tokenizer, one folder each."""
    root = tmp_path_factory.mktemp("saved")
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)})
    torch.manual_seed(0)
    for class_name in AUTO.values():
        for num_labels in (2, 5):
            config = efficientbert.EfficientBertConfig(
                vocab_size=len(WORDS),
                embedding_size=8,
                hidden_size=24,
                num_attention_heads=4,
                num_hidden_layers=2,
                ffn_expressions=["linear2(mul(swish(linear1(x)), gate(x)))", "elu(linear2(gelu(linear1(x))))"],
                ffn_stacks=[2, 1],
                num_labels=num_labels,
            )
            folder = root / name_of(class_name, num_labels)
            getattr(efficientbert, class_name)(config).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    return root


@pytest.fixture(scope="module")
def found(saved, fresh, tmp_path_factory) -> dict[str, tuple[Path, dict]]:
    """By world, its folders and what a process there finds in them."""
    folders = sorted(saved.iterdir())
    elsewhere, third = tmp_path_factory.mktemp("elsewhere"), tmp_path_factory.mktemp("third")
    again = {str(folder): str(elsewhere / "again" / folder.name) for folder in folders}
    five = {str(elsewhere / "again" / folder.name): "" for folder in folders if folder.name.endswith("-5")}
    return {
        "installed": (
            saved,
            run_process(fresh, {str(folder): "" for folder in folders}, tmp_path_factory.mktemp("here"), True),
        ),
        "elsewhere": (saved, run_process(fresh, again, elsewhere, False)),
        "saved again": (elsewhere / "again", run_process(fresh, five, third, False)),
    }


FOLDERS = [(class_name, num_labels) for class_name in AUTO.values() for num_labels in (2, 5)]


def is_head(name: str) -> bool:
    return name.startswith(("lm_head.", "classifier.", "token_classifier.", "qa_outputs.", "choice_classifier."))


@pytest.mark.parametrize(("class_name", "num_labels"), FOLDERS)
def test_a_saved_folder_is_complete(class_name, num_labels, saved):
    folder = saved / name_of(class_name, num_labels)
    assert {path.name for path in folder.glob("*.py")} == CODE
    stored = json.loads((folder / "config.json").read_text())
    assert stored["auto_map"] == AUTO_MAP
    assert stored["architectures"] == [class_name]
    assert {"AutoConfig", *AUTO} == set(AUTO_MAP)


@pytest.mark.parametrize(
    ("class_name", "num_labels", "world"),
    [
        (class_name, num_labels, world)
        for class_name, num_labels in FOLDERS
        for world in ("installed", "elsewhere", "saved again")
        if (num_labels, world) != (2, "saved again")
    ],
)
def test_any_folder_loads_under_any_class(class_name, num_labels, world, saved, found):
    root, reports = found[world]
    report = reports[str(root / name_of(class_name, num_labels))]
    code = "efficientbert." if world == "installed" else "transformers_modules."
    assert report["tokens"] == [[2, 5, 8, 7, 3]] * 2
    assert report["config"].startswith(code)
    for auto, loaded in report["auto"].items():
        module, name = loaded["class"]
        assert name == AUTO[auto]
        assert module.startswith(code)
        assert loaded["labels"] == num_labels
        assert loaded["mismatched"] == 0
        assert all(is_head(key) for key in loaded["missing"])
        assert bool(loaded["missing"]) == (name not in (class_name, "EfficientBertModel"))
        here = getattr(efficientbert, name).from_pretrained(saved / name_of(class_name, num_labels))
        with torch.no_grad():
            outputs = here(IDS[:, None] if auto == "AutoModelForMultipleChoice" else IDS, output_hidden_states=True)
        torch.testing.assert_close(torch.tensor(loaded["hidden"]), outputs.hidden_states[-1])
        if name == class_name:
            torch.testing.assert_close(torch.tensor(loaded["first"]), outputs[0])


@pytest.mark.parametrize("world", ["installed", "elsewhere"])
@pytest.mark.parametrize("class_name", AUTO.values())
def test_another_label_count_may_be_asked_for(class_name, world, found):
    root, reports = found[world]
    shapes = {
        "AutoModel": [2, 4, 24],
        "AutoModelForMaskedLM": [2, 4, 15],
        "AutoModelForSequenceClassification": [2, 5],
        "AutoModelForTokenClassification": [2, 4, 5],
        "AutoModelForQuestionAnswering": [2, 4],
        "AutoModelForMultipleChoice": [2, 1],
    }
    for auto, loaded in reports[str(root / name_of(class_name, 2))]["auto"].items():
        assert loaded.get("five", shapes[auto]) == shapes[auto]


@pytest.mark.parametrize(("class_name", "num_labels"), FOLDERS)
def test_a_folder_saved_again_without_the_package_is_complete(class_name, num_labels, saved, found):
    folder = found["saved again"][0] / name_of(class_name, num_labels)
    for name in CODE:
        assert (folder / name).read_text() == (Path(efficientbert.__file__).parent / name).read_text()
    stored, original = (
        json.loads((path / "config.json").read_text()) for path in (folder, saved / name_of(class_name, num_labels))
    )
    assert stored == original
