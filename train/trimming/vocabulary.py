"""Which tokens are kept, and the tokenizer that knows them alone.

Kept tokens come out as before: where the whole tokenizer spells a text in kept tokens, the trimmed one does too. With
WordPiece the longest piece that fits is among the kept ones; with Unigram the likeliest spelling of all is also the
likeliest of fewer; with BPE every merge that leads to a kept token is kept.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from efficientbert.train.cli.errors import InputError


BLOCK = 256  # texts that are spelt together
BYTES = 256  # tokens of one character that a tokenizer of bytes has


def spell(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> Iterator[list[int]]:
    """The ids of every text, without special tokens around it."""
    left = iter(texts)
    while block := list(islice(left, BLOCK)):
        for encoding in tokenizer.backend_tokenizer.encode_batch_fast(block, add_special_tokens=False):
            yield encoding.ids


@dataclass(frozen=True)
class Spelling:
    """How two tokenizers spell the same texts.

    Attributes:
        kept: Share of the first one's tokens that the second one knows.
        longer: Tokens more, as a share of the first one's.
        unknown: Share of the second one's tokens that are unknown.
        unknown_before: The same of the first one's.
    """

    kept: float
    longer: float
    unknown: float
    unknown_before: float


def compare(whole: PreTrainedTokenizerBase, trimmed: PreTrainedTokenizerBase, texts: Sequence[str]) -> Spelling:
    """What a cut costs on texts that it was not chosen by."""
    before, after = (
        [tokenizer.convert_ids_to_tokens(ids) for ids in spell(tokenizer, texts)] for tokenizer in (whole, trimmed)
    )
    many, more = (sum(map(len, spelt)) for spelt in (before, after))
    unknown = [sum(tokens.count(whole.unk_token) for tokens in spelt) for spelt in (before, after)]
    known = trimmed.get_vocab()
    kept = sum(token in known for tokens in before for token in tokens)
    return Spelling(kept / many, more / many - 1, unknown[1] / more, unknown[0] / many)


def read_backend(tokenizer: PreTrainedTokenizerBase, name: str) -> dict[str, Any]:
    """What a tokenizer is made of, as its file says it.

    Raises:
        InputError: if it is none of those that can be cut.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    parts = {} if backend is None else json.loads(backend.to_str())
    kind = parts.get("model", {}).get("type", type(tokenizer).__name__)
    if kind not in NEEDED:
        raise InputError(f"model {name!r}: its tokenizer is {kind}; {', '.join(NEEDED)} can be cut")
    return parts


def choose_tokens(parts: dict[str, Any], counts: Counter[int], size: int) -> list[int]:
    """The ids that are kept, in rising order: what cannot be left out, then the most frequent ones.

    Left in are added tokens, the unknown token, and the characters that the corpus has: of those every word can be
    spelt.

    Args:
        parts: As of `read_backend`.
        counts: How often each id stands in the corpus.
        size: How many.

    Raises:
        InputError: if there are not as many, or more cannot be left out.
    """
    ids = token_ids(parts)
    if size >= len(ids):
        raise InputError(f"vocab_size: the tokenizer has {len(ids):,} tokens; name fewer, not {size:,}")
    tokens = {number: token for token, number in ids.items()}
    characters = {character for number in counts for character in tokens[number]}
    first, together = NEEDED[parts["model"]["type"]](parts["model"], ids, characters)
    kept = {token["id"] for token in parts["added_tokens"]} | {ids[token] for token in first}
    if len(kept) > size:
        raise InputError(
            f"vocab_size: must be at least {len(kept):,}, its special tokens and the characters of the corpus, not "
            f"{size:,}"
        )
    for number in sorted(ids.values(), key=lambda number: (-counts[number], number)):
        needed = together(number) - kept
        if len(kept) + len(needed) <= size:
            kept |= needed
        if len(kept) == size:
            break
    return sorted(kept)


Together = Callable[[int], set[int]]  # a token and all that it cannot be without
Needed = Callable[[dict[str, Any], dict[str, int], Collection[str]], tuple[set[str], Together]]


def _of_word_piece(
    model: dict[str, Any], ids: dict[str, int], characters: Collection[str]
) -> tuple[set[str], Together]:
    prefix = model["continuing_subword_prefix"]
    single = {form for character in characters for form in (character, prefix + character) if form in ids}
    return single | {model["unk_token"]}, lambda number: {number}


def _of_unigram(model: dict[str, Any], ids: dict[str, int], characters: Collection[str]) -> tuple[set[str], Together]:
    unknown = set() if model["unk_id"] is None else {model["vocab"][model["unk_id"]][0]}
    single = {character for character in characters if character in ids}
    return single | _bytes(ids) | unknown, lambda number: {number}


def _of_bpe(model: dict[str, Any], ids: dict[str, int], characters: Collection[str]) -> tuple[set[str], Together]:
    origins: dict[int, list[int]] = {}
    for first, second, merged in merges_of(model):
        origins.setdefault(ids[merged], []).extend((ids[first], ids[second]))
    single = {token for token in ids if len(token) == 1}
    if len(single) > BYTES:  # characters, of which the corpus needs some; bytes are all needed
        prefix, suffix = (model.get(name) or "" for name in ("continuing_subword_prefix", "end_of_word_suffix"))
        forms = {form for one in characters for form in (one, prefix + one, one + suffix, prefix + one + suffix)}
        single = forms & ids.keys()
    unknown = {model["unk_token"]} if model.get("unk_token") in ids else set()

    def together(number: int) -> set[int]:
        found, left = set(), [number]
        while left:
            one = left.pop()
            if one not in found:
                found.add(one)
                left += origins.get(one, [])
        return found

    return single | _bytes(ids) | unknown, together


def _bytes(ids: dict[str, int]) -> set[str]:
    """Tokens that stand for one byte each, where a tokenizer falls back to them."""
    return {token for token in (f"<0x{value:02X}>" for value in range(256)) if token in ids}


NEEDED: dict[str, Needed] = {
    "WordPiece": _of_word_piece,
    "BPE": _of_bpe,
    "Unigram": _of_unigram,
    "WordLevel": lambda model, ids, characters: ({model["unk_token"]}, lambda number: {number}),
}


def merges_of(model: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The merges of a BPE, in their order: two parts and what they become. Older files write the parts as one text."""
    pairs = (pair.split(" ", 1) if isinstance(pair, str) else pair for pair in model["merges"])
    prefix = model.get("continuing_subword_prefix") or ""
    return [(first, second, first + second.removeprefix(prefix)) for first, second in pairs]


def token_ids(parts: dict[str, Any]) -> dict[str, int]:
    """All ids by their tokens, added ones too."""
    vocabulary = parts["model"]["vocab"]
    if isinstance(vocabulary, list):
        vocabulary = {token: number for number, (token, _) in enumerate(vocabulary)}
    return vocabulary | {token["content"]: token["id"] for token in parts["added_tokens"]}


def cut_tokenizer(tokenizer: PreTrainedTokenizerBase, parts: dict[str, Any], kept: Sequence[int]) -> Any:
    """The tokenizer that knows the kept tokens alone, by their places among them.

    Args:
        tokenizer: The whole one.
        parts: As of `read_backend`; changed in place.
        kept: Ids, in rising order.
    """
    new_ids = {old: new for new, old in enumerate(kept)}
    model = parts["model"]
    if isinstance(model["vocab"], list):
        if model["unk_id"] is not None:
            model["unk_id"] = new_ids[model["unk_id"]]
        model["vocab"] = [model["vocab"][old] for old in kept if old < len(model["vocab"])]
    else:
        model["vocab"] = {token: new_ids[old] for token, old in model["vocab"].items() if old in new_ids}
    if "merges" in model:
        model["merges"] = [list(merge[:2]) for merge in merges_of(model) if {*merge} <= model["vocab"].keys()]
    for token in parts["added_tokens"]:
        token["id"] = new_ids[token["id"]]
    if parts["padding"]:
        parts["padding"]["pad_id"] = new_ids[parts["padding"]["pad_id"]]
    _renumber(parts["post_processor"], new_ids)
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        for name in ("vocab.txt", "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model"):
            Path(folder, name).unlink(missing_ok=True)  # whole ones
        Path(folder, "tokenizer.json").write_text(json.dumps(parts), encoding="utf-8")
        return AutoTokenizer.from_pretrained(folder)


def _renumber(processor: dict[str, Any] | None, new_ids: dict[int, int]) -> None:
    """Gives the special tokens of a post-processor their new ids."""
    if processor is None:
        return
    for inner in processor.get("processors", []):
        _renumber(inner, new_ids)
    for special in processor.get("special_tokens", {}).values():
        special["ids"] = [new_ids[old] for old in special["ids"]]
    for name in ("cls", "sep"):
        if name in processor:
            processor[name][1] = new_ids[processor[name][1]]
