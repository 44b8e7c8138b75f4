"""The scores that a search names, made."""

from collections.abc import Sequence
from dataclasses import replace

from efficientbert.search.material import Material
from efficientbert.search.scores.held_out_text import HeldOutText
from efficientbert.search.scores.ladder import Ladder
from efficientbert.search.scores.probe import TaskProbe
from efficientbert.search.scores.score import ParameterCount, Score
from efficientbert.search.scores.short_training import GeneralTraining, ShortTraining
from efficientbert.search.scores.task_slices import TaskSlices
from efficientbert.search.scores.trained_candidates import TrainedCandidates
from efficientbert.search.scores.wpca import RandomEncoders, WPca
from efficientbert.search.space.architecture import Architecture
from efficientbert.search.supernet.few_shot import FewShotSupernet
from efficientbert.search.supernet.supernet import Supernet, TaskSupernet
from efficientbert.train.distillation.objective import GeneralDistillation


def make_score(
    material: Material,
    words: Sequence[str],
    supernet: Supernet | FewShotSupernet,
    trained: TrainedCandidates,
    on_tasks: TaskSupernet | None = None,
) -> Score:
    """What rates the candidates of a stage.

    Args:
        material: Of the search.
        words: Names of the scores, from cheap to expensive.
        supernet: Whose slices are rated.
        trained: Keeps the weights of candidates that a score trains.
        on_tasks: The same supernet with heads, for the score `tasks`.
    """
    args, parameters = material.args, material.space.costs["parameters"]

    def made(word: str) -> Score:
        if word == "parameters":
            return ParameterCount(parameters)
        if word == "wpca":
            encoders = RandomEncoders(material.space.base, args.seed, material.accelerator.device)
            return WPca(encoders, parameters, material.text.sample_batch(material.accelerator.device))
        if word == "text":
            return HeldOutText(supernet.extract, material.objective, material.held_out)
        if word == "probe":
            assert material.probe is not None  # `load_probe` loads it where the score is named
            return TaskProbe(supernet.extract, *material.probe)
        if word == "tasks":
            assert on_tasks is not None  # made where the score is named
            scored = tuple((training.task, training.held_out) for training in material.tasks)
            return TaskSlices(on_tasks.extract, scored, args.task_batch_size)
        return ShortTraining(
            supernet.extract,
            material.accelerator,
            _general_training(material),
            material.tasks[0] if material.tasks else None,
            trained.keep,
        )

    return Ladder(tuple(made(word) for word in words))


def _general_training(material: Material) -> GeneralTraining | None:
    """The general distillation of a candidate, if any."""
    args, factor = material.args, material.args.reduction_factor
    if args.general_steps == 0:
        return None
    rungs: tuple[int, ...] = ()
    if factor is not None:
        rungs = tuple(sorted({args.general_steps // factor, args.general_steps // factor**2} - {0}))

    def objective(architecture: Architecture) -> GeneralDistillation:
        found = material.objective(architecture)
        return GeneralDistillation(material.remembered, found.scales, found.recipe)

    # The seed differs from the arguments': who distils the best with the same goes on with rows it has not seen.
    again = replace(args, seed=args.seed + 1)
    return GeneralTraining(objective, material.text, material.held_out, again, args.general_steps, rungs)
