"""Augments a labelled task by word replacement with a masked language model (TinyBERT, Jiao et al. 2020, Algorithm 1).

efficientbert augment --task rte --model google-bert/bert-base-uncased --output_file rte-augmented.parquet
efficientbert finetune --task rte --augmented_data rte-augmented.parquet --model my-student --output_dir my-rte
"""

import fcntl
import hashlib
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import AutoModelForMaskedLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from efficientbert.train.cli.command import run_script
from efficientbert.train.cli.errors import LOAD_ERRORS, InputError
from efficientbert.train.files.writing import write_json
from efficientbert.train.tasks.arguments import TaskArguments
from efficientbert.train.tasks.loading import load_split
from efficientbert.train.tasks.texts import TextTask
from efficientbert.train.tasks.word_replacement import Replacer, rewrite


METADATA_KEY = b"efficientbert_augment"  # in the schema of a finished file: what decided its rows
BLOCK_ROWS = 64  # rows done at a time: what a killed run has to do again
DECIDES = (  # the arguments that decide the rows
    *("task", "data", "data_name", "split", "text_column", "text_pair_column", "max_length"),
    *("model", "copies", "replace_probability", "candidates", "seed"),
)


@dataclass(kw_only=True)
class AugmentArguments(TaskArguments):
    """Writes the rows of a labelled task with variants of them, in which a masked language model replaced words.

    Only words that are one piece of the model's vocabulary are replaced; the published algorithm replaces others by
    neighbours in GloVe, which is left out. A word's candidates come from the original text, as in the release.
    Variants keep the label and all other columns; those equal to the original or to one another are dropped.
    """

    model: str = field(metadata={"help": "Hub id or folder of a masked language model."})
    output_file: str = field(metadata={"help": "Parquet file to write; an interrupted run into it is resumed."})
    split: str = field(
        default="train", metadata={"help": "Split, or slice of it, to augment: the rows that are trained on."}
    )
    copies: int = field(default=20, metadata={"help": "Variants drawn of every row."})
    replace_probability: float = field(default=0.4, metadata={"help": "Chance of a word to be replaced."})
    candidates: int = field(default=15, metadata={"help": "Most probable words that a replacement is drawn from."})
    seed: int = field(default=0, metadata={"help": "Seed of the draws."})
    batch_size: int = field(default=32, metadata={"help": "Masked sequences at a time; changes no draw."})
    device: str = field(default="cuda" if torch.cuda.is_available() else "cpu", metadata={"help": "cpu, cuda, mps, …"})

    def check(self) -> None:
        """Checks the arguments.

        Raises:
            InputError: naming the one that is unfit.
        """
        self.check_task()
        if self.task_kind() != "text-classification":
            raise InputError(f"kind: only text-classification can be augmented, not {self.task_kind()}")
        for name in ("copies", "candidates", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: must be at least 1, not {getattr(self, name)}")
        if self.seed < 0:
            raise InputError(f"seed: must be at least 0, not {self.seed}")
        if not 0 < self.replace_probability <= 1:
            raise InputError(f"replace_probability: must be above 0 and at most 1, not {self.replace_probability}")
        if Path(self.output_file).suffix != ".parquet":
            raise InputError(f"output_file {self.output_file}: must end in .parquet")


def augment_rows(
    rows: list[dict[str, Any]], first: int, columns: tuple[str, ...], replacer: Replacer, args: AugmentArguments
) -> list[dict[str, Any]]:
    """Rows, each followed by its variants. The texts of a pair are varied independently.

    Args:
        rows: Raw rows.
        first: Index of the first of them in the whole data, which the draws depend on.
        columns: Columns of the texts.
        replacer: Gives the candidates.
        args: Numbers, probability and seed.
    """
    texts = [row[column] for row in rows for column in columns]
    found = replacer.find(texts)
    candidates = iter(zip(texts, found, replacer.candidates(found)))
    results = []
    for index, row in enumerate(rows, start=first):
        varied = []
        for number in range(len(columns)):
            text, (_, words), choices = next(candidates)
            rng = np.random.default_rng([args.seed, index, number])
            varied.append(rewrite(text, words, choices, args.copies, args.replace_probability, rng))
        distinct = dict.fromkeys([tuple(row[column] for column in columns), *zip(*varied)])
        results += [row | dict(zip(columns, variant)) for variant in distinct]
    return results


class AugmentedFile:
    """A Parquet file that appears under its name when it is whole; until then its blocks lie in `NAME.partial`.

    Args:
        path: The file.
        record: What decides its rows, as JSON values. Kept in the file, and compared on the next start.

    Raises:
        InputError: if it exists, or was begun, with another record, or is no such file.
    """

    def __init__(self, path: Path, record: dict[str, Any]):
        self.path = path.absolute()
        self.work = self.path.with_name(self.path.name + ".partial")
        self.record = json.loads(json.dumps(record))
        self.lock = None
        self.complete = self.path.exists()
        if self.complete:
            try:
                metadata = pq.read_schema(self.path).metadata or {}
                earlier = json.loads(metadata[METADATA_KEY])
            except (KeyError, OSError, pa.ArrowException):
                raise InputError(f"output_file {path}: exists, and is no augmented data; choose another") from None
            self._compare(earlier, "holds")
        elif (self.work / "run.json").exists():
            self._compare(json.loads((self.work / "run.json").read_text(encoding="utf-8")), "was begun with")
        elif self.work.exists() and {entry.name for entry in self.work.iterdir()} - {".lock"}:
            raise InputError(f"output_file {path}: {self.work} is in the way; delete it or choose another")

    def _compare(self, earlier: dict[str, Any], state: str) -> None:
        for key in sorted(earlier.keys() | self.record.keys()):
            if earlier.get(key) != self.record.get(key):
                raise InputError(
                    f"output_file {self.path}: {state} {key}={earlier.get(key)!r}, not {self.record.get(key)!r}; "
                    f"choose another --output_file or delete {(self.path if self.complete else self.work).name}"
                )

    def open(self) -> None:
        """Makes the folder of blocks, or takes up that of a killed run; one process at a time.

        Raises:
            InputError: if another process works on it, or it cannot be made.
        """
        try:
            self.work.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"output_file {self.path}: {self.work} cannot be made: {error.strerror}") from None
        self.lock = open(self.work / ".lock", "w")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"output_file {self.path}: another process is working on it") from None
        write_json(self.work / "run.json", self.record)

    def block(self, first: int) -> Path:
        """The file of the block that begins with a row."""
        return self.work / f"{first:010d}.parquet"

    def write_block(self, first: int, table: pa.Table) -> None:
        """Writes a block under a temporary name and moves it."""
        temporary = self.block(first).with_suffix(".writing")
        pq.write_table(table, temporary)
        os.replace(temporary, self.block(first))

    def finish(self) -> int:
        """Puts the blocks together, moves the file to its name and removes them; returns the number of rows."""
        blocks = sorted(self.work.glob("*.parquet"))
        schema = pq.read_schema(blocks[0])
        schema = schema.with_metadata(schema.metadata | {METADATA_KEY: json.dumps(self.record).encode()})
        temporary = self.work / "whole.writing"
        with pq.ParquetWriter(temporary, schema) as writer:
            for block in blocks:
                writer.write_table(pq.read_table(block).replace_schema_metadata(schema.metadata))
        count = pq.read_metadata(temporary).num_rows
        os.replace(temporary, self.path)
        shutil.rmtree(self.work)
        self.lock.close()
        return count


def digest(rows: Dataset) -> str:
    """A checksum of all columns of rows."""
    total = hashlib.sha256()
    for row in rows:
        total.update(json.dumps(row, sort_keys=True, default=str).encode())
    return total.hexdigest()


def load_masked_lm(args: AugmentArguments) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The masked language model and its tokenizer.

    Raises:
        InputError: if it cannot be loaded, has no trained head, or reads fewer tokens than are asked for.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(args.model)
        model, report = AutoModelForMaskedLM.from_pretrained(args.model, dtype=torch.float32, output_loading_info=True)
    except LOAD_ERRORS as error:
        raise InputError(f"model {args.model}: cannot be loaded: {' '.join(str(error).split())[:300]}") from None
    if report["missing_keys"]:
        raise InputError(
            f"model {args.model}: has no trained masked-LM head (no {sorted(report['missing_keys'])[0]}); choose a "
            "model that was trained to predict masked words"
        )
    positions = min(getattr(model.config, "max_position_embeddings", args.max_length), tokenizer.model_max_length)
    if args.max_length > positions:
        raise InputError(f"max_length: model {args.model} reads at most {positions} tokens, not {args.max_length}")
    return model.to(args.device), tokenizer


def main(args: AugmentArguments) -> Path:
    """Runs the job from arguments to a finished file; returns its path."""
    args.check()
    columns = TextTask(args, None).text_columns()
    label_column = args.label_column or TextTask.default_label_column
    rows = load_split(args, args.split, (*columns, label_column))
    for column in columns:
        for index, text in enumerate(rows[column]):
            if not isinstance(text, str):
                raise InputError(f"data {args.source()}: row {index}: {column!r} is {text!r}, not a text")
    record = {name: getattr(args, name) for name in DECIDES} | {"rows": digest(rows)}
    file = AugmentedFile(Path(args.output_file), record)
    if file.complete:
        print(f"{file.path} is complete already")
        return file.path
    model, tokenizer = load_masked_lm(args)
    replacer = Replacer(model, tokenizer, args.max_length, args.candidates, args.batch_size)
    file.open()
    with tqdm(total=len(rows), desc=f"Augmenting {args.title()}", unit="row", disable=None) as progress:
        for first in range(0, len(rows), BLOCK_ROWS):
            block = rows.select(range(first, min(first + BLOCK_ROWS, len(rows))))
            if not file.block(first).exists():
                augmented = augment_rows(block.to_list(), first, columns, replacer, args)
                table = Dataset.from_list(augmented, features=rows.features).with_format("arrow")[:]
                file.write_block(first, table.replace_schema_metadata(rows.features.arrow_schema.metadata))
            progress.update(len(block))
    print(f"{file.path}: {file.finish()} rows, from {len(rows)}")
    return file.path


def cli() -> None:
    """Runs the script with this process's arguments."""
    run_script(main, AugmentArguments, "augment")


if __name__ == "__main__":
    cli()
