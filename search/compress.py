"""Makes the best model for a number of milliseconds on this machine from a teacher of yours.

    efficientbert compress --teacher my-classifier --latency 5 --data reviews.csv --text_column review \
        --output_dir small-classifier
    efficientbert compress --teacher sentence-transformers/all-MiniLM-L6-v2 --corpus corpus.txt --output_dir small
    efficientbert push --folder small-classifier/model --repo_id me/small-classifier

The teacher may be fine-tuned on a task, an embedder of sentence-transformers, or a bare encoder. The machine is
measured, an architecture chosen by what is known of many, and the model distilled. An interrupted run goes on when the
same command is given again.
"""

import shutil
import tempfile
from pathlib import Path

from efficientbert.search.compression.arguments import CompressArguments
from efficientbert.train.cli.command import run_command
from efficientbert.train.cli.outcome import Outcome


def main(args: CompressArguments) -> Outcome:
    """Runs the job from arguments to a folder with the finished models, and their figures beside the teacher's."""
    args.check()
    if not args.finished():
        args.check_sources()
    from efficientbert.search.compression.making import finish, make_models
    from efficientbert.search.compression.preparation import prepare
    from efficientbert.search.compression.report import read_rows
    from efficientbert.train.files.run_folder import run_folder

    folder = run_folder(args, ("teacher",), "text", args.corpus, args.data, args.augmented_data)
    if folder.complete:
        return Outcome(folder.path, {"models": read_rows(folder.path)})
    with tempfile.TemporaryDirectory() as scratch:
        prepared = prepare(args, folder.work, Path(scratch))
        folder.open()
        shutil.copytree(scratch, folder.work, ignore=shutil.ignore_patterns("*.lock"), dirs_exist_ok=True)
    rows = make_models(prepared, folder.work)
    finish(rows, prepared, folder.work)
    path = folder.finish()
    print(path)
    return Outcome(path, {"models": rows})


def cli() -> None:
    """Runs the script with this process's arguments."""
    run_command(main, CompressArguments, "compress")


if __name__ == "__main__":
    cli()
