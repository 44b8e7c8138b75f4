"""Shared by all tests: no network, tiny teachers, tokenizers and texts made in-process."""

import os


os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models gain nothing from threads, and lose where cores are shared

import gc
import random
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    DebertaV2Config,
    DebertaV2Model,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    MPNetConfig,
    MPNetModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)


WORDS = [f"word{index}" for index in range(60)]


def pytest_collection_finish() -> None:
    """What the imports made stays: searches collect garbage after every candidate, which then takes no time."""
    gc.freeze()


def make_tokenizer(roberta: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words; special tokens first, in the order of BERT or of RoBERTa."""
    special = (
        ["<s>", "<pad>", "</s>", "<unk>", "<mask>"] if roberta else ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    )
    start, end, pad, unk, mask = (0, 2, 1, 3, 4) if roberta else (2, 3, 0, 1, 4)
    vocabulary = {word: index for index, word in enumerate(special + WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=special[unk]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    first, second = special[start], special[end]
    pair = f"{first} $A {second} $B {second}" if roberta else f"{first} $A {second} $B:1 {second}:1"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {second}", pair=pair, special_tokens=[(first, start), (second, end)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        cls_token=first,
        sep_token=second,
        pad_token=special[pad],
        unk_token=special[unk],
        mask_token=special[mask],
        model_input_names=["input_ids", "attention_mask"] + ([] if roberta else ["token_type_ids"]),
    )


def make_teacher_model(family: str) -> PreTrainedModel:
    """A tiny random encoder of a family: 4 layers of width 24, 3 heads."""
    sizes = {"vocab_size": 5 + len(WORDS), "hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 3}
    sizes |= {"intermediate_size": 40, "max_position_embeddings": 64, "initializer_range": 0.3}
    offset = {"max_position_embeddings": 66, "pad_token_id": 1}
    torch.manual_seed(0)
    if family == "bert":
        return BertModel(BertConfig(**sizes), add_pooling_layer=False)
    if family == "roberta":
        return RobertaModel(RobertaConfig(**(sizes | offset | {"type_vocab_size": 1})), add_pooling_layer=False)
    if family == "electra":
        return ElectraModel(ElectraConfig(**sizes, embedding_size=16))
    if family == "mpnet":
        return MPNetModel(MPNetConfig(**(sizes | offset)), add_pooling_layer=False)
    if family == "distilbert":
        sizes = {"vocab_size": 5 + len(WORDS), "dim": 24, "n_layers": 4, "n_heads": 3, "hidden_dim": 40}
        return DistilBertModel(DistilBertConfig(**sizes, max_position_embeddings=64, initializer_range=0.3))
    return DebertaV2Model(DebertaV2Config(**sizes, relative_attention=True, pos_att_type=["c2p", "p2c"]))


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory):
    """Gives the folder of a tiny teacher of a family: bert, roberta, electra, mpnet, distilbert or deberta."""
    made: dict[str, str] = {}

    def folder(family: str = "bert") -> str:
        if family not in made:
            path = tmp_path_factory.mktemp(f"teacher-{family}")
            make_teacher_model(family).save_pretrained(path)
            make_tokenizer(roberta=family in ("roberta", "mpnet")).save_pretrained(path)
            made[family] = str(path)
        return made[family]

    return folder


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory) -> str:
    """A text file of 80 documents of 20 to 60 words, one a line."""
    rng = random.Random(0)
    lines = [" ".join(rng.choice(WORDS) for _ in range(rng.randint(20, 60))) for _ in range(80)]
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture(scope="session")
def task_file(tmp_path_factory) -> str:
    """A CSV with 64 rows of `text` and `label`: whether word0 stands first."""
    rng = random.Random(1)
    rows = ["text,label"]
    for index in range(64):
        rest = " ".join(rng.choice(WORDS[2:]) for _ in range(rng.randint(3, 9)))
        rows.append(f"{WORDS[index % 2]} {rest},{('yes', 'no')[index % 2]}")
    path = tmp_path_factory.mktemp("task") / "task.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture(scope="session")
def student_file(tmp_path_factory) -> str:
    """A config.json of a tiny student: 2 layers of width 18, 3 heads."""
    path = tmp_path_factory.mktemp("student") / "student.json"
    path.write_text(
        '{"hidden_size": 18, "num_hidden_layers": 2, "num_attention_heads": 3, "embedding_size": 8}', encoding="utf-8"
    )
    return str(path)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and teachers beside the repository; the test is skipped where there is none."""
    path = Path(__file__).parents[2] / "shared"
    if not path.exists():
        pytest.skip("needs ../shared, which is not here")
    return path
