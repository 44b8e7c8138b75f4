"""The space around an architecture."""

import random

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.search.space.neighbourhood import Neighbourhood
from efficientbert.search.space.sizes import Choices
from efficientbert.search.space.space import SearchSpace


SIZES = {"vocab_size": 60, "embedding_size": 8, "hidden_size": 24, "num_hidden_layers": 6, "num_attention_heads": 3}


def test_candidates_are_one_to_three_mutations_away_from_the_centre():
    whole = SearchSpace(EfficientBertConfig(**SIZES), Choices())
    centre = whole.sample(random.Random(1))
    space = whole.fix_sizes(centre)
    near, rng = Neighbourhood(space, centre), random.Random(2)
    drawn = [near.sample(rng) for _ in range(100)]
    changed = [sum(a != b for a, b in zip(centre.layers, candidate.layers)) for candidate in drawn]
    assert set(changed) <= {0, 1, 2, 3} and {1, 2, 3} <= set(changed)
    assert all(space.contains(candidate) for candidate in drawn)
    far = [space.sample(rng) for _ in range(100)]  # what it is there to avoid
    assert sum(sum(a != b for a, b in zip(centre.layers, candidate.layers)) for candidate in far) > 2 * sum(changed)


def test_a_draw_depends_on_the_random_state_alone():
    space = SearchSpace(EfficientBertConfig(**SIZES), Choices())
    near = Neighbourhood(space, space.sample(random.Random(1)))
    assert [near.sample(random.Random(seed)) for seed in range(9)] == [near.sample(random.Random(s)) for s in range(9)]
    one, other = near.sample(random.Random(3)), near.sample(random.Random(4))
    assert near.key(one) == space.key(one) and (near.encode(one) == space.encode(one)).all()
    assert near.mutate(one, random.Random(5)) == space.mutate(one, random.Random(5))
    assert near.crossover(one, other, random.Random(5)) == space.crossover(one, other, random.Random(5))
