"""A finished model folder: weights, tokenizer, code, the record of how it was made, and the card made from that."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from efficientbert.train.engine.finite import check_finite
from efficientbert.train.model_folder.card import ModelCardInfo, write_card
from efficientbert.train.model_folder.record import read_provenance, write_provenance


def write_checkpoint(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    step: str,
    args: Any,
    result: dict[str, Any],
    start: str | None = None,
) -> None:
    """Saves a model with everything the Hub shows of it.

    Args:
        folder: Where to.
        model: Any model; only ours get a card.
        tokenizer: Its tokenizer.
        step: The command that made it.
        args: Dataclass of the command's arguments; those that differ from the defaults are recorded.
        result: Final figures.
        start: What the command started from; if that is a folder with a record of its own, this step is added to it.

    Raises:
        NotFiniteError: if a weight is not finite.
    """
    check_finite(model.state_dict(), f"{step}: the model")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    fields = [field for field in dataclasses.fields(args) if field.name != "output_dir"]
    arguments = {
        field.name: getattr(args, field.name) for field in fields if getattr(args, field.name) != field.default
    }
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    earlier = read_provenance(Path(start)) if start is not None and Path(start).is_dir() else []
    record = {"step": step, "arguments": arguments, "result": result, "versions": versions}
    write_provenance(folder, [*earlier, record])
    if model.config.model_type == "efficientbert":
        write_card(folder, ModelCardInfo())
