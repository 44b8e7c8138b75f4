"""Which teacher layers a student's layers learn from, and start from."""

from collections.abc import Sequence

from efficientbert.slicing_efficientbert import nearest_layers
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.teacher import Teacher


def uniform_layer_map(student_layers: int, teacher: Teacher) -> tuple[int, ...]:
    """For every student layer, the teacher layer it learns from, counted from 0 (paper, section 3.3).

    Raises:
        InputError: if the teacher has fewer layers than the student.
    """
    if teacher.num_layers < student_layers:
        raise InputError(
            f"teacher {teacher.name!r}: has {teacher.num_layers} layers, fewer than the student's {student_layers}; "
            f"choose a student of at most {teacher.num_layers} layers, --layer_map last or a layer for each, or "
            f"--losses qkv_relations"
        )
    return nearest_layers(student_layers, teacher.num_layers)


def match_states(
    words: Sequence[str | int] | str, student_layers: int, teacher: Teacher
) -> tuple[tuple[int, int], ...]:
    """Pairs of student and teacher hidden states, counted from 0, the embedding's output.

    Args:
        words: `uniform`, which is the embedding and layers as of `uniform_layer_map`; `last`, the last layer alone, as
            in MiniLM, which leaves all layers below it free; or the teacher layers of the student's, counted from 1,
            with the embedding.
        student_layers: Layers of the student.
        teacher: The teacher.

    Raises:
        InputError: if it is none of these, or does not fit.
    """
    names = [str(word) for word in (words.split() if isinstance(words, str) else words)]
    if names == ["uniform"]:
        return (
            (0, 0),
            *((index + 1, layer + 1) for index, layer in enumerate(uniform_layer_map(student_layers, teacher))),
        )
    if names == ["last"]:
        return ((student_layers, teacher.num_layers),)
    if not names or not all(name.isdecimal() for name in names):
        raise InputError(f"layer_map: must be uniform, last or teacher layers such as 2 4 6, not {' '.join(names)!r}")
    if len(names) != student_layers:
        raise InputError(f"layer_map: names {len(names)} teacher layers, but the student has {student_layers} layers")
    for name in names:
        if not 1 <= int(name) <= teacher.num_layers:
            raise InputError(f"layer_map: teacher {teacher.name!r} has layers 1 to {teacher.num_layers}, not {name!r}")
    return ((0, 0), *((index + 1, int(name)) for index, name in enumerate(names)))


def even_states(student_layers: int, teacher_layers: int) -> tuple[tuple[int, int], ...]:
    """Pairs of student and teacher hidden states: the embedding, and layers evenly mapped."""
    layers = enumerate(nearest_layers(student_layers, teacher_layers))
    return ((0, 0), *((mine + 1, theirs + 1) for mine, theirs in layers))
