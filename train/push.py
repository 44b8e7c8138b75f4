"""Uploads a finished model folder to the Hub: weights, tokenizer, code, card and results.

    efficientbert push --folder my-rte --repo_id user/name --license apache-2.0 --private
    efficientbert push --folder small --repo_id user/small --dry_run

The second one says how it would upload what `compress` has made for several goals. Log in first, with `hf auth login`
or HF_TOKEN. The folder is checked before, and is not changed.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path

from efficientbert.train.cli.command import run_command
from efficientbert.train.cli.errors import InputError
from efficientbert.train.cli.outcome import Outcome
from efficientbert.train.model_folder.arguments import CardArguments
from efficientbert.train.model_folder.siblings import find_siblings
from efficientbert.train.model_folder.upload_check import check_complete, check_repo_id


@dataclass
class PushArguments(CardArguments):
    """Uploads a finished model folder to the Hub: weights, tokenizer, code, card and results, after checking that it
    is complete and loads. What only training needs stays here.

    Of a folder that `compress` or `search` has written, all models that it was for are uploaded: a repository for
    each, which ends in its milliseconds, and a collection of them all. Started again, an interrupted upload goes on.

    The card that goes there loads the model by its id on the Hub, and states --license and --language where they are
    given. A folder without a card gets one, made from its configuration and record. The folder itself is not changed.
    """

    first = ("folder", "repo_id", "private", "license", "language")
    group = "commit"

    folder: str = field(
        metadata={"help": "Finished model folder, or a folder of `compress` or `search`, to upload.", "path": True}
    )
    repo_id: str = field(
        metadata={
            "help": "Repository on the Hub as user/name, made if it does not exist; of several models what their "
            "names begin with, and the title of their collection."
        }
    )
    dry_run: bool = field(default=False, metadata={"help": "Check everything and say what would be uploaded."})
    private: bool = field(default=False, metadata={"help": "Make a new repository private."})
    commit_message: str = field(default="Upload model", metadata={"help": "Message of the commit."})
    revision: str | None = field(
        default=None, metadata={"help": "Branch to upload to, made if it does not exist; by default main."}
    )


def main(args: PushArguments) -> Outcome:
    """Checks the folder, uploads it, and prints its addresses, which are among the figures as `url` or `urls`."""
    check_repo_id(args.repo_id)
    folder = Path(args.folder)
    siblings = find_siblings(folder, args.repo_id)
    for sibling in siblings:
        check_repo_id(sibling.repo_id)
        check_complete(sibling.folder)
    import transformers
    from huggingface_hub import get_token

    from efficientbert.train.model_folder.upload import (
        card_to_upload,
        check_loads,
        collect,
        split_files,
        upload,
    )

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    cards = []
    for sibling in siblings:  # before anything is uploaded
        check_loads(sibling.folder)
        heading = sibling.repo_id.split("/")[1] if len(siblings) > 1 else None
        cards.append(card_to_upload(sibling.folder, sibling.repo_id, args.license, args.language, heading))
    if args.dry_run:
        for sibling in siblings:
            kept, _ = split_files(sibling.folder)
            megabytes = sum((sibling.folder / name).stat().st_size for name in kept) / 1e6
            print(f"would upload {len(kept) + 1} files, {megabytes:.1f} MB, to {sibling.repo_id}")
        if len(siblings) > 1:
            print(f"would make the collection {args.repo_id}")
        return Outcome(folder, {})
    if get_token() is None:
        raise InputError("no token for the Hub: log in with `hf auth login` or set HF_TOKEN")
    urls = [
        upload(sibling.folder, sibling.repo_id, card, args.private, args.commit_message, args.revision)
        for sibling, (card, _) in zip(siblings, cards)
    ]
    collection = [collect(siblings, args.repo_id, args.private)] if len(siblings) > 1 else []
    left_out = dict.fromkeys(name for sibling in siblings for name in split_files(sibling.folder)[1])
    if left_out:
        print(f"left out, as only training needs it: {', '.join(left_out)}")
    if any(license is None for _, license in cards):
        print("licence: not stated; push again with --license to state it")
    print("\n".join(urls + collection))
    return Outcome(folder, {"urls": urls, "collection": collection[0]} if collection else {"url": urls[0]})


def cli() -> None:
    """Runs the script with this process's arguments."""
    run_command(main, PushArguments, "push")


if __name__ == "__main__":
    cli()
