"""Augmented rows of a labelled task, and the file that they are written to."""

import fcntl
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import AutoModelForMaskedLM, PreTrainedModel, PreTrainedTokenizerBase

from efficientbert.train.cli.errors import InputError
from efficientbert.train.engine.device import find_device
from efficientbert.train.files.output_folder import INPUTS, check_inputs, check_place
from efficientbert.train.files.writing import write_json, writing
from efficientbert.train.model_folder.loading import load_model, load_tokenizer
from efficientbert.train.model_folder.tokenizer_check import check_tokenizer
from efficientbert.train.tasks.arguments import AugmentArguments
from efficientbert.train.tasks.word_replacement import Replacer, rewrite


METADATA_KEY = b"efficientbert_augment"  # in the schema of a finished file: what decided its rows
BLOCK_ROWS = 64  # rows done at a time: what a killed run has to do again
DECIDES = (  # the arguments that decide the rows
    *("task", "data", "data_name", "split", "text_column", "text_pair_column", "max_length"),
    *("model", "copies", "replace_probability", "candidates", "seed"),
)


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
        models: Gives the checksum of the model, if it is here; see `digests`. Kept and compared, too.

    Raises:
        InputError: if it exists, or was begun, with another record or model, or is no such file.
    """

    def __init__(self, path: Path, record: dict[str, Any], models: Callable[[], dict[str, str]]):
        self.path = path.absolute()
        check_place(self.path, "output file")
        self.work = self.path.with_name(self.path.name + ".partial")
        self.record, self.models = json.loads(json.dumps(record)), models
        self.lock: TextIO  # from opening on
        self.complete = self.path.exists()
        if self.complete:
            try:
                metadata = pq.read_schema(self.path).metadata or {}
                earlier = json.loads(metadata[METADATA_KEY])
            except (KeyError, OSError, pa.ArrowException):
                raise InputError(f"output_file '{path}': exists, and is no augmented data; choose another") from None
            self._compare(earlier, "holds")
        elif (self.work / "run.json").exists():
            self._compare(json.loads((self.work / "run.json").read_text(encoding="utf-8")), "was begun with")
        elif self.work.exists() and {entry.name for entry in self.work.iterdir()} - {".lock"}:
            raise InputError(f"output_file '{path}': '{self.work}' is in the way; delete it or choose another")

    def _compare(self, earlier: dict[str, Any], state: str) -> None:
        remedy = f"choose another --output_file or delete {(self.path if self.complete else self.work).name}"
        check_inputs(earlier.pop(INPUTS, None), self.models(), remedy)
        for key in sorted(earlier.keys() | self.record.keys()):
            if earlier.get(key) != self.record.get(key):
                raise InputError(
                    f"output_file '{self.path}': {state} {key}={earlier.get(key)!r}, not {self.record.get(key)!r}; "
                    f"{remedy}"
                )

    def open(self) -> None:
        """Makes the folder of blocks, or takes up that of a killed run; one process at a time.

        Raises:
            InputError: if another process works on it, or it cannot be made.
        """
        try:
            self.work.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"output_file '{self.path}': '{self.work}' cannot be made: {error.strerror}") from None
        self.lock = open(self.work / ".lock", "w")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"output_file '{self.path}': another process is working on it") from None
        self.record |= {INPUTS: self.models()}
        write_json(self.work / "run.json", self.record)

    def block(self, first: int) -> Path:
        """The file of the block that begins with a row."""
        return self.work / f"{first:010d}.parquet"

    def write_block(self, first: int, table: pa.Table) -> None:
        """Writes a block whole or not at all."""
        with writing(self.block(first)) as temporary:
            pq.write_table(table, temporary)

    def finish(self) -> int:
        """Puts the blocks together, moves the file to its name and removes them; returns the number of rows."""
        blocks = sorted(self.work.glob("*.parquet"))
        schema = pq.read_schema(blocks[0])
        schema = schema.with_metadata(schema.metadata | {METADATA_KEY: json.dumps(self.record).encode()})
        with writing(self.path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
            for block in blocks:
                writer.write_table(pq.read_table(block).replace_schema_metadata(schema.metadata))
        count = pq.read_metadata(self.path).num_rows
        shutil.rmtree(self.work)
        self.lock.close()
        return count


def load_masked_lm(args: AugmentArguments) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The masked language model and its tokenizer.

    Raises:
        InputError: if it cannot be loaded, has no trained head, or reads fewer tokens than are asked for.
    """
    model, report = load_model(AutoModelForMaskedLM, args.model, "model", dtype=torch.float32)
    tokenizer = load_tokenizer(args.model)
    if report["missing_keys"]:
        raise InputError(
            f"model {args.model!r}: has no trained masked-LM head (no {sorted(report['missing_keys'])[0]!r}); choose "
            "a model that was trained to predict masked words"
        )
    check_tokenizer(tokenizer, model, f"model {args.model!r}")
    positions = min(getattr(model.config, "max_position_embeddings", args.max_length), tokenizer.model_max_length)
    if args.max_length > positions:
        raise InputError(f"max_length: model {args.model!r} reads at most {positions} tokens, not {args.max_length}")
    return model.to(find_device(args.device)), tokenizer
