"""Whole-word masking: tokens to predict, chosen word by word (BERT, section 3.1, and its release of May 2019)."""

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from efficientbert.train.cli.errors import InputError


MASKED = 0.15  # of all words
REPLACED, RANDOM = 0.8, 0.1  # of their tokens: by the mask token, by any other token; the rest stays
WORD_MARKERS = ("Ġ", "▁")  # in front of a word's first piece, in byte-level and in sentencepiece vocabularies


def continuation_pieces(tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """Which tokens go on with the word of the token before: boolean, of shape `(V,)`.

    WordPiece marks them with `##`; others mark the pieces that begin a word. A vocabulary without such marks is one of
    whole words.
    """
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    counts = {mark: sum(token.startswith(mark) for token in tokens) for mark in ("##", *WORD_MARKERS)}
    mark = max(counts, key=counts.__getitem__)
    if counts[mark] == 0:
        return torch.zeros(len(tokens), dtype=torch.bool)
    return torch.tensor([token.startswith(mark) == (mark == "##") for token in tokens])


class WholeWordMasking:
    """A collator around another one: hides words in `input_ids` and adds `labels`, -100 where nothing is to predict.

    What is hidden in a row is a pure function of its tokens, the seed and the epoch: neither the order of the data,
    nor its batches and processes, nor where a run was resumed change it, and every epoch hides something else.

    Args:
        collator: Rows to a batch with `input_ids` and `attention_mask`, each of shape `(B, L)`.
        tokenizer: The tokenizer of the rows.
        seed: Seed of the choice.

    Raises:
        InputError: if the tokenizer has no mask token.
    """

    def __init__(
        self, collator: Callable[[list], dict[str, torch.Tensor]], tokenizer: PreTrainedTokenizerBase, seed: int
    ):
        if tokenizer.mask_token_id is None:
            raise InputError("losses: masked_lm and logits need a tokenizer with a mask token; this one has none")
        self.collator = collator
        self.mask_token_id = tokenizer.mask_token_id
        self.continues = continuation_pieces(tokenizer)
        self.special = torch.zeros(len(tokenizer), dtype=torch.bool)
        self.special[tokenizer.all_special_ids] = True
        self.regular_ids = (~self.special).nonzero().flatten()
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses what an epoch hides."""
        self.epoch = epoch

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """The batch with `labels` of shape `(B, L)`."""
        batch = self.collator(rows)
        ids, valid = batch["input_ids"], batch["attention_mask"].bool()
        draws = torch.ones(3, *ids.shape)
        for index, length in enumerate(valid.sum(-1).tolist()):
            draws[:, index, :length] = torch.rand(3, length, generator=self._generator(ids[index, :length]))
        of_word, action, other = draws

        maskable = valid & ~self.special[ids]
        before = torch.nn.functional.pad(maskable, (1, 0))[:, :-1]
        begins = ~(maskable & before & self.continues[ids])
        # Every token takes the draw of the last token before it, or itself, that begins a word.
        first = torch.where(begins, torch.arange(ids.shape[1]), 0).cummax(-1).values
        hidden = maskable & (of_word.gather(1, first) < MASKED)

        # Padding drew a 1, which is one past the end.
        any_id = self.regular_ids[(other * len(self.regular_ids)).long() % len(self.regular_ids)]
        replacement = torch.where(action < REPLACED, self.mask_token_id, any_id)
        changed = hidden & (action < REPLACED + RANDOM)
        return {
            **batch,
            "input_ids": torch.where(changed, replacement, ids),
            "labels": torch.where(hidden, ids, -100),
        }

    def _generator(self, ids: torch.Tensor) -> torch.Generator:
        """Randomness of one row in this epoch."""
        material = f"{self.seed} {self.epoch} ".encode() + ids.numpy().tobytes()
        seed = int.from_bytes(hashlib.blake2b(material, digest_size=8).digest(), "little", signed=True)
        return torch.Generator().manual_seed(seed)
