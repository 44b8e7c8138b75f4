"""W-PCA: principal components against singular values of NumPy, and closed forms."""

import random

import numpy as np
import pytest
import torch

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.modeling_efficientbert import EfficientBertModel
from efficientbert.search.scores.wpca import RandomEncoders, WPca, principal_components
from efficientbert.search.space.architecture import Architecture, LayerChoice, Shape
from efficientbert.train.engine.finite import NotFiniteError


BASE = EfficientBertConfig(vocab_size=60, embedding_size=8, hidden_size=18, num_attention_heads=3)
SHAPE = Shape(18, 8)
PLAIN = "linear2(gelu(linear1(x)))"


def by_svd(states: np.ndarray, variance: float) -> int:
    """The same count, from singular values, one component after the other."""
    values = np.linalg.svd(states - states.mean(0), compute_uv=False) ** 2
    number, held = 0, 0.0
    while held <= variance * values.sum():
        held += values[number]
        number += 1
    return number


def make_batch(padding: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(1, 60, (6, 12 + padding), generator=generator)
    mask = torch.ones_like(ids)
    mask[2, 7:] = 0
    mask[:, 12:] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("variance", [0.3, 0.9, 0.99])
@pytest.mark.parametrize("shape", [(200, 12), (9, 30)])
def test_components_are_those_of_numpy(shape, variance):
    rng = np.random.default_rng(0)
    for _ in range(5):
        states = rng.normal(size=shape) @ (rng.normal(size=(shape[1], shape[1])) * rng.exponential(size=shape[1]))
        states += rng.normal(size=shape[1]) * 5
        assert principal_components(torch.tensor(states), variance) == by_svd(states, variance)


def test_components_of_known_variances():
    variances = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    states = torch.cat([torch.diag(variances.sqrt()), -torch.diag(variances.sqrt())]) + 7
    for variance, number in ((0.0, 1), (0.49, 1), (0.51, 2), (0.79, 2), (0.81, 3), (0.94, 3), (0.96, 4)):
        assert principal_components(states, variance) == number
    assert principal_components(torch.ones(5, 3), 0.99) == 0


@torch.no_grad()
def test_the_score_is_minus_parameters_times_components_of_all_networks():
    """The inner states are computed once more by hand, from what goes into every network."""
    architecture = Architecture(SHAPE, (LayerChoice(PLAIN, 2, 20, 3, 6), LayerChoice(PLAIN, 1, 7, 3, 6)))
    encoders = RandomEncoders(BASE, 0, torch.device("cpu"))
    encoder, batch, total = encoders(architecture), make_batch(), 0

    def keep(ffn, inputs, output):
        nonlocal total
        x = inputs[0][batch["attention_mask"].bool()].double().numpy()
        inner = x @ ffn.linear1.weight.double().numpy().T + ffn.linear1.bias.double().numpy()
        inner = 0.5 * inner * (1 + np.tanh(np.sqrt(2 / np.pi) * (inner + 0.044715 * inner**3)))
        total += by_svd(inner, 0.9)

    for layer in encoder.layers:
        for ffn in layer.ffns:
            ffn.register_forward_hook(keep)
    encoder(**batch)
    score = WPca(encoders, lambda architecture: 1000.0, batch, 0.9)
    assert total > 15
    assert score(architecture) == -1000.0 * total


def test_padding_does_not_count():
    architecture = Architecture(SHAPE, (LayerChoice(PLAIN, 1, 30, 3, 6),) * 2)
    encoders = RandomEncoders(BASE, 0, torch.device("cpu"))
    alone, padded = make_batch(), make_batch()
    for name, value in {"input_ids": 5, "attention_mask": 0}.items():
        padded[name] = torch.cat([padded[name], torch.full((6, 20), value)], 1)
    counts = [WPca(encoders, lambda _: 1.0, batch).components(architecture) for batch in (alone, padded)]
    assert counts[0] == counts[1] > 20


def test_broken_states_have_no_score():
    def broken(architecture):
        encoder = EfficientBertModel(architecture.to_config(BASE))
        encoder.layers[1].ffns[0].linear1.bias.data[3] = float("nan")
        return encoder

    architecture = Architecture(SHAPE, (LayerChoice(PLAIN, 1, 9, 3, 6),) * 2)
    with pytest.raises(NotFiniteError, match="not finite"):
        WPca(broken, lambda _: 1.0, make_batch())(architecture)


def test_random_encoders_are_the_same_whenever_they_are_made():
    encoders = RandomEncoders(BASE, 4, torch.device("cpu"))
    architecture = Architecture(SHAPE, (LayerChoice(PLAIN, 1, 9, 3, 6),))
    first, state = encoders(architecture), (random.getstate(), torch.get_rng_state())
    encoders(Architecture(SHAPE, (LayerChoice(PLAIN, 3, 12, 3, 6),)))
    again = encoders(architecture)
    assert random.getstate() == state[0] and torch.equal(torch.get_rng_state(), state[1])
    for one, other in zip(first.parameters(), again.parameters()):
        assert torch.equal(one, other)
    other_seed = RandomEncoders(BASE, 5, torch.device("cpu"))(architecture)
    assert not torch.equal(first.layers[0].ffns[0].linear1.weight, other_seed.layers[0].ffns[0].linear1.weight)
