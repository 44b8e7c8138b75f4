"""What each distillation loss is worth: every one alone and together, at equal steps, from the same start.

    python benchmarks/losses.py --teacher TEACHER --corpus CORPUS --glue GLUE --work_dir WORK

Every run is an `efficientbert distill` into WORK, so that an interrupted comparison goes on where it was. Students are
compared by what no run is trained on: held-out text, a linear probe on SST-2 (mean-pooled states, train split), and
the Spearman correlation of cosines of mean-pooled states with STS-B's similarities (train split, no label used).
"""

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from efficientbert.modeling_efficientbert import EfficientBertModel
from efficientbert.search.scores.probe import probe_error
from efficientbert.train import distill
from efficientbert.train.cli.command import run_command
from efficientbert.train.distillation.student import Student
from efficientbert.train.files.tables import table
from efficientbert.train.files.writing import write_json, write_text
from efficientbert.train.metrics import compute_metric
from efficientbert.train.model_folder.record import read_provenance
from efficientbert.train.tasks.arguments import TaskArguments
from efficientbert.train.tasks.kinds import task_of_data


RECIPES = (
    ["hidden_states"],
    ["attention_scores"],
    ["minilm_relations"],
    ["qkv_relations"],
    ["masked_lm"],
    ["hidden_states", "attention_scores"],
    ["hidden_states", "qkv_relations"],
)
FIGURES = ("hidden_state_mse", "attention_score_mse", "cosine", "sst2_probe", "stsb_cosine")


@dataclass(kw_only=True)
class ComparisonArguments:
    """Distils a student once for every set of losses and seed, and tabulates how good they are."""

    teacher: str = field(metadata={"help": "Hub id or folder of the teacher."})
    corpus: str = field(metadata={"help": "Corpus, as of `efficientbert distill`."})
    glue: str = field(metadata={"help": "Hub id or folder of GLUE."})
    work_dir: str = field(metadata={"help": "Folder of the runs."})
    corpus_split: str = field(default="train[:1500]", metadata={"help": "Split or slice of the corpus."})
    student: str = field(default="efficientbert-tiny", metadata={"help": "Preset or config.json."})
    max_steps: int = field(default=100, metadata={"help": "Optimizer steps of 16 sequences of 128 tokens."})
    seeds: list[int] = field(default_factory=lambda: [0], metadata={"help": "One run for each."})
    probe_rows: int = field(default=3000, metadata={"help": "Rows of SST-2, the last third of them scored."})
    pairs: int = field(default=2000, metadata={"help": "Pairs of STS-B."})
    output_json: str | None = field(default=None, metadata={"help": "File for the figures; the table goes beside it."})


def run(args: ComparisonArguments, losses: list[str], seed: int) -> Path:
    """Distils one student and returns its folder."""
    output = Path(args.work_dir) / f"{'-'.join(losses)}-seed{seed}"
    distill.main(
        distill.DistillArguments(
            teacher=args.teacher,
            corpus=args.corpus,
            corpus_split=args.corpus_split,
            student=args.student,
            losses=losses,
            max_steps=args.max_steps,
            warmup_ratio=1 / 6,
            mixed_precision="bf16",
            seed=seed,
            output_dir=str(output),
        )
    )
    return output


def stsb_cosine(encoder: Callable[..., Any], folder: Path, args: ComparisonArguments) -> float:
    """Spearman correlation of cosines of mean-pooled states with the similarity of pairs."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    task = task_of_data(TaskArguments(task="stsb", data=args.glue), tokenizer, "train")
    rows = task.load_rows(f"train[:{args.pairs}]")

    @torch.no_grad()
    def embed(texts: list[str]) -> torch.Tensor:
        vectors = []
        for start in range(0, len(texts), 64):
            batch = tokenizer(texts[start : start + 64], padding=True, truncation=True, return_tensors="pt")
            mask = batch["attention_mask"][..., None]
            vectors.append((encoder(**batch).last_hidden_state * mask).sum(1) / mask.sum(1))
        return torch.cat(vectors)

    cosines = torch.nn.functional.cosine_similarity(embed(rows["sentence1"][:]), embed(rows["sentence2"][:]))
    return compute_metric("stsb", cosines.tolist(), rows["label"][:])["spearmanr"]


def score(folder: Path, args: ComparisonArguments) -> dict[str, float]:
    """The figures of a finished student; kept beside it."""
    path = folder / "comparison.json"
    if not path.exists():
        encoder = EfficientBertModel.from_pretrained(folder).eval()
        task = task_of_data(
            TaskArguments(task="sst2", data=args.glue), AutoTokenizer.from_pretrained(folder), "train[:1%]"
        )
        rows = task.load(f"train[:{args.probe_rows}]")
        figures = {name: value for name, value in read_provenance(folder)[-1]["result"].items() if name in FIGURES}
        figures["sst2_probe"] = 1 - probe_error(Student(encoder, 1), task, rows)
        figures["stsb_cosine"] = stsb_cosine(encoder, folder, args)
        write_json(path, figures)
    return json.loads(path.read_text(encoding="utf-8"))


def tell(header: Sequence[str], lines: Sequence[tuple], rows: list[dict[str, Any]], args: ComparisonArguments) -> None:
    """Prints a table, and writes it and the figures where it is told to."""
    text = table(header, lines)
    print(text)
    if args.output_json:
        write_json(Path(args.output_json), rows)
        write_text(Path(args.output_json).with_suffix(".md"), text + "\n")


def main(args: ComparisonArguments) -> None:
    """Runs all and prints the table."""
    rows = []
    for seed in args.seeds:
        for losses in RECIPES:
            rows.append({"losses": losses, "seed": seed, **score(run(args, losses, seed), args)})
    lines = []
    for losses in RECIPES:
        found = [row for row in rows if row["losses"] == losses]
        means = [statistics.fmean(row[name] for row in found) for name in FIGURES]
        lines.append((" + ".join(losses), *(f"{mean:.3f}" for mean in means)))
    tell(("losses", *FIGURES), lines, rows, args)


if __name__ == "__main__":
    run_command(main, ComparisonArguments, "losses")
