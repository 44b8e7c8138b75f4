"""The open space: all that may be chosen for a teacher, in parts of the teacher's own sizes."""

from efficientbert.search.space.sizes import Choices


DEPTHS = (2, 3, 4, 5, 6, 8, 10, 12)  # as far as the teacher has as many layers
HIDDEN = (1 / 2, 2 / 3, 5 / 6, 1)  # of the teacher's hidden size
EMBEDDING = (1 / 6, 1 / 3, 1 / 2, 1)  # of the teacher's hidden size
EXPANSION = 4  # the widest network, in hidden sizes of the teacher
DIVISORS = (1, 2, 3, 4, 6, 8, 12)  # of the widest network
STACKS = (1, 2)


def open_choices(hidden_size: int, num_layers: int, num_heads: int) -> Choices:
    """What may be chosen for a teacher of some sizes: depth, widths, embedding, networks, attention of every layer.

    A layer has all of the teacher's heads, half of them, or none; a head is as wide as the teacher's or half as wide.
    """
    head_dim = hidden_size // num_heads
    return Choices(
        depths=tuple(depth for depth in DEPTHS if depth <= num_layers) or (num_layers,),
        hidden_sizes=_parts(hidden_size, HIDDEN),
        embedding_sizes=_parts(hidden_size, EMBEDDING),
        head_counts=tuple(sorted({0, max(1, num_heads // 2), num_heads})),
        head_dims=tuple(sorted({max(1, head_dim // 2), head_dim})),
        stacks=STACKS,
        divisors=DIVISORS,
        base_width=EXPANSION * hidden_size,
    )


def _parts(size: int, shares: tuple[float, ...]) -> tuple[int, ...]:
    """Parts of a size as whole numbers, ascending."""
    return tuple(sorted({max(1, round(size * share)) for share in shares}))
