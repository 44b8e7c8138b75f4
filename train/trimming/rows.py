"""The rows of a model's token table, and of its masked-LM head, that are kept."""

from collections.abc import Sequence

import torch
import transformers
from transformers import PreTrainedModel

import efficientbert
from efficientbert.train.cli.errors import InputError
from efficientbert.train.model_folder.loading import load_config, load_model


IDS = ("pad_token_id", "bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id", "mask_token_id", "unk_token_id")


def load_whole(name: str) -> PreTrainedModel:
    """A model with the head that it was saved with, in the precision that it was saved in.

    A pooler that was not saved is not made.

    Raises:
        InputError: if it cannot be loaded, or lacks other weights.
    """
    named = (load_config(name, "model").architectures or ["AutoModel"])[0]
    model_class = getattr(efficientbert, named, None) or getattr(transformers, named, transformers.AutoModel)
    model, report = load_model(model_class, name, "model", dtype="auto")
    missing = sorted(report["missing_keys"])
    if missing and all(key.startswith("pooler.") for key in missing):
        model, report = load_model(model_class, name, "model", dtype="auto", add_pooling_layer=False)
        missing = sorted(report["missing_keys"])
    if missing:
        raise InputError(f"model {name!r}: lacks weights, such as {missing[0]!r}")
    return model.eval()


@torch.no_grad()
def cut_rows(model: PreTrainedModel, kept: Sequence[int]) -> None:
    """Keeps the rows of some tokens, in their order, in place.

    Args:
        model: The model; where it has a masked-LM head, that one's rows are kept likewise.
        kept: Ids, in rising order.
    """
    rows, inputs, outputs = torch.tensor(kept), model.get_input_embeddings(), model.get_output_embeddings()
    tables = [inputs.weight] + ([] if outputs is None else [outputs.weight, outputs.bias])
    for table in {id(table): table for table in tables if table is not None}.values():  # tied ones once
        table[: len(kept)] = table[rows].clone()
    model.resize_token_embeddings(len(kept), mean_resizing=False)
    places = {old: new for new, old in enumerate(kept)}
    for name in IDS:
        old = getattr(model.config, name, None)
        if old is not None:
            setattr(model.config, name, places.get(old))
