"""What is loaded when: commands answer before torch is, and the Auto classes know our models whatever comes first."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from efficientbert.__main__ import SCRIPTS
from efficientbert.train.cli.threads import available_cores, cpu_quota, settle_threads


HEAVY = ("torch", "transformers", "datasets", "optuna", "sklearn", "scipy", "pyarrow", "matplotlib")
WATCH = f"""
import sys
class Watch:
    def find_spec(self, name, path, target=None):
        if name in {HEAVY}:
            print("loaded", name, file=sys.stderr)
sys.meta_path.insert(0, Watch())
from efficientbert.__main__ import main
main()
"""


def run(code: str, *words: str, **environment: str) -> subprocess.CompletedProcess:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, env=kept | environment)


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["distil"], *([name, "--help"] for name in SCRIPTS)])
def test_help_loads_nothing_heavy(words):
    done = run(WATCH, *words)
    assert "loaded" not in done.stderr and done.returncode == (2 if words == ["distil"] else 0), done.stderr


@pytest.mark.parametrize("name", SCRIPTS)
def test_mistakes_load_nothing_heavy(name):
    done = run(WATCH, name, "--sedd", "1")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith(f"efficientbert {name}: error: unknown argument 'sedd'")


TEXT = ("--teacher", "t/t", "--output_dir", "out", "--corpus")
TASK = ("--model", "m/m", "--output_dir", "out", "--data")
MISTAKES = {  # that take neither a model nor a library to see
    ("distill", *TEXT, "gone.txt"): "corpus 'gone.txt': does not exist",
    ("distill", *TEXT, "good.txt", "--text_column", "body"): "corpus 'good.txt': no column 'body'; it has 'text'",
    ("distill", *TEXT, "good.txt", "--student", "efficientbert-tinny"): "student 'efficientbert-tinny': no preset, "
    "config.json or checkpoint: there is no such file or folder; did you mean 'efficientbert-tiny'?",
    ("distill", *TEXT, "good.txt", "--initialization", "gone/"): "initialization 'gone/': neither teacher, random nor "
    "a checkpoint: there is no such file or folder",
    ("embed", *TEXT, "good.csv"): "corpus 'good.csv': no column 'text'; it has 'review', 'Unnamed: 1', 'label'",
    ("embed", *TEXT, "good.txt", "--student", "./gone"): "student './gone': no preset, config.json or checkpoint: "
    "there is no such file or folder",
    ("search", *TEXT, "good.txt", "--student", "tiny"): "student 'tiny': must be a preset (efficientbert-tiny, "
    "efficientbert, efficientbert-plus, efficientbert-plus-plus) or a .json file",
    ("search", *TEXT, "good.odt"): "corpus 'good.odt': unknown kind of file; known are .txt, .json, .jsonl, .parquet, "
    ".csv, .tsv",
    ("finetune", *TASK, "good.csv"): "text_column: must name the column of the text in data of your own",
    ("finetune", *TASK, "good.csv", "--text_column", "revue"): "data 'good.csv': no column 'revue'; it has 'review', "
    "'Unnamed: 1', 'label'; did you mean 'review'?",
    ("finetune", *TASK, "good.jsonl", "--text_column", "b"): "data 'good.jsonl': no column 'label'; it has 'a', 'b'",
    ("finetune", *TASK, "good.jsonl", "--text_column", "a", "--label_column", "a"): "data 'good.jsonl': column 'a' is "
    "named for two things; name different ones",
    ("finetune", *TASK, "good.csv", "--text_column", "review", "--teacher", "./gone"): "teacher './gone': cannot be "
    "loaded: there is no such file or folder",
    ("finetune", *TASK, "nested.json", "--kind", "question-answering"): "data 'nested.json': is in SQuAD's nested "
    "format; write one question a row, with the columns 'id', 'context', 'question' and 'answers', as in {'text': "
    "['Ada'], 'answer_start': [0]}",
    ("multitask", "--model", "m/m", "--output_dir", "out", "--tasks", "task.yaml"): "data 'good.csv': no column "
    "'text'; it has 'review', 'Unnamed: 1', 'label'",
    ("augment", "--data", "good.csv", "--text_column", "text", "--model", "m/m", "--output_file", "o.parquet"): "data "
    "'good.csv': no column 'text'; it has 'review', 'Unnamed: 1', 'label'",
    ("evaluate", "--model", "./gone"): "model './gone': cannot be loaded: there is no such file or folder",
    ("evaluate", "--model", "m/m", "--data", "good.csv", "--label_column", "lable"): "data 'good.csv': no column "
    "'lable'; it has 'review', 'Unnamed: 1', 'label'; did you mean 'label'?",
    ("finetune", *TASK, "gone.tsv", "--text_column", "text"): "data 'gone.tsv': does not exist",
    (
        "convert",
        "--checkpoint",
        "gone.bin",
        "--num_attention_heads",
        "2",
        "--output_dir",
        "out",
        "--ffn_expr",
        "linear1_1(gelu(linear1_1(x,wb1)),wb2)",
    ): "checkpoint 'gone.bin': cannot be read: No such file or directory",
    ("push", "--folder", "gone", "--repo_id", "a/b"): "folder 'gone': does not exist",
    ("benchmark", "--models", "bert-base", "./gone"): "model './gone': cannot be found (known names are "
    "efficientbert-tiny, efficientbert, efficientbert-plus, efficientbert-plus-plus, bert-base, tinybert-4, "
    "tinybert-6, minilm-l6-h384, minilm-l12-h384, xtremedistil-l6-h256, mobilebert-tiny, ettin-17m, .json files, "
    "folders and Hub ids): there is no such file or folder",
    ("benchmark", "--models", "bert-base", "--rounds", "0"): "--rounds 0: must be positive",
}


WITHOUT = f"""
import sys
sys.modules.update(dict.fromkeys({HEAVY}))  # importing one raises an error
from efficientbert.__main__ import main
for words in {[*MISTAKES]}:
    sys.argv = ["efficientbert", *words]
    try:
        main()
    except SystemExit as ended:
        print(ended.code)
"""


def test_mistakes_in_data_and_names_load_nothing_heavy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = {
        "good.txt": "a document\n",
        "good.csv": "\ufeff\nreview,,label\nfine,1,yes\n",
        "good.odt": "text",
        "good.jsonl": '\n{"a": "text"}\n{"a": null, "b": "text"}\n',
        "nested.json": '{\n"version": "1.1",\n"data": [{"paragraphs": []}]\n}',
        "task.yaml": "data: good.csv\ntext_column: text\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    done = run(WITHOUT)
    said = [f"efficientbert {words[0]}: error: {message}" for words, message in MISTAKES.items()]
    assert done.stderr.splitlines() == said and done.stdout.split() == ["2"] * len(MISTAKES)
    assert {path.name for path in tmp_path.iterdir()} == set(files)


POLICY = """
import os, sys
class Watch:
    def find_spec(self, name, path, target=None):
        if name == "torch":
            print(os.environ.get("OMP_WAIT_POLICY"), os.environ.get("OMP_NUM_THREADS"))
            os._exit(0)
sys.meta_path.insert(0, Watch())
from efficientbert.__main__ import main
main()
"""
DISTILL = ("distill", "--teacher", "none/none", "--corpus", "none/none", "--output_dir", "out")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, f"PASSIVE {available_cores()}"),
        ({"OMP_WAIT_POLICY": "ACTIVE", "OMP_NUM_THREADS": "7"}, "ACTIVE 7"),
    ],
)
def test_threads_are_settled_before_torch_is_loaded(given, expected):
    assert run(POLICY, *DISTILL, **given).stdout.split() == expected.split()


def test_importing_the_package_changes_no_environment_and_loads_nothing():
    code = (
        "import os, sys; before = dict(os.environ); import efficientbert; assert dict(os.environ) == before;"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    assert run(code).stdout.strip() == "[]"


@pytest.mark.parametrize(
    "imports",
    [
        "import efficientbert; from transformers import AutoConfig, AutoModel",
        "from transformers import AutoConfig, AutoModel; AutoModel; import efficientbert",
        "from transformers import AutoConfig; AutoConfig; import efficientbert; from transformers import AutoModel",
        "import efficientbert; from transformers import BertModel, AutoConfig, AutoModel; BertModel",
        "import efficientbert; from transformers import BertConfig, AutoConfig, AutoModel; BertConfig",
        "import efficientbert, transformers.modeling_layers; from transformers import AutoConfig, AutoModel",
        "import efficientbert, transformers.configuration_utils; from transformers import AutoConfig, AutoModel",
        "from efficientbert import EfficientBertModel; from transformers import AutoConfig, AutoModel",
        "from efficientbert import EfficientBertConfig; from transformers import AutoConfig, AutoModel",
    ],
)
def test_the_auto_classes_know_our_models(imports, fresh):
    program = (
        f"{imports}; config = AutoConfig.for_model('efficientbert', vocab_size=9, hidden_size=12, "
        "num_hidden_layers=1, num_attention_heads=2); print(type(AutoModel.from_config(config)).__module__)"
    )
    _, stdout, stderr = fresh(program)
    assert stdout.strip() == "efficientbert.modeling_efficientbert", stderr


def test_what_the_user_has_set_stays():
    environment = {"OMP_WAIT_POLICY": "ACTIVE"}
    settle_threads(environment)
    assert environment["OMP_WAIT_POLICY"] == "ACTIVE" and int(environment["OMP_NUM_THREADS"]) >= 1


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2.0),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_the_quota_of_a_control_group(files, cores, tmp_path: Path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n", encoding="ascii")
    assert cpu_quota(tmp_path) == cores


def test_threads_stay_within_quota_and_affinity(tmp_path, monkeypatch):
    monkeypatch.setattr("psutil.cpu_count", lambda logical: 16)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert available_cores(tmp_path) == 8
    (tmp_path / "cpu.max").write_text("250000 100000", encoding="ascii")
    assert available_cores(tmp_path) == 3
