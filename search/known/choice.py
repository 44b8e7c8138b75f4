"""The best architecture within budgets, as far as the surrogate knows."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from efficientbert.search.costs.budget import Budget
from efficientbert.search.known.surrogate import Surrogate, TeacherSizes
from efficientbert.search.samplers.evolution import Evolution
from efficientbert.search.samplers.sampler import Exhausted
from efficientbert.search.space.architecture import Architecture
from efficientbert.search.space.expressions import GATED, PLAIN
from efficientbert.search.space.space import SearchSpace


DRAWS, CANDIDATES = 300, 2000  # random ones at first, and all, of every expression


def choose(
    space: SearchSpace, budgets: Sequence[Budget], surrogate: Surrogate, teacher: TeacherSizes, seed: int
) -> tuple[Architecture, float]:
    """The architecture of the highest expected quality, found by evolution, and that quality.

    All layers have gated networks, or all plain ones: what others come to is known too little.

    Args:
        space: The open space of a teacher, with the costs of the budgets.
        budgets: What the architecture may cost.
        surrogate: What rates architectures.
        teacher: The teacher's sizes.
        seed: Of the draws.

    Raises:
        InputError: if no architecture is within the budgets.
    """
    best: tuple[float, Architecture] | None = None
    spaces = [replace(space, budgets=tuple(budgets), expressions=(text,)) for text in (GATED, PLAIN)]
    possible = [one for one in spaces if one.possible] or spaces[:1]  # whose sampling says why it is impossible
    for one in possible:
        sampler = Evolution(one, seed, initial=DRAWS, population=64, tournament=16)
        with suppress(Exhausted):  # a small space is looked through
            for _ in range(CANDIDATES):
                architecture = sampler.ask()
                quality = surrogate.quality(architecture, teacher)
                sampler.tell(architecture, (-quality,))
                if best is None or quality > best[0]:
                    best = (quality, architecture)
    assert best is not None
    return best[1], best[0]
