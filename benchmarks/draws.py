"""How fast valid architectures are drawn and changed, in processor time of one core.

    python benchmarks/draws.py > benchmarks/draws.md

The first 2,000 draws, with tables still to be made, are apart from 20,000 more.
"""

import random
import time
from collections.abc import Callable

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.search.costs.budget import Budget
from efficientbert.search.costs.cost import Flops, Parameters
from efficientbert.search.space.sizes import Choices
from efficientbert.search.space.space import SearchSpace


FREE = Choices(
    depths=(4, 6, 8, 10, 12),
    hidden_sizes=(264, 312, 360, 432, 540),
    head_counts=(6, 12),
    embedding_sizes=(64, 128, 192),
)
PUBLISHED = Budget("parameters", 15e6, 16e6)
ROWS = {
    "hidden 540, 15M to 16M": ("efficientbert", Choices(), [PUBLISHED]),
    "hidden 360, 9.0M to 9.2M": ("efficientbert-tiny", Choices(), [Budget("parameters", 9.0e6, 9.2e6)]),
    "hidden 540, and at most 3.1 GFLOPs": ("efficientbert", Choices(), [PUBLISHED, Budget("flops", maximum=3.1e9)]),
    "150 shapes, 15M to 16M": ("efficientbert", FREE, [PUBLISHED]),
    "150 shapes, and at most 3.1 GFLOPs": ("efficientbert", FREE, [PUBLISHED, Budget("flops", maximum=3.1e9)]),
}


def seconds(action: Callable[[], object], count: int) -> float:
    """Processor seconds of one action, as a mean."""
    start = time.process_time()
    for _ in range(count):
        action()
    return (time.process_time() - start) / count


def measure(space: SearchSpace) -> str:
    """The cells of one row."""
    rng = random.Random(0)
    rates = [1 / seconds(lambda: space.sample(rng), count) for count in (2_000, 20_000)]
    parents = [space.sample(rng) for _ in range(50)]
    actions: list[Callable[[], object]] = [
        lambda: space.mutate(rng.choice(parents), rng),
        lambda: space.crossover(*rng.sample(parents, 2), rng),
        lambda: space.key(rng.choice(parents)),
        lambda: space.encode(rng.choice(parents)),
    ]
    return " | ".join([f"{r:,.0f}" for r in rates] + [f"{1000 * seconds(action, 500):.3f}" for action in actions])


def main() -> None:
    """Prints the table."""
    print(
        "| space | draws a second, first 2,000 | 20,000 more | mutation, ms | crossover, ms | key, ms | encoding, ms |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, (preset, choices, budgets) in ROWS.items():
        base = EfficientBertConfig.from_preset(preset)
        costs = {"parameters": Parameters(base), "flops": Flops(base, 128)}
        print(f"| {name} | {measure(SearchSpace(base, choices, tuple(budgets), costs))} |", flush=True)


if __name__ == "__main__":
    main()
