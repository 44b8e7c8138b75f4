"""Documents to sequences: lengths, special tokens, what is dropped, and what is refused."""

import json
import re

import pytest
import torch
from datasets import Dataset

from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.files.data_files import check_file_columns, check_source
from efficientbert.train.text.batches import PaddingCollator
from efficientbert.train.text.corpus import cut_documents, hold_out, load_documents


@pytest.fixture(scope="module")
def tokenizer(teacher_folder):
    return Teacher.load(teacher_folder("bert")).tokenizer


def document(words: int) -> str:
    return " ".join(f"word{index % 60}" for index in range(words))


def test_documents_are_cut_with_special_tokens_and_nothing_is_lost(tokenizer):
    rows = cut_documents(Dataset.from_dict({"text": [document(28), document(14)]}), "text", tokenizer, 16)
    ids = [row["input_ids"] for row in rows]
    assert [len(row) for row in ids] == [16, 16, 16]
    assert all(row[0] == tokenizer.cls_token_id and row[-1] == tokenizer.sep_token_id for row in ids)
    words = [token for row in ids[:2] for token in row[1:-1]]
    assert words == tokenizer(document(28), add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (5, []),  # shorter than the shortest
        (6, [8]),  # 8 tokens, the only piece: kept though below half a sequence of 20
        (18, [20]),
        (18 + 7, [20]),  # the rest has 9 tokens, below half
        (18 + 8, [20, 10]),
    ],
)
def test_short_rests_are_dropped(words, kept, tokenizer):
    rows = cut_documents(Dataset.from_dict({"text": [document(words)]}), "text", tokenizer, 20)
    assert [len(row["input_ids"]) for row in rows] == kept


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".json", ".parquet", ".csv", ".tsv"])
@pytest.mark.parametrize("streaming", [False, True])
def test_every_kind_of_file_gives_the_same(suffix, streaming, tmp_path, tokenizer):
    texts = [document(20), document(33), document(14)]
    path = tmp_path / f"corpus{suffix}"
    if suffix == ".txt":
        path.write_text("\n".join(texts), encoding="utf-8")
    elif suffix.startswith(".json"):
        path.write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    elif suffix == ".parquet":
        Dataset.from_dict({"text": texts}).to_parquet(path)
    else:
        separator = "\t" if suffix == ".tsv" else ","
        columns = {"title": ["a, b"] * 3, "text": texts}
        Dataset.from_dict(columns).to_csv(path, index=False, sep=separator)
    documents = load_documents(str(path), None, "train", "text", streaming)
    rows = list(cut_documents(documents, "text", tokenizer, 16))
    expected = cut_documents(Dataset.from_dict({"text": texts}), "text", tokenizer, 16)
    assert [row["input_ids"] for row in rows] == expected["input_ids"][:]


def test_tabs_and_commas_are_not_taken_for_each_other(tmp_path):
    (tmp_path / "a.tsv").write_text("title\ttext, of it\nx\ty\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"no column 'text'; it has 'title', 'text, of it'"):
        check_file_columns(str(tmp_path / "a.tsv"), ["text"], "corpus")
    (tmp_path / "b.csv").write_text("text\nx\n", encoding="utf-8")
    with pytest.raises(InputError, match="matches files of several kinds"):
        check_source(str(tmp_path / "*sv"), "corpus")


def test_held_out_rows_are_not_trained_on(tokenizer):
    rows = Dataset.from_dict({"input_ids": [[index] for index in range(10)]})
    held_out, training = hold_out(rows, 3, 5, "corpus")
    assert [row["input_ids"][0] for row in held_out] == [0, 1, 2]
    assert [row["input_ids"][0] for row in training] == list(range(3, 10))
    with pytest.raises(InputError, match="gives 10 sequences, too few: at least 11"):
        hold_out(rows, 3, 8, "corpus")


def test_padding(tokenizer):
    batch = PaddingCollator(9)([{"input_ids": [1, 2, 3]}, {"input_ids": [4]}])
    assert torch.equal(batch["input_ids"], torch.tensor([[1, 2, 3], [4, 9, 9]]))
    assert torch.equal(batch["attention_mask"], torch.tensor([[1, 1, 1], [1, 0, 0]]))


def test_what_cannot_be_a_corpus(tmp_path):
    (tmp_path / "image.png").write_bytes(b"x")
    (tmp_path / "broken.parquet").write_bytes(b"not parquet")
    (tmp_path / "other.jsonl").write_text('{"body": "a"}\n', encoding="utf-8")
    for name, message in (
        ("image.png", "unknown kind of file"),
        ("broken.parquet", "no whole parquet file"),
        ("nothing-there", "nothing-there': does not exist"),
        ("other.jsonl", "no column 'text'; it has 'body'"),
    ):
        with pytest.raises(InputError, match=message):
            load_documents(str(tmp_path / name), None, "train", "text", False)


def test_a_truncated_shard_is_named(tmp_path):
    for shard in (0, 1, 2):
        Dataset.from_dict({"text": [document(30)] * 50}).to_parquet(tmp_path / f"train-{shard}.parquet")
    whole = (tmp_path / "train-1.parquet").read_bytes()
    (tmp_path / "train-1.parquet").write_bytes(whole[: len(whole) // 2])
    for streaming in (False, True):
        with pytest.raises(InputError, match=r"corpus .*train-1\.parquet': is no whole parquet file"):
            load_documents(str(tmp_path), None, "train", "text", streaming)
    (tmp_path / "train-1.parquet").write_bytes(b"")
    with pytest.raises(InputError, match=r"train-1\.parquet': is empty"):
        load_documents(str(tmp_path), None, "train", "text", True)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(("wrong", "texts"), [(3, [3, 17, 5]), (["a"], [["a"], None])])
def test_a_row_that_is_no_text_is_named(wrong, texts, streaming, tmp_path, tokenizer):
    path = tmp_path / "corpus.parquet"
    Dataset.from_dict({"text": texts}).to_parquet(path)
    documents = load_documents(str(path), None, "train", "text", streaming)
    with pytest.raises(InputError, match=rf"corpus 'mine': row 0: 'text' is {re.escape(str(wrong))}, not a text"):
        hold_out(cut_documents(documents, "text", tokenizer, 16, "mine"), 1, 1, "mine")


@pytest.mark.parametrize("streaming", [False, True])
def test_a_missing_document_is_an_empty_one(streaming, tmp_path, tokenizer):
    text = " ".join(f"word{index}" for index in range(12))
    path = tmp_path / "corpus.jsonl"
    path.write_text(f'{{"text": "{text}"}}\n{{"text": null}}\n{{"text": "{text}"}}\n', encoding="utf-8")
    documents = load_documents(str(path), None, "train", "text", streaming)
    rows = list(cut_documents(documents, "text", tokenizer, 16))
    assert [len(row["input_ids"]) for row in rows] == [14, 14]


@pytest.mark.parametrize("streaming", [False, True])
def test_numbers_and_words_for_nothing_are_text(streaming, tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "train.csv").write_text("text,n\n007,1\nNA,2\nNone,3\n,4\n1E5,5\n", encoding="utf-8")
    for source in (folder / "train.csv", folder, f"{folder}/*.csv"):
        documents = load_documents(str(source), None, "train", "text", streaming)
        assert [row["text"] for row in documents] == ["007", "NA", "None", None, "1E5"]


def test_a_byte_order_mark_is_no_text(tmp_path):
    for name, content in (("a.txt", "word1\n"), ("a.csv", "text\nword1\n"), ("a.jsonl", '{"text": "word1"}\n')):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content.encode())
        assert load_documents(str(tmp_path / name), None, "train", "text", False)["text"][:] == ["word1"]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_file_that_breaks_in_the_middle(streaming, tmp_path, tokenizer):
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"text": "word1"}\n' * 9 + '{"text": "wor\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"corpus .*: cannot be (loaded|read): .+") as caught:
        documents = load_documents(str(path), None, "train", "text", streaming)
        hold_out(cut_documents(documents, "text", tokenizer, 16), 8, 8, str(path))
    assert "\n" not in str(caught.value)
