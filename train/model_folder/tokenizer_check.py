"""Whether a tokenizer and a model suit each other, and whether the model tells the two texts of a pair apart."""

import inspect
from typing import Any

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from efficientbert.train.cli.errors import InputError


SEGMENTS = "token_type_ids"


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, what: str) -> None:
    """Holds a tokenizer against the model that reads its ids.

    Args:
        tokenizer: The tokenizer.
        model: The model.
        what: What to call both in messages, such as "model 'my-student'".

    Raises:
        InputError: if it cannot pad, or gives an id that the model's token table has no row for.
    """
    if tokenizer.pad_token_id is None:
        raise InputError(
            f"{what}: its tokenizer has no padding token; set one and save it with the model, as in "
            "`tokenizer.pad_token = tokenizer.eos_token`"
        )
    rows = model.get_input_embeddings().weight.shape[0]
    token, last = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if last >= rows:
        raise InputError(
            f"{what}: its tokenizer has {len(tokenizer)} tokens but its vocabulary {rows} rows: {token!r} has the id "
            f"{last}; save it with the tokenizer that it was trained with"
        )


def reads_segments(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a model with this tokenizer is told by `token_type_ids` which text of a pair a token is of.

    RoBERTa, MPNet and DistilBERT have one segment for all tokens, though a tokenizer may count two.
    """
    rows = getattr(model.config, "type_vocab_size", None)
    known = SEGMENTS in inspect.signature(type(model).forward).parameters
    return SEGMENTS in tokenizer.model_input_names and known and (rows is None or rows > 1)


def fit_segments(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    """Makes a tokenizer give no `token_type_ids` to a model that does not read them; it is saved so, too."""
    if not reads_segments(model, tokenizer):
        give_segments(tokenizer, False)


def ignore_segments(model: PreTrainedModel) -> None:
    """Makes a model take no notice of `token_type_ids`, which a batch may have for a teacher alone."""

    def drop(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        return args, {name: value for name, value in kwargs.items() if name != SEGMENTS}

    model.register_forward_pre_hook(drop, with_kwargs=True)


def give_segments(tokenizer: PreTrainedTokenizerBase, given: bool) -> None:
    """Makes a tokenizer give `token_type_ids`, or not."""
    names = [name for name in tokenizer.model_input_names if name != SEGMENTS]
    tokenizer.model_input_names = names + [SEGMENTS] * given
    tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names  # else it would not be saved
