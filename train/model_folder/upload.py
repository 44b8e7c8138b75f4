"""Upload of a finished model folder to the Hub, after checking that it is complete and loads."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, HTTPError
from huggingface_hub.utils import DEFAULT_IGNORE_PATTERNS, filter_repo_objects
from transformers import AutoTokenizer

import efficientbert
from efficientbert.configuration_efficientbert import AUTO_MAP, EfficientBertConfig
from efficientbert.train.cli.errors import InputError, one_line
from efficientbert.train.distillation.embeddings import VARIANCE_FILE
from efficientbert.train.distillation.projection import PROJECTION_FILE
from efficientbert.train.distillation.scales import SCALES_FILE
from efficientbert.train.model_folder.card import architecture, make_card, parse_card
from efficientbert.train.model_folder.siblings import Sibling


TRAINING_ONLY = [
    "run.json",
    PROJECTION_FILE,
    SCALES_FILE,
    VARIANCE_FILE,
    "*.lock",
    "*.partial",
    "*.partial/*",
    "checkpoint*/*",
    "logs/*",
    "supernet.safetensors",
    "supernet_log.json",
    "runs/*",
    "*events.out.tfevents*",
    "*__pycache__/*",
    "optimizer*",
    "scheduler*",
    "random_states*",
    "rng_state*",
    "trainer_state.json",
    # Pickles: weights travel as safetensors, so these are states of a training.
    "*.bin",
    "*.pt",
    "*.pth",
    "*.pkl",
]


def check_loads(folder: Path) -> None:
    """Checks that configuration, weights and, where there is one, tokenizer load.

    Raises:
        InputError: naming what does not load.
    """
    try:
        written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        model_type, auto_map = written.get("model_type"), written.get("auto_map") or {}
    except (ValueError, AttributeError) as error:
        raise InputError(f"folder '{folder}': config.json is no JSON object: {one_line(error)}") from None
    if model_type != "efficientbert":
        raise InputError(f"folder '{folder}': config.json has model_type {model_type!r}, not 'efficientbert'")
    for auto_class, name in AUTO_MAP.items():
        if auto_map.get(auto_class) != name:
            found = f"{auto_class} as {auto_map.get(auto_class)!r}, not {name!r}"
            raise InputError(f"folder '{folder}': auto_map in config.json has {found}")
    # Files of unknown origin fail in any way.
    try:
        config = EfficientBertConfig.from_pretrained(folder)
    except Exception as error:
        raise InputError(f"folder '{folder}': config.json does not load: {one_line(error)}") from None
    try:
        model_class = getattr(efficientbert, architecture(config))
        _, info = model_class.from_pretrained(folder, use_safetensors=True, output_loading_info=True)
    except Exception as error:
        raise InputError(f"folder '{folder}': model.safetensors does not load: {one_line(error)}") from None
    for kind in ("missing_keys", "mismatched_keys"):
        if info[kind]:
            some = ", ".join(sorted(map(str, info[kind]))[:3])
            raise InputError(f"folder '{folder}': model.safetensors has {kind.replace('_', ' ')}: {some}")
    if (folder / "tokenizer_config.json").exists():
        try:
            AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        except Exception as error:
            raise InputError(f"folder '{folder}': the tokenizer does not load: {one_line(error)}") from None


def card_to_upload(
    folder: Path,
    repo_id: str,
    license: str | None = None,
    language: list[str] | None = None,
    heading: str | None = None,
) -> tuple[str, str | None]:
    """The model card as it goes to the Hub: code in it loads the model from there. The folder's own stays as it is.

    Args:
        folder: A model folder; one without a card gets one made from its configuration and record.
        repo_id: Where it goes.
        license: Licence to state instead of what the card states.
        language: Languages to state instead of what the card states.
        heading: What to put in the place of the card's first heading.

    Returns:
        The text, and the licence that it states.

    Raises:
        InputError: if the card, or the record that it is made from, cannot be read.
    """
    path = folder / "README.md"
    content = path.read_bytes() if path.exists() else make_card(folder, repo_id).encode()
    card, text = parse_card(content, path), content.decode("utf-8")
    if license is not None or language is not None:
        card.data.license, card.data.language = license or card.data.license, language or card.data.language
        text = card.content
    title = re.search(r"^# (.+?)\s*$", card.text, re.MULTILINE)
    names = {folder.absolute().name, *([title[1]] if title else [])}  # the folder may have been renamed since
    loads = rf'(from_pretrained|SentenceTransformer)\("(?:{"|".join(map(re.escape, names))})"'
    if heading is not None and title:
        text = text.replace(f"\n# {title[1]}", f"\n# {heading}", 1)
    return re.sub(loads, rf'\1("{repo_id}"', text), card.data.license


def split_files(folder: Path) -> tuple[list[str], list[str]]:
    """The files of a folder that are uploaded beside the card, and those that only training needs."""
    files = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    files = list(filter_repo_objects(files, ignore_patterns=DEFAULT_IGNORE_PATTERNS))
    kept = list(filter_repo_objects(files, ignore_patterns=[*TRAINING_ONLY, "README.md"]))
    return kept, [name for name in files if name not in {*kept, "README.md"}]


def upload(folder: Path, repo_id: str, card: str, private: bool, commit_message: str, revision: str | None) -> str:
    """Makes the repository, and the branch, where they do not exist, and uploads the folder in one commit.

    Args:
        folder: The model folder.
        repo_id: Where it goes.
        card: Text of the model card, which goes there instead of the folder's own.
        private: Whether a new repository is private.
        commit_message: Of the commit.
        revision: Branch; None for the main one.

    Returns:
        The address of what was uploaded.

    Raises:
        InputError: if the Hub refuses or cannot be reached.
    """
    api = HfApi()
    kept, _ = split_files(folder)
    with _answers(f"upload to {repo_id!r}"):
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        if revision:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        operations = [CommitOperationAdd("README.md", card.encode())]
        operations += [CommitOperationAdd(name, folder / name) for name in kept]
        api.create_commit(repo_id, operations, commit_message=commit_message, revision=revision)
    return f"{url}/tree/{revision}" if revision else str(url)


def collect(siblings: Sequence[Sibling], repo_id: str, private: bool) -> str:
    """Makes a collection of models that are there, where it does not exist, and adds those that it lacks.

    Args:
        siblings: The models.
        repo_id: Its owner and title.
        private: Whether a new one is private.

    Returns:
        Its address.

    Raises:
        InputError: if the Hub refuses or cannot be reached.
    """
    api, (owner, title) = HfApi(), repo_id.split("/")
    with _answers(f"collection {repo_id!r}, whose models are uploaded"):
        collection = api.create_collection(title, namespace=owner, private=private, exists_ok=True)
        for sibling in siblings:
            api.add_collection_item(collection.slug, sibling.repo_id, "model", note=sibling.note, exists_ok=True)
    return collection.url


@contextmanager
def _answers(what: str) -> Iterator[None]:
    """Turns a refusal of the Hub, or that it cannot be reached, into bad input.

    Raises:
        InputError: naming what was asked for.
    """
    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            advice = "the token is not accepted; log in with `hf auth login`, with a token that may write there"
            raise InputError(f"{what}: {advice} (HTTP {status})") from None
        if status == 429:
            raise InputError(f"{what}: too many requests; try again later, it goes on then (HTTP 429)") from None
        raise InputError(f"{what}: {one_line(error)}") from None
    except (OSError, ValueError, HTTPError, RuntimeError) as error:
        raise InputError(f"{what}: {one_line(error)}") from None
