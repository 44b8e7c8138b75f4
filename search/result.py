"""What a search leaves: the best candidate as a checkpoint and, with several objectives, the Pareto front."""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from efficientbert.search.material import Material
from efficientbert.search.space.architecture import Architecture
from efficientbert.search.study.pareto import pareto_front
from efficientbert.train.distillation.held_out import score_student
from efficientbert.train.distillation.projection import save_projection
from efficientbert.train.distillation.student import Student
from efficientbert.train.model_folder.write import write_checkpoint


Row = tuple[Architecture, tuple[float, ...]]  # a complete candidate with its losses


def result_folders(material: Material) -> list[Path]:
    """The folders that a search writes its result to."""
    names = ["best", "front"] if len(material.args.objectives) > 1 else ["best"]
    return [material.folder / name for name in names]


def write_result(material: Material, rows: Sequence[Row], extract: Callable[[Architecture], Student]) -> None:
    """Writes the candidates that no other is better than: `best`, and several in `front`, by rising loss.

    Args:
        material: Of the search.
        rows: All complete candidates.
        extract: The student of a candidate, with its weights.
    """
    front = [rows[index] for index in pareto_front([losses for _, losses in rows])]
    front = sorted(dict(front).items(), key=lambda row: row[1])
    best, *several = result_folders(material)
    write_candidate(material, *front[0], extract, best)
    for folder in several:
        work = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(work, ignore_errors=True)
        for number, row in enumerate(front):
            write_candidate(material, *row, extract, work / str(number))
        move(work, folder)


def write_candidate(
    material: Material,
    architecture: Architecture,
    losses: tuple[float, ...],
    extract: Callable[[Architecture], Student],
    folder: Path,
) -> None:
    """Writes a candidate as a checkpoint, to go on from."""
    student = extract(architecture)
    result = dict(zip(material.args.objectives, losses))
    result["search_loss"] = result.pop("loss")
    result |= {metric: cost(architecture) for metric, cost in material.space.costs.items()}
    result |= score_student(student, material.objective(architecture), material.held_out)
    work = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    sources = [material.args.corpus, *(training.task.args.source() for training in material.tasks)]
    write_checkpoint(
        work, student.encoder, material.teacher.tokenizer, "search", material.args, result, sources=sources
    )
    save_projection(student.projection, work)
    move(work, folder)


def move(work: Path, folder: Path) -> None:
    """Gives a folder that is complete its name, in the place of an earlier one."""
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(work, folder)
