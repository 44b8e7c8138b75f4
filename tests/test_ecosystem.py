"""The libraries around transformers that a user brings: Trainer, pipeline, sentence-transformers, PEFT."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from torch import nn
from transformers import BertTokenizer, Trainer, TrainingArguments, pipeline

from efficientbert import (
    EfficientBertConfig,
    EfficientBertForMaskedLM,
    EfficientBertForMultipleChoice,
    EfficientBertForQuestionAnswering,
    EfficientBertForSequenceClassification,
    EfficientBertForTokenClassification,
    EfficientBertModel,
)


HEADS = [
    EfficientBertForMaskedLM,
    EfficientBertForSequenceClassification,
    EfficientBertForTokenClassification,
    EfficientBertForQuestionAnswering,
    EfficientBertForMultipleChoice,
]
WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] a bad film good in is paris the was . this example about".split()
TEXTS = ["a good film", "the film was bad .", "paris is good"]


def tiny_model(model_class: type, **fields) -> nn.Module:
    torch.manual_seed(0)
    config = EfficientBertConfig(
        **{
            "vocab_size": len(WORDS),
            "embedding_size": 8,
            "hidden_size": 24,
            "num_attention_heads": 4,
            "num_hidden_layers": 2,
            "ffn_expressions": ["linear2(mul(swish(linear1(x)), gate(x)))", "elu(linear2(gelu(linear1(x))))"],
            "ffn_stacks": [2, 1],
            "intermediate_sizes": 12,
            "max_position_embeddings": 32,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "initializer_range": 0.2,
        }
        | fields
    )
    return model_class(config).eval()


@pytest.fixture
def tokenizer() -> BertTokenizer:
    return BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)}, model_max_length=32)


def examples(model_class: type, count: int = 8) -> list[dict[str, torch.Tensor]]:
    """Labelled examples; the labels of a row depend on its first token, and rows have unequal numbers of them."""
    generator, rows = torch.Generator().manual_seed(1), []
    for row in range(count):
        shape = (3, 7) if model_class is EfficientBertForMultipleChoice else (7,)
        ids = torch.randint(5, len(WORDS), shape, generator=generator)
        mask = torch.ones_like(ids)
        mask[..., 7 - row % 3 :] = 0
        example = {"input_ids": ids, "attention_mask": mask}
        if model_class is EfficientBertForQuestionAnswering:
            example |= {"start_positions": torch.tensor(row % 2), "end_positions": torch.tensor(2 + row % 2)}
        elif model_class in (EfficientBertForSequenceClassification, EfficientBertForMultipleChoice):
            example["labels"] = torch.tensor(row % 2)
        else:
            example["labels"] = torch.where(torch.arange(7) <= row % 5, torch.arange(7) % 2, -100)
        rows.append(example)
    return rows


def train(model: nn.Module, folder: Path, data: list, **arguments) -> Trainer:
    arguments = {"use_cpu": True, "report_to": "none", "save_strategy": "no", "disable_tqdm": True} | arguments
    trainer = Trainer(model, TrainingArguments(str(folder), **arguments), train_dataset=data, eval_dataset=data)
    trainer.train()
    return trainer


@pytest.mark.parametrize("model_class", HEADS)
def test_trainer_learns(model_class, tmp_path):
    model, data = tiny_model(model_class), examples(model_class)
    before = {name: value.clone() for name, value in model.named_parameters()}
    trainer = train(
        model,
        tmp_path,
        data,
        max_steps=40,
        learning_rate=1e-2,
        per_device_train_batch_size=8,
        logging_steps=1,
        logging_strategy="steps",
    )
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.5 * losses[0]
    still = {name for name, value in model.named_parameters() if torch.equal(value, before[name])}
    assert still == set()
    assert trainer.evaluate()["eval_loss"] < 0.5 * losses[0]
    trainer.save_model()
    loaded = model_class.from_pretrained(tmp_path)
    batch = {name: torch.stack([row[name] for row in data]) for name in data[0]}
    with torch.no_grad():
        torch.testing.assert_close(loaded(**batch).loss, model.eval()(**batch).loss)


@pytest.mark.parametrize("model_class", HEADS)
def test_gradient_accumulation_changes_nothing(model_class, tmp_path):
    states = []
    for batch, steps in ((8, 1), (2, 4)):
        model = tiny_model(model_class)
        arguments = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": steps}
        train(model, tmp_path, examples(model_class), max_steps=2, learning_rate=0.1, optim="sgd", **arguments)
        states.append(model.state_dict())
    start = tiny_model(model_class).state_dict()
    assert any(not torch.equal(value, start[name]) for name, value in states[0].items())
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_feature_extraction_pipeline(tokenizer):
    model = tiny_model(EfficientBertModel)
    found = pipeline("feature-extraction", model=model, tokenizer=tokenizer)(TEXTS)
    with torch.no_grad():
        for text, features in zip(TEXTS, found):
            expected = model(**tokenizer(text, return_tensors="pt")).last_hidden_state
            torch.testing.assert_close(torch.tensor(features), expected)


def test_fill_mask_pipeline(tokenizer):
    model = tiny_model(EfficientBertForMaskedLM)
    text = "a [MASK] film ."
    found = pipeline("fill-mask", model=model, tokenizer=tokenizer)(text, top_k=3)
    with torch.no_grad():
        chances = model(**tokenizer(text, return_tensors="pt")).logits[0, 2].softmax(-1).topk(3)
    assert [entry["token"] for entry in found] == chances.indices.tolist()
    assert [entry["score"] for entry in found] == pytest.approx(chances.values.tolist(), rel=1e-4)


@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification"])
def test_text_classification_pipeline(problem, tokenizer):
    names = {0: "poor", 1: "fair", 2: "fine"}
    model = tiny_model(EfficientBertForSequenceClassification, problem_type=problem, id2label=names)
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer, top_k=None)
    for text, found in zip(TEXTS, classify(TEXTS, batch_size=3)):  # padded to one length
        with torch.no_grad():
            logits = model(**tokenizer(text, return_tensors="pt")).logits[0]
        chances = logits.softmax(-1) if problem.startswith("single") else logits.sigmoid()
        scores = {entry["label"]: entry["score"] for entry in found}
        assert scores == pytest.approx({name: chances[index].item() for index, name in names.items()}, rel=1e-4)


def test_token_classification_pipeline(tokenizer):
    model = tiny_model(EfficientBertForTokenClassification, id2label={0: "O", 1: "B-LOC", 2: "I-LOC"})
    found = pipeline("token-classification", model=model, tokenizer=tokenizer, ignore_labels=[])(TEXTS[1])
    with torch.no_grad():
        chances = model(**tokenizer(TEXTS[1], return_tensors="pt")).logits[0].softmax(-1).max(-1)
    assert [entry["word"] for entry in found] == TEXTS[1].split()
    assert [entry["score"] for entry in found] == pytest.approx(chances.values[1:-1].tolist(), rel=1e-4)
    labels = [model.config.id2label[index] for index in chances.indices[1:-1].tolist()]
    assert [entry["entity"] for entry in found] == labels


def test_zero_shot_classification_pipeline(tokenizer):
    names = {"contradiction": 0, "neutral": 1, "entailment": 2}
    fields = {"label2id": names, "id2label": {index: name for name, index in names.items()}}
    model = tiny_model(EfficientBertForSequenceClassification, **fields)
    classify = pipeline("zero-shot-classification", model=model, tokenizer=tokenizer)
    found = classify(TEXTS[0], ["film", "paris"], hypothesis_template="this example is about {} .")
    pairs = [[TEXTS[0], f"this example is about {label} ."] for label in ("film", "paris")]
    with torch.no_grad():
        logits = torch.cat([model(**tokenizer(*pair, return_tensors="pt")).logits for pair in pairs])
    expected = dict(zip(("film", "paris"), logits[:, 2].softmax(0).tolist()))
    assert dict(zip(found["labels"], found["scores"])) == pytest.approx(expected, rel=1e-4)


def test_sentence_transformers(tokenizer, tmp_path):
    model = tiny_model(EfficientBertModel)
    model.save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "encoder")
    words = Transformer(str(tmp_path / "encoder"))
    pooling = Pooling(words.get_embedding_dimension(), pooling_mode="mean")
    embedder = SentenceTransformer(modules=[words, pooling], device="cpu")
    found = embedder.encode(TEXTS, convert_to_tensor=True)  # padded to one length
    assert embedder.get_embedding_dimension() == 24
    with torch.no_grad():
        for text, embedding in zip(TEXTS, found):
            expected = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
            torch.testing.assert_close(embedding, expected, rtol=1e-4, atol=1e-5)
    embedder.save(str(tmp_path / "embedder"))
    loaded = SentenceTransformer(str(tmp_path / "embedder"), device="cpu")
    torch.testing.assert_close(loaded.encode(TEXTS, convert_to_tensor=True), found)
    assert (tmp_path / "embedder" / "modeling_efficientbert.py").exists()


@pytest.mark.parametrize(
    ("model_class", "task", "head"),
    [
        (EfficientBertForSequenceClassification, "SEQ_CLS", "classifier"),
        (EfficientBertForTokenClassification, "TOKEN_CLS", "token_classifier"),
        (EfficientBertForQuestionAnswering, "QUESTION_ANS", "qa_outputs"),
        (EfficientBertForMultipleChoice, None, "choice_classifier"),
    ],
)
def test_peft_lora(model_class, task, head, tmp_path):
    data = examples(model_class)
    batch = {name: torch.stack([row[name] for row in data]) for name in data[0]}
    lora = LoraConfig(
        r=4, task_type=task, target_modules=["qkv", "linear1", "linear2"], modules_to_save=[head], lora_dropout=0.0
    )
    base = tiny_model(model_class)
    frozen = {name: value.clone() for name, value in base.state_dict().items()}
    model = get_peft_model(tiny_model(model_class), lora)
    train(model, tmp_path / "run", data, max_steps=30, learning_rate=1e-2)
    model.eval()
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    # qkv of 2 layers, two linears of 3 FFNs, two matrices each; the rest is the head
    assert sum("lora_" in name for name in trained) == 2 * (2 + 2 * 3)
    assert all("lora_" in name or f"{head}.modules_to_save" in name for name in trained)
    assert any(f"{head}.modules_to_save" in name for name in trained)
    with torch.no_grad():
        expected, plain = model(**batch), base(**batch)
        assert expected.loss < plain.loss
        with model.disable_adapter():
            torch.testing.assert_close(model(**batch).loss, plain.loss)
    model.save_pretrained(tmp_path / "adapter")
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    loaded = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(**batch)[1], expected[1])
    merged = loaded.merge_and_unload()
    assert type(merged) is model_class
    with torch.no_grad():
        torch.testing.assert_close(merged(**batch)[1], expected[1], rtol=1e-4, atol=1e-4)
    merged.save_pretrained(tmp_path / "merged")
    reloaded = model_class.from_pretrained(tmp_path / "merged")
    assert reloaded.state_dict().keys() == frozen.keys()
    with torch.no_grad():
        torch.testing.assert_close(reloaded(**batch)[1], merged(**batch)[1])


@pytest.mark.parametrize(
    ("model_class", "task", "head"),
    [
        (EfficientBertForSequenceClassification, "SEQ_CLS", "classifier"),
        (EfficientBertForTokenClassification, "TOKEN_CLS", "token_classifier"),
        (EfficientBertForQuestionAnswering, "QUESTION_ANS", "qa_outputs"),
    ],
)
def test_peft_finds_the_head_by_itself(model_class, task, head):
    model = get_peft_model(tiny_model(model_class), LoraConfig(task_type=task, target_modules=["qkv"]))
    trained = [name for name, value in model.named_parameters() if value.requires_grad and "lora_" not in name]
    assert trained
    assert all(head in name for name in trained)


def test_peft_on_all_linears(tmp_path):
    """The head is trained and saved whole, not by LoRA; what is loaded again gives the same to the bit."""
    tiny_model(EfficientBertForSequenceClassification).save_pretrained(tmp_path / "base")
    lora = LoraConfig(task_type="SEQ_CLS", target_modules="all-linear")
    model = get_peft_model(EfficientBertForSequenceClassification.from_pretrained(tmp_path / "base"), lora)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    inputs = {"input_ids": torch.tensor([[2, 5, 7, 8, 3], [2, 5, 6, 7, 3]]), "labels": torch.tensor([0, 1])}
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    for _ in range(2):  # the first step moves one side of LoRA alone
        model(**inputs).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    head = "base_model.model.classifier.modules_to_save.default"
    heads = {f"{head}.{part}.{kind}" for part in ("pooler", "output") for kind in ("weight", "bias")}
    assert {name for name in moved if ".classifier." in name} == heads
    assert all("lora_" in name for name in moved - heads) and moved - heads
    model.save_pretrained(tmp_path / "adapter")
    base = EfficientBertForSequenceClassification.from_pretrained(tmp_path / "base")
    loaded = PeftModel.from_pretrained(base, tmp_path / "adapter")
    assert torch.equal(loaded.eval()(**inputs).logits, model.eval()(**inputs).logits)
