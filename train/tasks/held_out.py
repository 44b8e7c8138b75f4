"""Which rows of data with one split are kept aside to be scored."""

import hashlib
from collections.abc import Hashable, Sequence


HELD_OUT = "held_out"  # the split of these rows
PART = 10  # one row of so many is kept aside


def divide(contents: Sequence[str], strata: Sequence[Hashable]) -> tuple[list[int], list[int]]:
    """The numbers of the rows that are left, and of those that are kept aside: about a tenth.

    A row's content decides, through its checksum: so equal rows stay together, and a row that is trained on today is
    not kept aside when rows are added, left out or in another order. Where chance keeps less than a twentieth of a
    class aside, or nothing of ten contents, as happens with few rows, those with the next checksums join.

    Args:
        contents: Of every row.
        strata: Of every row, such as its class.
    """
    checksums = {content: hashlib.blake2b(content.encode("utf-8", "surrogatepass")).digest() for content in contents}
    chosen = {content for content, checksum in checksums.items() if checksum[0] * PART < 256}
    classes: dict[Hashable, set[str]] = {}
    for content, stratum in zip(contents, strata):
        classes.setdefault(stratum, set()).add(content)
    for members, few in [*((members, PART) for members in classes.values()), (set(contents), 2)]:
        least = max(len(members) // (2 * PART), len(members) >= few)
        missing = max(0, least - len(members & chosen))
        chosen.update(sorted(members - chosen, key=checksums.__getitem__)[:missing])
    kept = [index for index, content in enumerate(contents) if content not in chosen]
    return kept, [index for index, content in enumerate(contents) if content in chosen]
