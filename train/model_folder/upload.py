"""Upload of a finished model folder to the Hub, after checking that it is complete and loads."""

import json
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError
from huggingface_hub.utils import validate_repo_id
from transformers import AutoTokenizer

import efficientbert
from efficientbert.configuration_efficientbert import AUTO_MAP, EfficientBertConfig
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.embeddings import VARIANCE_FILE
from efficientbert.train.distillation.projection import PROJECTION_FILE
from efficientbert.train.distillation.scales import SCALES_FILE
from efficientbert.train.model_folder.card import architecture


CODE_FILES = (
    "configuration_efficientbert.py",
    "ffn_efficientbert.py",
    "modeling_efficientbert.py",
    "slicing_efficientbert.py",
)
REQUIRED_FILES = ("config.json", "model.safetensors", *CODE_FILES, "README.md")
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


def check_repo_id(repo_id: str) -> None:
    """Checks the form `user/name`.

    Raises:
        InputError: if it has another form.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise InputError(f"repo_id {repo_id!r}: {one_line(error)}") from None
    if "/" not in repo_id:
        raise InputError(f"repo_id {repo_id!r}: must have the form user/name")


def check_complete(folder: Path) -> None:
    """Checks that a folder has all that a model on the Hub needs, and that another machine's code could be read.

    Raises:
        InputError: naming the first thing that is missing.
    """
    if not folder.is_dir():
        raise InputError(f"folder {folder}: does not exist")
    if folder.absolute().name.endswith(".partial"):
        raise InputError(f"folder {folder}: is the work of an unfinished run; let it finish first")
    for name in REQUIRED_FILES:
        if not (folder / name).is_file():
            raise InputError(f"folder {folder}: has no {name}")
    for name in CODE_FILES:
        try:
            compile((folder / name).read_bytes(), name, "exec")
        except (SyntaxError, ValueError) as error:
            raise InputError(f"folder {folder}: {name} is no Python: {one_line(error)}") from None


def check_loads(folder: Path) -> None:
    """Checks that configuration, weights and, where there is one, tokenizer load.

    Raises:
        InputError: naming what does not load.
    """
    try:
        written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        model_type, auto_map = written.get("model_type"), written.get("auto_map") or {}
    except (ValueError, AttributeError) as error:
        raise InputError(f"folder {folder}: config.json is no JSON object: {one_line(error)}") from None
    if model_type != "efficientbert":
        raise InputError(f"folder {folder}: config.json has model_type {model_type!r}, not 'efficientbert'")
    for auto_class, name in AUTO_MAP.items():
        if auto_map.get(auto_class) != name:
            found = f"{auto_class} as {auto_map.get(auto_class)!r}, not {name!r}"
            raise InputError(f"folder {folder}: auto_map in config.json has {found}")
    # Files of unknown origin fail in any way.
    try:
        config = EfficientBertConfig.from_pretrained(folder)
    except Exception as error:
        raise InputError(f"folder {folder}: config.json does not load: {one_line(error)}") from None
    try:
        model_class = getattr(efficientbert, architecture(config))
        _, info = model_class.from_pretrained(folder, use_safetensors=True, output_loading_info=True)
    except Exception as error:
        raise InputError(f"folder {folder}: model.safetensors does not load: {one_line(error)}") from None
    for kind in ("missing_keys", "mismatched_keys"):
        if info[kind]:
            some = ", ".join(sorted(map(str, info[kind]))[:3])
            raise InputError(f"folder {folder}: model.safetensors has {kind.replace('_', ' ')}: {some}")
    if (folder / "tokenizer_config.json").exists():
        try:
            AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        except Exception as error:
            raise InputError(f"folder {folder}: the tokenizer does not load: {one_line(error)}") from None


def one_line(error: Exception) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def upload(folder: Path, repo_id: str, private: bool, commit_message: str, revision: str | None) -> str:
    """Makes the repository, and the branch, where they do not exist, and uploads the folder in one commit.

    Returns:
        The address of what was uploaded.

    Raises:
        InputError: if the Hub refuses or cannot be reached.
    """
    api = HfApi()
    try:
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        if revision:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message=commit_message,
            revision=revision,
            ignore_patterns=TRAINING_ONLY,
        )
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            advice = "the token is not accepted; log in with `hf auth login`, with a token that may write there"
            raise InputError(f"upload to {repo_id}: {advice} (HTTP {status})") from None
        raise InputError(f"upload to {repo_id}: {one_line(error)}") from None
    except (OSError, ValueError, HTTPError, RuntimeError) as error:
        raise InputError(f"upload to {repo_id}: {one_line(error)}") from None
    return f"{url}/tree/{revision}" if revision else str(url)
