"""What is known before any training: features, the surrogate, and the choice by it."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import kendalltau

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.search.costs.budget import Budget
from efficientbert.search.costs.cost import Parameters
from efficientbert.search.known import choice
from efficientbert.search.known.choice import choose
from efficientbert.search.known.features import NAMES, TeacherSizes, describe
from efficientbert.search.known.surrogate import FIGURE, SHIPPED, Surrogate, read_table
from efficientbert.search.space.architecture import Architecture, LayerChoice, Shape
from efficientbert.search.space.expressions import GATED, PLAIN
from efficientbert.search.space.open_space import open_choices
from efficientbert.search.space.space import SearchSpace
from efficientbert.train.cli.errors import InputError


TEACHER = TeacherSizes(24, 4, 3)
BASE = EfficientBertConfig(vocab_size=50, max_position_embeddings=16)
SPACE = SearchSpace(BASE, open_choices(24, 4, 3), costs={"parameters": Parameters(BASE)})


def test_features_are_parts_of_the_teachers_sizes():
    layers = (
        LayerChoice("tanh(linear2(gelu(linear1(x))))", 2, 24, 0, 0),
        LayerChoice(GATED, 1, 48, 3, 4),
        LayerChoice(PLAIN, 1, 6, 0, 0),
    )
    found = dict(zip(NAMES, describe(Architecture(Shape(12, 6), layers), TEACHER)))
    networks = [2 * 2 * 24 * 12 / 576, 3 * 48 * 12 / 576, 2 * 6 * 12 / 576]
    attention = 4 * 12 * 12 / 576
    assert found == pytest.approx(
        {
            "hidden size": -1,
            "embedding size": -2,
            "layers": math.log2(3 / 4),
            "weights of networks": math.log2(sum(networks)),
            "weights of attention": math.log2(attention),
            "least weights of a layer": math.log2(networks[2]),
            "layers with attention": 0,
            "share of layers with attention": 1 / 3,
            "place of the first attention": 1 / 3,
            "place of the last attention": 1 / 3,
            "share of gated layers": 1 / 3,
            "share of layers that do not end in a linear": 1 / 3,
            "networks in a row": math.log2(4 / 3),
            "width of a network over the hidden size": math.log2(26 / 12),
        },
        abs=1e-12,
    )


def test_features_do_not_depend_on_the_scale_of_the_teacher():
    one = SPACE.sample(random.Random(0))
    layers = tuple(
        replace(layer, intermediate_size=2 * layer.intermediate_size, head_dim=2 * layer.head_dim)
        for layer in one.layers
    )
    double = Architecture(Shape(2 * one.shape.hidden_size, 2 * one.shape.embedding_size), layers)
    assert describe(double, TeacherSizes(48, 4, 3)) == pytest.approx(describe(one, TEACHER))


def test_the_surrogate_learns_what_a_feature_tells():
    rng = random.Random(0)
    drawn = [SPACE.sample(rng) for _ in range(160)]

    def quality(architecture: Architecture) -> float:
        features = dict(zip(NAMES, describe(architecture, TEACHER)))
        return features["hidden size"] + 0.3 * features["weights of networks"] - features["layers"] ** 2

    rows = [{"architecture": one.to_json(), FIGURE: quality(one)} for one in drawn[:120]]
    surrogate = Surrogate.of_rows(rows, TEACHER)
    mean, deviation = surrogate.predict(drawn[120:], TEACHER)
    assert kendalltau(mean, [quality(one) for one in drawn[120:]]).statistic > 0.85
    assert (deviation > 0).all() and surrogate.quality(drawn[130], TEACHER) == pytest.approx(mean[10])
    lengths = surrogate.lengths()
    assert max(lengths["hidden size"], lengths["layers"]) < lengths["share of gated layers"]
    assert surrogate.predict(drawn[:120], TEACHER)[1].mean() < deviation.mean()  # what is known is more certain


def test_the_table_that_ships_holds_what_the_surrogate_reads():
    table = read_table(SHIPPED)
    sizes = TeacherSizes(**table["teacher_sizes"])
    features = np.array([describe(Architecture.from_json(row["architecture"]), sizes) for row in table["rows"]])
    assert len(features) >= 10 and np.isfinite(features).all()
    assert all(0 < row["latency_ms"] < 100 and row[FIGURE] < 1 for row in table["rows"])
    assert len({str(row["architecture"]) for row in table["rows"]}) == len(features)


class Largest:
    """Rates by size."""

    def quality(self, architecture: Architecture, teacher: TeacherSizes) -> float:
        return Parameters(BASE)(architecture)


def test_the_choice_is_the_best_within_the_budget(monkeypatch):
    monkeypatch.setattr(choice, "DRAWS", 30)
    monkeypatch.setattr(choice, "CANDIDATES", 300)
    budget = Budget("parameters", 6000, 9000)
    found, quality = choose(SPACE, [budget], Largest(), TEACHER, 0)
    assert quality == Parameters(BASE)(found) and 8990 < quality <= 9000
    assert choose(SPACE, [budget], Largest(), TEACHER, 0) == (found, quality)
    assert {layer.expression for layer in found.layers} in ({GATED}, {PLAIN})
    with pytest.raises(InputError, match="no architecture has parameters"):
        choose(SPACE, [Budget("parameters", 10, 20)], Largest(), TEACHER, 0)
