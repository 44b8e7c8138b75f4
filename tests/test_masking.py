"""Whole-word masking: whole words, the published shares, and nothing but row, seed and epoch deciding."""

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import PreTrainedTokenizerFast

from efficientbert.train.cli.errors import InputError
from efficientbert.train.engine.accelerator import make_accelerator
from efficientbert.train.engine.arguments import LoopArguments
from efficientbert.train.engine.loop import train
from efficientbert.train.text.batches import PaddingCollator
from efficientbert.train.text.masking import WholeWordMasking, continuation_pieces


SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = ["un", "##aff", "##able", "go", "##ing", "new", "red", "##dish", "up", "##on"]


def make_tokenizer(pieces: list[str] | None = None, **special: str) -> PreTrainedTokenizerFast:
    vocabulary = {token: index for index, token in enumerate(SPECIAL + (pieces or PIECES))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **(names | {"mask_token": "[MASK]"} | special))


def make_rows(count: int, seed: int = 0) -> list[dict[str, list[int]]]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(10, 40, (count,), generator=generator).tolist()
    return [{"input_ids": [2, *torch.randint(5, 15, (n,), generator=generator).tolist(), 3]} for n in lengths]


def make_masking(seed: int = 0, **special: str) -> WholeWordMasking:
    return WholeWordMasking(PaddingCollator(0), make_tokenizer(**special), seed)


def test_pieces_go_on_with_a_word_as_the_tokenizer_marks_it():
    assert continuation_pieces(make_tokenizer()).tolist() == [False] * 5 + [p.startswith("##") for p in PIECES]
    bytes_ = continuation_pieces(make_tokenizer(["Ġnew", "er", "##", "Ġold", "Ġred"]))
    assert bytes_[5:].tolist() == [False, True, True, False, False]
    assert not continuation_pieces(make_tokenizer(["new", "old"])).any()


def test_words_of_the_tokenizer_are_hidden_whole():
    """Against word ids that the fast tokenizer gives itself."""
    tokenizer = make_tokenizer()
    encoded = tokenizer("going up unaffable new reddish upon going")
    hidden_words = set()
    for epoch in range(60):
        masking = make_masking()
        masking.set_epoch(epoch)
        (labels,) = masking([{"input_ids": encoded["input_ids"]}])["labels"].tolist()
        by_word: dict[int, set[bool]] = {}
        for word, label in zip(encoded.word_ids(), labels):
            by_word.setdefault(word, set()).add(label != -100)
        assert all(len(states) == 1 for states in by_word.values())
        hidden_words |= {word for word, states in by_word.items() if True in states}
    assert hidden_words == set(range(7))


def test_shares():
    batch = make_masking()(make_rows(3000))
    plain = PaddingCollator(0)(make_rows(3000))["input_ids"]
    maskable = plain > 4
    hidden = batch["labels"] != -100
    assert torch.equal(batch["labels"][hidden], plain[hidden])
    assert not hidden[~maskable].any() and torch.equal(batch["input_ids"][~hidden], plain[~hidden])
    assert hidden.sum() / maskable.sum() == pytest.approx(0.15, abs=0.01)
    shown = batch["input_ids"][hidden]
    assert (shown == 4).float().mean() == pytest.approx(0.8, abs=0.01)
    # A random token is the right one in one of ten cases.
    assert (shown == plain[hidden]).float().mean() == pytest.approx(0.1 + 0.1 / 10, abs=0.01)
    assert set(shown[shown != 4].tolist()) == set(range(5, 15))


def test_what_is_hidden_depends_on_row_seed_and_epoch_alone():
    rows = make_rows(8)
    whole = make_masking()(rows)
    for start in (0, 3):
        part = make_masking()(rows[start : start + 3])
        for index in range(3):
            length = len(rows[start + index]["input_ids"])
            for name in ("input_ids", "labels"):
                assert torch.equal(part[name][index, :length], whole[name][start + index, :length])
    torch.manual_seed(123)
    assert torch.equal(make_masking()(rows)["labels"], whole["labels"])
    assert not torch.equal(make_masking(seed=1)(rows)["labels"], whole["labels"])
    later = make_masking()
    later.set_epoch(1)
    assert not torch.equal(later(rows)["labels"], whole["labels"])


def test_a_tokenizer_without_mask_token_is_refused():
    with pytest.raises(InputError, match="mask token"):
        make_masking(mask_token=None)


class Recording:
    """An objective that keeps what it was shown."""

    def __init__(self):
        self.seen: list[dict[tuple[int, ...], tuple[int, ...]]] = []

    def count(self, batch):
        return {"rows": torch.tensor(len(batch["labels"]))}

    def __call__(self, model, batch, counts, step):
        original = torch.where(batch["labels"] != -100, batch["labels"], batch["input_ids"])
        self.seen.append({tuple(ids.tolist()): tuple(row.tolist()) for ids, row in zip(original, batch["labels"])})
        loss = model(torch.ones(1, 1)).square().sum()
        return loss, {}


def test_every_epoch_of_a_run_hides_something_else_wherever_it_is_resumed(tmp_path):
    rows = [row | {"input_ids": (row["input_ids"] + [5] * 40)[:40]} for row in make_rows(12)]
    args = LoopArguments(batch_size=4, checkpoint_steps=2, warmup_ratio=0.0)
    seen: list[dict] = []
    for steps in (4, 6):  # the second run goes on in the second epoch
        objective = Recording()
        accelerator = make_accelerator(args, tmp_path)
        data = Dataset.from_list(rows)
        folder = tmp_path / "checkpoints"
        train(accelerator, nn.Linear(1, 1), objective, data, make_masking(), args, steps, folder, "Testing")
        seen += objective.seen
    epochs = [{ids: row for batch in part for ids, row in batch.items()} for part in (seen[:3], seen[3:])]
    assert epochs[0].keys() == epochs[1].keys() and len(epochs[0]) == 12
    for epoch, shown in enumerate(epochs):
        masking = make_masking()
        masking.set_epoch(epoch)
        for row in rows:
            assert shown[tuple(row["input_ids"])] == tuple(masking([row])["labels"][0].tolist())
    assert epochs[0] != epochs[1]
