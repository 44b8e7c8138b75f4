"""A finished model folder: weights, tokenizer, code, the record of how it was made, and the card made from that."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from efficientbert.train.engine.finite import check_finite
from efficientbert.train.files.local_paths import is_local
from efficientbert.train.model_folder.card import write_card
from efficientbert.train.model_folder.record import is_hub_id, read_provenance, recorded, write_provenance


def write_checkpoint(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    step: str,
    args: Any,
    result: dict[str, Any],
    start: str | None = None,
    task: Any = None,
    sources: Sequence[str] = (),
) -> None:
    """Saves a model with everything the Hub shows of it.

    Args:
        folder: Where to.
        model: Any model; only ours get a card.
        tokenizer: Its tokenizer, where it has one.
        step: The command that made it.
        args: Dataclass of the command's arguments; those that differ from the defaults are recorded.
        result: Final figures.
        start: What the command started from; if that is a folder with a record of its own, this step is added to it.
        task: `TaskArguments` of the labelled data that the model is for; `evaluate` finds it by them.
        sources: What the model learned from: ids on the Hub, which the card names, files and folders.

    Raises:
        NotFiniteError: if a weight is not finite.
    """
    check_finite(model.state_dict(), f"{step}: the model")
    model.save_pretrained(folder)
    if tokenizer is not None:
        if tokenizer.is_fast:  # how a training cut and padded its texts is not for others that read the file
            tokenizer.backend_tokenizer.no_truncation()
            tokenizer.backend_tokenizer.no_padding()
        tokenizer.save_pretrained(folder)
    record = {"step": step, "arguments": recorded(args)}
    if task is not None:
        record["task_arguments"] = recorded(task)
    record["datasets"] = [source for source in dict.fromkeys(sources) if is_hub_id(source) and not is_local(source)]
    record["result"] = result
    record["versions"] = {"torch": torch.__version__, "transformers": transformers.__version__}
    earlier = read_provenance(Path(start)) if start is not None and Path(start).is_dir() else []
    write_provenance(folder, [*earlier, record])
    if model.config.model_type == "efficientbert":
        write_card(folder)
