"""The documents: every code block runs to its end, and what they name is there.

Commands and blocks run as they are written, in order, in a folder that holds tiny models and data under the names that
they use. Only what makes them long is replaced: numbers of steps, sizes, ranges of data.
"""

import json
import re
import runpy
import shlex
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path

import pandas
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, BertForSequenceClassification

from efficientbert import EfficientBertConfig, EfficientBertForSequenceClassification, EfficientBertModel
from efficientbert.__main__ import SCRIPTS, main
from efficientbert.commands import job_of
from efficientbert.search.costs.arguments import PUBLISHED
from efficientbert.train.cli.arguments import field_kinds, parse_arguments
from efficientbert.train.distillation.arguments import PRESETS
from efficientbert.train.tasks.arguments import (
    GLUE_COLUMNS,
    GLUE_LABELS,
)


ROOT = Path(__file__).parents[1]
DOCUMENTS = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
# The flags that make a command quick; they stand behind those of the document and win.
TEXT = "--max_length 24 --held_out 8 --init_sequences 16 --batch_size 4 --mixed_precision no --corpus_split train"
TASK = "--num_epochs 1 --batch_size 16 --mixed_precision no"
SPACE = (
    "--student tiny.json --budgets parameters=:1e6 --depths 1 2 --hidden_sizes 18 --embedding_sizes 8 --head_dims 6"
)
STEPS = "--num_candidates 2 --initial 1 --warmup_steps 2 --general_steps 2 --sampled_steps 2"
SCORED = "--task_split train --task_held_out 0.5 --task_epochs 1 --task_batch_size 4"
QUICK = {
    "compress": "--max_length 24 --num_epochs 1 --hours 0.02",
    "distill": f"{TEXT} --max_steps 2",
    "embed": f"{TEXT} --max_steps 2",
    "search": f"{TEXT} {SPACE} --base_width 18 {STEPS}",
    "augment": "--copies 2 --candidates 3 --max_length 24",
    "finetune": f"{TASK} --max_length 24 --max_query_length 6 --doc_stride 5",
    "multitask": TASK,
    "evaluate": "--bootstrap 20",
    "export": "--dtypes int8",
    "trim": "--vocab_size 50",
    "benchmark": "--models my-student --rounds 1 --sequence_length 8 --batch_sizes 1 --threads 1",
}
QUICK_PYTHON = {
    'student="efficientbert-tiny"': 'student="tiny.json", max_length=24, held_out=8, init_sequences=16, batch_size=4',
    "max_steps=2000": "max_steps=2",
    'text_column="text"': 'text_column="text", max_length=24, num_epochs=1.0',
    "num_train_epochs=3": "num_train_epochs=1",
}
NOT_RUN = {"fastembed", "node"}  # programs of an environment of their own, with the blocks that are for them
WORDS = [f"word{index}" for index in range(60)]  # what the tokenizer of the teachers knows


def blocks(document: str, language: str | None = None) -> list[tuple[str, str]]:
    """The code blocks of a document in order: language and text."""
    text = (ROOT / document).read_text(encoding="utf-8")
    found = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    elsewhere = re.findall(r"^```\w+ (.+)$", text, re.MULTILINE)  # blocks of other programs
    assert set(elsewhere) <= NOT_RUN, f"{document}: {elsewhere}"
    return [block for block in found if language in (None, block[0])]


def command_lines(code: str) -> list[list[str]]:
    """The words of every line of shell code."""
    lines = code.replace("\\\n", " ").splitlines()
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


def text(index: int, first: int | None = None) -> str:
    """Some words; the first one says which class it is of, where there is one."""
    return " ".join(
        WORDS[(7 * index + 3 * place) % 58 + 2] if place or first is None else WORDS[first] for place in range(6)
    )


def glue_rows(task: str, split: str) -> list[dict]:
    """Rows of a GLUE task; those of its test split are unlabelled."""
    columns = [column for column in GLUE_COLUMNS[task] if column]
    rows = []
    for index in range(16):
        label = index / 4 if task == "stsb" else index % len(GLUE_LABELS[task])
        row = {column: text(index + place, index % 2) for place, column in enumerate(columns)}
        rows.append(row | {"label": -1 if split == "test" else label, "idx": index})
    return rows


def write_rows(path: Path, rows: list[dict]) -> None:
    """Writes a CSV, a JSON or a Parquet file, as the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = pandas.DataFrame(rows)
    if path.suffix == ".csv":
        data.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        data.to_parquet(path)
    else:
        data.to_json(path, orient="records", lines=True)


def release_checkpoint(hidden: int, layers: int, labels: int) -> dict[str, torch.Tensor]:
    """Random weights in the layout of the original release."""
    sizes = {"embeddings.token_embeddings": (40, 6), "embeddings.segment_embeddings": (2, hidden)}
    sizes |= {"embeddings.position_embeddings": (20, hidden)}
    linears = {"embeddings.dense": (hidden, 18), "cls_pooler.dense": (hidden, hidden), "classifier": (labels, hidden)}
    norms = ["embeddings.layernorm"]
    for layer in range(layers):
        attention, ffns = f"encoder.{layer}.attention", [f"encoder.{layer}.all_ffn.{number}" for number in range(4)]
        linears |= {f"{attention}.{part}": (hidden, hidden) for part in ("query", "key", "value", "dense")}
        linears |= {f"{ffn}.{part}": (hidden, hidden) for ffn in ffns for part in ("dense1", "dense2")}
        norms += [f"{name}.layernorm" for name in (attention, *ffns)]
    weights = {f"{name}.weight": torch.randn(size) for name, size in (sizes | linears).items()}
    weights |= {f"{name}.bias": torch.randn(rows) for name, (rows, _) in linears.items()}
    return weights | {f"{name}.{part}": torch.ones(hidden) for name in norms for part in ("weight", "bias")}


@pytest.fixture(scope="module")
def stand_ins(teacher_folder, corpus_file, student_file, tmp_path_factory) -> Path:
    """A folder with everything that the documents take as there, tiny."""
    folder = tmp_path_factory.mktemp("stand-ins")
    for name in (
        *("sentence-transformers/all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L12-v2"),
        *("thenlper/gte-small", "gte-small", "my-teacher"),
    ):
        shutil.copytree(teacher_folder(), folder / name)
    tokenizer = AutoTokenizer.from_pretrained(teacher_folder())
    sizes = {"vocab_size": 65, "hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 3}
    sizes |= {"intermediate_size": 40, "max_position_embeddings": 128}
    torch.manual_seed(0)
    models = {
        "google-bert/bert-base-uncased": BertForMaskedLM(BertConfig(**sizes)),
        "my-student": EfficientBertModel(
            EfficientBertConfig(**json.loads(Path(student_file).read_text()), vocab_size=65)
        ),
    }
    for task, name in (
        ("mrpc", "teacher-mrpc"),
        ("stsb", "teacher-stsb"),
        ("sst2", "my-gte-sst2"),
        ("sst2", "gte-sst2"),
    ):
        labels = dict(enumerate(GLUE_LABELS.get(task, ("LABEL_0",))))
        config = BertConfig(**sizes, id2label=labels, label2id={label: index for index, label in labels.items()})
        models[name] = BertForSequenceClassification(config)
    models["my-classifier"] = BertForSequenceClassification(BertConfig(**sizes, num_labels=2))
    small = EfficientBertConfig(**json.loads(Path(student_file).read_text()), vocab_size=65)
    small.id2label, small.label2id = {0: "bad", 1: "good"}, {"bad": 0, "good": 1}
    models["my-small-classifier"] = EfficientBertForSequenceClassification(small)
    for name, model in models.items():
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    modules = [Transformer(str(folder / "my-student")), Pooling(small.hidden_size, "mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "my-embedder"))
    torch.save(release_checkpoint(24, 2, 2), folder / "sst2.bin")
    shutil.copy(student_file, folder / "tiny.json")
    shutil.copy(corpus_file, folder / "corpus.txt")
    (folder / "wikipedia").mkdir()
    shutil.copy(corpus_file, folder / "wikipedia" / "train.txt")
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    (folder / "benchmarks").mkdir()
    (folder / "checkpoints").symlink_to(ROOT / "checkpoints")

    configs = ["---", "configs:"]
    for task in ("rte", "mrpc", "stsb", "sst2"):
        configs += [f"- config_name: {task}", "  data_files:"]
        for split in ("train", "validation", "test"):
            write_rows(folder / "nyu-mll" / "glue" / task / f"{split}.jsonl", glue_rows(task, split))
            configs += [f"  - split: {split}", f"    path: {task}/{split}.jsonl"]
    (folder / "nyu-mll" / "glue" / "README.md").write_text("\n".join([*configs, "---", ""]), encoding="utf-8")

    numbers = range(40)
    classes = ("good", "bad")
    reviews = [{"review": text(index, index % 2), "verdict": classes[index % 2]} for index in numbers]
    for name in ("reviews.csv", "reviews/a.csv", "reviews/b.csv"):
        write_rows(folder / name, reviews)
    for split in ("train", "validation"):
        write_rows(
            folder / f"{split}.csv", [{"text": text(index, index % 2), "label": index % 2} for index in numbers]
        )
        pairs = [
            {"question": text(index), "answer": text(index + 1), "label": classes[index % 2]} for index in numbers
        ]
        write_rows(folder / "pairs" / f"{split}.csv", pairs)
    write_rows(folder / "scores.jsonl", [{"text": text(index), "score": index / 4} for index in numbers])
    topics = [["sports"], ["politics"], ["sports", "politics"], []]
    write_rows(folder / "topics.jsonl", [{"text": text(index), "topics": topics[index % 4]} for index in numbers])
    tags = ["B-PER", "I-PER", "O", "O", "B-LOC", "O"]
    write_rows(folder / "entities.jsonl", [{"tokens": text(index).split(), "tags": tags} for index in numbers])
    questions = [
        {
            "question": text(index),
            "context": text(index + 1),
            "answers": {"text": [text(index + 1)[:5]], "answer_start": [0]},
        }
        for index in numbers
    ]
    write_rows(folder / "questions.parquet", questions)
    choices = [
        {"start": text(index), "first": text(index + 1), "second": text(index + 2), "label": index % 2}
        for index in numbers
    ]
    write_rows(folder / "choices.jsonl", choices)
    for name, columns in (("reviews", ("review", "verdict")), ("topics", ("text", "topics"))):
        suffix = {"reviews": "csv", "topics": "jsonl"}[name]
        recipe = f"data: {name}.{suffix}\ntext_column: {columns[0]}\nlabel_column: {columns[1]}\nmax_length: 24\n"
        (folder / f"{name}.yaml").write_text(recipe, encoding="utf-8")
    return folder


def quickened(words: list[str]) -> list[str]:
    """A command of a document with the flags that make it quick."""
    command, *given = words[1:]
    quick = shlex.split(QUICK.get(command, ""))
    if command in ("distill", "embed") and arguments_of(words).student in PRESETS:
        quick += ["--student", "tiny.json"]
    if command == "search" and arguments_of(words).tasks:
        quick += shlex.split(SCORED)
    if command == "benchmark":  # every model takes a process of its own
        models = arguments_of(words).models
        assert all(model in (*PRESETS, *PUBLISHED) or Path(model).is_dir() for model in models)
    return [command, *given, *quick]


def arguments_of(words: list[str]):
    """The arguments of `efficientbert COMMAND ...`."""
    return parse_arguments(job_of(words[1])[1], words[2:], words[1])


def run_command_line(words: list[str], given: set[str], hub, monkeypatch) -> None:
    """Runs a command in this process, and looks for what it is to write."""
    arguments = arguments_of(words)
    written = [
        getattr(arguments, name, None) for name in ("output_dir", "output_file", "output_json", "submission_dir")
    ]
    for path in filter(None, written):
        if path.split("/")[0] in given and Path(path).is_dir():  # a stand-in of what the document makes itself
            given.discard(path)
            shutil.rmtree(path)
    monkeypatch.setattr(sys, "argv", ["efficientbert", *quickened(words)])
    with hub.reachable() if words[1] == "push" else nullcontext():
        main()
    for path in filter(None, written):
        assert Path(path).exists(), f"{shlex.join(words)} did not write {path}"


def check_shell(words: list[str]) -> None:
    """Lines of the shell that are not run: what they name is there."""
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in words[1:])
    else:
        assert words[:3] == ["pip", "install", "-e"], f"neither run nor checked: {shlex.join(words)}"
        (what,) = words[3:]
        extra = re.fullmatch(r"\.(?:\[(\w+)\])?", what)[1]
        assert extra is None or f'"{extra}": [' in (ROOT / "setup.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("document", [document for document in DOCUMENTS if blocks(document)])
def test_every_block_runs(document, stand_ins, hub, no_clock, tmp_path, monkeypatch):
    folder = tmp_path / "work"
    shutil.copytree(stand_ins, folder)
    given = {path.name for path in folder.iterdir()}
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")  # so that no block changes it
    for language, code in blocks(document):
        if language == "bash":
            for words in command_lines(code):
                if words[0] == "efficientbert":
                    run_command_line(words, given, hub, monkeypatch)
                else:
                    check_shell(words)
        else:
            assert language == "python"
            for long, quick in QUICK_PYTHON.items():
                code = code.replace(long, quick)
            Path("block.py").write_text(code, encoding="utf-8")
            runpy.run_path("block.py", run_name="__main__")
    if "efficientbert push" in (ROOT / document).read_text(encoding="utf-8"):
        assert hub.files["main"].keys() >= {"README.md", "config.json", "model.safetensors"}


def test_the_first_block_runs_in_a_process_of_its_own(stand_ins, fresh):
    """What it imports is all that it needs."""
    code, _, stderr = fresh(f"os.chdir({str(stand_ins)!r})\n" + blocks("README.md", "python")[0][1])
    assert code == 0, stderr


def spans(document: str) -> list[str]:
    """The code within the lines of a document."""
    text = re.sub(r"^```.*?^```$", "", (ROOT / document).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`\n]+)`", text)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_a_document_names_is_there(document):
    flags = {name for command in SCRIPTS for name in field_kinds(job_of(command)[1])} | {"help"}
    for span in spans(document):
        if not span.startswith(("torchrun", "accelerate", "pip")):
            assert set(re.findall(r"--(\w+)", span)) <= flags, span
        assert set(re.findall(r"^efficientbert (\w+)", span)) <= {*SCRIPTS, "COMMAND"}, span
        for path in re.findall(
            r"(?<![\w-])(?:train|search|docs|recipes|benchmarks|examples|tests)/[\w./-]*\w/?", span
        ):
            assert (ROOT / path).exists(), span


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)]+)\)", (ROOT / document).read_text(encoding="utf-8")):
        if not target.startswith("https://"):
            path, _, anchor = target.partition("#")
            file = (ROOT / document).parent / path if path else ROOT / document
            assert file.exists(), target
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
            slugs = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert not anchor or anchor in slugs, target


def test_the_commands_in_recipes(monkeypatch):
    monkeypatch.chdir(ROOT)
    recipes = sorted(Path("recipes").glob("*.yaml"))
    for recipe in recipes:
        comments = "".join(re.findall(r"^# ?(.*\n)", recipe.read_text(encoding="utf-8"), re.MULTILINE))
        (command,) = re.findall(r"efficientbert \w+ .*", comments)
        words = shlex.split(command)
        assert words[2] == str(recipe)
        arguments_of(words)
    assert recipes


def test_the_figures_of_tasks_are_those_that_were_measured():
    measured = json.loads((ROOT / "benchmarks" / "tasks.json").read_text(encoding="utf-8"))["rows"]
    known = {(row["model"], row["task"], row["metric"]): row["value"] for row in measured}
    columns = [
        ("mrpc", "f1"),
        ("stsb", "spearmanr"),
        ("rte", "accuracy"),
        ("sst2", "accuracy"),
        ("XQuAD English", "f1"),
    ]
    models = {
        "gte-small, the teacher": "gte-small (teacher)",
        "tiny, under the teacher": "tiny, under gte-small",
        "tiny, inner states, then outputs": "tiny, inner states then outputs",
        "tiny, outputs alone": "tiny, outputs alone",
        "tiny, labels alone": "tiny, labels alone",
    }
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("| model | parameters | MRPC F1 ")[2]
    for row in table.split("\n\n")[0].splitlines()[2:]:
        model, _, *figures = [cell.strip() for cell in row.strip("|").split("|")]
        for column, figure in zip(columns, figures, strict=True):
            assert not figure or float(figure) == known[(models[model], *column)]
