"""The supernet: a slice computes and learns what the stand-alone model does."""

import math
import random

import pytest
import torch

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.search.architecture import Architecture, LayerChoice
from efficientbert.search.cost import Budget, count_parameters
from efficientbert.search.space import SearchSpace
from efficientbert.search.supernet import Supernet, slice_parameters


SIZES = {"vocab_size": 60, "embedding_size": 8, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3}


@pytest.fixture
def supernet() -> Supernet:
    base = EfficientBertConfig(**SIZES, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    space = SearchSpace(base, 36, True, Budget("parameters", 0, math.inf), count_parameters)
    torch.manual_seed(0)
    supernet = Supernet(space, 20)
    for parameter in supernet.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return supernet


def make_batch() -> dict[str, torch.Tensor]:
    mask = torch.ones(3, 10, dtype=torch.long)
    mask[1, 6:] = 0
    return {"input_ids": torch.randint(1, 60, (3, 10)), "attention_mask": mask}


def tensors(captures) -> list[torch.Tensor]:
    return [*captures.hidden_states, *captures.queries, *captures.keys, *captures.values]


def test_a_slice_alone_computes_what_it_computed_inside(supernet):
    batch = make_batch()
    for seed in range(8):
        architecture = supernet.space.sample(random.Random(seed))
        inside = supernet.eval()(architecture, **batch)
        alone = supernet.extract(architecture)(**batch)
        assert len(tensors(inside)) == 4 + 3 * 3
        for one, other in zip(tensors(inside), tensors(alone)):
            assert torch.equal(one, other)


def test_extracted_weights_are_the_leading_rows_and_columns(supernet):
    architecture = Architecture(supernet.space.largest().shape, (LayerChoice("linear2(gelu(linear1(x)))", 2, 9),) * 3)
    student = supernet.extract(architecture)
    whole, part = supernet.whole.encoder.layers[1].ffns[1], student.encoder.layers[1].ffns[1]
    assert torch.equal(part.linear1.weight, whole.linear1.weight[:9])
    assert torch.equal(part.linear1.bias, whole.linear1.bias[:9])
    assert torch.equal(part.linear2.weight, whole.linear2.weight[:, :9])
    assert torch.equal(part.linear2.bias, whole.linear2.bias)
    assert len(student.encoder.layers[1].ffns) == 2 and part.gate is None
    part.linear1.weight.data.zero_()
    assert whole.linear1.weight.abs().min() > 0


def test_gradients_reach_the_used_part_of_the_shared_weights_alone(supernet):
    architecture = Architecture(
        supernet.space.largest().shape, (LayerChoice("linear2(mul(gelu(linear1(x)), gate(x)))", 2, 9),) * 3
    )
    batch = make_batch()
    sum(t.square().sum() for t in supernet(architecture, **batch).hidden_states).backward()
    alone = supernet.extract(architecture)
    sum(t.square().sum() for t in alone(**batch).hidden_states).backward()
    whole, part = supernet.whole.encoder.layers[0].ffns, alone.encoder.layers[0].ffns
    torch.testing.assert_close(whole[0].gate.weight.grad[:9], part[0].gate.weight.grad)
    torch.testing.assert_close(whole[1].linear2.weight.grad[:, :9], part[1].linear2.weight.grad)
    assert whole[0].gate.weight.grad[9:].abs().sum() == 0
    assert whole[2].linear1.weight.grad is None
    torch.testing.assert_close(supernet.whole.projection.weight.grad, alone.projection.weight.grad)


def test_the_largest_architecture_is_the_whole(supernet):
    batch = make_batch()
    inside = supernet.eval()(supernet.space.largest(), **batch)
    for one, other in zip(tensors(inside), tensors(supernet.whole(**batch))):
        assert torch.equal(one, other)


def test_slices_are_contiguous():
    parameters = {"w": torch.arange(12.0).view(3, 4)}
    part = slice_parameters(parameters, {"w": torch.Size((2, 3))})["w"]
    assert part.is_contiguous() and torch.equal(part, torch.tensor([[0.0, 1.0, 2.0], [4.0, 5.0, 6.0]]))
