"""Uploads a finished model folder to the Hub.

efficientbert push --folder outputs/student --repo_id user/name --private
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path

from efficientbert.train.cli.command import run_command
from efficientbert.train.cli.errors import InputError


@dataclass
class PushArguments:
    """Uploads a finished model folder to the Hub: weights, tokenizer, code, card and results, after checking that it
    is complete and loads. What only training needs stays here."""

    folder: str = field(metadata={"help": "The finished model folder."})
    repo_id: str = field(metadata={"help": "Where to upload it, as user/name; made where it does not exist."})
    private: bool = field(default=False, metadata={"help": "Make the repository private where it does not exist."})
    commit_message: str = field(default="Upload model", metadata={"help": "Message of the commit."})
    revision: str | None = field(
        default=None, metadata={"help": "Branch to upload to, made where it does not exist; main by default."}
    )


def main(args: PushArguments) -> None:
    """Checks the folder, uploads it, prints its address."""
    import transformers
    from huggingface_hub import get_token
    from huggingface_hub.utils import filter_repo_objects

    from efficientbert.train.model_folder.upload import (
        TRAINING_ONLY,
        check_complete,
        check_loads,
        check_repo_id,
        upload,
    )

    check_repo_id(args.repo_id)
    folder = Path(args.folder)
    check_complete(folder)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    check_loads(folder)
    if get_token() is None:
        raise InputError("no token for the Hub: log in with `hf auth login` or set HF_TOKEN")
    url = upload(args)
    files = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    kept = set(filter_repo_objects(files, ignore_patterns=TRAINING_ONLY))
    left_out = [name for name in files if name not in kept]
    if left_out:
        print(f"left out, as only training needs it: {', '.join(left_out)}")
    print(url)


def cli() -> None:
    """Runs the script with this process's arguments."""
    run_command(main, PushArguments, "push")


if __name__ == "__main__":
    cli()
