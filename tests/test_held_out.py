"""Which rows of data with one split are held out: the same ones whatever else the data holds."""

import random

from efficientbert.train.tasks.held_out import PART, divide


TEXTS = [f"text {index}" for index in range(1000)]


def kept_aside(contents: list[str], strata: list | None = None) -> set[str]:
    kept, aside = divide(contents, strata or [0] * len(contents))
    assert sorted(kept + aside) == list(range(len(contents)))
    return {contents[index] for index in aside}


def test_about_a_tenth_is_held_out():
    assert 70 < len(kept_aside(TEXTS)) < 130


def test_a_row_that_is_trained_on_is_never_held_out_of_more_or_fewer_rows():
    rng = random.Random(0)
    before = kept_aside(TEXTS)
    for more in (["another text"], [f"more {index}" for index in range(300)]):
        mixed = rng.sample(TEXTS + more, len(TEXTS) + len(more))
        assert kept_aside(mixed) & set(TEXTS) == before
    assert kept_aside(TEXTS[:500]) == before & set(TEXTS[:500])


def test_equal_rows_stay_together():
    kept, aside = divide([text for text in TEXTS for _ in range(2)], [0] * 2000)
    assert all((index ^ 1) in aside for index in aside) and not set(kept) & set(aside)


def test_of_few_rows_chance_leaves_enough():
    contents, strata = TEXTS[:200], [index // PART for index in range(200)]
    aside = kept_aside(contents, strata)
    assert {strata[contents.index(text)] for text in aside} == set(range(20))
    for start in range(0, 800, 50):
        assert len(kept_aside(TEXTS[start : start + 60])) >= 3
    for count in range(2, 30):
        assert 1 <= len(kept_aside(TEXTS[:count])) < count
