"""Export: graphs beside their models, int8 beside numpy, what stays in float32, the folder, and what is refused."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from tokenizers.models import WordPiece
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

import efficientbert
from efficientbert import EfficientBertConfig, commands
from efficientbert.train.cli.errors import InputError
from efficientbert.train.model_folder.upload_check import check_complete
from efficientbert.train.model_folder.write import write_checkpoint
from efficientbert.train.runtimes import comparison, sensitive, source
from efficientbert.train.runtimes.comparison import Comparison, RowProbe, SentenceProbe
from efficientbert.train.runtimes.exporting import copy_model
from efficientbert.train.runtimes.graph import count_operators, trace_embedder, trace_model, write_graph
from efficientbert.train.runtimes.quantization import find_products, has_vnni, shrink_tables, write_float16, write_int8
from efficientbert.train.runtimes.session import Session
from efficientbert.train.tasks.arguments import TaskArguments
from efficientbert.train.tasks.kinds import task_of_model
from tests.conftest import make_tokenizer


TEXTS = ["word1 word2 word3", "word4", "word5 word6 word7 word8 word9 word10 word11 word12", "word2 word1"]
SIZES = {
    "vocab_size": 65,
    "embedding_size": 8,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "attention_heads": [3, 0, 2],
    "head_dims": [8, 0, 5],
    "ffn_expressions": [
        "linear2(mul(swish(linear1(x)), gate(x)))",
        "max(linear2(relu(linear1(x))), tanh(x))",
        "linear2(add(gelu(linear1(x)), x))",
    ],
    "ffn_stacks": [1, 2, 1],
    "intermediate_sizes": [20, 24, 17],
    "max_position_embeddings": 40,
    "initializer_range": 0.3,
}


CLASSES = {"num_labels": 2, "id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}


def make_model(head: str = "ForSequenceClassification", **more):
    torch.manual_seed(0)
    config = EfficientBertConfig(**SIZES | {"num_labels": 3} | more)
    return getattr(efficientbert, f"EfficientBert{head}")(config).eval()


def make_batch(rows: int, length: int, choices: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows)
    shape = (rows, choices, length) if choices else (rows, length)
    ids = torch.randint(5, 65, shape, generator=generator)
    mask = torch.ones_like(ids)
    mask[-1, ..., length // 2 :] = 0
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "token_type_ids": (torch.arange(length) > 3).long().expand(shape),
    }


def draw(model, path: Path, **tokenizer) -> Session:
    write_graph(trace_model(model, make_tokenizer(**tokenizer)), model.config.vocab_size, path)
    return Session(path)


@pytest.fixture(scope="module")
def classifier_graph(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    draw(make_model(), path)
    return path


@pytest.mark.parametrize(
    ("head", "outputs"),
    [
        ("Model", ["last_hidden_state"]),
        ("ForMaskedLM", ["logits"]),
        ("ForTokenClassification", ["logits"]),
        ("ForQuestionAnswering", ["start_logits", "end_logits"]),
        ("ForMultipleChoice", ["logits"]),
    ],
)
def test_a_graph_gives_what_its_model_gives_at_any_size(tmp_path, head, outputs):
    model = make_model(head)
    session = draw(model, tmp_path / "model.onnx")
    assert session.inputs == ["input_ids", "attention_mask", "token_type_ids"] and session.outputs == outputs
    for rows, length in ((1, 1), (3, 17), (2, 40)):
        batch = make_batch(rows, length, 4 if head == "ForMultipleChoice" else 0)
        found = session(**batch)
        with torch.no_grad():
            wanted = model(**batch)
        for name in outputs:
            assert torch.allclose(getattr(found, name), wanted[name], atol=2e-5), name


def test_a_classifiers_graph_has_one_operator_for_what_is_one(classifier_graph):
    session, model = Session(classifier_graph), make_model()
    for rows, length in ((1, 7), (4, 13)):
        batch = make_batch(rows, length)
        with torch.no_grad():
            assert torch.allclose(session(**batch).logits, model(**batch).logits, atol=2e-5)
    counted = count_operators(classifier_graph)
    assert (counted["Attention"], counted["LayerNormalization"], counted["Gelu"]) == (2, 1 + 2 + 4, 1)
    assert "Softmax" not in counted and "Erf" not in counted and "IsNaN" not in counted


def test_segments_are_an_input_only_where_they_are_read(tmp_path):
    session = draw(make_model(type_vocab_size=1), tmp_path / "model.onnx")
    assert session.inputs == ["input_ids", "attention_mask"]
    batch = make_batch(2, 9)  # what the graph does not take is left out
    assert session(**batch).logits.shape == (2, 3)


def make_embedder(folder: Path) -> SentenceTransformer:
    make_model("Model").save_pretrained(folder / "encoder")
    make_tokenizer().save_pretrained(folder / "encoder")
    torch.manual_seed(1)
    modules = [Transformer(str(folder / "encoder"), max_seq_length=30), Pooling(24, "mean")]
    modules += [Dense(24, 10, activation_function=torch.nn.Identity()), Normalize()]
    return SentenceTransformer(modules=modules, device="cpu")


def test_an_embedders_graph_pools_and_normalises(tmp_path):
    embedder = make_embedder(tmp_path)
    traced = trace_embedder(embedder)
    assert traced.outputs == ("last_hidden_state", "sentence_embedding")
    write_graph(traced, 65, tmp_path / "model.onnx")
    batch = embedder.tokenizer(TEXTS, padding=True, return_tensors="pt")
    found = Session(tmp_path / "model.onnx")(**batch)
    wanted = torch.from_numpy(embedder.encode(TEXTS))
    assert found.sentence_embedding.shape == (4, 10) and torch.allclose(found.sentence_embedding, wanted, atol=1e-5)


def dequantised(path: Path) -> dict[str, np.ndarray]:
    """The weights of the int8 products of a graph, by their place in it, as float64."""
    graph = onnx.load(path).graph
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    found = {}
    for node in graph.node:
        if node.op_type == "MatMulInteger":
            name = node.input[1]
            scale = tensors[name.replace("_quantized", "_scale")]
            found[name] = tensors[name].astype(np.float64) * scale
            assert (tensors.get(node.input[3], np.zeros(1)) == 0).all() and scale.shape == tensors[name].shape[1:]
    return found


@pytest.mark.parametrize(("reduce_range", "levels"), [(False, 127), (True, 64)])
def test_weights_in_int8_are_off_by_half_a_step_of_their_channel(tmp_path, classifier_graph, reduce_range, levels):
    write_int8(classifier_graph, tmp_path / "int8.onnx", reduce_range=reduce_range)
    small, products = dequantised(tmp_path / "int8.onnx"), find_products(classifier_graph)
    graph = onnx.load(classifier_graph).graph
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = {node.input[1]: tensors[node.input[1]] for node in graph.node if node.name in products}
    assert len(small) == len(weights) == len(products)
    for name, values in small.items():
        stored = name.removesuffix("_quantized")
        original = stored.removesuffix("_Transposed")
        whole = weights[original] if stored == original else weights[original].T
        step = np.abs(whole).max(0) / levels
        assert (np.abs(values - whole) <= 0.51 * step + 1e-9).all() and np.abs(values - whole).max() > 0


def test_products_that_are_kept_stay_in_float32(tmp_path, classifier_graph):
    products = find_products(classifier_graph)
    kept = [name for name, module in products.items() if module.endswith("layers.0.attention.qkv")]
    assert len(kept) == 1
    write_int8(classifier_graph, tmp_path / "int8.onnx", kept)
    counted = count_operators(tmp_path / "int8.onnx")
    assert counted["MatMul"] == 1 and counted["MatMulInteger"] == len(products) - 1


def test_rows_of_a_table_are_off_by_half_a_step_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr("efficientbert.train.runtimes.quantization.TABLE", 100)
    table = np.random.default_rng(0).normal(size=(30, 7)).astype(np.float32) * np.geomspace(1e-3, 10, 30)[:, None]
    table = table.astype(np.float32)
    table[4] = 0
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])
    rows = helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", 7])
    node = helper.make_node("Gather", ["table", "ids"], ["rows"], "gather")
    graph = helper.make_graph([node], "g", [ids], [rows], [numpy_helper.from_array(table, "table")])
    shrink_tables(graph)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)]), tmp_path / "table.onnx")
    found = Session(tmp_path / "table.onnx")(ids=torch.arange(30)).rows.numpy()
    steps = np.abs(table).max(1, keepdims=True) / 127
    assert (np.abs(found - table) <= 0.501 * steps).all() and (found[4] == 0).all()
    assert {tensor.data_type for tensor in graph.initializer} == {TensorProto.INT8, TensorProto.FLOAT}


def test_a_table_that_is_read_otherwise_too_stays(monkeypatch):
    monkeypatch.setattr("efficientbert.train.runtimes.quantization.TABLE", 100)
    table = numpy_helper.from_array(np.ones((30, 7), dtype=np.float32), "table")
    nodes = [helper.make_node("Gather", ["table", "ids"], ["rows"]), helper.make_node("Transpose", ["table"], ["t"])]
    graph = helper.make_graph(nodes, "g", [], [], [table])
    shrink_tables(graph)
    assert [node.op_type for node in graph.node] == ["Gather", "Transpose"] and list(graph.initializer) == [table]


def test_float16_halves_the_file_and_keeps_its_inputs(tmp_path, classifier_graph):
    write_float16(classifier_graph, tmp_path / "half.onnx")
    batch = make_batch(3, 11)
    whole, half = Session(classifier_graph)(**batch).logits, Session(tmp_path / "half.onnx")(**batch).logits
    assert half.dtype == torch.float32 and 0 < (whole - half).abs().max() < 0.02 * whole.std()


@pytest.mark.parametrize(("text", "has"), [("flags : fpu avx512_vnni", True), ("flags : fpu avx2", False)])
def test_the_processor_says_whether_sums_overflow(tmp_path, text, has):
    (tmp_path / "cpuinfo").write_text(text)
    assert has_vnni(tmp_path / "cpuinfo") is has
    assert not has_vnni(tmp_path / "missing")


# What is compared


def test_comparison_on_sentences_leaves_padding_out():
    model = make_model("ForTokenClassification")
    traced = trace_model(model, make_tokenizer())
    probe = SentenceProbe(traced, make_tokenizer(), TEXTS)

    def run(**batch):
        logits = model(**batch).logits.detach()
        logits[~batch["attention_mask"].bool()] = 100.0
        logits[0, 1] = logits[0, 1].roll(1) + 5.0  # one token of 24 is another class
        return SimpleNamespace(logits=logits)

    found = probe.compare(run)
    tokens = sum(len(text.split()) + 2 for text in TEXTS)
    assert found.rows == 4 and found.agreement == pytest.approx(1 - 1 / tokens) and found.cosine is None
    assert 5 <= found.largest < 50 and not found.faithful


def test_comparison_of_embeddings_is_their_mean_cosine(tmp_path):
    embedder = make_embedder(tmp_path)
    probe = SentenceProbe(trace_embedder(embedder), embedder.tokenizer, TEXTS)
    embeddings = torch.from_numpy(embedder.encode(TEXTS))
    turned = embeddings + 0.3 * embeddings.roll(1, 1)
    states = probe.expected[0][0]
    found = probe.compare(lambda **batch: SimpleNamespace(last_hidden_state=states, sentence_embedding=turned))
    assert found.cosine == pytest.approx(torch.cosine_similarity(embeddings, turned).mean().item(), abs=1e-6)
    assert found.largest == pytest.approx((turned - embeddings).abs().max().item(), abs=1e-6)


def test_places_of_answers_are_compared_where_there_is_text():
    model = make_model("ForQuestionAnswering")
    probe = SentenceProbe(trace_model(model, make_tokenizer()), make_tokenizer(), TEXTS)

    def run(**batch):
        found = model(**batch)
        start = found.start_logits.detach().clone()
        start[~batch["attention_mask"].bool()] = 1e4  # would be chosen
        return SimpleNamespace(start_logits=start, end_logits=-found.end_logits.detach())

    found = probe.compare(run)
    assert 0.5 <= found.agreement < 1  # all starts, and the ends by chance


def test_comparison_on_rows_scores_both_on_the_same_draws(task_file):
    model = make_model(**CLASSES)
    args = TaskArguments(data=task_file, text_column="text", max_length=24)
    task = task_of_model(args, make_tokenizer(), model.config)
    data = task.load("train")
    probe = RowProbe(task, model, data)
    labels = np.array(task.references(data))

    def perfect(**batch):
        ids = batch["input_ids"].tolist()
        by_text = {tuple(ids_of): label for ids_of, label in zip(data.features["input_ids"], labels)}
        wanted = [by_text[tuple(i for i, m in zip(row, mask) if m)] for row, mask in zip(ids, batch["attention_mask"])]
        return SimpleNamespace(logits=torch.nn.functional.one_hot(torch.tensor(wanted), 2).float())

    with torch.no_grad():
        same = probe.compare(model)
    assert (same.largest, same.agreement, same.gain, same.gain_interval_95) == (0, 1, 0, [0, 0]) and same.faithful
    found = probe.compare(perfect)
    before = np.mean([logits.argmax() for logits in probe.expected] == labels)
    assert found.score == 1 and found.gain == pytest.approx(1 - before) and found.rows == len(labels)
    assert found.gain_interval_95[0] < found.gain < found.gain_interval_95[1]
    assert found.agreement == pytest.approx(before) and not found.faithful


@pytest.mark.parametrize(
    ("fields", "faithful"),
    [
        ({"agreement": 0.99, "gain": -0.005}, True),
        ({"agreement": 0.98, "gain": 0.1}, False),
        ({"agreement": 1.0, "gain": -0.006}, False),
        ({"cosine": 0.991}, True),
        ({"cosine": 0.98}, False),
        ({"gain": 0.0}, True),
    ],
)
def test_what_int8_must_keep(fields, faithful):
    assert Comparison(rows=10, largest=1.0, **fields).faithful is faithful


class Harmed:
    """A probe to which int8 in some products is harm; it reads off a graph which products are in float32."""

    def __init__(self, harmful, names):
        self.harmful, self.names = harmful, names

    def compare(self, session) -> Comparison:
        kept = {node.name for node in onnx.load(session.path).graph.node if node.op_type in ("MatMul", "Gemm")}
        harm = sum(place + 1 for place, name in enumerate(self.harmful) if name not in kept)
        return Comparison(rows=1, largest=float(harm), agreement=0.0 if harm else 1.0)


def test_as_little_as_is_needed_stays_in_float32(tmp_path, classifier_graph, monkeypatch):
    monkeypatch.setattr(sensitive, "Session", lambda path: SimpleNamespace(path=path))
    products = find_products(classifier_graph)
    names, target = list(products), tmp_path / "int8.onnx"
    assert sensitive.write_faithful(classifier_graph, target, Harmed([], names), False) == []
    assert count_operators(target)["MatMulInteger"] == len(names)
    harmful = [names[5], names[2]]
    kept = sensitive.write_faithful(classifier_graph, target, Harmed(harmful, names), False)
    assert kept == [products[names[2]], products[names[5]]]  # the more harmful first
    assert count_operators(target)["MatMulInteger"] == len(names) - 2
    assert sensitive.write_faithful(classifier_graph, target, Harmed(names, names), False) is None
    assert not target.exists()


# The command


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> str:
    """The folder of a classifier of two classes with a record."""
    folder = tmp_path_factory.mktemp("classifier") / "classifier"
    folder.mkdir()
    write_checkpoint(folder, make_model(**CLASSES), make_tokenizer(), "finetune", TaskArguments(task="sst2"), {})
    return str(folder)


def test_the_folder_holds_the_model_its_graphs_and_what_was_compared(
    classifier, task_file, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(comparison, "AGREEMENT", 0.5)  # of a model that has learned nothing
    monkeypatch.setattr(comparison, "LOSS", 0.5)
    options = {"data": task_file, "text_column": "text", "max_length": 24, "split": "train", "train_split": "train"}
    made = commands.export(model=classifier, output_dir=tmp_path / "out", **options)
    assert made.path == tmp_path / "out" and list(made.figures["graphs"]) == ["float32", "float16", "int8"]
    names = {path.name for path in (tmp_path / "out" / "onnx").iterdir()}
    assert names == {"model.onnx", "model_fp16.onnx", "model_quantized.onnx"}
    check_complete(tmp_path / "out")  # `push` takes it
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    batch = make_batch(2, 9)
    with torch.no_grad():
        wanted = model(**batch).logits
    assert torch.allclose(Session(tmp_path / "out" / "onnx" / "model.onnx")(**batch).logits, wanted, atol=2e-5)
    figures = json.loads((tmp_path / "out" / "export.json").read_text())
    assert figures["float32"]["comparison"]["agreement"] == 1 and figures["int8"]["comparison"]["metric"] == "accuracy"
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.count("## Without PyTorch") == 1 and "`onnx/model_quantized.onnx` | int8" in card
    steps = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert [step["step"] for step in steps] == ["finetune", "export"]
    capsys.readouterr()
    assert commands.export(model=classifier, output_dir=tmp_path / "out", **options).figures == made.figures
    assert "is complete already" in capsys.readouterr().out


def test_an_embedder_goes_through_the_command(tmp_path):
    embedder = make_embedder(tmp_path)
    embedder.save(str(tmp_path / "embedder"), create_model_card=True)
    made = commands.export(model=tmp_path / "embedder", output_dir=tmp_path / "out", dtypes=["int8"])
    assert list(made.figures["graphs"]) == ["float32", "int8"]
    assert made.figures["graphs"]["float32"]["comparison"]["cosine"] == pytest.approx(1, abs=1e-6)
    loaded = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    assert np.allclose(loaded.encode(TEXTS), embedder.encode(TEXTS), atol=1e-6)


def test_rows_that_are_not_at_hand_are_told(classifier, tmp_path, capsys, monkeypatch):
    def gone(*args, **kwargs):
        raise InputError("data 'nyu-mll/glue': is not at hand")

    monkeypatch.setattr(source, "load_trained", gone)
    commands.export(model=classifier, output_dir=tmp_path / "out", dtypes=["float32"])
    said = capsys.readouterr().out
    assert "note: compared on sentences of ours, as its own rows are not at hand: data 'nyu-mll/glue'" in said
    with pytest.raises(InputError, match="not at hand"):
        commands.export(model=classifier, output_dir=tmp_path / "other", task="sst2")
    assert not (tmp_path / "other").exists()


def test_tokens_are_listed_where_loaders_want_that(tmp_path, classifier):
    tokenizer = make_tokenizer()
    given = SimpleNamespace(folder=Path(classifier), tokenizer=tokenizer)
    copy_model(given, tmp_path)
    assert not (tmp_path / "vocab.txt").exists()  # whole words are not what such loaders split
    vocabulary = tokenizer.get_vocab()
    tokenizer.backend_tokenizer.model = WordPiece(vocabulary, unk_token="[UNK]")
    copy_model(given, tmp_path)
    tokens = (tmp_path / "vocab.txt").read_text().splitlines()
    assert [vocabulary[token] for token in tokens] == list(range(len(vocabulary)))


def test_a_graph_that_is_not_the_models_is_refused(classifier, tmp_path, monkeypatch):
    from efficientbert.train.runtimes import exporting

    monkeypatch.setattr(exporting, "EXACT", 0.0)
    with pytest.raises(InputError, match=r"its graph is off by .*; nothing is written"):
        commands.export(model=classifier, output_dir=tmp_path / "out", dtypes=["float32"])
    assert not list(tmp_path.iterdir())


def refused(tmp_path, match: str, **arguments) -> None:
    with pytest.raises(InputError, match=match):
        commands.export(output_dir=tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_exported_is_refused_in_a_line(classifier, tmp_path, monkeypatch):
    refused(tmp_path, "dtypes: unknown 'int4'; known are float32, float16, int8", model=classifier, dtypes=["int4"])
    refused(tmp_path, "model 'nowhere/else/x'", model="nowhere/else/x")
    bert = BertForSequenceClassification(BertConfig(vocab_size=65, hidden_size=12, num_attention_heads=2))
    bert.save_pretrained(tmp_path / "bert")
    make_tokenizer().save_pretrained(tmp_path / "bert")
    refused(tmp_path, "is a bert; models of efficientbert are exported", model=tmp_path / "bert")
    make_model("Model").save_pretrained(tmp_path / "bare")
    refused(tmp_path, "model '.*bare': no tokenizer", model=tmp_path / "bare")
    refused(tmp_path, "data 'missing.csv'", model=classifier, data="missing.csv")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    refused(tmp_path, r"need the package onnxruntime; pip install 'efficientbert\[onnx\]'", model=classifier)
