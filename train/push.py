"""Uploads a finished model folder to the Hub: weights, tokenizer, code, card and results.

    efficientbert push --folder my-rte --repo_id user/name --license apache-2.0 --private

Log in first, with `hf auth login` or HF_TOKEN. The folder is checked before, and is not changed.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path

from efficientbert.train.cli.command import run_command
from efficientbert.train.cli.errors import InputError
from efficientbert.train.cli.outcome import Outcome
from efficientbert.train.model_folder.arguments import CardArguments
from efficientbert.train.model_folder.upload_check import check_complete, check_repo_id


@dataclass
class PushArguments(CardArguments):
    """Uploads a finished model folder to the Hub: weights, tokenizer, code, card and results, after checking that it
    is complete and loads. What only training needs stays here.

    The card that goes there loads the model by its id on the Hub, and states --license and --language where they are
    given. A folder without a card gets one, made from its configuration and record. The folder itself is not changed.
    """

    first = ("folder", "repo_id", "private", "license", "language")
    group = "commit"

    folder: str = field(metadata={"help": "Finished model folder to upload.", "path": True})
    repo_id: str = field(metadata={"help": "Repository on the Hub as user/name; made if it does not exist."})
    private: bool = field(default=False, metadata={"help": "Make a new repository private."})
    commit_message: str = field(default="Upload model", metadata={"help": "Message of the commit."})
    revision: str | None = field(
        default=None, metadata={"help": "Branch to upload to, made if it does not exist; by default main."}
    )


def main(args: PushArguments) -> Outcome:
    """Checks the folder, uploads it, and prints its address, which is among the figures as `url`."""
    check_repo_id(args.repo_id)
    folder = Path(args.folder)
    check_complete(folder)
    import transformers
    from huggingface_hub import get_token

    from efficientbert.train.model_folder.upload import (
        card_to_upload,
        check_loads,
        split_files,
        upload,
    )

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    check_loads(folder)
    card, license = card_to_upload(folder, args.repo_id, args.license, args.language)
    if get_token() is None:
        raise InputError("no token for the Hub: log in with `hf auth login` or set HF_TOKEN")
    url = upload(folder, args.repo_id, card, args.private, args.commit_message, args.revision)
    _, left_out = split_files(folder)
    if left_out:
        print(f"left out, as only training needs it: {', '.join(left_out)}")
    if license is None:
        print("licence: not stated; push again with --license to state it")
    print(url)
    return Outcome(folder, {"url": url})


def cli() -> None:
    """Runs the script with this process's arguments."""
    run_command(main, PushArguments, "push")


if __name__ == "__main__":
    cli()
