"""Tags of words: which token a word is read off, losses and metrics against slow versions."""

import math
import random
from dataclasses import dataclass

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerFast

from efficientbert.train.cli.errors import InputError
from efficientbert.train.metrics import compute_metric
from efficientbert.train.metrics.entities import entities, read_tags, why_no_entities
from efficientbert.train.tasks.arguments import TaskArguments
from efficientbert.train.tasks.kinds import task_of_data, task_of_model
from efficientbert.train.tasks.tokens import IGNORED, NO_WORD


TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


@dataclass
class Outputs:
    """Stands for the outputs of a model."""

    logits: torch.Tensor


def piece_tokenizer() -> PreTrainedTokenizerFast:
    """WordPiece over single letters: a word of n letters has n pieces."""
    letters = "abcdefgh"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    tokenizer = Tokenizer(models.WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair=None, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", unk_token="[UNK]"
    )


def byte_tokenizer(trim_offsets: bool) -> PreTrainedTokenizerFast:
    """As RoBERTa's: bytes with the space before a word, here without any merge."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = {piece: index for index, piece in enumerate(["<s>", "<pad>", "</s>", *alphabet])}
    merges = [("Ġ", letter) for letter in "abcdefgh"]
    for merge in merges:
        pieces["".join(merge)] = len(pieces)
    tokenizer = Tokenizer(models.BPE(pieces, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=trim_offsets, add_prefix_space=False
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", model_input_names=["input_ids"])


def save(tmp_path, words, tags, feature=None, name="tags.parquet"):
    path = tmp_path / name
    features = Features({"tokens": List(Value("string")), "tags": List(feature or Value("string"))})
    Dataset.from_dict({"tokens": words, "tags": tags}, features=features).to_parquet(path)
    return path


def load(path, tokenizer, label_names=None, **arguments):
    task = task_of_data(TaskArguments(data=str(path), kind="token-classification", **arguments), tokenizer, "train")
    task.label_names = label_names or task.label_names
    return task, task.load("train")


def random_rows(seed=0, rows=12, most=9):
    rng = random.Random(seed)
    words = []
    for _ in range(rows):
        words.append(["".join(rng.choices("abcdefgh", k=rng.randint(1, 4))) for _ in range(rng.randint(1, most))])
    return words, [[rng.choice(TAGS) for _ in row] for row in words]


def test_a_word_is_read_off_its_first_piece(tmp_path):
    path = save(tmp_path, [["ab", "c", "def"], ["h"]], [["B-PER", "O", "B-LOC"], ["O"]])
    task, data = load(path, piece_tokenizer())
    assert (
        task.label_names == ("B-LOC", "B-PER", "O") and task.auto_class.__name__ == "AutoModelForTokenClassification"
    )
    # [CLS] a ##b c d ##e ##f [SEP]
    assert data.features["words"][:] == [[-1, 0, -1, 1, 2, -1, -1, -1], [-1, 0, -1]]
    assert data.features["labels"][:] == [[-100, 1, -100, 2, 0, -100, -100, -100], [-100, 2, -100]]
    assert data.features["input_ids"][1] == [2, 12, 3]


def test_joined_words_are_tokenised_as_lists_of_words_are(tmp_path):
    words, tags = random_rows()
    tokenizer = piece_tokenizer()
    _, data = load(save(tmp_path, words, tags), tokenizer)
    expected = tokenizer(words, is_split_into_words=True)
    assert data.features["input_ids"][:] == expected["input_ids"]
    for index, row in enumerate(data.features["words"]):
        seen, first = set(), []
        for word in expected.word_ids(index):
            first.append(NO_WORD if word is None or word in seen else word)
            seen.add(word)
        assert row == first


@pytest.mark.parametrize("trim_offsets", [True, False])
def test_byte_level_tokenizers(trim_offsets, tmp_path):
    _, data = load(save(tmp_path, [["ab", "c", "Xa"]], [["O", "O", "O"]]), byte_tokenizer(trim_offsets))
    # <s> a b Ġc Ġ X a </s>: of the last word, the piece that holds its first letter
    assert data.features["words"][0] == [-1, 0, -1, 1, -1, 2, -1, -1]


@pytest.mark.parametrize(("max_length", "doc_stride"), [(8, 0), (8, 3), (10, 32), (16, 4)])
def test_every_word_of_a_long_text_is_read_once_where_most_is_seen(max_length, doc_stride, tmp_path):
    words, tags = random_rows(seed=3, rows=6, most=30)
    tokenizer = piece_tokenizer()
    _, data = load(save(tmp_path, words, tags), tokenizer, max_length=max_length, doc_stride=doc_stride)
    room = max_length - 2
    step = room - min(doc_stride, room // 2)
    window = 0
    for row, texts in enumerate(words):
        pieces = tokenizer(texts, is_split_into_words=True, add_special_tokens=False)
        ids, owners = pieces["input_ids"], pieces.word_ids()
        windows = []  # slow: cut as long as something remains
        start = 0
        while True:
            windows.append((start, min(start + room, len(ids))))
            if start + room >= len(ids):
                break
            start += step
        best = {}
        for word in range(len(texts)):
            place = owners.index(word)
            scores = [
                min(place - a + 1, b - place) if a <= place < b else -1 for a, b in windows
            ]  # tokens up to the special ones
            best[place] = (word, scores.index(max(scores)))
        for number, (a, b) in enumerate(windows):
            feature = data.features[window]
            assert feature["row"] == row and feature["input_ids"][1:-1] == ids[a:b]
            expected = [best[p][0] if p in best and best[p][1] == number else NO_WORD for p in range(a, b)]
            assert feature["words"][1:-1] == expected
            window += 1
        read = [word for f in data.features if f["row"] == row for word in f["words"] if word != NO_WORD]
        assert sorted(read) == list(range(len(texts)))
    assert window == len(data.features)


def test_tags_are_read_by_name_in_the_models_order(tmp_path):
    path = save(tmp_path, [["a", "b", "c"]], [[0, 1, 2]], ClassLabel(names=["O", "B-PER", "B-LOC"]))
    task, data = load(path, piece_tokenizer())
    assert task.label_names == ("O", "B-PER", "B-LOC") and task.references(data) == [["O", "B-PER", "B-LOC"]]
    config = BertConfig(id2label={0: "B-LOC", 1: "O", 2: "B-PER"}, label2id={"B-LOC": 0, "O": 1, "B-PER": 2})
    task = task_of_model(TaskArguments(data=str(path), kind="token-classification"), piece_tokenizer(), config)
    data = task.load("train")
    assert data.features["labels"][0] == [-100, 1, 2, 0, -100]
    task.configure(other := BertConfig())
    assert other.num_labels == 3 and other.id2label[2] == "B-PER" and task.references(data)[0][2] == "B-LOC"


def test_tags_of_numbers_are_no_entities(tmp_path):
    path = save(tmp_path, [["a", "b", "c"]], [[11, 2, 11]], Value("int64"))
    task, data = load(path, piece_tokenizer())
    assert task.label_names == ("2", "11") and task.metric() == "tags"
    assert data.features["labels"][0] == [-100, 1, 0, 1, -100] and task.references(data) == [["11", "2", "11"]]
    task, _ = load(save(tmp_path, [["a", "b", "c"]], [["11", "2", "11"]], Value("string")), piece_tokenizer())
    assert task.label_names == ("2", "11")


def test_losses_are_sums_over_words(tmp_path):
    words, tags = random_rows(seed=5)
    task, data = load(save(tmp_path, words, tags), piece_tokenizer(), TAGS, max_length=12, doc_stride=4)
    batch = task.collate([data.features[index] for index in range(len(data.features))])
    assert batch["labels"].shape == batch["input_ids"].shape == batch["words"].shape
    torch.manual_seed(0)
    logits = torch.randn(*batch["input_ids"].shape, 5)
    teacher = torch.randn(*batch["input_ids"].shape, 5)
    hard = soft = words_seen = 0
    for window, feature in enumerate(data.features):
        for token, word in enumerate(feature["words"]):
            if word == NO_WORD:
                continue
            words_seen += 1
            student = logits[window, token].double()
            hard -= student.log_softmax(-1)[TAGS.index(tags[feature["row"]][word])].item()
            target = [math.exp(value / 2) for value in teacher[window, token].tolist()]
            logs = (student / 2).log_softmax(-1).tolist()
            soft -= 4 * sum(weight / sum(target) * value for weight, value in zip(target, logs))
    assert task.count(batch) == words_seen == sum(map(len, words))
    assert task.loss(Outputs(logits), batch).item() == pytest.approx(hard, rel=1e-5)
    assert task.soft_loss(Outputs(logits), Outputs(teacher), batch, 2.0).item() == pytest.approx(soft, rel=1e-5)


def test_predictions_stand_at_their_words(tmp_path):
    words, tags = random_rows(seed=7, rows=5, most=25)
    words[2], tags[2] = [], []
    words[3][1] = ""
    task, data = load(save(tmp_path, words, tags), piece_tokenizer(), TAGS, max_length=10, doc_stride=3)
    order = list(range(len(data.features)))
    random.Random(0).shuffle(order)
    logits = [None] * len(order)
    for start in range(0, len(order), 4):
        chosen = order[start : start + 4]
        batch = task.collate([data.features[index] for index in chosen])
        perfect = torch.nn.functional.one_hot(batch["labels"].clamp_min(0), 5).float()
        for index, row in zip(chosen, task.logits(Outputs(perfect), batch)):
            logits[index] = row
    predicted = task.predict(logits, data)
    assert task.references(data) == tags
    tags[3][1] = "O"  # the word without a piece
    assert predicted == tags


def test_a_model_runs_on_its_batches(tmp_path):
    words, tags = random_rows(seed=9, rows=4)
    task, data = load(save(tmp_path, words, tags), piece_tokenizer())
    config = BertConfig(vocab_size=21, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    task.configure(config)
    model = BertForTokenClassification(config).eval()
    batch = task.collate([data.features[index] for index in range(4)])
    outputs = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    theirs = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"]).loss
    assert torch.allclose(task.loss(outputs, batch) / task.count(batch), theirs)
    assert (batch["labels"] == IGNORED).sum() == batch["labels"].numel() - task.count(batch)


@pytest.mark.parametrize(
    ("words", "tags", "message"),
    [
        ([["a"], ["a", "b"]], [["O"], ["O"]], "row 1: has 2 words but 1 tags"),
        ([["a"], None], [["O"], ["O"]], "row 1: 'tokens' is 'None', not a list of words"),
        ([["a"], ["a", "b"]], [["O"], ["O", None]], "row 1: 'tags' is missing, as in 1 of 2 rows"),
        ([["a"], ["a"]], [["None"], [None]], "row 1: 'tags' is missing, as in 1 of 2 rows"),
        ([["a"], ["a"]], [["O"], None], "row 1: 'tags' is missing, as in 1 of 2 rows"),
    ],
)
def test_rows_that_cannot_be_read(words, tags, message, tmp_path):
    with pytest.raises(InputError, match=message):
        load(save(tmp_path, words, tags), piece_tokenizer())


def test_data_that_cannot_be_read(tmp_path):
    path = save(tmp_path, [["a"]], [[0.5]], Value("float64"))
    with pytest.raises(InputError, match=r"'tags' holds .*lists of names or ids are needed"):
        load(path, piece_tokenizer())
    path = save(tmp_path, [["a"]], [["X"]], name="other.parquet")
    with pytest.raises(InputError, match="row 0: tag 'X' is not among 'O', 'B-PER'"):
        load(path, piece_tokenizer(), TAGS)
    with pytest.raises(InputError, match="no column 'ner'"):
        load(path, piece_tokenizer(), label_column="ner")


def slow_entities(tags):
    """The tables of conlleval, one question a border: does an entity end before this word, does one start at it?"""
    found, start = [], None
    for index in range(len(tags) + 1):
        before, now = (tags[i] if 0 <= i < len(tags) else "O" for i in (index - 1, index))
        p, q = before[0], now[0]
        other = before[2:] != now[2:]
        ends = p in "ES" or (p + q) in ("BB", "BS", "BO", "IB", "IS", "IO") or (p != "O" and other)
        starts = q in "BS" or (p + q) in ("EE", "EI", "SE", "SI", "OE", "OI") or (q != "O" and other)
        if start is not None and ends:
            found.append((before[2:], start, index - 1))
            start = None
        if starts:
            start = index
    return found


def slow_scores(predictions, references):
    predicted = [(row, *entity) for row, tags in enumerate(predictions) for entity in slow_entities(tags)]
    true = [(row, *entity) for row, tags in enumerate(references) for entity in slow_entities(tags)]
    hits = sum(entity in true for entity in predicted)
    precision, recall = hits / len(predicted), hits / len(true)
    words = [p == r for ps, rs in zip(predictions, references) for p, r in zip(ps, rs)]
    return {
        "f1": 2 * precision * recall / (precision + recall),
        "precision": precision,
        "recall": recall,
        "accuracy": sum(words) / len(words),
    }


@pytest.mark.parametrize("prefixes", ["BI", "BIES"])
@pytest.mark.parametrize("seed", range(4))
def test_entity_metric_against_a_slow_version(prefixes, seed):
    rng = random.Random(seed)
    known = ["O", *(f"{prefix}-{kind}" for prefix in prefixes for kind in ("A", "B-C"))]
    references = [rng.choices(known, k=rng.randint(0, 12)) for _ in range(80)]
    predictions = [[tag if rng.random() < 0.7 else rng.choice(known) for tag in tags] for tags in references]
    assert compute_metric("entities", predictions, references) == pytest.approx(slow_scores(predictions, references))


def test_entity_metric_by_hand():
    references = [["B-PER", "I-PER", "O", "B-LOC"], ["B-LOC", "B-LOC"]]
    predictions = [["B-PER", "I-PER", "O", "O"], ["B-LOC", "I-LOC"]]
    expected = {"f1": 2 / 6, "precision": 1 / 2, "recall": 1 / 4, "accuracy": 4 / 6}
    assert compute_metric("entities", predictions, references) == pytest.approx(expected)
    assert compute_metric("tags", predictions, references) == pytest.approx({"accuracy": 4 / 6})
    # A lost B- loses no entity, one of another type begins without it, and none goes over the end of a text.
    assert compute_metric("entities", [["O", "I-A", "I-B"], ["I-B"]], [["O", "B-A", "B-B"], ["B-B"]])["f1"] == 1
    assert set(compute_metric("entities", [["O"]], [["O"]]).values()) == {0.0, 1.0}


def test_entity_metric_refuses():
    with pytest.raises(InputError, match="text 0 has 2 tags but 1 predicted"):
        compute_metric("entities", [["O"]], [["O", "O"]])
    with pytest.raises(InputError, match="tag 'NOUN' marks no entity"):
        compute_metric("entities", [["NOUN"]], [["NOUN"]])


def spans_of(rng):
    """A text's number of words and its entities as (type, first word, word behind the last), some side by side."""
    spans, place = [], 0
    for _ in range(rng.randint(0, 5)):
        place += rng.choice([0, 0, 1, 3])
        length = rng.randint(1, 4)
        spans.append((rng.choice(["per", "LOC-x", "B"]), place, place + length))
        place += length
    return place + rng.randint(0, 2), spans


def encode(words, spans, scheme, form):
    """Tags of entities, written out from the definition of a scheme."""
    tags, ends = ["O"] * words, {end: kind for kind, _, end in spans}
    starts = {start: kind for kind, start, _ in spans}
    for kind, start, end in spans:
        middle = {"BMES": "M", "BMEWO": "M"}.get(scheme, "I")
        letters = [middle] * (end - start)
        if scheme == "IOB1":
            letters[0] = "B" if ends.get(start) == kind else "I"
        elif scheme == "IOE1":
            letters[-1] = "E" if starts.get(end) == kind else "I"
        elif scheme == "IOE2":
            letters[-1] = "E"
        else:
            letters[0] = "B"
        if scheme in ("IOBES", "BILOU", "BMES", "BMEWO"):
            letters[-1] = "L" if scheme == "BILOU" else "E"
            if len(letters) == 1:
                letters = [{"IOBES": "S", "BMES": "S", "BILOU": "U", "BMEWO": "W"}[scheme]]
        tags[start:end] = [form.format(letter=letter, kind=kind) for letter in letters]
    return tags


@pytest.mark.parametrize("form", ["{letter}-{kind}", "{kind}-{letter}", "{letter}_{kind}", "{kind}_{letter}"])
@pytest.mark.parametrize("scheme", ["IOB1", "BIO", "IOE1", "IOE2", "IOBES", "BILOU", "BMES", "BMEWO"])
def test_the_same_entities_in_every_scheme(scheme, form):
    rng = random.Random(scheme + form)
    texts = [spans_of(rng) for _ in range(60)]
    for lower in (False, True):
        tags = [encode(*text, scheme, form) for text in texts]
        if lower:
            tags = [[lower_letter(tag, form) for tag in text] for text in tags]
        known = {tag for text in tags for tag in text}
        assert why_no_entities(known) is None
        read = read_tags(known)
        assert [entities(map(read.get, text)) for text in tags] == [set(spans) for _, spans in texts]
        figures = compute_metric("entities", tags, tags)
        assert figures == {"f1": 1.0, "precision": 1.0, "recall": 1.0, "accuracy": 1.0}


def lower_letter(tag, form):
    """A tag with its letter, not its type, in lower case."""
    if tag == "O":
        return "o"
    return tag[0].lower() + tag[1:] if form.startswith("{letter}") else tag[:-1] + tag[-1].lower()


def test_entities_by_hand_in_bilou():
    """Of John Smith, New York and X, one is found, one is cut short and one is missed."""
    references = [["B-PER", "L-PER", "O", "O", "B-LOC", "L-LOC", "U-X"]]
    predictions = [["B-PER", "L-PER", "O", "O", "U-LOC", "O", "O"]]
    assert compute_metric("entities", predictions, references) == pytest.approx(
        {"f1": 2 / 5, "precision": 1 / 2, "recall": 1 / 3, "accuracy": 4 / 7}
    )


def test_tags_without_types():
    """Words of a text without spaces, as BMES marks them."""
    read = read_tags("BMES")
    assert entities(map(read.get, "BMESBES")) == {("", 0, 3), ("", 3, 4), ("", 4, 6), ("", 6, 7)}


def test_all_tags_there_are_say_what_one_means():
    """A few rows show only tags of one type, which could as well be read the other way round."""
    assert compute_metric("entities", [["S-B", "S-I"]], [["S-B", "S-I"]], tags=["S-B", "S-I", "V-B", "V-I", "O"])[
        "f1"
    ] == pytest.approx(1)
    few = [["S-B", "S-I"]], [["S-B", "O"]]
    assert compute_metric("entities", *few, tags=["V-B", "O"])["precision"] == 0.0
    assert compute_metric("entities", *few)["precision"] == 0.5


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        (["ADJ", "NOUN"], "tag 'ADJ' marks no entity: it is neither 'O' nor like 'B-PER' or 'PER-B'"),
        (["O"], "no tag marks an entity"),
        (["B-PER", "PER-I"], "tags 'B-PER', 'PER-I' are of different forms"),
        (["B-PER", "U-PER", "W-PER"], "the letters 'B', 'U', 'W' are of no scheme: BIO, IOE, IOBES, BILOU"),
        (["S", "M", "L"], "the letters 'L', 'M', 'S' are of no scheme"),
        (["S", "M"], "the letters 'M', 'S' are of no scheme"),
    ],
)
def test_other_tags_get_accuracy_and_a_line_that_says_why(tags, reason, tmp_path, capsys):
    path = save(tmp_path, [["a"] * len(tags)], [tags])
    task = load(path, piece_tokenizer())[0]
    config = BertConfig()
    task.configure(config)
    lines = capsys.readouterr().out.splitlines()
    again = task_of_model(TaskArguments(data=str(path), kind="token-classification"), piece_tokenizer(), config)
    assert capsys.readouterr().out.splitlines() == lines and len(lines) == 1
    assert lines[0].startswith(f"data '{path}': scored by the accuracy of tags, without F1 of entities: {reason}")
    assert task.metric() == again.metric() == "tags" and task.metric_options() == {}
    load(path, piece_tokenizer(), metric="tags")
    assert capsys.readouterr().out == ""


def test_real_tags_in_bilou(shared, tmp_path, capsys):
    arguments = TaskArguments(data=str(shared / "cases" / "tok_bilou.jsonl"), kind="token-classification")
    task = task_of_data(arguments, piece_tokenizer(), "train")
    data = task.load("train")
    assert task.metric() == "entities" and capsys.readouterr().out == ""
    references = task.references(data)
    assert compute_metric("entities", references, references, **task.metric_options())["f1"] == 1.0


@pytest.mark.parametrize(
    ("tags", "metric"),
    [
        (["O", "B-A", "I-A"], "entities"),
        (["B-A", "E-A", "S-A", "O"], "entities"),
        (["NOUN", "O"], "tags"),
        (["O"], "tags"),
        (["INTJ", "B-A"], "tags"),
        (["b-per", "i-per", "o"], "entities"),
        (["PER-B", "PER-I", "O"], "entities"),
        (["B-A", "L-A", "U-B", "O"], "entities"),
        (["B", "M", "E", "S"], "entities"),
    ],
)
def test_metric_that_suits_the_tags(tags, metric, tmp_path):
    task, _ = load(save(tmp_path, [["a"] * len(tags)], [tags]), piece_tokenizer())
    assert task.metric() == metric
