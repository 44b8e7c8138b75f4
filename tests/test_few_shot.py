"""Few-shot supernets: who trains what, and that nothing else differs from one supernet."""

import random
from collections import Counter

import pytest
import torch

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.search.space.architecture import Architecture, LayerChoice, Shape
from efficientbert.search.supernet.few_shot import FewShotSupernet, Partition, count_networks
from efficientbert.search.supernet.supernet import Supernet
from efficientbert.train.cli.errors import InputError


PLAIN = "linear2(gelu(linear1(x)))"
SHAPE = Shape(12, 5)


def stacked(*stacks: int) -> Architecture:
    return Architecture(SHAPE, tuple(LayerChoice(PLAIN, stack, 7, 3, 4) for stack in stacks))


def sample(rng: random.Random) -> Architecture:
    return stacked(rng.randint(1, 4), rng.randint(1, 4))


@pytest.fixture
def warm() -> Supernet:
    torch.manual_seed(0)
    supernet = Supernet(EfficientBertConfig(vocab_size=40), stacked(4, 4), 10)
    supernet.whole.encoder.set_attn_implementation("eager")
    return supernet


def make_batch() -> dict[str, torch.Tensor]:
    return {"input_ids": torch.randint(1, 40, (2, 6)), "attention_mask": torch.ones(2, 6, dtype=torch.long)}


def test_parts_are_drawn_about_equally_often():
    # Sums of two numbers from 1 to 4: 2 to 8 with 1, 2, 3, 4, 3, 2, 1 ways of 16.
    assert Partition.quantiles(sample, 2, seed=0).bounds == (5,)
    partition = Partition.quantiles(sample, 3, seed=0)
    assert partition.bounds == (4, 6)
    rng = random.Random(1)
    counts = Counter(partition(sample(rng)) for _ in range(3200))
    assert [counts[part] / 200 for part in range(3)] == pytest.approx([3, 7, 6], abs=0.8)
    assert [partition(stacked(1, n)) for n in (1, 2, 3, 4)] == [0, 0, 1, 1]
    assert count_networks(stacked(2, 3, 4)) == 9


def test_a_space_that_cannot_be_divided_is_refused():
    with pytest.raises(InputError, match="have 2 to 2 feed-forward networks, which cannot be divided into 2 parts"):
        Partition.quantiles(lambda rng: stacked(1, 1), 2, seed=0)
    with pytest.raises(InputError, match="into 7 parts; ask for fewer"):
        Partition.quantiles(sample, 7, seed=0)


def test_every_supernet_starts_from_the_warm_one_as_a_copy(warm):
    supernets, batch = FewShotSupernet(warm, Partition((4, 6))), make_batch()
    assert len(supernets.supernets) == 3
    expected = [warm(architecture, **batch) for architecture in (stacked(1, 1), stacked(2, 2), stacked(4, 3))]
    for parameter in warm.parameters():
        parameter.data.zero_()
    for one, architecture in zip(expected, (stacked(1, 1), stacked(2, 2), stacked(4, 3))):
        assert torch.equal(supernets(architecture, **batch).hidden_states[-1], one.hidden_states[-1])
        assert torch.equal(supernets.extract(architecture)(**batch).hidden_states[-1], one.hidden_states[-1])
    assert {one.whole.encoder.config._attn_implementation for one in supernets.supernets} == {"eager"}


def test_an_architecture_trains_the_supernet_of_its_part_alone(warm):
    supernets = FewShotSupernet(warm, Partition((4, 6)))
    supernets(stacked(3, 2), **make_batch()).hidden_states[-1].square().sum().backward()
    trained = [any(p.grad is not None for p in one.parameters()) for one in supernets.supernets]
    assert trained == [False, True, False]
    assert supernets.for_architecture(stacked(3, 2)) is supernets.supernets[1]
    with torch.no_grad():
        supernets.supernets[1].whole.projection.bias.add_(1)
    weights = [supernets.extract(stacked(*stacks)).projection.bias for stacks in ((1, 1), (3, 2))]
    torch.testing.assert_close(weights[1], weights[0] + 1)
