"""The configuration: defaults and presets, expansion of scalars, validation, saving and loading."""

import json

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from efficientbert import EfficientBertConfig, EfficientBertModel


PUBLISHED_EXPRESSIONS = [
    "tanh(linear2(gelu(linear1(x))))",
    "elu(linear2(gelu(linear1(x))))",
    "sigmoid(linear2(relu(linear1(x))))",
    "linear2(gelu(linear1(max(x, tanh(x)))))",
    "linear2(relu(mul(linear1(x), x)))",
    "leaky_relu(linear2(gelu(linear1(x))))",
]


def test_default_is_the_published_model():
    config = EfficientBertConfig()
    assert (config.vocab_size, config.embedding_size, config.hidden_size) == (30522, 128, 540)
    assert (config.num_hidden_layers, config.num_attention_heads, config.head_dim) == (6, 12, 45)
    assert (config.max_position_embeddings, config.type_vocab_size, config.layer_norm_eps) == (512, 2, 1e-5)
    assert config.ffn_expressions == PUBLISHED_EXPRESSIONS
    assert config.ffn_stacks == [4, 2, 1, 2, 1, 2]
    assert config.intermediate_sizes == [270, 540, 270, 270, 270, 180]


def parameters(hidden: int, stacks: list[int], intermediate: list[int]) -> int:
    """Parameters of an encoder without gates, added up by hand."""
    norm = 2 * hidden
    embeddings = 30522 * 128 + (3 * 128 * hidden + hidden) + 512 * hidden + 2 * hidden + norm
    attention = 4 * (hidden * hidden + hidden) + norm  # queries, keys, values and output
    ffns = sum(stack * ((hidden * m + m) + (m * hidden + hidden) + norm) for stack, m in zip(stacks, intermediate))
    return embeddings + len(stacks) * attention + ffns


STACKS = [4, 2, 1, 2, 1, 2]
TWICE = [stack for stack in STACKS for _ in range(2)]


@pytest.mark.parametrize(
    ("preset", "hidden", "stacks", "intermediate", "total"),
    [
        ("efficientbert-tiny", 360, STACKS, [180, 360, 180, 180, 180, 120], 9_097_896),
        ("efficientbert", 540, STACKS, [270, 540, 270, 270, 270, 180], 15_322_236),
        ("efficientbert-plus", 540, STACKS, [270, 540, 270, 270, 270, 180], 15_322_236),
        (
            "efficientbert-plus-plus",
            360,
            TWICE,
            [270, 270, 540, 540, 270, 270, 270, 270, 270, 270, 180, 180],
            15_695_016,
        ),
    ],
)
def test_presets_have_exactly_the_published_parameters(preset, hidden, stacks, intermediate, total):
    config = EfficientBertConfig.from_preset(preset)
    assert config.ffn_stacks == stacks
    assert config.intermediate_sizes == intermediate
    assert config.ffn_expressions == [
        text for text in PUBLISHED_EXPRESSIONS for _ in range(config.num_hidden_layers // 6)
    ]
    assert parameters(hidden, stacks, intermediate) == total
    with torch.device("meta"):
        model = EfficientBertModel(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == total


def test_unknown_preset_is_refused_by_name():
    with pytest.raises(ValueError, match="unknown preset 'efficientbert-huge'; known are efficientbert-tiny, "):
        EfficientBertConfig.from_preset("efficientbert-huge")


def test_preset_with_overrides():
    config = EfficientBertConfig.from_preset("efficientbert-tiny", num_labels=5, vocab_size=100, ffn_stacks=1)
    assert (config.hidden_size, config.num_labels, config.vocab_size) == (360, 5, 100)
    assert config.ffn_stacks == [1] * 6
    config = EfficientBertConfig.from_preset("efficientbert-tiny", hidden_size=120)
    assert (config.head_dim, config.intermediate_sizes) == (10, [60, 120, 60, 60, 60, 40])
    assert EfficientBertConfig.from_preset("efficientbert-tiny").vocab_size == 30522


def test_scalars_are_expanded_to_one_entry_per_layer():
    config = EfficientBertConfig(
        num_hidden_layers=3,
        ffn_expressions=" linear2( identity(gelu(linear1(x))))",
        ffn_stacks=2,
        intermediate_sizes=77,
    )
    assert config.ffn_expressions == ["linear2(gelu(linear1(x)))"] * 3
    assert config.ffn_stacks == [2, 2, 2]
    assert config.intermediate_sizes == [77, 77, 77]


def test_lists_of_the_caller_are_not_shared():
    stacks = [1] * 6
    config = EfficientBertConfig(ffn_stacks=stacks)
    stacks[0] = 9
    assert config.ffn_stacks == [1] * 6
    EfficientBertConfig().ffn_expressions[0] = "x"
    assert EfficientBertConfig().ffn_expressions == PUBLISHED_EXPRESSIONS


def test_head_dim():
    assert EfficientBertConfig(hidden_size=96, num_attention_heads=4).head_dim == 24
    config = EfficientBertConfig(hidden_size=50, num_attention_heads=4, head_dim=7, vocab_size=10)
    assert config.head_dim == 7
    attention = EfficientBertModel(config).layers[0].attention
    assert (attention.qkv.in_features, attention.qkv.out_features) == (50, 3 * 4 * 7)
    assert (attention.output.in_features, attention.output.out_features) == (28, 50)


def test_heads_of_every_layer():
    sizes = {"num_hidden_layers": 3, "hidden_size": 24, "num_attention_heads": 4, "vocab_size": 10}
    assert EfficientBertConfig(**sizes).attentions == [(4, 6)] * 3
    assert EfficientBertConfig(**sizes, attention_heads=[1, 0, 5]).attentions == [(1, 6), (0, 0), (5, 6)]
    assert EfficientBertConfig(**sizes, head_dims=[2, 3, 4]).attentions == [(4, 2), (4, 3), (4, 4)]
    config = EfficientBertConfig(**sizes, attention_heads=[3, 0, 2], head_dims=[5, 9, 8])
    assert config.attentions == [(3, 5), (0, 0), (2, 8)]
    first, second, third = EfficientBertModel(config).layers
    assert second.attention is second.layer_norm is None
    assert (first.attention.qkv.out_features, third.attention.output.in_features) == (45, 16)
    no_division = sizes | {"num_attention_heads": 7}
    assert EfficientBertConfig(**no_division, head_dims=[5] * 3).attentions == [(7, 5)] * 3


INVALID = [
    ({"hidden_size": 541}, "hidden_size (541) must be a multiple of num_attention_heads (12), or head_dim be given"),
    ({"num_attention_heads": 7}, "hidden_size (540) must be a multiple of num_attention_heads (7)"),
    *(
        ({name: value}, f"field '{name}': ValueError: must be positive, not {value}")
        for name in (
            "vocab_size",
            "embedding_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "head_dim",
            "max_position_embeddings",
            "type_vocab_size",
            "ffn_stacks",
            "intermediate_sizes",
        )
        for value in (0, -3)
    ),
    ({"ffn_stacks": [4, 2, 1, 0, 1, 2]}, "field 'ffn_stacks': ValueError: must be positive, not 0"),
    ({"intermediate_sizes": [9, 9, 9, 9, 9, -1]}, "'intermediate_sizes': ValueError: must be positive, not -1"),
    ({"layer_norm_eps": 0.0}, "field 'layer_norm_eps': ValueError: must be positive, not 0.0"),
    ({"layer_norm_eps": float("nan")}, "field 'layer_norm_eps': ValueError: must be positive, not nan"),
    ({"initializer_range": -0.02}, "field 'initializer_range': ValueError: must be positive"),
    ({"hidden_dropout_prob": 1.0}, "'hidden_dropout_prob': ValueError: must be at least 0 and below 1, not 1.0"),
    ({"attention_probs_dropout_prob": -0.1}, "must be at least 0 and below 1, not -0.1"),
    ({"classifier_dropout": 2}, "'classifier_dropout': ValueError: must be at least 0 and below 1, not 2"),
    ({"ffn_stacks": [1] * 5}, "ffn_stacks must have 6 entries, one for each layer, not 5"),
    ({"attention_heads": [12] * 5}, "attention_heads must have 6 entries, one for each layer, not 5"),
    ({"attention_heads": []}, "attention_heads must have 6 entries, one for each layer, not 0"),
    ({"head_dims": [45] * 7}, "head_dims must have 6 entries, one for each layer, not 7"),
    ({"attention_heads": [12, 12, -1, 12, 12, 12]}, "'attention_heads': ValueError: must be at least 0, not -1"),
    ({"head_dims": [9, 9, 9, 9, 9, -2]}, "'head_dims': ValueError: must be at least 0, not -2"),
    ({"attention_heads": 12}, "Field 'attention_heads'"),
    (
        {"attention_heads": [0, 12, 12, 12, 12, 12], "head_dims": [0, 45, 0, 45, 45, 45]},
        "head_dims must be positive where a layer has heads, not 0 as in layer 2",
    ),
    ({"ffn_stacks": []}, "ffn_stacks must have 6 entries, one for each layer, not 0"),
    ({"intermediate_sizes": [9] * 7}, "intermediate_sizes must have 6 entries, one for each layer, not 7"),
    ({"ffn_expressions": PUBLISHED_EXPRESSIONS[:5]}, "ffn_expressions must have 6 entries, one for each layer, not 5"),
    ({"ffn_expressions": "x"}, "'ffn_expressions': ExpressionError: expression 'x': linear1 must stand in it exactly"),
    ({"ffn_expressions": PUBLISHED_EXPRESSIONS[:5] + ["linear2(gelu(x))"]}, "expression 'linear2(gelu(x))': linear1"),
    ({"intermediate_sizes": 541}, "linear2 takes width 541 but its operand relu(mul(linear1(x), x)) has width 540"),
    ({"pad_token_id": 30522}, "pad_token_id (30522) must be below vocab_size (30522)"),
    ({"pad_token_id": -1}, "pad_token_id (-1) must be below vocab_size (30522)"),
    ({"hidden_size": "540"}, "Field 'hidden_size' expected int, got str"),
    ({"hidden_size": 540.0}, "Field 'hidden_size' expected int, got float"),
    ({"hidden_size": None}, "Field 'hidden_size' expected int, got NoneType"),
    ({"num_hidden_layers": True}, "Field 'num_hidden_layers' expected int, got bool"),
    ({"ffn_stacks": "2"}, "Field 'ffn_stacks'"),
    ({"ffn_stacks": [1.0] * 6}, "Field 'ffn_stacks'"),
    ({"ffn_stacks": [True] * 6}, "Field 'ffn_stacks'"),
    ({"ffn_expressions": [1] * 6}, "Field 'ffn_expressions'"),
    ({"ffn_expressions": {"0": "linear2(gelu(linear1(x)))"}}, "Field 'ffn_expressions'"),
    ({"intermediate_sizes": 1.5}, "Field 'intermediate_sizes'"),
]


@pytest.mark.parametrize(("fields", "message"), INVALID, ids=[str(fields)[:60] for fields, _ in INVALID])
def test_invalid_fields_are_refused_by_name(fields, message):
    with pytest.raises(StrictDataclassError) as caught:
        EfficientBertConfig(**fields)
    assert message in " ".join(str(caught.value).split())


@pytest.mark.parametrize(("fields", "message"), INVALID, ids=[str(fields)[:60] for fields, _ in INVALID])
def test_invalid_files_are_refused_by_name(fields, message, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "efficientbert", **fields}))
    with pytest.raises(StrictDataclassError) as caught:
        EfficientBertConfig.from_pretrained(tmp_path)
    assert message in " ".join(str(caught.value).split())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_size", 0),
        ("hidden_size", "540"),
        ("ffn_stacks", [1, 2, 0]),
        ("ffn_expressions", ["x"]),
        ("hidden_dropout_prob", 1.5),
    ],
)
def test_assignment_of_a_bad_value_is_refused_and_changes_nothing(name, value):
    config = EfficientBertConfig()
    with pytest.raises(StrictDataclassError, match=name):
        setattr(config, name, value)
    assert config.to_dict() == EfficientBertConfig().to_dict()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("num_hidden_layers", 3, "ffn_expressions must have 3 entries"),
        ("ffn_stacks", [1, 2], "ffn_stacks must have 6 entries"),
        ("ffn_stacks", 2, "ffn_stacks must have 6 entries, one for each layer, not 2"),
        ("attention_heads", [12], "attention_heads must have 6 entries"),
        ("intermediate_sizes", [541] * 6, "linear2 takes width 541"),
        ("head_dim", None, "head_dim be given"),
    ],
)
def test_assigned_fields_that_do_not_fit_are_refused_by_model_and_save(name, value, message, tmp_path):
    config = EfficientBertConfig()
    setattr(config, name, value)
    with pytest.raises(StrictDataclassError, match=message), torch.device("meta"):
        EfficientBertModel(config)
    with pytest.raises(StrictDataclassError, match=message):
        config.save_pretrained(tmp_path)
    assert not (tmp_path / "config.json").exists()


def test_several_fields_can_be_assigned_one_by_one():
    config = EfficientBertConfig(vocab_size=10)
    config.num_hidden_layers = 1
    config.ffn_expressions = ["linear2(gelu(linear1(x)))"]
    config.ffn_stacks = [3]
    config.intermediate_sizes = [600]
    layer = EfficientBertModel(config).layers[0]
    assert len(layer.ffns) == 3
    assert layer.ffns[2].linear1.out_features == 600


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"num_hidden_layers": 12},
        {"num_hidden_layers": 3, "attention_heads": [12, 0, 5], "head_dims": [45, 0, 7]},
        {"num_hidden_layers": 2, "attention_heads": [0, 0]},
        {"hidden_size": 512, "num_attention_heads": 8, "head_dim": 32, "num_labels": 5},
        {
            "num_hidden_layers": 2,
            "ffn_expressions": ["linear2(mul(swish(linear1(x)), gate(x)))", "elu(linear2(gelu(linear1(x))))"],
            "ffn_stacks": [3, 1],
            "intermediate_sizes": [700, 12],
            "classifier_dropout": 0.3,
            "pad_token_id": None,
            "tie_word_embeddings": False,
            "layer_norm_eps": 1e-12,
        },
    ],
)
def test_save_and_load_round_trip(fields, tmp_path):
    config = EfficientBertConfig(**fields)
    config.save_pretrained(tmp_path)
    assert EfficientBertConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()
    assert EfficientBertConfig.from_dict(config.to_diff_dict()).to_dict() == config.to_dict()
    assert EfficientBertConfig.from_dict(config.to_dict()).to_dict() == config.to_dict()


def test_what_makes_the_model_is_always_stored(tmp_path):
    # A saved model must not change when a later version ships other defaults, nor a folder's lists be missing.
    EfficientBertConfig().save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["ffn_expressions"] == PUBLISHED_EXPRESSIONS
    assert stored["ffn_stacks"] == STACKS
    assert stored["intermediate_sizes"] == [270, 540, 270, 270, 270, 180]
    assert (stored["hidden_size"], stored["head_dim"], stored["layer_norm_eps"]) == (540, 45, 1e-5)
    assert stored["model_type"] == "efficientbert"


def test_fields_equal_to_the_library_defaults_are_stored(tmp_path):
    # Only differences are saved, and a list that equals the default is no difference to a naive comparison.
    config = EfficientBertConfig(ffn_stacks=STACKS, head_dim=45, hidden_size=360, intermediate_sizes=[180] * 6)
    config.save_pretrained(tmp_path)
    loaded = EfficientBertConfig.from_pretrained(tmp_path)
    assert (loaded.ffn_stacks, loaded.head_dim, loaded.intermediate_sizes) == (STACKS, 45, [180] * 6)


def test_hostile_file_runs_no_code(tmp_path):
    target = tmp_path / "ran"
    hostile = f"__import__('pathlib').Path({str(target)!r}).touch()"
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "efficientbert", "ffn_expressions": [hostile] * 6})
    )
    with pytest.raises(StrictDataclassError, match="ExpressionError"):
        EfficientBertConfig.from_pretrained(tmp_path)
    assert not target.exists()
