"""Which products of a graph stay in float32 when all others become int8."""

from collections.abc import Callable
from pathlib import Path

from tqdm.auto import tqdm

from efficientbert.train.runtimes.comparison import Comparison, Probe
from efficientbert.train.runtimes.quantization import find_products, write_int8
from efficientbert.train.runtimes.session import Session


def write_faithful(source: Path, target: Path, probe: Probe, reduce_range: bool) -> list[str] | None:
    """Writes a graph in int8 that loses nothing that counts on some rows: products stay in float32 as far as it needs.

    Where int8 throughout loses too much, every product is made int8 alone, and those that change the outputs most are
    kept in float32: one of them, two, four and so on.

    Args:
        source: The graph in float32.
        target: The file to write.
        probe: The rows; see `Comparison.faithful`.
        reduce_range: As of `write_int8`.

    Returns:
        The modules whose products stay in float32; None where even half of all would not do, and nothing is written.
    """

    def attempt(kept: list[str]) -> Comparison:
        write_int8(source, target, kept, reduce_range)
        return probe.compare(Session(target))

    if attempt([]).faithful:
        return []
    products = find_products(source)
    ranked = rank(list(products), lambda name: attempt([other for other in products if other != name]).largest)
    count = 1
    while 2 * count <= len(products):
        if attempt(ranked[:count]).faithful:
            return [products[name] for name in ranked[:count]]
        count *= 2
    target.unlink()
    return None


def rank(products: list[str], damage: Callable[[str], float]) -> list[str]:
    """Products by the damage that they do, most first."""
    found = {name: damage(name) for name in tqdm(products, desc="Finding what int8 harms", disable=None)}
    return sorted(products, key=lambda name: -found[name])
