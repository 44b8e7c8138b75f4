"""The network and its heads, against an obvious one-token-at-a-time version in double precision."""

import math
import re

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

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
ALL = [EfficientBertModel, *HEADS]


def gelu(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def sigmoid(x: torch.Tensor) -> torch.Tensor:
    return 1 / (1 + torch.exp(-x))


# Each layer's expression as text and, for the reference, written out by hand.
FFNS = {
    "linear2(mul(swish(linear1(x)), gate(x)))": lambda x, a, b, g: b(a(x) * sigmoid(a(x)) * g(x)),
    "linear2(relu(mul(linear1(x), x)))": lambda x, a, b, g: b((a(x) * x[:12]).clamp(min=0)),
    "elu(linear2(gelu(linear1(max(x, tanh(x))))))": lambda x, a, b, g: (
        lambda v: torch.where(v > 0, v, torch.exp(v) - 1)
    )(b(gelu(a(torch.maximum(x, torch.tanh(x)))))),
}


def tiny_config(**fields) -> EfficientBertConfig:
    return EfficientBertConfig(
        **{
            "vocab_size": 60,
            "embedding_size": 8,
            "hidden_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "head_dim": 5,
            "ffn_expressions": list(FFNS),
            "ffn_stacks": [2, 1, 3],
            "intermediate_sizes": [30, 12, 24],
            "max_position_embeddings": 40,
            "initializer_range": 0.2,
        }
        | fields
    )


ONE_LAYER = {
    "num_hidden_layers": 1,
    "ffn_expressions": "linear2(mul(swish(linear1(x)), gate(x)))",
    "ffn_stacks": 2,
    "intermediate_sizes": 30,
}


def tiny_model(model_class: type = EfficientBertModel, **fields) -> nn.Module:
    """A model in eval mode with no parameter at zero or one."""
    torch.manual_seed(0)
    model = model_class(tiny_config(**fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def random_ids(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(1, 60, shape, generator=torch.Generator().manual_seed(seed))


def linear(state: dict[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    return state[f"{name}.weight"] @ x + state[f"{name}.bias"]


def layer_norm(state: dict[str, torch.Tensor], name: str, x: torch.Tensor, eps: float = 1e-5) -> torch.Tensor:
    normed = (x - x.mean()) / torch.sqrt(((x - x.mean()) ** 2).mean() + eps)
    return normed * state[f"{name}.weight"] + state[f"{name}.bias"]


def reference_encoder(
    model: EfficientBertModel, ids: list[int], sees: list[list[bool]], segments: list[int], positions: list[int]
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """One sequence, one token at a time: the hidden states `(L, D)` and attention probabilities `(H, L, L)` by layer.

    Args:
        sees: `sees[q][k]`: whether token q attends to token k; also decides whether a neighbour is embedded.
    """
    config, state = model.config, {name: value.double() for name, value in model.state_dict().items()}
    table, tokens = state["embeddings.word_embeddings.weight"], range(len(ids))
    nothing = torch.zeros(config.embedding_size, dtype=torch.float64)
    hidden = []
    for t in tokens:
        following = table[ids[t + 1]] if t + 1 in tokens and sees[t][t + 1] else nothing
        preceding = table[ids[t - 1]] if t - 1 in tokens and sees[t][t - 1] else nothing
        x = linear(state, "embeddings.projection", torch.cat((following, table[ids[t]], preceding)))
        x = x + state["embeddings.position_embeddings.weight"][positions[t]]
        x = x + state["embeddings.token_type_embeddings.weight"][segments[t]]
        hidden.append(layer_norm(state, "embeddings.layer_norm", x))
    all_hidden, all_attentions = [torch.stack(hidden)], []
    for layer, (expression, (heads, size)) in enumerate(zip(config.ffn_expressions, config.attentions)):
        name = f"layers.{layer}"
        qkv = [linear(state, f"{name}.attention.qkv", x) if heads else None for x in hidden]
        contexts = [[] for _ in tokens]
        probabilities = torch.zeros(heads, len(ids), len(ids), dtype=torch.float64)
        for head in range(heads):
            query, key, value = (
                slice(start, start + size) for start in range(head * size, 3 * heads * size, heads * size)
            )
            for t in tokens:
                weights = [math.exp(qkv[t][query] @ qkv[k][key] / math.sqrt(size)) * sees[t][k] for k in tokens]
                probabilities[head, t] = torch.tensor(weights, dtype=torch.float64) / sum(weights)
                contexts[t].append(sum(probabilities[head, t, k] * qkv[k][value] for k in tokens))
        all_attentions += [probabilities] if heads else []
        for t in tokens:
            x = hidden[t]
            if heads:
                x = x + linear(state, f"{name}.attention.output", torch.cat(contexts[t]))
                x = layer_norm(state, f"{name}.layer_norm", x)
            for stack in range(config.ffn_stacks[layer]):
                ffn = f"{name}.ffns.{stack}"
                a, b, g = (lambda v, f=f"{ffn}.{part}": linear(state, f, v) for part in ("linear1", "linear2", "gate"))
                x = layer_norm(state, f"{ffn}.layer_norm", x + FFNS[expression](x, a, b, g))
            hidden[t] = x
        all_hidden.append(torch.stack(hidden))
    return all_hidden, all_attentions


OTHER_HEADS = {"attention_heads": [3, 0, 2], "head_dims": [4, 0, 7]}  # layer by layer, one without attention


@pytest.mark.parametrize("fields", [{}, OTHER_HEADS, {"attention_heads": [0, 0, 0]}])
def test_encoder_matches_the_reference(fields):
    model = tiny_model(attn_implementation="eager", **fields).double()
    ids, segments = random_ids(2, 9), torch.tensor([[0] * 4 + [1] * 5, [1] * 2 + [0] * 7])
    mask = torch.tensor([[1] * 9, [1] * 6 + [0] * 3])
    with torch.no_grad():
        outputs = model(ids, mask, segments, output_hidden_states=True, output_attentions=True)
    assert len(outputs.hidden_states) == 4
    attentive = sum(heads > 0 for heads, _ in model.config.attentions)
    assert len(outputs.attentions or ()) == attentive
    assert torch.equal(outputs.hidden_states[-1], outputs.last_hidden_state)
    for row in range(2):
        sees = [[bool(key) for key in mask[row]] for _ in range(9)]
        hidden, attentions = reference_encoder(model, ids[row].tolist(), sees, segments[row].tolist(), list(range(9)))
        real = mask[row].bool()
        for layer in range(4):
            torch.testing.assert_close(
                outputs.hidden_states[layer][row][real], hidden[layer][real], rtol=0, atol=1e-10
            )
        for layer in range(attentive):
            found = outputs.attentions[layer][row][:, real]
            torch.testing.assert_close(found, attentions[layer][:, real], rtol=0, atol=1e-10)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("form", ["boolean", "additive"])
def test_any_four_dimensional_mask_matches_the_reference(implementation, form):
    model = tiny_model(attn_implementation=implementation).double()
    ids, positions = random_ids(1, 8), [3, 1, 4, 1, 5, 9, 2, 6]
    sees = torch.rand(8, 8, generator=torch.Generator().manual_seed(0)) < 0.5
    sees |= torch.eye(8, dtype=torch.bool)
    mask = sees if form == "boolean" else torch.zeros(8, 8).double().masked_fill(~sees, -torch.inf)
    with torch.no_grad():
        output = model(ids, mask[None, None], position_ids=torch.tensor([positions])).last_hidden_state
    hidden, _ = reference_encoder(model, ids[0].tolist(), sees.tolist(), [0] * 8, positions)
    torch.testing.assert_close(output[0], hidden[-1], rtol=0, atol=1e-10)


def padded_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Ids with real tokens at the padded places, and a mask with padding right, left, on both sides and nowhere."""
    mask = torch.ones(4, 12, dtype=torch.long)
    mask[0, 7:], mask[1, :4], mask[2, :2], mask[2, 10:] = 0, 0, 0, 0
    return random_ids(4, 12), mask


@pytest.mark.parametrize("form", ["two-dimensional", "boolean", "float", "broadcast", "additive"])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_padding_never_changes_a_real_token(implementation, form):
    model = tiny_model(attn_implementation=implementation)
    ids, mask = padded_batch()
    allowed = mask.bool()[:, None, None]
    forms = {
        "two-dimensional": mask,
        "boolean": mask.bool(),
        "float": mask.float(),
        "broadcast": allowed,
        "additive": torch.where(allowed, 0.0, torch.finfo(torch.float32).min).expand(4, 1, 12, 12),
    }
    with torch.no_grad():
        output = model(ids, forms[form]).last_hidden_state
        for row in range(4):
            real = mask[row].nonzero()[:, 0]
            alone = model(ids[row : row + 1, real], position_ids=real[None]).last_hidden_state[0]
            torch.testing.assert_close(output[row, real], alone, rtol=0, atol=1e-5)


def test_the_ids_under_the_padding_do_not_matter():
    model = tiny_model()
    ids, mask = padded_batch()
    other = torch.where(mask.bool(), ids, random_ids(4, 12, seed=9))
    with torch.no_grad():
        difference = model(ids, mask).last_hidden_state - model(other, mask).last_hidden_state
    assert difference[mask.bool()].abs().max() == 0
    assert difference[~mask.bool()].abs().max() > 0.1


def test_full_mask_is_no_mask():
    model = tiny_model()
    ids = random_ids(2, 9)
    with torch.no_grad():
        expected = model(ids).last_hidden_state
        torch.testing.assert_close(model(ids, torch.ones_like(ids)).last_hidden_state, expected)
        torch.testing.assert_close(model(ids, torch.ones(1, 1, 9, 9).bool()).last_hidden_state, expected)


@pytest.mark.parametrize("form", ["boolean", "additive"])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_packed_sequences_compute_what_separate_ones_do(implementation, form):
    model = tiny_model(attn_implementation=implementation)
    lengths = [5, 1, 7]
    sequences = [random_ids(1, length, seed=length) for length in lengths]
    owner = torch.repeat_interleave(torch.tensor(lengths))
    mask = (owner[:, None] == owner[None, :])[None, None]
    if form == "additive":
        mask = torch.where(mask, 0.0, torch.finfo(torch.float32).min)
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    with torch.no_grad():
        packed = model(torch.cat(sequences, dim=1), mask, position_ids=positions).last_hidden_state
        separate = torch.cat([model(ids).last_hidden_state for ids in sequences], dim=1)
    torch.testing.assert_close(packed, separate, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("implementation", "fields"), [("sdpa", {}), ("sdpa", OTHER_HEADS), ("flex_attention", {"head_dim": 16})]
)
def test_attention_implementations_agree(implementation, fields):
    model = tiny_model(attn_implementation="eager", **fields)
    ids, mask = padded_batch()
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):  # flex attention compiles itself, for a minute
        expected = model(ids, mask).last_hidden_state
        model.set_attn_implementation(implementation)
        assert model.config._attn_implementation == implementation
        found = model(ids, mask).last_hidden_state
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], rtol=0, atol=1e-5)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_a_token_that_may_attend_to_nothing_is_no_nan(implementation):
    model = tiny_model(attn_implementation=implementation)
    mask = torch.ones(1, 1, 5, 5, dtype=torch.bool)
    mask[:, :, 2] = False
    assert model(random_ids(1, 5), mask).last_hidden_state.isfinite().all()


def test_switching_the_implementation_reaches_the_layers():
    model = tiny_model(attn_implementation="sdpa")
    model.set_attn_implementation("eager")
    assert len(model(random_ids(1, 5), output_attentions=True).attentions) == 3


def inputs_for(model_class: type, batch: int = 4, length: int = 9) -> dict[str, torch.Tensor]:
    """Inputs with padding, and labels that any head of the tiny shape takes."""
    shape = (batch, 3, length) if model_class is EfficientBertForMultipleChoice else (batch, length)
    generator = torch.Generator().manual_seed(5)
    mask = torch.ones(shape, dtype=torch.long)
    mask[0, ..., length - 2 :] = 0
    inputs = {"input_ids": random_ids(*shape), "attention_mask": mask}
    if model_class is EfficientBertForMaskedLM:
        labels = torch.randint(60, shape, generator=generator)
        inputs["labels"] = torch.where(torch.rand(shape, generator=generator) < 0.6, labels, -100)
    elif model_class is EfficientBertForTokenClassification:
        labels = torch.randint(2, shape, generator=generator)
        inputs["labels"] = torch.where(torch.rand(shape, generator=generator) < 0.6, labels, -100)
    elif model_class is EfficientBertForQuestionAnswering:
        inputs["start_positions"] = torch.randint(length, (batch,), generator=generator)
        inputs["end_positions"] = torch.randint(length, (batch,), generator=generator)
    elif model_class is not EfficientBertModel:
        inputs["labels"] = torch.randint(2, (batch,), generator=generator)
    return inputs


@pytest.mark.parametrize("fields", [{}, OTHER_HEADS], ids=["same heads", "other heads"])
@pytest.mark.parametrize("model_class", HEADS)
def test_every_parameter_is_used(model_class, fields):
    model = tiny_model(model_class, **fields).train()
    model(**inputs_for(model_class)).loss.backward()
    unused = {name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()}
    assert unused <= {"choice_classifier.output.bias"}  # it adds the same to every choice


def test_every_layer_has_the_weights_of_its_own_heads():
    model = tiny_model(**OTHER_HEADS)
    shapes = {
        name: tuple(p.shape) for name, p in model.named_parameters() if re.search(r"attention|s\.\d\.layer_n", name)
    }
    assert shapes == {
        **{f"layers.{layer}.attention.qkv.weight": (3 * inner, 24) for layer, inner in ((0, 12), (2, 14))},
        **{f"layers.{layer}.attention.qkv.bias": (3 * inner,) for layer, inner in ((0, 12), (2, 14))},
        **{f"layers.{layer}.attention.output.weight": (24, inner) for layer, inner in ((0, 12), (2, 14))},
        **{f"layers.{layer}.attention.output.bias": (24,) for layer in (0, 2)},
        **{f"layers.{layer}.layer_norm.{part}": (24,) for layer in (0, 2) for part in ("weight", "bias")},
        **{
            f"layers.{layer}.ffns.{index}.layer_norm.{part}": (24,)
            for layer, stack in enumerate((2, 1, 3))
            for index in range(stack)
            for part in ("weight", "bias")
        },
    }


def test_one_product_makes_queries_keys_and_values():
    model = EfficientBertModel(EfficientBertConfig(num_hidden_layers=1, ffn_stacks=1, vocab_size=10))
    linears = {name: tuple(m.weight.shape) for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    assert linears == {
        "embeddings.projection": (540, 384),
        "layers.0.attention.qkv": (1620, 540),
        "layers.0.attention.output": (540, 540),
        "layers.0.ffns.0.linear1": (270, 540),
        "layers.0.ffns.0.linear2": (540, 270),
    }


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(reentrant):
    inputs = inputs_for(EfficientBertForSequenceClassification)
    gradients, losses = [], []
    for checkpointing in (False, True):
        model = tiny_model(EfficientBertForSequenceClassification).train()  # with dropout
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
            assert all(layer.gradient_checkpointing for layer in model.efficientbert.layers)
        torch.manual_seed(7)
        loss = model(**inputs).loss
        loss.backward()
        losses.append(loss.item())
        gradients.append({name: value.grad for name, value in model.named_parameters()})
    assert losses[0] == losses[1]
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("model_class", ALL)
def test_half_precision_is_finite_and_near(model_class, implementation, dtype):
    inputs = inputs_for(model_class)
    inputs["attention_mask"][1] = 0  # a row that is all padding
    model = tiny_model(model_class, attn_implementation=implementation)
    with torch.no_grad():
        expected = model(**inputs)
        found = model.to(dtype)(**inputs)
    if model_class is not EfficientBertModel:
        assert found.loss.isfinite()
        torch.testing.assert_close(found.loss.float(), expected.loss, rtol=0.05, atol=0.05)
    value = found[0] if model_class is EfficientBertModel else found[1]
    assert value.dtype == dtype
    assert value.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gradients_are_finite(dtype):
    inputs = inputs_for(EfficientBertForSequenceClassification)
    inputs["attention_mask"][1] = 0
    model = tiny_model(EfficientBertForSequenceClassification).to(dtype).train()
    model(**inputs).loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("model_class", ALL)
def test_compiles_to_one_graph(model_class):
    torch.compiler.reset()
    model = tiny_model(model_class, **ONE_LAYER)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    for batch, length in ((4, 9), (3, 12)):
        inputs = inputs_for(model_class, batch, length)
        with torch.no_grad():
            expected, found = model(**inputs).to_tuple(), compiled(**inputs).to_tuple()
        assert len(found) == len(expected)
        for a, b in zip(found, expected):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model_class", ALL)
def test_exports_with_dynamic_batch_and_length(model_class):
    model = tiny_model(model_class, **ONE_LAYER)

    def example(batch: int, length: int) -> dict[str, torch.Tensor]:
        inputs = inputs_for(model_class, batch, length)
        return {name: inputs[name] for name in ("input_ids", "attention_mask")}

    batch, length = torch.export.Dim("batch", max=64), torch.export.Dim("length", min=3, max=40)
    dynamic = {0: batch, (2 if model_class is EfficientBertForMultipleChoice else 1): length}
    shapes = {"input_ids": dynamic, "attention_mask": dynamic}
    program = torch.export.export(model, (), example(4, 9), dynamic_shapes=shapes).module()
    for sizes in ((4, 9), (1, 5), (7, 40)):
        inputs = example(*sizes)
        with torch.no_grad():
            expected, found = model(**inputs), program(**inputs)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model_class", ALL)
def test_safetensors_round_trip(model_class, tmp_path):
    model = tiny_model(model_class)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    loaded, report = model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert not loaded.training
    state = model.state_dict()
    assert loaded.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())


def test_masked_lm_decoder_is_the_token_table(tmp_path):
    model = tiny_model(EfficientBertForMaskedLM)
    table = model.efficientbert.embeddings.word_embeddings.weight
    assert model.lm_head.decoder.weight is table
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert [name for name in file.keys() if file.get_slice(name).get_shape() == [60, 8]] == [
            "efficientbert.embeddings.word_embeddings.weight"
        ]
    loaded = EfficientBertForMaskedLM.from_pretrained(tmp_path)
    assert loaded.lm_head.decoder.weight is loaded.get_input_embeddings().weight
    assert torch.equal(loaded.lm_head.decoder.weight, table)


def test_masked_lm_decoder_can_be_its_own(tmp_path):
    model = tiny_model(EfficientBertForMaskedLM, tie_word_embeddings=False)
    assert model.lm_head.decoder.weight is not model.get_input_embeddings().weight
    model.save_pretrained(tmp_path)
    loaded = EfficientBertForMaskedLM.from_pretrained(tmp_path)
    assert torch.equal(loaded.lm_head.decoder.weight, model.lm_head.decoder.weight)
    assert not torch.equal(loaded.lm_head.decoder.weight, loaded.get_input_embeddings().weight)


def test_masked_lm_head_matches_the_reference():
    model = tiny_model(EfficientBertForMaskedLM).double()
    ids = random_ids(1, 6)
    with torch.no_grad():
        logits = model(ids).logits[0]
        hidden = model.efficientbert(ids).last_hidden_state[0]
    state = model.state_dict()
    for x, found in zip(hidden, logits):
        x = layer_norm(state, "lm_head.layer_norm", gelu(linear(state, "lm_head.dense", x)))
        expected = state["efficientbert.embeddings.word_embeddings.weight"] @ x + state["lm_head.decoder.bias"]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("size", [75, 50])
def test_resized_embeddings_keep_the_old_tokens(size, tied, tmp_path):
    model = tiny_model(EfficientBertForMaskedLM, tie_word_embeddings=tied)
    ids, kept = random_ids(2, 7).clamp(max=49), min(size, 60)
    with torch.no_grad():
        expected = model(ids).logits
        model.resize_token_embeddings(size)
        found = model(ids, labels=ids)
    assert found.logits.shape == (2, 7, size)
    assert found.loss.isfinite()
    torch.testing.assert_close(found.logits[..., :kept], expected[..., :kept])
    decoder = model.lm_head.decoder
    assert decoder.bias.shape == (size,)
    assert decoder.out_features == size
    assert model.config.vocab_size == size
    assert (decoder.weight is model.get_input_embeddings().weight) == tied
    assert model.get_input_embeddings().weight.shape == (size, 8)
    model.save_pretrained(tmp_path)
    loaded = EfficientBertForMaskedLM.from_pretrained(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, found.logits)


def test_resized_embeddings_of_the_bare_model():
    model = tiny_model()
    ids = random_ids(2, 7)
    with torch.no_grad():
        expected = model(ids).last_hidden_state
        model.resize_token_embeddings(64)
        torch.testing.assert_close(model(ids).last_hidden_state, expected)
    assert model(torch.full((1, 4), 63)).last_hidden_state.isfinite().all()


def test_embeddings_may_be_given():
    model = tiny_model()
    ids, mask = padded_batch()
    with torch.no_grad():
        embeds = model.get_input_embeddings()(ids)
        found = model(inputs_embeds=embeds, attention_mask=mask).last_hidden_state
        torch.testing.assert_close(found, model(ids, mask).last_hidden_state)
    for arguments in ({}, {"input_ids": ids, "inputs_embeds": embeds}):
        with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
            model(**arguments)
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        tiny_model(EfficientBertForMultipleChoice)(attention_mask=mask[:, None])


def test_first_segment_and_counted_positions_are_the_defaults():
    model = tiny_model()
    ids = random_ids(2, 7)
    given = {"token_type_ids": torch.zeros_like(ids), "position_ids": torch.arange(7).expand(2, 7)}
    with torch.no_grad():
        torch.testing.assert_close(model(ids, **given).last_hidden_state, model(ids).last_hidden_state)


@pytest.mark.parametrize("model_class", ALL)
def test_outputs_on_request(model_class):
    model = tiny_model(model_class, attn_implementation="eager")
    inputs = inputs_for(model_class)
    sequences, length = inputs["input_ids"].shape[:-1].numel(), inputs["input_ids"].shape[-1]
    with torch.no_grad():
        outputs = model(**inputs, output_hidden_states=True, output_attentions=True)
        plain = model(**inputs)
        values = model(**inputs, return_dict=False)
    assert [tuple(value.shape) for value in outputs.hidden_states] == [(sequences, length, 24)] * 4
    assert [tuple(value.shape) for value in outputs.attentions] == [(sequences, 4, length, length)] * 3
    for attention in outputs.attentions:
        torch.testing.assert_close(attention.sum(-1), torch.ones(sequences, 4, length))
        assert attention[0, :, :, length - 2 :].max() == 0
    assert plain.hidden_states is None
    assert plain.attentions is None
    assert isinstance(values, tuple)
    torch.testing.assert_close(values[0], plain[0])


def test_fresh_weights():
    model = EfficientBertForMaskedLM(EfficientBertConfig(vocab_size=500, initializer_range=0.03))
    for module in model.modules():
        if isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.03, rel=0.05)
            assert not module.bias.any()
        elif isinstance(module, nn.LayerNorm):
            assert (module.weight == 1).all()
            assert module.eps == 1e-5
    table = model.get_input_embeddings().weight
    assert not table[0].any()
    assert table[1:].std().item() == pytest.approx(0.03, rel=0.05)


def test_dropout_acts_in_training_only():
    ids = random_ids(2, 7)
    model = tiny_model()
    assert torch.equal(model(ids).last_hidden_state, model(ids).last_hidden_state)
    model.train()
    assert not torch.equal(model(ids).last_hidden_state, model(ids).last_hidden_state)
    still = tiny_model(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).train()
    torch.testing.assert_close(still(ids).last_hidden_state, still.eval()(ids).last_hidden_state)


def test_head_dropout():
    assert tiny_model(EfficientBertForTokenClassification, hidden_dropout_prob=0.3).dropout.p == 0.3
    head = tiny_model(EfficientBertForSequenceClassification, classifier_dropout=0.0).classifier
    assert head.dropout.p == 0.0


def pooled(model: nn.Module, head: str, hidden: torch.Tensor) -> torch.Tensor:
    """The pooled head, from the first token of each row."""
    state = model.state_dict()
    rows = [torch.tanh(linear(state, f"{head}.pooler", row[0])) for row in hidden]
    return torch.stack([linear(state, f"{head}.output", row) for row in rows])


@pytest.mark.parametrize(
    ("fields", "labels", "decided"),
    [
        ({"num_labels": 3}, [2, 0, 1, 1], "single_label_classification"),
        ({"num_labels": 2}, [1, 0, 1, 1], "single_label_classification"),
        ({"num_labels": 1}, [2.5, 0.0, -1.0, 3.0], "regression"),
        ({"num_labels": 1}, [[2.5], [0.0], [-1.0], [3.0]], "regression"),
        ({"num_labels": 1}, [2, 0, 1, 1], "regression"),
        (
            {"num_labels": 2, "problem_type": "regression"},
            [[2.5, 0.5], [0.0, 1.0], [-1.0, 0.1], [3.0, 0.2]],
            "regression",
        ),
        ({"num_labels": 2}, [[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [0.0, 1.0]], "multi_label_classification"),
        (
            {"num_labels": 2, "problem_type": "multi_label_classification"},
            [[1, 0], [1, 1], [0, 0], [0, 1]],
            "multi_label_classification",
        ),
    ],
)
def test_sequence_classification_problems(fields, labels, decided):
    model = tiny_model(EfficientBertForSequenceClassification, **fields).double()
    ids, mask = random_ids(4, 9), torch.ones(4, 9, dtype=torch.long)
    with torch.no_grad():
        found = model(ids, mask, labels=torch.tensor(labels))
        hidden = model.efficientbert(ids, mask).last_hidden_state
    logits = pooled(model, "classifier", hidden)
    torch.testing.assert_close(found.logits, logits, rtol=0, atol=1e-10)
    targets = torch.tensor(labels).double()
    if decided == "single_label_classification":
        terms = [torch.log(torch.exp(row).sum()) - row[label] for row, label in zip(logits, labels)]
    elif decided == "regression":
        terms = [(a - b) ** 2 for a, b in zip(logits.flatten(), targets.flatten())]
    else:
        chances = sigmoid(logits).flatten()
        terms = [-torch.log(p if t else 1 - p) for p, t in zip(chances, targets.flatten())]
    assert found.loss.item() == pytest.approx(sum(terms).item() / len(terms), rel=1e-6)
    assert model.config.problem_type == decided


def test_token_classification_matches_the_reference():
    model = tiny_model(EfficientBertForTokenClassification, num_labels=5).double()
    inputs = inputs_for(EfficientBertForTokenClassification)
    with torch.no_grad():
        found = model(**inputs)
        hidden = model.efficientbert(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state
    state, terms = model.state_dict(), []
    for row, labels, scores in zip(hidden, inputs["labels"], found.logits):
        for x, label, score in zip(row, labels, scores):
            expected = linear(state, "token_classifier", x)
            torch.testing.assert_close(score, expected, rtol=0, atol=1e-10)
            if label != -100:
                terms.append(torch.log(torch.exp(expected).sum()) - expected[label])
    assert found.loss.item() == pytest.approx(sum(terms).item() / len(terms), rel=1e-6)


def test_question_answering_matches_the_reference():
    model = tiny_model(EfficientBertForQuestionAnswering, num_labels=5).double()  # the label count has no say here
    inputs = inputs_for(EfficientBertForQuestionAnswering)
    with torch.no_grad():
        found = model(**inputs)
        hidden = model.efficientbert(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state
    state, terms = model.state_dict(), []
    for row in range(4):
        scores = torch.stack([linear(state, "qa_outputs", x) for x in hidden[row]])
        torch.testing.assert_close(found.start_logits[row], scores[:, 0], rtol=0, atol=1e-10)
        torch.testing.assert_close(found.end_logits[row], scores[:, 1], rtol=0, atol=1e-10)
        for column, name in enumerate(("start_positions", "end_positions")):
            terms.append(torch.log(torch.exp(scores[:, column]).sum()) - scores[inputs[name][row], column])
    assert found.loss.item() == pytest.approx(sum(terms).item() / 8, rel=1e-6)


def test_answers_outside_the_window_do_not_count():
    model = tiny_model(EfficientBertForQuestionAnswering)
    inputs = inputs_for(EfficientBertForQuestionAnswering)
    with torch.no_grad():
        expected = model(**{name: value[1:] for name, value in inputs.items()}).loss
        inputs["start_positions"][0] = inputs["end_positions"][0] = 10_000
        torch.testing.assert_close(model(**inputs).loss, expected)


def test_multiple_choice_scores_each_choice_alone():
    model = tiny_model(EfficientBertForMultipleChoice, num_labels=5).double()
    inputs = inputs_for(EfficientBertForMultipleChoice)
    segments = torch.randint(2, (4, 3, 9))
    with torch.no_grad():
        found = model(**inputs, token_type_ids=segments)
        for choice in range(3):
            each = [value[:, choice] for value in (inputs["input_ids"], inputs["attention_mask"], segments)]
            scores = pooled(model, "choice_classifier", model.efficientbert(*each).last_hidden_state)[:, 0]
            torch.testing.assert_close(found.logits[:, choice], scores, rtol=0, atol=1e-10)
    terms = [torch.log(torch.exp(row).sum()) - row[label] for row, label in zip(found.logits, inputs["labels"])]
    assert found.loss.item() == pytest.approx(sum(terms).item() / 4, rel=1e-6)


PROBLEMS = [
    *((model_class, {}, None) for model_class in HEADS),
    (EfficientBertForSequenceClassification, {"num_labels": 1}, torch.tensor([0.5, 2.0, -1.0, 3.0])),
    (
        EfficientBertForSequenceClassification,
        {"num_labels": 2, "problem_type": "regression"},
        torch.tensor([[0.5, 2.0], [-1.0, 3.0], [0.0, 1.0], [2.0, 2.0]]),
    ),
    (
        EfficientBertForSequenceClassification,
        {"num_labels": 2},
        torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [0.0, 1.0]]),
    ),
]


@pytest.mark.parametrize(("model_class", "fields", "labels"), PROBLEMS)
def test_a_batch_may_be_cut_anywhere(model_class, fields, labels):
    """With the number of labels of the whole batch, the parts' losses add up to the loss of the whole."""
    model = tiny_model(model_class, **fields).double()
    inputs = inputs_for(model_class)
    if labels is not None:
        inputs["labels"] = labels
    target = inputs.get("labels", inputs.get("start_positions"))
    items = (target != -100).sum()
    with torch.no_grad():
        whole = model(**inputs).loss
        for count in (items, items.item()):
            parts = [
                model(**{name: value[rows] for name, value in inputs.items()}, num_items_in_batch=count).loss
                for rows in (slice(0, 1), slice(1, 4))
            ]
            torch.testing.assert_close(sum(parts), whole)


def test_the_head_of_earlier_versions_loads(tmp_path):
    """Version 0.1.0 called it `sequence_classifier`; what is loaded from it is saved so that it loads again."""
    model = tiny_model(EfficientBertForSequenceClassification)
    model.save_pretrained(tmp_path / "now")
    config = (tmp_path / "now" / "config.json").read_text(encoding="utf-8")
    (tmp_path / "then").mkdir()
    (tmp_path / "then" / "config.json").write_text(config, encoding="utf-8")
    tensors = {re.sub("^classifier", "sequence_classifier", name): part for name, part in model.state_dict().items()}
    save_file(tensors, tmp_path / "then" / "model.safetensors", {"format": "pt"})
    for start, saved in (("then", "again"), ("again", "at last")):
        loaded, report = type(model).from_pretrained(tmp_path / start, output_loading_info=True)
        assert not report["missing_keys"] and not report["unexpected_keys"]
        for name, tensor in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor), name
        loaded.save_pretrained(tmp_path / saved)
