"""A candidate's slice on held-out text."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from efficientbert.search.scores.score import ReportRung, finite
from efficientbert.search.space.architecture import Architecture
from efficientbert.train.distillation.held_out import HeldOut, score_student
from efficientbert.train.distillation.objective import GeneralDistillation
from efficientbert.train.distillation.student import Student


@dataclass(frozen=True)
class HeldOutText:
    """How far the last hidden states of a slice are from the teacher's on held-out text; see `held_out_loss`.

    Attributes:
        extract: The slice of an architecture.
        objective: What it distils; see `objectives`.
        held_out: What is scored.
    """

    extract: Callable[[Architecture], Student]
    objective: Callable[[Architecture], GeneralDistillation]
    held_out: HeldOut

    def __call__(self, architecture: Architecture, report: ReportRung | None = None) -> float:
        """The loss; see `Score`."""
        return held_out_loss(self.extract(architecture), self.objective(architecture), self.held_out)


def held_out_loss(student: Student, objective: GeneralDistillation, held_out: HeldOut) -> float:
    """How far a student's last hidden states are from its teacher's on held-out text, over their variance.

    That is what a student is used for; inner states and attention are learned as a means. They are easier to match for
    flat students and for wide token tables, so that a sum of all losses, or a mean, ranks depths and shapes wrongly.
    A student that does not learn hidden states is rated by the losses it learns; attention scores then count in the
    last layer alone.

    Args:
        student: The student.
        objective: What it distils.
        held_out: What is scored.

    Raises:
        NotFiniteError: if it is no finite number.
    """
    recipe = objective.recipe
    weights = {"hidden_states": 1.0} if "hidden_states" in recipe.weights else recipe.weights
    last = replace(recipe, weights=weights, states=recipe.states[-1:])
    figures = score_student(student, GeneralDistillation(objective.teacher, objective.scales, last), held_out)
    return finite(figures["loss"], "held-out text")
