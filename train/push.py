"""Uploads a finished model folder to the Hub.

efficientbert push --folder outputs/student --repo_id user/name --private
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path

from efficientbert.train.cli.command import run_command
from efficientbert.train.cli.errors import InputError
from efficientbert.train.cli.outcome import Outcome
from efficientbert.train.model_folder.arguments import CardArguments


@dataclass
class PushArguments(CardArguments):
    """Uploads a finished model folder to the Hub: weights, tokenizer, code, card and results, after checking that it
    is complete and loads. What only training needs stays here.

    The card that goes there loads the model by its id on the Hub, and states --license and --language where they are
    given. A folder without a card gets one, made from its configuration and record. The folder itself is not changed.
    """

    folder: str = field(metadata={"help": "The finished model folder.", "path": True})
    repo_id: str = field(metadata={"help": "Where to upload it, as user/name; made where it does not exist."})
    private: bool = field(default=False, metadata={"help": "Make the repository private where it does not exist."})
    commit_message: str = field(default="Upload model", metadata={"help": "Message of the commit."})
    revision: str | None = field(
        default=None, metadata={"help": "Branch to upload to, made where it does not exist; main by default."}
    )


def main(args: PushArguments) -> Outcome:
    """Checks the folder, uploads it, and prints its address, which is among the figures as `url`."""
    import transformers
    from huggingface_hub import get_token

    from efficientbert.train.model_folder.upload import (
        card_to_upload,
        check_complete,
        check_loads,
        check_repo_id,
        split_files,
        upload,
    )

    check_repo_id(args.repo_id)
    folder = Path(args.folder)
    check_complete(folder)
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
