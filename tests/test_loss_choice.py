"""Recipes of losses: names, weights and layers, and what does not fit student or teacher."""

import re

import pytest

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.arguments import LossArguments, parse_losses
from efficientbert.train.distillation.layer_map import match_states
from efficientbert.train.distillation.loss_choice import make_recipe
from efficientbert.train.distillation.losses import LossRecipe
from efficientbert.train.distillation.teacher import Teacher


@pytest.fixture(scope="module")
def teacher(teacher_folder) -> Teacher:
    """4 layers of width 24, 3 heads."""
    return Teacher.load(teacher_folder())


def make_config(**sizes) -> EfficientBertConfig:
    fields = {"hidden_size": 18, "num_hidden_layers": 2, "num_attention_heads": 3, "embedding_size": 8}
    return EfficientBertConfig(**(fields | sizes))


def make(teacher: Teacher, config: EfficientBertConfig | None = None, **arguments) -> LossRecipe:
    return make_recipe(LossArguments(**arguments), config or make_config(), teacher)


def test_names_and_weights():
    assert parse_losses(["hidden_states", "logits=0.25"]) == {"hidden_states": 1.0, "logits": 0.25}
    assert parse_losses("masked_lm qkv_relations=2") == {"masked_lm": 1.0, "qkv_relations": 2.0}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hiden_states"], "unknown loss 'hiden_states'; known are hidden_states, pooled_states, attention_scores"),
        (["logits=much"], "weight of 'logits' must be a number above 0, not 'much'"),
        (["logits="], "weight of 'logits' must be a number above 0, not ''"),
        (["logits=0"], "must be a number above 0"),
        (["logits=-1"], "must be a number above 0"),
        (["logits=nan"], "must be a number above 0"),
        (["logits=inf"], "must be a number above 0"),
        (["logits", "logits=2"], "'logits' stands twice"),
        ([], "name at least one"),
        ("", "name at least one"),
    ],
)
def test_names_and_weights_that_are_none(words, message):
    with pytest.raises(InputError, match=message):
        parse_losses(words)


@pytest.mark.parametrize(
    ("words", "layers", "states"),
    [
        ("uniform", 2, ((0, 0), (1, 2), (2, 4))),
        (["uniform"], 3, ((0, 0), (1, 1), (2, 2), (3, 4))),
        ("last", 2, ((2, 4),)),
        (["last"], 7, ((7, 4),)),
        (["2", "3"], 2, ((0, 0), (1, 2), (2, 3))),
        ([2, 3], 2, ((0, 0), (1, 2), (2, 3))),
        ("1 1 2 3 4 4", 6, ((0, 0), (1, 1), (2, 1), (3, 2), (4, 3), (5, 4), (6, 4))),
    ],
)
def test_layer_maps(words, layers, states, teacher):
    assert match_states(words, layers, teacher) == states
    recipe = make(teacher, make_config(num_hidden_layers=layers), layer_map=words)
    assert recipe.layers == tuple((mine - 1, theirs - 1) for mine, theirs in states if mine)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["2"], "layer_map: names 1 teacher layers, but the student has 2 layers"),
        (["2", "5"], "layer_map: teacher .* has layers 1 to 4, not '5'"),
        (["0", "4"], "layers 1 to 4, not '0'"),
        (["first"], "layer_map: must be uniform, last or teacher layers such as 2 4 6, not 'first'"),
        (["-1", "4"], "must be uniform, last or teacher layers"),
        ([], "must be uniform, last"),
    ],
)
def test_layer_maps_that_do_not_fit(words, message, teacher):
    with pytest.raises(InputError, match=message):
        make(teacher, layer_map=words)


def test_a_deeper_student_needs_a_map_of_its_own(teacher):
    config = make_config(num_hidden_layers=5)
    with pytest.raises(InputError, match=r"4 layers, fewer than the student's 5.*--layer_map last.*qkv_relations"):
        make(teacher, config)
    assert make(teacher, config, losses=["qkv_relations"]).states == ()
    assert make(teacher, config, losses=["hidden_states"], layer_map=["last"]).states == ((5, 4),)


@pytest.mark.parametrize("loss", ["attention_scores", "minilm_relations"])
def test_losses_head_by_head_need_equal_heads(loss, teacher):
    config = make_config(num_attention_heads=2)
    with pytest.raises(InputError, match=f"2 attention heads .* has 3; {loss} .* use --losses hidden_states qkv_rel"):
        make(teacher, config, losses=[loss])
    make(teacher, config, losses=["hidden_states", "qkv_relations", "masked_lm", "logits"])


def test_losses_head_by_head_need_equal_heads_in_every_layer_that_has_some(teacher):
    recipe = make(teacher, make_config(num_hidden_layers=3, attention_heads=[3, 0, 3]))
    assert recipe.layers == ((0, 0), (1, 1), (2, 3)) and recipe.attention_layers == ((0, 0), (2, 3))
    with pytest.raises(InputError, match=r"has 2 attention heads but teacher .* has 3; attention_scores"):
        make(teacher, make_config(num_hidden_layers=3, attention_heads=[3, 2, 3]))


@pytest.mark.parametrize("loss", ["attention_scores", "minilm_relations", "qkv_relations"])
def test_a_student_without_any_attention_is_refused_by_losses_that_compare_it(loss, teacher):
    config = make_config(attention_heads=[0, 0])
    with pytest.raises(InputError) as error:
        make(teacher, config, losses=["hidden_states", loss])
    assert str(error.value) == "student: no layer has attention, which losses compare; use --losses hidden_states"
    recipe = make(teacher, config, losses=["hidden_states", "masked_lm", "logits"])
    assert recipe.attentive == frozenset() and recipe.layers == ((0, 1), (1, 3))


def test_relations_are_of_the_last_layer_with_attention(teacher):
    config = make_config(num_hidden_layers=4, attention_heads=[3, 2, 3, 0], head_dims=[6, 3, 4, 0])
    recipe = make(teacher, config, losses=["qkv_relations"])
    assert recipe.relation_layers == (2, 3) and recipe.relation_heads == 12  # of 3 x 4 channels, not of 3 x 6
    assert recipe.attentive == {0, 1, 2}


def test_relation_heads_divide_what_both_measure(teacher):
    """The student's queries have 18 channels, the teacher's 24."""
    assert make(teacher).relation_heads == 6
    assert make(teacher, relation_heads=2).relation_heads == 2
    assert make(teacher, make_config(hidden_size=24)).relation_heads == 24
    assert make(teacher, make_config(num_attention_heads=5, head_dim=5), losses=["qkv_relations"]).relation_heads == 1
    with pytest.raises(InputError, match=re.escape("one of 1, 2, 3, 6, not 4")):
        make(teacher, relation_heads=4)


def test_relation_layer_is_counted_from_one(teacher):
    assert make(teacher).relation_layers == (1, 3)
    assert make(teacher, relation_layer=1).relation_layers == (1, 0)
    for layer in (0, 5):
        with pytest.raises(InputError, match=f"relation_layer: must be between 1 and the 4 layers .* not {layer}"):
            make(teacher, relation_layer=layer)


def test_what_a_recipe_needs(teacher):
    assert not make(teacher).masks and make(teacher).needs_teacher
    assert make(teacher, losses=["masked_lm"]).masks and not make(teacher, losses=["masked_lm"]).needs_teacher
    assert make(teacher, losses=["logits"]).masks and make(teacher, losses=["logits"]).needs_teacher
