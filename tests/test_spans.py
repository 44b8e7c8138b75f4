"""Question answering: windows, labels, losses, decoding and the no-answer threshold."""

import math
import random

import numpy as np
import pytest
import torch
from datasets import Dataset
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoTokenizer, BertConfig, PreTrainedTokenizerFast
from transformers.modeling_outputs import QuestionAnsweringModelOutput

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.train.cli.errors import InputError
from efficientbert.train.metrics import compute_metric
from efficientbert.train.tasks import spans
from efficientbert.train.tasks.arguments import TaskArguments
from efficientbert.train.tasks.kinds import task_of_data, task_of_model
from efficientbert.train.tasks.spans import SpanTask


BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
WORDS = [f"word{index}" for index in range(60)]  # what the tokenizer of the teachers knows


@pytest.fixture(scope="module")
def make_task(teacher_folder):
    """Makes tasks of small windows, with the tokenizer of BERT or one like RoBERTa's."""
    tokenizer, roberta_tokenizer = (
        PreTrainedTokenizerFast.from_pretrained(teacher_folder(family)) for family in ("bert", "roberta")
    )
    # As the real one: two separators between question and context.
    roberta_tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )

    def make(roberta: bool = False, **arguments) -> SpanTask:
        sizes = {"max_length": 24, "doc_stride": 5, "max_query_length": 6, "max_answer_length": 4}
        task_arguments = TaskArguments(**({"data": "mine", "kind": "question-answering"} | sizes | arguments))
        return SpanTask(task_arguments, roberta_tokenizer if roberta else tokenizer)

    return make


def make_row(context: str, *answers: str, question: str = "word1 word2", start: int | None = None) -> dict:
    starts = [context.find(answer) if start is None else start for answer in answers]
    return {"question": question, "context": context, "answers": {"text": list(answers), "answer_start": starts}}


def random_rows(rng: random.Random, count: int, unanswerable: bool) -> tuple[Dataset, list[list[tuple[int, int]]]]:
    """Rows of words with uneven space between them, and where each word of every context lies.

    Answers are one to four words; a third of the rows has none where `unanswerable`.
    """
    rows, places = [], []
    for index in range(count):
        context, places_here = " " * rng.randint(0, 2), []
        for _ in range(rng.randint(1, 60)):
            word = rng.choice(WORDS)
            places_here.append((len(context), len(context) + len(word)))
            context += word + " " * rng.randint(1, 3)
        answers = {"text": [], "answer_start": []}
        for _ in range(0 if unanswerable and index % 3 == 0 else rng.randint(1, 3)):
            first = rng.randrange(len(places_here))
            last = min(first + rng.randint(0, 3), len(places_here) - 1)
            answers["answer_start"].append(places_here[first][0])
            answers["text"].append(context[places_here[first][0] : places_here[last][1]])
        question = " ".join(rng.choices(WORDS, k=rng.randint(1, 9)))
        rows.append({"id": f"q{index}", "question": question, "context": context, "answers": answers})
        places.append(places_here)
    return Dataset.from_list(rows), places


def random_logits(rng: random.Random, features: Dataset, whole: bool = False) -> list[np.ndarray]:
    """Start and end logits of every window; `whole` numbers make many of them equal."""
    generator = np.random.default_rng(rng.randrange(2**32))
    logits = [generator.normal(0, 2, (len(ids), 2)).astype(np.float32) for ids in features["input_ids"]]
    return [np.round(window) for window in logits] if whole else logits


@pytest.mark.parametrize("roberta", [False, True])
def test_windows_cover_every_context_and_label_every_answer(roberta, make_task):
    task = make_task(roberta, metric="squad_v2")
    rows, places = random_rows(random.Random(0), 60, unanswerable=True)
    features = task.data(rows, "train").features
    vocabulary = task.tokenizer.get_vocab()
    assert ("token_type_ids" in features.column_names) is not roberta
    first, second, between = (0, 2, 2) if roberta else (2, 3, 1)
    labelled, whole = 0, 0
    for index, (row, words) in enumerate(zip(rows, places)):
        windows = [feature for feature in features if feature["row"] == index]
        question = [vocabulary[word] for word in row["question"].split()[:6]]
        room = 24 - len(question) - between - 2
        found = None
        if row["answers"]["text"]:
            start, text = row["answers"]["answer_start"][0], row["answers"]["text"][0]
            found = [number for number, (a, b) in enumerate(words) if a < start + len(text) and b > start]
        covered = 0
        for window in windows:
            # Every window starts as many words before the end of the last one as are shared.
            begin = max(covered - 5, 0)
            here = words[begin : begin + room]
            assert list(zip(window["char_starts"], window["char_ends"])) == here
            context = [vocabulary[row["context"][a:b]] for a, b in here]
            assert window["input_ids"] == [first, *question, *[second] * between, *context, second]
            assert window["context_start"] == len(question) + 1 + between
            if not roberta:
                assert window["token_type_ids"] == [0] * (len(question) + 2) + [1] * (len(here) + 1)
            positions = (0, 0)
            if found is not None and begin <= found[0] and found[-1] < begin + len(here):
                positions = tuple(window["context_start"] + word - begin for word in (found[0], found[-1]))
                labelled += 1
            assert (window["start_positions"], window["end_positions"]) == positions
            covered = begin + len(here)
        assert covered == len(words)
        whole += found is not None
    assert len(features) > 100 and labelled >= whole == 40


@pytest.mark.parametrize(
    ("context", "answer", "start", "tokens"),
    [
        ("word1 word2 word3", "ord2", 7, (1, 1)),  # a part of a token takes it all
        ("word1 word2 word3", "rd1 wor", 2, (0, 1)),
        ("word1 word2 word3", " word2 ", 5, (1, 1)),  # space around an answer does not count
        ("word2 word1 word2", "word2", 12, (2, 2)),  # the place counts, not the first occurrence
    ],
)
def test_answers_within_tokens(context, answer, start, tokens, make_task):
    (feature,) = make_task().data(Dataset.from_list([make_row(context, answer, start=start)]), "train").features
    positions = (feature["start_positions"] - 4, feature["end_positions"] - 4)
    assert feature["context_start"] == 4 and positions == tokens


def test_space_before_an_answer_at_the_start_of_a_window(make_task):
    row = make_row(" ".join(WORDS[:30]), " word14 word15")
    first, second = make_task().data(Dataset.from_list([row]), "train").features
    assert second["char_starts"][0] == row["context"].index("word14")
    assert (second["start_positions"], second["end_positions"]) == (4, 5)
    assert (first["start_positions"], first["end_positions"]) == (18, 19)


def test_what_the_tokenizer_drops_at_the_ends_belongs_to_the_outer_windows():
    assert spans.answer_tokens((0, 3), [2, 5], [4, 8], opens=True, closes=True) == (0, 0)
    assert spans.answer_tokens((0, 3), [2, 5], [4, 8], opens=False, closes=True) is None
    assert spans.answer_tokens((6, 9), [2, 5], [4, 8], opens=True, closes=True) == (1, 1)
    assert spans.answer_tokens((6, 9), [2, 5], [4, 8], opens=True, closes=False) is None
    assert spans.answer_tokens((4, 5), [2, 5], [4, 8], opens=True, closes=True) is None  # between two tokens


def decode_slowly(task, logits, data, row):
    """Text and score difference of one row: every span of every window, one by one."""
    best_score, text, null_score = -math.inf, "", math.inf
    for window, feature in zip(logits, data.features):
        if feature["row"] != row:
            continue
        null_score = min(null_score, float(window[0, 0]) + float(window[0, 1]))
        offset = feature["context_start"]
        for start in range(len(feature["char_starts"])):
            for end in range(start, min(start + task.args.max_answer_length, len(feature["char_ends"]))):
                score = float(window[offset + start, 0]) + float(window[offset + end, 1])
                if score > best_score:
                    best_score = score
                    text = data.rows[row]["context"][feature["char_starts"][start] : feature["char_ends"][end]]
    return text, null_score - best_score


@pytest.mark.parametrize("roberta", [False, True])
@pytest.mark.parametrize("at_a_time", [7, 1024])
def test_decoding_finds_the_best_of_all_spans(roberta, at_a_time, monkeypatch, make_task):
    monkeypatch.setattr(spans, "WINDOWS_AT_A_TIME", at_a_time)
    rng = random.Random(2)
    task = make_task(roberta, metric="squad_v2")
    data = task.data(random_rows(rng, 40, unanswerable=True)[0], "validation")
    logits = random_logits(rng, data.features)
    predictions = task.predict(logits, data)
    assert [prediction["id"] for prediction in predictions] == [f"q{index}" for index in range(40)]
    for index, prediction in enumerate(predictions):
        text, difference = decode_slowly(task, logits, data, index)
        assert prediction["prediction_text"] == text
        assert prediction["no_answer_probability"] == pytest.approx(1 / (1 + math.exp(-difference)), rel=1e-9)
    longest = max(len(prediction["prediction_text"].split()) for prediction in predictions)
    assert longest == task.args.max_answer_length


def test_equal_spans():
    window = np.zeros((5, 2))
    window[[1, 3], 0] = window[[2, 3, 4], 1] = 1
    second = np.full((2, 2), 0.5)
    scores, starts, ends = spans.best_spans([window, second], max_answer_length=3)
    assert scores.tolist() == [2, 1] and starts.tolist() == [3, 0] and ends.tolist() == [3, 0]


def test_a_context_without_tokens_has_no_answer(make_task):
    task = make_task(metric="squad_v2")
    data = task.data(Dataset.from_list([make_row("  "), make_row("word3 word4", "word4")]), "validation")
    logits = [np.full((len(ids), 2), 3.0, np.float32) for ids in data.features["input_ids"]]
    first, second = task.predict(logits, data)
    assert (first["prediction_text"], first["no_answer_probability"]) == ("", 1.0)
    assert (second["prediction_text"], second["no_answer_probability"]) == ("word3", 0.5)


def test_texts_of_another_metric_are_withheld(make_task):
    rng = random.Random(3)
    task = make_task(metric="mine")
    data = task.data(random_rows(rng, 30, unanswerable=True)[0], "validation")
    logits = random_logits(rng, data.features)
    task.no_answer_threshold = 0.3
    assert task.metric_options() == {}
    texts, probabilities = task.answer(logits, data)
    withheld = [prediction["prediction_text"] == "" for prediction in task.predict(logits, data)]
    assert withheld == [probability > 0.3 for probability in probabilities] and 0 < sum(withheld) < 30
    task.no_answer_threshold = None
    assert [prediction["prediction_text"] for prediction in task.predict(logits, data)] == texts


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("bias", [-3.0, 0.0, 3.0, 40.0, -40.0])
def test_the_threshold_is_the_best_of_all(whole, bias, make_task):
    """Held against the metric at every threshold that could make a difference; a bias of 40 favours no answer."""
    rng = random.Random(4)
    task = make_task(metric="squad_v2")
    data = task.data(random_rows(rng, 60, unanswerable=True)[0], "validation")
    logits = random_logits(rng, data.features, whole)
    for window, feature in zip(logits, data.features):
        window[0] += bias / 2
        if rng.random() < 0.7:  # a model that has learned something
            window[[feature["start_positions"], feature["end_positions"]], [0, 1]] += 4
    chosen = task.choose_threshold(logits, data)
    assert chosen == task.no_answer_threshold and task.metric_options() == {"no_answer_threshold": chosen}
    predictions, references = task.predict(logits, data), task.references(data)

    def f1(threshold: float) -> float:
        return compute_metric("squad_v2", predictions, references, no_answer_threshold=threshold)["f1"]

    others = {0.0, 1.0} | {prediction["no_answer_probability"] for prediction in predictions}
    assert f1(chosen) == pytest.approx(max(map(f1, others)), abs=1e-9)
    if whole:
        assert len(others) < 50
    elif abs(bias) < 40:  # beyond, the logistic function cannot tell them all apart
        assert compute_metric("squad_v2", predictions, references)["best_f1"] == pytest.approx(f1(chosen))


def test_the_threshold_lies_between_questions(make_task):
    """Of two questions, told apart well, a third one would be decided halfway."""
    task = make_task(metric="squad_v2")
    rows = Dataset.from_list([make_row("word3 word4", "word4"), make_row("word3 word4")])
    data = task.data(rows, "validation")
    logits = [np.zeros((len(ids), 2), np.float32) for ids in data.features["input_ids"]]
    logits[0][5] = 10
    logits[1][0] = 10
    assert task.choose_threshold(logits, data) == pytest.approx(0.5)


@pytest.mark.parametrize("config_class", [EfficientBertConfig, BertConfig])
def test_the_threshold_travels_with_the_model(config_class, tmp_path, make_task):
    task = make_task(metric="squad_v2")
    assert task.metric_options() == {"no_answer_threshold": 0.5}
    task.no_answer_threshold = 0.125
    config = config_class(num_labels=3)
    task.configure(config)
    assert config.num_labels == 2
    config.save_pretrained(tmp_path)
    loaded = task_of_model(task.args, task.tokenizer, AutoConfig.from_pretrained(tmp_path))
    assert loaded.metric_options() == {"no_answer_threshold": 0.125} and loaded.label_names is None
    assert task_of_model(task.args, task.tokenizer, config_class()).metric_options() == {"no_answer_threshold": 0.5}


def test_calibration_notes_the_threshold_where_questions_have_no_answers(make_task):
    rng = random.Random(5)
    model = torch.nn.Module()
    for unanswerable in (False, True):
        model.config = BertConfig()
        task = make_task()
        rows, _ = random_rows(rng, 12, unanswerable)
        task.read_rows(rows)
        data = task.data(rows, "selection")
        task.configure(model.config)
        start = model.config.no_answer_threshold
        assert start == (0.5 if unanswerable else None)
        task.calibrate(model, random_logits(rng, data.features), data)
        assert model.config.no_answer_threshold == task.no_answer_threshold
        assert (model.config.no_answer_threshold != start) is unanswerable


@pytest.fixture(scope="module")
def batch(make_task):
    """Four windows of different length, and the logits of a student and a teacher for them."""
    task = make_task(metric="squad_v2")
    rows = [make_row("word3 word4 word5", "word4 word5"), make_row("word3", "word3"), make_row("word3 word4")]
    features = task.data(Dataset.from_list([*rows, make_row("word7 " * 9, "word7")]), "train").features
    torch.manual_seed(0)
    batch = task.collate(list(features))
    shape = batch["input_ids"].shape
    student, teacher = (
        QuestionAnsweringModelOutput(
            start_logits=torch.randn(shape, requires_grad=True), end_logits=torch.randn(shape, requires_grad=True)
        )
        for _ in range(2)
    )
    return task, batch, student, teacher


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum()


def test_collated_batches(batch):
    task, batch, _, _ = batch
    assert batch["input_ids"].shape == batch["token_type_ids"].shape == (4, 14)
    assert batch["attention_mask"].sum(1).tolist() == [8, 6, 7, 14]
    assert batch["start_positions"].tolist() == [5, 4, 0, 4] and batch["end_positions"].tolist() == [6, 4, 0, 4]
    assert task.count(batch) == 4


def test_losses_are_means_of_start_and_end_without_padding(batch):
    task, batch, student, teacher = batch
    hard, soft = 0.0, 0.0
    for index, length in enumerate(batch["attention_mask"].sum(1).tolist()):
        for name in ("start", "end"):
            own, target = (
                getattr(outputs, f"{name}_logits")[index, :length].detach().numpy() for outputs in (student, teacher)
            )
            hard -= math.log(softmax(own)[batch[f"{name}_positions"][index]]) / 2
            soft -= 4 * (softmax(target / 2) * np.log(softmax(own / 2))).sum() / 2
    assert task.loss(student, batch).item() == pytest.approx(hard, rel=1e-5)
    soft_loss = task.soft_loss(student, teacher, batch, 2.0)
    assert soft_loss.item() == pytest.approx(soft, rel=1e-5)
    (gradient,) = torch.autograd.grad(soft_loss, student.start_logits)
    assert gradient.isfinite().all() and ((gradient == 0) == (batch["attention_mask"] == 0)).all()


def test_logits_come_without_padding(batch):
    task, batch, student, _ = batch
    logits = task.logits(
        QuestionAnsweringModelOutput(None, student.start_logits.detach(), student.end_logits.detach()), batch
    )
    assert [window.shape for window in logits] == [(8, 2), (6, 2), (7, 2), (14, 2)]
    assert np.array_equal(logits[1][:, 1], student.end_logits[1, :6].detach().numpy())


def save_rows(rows: list[dict], path) -> TaskArguments:
    Dataset.from_list([row | {"id": f"q{index}"} for index, row in enumerate(rows)]).to_parquet(path)
    return TaskArguments(kind="question-answering", data=str(path), max_length=24, doc_stride=5, max_query_length=6)


@pytest.mark.parametrize("config_class", [EfficientBertConfig, BertConfig])
@pytest.mark.parametrize("trained_on", ["answers", "some without"])
def test_what_a_model_knows_does_not_depend_on_the_rows_that_are_scored(config_class, trained_on, tmp_path, make_task):
    """What the training rows settle is the model's, on rows with answers alone as on others."""
    answered = [make_row("word3 word4 word5", "word4", question=f"word{index}") for index in range(9)]
    mixed = [*answered, make_row("word3 word4")]
    tokenizer = make_task().tokenizer
    known = trained_on == "some without"
    task = task_of_data(save_rows(mixed if known else answered, tmp_path / "train.parquet"), tokenizer, "train")
    assert task.metric() == ("squad_v2" if known else "squad")
    task.configure(config := config_class())
    assert config.no_answer_threshold == (0.5 if known else None)
    if known:
        config.no_answer_threshold = 0.25
    config.save_pretrained(tmp_path)
    saved = AutoConfig.from_pretrained(tmp_path)
    assert saved.no_answer_threshold == (0.25 if known else None)
    for name, rows in (("answered", answered), ("mixed", mixed)):
        args = save_rows(rows, tmp_path / f"{name}.parquet")
        model_task = task_of_model(args, tokenizer, saved)
        if rows is mixed and not known:
            with pytest.raises(InputError, match=r"row 9: has no answers; metric 'squad_v2' counts such questions"):
                model_task.load("train")
            args.metric = "squad_v2"  # the model's answer to every question counts, wrong where there is none
            model_task = task_of_model(args, tokenizer, saved)
            assert model_task.metric_options() == {"no_answer_threshold": 1.0}
        before = dict(vars(model_task))
        data = model_task.load("train")
        assert vars(model_task) == before
        logits = [np.zeros((len(ids), 2), np.float32) for ids in data.features["input_ids"]]
        for window in logits:
            window[0] = 9  # no answer, most likely
        predictions = model_task.predict(logits, data)
        metric, options = model_task.metric(), model_task.metric_options()
        figures = compute_metric(metric, predictions, model_task.references(data), **options)
        if known:
            assert (metric, options) == ("squad_v2", {"no_answer_threshold": 0.25})
            assert figures["exact"] == (0.0 if rows is answered else 10.0)
        else:
            assert all(prediction["prediction_text"] for prediction in predictions)
            assert figures.get("NoAns_exact", 0.0) == 0.0


def test_flags_decide_what_is_known(make_task):
    """Task or metric of SQuAD say whether questions may have no answer, whatever the rows and the model."""
    rows = Dataset.from_list([make_row("word3", "word3"), make_row("word3")])
    for flags, threshold in (
        ({"task": "squad"}, None),
        ({"metric": "squad"}, None),
        ({"task": "squad_v2", "metric": "squad"}, None),
        ({"task": "squad_v2"}, 0.5),
        ({"metric": "squad_v2"}, 0.5),
        ({"task": "squad", "metric": "squad_v2"}, 0.5),
    ):
        task = make_task(**flags)
        task.read_rows(rows.select([0]) if threshold else rows)
        assert task.no_answer_threshold == threshold
        config = BertConfig()
        config.no_answer_threshold = 0.25
        task.adopt(config)
        assert task.no_answer_threshold == (0.25 if threshold else None)
        task = make_task(**flags)
        task.adopt(BertConfig())  # of another program
        assert task.no_answer_threshold == threshold
    task = make_task(metric="mine")
    task.read_rows(rows)
    assert task.no_answer_threshold == 0.5 and len(task.data(rows, "train").features) == 2
    assert task.with_data("other.parquet").no_answer_threshold == 0.5


def test_models_of_earlier_versions_know_no_answer_by_their_task(make_task):
    """Version 0.1.0 wrote None where none was chosen, also beside squad_v2."""
    for known, threshold in (("squad_v2", 0.5), ("squad", None), (None, None)):
        config = BertConfig()
        config.no_answer_threshold, config.finetuning_task = None, known
        for flags in ({}, {"task": known}, {"metric": "squad"}):
            task = make_task(**flags)
            task.adopt(config)
            assert task.no_answer_threshold == (None if "metric" in flags else threshold)


def test_the_metric_of_a_task(make_task):
    assert make_task(task="squad").metric() == "squad" and make_task(task="squad_v2").metric() == "squad_v2"
    assert make_task(task="squad_v2", metric="mine").metric() == "mine"


def test_columns_ids_and_several_answers(make_task):
    row = make_row("word3 word4", "word4", "word3 word4")
    renamed = {"q": row["question"], "c": row["context"], "gold": row["answers"]}
    task = make_task(text_column="q", text_pair_column="c", label_column="gold")
    data = task.data(Dataset.from_list([renamed, renamed]), "validation")
    assert data.features["start_positions"][:] == [5, 5]
    assert task.references(data) == [{"id": name, "answers": row["answers"]} for name in ("0", "1")]
    row["id"] = "same"
    task = make_task()
    assert [gold["id"] for gold in task.references(task.data(Dataset.from_list([row, row]), "dev"))] == ["0", "1"]
    assert [gold["id"] for gold in task.references(task.data(Dataset.from_list([row]), "dev"))] == ["same"]


def test_unlabelled_rows(make_task):
    task = make_task()
    row = make_row("word3 word4")
    del row["answers"]
    data = task.data(Dataset.from_list([row]), "test", labelled=False)
    assert "start_positions" not in data.features.column_names
    assert "start_positions" not in task.collate(list(data.features))
    (prediction,) = task.predict([np.zeros((7, 2), np.float32)], data)
    assert prediction == {"id": "0", "prediction_text": "word3"}


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        ({"question": None}, {}, r"row 1: 'question' is None, not a text"),
        ({"context": None}, {}, r"row 1: 'context' is None, not a text"),
        ({"answers": None}, {}, r"row 1: 'answers' is None; needed is {'text'"),
        ({"answers": {"text": ["word4"], "answer_start": []}}, {}, r"row 1: 'answers' is .*two lists of one length"),
        ({"answers": {"text": ["word4"], "answer_start": [5]}}, {}, r"row 1: answer 'word4' is not at .* 5 .* at 6"),
        ({"answers": {"text": ["word4"], "answer_start": [-5]}}, {}, r"row 1: answer 'word4' is not at .* -5"),
        ({"answers": {"text": ["word9"], "answer_start": [6]}}, {}, r"row 1: answer 'word9' .* does not hold it"),
        ({"answers": {"text": [" "], "answer_start": [5]}}, {}, r"row 1: answer ' ' at 5 is no text"),
        ({"answers": {"text": [None], "answer_start": [5]}}, {}, r"row 1: answer None at 5 is no text"),
        ({"answers": {"text": [], "answer_start": []}}, {"task": "squad"}, r"row 1: has no answers; .*squad_v2"),
        ({"answers": {"text": [], "answer_start": []}}, {"metric": "squad"}, r"row 1: has no answers; .*squad_v2"),
        ({"question": "word1 " * 9}, {"max_length": 14}, r"row 1: a question of 6 tokens leaves 5 of max_length 14"),
        ({"question": "word1 " * 9}, {"max_length": 8}, r"row 1: a question of 6 tokens leaves 0 of max_length 8"),
    ],
)
def test_rows_that_cannot_be_read(change, arguments, message, make_task):
    row = make_row("word3 word4", "word4", question="")
    rows = Dataset.from_list([row, row | change])
    with pytest.raises(InputError, match=message) as error:
        make_task(**({"doc_stride": 0} if arguments.get("max_length") == 8 else {}), **arguments).data(rows, "train")
    assert "\n" not in str(error.value)


def test_the_shortest_window_that_moves(make_task):
    task = make_task(max_length=15)
    row = make_row("word3 word4 " * 9, "word4", question="word1 " * 9)
    features = task.data(Dataset.from_list([row]), "train").features
    assert [len(starts) for starts in features["char_starts"]] == [6] * 13


@pytest.mark.parametrize(("name", "value"), [("doc_stride", -1), ("max_query_length", 0), ("max_answer_length", 0)])
def test_arguments_out_of_range(name, value, make_task):
    with pytest.raises(InputError, match=f"{name}: must be at least {value + 1}, not {value}"):
        make_task(**{name: value}).args.check_task()


def test_windows_that_cannot_move_are_refused_before_data_is_read():
    with pytest.raises(InputError, match=r"doc_stride: must be at most 27 with max_length 32, .* not 28; lower it"):
        TaskArguments(task="squad", max_length=32, doc_stride=28).check_task()
    TaskArguments(task="squad", max_length=32, doc_stride=27).check_task()
    TaskArguments(data="d", kind="token-classification", max_length=32, doc_stride=32).check_task()  # half a window


def test_bytes_of_characters_and_spaces_within_tokens(make_task):
    """A tokenizer that counts spaces to the words behind them, and splits characters into bytes."""
    backend = Tokenizer(models.BPE({"<s>": 0, "</s>": 1} | {sign: 2 + i for i, sign in enumerate(BYTES)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.add_tokens([AddedToken("word", lstrip=True)])
    backend.post_processor = TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="</s>")
    rows = [make_row("été word 東京x", answer, question="x") for answer in ("été", "é", "word", "東京", "京x", "t")]
    task = SpanTask(make_task(max_length=40, max_answer_length=9).args, tokenizer)
    data = task.data(Dataset.from_list(rows), "validation")
    logits = perfect_logits(data.features)
    offsets = list(zip(data.features["char_starts"][0], data.features["char_ends"][0]))
    assert (3, 8) in offsets and offsets[:2] == [(0, 1), (0, 1)]
    assert [prediction["prediction_text"] for prediction in task.predict(logits, data)] == [
        row["answers"]["text"][0] for row in rows
    ]


def perfect_logits(features: Dataset) -> list[np.ndarray]:
    """Logits that point to the labels."""
    logits = []
    for feature in features:
        window = np.zeros((len(feature["input_ids"]), 2), np.float32)
        window[feature["start_positions"], 0] = window[feature["end_positions"], 1] = 9
        logits.append(window)
    return logits


@pytest.mark.parametrize(("name", "task_name"), [("xquad_en", "squad"), ("xquad_en_v2like", "squad_v2")])
def test_perfect_logits_answer_real_questions(name, task_name, shared):
    arguments = TaskArguments(task=task_name, data=str(shared / "data" / "squad"), data_name=name)
    task = task_of_data(arguments, AutoTokenizer.from_pretrained(shared / "models" / "gte-small"), "validation")
    data = task.load("validation")
    assert len(data.features) > 1.5 * len(data.rows) and max(map(len, data.features["input_ids"])) == 128
    logits = perfect_logits(data.features)
    assert task.metric() == task_name
    result = compute_metric(task_name, task.predict(logits, data), task.references(data), **task.metric_options())
    if task_name == "squad":
        assert result == {"exact_match": 100, "f1": 100}
    else:
        assert result["exact"] == result["f1"] == result["best_f1"] == 100 and result["NoAns_total"] == 100
        assert task.choose_threshold(logits, data) == pytest.approx(0.5, abs=0.01)
