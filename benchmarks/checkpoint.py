"""The checkpoint that ships: from a distilled student to a folder in `checkpoints/`, and its figures.

    python benchmarks/checkpoint.py choose --teacher TEACHER --work_dir WORK
    efficientbert distill recipes/checkpoint.yaml --teacher TEACHER --corpus CORPUS --output_dir STUDENT
    python benchmarks/checkpoint.py package --student STUDENT --teacher TEACHER --corpus CORPUS --work_dir WORK
    python benchmarks/checkpoint.py score --teacher TEACHER --glue GLUE --squad SQUAD --work_dir WORK

`choose` prints what the surrogate of `compress` would choose for the time of TinyBERT4's shape on this machine, which
must be quiet, within 9.4 million parameters. Choices vary with the noise of the times: recipes/checkpoint.json is one
of them. By `checkpoint-shapes.json` four gated layers like its were ahead of another one, of twelve thin layers, after
200 equal steps.

`package` gives the student the last linear of an embedder, which is its distillation projection, stores it in half
precision, and draws its int8 graph. `score` fine-tunes it on labels alone, beside other encoders, and scores
embeddings without labels; each result is a line of WORK/scores.jsonl, and an interrupted comparison goes on behind the
last one. Nothing is chosen by the validation splits that it reports.
"""

import json
import math
import shutil
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from equal_latency import SHAPES, scaled
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from stand_alone import read_rows

from efficientbert import commands
from efficientbert.search.compression.arguments import CompressArguments
from efficientbert.search.compression.plan import BYTES, Goal, find_architecture, make_space, time_whole
from efficientbert.search.costs.latency import LatencySettings
from efficientbert.search.known.features import TeacherSizes
from efficientbert.train.cli.command import run_command
from efficientbert.train.distillation.arguments import DistillArguments
from efficientbert.train.distillation.embeddings import load_embedder, pair_cosines
from efficientbert.train.distillation.projection import PROJECTION_FILE
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.files.data_files import check_source
from efficientbert.train.files.loading import load_data
from efficientbert.train.files.tables import table
from efficientbert.train.files.writing import write_json, write_text, writing
from efficientbert.train.metrics import compute_metric
from efficientbert.train.model_folder.card import add_section, write_card
from efficientbert.train.model_folder.record import read_provenance


ROOT = Path(__file__).parents[1]
CHECKPOINT = ROOT / "checkpoints" / "efficientbert-9m"
MOST_PARAMETERS = 9.4e6
GRAPH = "onnx/model_quantized.onnx"
TASKS = {"mrpc": "f1", "rte": "accuracy", "stsb": "spearmanr"}  # with the metric that is shown
ORIGIN = """The student of gte-small (MIT): {layers} gated layers, a choice of the surrogate of `efficientbert
compress` for the time of TinyBERT4's shape. It was started from the teacher's weights and distilled on {tokens:.1f}M
tokens of English Wikipedia (2015, CC BY-SA), last hidden states alone. It has seen no labels, and no text of any other
data set.

Weights are stored in half precision and load in float32. `{graph}` is the embedder in int8, {megabytes:.1f} MB, with a
cosine of {cosine:.4f} to it in float32 on {rows} sentences. It reads {inputs}.

Limits: English; texts of more than 64 tokens were not trained on; positions end at 512. It has learned what its
teacher says of encyclopedic prose, with the biases of both."""


@dataclass(kw_only=True)
class CheckpointArguments:
    """Packages and scores the checkpoint."""

    teacher: str = field(metadata={"help": "Hub id or folder of the teacher."})
    work_dir: str = field(metadata={"help": "Folder of what is made on the way."})
    student: str = field(default="", metadata={"help": "Folder that `efficientbert distill` has made."})
    corpus: str = field(default="", metadata={"help": "Corpus, as of `efficientbert distill`."})
    glue: str = field(default="", metadata={"help": "Hub id or folder of GLUE."})
    squad: str = field(default="", metadata={"help": "Folder with XQuAD's English rows as xquad_en."})
    others: list[str] = field(default_factory=list, metadata={"help": "Other encoders to fine-tune, as NAME=FOLDER."})
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2], metadata={"help": "One fine-tuning for each."})
    output_json: str = field(default="benchmarks/checkpoint.json", metadata={"help": "File for the figures."})


# Choosing


def choose(args: CheckpointArguments) -> None:
    """Prints what the surrogate would choose, with each seed of its search."""
    teacher, work = Teacher.load(args.teacher), Path(args.work_dir)
    work.mkdir(parents=True, exist_ok=True)
    asked = CompressArguments(teacher=args.teacher, corpus="none", output_dir="none", max_length=128)
    space = make_space(teacher, asked, 2, work)
    sizes = TeacherSizes(teacher.hidden_size, teacher.num_layers, teacher.num_heads)
    shape = next(one for one in json.loads(SHAPES.read_text(encoding="utf-8")) if one["name"] == "TinyBERT4")
    target = scaled(shape, shape["hidden_size"] // shape["heads"]).to_config(space.base)
    milliseconds = time_whole(target, LatencySettings(1, 128, threads=2), None)
    goal = Goal("model", milliseconds, BYTES * MOST_PARAMETERS / 1e6)
    for seed in args.seeds:
        found, quality, taken = find_architecture(space, goal, sizes, replace(asked, seed=seed))
        print(f"seed {seed}: {quality:.4f} expected, {taken:.1f} of {milliseconds:.1f} ms: {found.to_json()}")


# Packaging


def store_in_half(folder: Path) -> None:
    """Rewrites the weights of a model in half precision; its configuration makes them load in float32."""
    path = folder / "model.safetensors"
    tensors = {name: tensor.half() for name, tensor in load_file(path).items()}
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    with writing(path) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    write_json(folder / "config.json", config | {"dtype": "float32"})


def trained_tokens(folder: Path) -> int:
    """Tokens that a student was distilled on, in all its runs."""
    tokens = 0
    for step in read_provenance(folder):
        if step["step"] == "distill":  # what a record does not say was left at its default
            names = ("max_steps", "batch_size", "max_length")
            tokens += math.prod(step["arguments"].get(name, getattr(DistillArguments, name)) for name in names)
    return tokens


def package(args: CheckpointArguments) -> None:
    """Makes the folder that ships, in the place of an earlier one."""
    work, student = Path(args.work_dir), Path(args.student)
    made = commands.embed(
        teacher=args.teacher,
        corpus=args.corpus,
        corpus_split="train[:1%]",
        student=student,
        max_length=64,
        max_steps=0,
        license="mit",
        language=["en"],
        output_dir=work / "embedder",
    )
    exported = Path(commands.export(model=made.path, dtypes=["int8"], output_dir=work / "exported").path)
    folder = work / CHECKPOINT.name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(made.path, folder)
    store_in_half(folder)
    write_card(folder)
    for name in (GRAPH, "vocab.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(exported / name, folder / name)
    shutil.copyfile(student / PROJECTION_FILE, folder / PROJECTION_FILE)
    for name in ("run.json", "embedding_variance.json", "training_log.json"):
        (folder / name).unlink(missing_ok=True)
    comparison = json.loads((exported / "export.json").read_text(encoding="utf-8"))["int8"]["comparison"]
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    said = ORIGIN.format(
        layers=config["num_hidden_layers"],
        tokens=trained_tokens(folder) / 1e6,
        graph=GRAPH,
        megabytes=(folder / GRAPH).stat().st_size / 1e6,
        cosine=comparison["cosine"],
        rows=comparison["rows"],
        inputs="`input_ids`, `attention_mask` and `token_type_ids`",
    )
    add_section(folder, "What it is", said)
    card = ModelCard.load(folder / "README.md")
    card.data.base_model = "thenlper/gte-small"
    card.save(folder / "README.md")
    shutil.rmtree(CHECKPOINT, ignore_errors=True)
    shutil.copytree(folder, CHECKPOINT)
    curve = json.loads((student / "training_log.json").read_text(encoding="utf-8"))
    write_json(Path(args.output_json).with_name("checkpoint-curve.json"), curve)


# Scoring


def score_similarity(folder: str, args: CheckpointArguments) -> dict[str, float]:
    """Spearman's correlation on STS-B's validation split, without labels."""
    check_source(args.glue, "data")
    rows = load_data(args.glue, "stsb", "validation", "data", False)
    columns = ("sentence1", "sentence2", "label")
    cosines, numbers = pair_cosines(folder, rows, columns, args.glue, 64, "cpu")
    return {"spearmanr": compute_metric("stsb", cosines, numbers)["spearmanr"]}


def score_retrieval(folder: str, args: CheckpointArguments) -> dict[str, float]:
    """nDCG@10 of finding a question's paragraph among all of XQuAD's, none of them trained on.

    With one right paragraph a question it is 1 / log2(1 + rank) of that, and 0 behind the tenth.
    """
    rows = [
        row for split in ("train", "validation") for row in load_data(args.squad, "xquad_en", split, "data", False)
    ]
    paragraphs = list(dict.fromkeys(row["context"] for row in rows))
    embedder = load_embedder(folder, "cpu", "model")
    options = {"convert_to_tensor": True, "normalize_embeddings": True, "show_progress_bar": False}
    questions = embedder.encode([row["question"] for row in rows], **options)
    cosines = questions @ embedder.encode(paragraphs, **options).T
    right = torch.tensor([paragraphs.index(row["context"]) for row in rows])[:, None]
    ranks = 1 + (cosines > cosines.gather(1, right)).sum(1)
    gains = torch.where(ranks <= 10, 1 / torch.log2(1 + ranks), 0.0)
    return {"ndcg_at_10": gains.mean().item()}


def score_task(folder: str, name: str, task: str, seed: int, args: CheckpointArguments) -> dict[str, float]:
    """The figures of an encoder on a task's validation split, after a fine-tuning on labels alone; last weights."""
    made = commands.finetune(
        model=folder,
        task=task,
        data=args.glue,
        num_epochs=5,
        batch_size=32,
        learning_rate=2e-4,
        max_length=128,
        mixed_precision="bf16",
        seed=seed,
        output_dir=Path(args.work_dir) / "finetuned" / f"{name}-{task}-{seed}",
    )
    return made.figures["validation"]


def score(args: CheckpointArguments) -> None:
    """Adds the scores that are not there yet, and writes them and their table."""
    path = Path(args.work_dir) / "scores.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    models = {CHECKPOINT.name: str(CHECKPOINT)} | dict(other.split("=", 1) for other in args.others)
    jobs: list[tuple[dict[str, Any], Callable[[], dict[str, float]]]] = [
        ({"model": name, "task": task}, lambda one=one, folder=folder: one(folder, args))
        for task, one in (("similarity", score_similarity), ("retrieval", score_retrieval))
        for name, folder in ({"teacher": args.teacher} | models).items()
    ]
    for seed in args.seeds:
        for task in TASKS:
            for name, folder in models.items():
                asked = {"model": name, "task": task, "seed": seed}
                jobs.append((asked, lambda given=(folder, name, task, seed): score_task(*given, args)))
    for asked, job in jobs:
        if not any(asked.items() <= row.items() for row in read_rows(path)):
            row = asked | job()
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)
    report(read_rows(path), args)


def report(rows: list[dict[str, Any]], args: CheckpointArguments) -> None:
    """Writes the figures and the table."""
    metrics = {"similarity": "spearmanr", "retrieval": "ndcg_at_10"} | TASKS
    lines = []
    for name in dict.fromkeys(row["model"] for row in rows):
        cells = []
        for task, metric in metrics.items():
            found = [row[metric] for row in rows if (row["model"], row["task"]) == (name, task)]
            spread = f" ± {statistics.stdev(found):.3f}" if len(found) > 1 else ""
            cells.append(f"{statistics.fmean(found):.3f}{spread}" if found else "")
        lines.append((name, *cells))
    header = ("model", "STS-B, no labels", "XQuAD, nDCG@10", *(f"{task}, {metric}" for task, metric in TASKS.items()))
    write_json(Path(args.output_json), rows)
    write_text(Path(args.output_json).with_suffix(".md"), table(header, lines) + "\n")
    print(table(header, lines))


PARTS = {"choose": choose, "package": package, "score": score}


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in PARTS:
        sys.exit(f"name a part: {', '.join(PARTS)}")
    run_command(PARTS[sys.argv.pop(1)], CheckpointArguments, "checkpoint")
