"""Augmentation: candidates against one-by-one predictions, draws against their chances, and the file that is kept."""

import copy
import gc
import json
import os
import random
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value, load_dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, BertModel, PreTrainedTokenizerFast

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.modeling_efficientbert import EfficientBertForMaskedLM
from efficientbert.train.augment import main
from efficientbert.train.cli.command import run_command
from efficientbert.train.cli.errors import InputError
from efficientbert.train.tasks import augmentation
from efficientbert.train.tasks.arguments import AugmentArguments
from efficientbert.train.tasks.augmentation import augment_rows
from efficientbert.train.tasks.word_replacement import Replacer, Word, rewrite, whole_words


SIZES = {"vocab_size": 65, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"max_position_embeddings": 32, "initializer_range": 0.4}
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "##s", "##ly", ",", "x", "##x", "no1"]


@pytest.fixture(scope="module")
def tokenizer(teacher_folder):
    return AutoTokenizer.from_pretrained(teacher_folder("bert"))


def make_model(family="bert", vocab_size=65):
    torch.manual_seed(0)
    sizes = SIZES | {"vocab_size": vocab_size}
    if family == "bert":
        return BertForMaskedLM(BertConfig(**sizes, intermediate_size=16)).eval()
    return EfficientBertForMaskedLM(EfficientBertConfig(**sizes)).eval()


def piece_tokenizer():
    vocabulary = {piece: index for index, piece in enumerate(PIECES)}
    inner = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "mask_token": "[MASK]"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]", **names)


@pytest.fixture(scope="module")
def masked_lm(tmp_path_factory, tokenizer):
    """The folder of a masked language model."""
    path = tmp_path_factory.mktemp("masked-lm")
    make_model().save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def task_rows(count, seed=0):
    rng = random.Random(seed)

    def text(least):
        return " ".join(f"word{rng.randrange(60)}" for _ in range(rng.randint(least, 7)))

    return {
        "idx": list(range(count)),
        "a": [text(1) for _ in range(count)],
        "b": [text(0) for _ in range(count)],
        "label": [rng.randrange(2) for _ in range(count)],
    }


def save(path, columns):
    features = {
        "idx": Value("int32"),
        "a": Value("string"),
        "b": Value("string"),
        "label": ClassLabel(names=["n", "y"]),
    }
    Dataset.from_dict(columns, features=Features(features)).to_parquet(path)
    return str(path)


def arguments(masked_lm, data, output, **more):
    known = {
        "text_column": "a",
        "text_pair_column": "b",
        "max_length": 16,
        "device": "cpu",
        "copies": 5,
        "candidates": 4,
    }
    return AugmentArguments(model=str(masked_lm), data=data, output_file=str(output), **(known | more))


@pytest.mark.parametrize("family", ["bert", "efficientbert"])
@pytest.mark.parametrize("batch_size", [1, 7])
def test_candidates_are_the_most_probable_words_one_by_one(family, batch_size, tokenizer):
    model = make_model(family)
    replacer = Replacer(model, tokenizer, 8, 5, batch_size)
    texts = task_rows(12)["b"]
    found = replacer.find(texts)
    model = copy.deepcopy(model).double()
    for text, (_, words), lists in zip(texts, found, replacer.candidates(found)):
        pieces = text.split()
        assert [text[word.start : word.end] for word in words] == pieces[:6]  # 8 tokens less the special ones
        for number, names in enumerate(lists):
            ids = [2, *(5 + int(piece.removeprefix("word")) for piece in pieces[:6]), 3]
            ids[1 + number] = 4
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids])).logits[0, 1 + number].tolist()
            best = sorted(range(5, 65), key=lambda index: -logits[index])[:5]
            assert names == [f"word{index - 5}" for index in sorted(best)]


def test_known_predictions():
    """With equal hidden states everywhere the bias alone decides, and only whole words are candidates."""
    tokenizer = piece_tokenizer()
    model = make_model(vocab_size=len(PIECES))
    with torch.no_grad():
        model.cls.predictions.decoder.weight.zero_()
        model.cls.predictions.decoder.bias.copy_(torch.arange(len(PIECES)))
    assert whole_words(tokenizer) == {5: "good", 6: "bad", 7: "film", 11: "x", 13: "no1"}
    replacer = Replacer(model, tokenizer, 16, 3, 4)
    # "films" and "goodly" are two pieces, "zzz" is unknown, "," no word.
    text = "good films , bad x goodly zzz"
    ((ids, words),) = found = replacer.find([text])
    assert ids == [2, 5, 7, 8, 10, 6, 11, 5, 9, 1, 3]
    assert words == [Word(1, 0, 4), Word(5, 13, 16), Word(6, 17, 18)]
    assert replacer.candidates(found) == [[["film", "x", "no1"]] * 3]
    variants = rewrite(text, words, [["film"]] * 3, 1, 1.0, np.random.default_rng(0))
    assert variants == ["film films , film film goodly zzz"]


def test_byte_level_words(tmp_path):
    """Only tokens with the space before them are whole words."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = {piece: index for index, piece in enumerate(["<s>", "<pad>", "</s>", "<mask>", *alphabet])}
    for piece in ("Ġa", "Ġb", "Ġ,"):
        pieces[piece] = len(pieces)
    inner = Tokenizer(models.BPE(pieces, [("Ġ", "a"), ("Ġ", "b"), ("Ġ", ",")]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", mask_token="<mask>")
    assert whole_words(tokenizer) == {pieces["Ġa"]: "a", pieces["Ġb"]: "b"}
    replacer = Replacer(make_model(vocab_size=len(pieces)), tokenizer, 16, 2, 4)
    ((_, words),) = replacer.find(["a b ,"])
    assert [(word.start, word.end) for word in words] == [(0, 1), (2, 3)]


def test_chances_of_replacement():
    """Each word is replaced with p_t, by each candidate equally often, independently of the others."""
    words = [Word(1, 0, 1), Word(2, 2, 3)]
    candidates = [["p", "q", "r"], ["s", "t", "u"]]
    variants = rewrite("a b", words, candidates, 20_000, 0.4, np.random.default_rng(1))
    counts = Counter(variants)
    for first, chance in (("a", 0.6), *((name, 0.4 / 3) for name in "pqr")):
        for second, other in (("b", 0.6), *((name, 0.4 / 3) for name in "stu")):
            expected = chance * other
            assert counts[f"{first} {second}"] / 20_000 == pytest.approx(expected, abs=5 * (expected / 20_000) ** 0.5)
    assert rewrite("...", [], [], 3, 0.4, np.random.default_rng(0)) == ["..."] * 3


def test_the_file(masked_lm, tokenizer, tmp_path):
    rows = task_rows(24)
    data = save(tmp_path / "train.parquet", rows)
    main(arguments(masked_lm, data, tmp_path / "out.parquet"))
    source = load_dataset("parquet", data_files=data, split="train")
    augmented = load_dataset("parquet", data_files=str(tmp_path / "out.parquet"), split="train")
    assert augmented.features == source.features and sorted(os.listdir(tmp_path)) == ["out.parquet", "train.parquet"]
    groups = {}
    for row in augmented:
        groups.setdefault(row["idx"], []).append(row)
    assert list(groups) == rows["idx"]
    copies = 0
    replacer = Replacer(make_model(), tokenizer, 16, 4, 3)
    for original in source:
        group = groups[original["idx"]]
        assert group[0] == original and {row["label"] for row in group} == {original["label"]}
        texts = [(row["a"], row["b"]) for row in group]
        assert len(set(texts)) == len(texts) <= 6
        copies += len(group) - 1
        # Every changed word is a candidate of its place.
        for column in ("a", "b"):
            found = replacer.find([original[column]])
            (lists,) = replacer.candidates(found)
            for row in group:
                old, new = original[column].split(), row[column].split()
                assert len(old) == len(new)
                assert all(x == y or y in names for x, y, names in zip(old, new, lists))
    assert copies > 2.5 * len(source)
    # In every copy both texts of a pair can have changed, with draws of their own.
    changed = Counter((row["a"] != rows["a"][row["idx"]], row["b"] != rows["b"][row["idx"]]) for row in augmented)
    assert min(changed[True, True], changed[True, False], changed[False, True]) > 8


def test_draws_depend_on_the_seed_and_the_row_alone(masked_lm, tmp_path):
    data = save(tmp_path / "train.parquet", task_rows(16))
    tables = {}
    for name, more in {
        "one": {"batch_size": 1},
        "many": {"batch_size": 50},
        "seed": {"seed": 1},
    }.items():
        path = main(arguments(masked_lm, data, tmp_path / f"{name}.parquet", **more)).path
        tables[name] = pq.read_table(path).to_pylist()
    assert tables["one"] == tables["many"] != tables["seed"]
    path = main(arguments(masked_lm, data, tmp_path / "part.parquet", split="train[:10]")).path
    assert pq.read_table(path).to_pylist() == [row for row in tables["one"] if row["idx"] < 10]


def test_equal_rows_get_variants_of_their_own(tokenizer):
    rows = [{"a": "word1 word2 word3 word4 word5"}] * 2
    args = AugmentArguments(model="m", output_file="o.parquet", copies=4)
    results = augment_rows(rows, 0, ("a",), Replacer(make_model(), tokenizer, 16, 8, 8), args)
    texts = [row["a"] for row in results]
    second = texts.index(rows[0]["a"], 1)
    assert texts[1:second] != texts[second + 1 :]


def test_a_finished_file_is_used_again_and_others_refused(masked_lm, tmp_path, capsys):
    data = save(tmp_path / "train.parquet", task_rows(8))
    args = arguments(masked_lm, data, tmp_path / "out.parquet")
    main(args)
    before = identity(tmp_path / "out.parquet")
    main(arguments(masked_lm, data, tmp_path / "out.parquet", batch_size=3))
    assert identity(tmp_path / "out.parquet") == before and "is complete already" in capsys.readouterr().out
    record = json.loads(pq.read_schema(tmp_path / "out.parquet").metadata[b"efficientbert_augment"])
    assert record["copies"] == 5 and record["model"] == str(masked_lm)
    with pytest.raises(InputError, match=r"holds seed=0, not 1; choose .* or delete out\.parquet"):
        main(arguments(masked_lm, data, tmp_path / "out.parquet", seed=1))
    changed = task_rows(8)
    changed["label"][3] = 1 - changed["label"][3]
    save(tmp_path / "train.parquet", changed)
    with pytest.raises(InputError, match="holds rows="):
        main(args)
    with pytest.raises(InputError, match="exists, and is no augmented data"):
        main(arguments(masked_lm, data, data))
    assert identity(tmp_path / "out.parquet") == before


def identity(path):
    """What changes when a file is written again, but not when it is read."""
    found = os.stat(path)
    return found.st_ino, found.st_size, found.st_mtime_ns


class Stop(BaseException):
    """Ends a run as a signal would."""


def test_an_interrupted_run_goes_on(masked_lm, tmp_path, monkeypatch):
    monkeypatch.setattr(augmentation, "BLOCK_ROWS", 8)
    data = save(tmp_path / "train.parquet", task_rows(20))
    whole = main(arguments(masked_lm, data, tmp_path / "whole.parquet")).path
    write_block = augmentation.AugmentedFile.write_block

    def write_and_stop(file, first, table):
        if first == 16:
            file.block(first).with_suffix(".writing").write_bytes(b"half")
            raise Stop
        write_block(file, first, table)

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(augmentation.AugmentedFile, "write_block", write_and_stop)
        main(arguments(masked_lm, data, tmp_path / "out.parquet"))
    gc.collect()  # lets go of the lock, as the end of a process does
    work = tmp_path / "out.parquet.partial"
    assert not (tmp_path / "out.parquet").exists() and len(list(work.glob("*.parquet"))) == 2
    with pytest.raises(InputError, match=r"was begun with copies=5, not 6; .*delete out\.parquet\.partial"):
        main(arguments(masked_lm, data, tmp_path / "out.parquet", copies=6))
    with (
        monkeypatch.context() as patch,
        pytest.raises(InputError, match=r"model '.*': has changed since the run began"),
    ):
        patch.setattr("efficientbert.train.files.digests.digest_model", lambda name: "of others")
        main(arguments(masked_lm, data, tmp_path / "out.parquet"))
    rows_done = []
    monkeypatch.setattr(
        augmentation, "augment_rows", lambda rows, *more: rows_done.append(len(rows)) or augment_rows(rows, *more)
    )
    main(arguments(masked_lm, data, tmp_path / "out.parquet"))
    assert rows_done == [4] and not work.exists()
    # Blocks of any size give the same rows.
    monkeypatch.setattr(augmentation, "BLOCK_ROWS", 20)
    again = main(arguments(masked_lm, data, tmp_path / "again.parquet")).path
    assert all(pq.read_table(tmp_path / name).equals(pq.read_table(whole)) for name in ("out.parquet", again))


def test_one_process_at_a_time_and_no_foreign_folder(masked_lm, tmp_path):
    data = save(tmp_path / "train.parquet", task_rows(4))
    (tmp_path / "out.parquet.partial").mkdir()
    (tmp_path / "out.parquet.partial" / "mine").write_text("")
    with pytest.raises(InputError, match="is in the way"):
        main(arguments(masked_lm, data, tmp_path / "out.parquet"))
    file = augmentation.AugmentedFile(tmp_path / "other.parquet", {}, dict)
    file.open()
    with pytest.raises(InputError, match="another process is working on it"):
        augmentation.AugmentedFile(tmp_path / "other.parquet", {}, dict).open()


def test_models_that_do_not_do(masked_lm, tokenizer, teacher_folder, tmp_path, capsys):
    data = save(tmp_path / "train.parquet", task_rows(4))
    BertModel(BertConfig(**SIZES, intermediate_size=16)).save_pretrained(tmp_path / "headless")
    EfficientBertForMaskedLM(EfficientBertConfig(**SIZES)).efficientbert.save_pretrained(tmp_path / "ours")
    for name in ("headless", "ours"):
        tokenizer.save_pretrained(tmp_path / name)
        with pytest.raises(InputError, match="has no trained masked-LM head"):
            main(arguments(tmp_path / name, data, tmp_path / "out.parquet"))
    with pytest.raises(InputError, match="reads at most 32 tokens, not 33"):
        main(arguments(masked_lm, data, tmp_path / "out.parquet", max_length=33))
    with pytest.raises(InputError, match="cannot be loaded"):
        main(arguments(tmp_path / "nothing", data, tmp_path / "out.parquet"))
    tokenizer_without = piece_tokenizer()
    tokenizer_without.mask_token = None
    with pytest.raises(InputError, match="needs a fast tokenizer with a mask"):
        Replacer(make_model(), tokenizer_without, 16, 3, 4)
    flags = ["--model", str(tmp_path / "ours"), "--data", data, "--output_file", str(tmp_path / "out.parquet")]
    with pytest.raises(SystemExit) as stopped:
        run_command(main, AugmentArguments, "augment", [*flags, "--text_column", "a"])
    assert stopped.value.code == 2 and len(capsys.readouterr().err.strip().splitlines()[-1:]) == 1
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["headless", "ours", "train.parquet"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"copies": 0}, "copies: must be at least 1"),
        ({"candidates": 0}, "candidates: must be at least 1"),
        ({"replace_probability": 0.0}, "replace_probability: must be above 0"),
        ({"seed": -1}, "seed: must be between 0 and 4294967295, not -1"),
        ({"output_file": "x.csv"}, r"must end in \.parquet"),
        ({"kind": "multiple-choice"}, "only text-classification can be augmented"),
        ({"text_column": None}, "text_column: must name"),
        ({"label_column": "gold"}, "no column 'gold'"),
        ({"text_column": "idx"}, "row 0: 'idx' is 0, not a text"),
    ],
)
def test_arguments_that_do_not_do(more, message, masked_lm, tmp_path):
    data = save(tmp_path / "train.parquet", task_rows(4))
    output = more.pop("output_file", tmp_path / "out.parquet")
    with pytest.raises(InputError, match=message):
        main(arguments(masked_lm, data, output, **more))
    assert os.listdir(tmp_path) == ["train.parquet"]


def test_our_own_masked_lm(tokenizer, tmp_path):
    make_model("efficientbert").save_pretrained(tmp_path / "ours")
    tokenizer.save_pretrained(tmp_path / "ours")
    data = save(tmp_path / "train.parquet", task_rows(4))
    path = main(arguments(tmp_path / "ours", data, tmp_path / "out.parquet")).path
    assert pq.read_metadata(path).num_rows > 8
