"""Conversion of original release checkpoints, against golden tensors and a slow float64 computation of our own."""

import hashlib
import json
import math
from pathlib import Path

import pytest
import torch
from huggingface_hub import EvalResult, ModelCard
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    AutoModelForMultipleChoice,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertTokenizerFast,
)

from efficientbert.train.cli.command import run_command
from efficientbert.train.cli.errors import InputError
from efficientbert.train.convert import ConvertArguments, main
from efficientbert.train.model_folder.record import read_provenance
from efficientbert.train.model_folder.release_checkpoint import Checkpoint, ReleaseFFN, convert, read_expression
from efficientbert.train.model_folder.release_input import read_task
from efficientbert.train.model_folder.results import add_results
from efficientbert.train.model_folder.upload import card_to_upload, check_loads
from efficientbert.train.model_folder.upload_check import check_complete


SCRIPT = str(Path(__file__).parents[1] / "train/convert.py")
GOLDEN = Path(__file__).parents[2] / "shared" / "golden"
VOCAB, EMBEDDING, POSITIONS = 40, 6, 20

# The release's notation beside the same function written out, (stack, divisor), and our text.
FUNCTIONS = {
    "tanh(linear4_2(gelu(linear4_2(x,wb1)),wb2))": (
        lambda x, l1, l2: torch.tanh(l2(gelu(l1(x)))),
        ReleaseFFN("tanh(linear2(gelu(linear1(x))))", 4, 2),
    ),
    "linear1_4(max(x, sigmoid(linear1_4(x, wb1))), wb2)": (
        lambda x, l1, l2: l2(cropped(torch.maximum, x, torch.sigmoid(l1(x)))),
        ReleaseFFN("linear2(max(x, sigmoid(linear1(x))))", 1, 4),
    ),
    "add(x,linear3_3(mul(elu(linear3_3(x,wb1)),x),wb2))": (
        lambda x, l1, l2: x + l2(cropped(torch.mul, torch.where(l1(x) > 0, l1(x), l1(x).exp() - 1), x)),
        ReleaseFFN("add(x, linear2(mul(elu(linear1(x)), x)))", 3, 3),
    ),
    "leaky_relu(linear2_1(relu(linear2_1(add(x,tanh(x)),wb1)),wb2))": (
        lambda x, l1, l2: leaky_relu(l2(l1(x + torch.tanh(x)).clamp(min=0))),
        ReleaseFFN("leaky_relu(linear2(relu(linear1(add(x, tanh(x))))))", 2, 1),
    ),
    "mul( linear4_3( swish( linear4_3( x , wb1 ) ) , wb2 ) , swish(x) )": (
        lambda x, l1, l2: l2(l1(x) / (1 + (-l1(x)).exp())) * (x / (1 + (-x).exp())),
        ReleaseFFN("mul(linear2(swish(linear1(x))), swish(x))", 4, 3),
    ),
}


def gelu(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def leaky_relu(x):
    return torch.where(x > 0, x, 0.01 * x)


def cropped(operation, left, right):
    width = min(left.shape[-1], right.shape[-1])
    return operation(left[..., :width], right[..., :width])


def random_checkpoint(hidden, bases, classifier=None, pooler=False, fit=None, seed=0):
    """Random weights in the release's layout: `bases` holds the stored FFN width of every layer."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}

    def affine(name, rows, columns):
        weights[f"{name}.weight"] = torch.randn(rows, columns, generator=generator) / columns**0.5
        weights[f"{name}.bias"] = 0.3 * torch.randn(rows, generator=generator)

    def layernorm(name):
        weights[f"{name}.weight"] = 1 + 0.2 * torch.randn(hidden, generator=generator)
        weights[f"{name}.bias"] = 0.2 * torch.randn(hidden, generator=generator)

    weights["embeddings.token_embeddings.weight"] = torch.randn(VOCAB, EMBEDDING, generator=generator)
    weights["embeddings.segment_embeddings.weight"] = torch.randn(2, hidden, generator=generator)
    weights["embeddings.position_embeddings.weight"] = torch.randn(POSITIONS, hidden, generator=generator)
    affine("embeddings.dense", hidden, 3 * EMBEDDING)
    layernorm("embeddings.layernorm")
    for layer, base in enumerate(bases):
        for part in ("query", "key", "value", "dense"):
            affine(f"encoder.{layer}.attention.{part}", hidden, hidden)
        layernorm(f"encoder.{layer}.attention.layernorm")
        for number in range(4):
            affine(f"encoder.{layer}.all_ffn.{number}.dense1", base, hidden)
            affine(f"encoder.{layer}.all_ffn.{number}.dense2", hidden, base)
            layernorm(f"encoder.{layer}.all_ffn.{number}.layernorm")
    if pooler:
        affine("cls_pooler.dense", hidden, hidden)
    if classifier:
        affine("classifier", classifier, hidden)
    if fit:
        affine("fit_dense", fit, hidden)
    return weights


def reference_states(weights, token_ids, segment_ids, expressions, heads):
    """Hidden states of one unpadded sequence as the release computes them, token by token in float64."""
    weights = {name: tensor.double() for name, tensor in weights.items()}

    def affine(name, x):
        return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]

    def layernorm(name, x):
        deviation = x - x.sum() / len(x)
        scaled = deviation / torch.sqrt((deviation**2).sum() / len(x) + 1e-5)
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    zeros = torch.zeros(EMBEDDING, dtype=torch.float64)
    tokens = [zeros, *(weights["embeddings.token_embeddings.weight"][token] for token in token_ids), zeros]
    states = []
    for position, segment in enumerate(segment_ids):
        trigram = torch.cat((tokens[position + 2], tokens[position + 1], tokens[position]))
        x = affine("embeddings.dense", trigram) + weights["embeddings.position_embeddings.weight"][position]
        x = x + weights["embeddings.segment_embeddings.weight"][segment]
        states.append(layernorm("embeddings.layernorm", x))
    history = [torch.stack(states)]
    size = len(states[0]) // heads
    for layer, text in enumerate(expressions):
        function, ffn = FUNCTIONS[text]
        name = f"encoder.{layer}"
        query, key, value = (
            [affine(f"{name}.attention.{part}", x) for x in states] for part in ("query", "key", "value")
        )
        after_attention = []
        for position, x in enumerate(states):
            context = []
            for head in range(heads):
                part = slice(head * size, (head + 1) * size)
                scores = torch.stack([query[position][part] @ k[part] for k in key]) / math.sqrt(size)
                odds = (scores - scores.max()).exp()
                context.append(sum(p * v[part] for p, v in zip(odds / odds.sum(), value)))
            x = x + affine(f"{name}.attention.dense", torch.cat(context))
            after_attention.append(layernorm(f"{name}.attention.layernorm", x))
        states = after_attention
        for number in range(ffn.stack):
            prefix = f"{name}.all_ffn.{number}"
            width = weights[f"{prefix}.dense1.bias"].shape[0] // ffn.divisor

            def linear1(x, prefix=prefix, width=width):
                return weights[f"{prefix}.dense1.weight"][:width] @ x + weights[f"{prefix}.dense1.bias"][:width]

            def linear2(x, prefix=prefix, width=width):
                return weights[f"{prefix}.dense2.weight"][:, :width] @ x + weights[f"{prefix}.dense2.bias"]

            states = [layernorm(f"{prefix}.layernorm", x + function(x, linear1, linear2)) for x in states]
        history.append(torch.stack(states))
    return history


def save(path, weights, prefix="module.", wrapped=True):
    """Writes a checkpoint as the release does and returns its path as text."""
    weights = {prefix + name: tensor for name, tensor in weights.items()}
    torch.save({"state_dict": weights, "epoch": 10} if wrapped else weights, path)
    return str(path)


def arguments(tmp_path, checkpoint, expressions=None, heads=3, **others):
    expressions = expressions or ["tanh(linear4_2(gelu(linear4_2(x,wb1)),wb2))"]
    fields = {"checkpoint": str(checkpoint), "ffn_expr": expressions, "num_attention_heads": heads}
    return ConvertArguments(**fields, output_dir=str(tmp_path / "out"), **others)


def attention_scores(model, hidden_states):
    """Scaled dot products of every layer, `(B, H, L, L)`, from the states that enter it."""
    scores = []
    for layer, states in zip(model.layers, hidden_states):
        heads, head_dim = model.config.num_attention_heads, model.config.head_dim
        query, key, _ = layer.attention.qkv(states).chunk(3, dim=-1)
        query, key = (x.unflatten(-1, (heads, head_dim)).transpose(1, 2) for x in (query, key))
        scores.append(query @ key.transpose(2, 3) / head_dim**0.5)
    return scores


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("case", ["published_encoder", "published_sst2"])
def test_golden_tensors(tmp_path, case, attention):
    if not GOLDEN.exists():
        pytest.skip("the golden tensors are not beside this repository")
    description = json.loads((GOLDEN / f"{case}.json").read_text())
    tensors = load_file(GOLDEN / f"{case}.safetensors")
    folder = main(
        arguments(
            tmp_path,
            GOLDEN / f"{case}.bin",
            description["ffn_expr"],
            description["num_attention_heads"],
            task=description["task"],
        )
    ).path
    auto_class = AutoModelForSequenceClassification if description["task"] else AutoModel
    model = auto_class.from_pretrained(folder, attn_implementation=attention).eval()
    inputs = {name: tensors[name] for name in ("input_ids", "token_type_ids", "attention_mask")}
    kept = inputs["attention_mask"].bool()
    pairs = (kept[:, :, None] & kept[:, None, :])[:, None].expand(-1, description["num_attention_heads"], -1, -1)
    fit_dense = load_file(folder / "distillation_projection.safetensors")
    with torch.no_grad():
        outputs = model(**inputs, output_hidden_states=True)
        encoder = getattr(model, "efficientbert", model)
        scores = attention_scores(encoder, outputs.hidden_states)

    def close(found, name, mask):
        torch.testing.assert_close(found[mask], tensors[name][mask], atol=1e-5, rtol=0)

    assert len(outputs.hidden_states) == 7 and len(scores) == 6
    for index, states in enumerate(outputs.hidden_states):
        close(states, f"hidden_states.{index}", kept)
        projected = states @ fit_dense["weight"].T + fit_dense["bias"]
        close(projected, f"projected_hidden_states.{index}", kept)
    for index, layer_scores in enumerate(scores):
        close(layer_scores, f"attention_scores.{index}", pairs)
    if description["task"]:
        torch.testing.assert_close(outputs.logits, tensors["output"], atol=1e-5, rtol=0)
    else:
        close(outputs.last_hidden_state, "output", kept)


@pytest.mark.parametrize(
    ("expressions", "hidden", "bases", "heads", "prefix", "wrapped"),
    [
        (list(FUNCTIONS), 12, [12] * 5, 3, "module.", True),
        (list(FUNCTIONS)[::-1], 12, [20, 7, 24, 12, 13], 4, "", True),
        (list(FUNCTIONS)[1:2], 10, [9], 1, "module.", False),
        (list(FUNCTIONS)[2:4], 8, [5, 8], 2, "", False),
    ],
)
def test_other_expressions_depths_heads_and_widths(tmp_path, expressions, hidden, bases, heads, prefix, wrapped):
    weights = random_checkpoint(hidden, bases, fit=16)
    path = save(tmp_path / "F.bin", weights, prefix, wrapped)
    model = AutoModel.from_pretrained(main(arguments(tmp_path, path, expressions, heads)).path).eval()
    token_ids, segment_ids = [5, 7, 1, 30, 39, 2, 7], [0, 0, 0, 1, 1, 1, 1]
    with torch.no_grad():
        outputs = model.double()(
            input_ids=torch.tensor([token_ids]), token_type_ids=torch.tensor([segment_ids]), output_hidden_states=True
        )
    expected = reference_states(weights, token_ids, segment_ids, expressions, heads)
    for found, states in zip(outputs.hidden_states, expected, strict=True):
        torch.testing.assert_close(found[0], states, atol=1e-9, rtol=1e-9)


def test_one_expression_stands_for_all_layers():
    checkpoint = Checkpoint("F.bin", random_checkpoint(12, [12, 18]))
    model, projection, left_out = convert(checkpoint, [ReleaseFFN("linear2(gelu(linear1(x)))", 2, 3)], 4)
    assert model.config.ffn_expressions == ["linear2(gelu(linear1(x)))"] * 2
    assert model.config.ffn_stacks == [2, 2] and model.config.intermediate_sizes == [4, 6]
    assert projection == {} and left_out == []


@pytest.mark.parametrize("text", FUNCTIONS)
def test_notation(text):
    assert read_expression(text) == FUNCTIONS[text][1]


@pytest.mark.parametrize(
    ("spelling", "task"),
    [
        (None, None),
        ("sst2", "sst2"),
        ("sst-2", "sst2"),
        ("SST-2", "sst2"),
        ("sts-b", "stsb"),
        ("stsb", "stsb"),
        ("mnli", "mnli"),
        ("mnli-mm", "mnli_mismatched"),
        ("squad1.1", "squad"),
        ("squad", "squad"),
        ("squad2.0", "squad_v2"),
        ("squad_v2", "squad_v2"),
    ],
)
def test_task_spellings(spelling, task):
    assert read_task(spelling) == task


def reference_logits(weights, states, pooled):
    """What the release's head makes of an encoder's last states, in float64."""
    weights = {name: tensor.double() for name, tensor in weights.items()}
    x = states[0] if pooled else states
    if pooled:
        x = torch.tanh(weights["cls_pooler.dense.weight"] @ x + weights["cls_pooler.dense.bias"])
    return x @ weights["classifier.weight"].T + weights["classifier.bias"]


EXPRESSION = next(iter(FUNCTIONS))
TOKENS, SEGMENTS = [3, 9, 21, 4], [0, 0, 1, 1]


def convert_task(tmp_path, task, auto_class, **head):
    """A converted checkpoint's model, its outputs on TOKENS, and the reference's logits."""
    weights = random_checkpoint(12, [12], **head)
    folder = main(arguments(tmp_path, save(tmp_path / "F.bin", weights), task=task)).path
    model = auto_class.from_pretrained(folder).eval().double()
    inputs = {"input_ids": torch.tensor([TOKENS]), "token_type_ids": torch.tensor([SEGMENTS])}
    states = reference_states(weights, TOKENS, SEGMENTS, [EXPRESSION], 3)[-1]
    return model, inputs, reference_logits(weights, states, head.get("pooler", False))


# The order of the outputs in the release's own data code; for mnli and ax it is not the order of `datasets`.
RELEASE_LABELS = {
    "cola": ["unacceptable", "acceptable"],
    "sst-2": ["negative", "positive"],
    "sst2": ["negative", "positive"],
    "mrpc": ["not_equivalent", "equivalent"],
    "sts-b": None,
    "stsb": None,
    "qqp": ["not_duplicate", "duplicate"],
    "mnli": ["contradiction", "entailment", "neutral"],
    "mnli-mm": ["contradiction", "entailment", "neutral"],
    "mnli_matched": ["contradiction", "entailment", "neutral"],
    "ax": ["contradiction", "entailment", "neutral"],
    "qnli": ["entailment", "not_entailment"],
    "rte": ["entailment", "not_entailment"],
    "wnli": ["not_entailment", "entailment"],
}


@pytest.mark.parametrize(("task", "labels"), RELEASE_LABELS.items())
def test_glue_tasks(tmp_path, task, labels):
    count = len(labels) if labels else 1
    model, inputs, expected = convert_task(
        tmp_path, task, AutoModelForSequenceClassification, classifier=count, pooler=True
    )
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits[0], expected, atol=1e-9, rtol=1e-9)
    assert model.config.num_labels == count
    if labels is None:
        assert model.config.problem_type == "regression"
    else:
        assert model.config.problem_type == "single_label_classification"
        assert [model.config.id2label[index] for index in range(count)] == labels
        assert model.config.label2id == {label: index for index, label in enumerate(labels)}


def test_label_count_is_read_off_the_classifier(tmp_path, capsys):
    model, _, _ = convert_task(tmp_path, "sst2", AutoModelForSequenceClassification, classifier=5, pooler=True)
    assert model.config.num_labels == 5 and model.config.id2label[4] == "LABEL_4"
    assert "warning: sst2 has 2 labels, this classifier 5" in capsys.readouterr().out


@pytest.mark.parametrize("task", ["squad", "squad_v2"])
def test_squad(tmp_path, task):
    model, inputs, expected = convert_task(tmp_path, task, AutoModelForQuestionAnswering, classifier=2)
    with torch.no_grad():
        outputs = model(**inputs)
    torch.testing.assert_close(outputs.start_logits[0], expected[:, 0], atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(outputs.end_logits[0], expected[:, 1], atol=1e-9, rtol=1e-9)


def test_multiple_choice(tmp_path):
    model, inputs, expected = convert_task(tmp_path, "swag", AutoModelForMultipleChoice, classifier=1, pooler=True)
    with torch.no_grad():
        logits = model(**{name: tensor[:, None] for name, tensor in inputs.items()}).logits
    torch.testing.assert_close(logits[0], expected, atol=1e-9, rtol=1e-9)


def test_heads_that_are_not_converted_are_named(tmp_path, capsys):
    weights = random_checkpoint(12, [12], classifier=2, pooler=True)
    for name in ("lm_head.dense.weight", "lm_head.lm_bias", "classifiers.0.weight", "classifiers.0.bias"):
        weights[name] = torch.zeros(3)
    folder = main(arguments(tmp_path, save(tmp_path / "F.bin", weights))).path
    assert "left out: lm_head, classifiers, cls_pooler, classifier" in capsys.readouterr().out
    assert set(load_file(folder / "model.safetensors")) == set(AutoModel.from_pretrained(folder).state_dict())


def save_tokenizer(path, words):
    """A BERT tokenizer with five special tokens and this many words."""
    path.mkdir()
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{index}" for index in range(words))]
    (path / "vocab.txt").write_text("\n".join(names))
    BertTokenizerFast(str(path / "vocab.txt")).save_pretrained(path)
    return str(path)


def test_tokenizer_is_saved_with_the_model(tmp_path):
    path = save(tmp_path / "F.bin", random_checkpoint(12, [12]))
    tokenizer = save_tokenizer(tmp_path / "tokenizer", VOCAB - 5)
    folder = main(arguments(tmp_path, path, tokenizer=tokenizer)).path
    assert (folder / "model.safetensors").exists()
    assert AutoTokenizer.from_pretrained(folder)("word3")["input_ids"] == [2, 8, 3]


def test_tokenizer_of_another_vocabulary_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "F.bin", random_checkpoint(12, [12]))
    tokenizer = save_tokenizer(tmp_path / "tokenizer", VOCAB - 4)
    assert_refused(tmp_path, capsys, ["has 41 tokens, the checkpoint 40"], ["--tokenizer", tokenizer])
    tokenizer = save_tokenizer(tmp_path / "smaller", VOCAB - 6)
    assert_refused(tmp_path, capsys, ["has 39 tokens, the checkpoint 40"], ["--tokenizer", tokenizer])


def test_tokenizer_with_another_padding_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "F.bin", random_checkpoint(12, [12]))
    folder = save_tokenizer(tmp_path / "tokenizer", VOCAB - 5)
    BertTokenizerFast.from_pretrained(folder, pad_token="word3").save_pretrained(folder)
    said = "its padding token 'word3' has the id 8, in checkpoints of the release it is 0"
    assert_refused(tmp_path, capsys, [said], ["--tokenizer", folder])


def test_tokenizer_is_held_against_the_vocabulary_beside_the_checkpoint(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path / "F.bin", random_checkpoint(12, [12]))
    tokenizer = save_tokenizer(tmp_path / "tokenizer", VOCAB - 5)
    names = (tmp_path / "tokenizer" / "vocab.txt").read_text(encoding="utf-8").splitlines()
    (tmp_path / "vocab.txt").write_text("\n".join([*names[:-2], *names[:-3:-1]]) + "\n", encoding="utf-8")
    said = "token 'word33' has the id 38 in it and 39 in 'vocab.txt', beside the checkpoint"
    assert_refused(tmp_path, capsys, [said], ["--tokenizer", tokenizer])
    (tmp_path / "vocab.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    assert main(arguments(tmp_path, path, tokenizer=tokenizer)).path.exists()


def test_the_same_conversion_again_is_kept_and_another_refused(tmp_path, capsys):
    path = save(tmp_path / "F.bin", random_checkpoint(12, [12]))
    folder = main(arguments(tmp_path, path)).path
    before = (folder / "model.safetensors").stat().st_mtime_ns
    main(arguments(tmp_path, path))
    assert "holds this conversion already" in capsys.readouterr().out
    save(tmp_path / "F.bin", random_checkpoint(12, [12], seed=1))
    with pytest.raises(InputError, match="checkpoint_sha256"):
        main(arguments(tmp_path, path))
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


def test_a_conversion_has_a_record_and_a_card(tmp_path):
    path = save(tmp_path / "F.bin", random_checkpoint(12, [12], classifier=3, pooler=True))
    folder = main(arguments(tmp_path, path, task="mnli_matched", license="mit", language=["en"])).path
    (step,) = read_provenance(folder)
    given = {"checkpoint": "./F.bin", "ffn_expr": [EXPRESSION], "num_attention_heads": 3, "task": "mnli_matched"}
    assert step["step"] == "convert"
    assert step["arguments"] == given | {"license": "mit", "language": ["en"]}
    assert step["task_arguments"] == {"task": "mnli"}  # what `evaluate` scores it on
    digest = hashlib.sha256((tmp_path / "F.bin").read_bytes()).hexdigest()
    assert step["result"] == {"checkpoint_sha256": digest}
    card = ModelCard.load(folder / "README.md")
    assert (card.data.license, card.data.language) == ("mit", ["en"])
    assert " --checkpoint ./F.bin --ffn_expr 'tanh(" in card.text
    check_complete(folder)
    check_loads(folder)
    results = [EvalResult("text-classification", "nyu-mll/glue", "mnli", "accuracy", 0.5, dataset_config="mnli")]
    add_results(folder, results)
    assert "| mnli | mnli |  | accuracy | 0.5 |" in (folder / "README.md").read_text(encoding="utf-8")


def test_a_conversion_of_an_earlier_version_is_complete(tmp_path, capsys):
    """It has neither record nor card; its run.json is what it was."""
    path = save(tmp_path / "F.bin", random_checkpoint(12, [12]))
    folder = main(arguments(tmp_path, path)).path
    digest = hashlib.sha256((tmp_path / "F.bin").read_bytes()).hexdigest()
    earlier = {"command": "convert", "checkpoint_sha256": digest, "ffn_expr": [EXPRESSION], "num_attention_heads": 3}
    (folder / "run.json").write_text(json.dumps(earlier | {"task": None, "tokenizer": None}))
    (folder / "README.md").unlink()
    (folder / "provenance.json").unlink()
    assert main(arguments(tmp_path, path, license="mit")).path == folder
    assert "holds this conversion already" in capsys.readouterr().out
    assert not (folder / "README.md").exists()
    check_complete(folder)
    assert "AutoModel.from_pretrained" in card_to_upload(folder, "me/model")[0]


class Hostile:
    def __reduce__(self):
        return (exec, ("open('pwned', 'w').close()",))


def write_text(path, weights):
    path.write_text("no checkpoint\n")


def write_truncated(path, weights):
    save(path, weights)
    path.write_bytes(path.read_bytes()[:5000])


def write_hostile(path, weights):
    torch.save({"state_dict": weights, "epoch": Hostile()}, path)


def without(name):
    return lambda path, weights: save(path, {key: value for key, value in weights.items() if key != name})


def replaced(name, tensor):
    return lambda path, weights: save(path, weights | {name: tensor})


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path, weights: None, "cannot be read: No such file"),
        (lambda path, weights: path.mkdir(), "cannot be read: Is a directory"),
        (write_text, "is no file of plain tensors"),
        (write_truncated, "is no file of plain tensors"),
        (lambda path, weights: path.write_bytes(b""), "is no file of plain tensors"),
        (write_hostile, "is no file of plain tensors"),
        (lambda path, weights: torch.save(torch.zeros(3), path), "holds no state dict"),
        (lambda path, weights: torch.save({"state_dict": [1]}, path), "holds no state dict"),
        (lambda path, weights: torch.save({}, path), "holds no state dict"),
        (lambda path, weights: torch.save({"a": 1}, path), "'a' in its state dict is no floating-point tensor"),
        (replaced("lm_head.x", torch.zeros(3, dtype=torch.int64)), "'module.lm_head.x' in its state dict is no float"),
        (lambda path, weights: torch.save({"a": torch.zeros(1)}, path), "has no embeddings.token_embeddings.weight"),
        (without("embeddings.layernorm.bias"), "has no embeddings.layernorm.bias"),
        (without("encoder.0.attention.key.weight"), "has no encoder.0.attention.key.weight"),
        (without("encoder.1.all_ffn.3.dense2.bias"), "has no encoder.1.all_ffn.3.dense2.bias"),
        (without("fit_dense.bias"), "has no fit_dense.bias"),
        (replaced("embeddings.dense.weight", torch.zeros(12, 17)), r"dense.weight has shape (12, 17), not (any, 18)"),
        (replaced("embeddings.layernorm.weight", torch.zeros(11)), r"has shape (11,), not (12)"),
        (replaced("encoder.0.all_ffn.1.dense1.weight", torch.zeros(11, 12)), "has shape (11, 12), not (12, 12)"),
        (replaced("embeddings.token_embeddings.weight", torch.zeros(4)), "has shape (4,), not (any, any)"),
        (
            replaced("encoder.0.all_ffn.4.dense1.weight", torch.zeros(12, 12)),
            "does not belong in a release checkpoint",
        ),
        (replaced("encoder.3.attention.extra", torch.zeros(1)), "1 expressions for the 4 layers|has no encoder.2"),
        (replaced("pooler.weight", torch.zeros(1)), "does not belong in a release checkpoint: pooler.weight"),
    ],
)
def test_what_is_no_checkpoint_is_refused(tmp_path, monkeypatch, capsys, write, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "F.bin", random_checkpoint(12, [12, 12], fit=16))
    assert_refused(tmp_path, capsys, message.split("|"), [])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num_attention_heads", "5"], "--num_attention_heads 5: must divide the hidden size 12"),
        (["--num_attention_heads", "0"], "--num_attention_heads 0: must divide"),
        (["--num_attention_heads", "-3"], "--num_attention_heads -3: must divide"),
        (["--ffn_expr", *[EXPRESSION] * 3], "--ffn_expr: 3 expressions for the 2 layers"),
        (["--ffn_expr", "linear2(gelu(linear1(x)))"], "'linear2' is not in the release's notation"),
        (["--ffn_expr", "linear5_2(gelu(linear5_2(x,wb1)),wb2)"], "'linear5_2' is not in the release's notation"),
        (["--ffn_expr", "linear1_2(gelu(linear1_2(x)),wb2)"], "'linear1_2' is not in the release's notation"),
        (["--ffn_expr", "linear1_2(gelu(linear1_2(x,wb1)),wb3)"], "'linear1_2' is not in the release's notation"),
        (["--ffn_expr", "linear1_2(gelu(linear1_3(x,wb1)),wb2)"], "must have the same two numbers"),
        (["--ffn_expr", "linear1_2(gelu(linear1_2(x,wb2)),wb1)"], "linear1 must stand to the left of linear2"),
        (["--ffn_expr", "linear1_2(gelu(linear1_2(x,wb1)),wb1)"], "linear1 must stand in it exactly once"),
        (["--ffn_expr", "linear1_2(gelu(x),wb1"], "expected ',' or ')'"),
        (["--ffn_expr", "__import__('os')"], "expected"),
        (["--ffn_expr", ""], "--ffn_expr: must be text, not ''"),
        (["--task", "imdb"], "--task 'imdb': unknown; known are cola"),
        (["--task", "sst2"], "has no cls_pooler.dense.weight"),
        (["--task", "squad"], "has no classifier.weight"),
        (["--tokenizer", "nowhere/to be found"], "--tokenizer 'nowhere/to be found': no tokenizer"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, monkeypatch, capsys, flags, message):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "F.bin", random_checkpoint(12, [12, 12], fit=16))
    assert_refused(tmp_path, capsys, [message], flags)


@pytest.mark.parametrize(
    ("task", "head", "message"),
    [
        ("stsb", {"classifier": 2, "pooler": True}, "classifier.weight has shape (2, 12), not (1, 12)"),
        ("squad", {"classifier": 3}, "classifier.weight has shape (3, 12), not (2, 12)"),
        ("squad", {"classifier": 2, "pooler": True}, "does not belong in a squad checkpoint: cls_pooler.dense.bias"),
        ("race", {"classifier": 2, "pooler": True}, "classifier.weight has shape (2, 12), not (1, 12)"),
        ("sst2", {"classifier": 1, "pooler": True}, "its classifier has one output, sst2 has 2 labels"),
        ("sst2", {"classifier": 2}, "has no cls_pooler.dense.weight"),
    ],
)
def test_a_head_of_another_task_is_refused(tmp_path, monkeypatch, capsys, task, head, message):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "F.bin", random_checkpoint(12, [12, 12], **head))
    assert_refused(tmp_path, capsys, [message], ["--task", task])


def assert_refused(tmp_path, capsys, messages, flags):
    """One line on stderr that holds one of the messages, exit code 2, and nothing new in the folder."""
    before = sorted(tmp_path.rglob("*"))
    right = {"--checkpoint": "F.bin", "--num_attention_heads": "3", "--ffn_expr": EXPRESSION, "--output_dir": "out"}
    argv = [word for flag, value in right.items() if flag not in flags for word in (flag, value)] + flags
    with pytest.raises(SystemExit) as stopped:
        run_command(main, ConvertArguments, "convert", argv)
    captured = capsys.readouterr()
    assert stopped.value.code == 2
    assert captured.err.count("\n") == 1 and any(message in captured.err for message in messages), captured.err
    assert sorted(tmp_path.rglob("*")) == before


def test_width_that_leaves_nothing_is_refused():
    checkpoint = Checkpoint("F.bin", random_checkpoint(12, [3]))
    with pytest.raises(InputError, match=r"F.bin': .*intermediate_sizes.* must be positive, not 0"):
        convert(checkpoint, [ReleaseFFN("linear2(gelu(linear1(x)))", 1, 4)], 3)


@pytest.mark.parametrize(
    ("program", "words"),
    [("runpy.run_module('efficientbert'", ["convert"]), (f"runpy.run_path({SCRIPT!r}", [])],
)
def test_runs_as_command_and_by_path(tmp_path, program, words, fresh):
    path = save(tmp_path / "F.bin", random_checkpoint(12, [12]))
    flags = ["--checkpoint", path, "--num_attention_heads", "3", "--ffn_expr", EXPRESSION]
    code, _, stderr = fresh(
        f"import runpy; {program}, run_name='__main__')", *words, *flags, "--output_dir", tmp_path / "out"
    )
    assert code == 0, stderr
    assert AutoModel.from_pretrained(tmp_path / "out").config.hidden_size == 12
