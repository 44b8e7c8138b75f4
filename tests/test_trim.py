"""A vocabulary cut to what a corpus needs: whole and trimmed tokenizers and models beside each other."""

import json
import random
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    PreTrainedTokenizerFast,
)

from efficientbert import EfficientBertConfig, EfficientBertForMaskedLM
from efficientbert.commands import trim
from efficientbert.train.cli.errors import InputError
from efficientbert.train.model_folder.record import read_provenance
from efficientbert.train.trimming import vocabulary


SYLLABLES = [first + vowel for first in "bdfgklmnprstvz" for vowel in "aeiou"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def make_texts(seed: int, count: int, syllables: list[str] = SYLLABLES) -> list[str]:
    """Texts of words of one to four syllables, the first ones more often."""
    rng = random.Random(seed)
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(300)]
    weights = [1 / (1 + index) for index in range(300)]
    return [" ".join(rng.choices(words, weights, k=rng.randint(3, 12))) for _ in range(count)]


def make_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """A tokenizer of 400 tokens, trained on texts."""
    if kind == "WordPiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=SPECIAL)
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    elif kind == "BPE":
        tokenizer = Tokenizer(models.BPE())
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=SPECIAL, initial_alphabet=alphabet)
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    elif kind == "BPE of characters":
        tokenizer = Tokenizer(models.BPE(unk_token="[UNK]", continuing_subword_prefix="##"))
        trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, continuing_subword_prefix="##")
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece()
    else:
        tokenizer = Tokenizer(models.Unigram())
        trainer = trainers.UnigramTrainer(vocab_size=400, special_tokens=SPECIAL, unk_token="[UNK]")
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.train_from_iterator(make_texts(0, 600), trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    if kind == "BPE":
        tokenizer.post_processor = processors.RobertaProcessing(ends[1], ends[0])
    else:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ends
        )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **dict(zip(names, SPECIAL)))
    made.add_tokens(["<added>"])
    return made


def make_model(tokenizer: PreTrainedTokenizerFast, ours: bool):
    """A tiny masked-LM model; the other one is of transformers, with a table that is longer than the vocabulary."""
    torch.manual_seed(0)
    if ours:
        config = EfficientBertConfig(
            vocab_size=len(tokenizer), hidden_size=12, num_hidden_layers=1, num_attention_heads=2, embedding_size=6
        )
        model = EfficientBertForMaskedLM(config)
        torch.nn.init.normal_(model.get_output_embeddings().bias)
        return model.eval()
    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    model = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer) + 3, **sizes))
    torch.nn.init.normal_(model.get_output_embeddings().bias)
    return model.eval()


@torch.no_grad()
def logits(model, tokenizer: PreTrainedTokenizerFast, *texts: str) -> torch.Tensor:
    return model(**tokenizer(*texts, return_tensors="pt")).logits


@pytest.fixture
def corpus(tmp_path) -> str:
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(make_texts(1, 200, SYLLABLES[:40])) + "\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("ours", [True, False], ids=["ours", "bert"])
@pytest.mark.parametrize("kind", ["WordPiece", "BPE", "BPE of characters", "Unigram"])
def test_texts_of_kept_tokens_give_the_same_to_the_bit(kind, ours, corpus, tmp_path):
    whole, model = make_tokenizer(kind), None
    model = make_model(whole, ours)
    for part in (whole, model):
        part.save_pretrained(tmp_path / "whole")
    size = len(whole) - 150
    made = trim(model=tmp_path / "whole", corpus=corpus, vocab_size=size, output_dir=tmp_path / "out")
    trimmed = AutoTokenizer.from_pretrained(made.path)
    cut, report = AutoModelForMaskedLM.from_pretrained(made.path, output_loading_info=True)
    assert not report["missing_keys"] and len(trimmed) == cut.config.vocab_size == size
    assert cut.get_input_embeddings().weight.shape[0] == cut.get_output_embeddings().bias.shape[0] == size
    assert cut.config.pad_token_id == trimmed.pad_token_id
    kept, ids = trimmed.get_vocab(), whole.get_vocab()
    assert kept.keys() <= ids.keys() and {"<added>", *SPECIAL} <= kept.keys()
    rows = torch.tensor([ids[token] for token, _ in sorted(kept.items(), key=lambda item: item[1])])
    alike = 0
    for text in [*make_texts(2, 60), *make_texts(1, 60, SYLLABLES[:40]), "Ba de <added> [MASK] fi"]:
        before = whole.convert_ids_to_tokens(whole(text, "ba").input_ids)
        after = trimmed.convert_ids_to_tokens(trimmed(text, "ba").input_ids)
        assert trimmed.decode(trimmed(text).input_ids) == whole.decode(whole(text).input_ids)
        if not set(before) <= kept.keys():
            continue
        alike += 1
        assert after == before
        expected, found = logits(model, whole, text, "ba"), logits(cut, trimmed, text, "ba")
        assert torch.equal(found, expected[..., rows])
    assert 20 < alike < 121
    assert made.figures["parameters"] == cut.num_parameters() < made.figures["parameters_before"]
    (step,) = read_provenance(made.path)
    assert step["step"] == "trim" and step["result"] == made.figures


def test_the_most_frequent_are_kept(corpus, tmp_path):
    whole = make_tokenizer("WordPiece")
    for part in (whole, make_model(whole, True)):
        part.save_pretrained(tmp_path / "whole")
    made = trim(model=tmp_path / "whole", corpus=corpus, vocab_size=200, output_dir=tmp_path / "out")
    kept = set(AutoTokenizer.from_pretrained(made.path).get_vocab())
    lines = open(corpus, encoding="utf-8").read().splitlines()
    counted = [line for number, line in enumerate(lines) if number % 20]  # the others are kept aside
    counts = Counter(token for line in counted for token in whole.tokenize(line))
    left_out = set(whole.get_vocab()) - kept
    frequent = [token for token in kept if len(token.removeprefix("##")) > 1 and token not in (*SPECIAL, "<added>")]
    assert max(counts[token] for token in left_out) <= min(counts[token] for token in frequent)
    aside = [line for number, line in enumerate(lines) if number % 20 == 0]
    trimmed = AutoTokenizer.from_pretrained(made.path)
    before, after = ([tokenizer.tokenize(line) for line in aside] for tokenizer in (whole, trimmed))
    assert made.figures["longer"] == pytest.approx(sum(map(len, after)) / sum(map(len, before)) - 1)
    stay = [token in trimmed.get_vocab() for tokens in before for token in tokens]
    assert made.figures["kept"] == sum(stay) / len(stay)
    assert made.figures["unknown"] == made.figures["unknown_before"] == 0


def test_an_embedder_stays_one(teacher_folder, corpus_file, tmp_path):
    parts = [Transformer(teacher_folder(), max_seq_length=40), Pooling(24), Normalize()]
    whole = SentenceTransformer(modules=parts, device="cpu")
    whole.save(str(tmp_path / "whole"), create_model_card=False)
    text = tmp_path / "some.txt"
    text.write_text("word1 word2\nword3 word4 word5\n" * 30, encoding="utf-8")
    made = trim(model=tmp_path / "whole", corpus=text, vocab_size=20, output_dir=tmp_path / "out")
    trimmed = SentenceTransformer(str(made.path), device="cpu")
    assert trimmed[0].auto_model.config.vocab_size == 20 and trimmed.max_seq_length == 40
    sentences = ["word1 word5", "word3 word2 word2"]
    assert (trimmed.encode(sentences) == whole.encode(sentences)).all()


def test_a_head_stays(corpus, tmp_path):
    whole = make_tokenizer("WordPiece")
    config = EfficientBertConfig(
        vocab_size=len(whole), hidden_size=12, num_hidden_layers=1, num_attention_heads=2, num_labels=3
    )
    model = AutoModelForSequenceClassification.from_config(config).eval()
    for part in (whole, model):
        part.save_pretrained(tmp_path / "whole")
    made = trim(model=tmp_path / "whole", corpus=corpus, vocab_size=250, output_dir=tmp_path / "out")
    cut, trimmed = (auto.from_pretrained(made.path) for auto in (AutoModelForSequenceClassification, AutoTokenizer))
    (text,) = make_texts(1, 1, SYLLABLES[:40])
    torch.testing.assert_close(logits(cut, trimmed, text), logits(model, whole, text), rtol=0, atol=1e-7)
    assert "### 1. trim" in (made.path / "README.md").read_text(encoding="utf-8")
    again = trim(model=tmp_path / "whole", corpus=corpus, vocab_size=250, output_dir=tmp_path / "out")
    assert again.figures == made.figures


@pytest.mark.parametrize(
    "size, words",
    [
        (100000, "vocab_size: the tokenizer has 401 tokens; name fewer, not 100,000"),
        (12, r"vocab_size: must be at least \d+, its special tokens and the characters of the corpus, not 12"),
        (0, "vocab_size: must be at least 1, not 0"),
    ],
)
def test_sizes_that_cannot_be(size, words, corpus, tmp_path):
    whole = make_tokenizer("WordPiece")
    for part in (whole, make_model(whole, True)):
        part.save_pretrained(tmp_path / "whole")
    with pytest.raises(InputError, match=words):
        trim(model=tmp_path / "whole", corpus=corpus, vocab_size=size, output_dir=tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.txt", "whole"]


def test_nothing_random_is_saved(corpus, tmp_path):
    whole = make_tokenizer("WordPiece")
    whole.save_pretrained(tmp_path / "whole")
    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    model = BertModel(BertConfig(vocab_size=len(whole), **sizes), add_pooling_layer=False)
    model.save_pretrained(tmp_path / "whole")
    made = trim(model=tmp_path / "whole", corpus=corpus, vocab_size=250, output_dir=tmp_path / "out")
    assert not [key for key in load_file(made.path / "model.safetensors") if key.startswith("pooler")]
    config = json.loads((tmp_path / "whole" / "config.json").read_text(encoding="utf-8"))
    config["architectures"] = ["BertForSequenceClassification"]
    (tmp_path / "whole" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(InputError, match="lacks weights, such as "):
        trim(model=tmp_path / "whole", corpus=corpus, vocab_size=250, output_dir=tmp_path / "other")


@pytest.mark.parametrize("text, words", [("ba\n", "at least 2 are needed"), (" \n \nba\n", "kept aside is empty")])
def test_a_corpus_without_text_is_refused(text, words, tmp_path):
    whole = make_tokenizer("WordPiece")
    for part in (whole, make_model(whole, True)):
        part.save_pretrained(tmp_path / "whole")
    (tmp_path / "few.txt").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=words):
        trim(model=tmp_path / "whole", corpus=tmp_path / "few.txt", vocab_size=200, output_dir=tmp_path / "out")


def test_another_tokenizer_is_refused(corpus, tmp_path, monkeypatch):
    whole = make_tokenizer("WordPiece")
    for part in (whole, make_model(whole, True)):
        part.save_pretrained(tmp_path / "whole")
    monkeypatch.delitem(vocabulary.NEEDED, "WordPiece")
    with pytest.raises(InputError, match="its tokenizer is WordPiece; BPE, Unigram, WordLevel can be cut"):
        trim(model=tmp_path / "whole", corpus=corpus, vocab_size=200, output_dir=tmp_path / "out")
