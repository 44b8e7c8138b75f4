"""Augments a labelled task by word replacement with a masked language model (TinyBERT, Jiao et al. 2020, Algorithm 1).

efficientbert augment --task rte --model google-bert/bert-base-uncased --output_file rte-augmented.parquet
efficientbert finetune --task rte --augmented_data rte-augmented.parquet --model my-student --output_dir my-rte
"""

from functools import partial
from pathlib import Path

from efficientbert.train.cli.command import run_command
from efficientbert.train.cli.errors import InputError
from efficientbert.train.cli.outcome import Outcome
from efficientbert.train.tasks.arguments import AugmentArguments


def main(args: AugmentArguments) -> Outcome:
    """Runs the job from arguments to a finished file, with the number of its rows."""
    args.check()
    args.check_sources()
    from datasets import Dataset
    from pyarrow.parquet import read_metadata
    from tqdm.auto import tqdm

    from efficientbert.train.files.digests import digest_models, digest_rows
    from efficientbert.train.tasks.augmentation import (
        BLOCK_ROWS,
        DECIDES,
        AugmentedFile,
        augment_rows,
        load_masked_lm,
    )
    from efficientbert.train.tasks.loading import load_split
    from efficientbert.train.tasks.word_replacement import Replacer

    columns = args.text_columns()
    rows = load_split(args, args.split, columns, args.target_column())
    for column in columns:
        for index, text in enumerate(rows[column]):
            if not isinstance(text, str):
                raise InputError(f"data {args.source()!r}: row {index}: {column!r} is {text!r}, not a text")
    record = {name: getattr(args, name) for name in DECIDES} | {"rows": digest_rows(rows)}
    file = AugmentedFile(Path(args.output_file), record, partial(digest_models, args, "model"))
    if file.complete:
        print(f"{file.path} is complete already")
        return Outcome(file.path, {"rows": read_metadata(file.path).num_rows})
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
    made = file.finish()
    print(f"{file.path}: {made} rows, from {len(rows)}")
    return Outcome(file.path, {"rows": made})


def cli() -> None:
    """Runs the script with this process's arguments."""
    run_command(main, AugmentArguments, "augment")


if __name__ == "__main__":
    cli()
