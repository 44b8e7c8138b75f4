"""Variants of a text in which a masked language model replaced words (TinyBERT, Jiao et al. 2020, Algorithm 1)."""

from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from efficientbert.train.cli.errors import InputError
from efficientbert.train.tasks.task import pad_inputs


@dataclass(frozen=True)
class Word:
    """A word of a text that is one token of the model.

    Attributes:
        token: Index of the token, special tokens counted.
        start, end: Its characters in the text, `[start, end)`.
    """

    token: int
    start: int
    end: int


class Replacer:
    """Finds words that can be replaced, and what a masked language model would put in their place.

    Args:
        model: Masked language model.
        tokenizer: Its tokenizer, held against it by `check_tokenizer`.
        max_length: Tokens of a text that the model reads; words behind them are left alone.
        num_candidates: Most probable words to choose from.
        batch_size: Masked sequences at a time.

    Raises:
        InputError: if the tokenizer is no fast one with a mask token, or knows no whole words.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        num_candidates: int,
        batch_size: int,
    ):
        if not tokenizer.is_fast or tokenizer.mask_token_id is None:
            raise InputError(f"model {tokenizer.name_or_path!r}: needs a fast tokenizer with a mask token")
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.num_candidates = num_candidates
        self.batch_size = batch_size
        self.vocabulary = whole_words(tokenizer)
        self.word_ids = torch.tensor(sorted(self.vocabulary), device=model.device)
        if len(self.word_ids) == 0:
            raise InputError(f"model {tokenizer.name_or_path!r}: its vocabulary holds no whole words")

    def find(self, texts: list[str]) -> list[tuple[list[int], list[Word]]]:
        """Of every text the tokens and the words that can be replaced."""
        encoded = self.tokenizer(texts, truncation=True, max_length=self.max_length, return_offsets_mapping=True)
        special = set(self.tokenizer.all_special_ids)
        found = []
        for index, (text, ids) in enumerate(zip(texts, encoded["input_ids"])):
            owners, offsets = encoded.word_ids(index), encoded["offset_mapping"][index]
            words = []
            for token, owner in enumerate(owners):
                if owner is None or ids[token] in special or owners.count(owner) > 1:
                    continue
                start, end = offsets[token]
                start += len(text[start:end]) - len(text[start:end].lstrip())
                if is_word(text[start:end]):
                    words.append(Word(token, start, end))
            found.append((ids, words))
        return found

    @torch.no_grad()
    def candidates(self, found: list[tuple[list[int], list[Word]]]) -> list[list[list[str]]]:
        """For every word of every text the most probable whole words in its place, ordered by token.

        Args:
            found: As of `find`.
        """
        masked = [(text, number) for text, (_, words) in enumerate(found) for number in range(len(words))]
        masked.sort(key=lambda item: len(found[item[0]][0]))
        results: list[list[list[str]]] = [[[]] * len(words) for _, words in found]
        count = min(self.num_candidates, len(self.word_ids))
        for start in range(0, len(masked), self.batch_size):
            chosen = masked[start : start + self.batch_size]
            sequences = [list(found[text][0]) for text, _ in chosen]
            positions = [found[text][1][number].token for text, number in chosen]
            for sequence, position in zip(sequences, positions):
                sequence[position] = self.tokenizer.mask_token_id
            batch = pad_inputs([{"input_ids": ids} for ids in sequences], self.tokenizer.pad_token_id)
            batch = {name: tensor.to(self.model.device) for name, tensor in batch.items()}
            logits = self.model(**batch).logits[range(len(chosen)), positions]
            # In the order of tokens, so that rounding, which differs between batches, does not change their order.
            best = self.word_ids[logits.float()[:, self.word_ids].topk(count).indices].sort(-1).values
            for (text, number), ids in zip(chosen, best.tolist()):
                results[text][number] = [self.vocabulary[token] for token in ids]
        return results


def is_word(text: str) -> bool:
    """Whether a text is a word rather than punctuation."""
    return any(character.isalnum() for character in text) and not any(character.isspace() for character in text)


def whole_words(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """The tokens that are whole words by themselves, with their spelling: those that follow a space in a text and
    are read back as the same token."""
    ids = sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids))
    words = [tokenizer.decode([index], clean_up_tokenization_spaces=False).strip() for index in ids]
    before = tokenizer("a", add_special_tokens=False)["input_ids"]
    encoded = tokenizer([f"a {word}" for word in words], add_special_tokens=False)["input_ids"]
    return {
        index: word for index, word, tokens in zip(ids, words, encoded) if is_word(word) and tokens == [*before, index]
    }


def rewrite(
    text: str,
    words: list[Word],
    candidates: list[list[str]],
    copies: int,
    probability: float,
    rng: np.random.Generator,
) -> list[str]:
    """Variants of a text: every word is replaced with a probability, by one of its candidates, all equally likely.

    Args:
        text: The text.
        words: Its words that can be replaced, in order.
        candidates: For each the words to choose from, all of one number.
        copies: Variants.
        probability: Chance of a word to be replaced (p_t in the paper).
        rng: Source of the draws, as many whatever they turn out to be.
    """
    replaced = rng.random((copies, len(words))) <= probability
    choices = rng.integers(len(candidates[0]) if candidates else 1, size=(copies, len(words)))
    variants = []
    for copy in range(copies):
        pieces, end = [], 0
        for number in np.flatnonzero(replaced[copy]):
            word = words[number]
            pieces += [text[end : word.start], candidates[number][choices[copy, number]]]
            end = word.end
        variants.append("".join(pieces) + text[end:])
    return variants
