"""What a search can be told."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from efficientbert.search.costs.budget import METRICS, Budget
from efficientbert.search.study.stop_rule import StopRule
from efficientbert.train.cli.arguments import changed_arguments
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.arguments import GeneralArguments
from efficientbert.train.files.output_folder import run_arguments
from efficientbert.train.model_folder.model_names import PRESETS, check_model
from efficientbert.train.tasks.arguments import TASKS, LabelledData, check_flags_for_known, labelled_sources


SAMPLERS = ("random", "evolution", "nsga2", "action_space", "tpe")
SEVERAL_OBJECTIVES = ("action_space", "nsga2", "random")
SLICE_SCORES = ("parameters", "wpca", "text", "probe")  # of slices as they are
TRAINING_SCORES = (*SLICE_SCORES, "short")
SUPERNET_SCORES = (*SLICE_SCORES, "tasks")
# How long a search goes on and what of it is run now; not what a candidate comes to.
UNDECISIVE = ("only_stage", "num_candidates", "hours", "patience", "checkpoint_steps")


@dataclass(kw_only=True)
class SpaceArguments:
    """Which architectures there are."""

    group = "which architectures are searched"

    student: str = field(
        default="efficientbert",
        metadata={
            "help": f"Preset ({', '.join(PRESETS)}) or config.json that gives every size which is not searched.",
            "path": True,
            "words": PRESETS,
        },
    )
    depths: list[int] | None = field(
        default=None, metadata={"help": "Numbers of layers to choose from; by default the student's."}
    )
    hidden_sizes: list[int] | None = field(
        default=None, metadata={"help": "Hidden sizes to choose from; by default the student's."}
    )
    head_counts: list[int] | None = field(
        default=None,
        metadata={
            "help": "Numbers of attention heads to choose from for every layer, 0 for one without attention; by "
            "default the student's."
        },
    )
    head_dims: list[int] | None = field(
        default=None,
        metadata={"help": "Widths of a head to choose from for every layer; by default hidden size over heads."},
    )
    embedding_sizes: list[int] | None = field(
        default=None, metadata={"help": "Widths of the token table to choose from; by default the student's."}
    )
    base_width: int | None = field(
        default=None,
        metadata={
            "help": "Largest inner width of a feed-forward network; 1/2, 1/3 and 1/4 of it are the others. By default "
            "the hidden size."
        },
    )
    width_multiple: int = field(
        default=1, metadata={"help": "Inner widths are rounded down to a multiple of this, such as 16."}
    )
    gate: bool = field(
        default=True, metadata={"help": "Also search gated feed-forward networks, which have a third linear layer."}
    )


@dataclass(kw_only=True)
class GoalArguments:
    """What a candidate may cost, and what is minimised."""

    group = "budgets and objectives"

    budgets: list[str] = field(
        default_factory=list,
        metadata={
            "help": "What a candidate may cost, as METRIC=LEAST:MOST with either end left out at will, such as "
            "parameters=:16e6 latency=:20. Metrics: parameters of the encoder, flops of one sequence, latency in "
            "milliseconds on this machine. By default no limit."
        },
    )
    objectives: list[str] = field(
        default_factory=lambda: ["loss"],
        metadata={"help": "What is minimised: loss, then any of parameters, flops, latency."},
    )
    latency_batch_size: int = field(default=1, metadata={"help": "Sequences of the batch whose latency is measured."})


@dataclass(kw_only=True)
class StageArguments:
    """Which stages are run, and for how long."""

    group = "stages and their length"

    stages: list[int] = field(
        default_factory=lambda: [1, 2, 3],
        metadata={
            "help": "Stages of the search, run in this order. 1 chooses sizes and expressions; each candidate is "
            "trained a little and scored. 2 keeps the sizes of the best so far and chooses expressions, in the same "
            "way. 3 keeps the expressions of the best so far and chooses sizes; candidates are not trained, but "
            "scored with the weights that they share in a supernet. 3 alone chooses sizes and expressions so."
        },
    )
    only_stage: int | None = field(
        default=None, metadata={"help": "The one of these stages to run now; by default all, one after another."}
    )
    num_candidates: int | None = field(default=100, metadata={"help": "Candidates to rate in each stage."})
    hours: float | None = field(
        default=None, metadata={"help": "Hours of work, of all workers together, after which a stage ends."}
    )
    patience: int | None = field(
        default=None, metadata={"help": "Candidates in a row without improvement after which a stage ends."}
    )


@dataclass(kw_only=True)
class SamplerArguments:
    """How candidates are proposed and given up."""

    group = "how candidates are proposed"

    sampler: str = field(
        default="action_space", metadata={"help": f"Method that proposes candidates: {', '.join(SAMPLERS)}."}
    )
    initial: int = field(default=16, metadata={"help": "Random candidates before the sampler uses their losses."})
    refit_interval: int = field(
        default=5, metadata={"help": "Candidates between two fits of the sampler action_space."}
    )
    reduction_factor: int | None = field(
        default=None,
        metadata={
            "help": "Successive halving: after each score, after the steps on text and after each epoch, one in so "
            "many candidates goes on. By default every candidate is rated to its end."
        },
    )


@dataclass(kw_only=True)
class ScoreArguments:
    """How candidates of stages 1 and 2 are rated."""

    group = "how stages 1 and 2 rate candidates"

    scores: list[str] = field(
        default_factory=lambda: ["short"],
        metadata={
            "help": f"Scores, from cheap to expensive: {', '.join(TRAINING_SCORES)}. The last one decides; those "
            "before it give candidates up early (--reduction_factor)."
        },
    )
    general_steps: int = field(
        default=50, metadata={"help": "Optimizer steps on text of a candidate's own training (score short)."}
    )


@dataclass(kw_only=True)
class SupernetArguments:
    """How supernets are trained, and how stage 3 rates their slices."""

    group = "supernet and stage 3"

    warmup_steps: int = field(
        default=250, metadata={"help": "Optimizer steps on the largest architecture, before stage 1."}
    )
    sampled_steps: int = field(
        default=750, metadata={"help": "Optimizer steps on architectures drawn at random, before stage 3."}
    )
    sandwich: bool = field(
        default=False,
        metadata={"help": "Train the largest, the smallest and two random architectures at each of these steps."},
    )
    in_place: bool = field(
        default=False,
        metadata={"help": "With --sandwich: the others learn from the largest architecture, not from the teacher."},
    )
    supernets: int = field(
        default=1, metadata={"help": "Supernets of stage 3; each is trained on its own part of the architectures."}
    )
    supernet_scores: list[str] = field(
        default_factory=lambda: ["text"],
        metadata={"help": f"Scores of stage 3, from cheap to expensive: {', '.join(SUPERNET_SCORES)}."},
    )


@dataclass(kw_only=True)
class ScoredTaskArguments:
    """Labelled tasks that candidates are rated on."""

    group = "tasks to rate candidates on"

    tasks: list[str] | None = field(
        default=None,
        metadata={
            "help": f"Known tasks ({', '.join(TASKS)}), or YAML files with the data flags of `finetune`. Stages 1 and "
            "2 and score probe use the first.",
            "path": True,
            "words": TASKS,
        },
    )
    task_teachers: list[str] | None = field(
        default=None,
        metadata={"help": "For each task, a teacher that is fine-tuned on it; score probe needs none.", "path": True},
    )
    task_data: str | None = field(
        default=None,
        metadata={"help": "Hub id or folder of the known tasks; by default GLUE and SQuAD on the Hub.", "path": True},
    )
    task_split: str = field(
        default="train", metadata={"help": "Train split of the known tasks, or a slice: train[:1000]."}
    )
    task_held_out: float = field(
        default=0.2,
        metadata={"help": "Share of these rows, from 0 to 1, on which candidates are scored; never trained on."},
    )
    task_epochs: float = field(
        default=3.0, metadata={"help": "Passes over the other rows of a candidate's own training (stages 1 and 2)."}
    )
    task_steps: int = field(
        default=300, metadata={"help": "Optimizer steps of the supernet on all tasks (--supernet_scores tasks)."}
    )
    task_learning_rate: float = field(default=4e-4, metadata={"help": "Peak learning rate on tasks."})
    task_batch_size: int = field(default=32, metadata={"help": "Rows of a batch on tasks, for each process."})


@dataclass(kw_only=True)
class StudyArguments:
    """Where the candidates of all workers are recorded."""

    group = "where candidates are recorded"

    storage: str | None = field(
        default=None,
        metadata={
            "help": "Database for workers on several machines, such as postgresql://user@host/name; by default the "
            "file study.journal in the output folder."
        },
    )
    name: str | None = field(
        default=None, metadata={"help": "Name of the search in its database; by default that of the output folder."}
    )


# The parser lists groups from the last class to the first: what is searched comes before how.
@dataclass(kw_only=True)
class SearchArguments(
    GeneralArguments,
    StudyArguments,
    SupernetArguments,
    ScoredTaskArguments,
    ScoreArguments,
    SamplerArguments,
    StageArguments,
    GoalArguments,
    SpaceArguments,
):
    """Searches an architecture in up to three stages and writes the best, or a Pareto front, as checkpoints."""

    first = ("student", "budgets", "num_candidates", "stages", "tasks", "task_teachers")
    least_held_out: ClassVar[int] = 1  # candidates are scored on it

    def check(self) -> None:
        """See `LoopArguments.check`."""
        super().check()
        if self.compile:
            raise InputError("compile: is not for a search, which would compile anew at every step")
        if self.gradient_checkpointing:
            raise InputError("gradient_checkpointing: is not for a search; lower --batch_size")
        if self.storage is not None and "://" not in self.storage:
            raise InputError(
                f"storage '{self.storage}': must be the URL of a database, such as sqlite:///study.db or "
                "postgresql://user@host/name"
            )
        if self.student not in PRESETS and Path(self.student).suffix != ".json":
            raise InputError(f"student '{self.student}': must be a preset ({', '.join(PRESETS)}) or a .json file")
        self.parsed_budgets()
        self.stop_rule()
        self._check_stages()
        self._check_sampler()
        self._check_scores()
        self._check_tasks()
        for name in ("warmup_steps", "sampled_steps", "general_steps"):
            if getattr(self, name) < 0:
                raise InputError(f"{name}: must be at least 0, not {getattr(self, name)}")
        for name in ("initial", "refit_interval", "supernets", "latency_batch_size", "task_batch_size", "task_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: must be at least 1, not {getattr(self, name)}")
        self._check_task_flags()

    def _check_stages(self) -> None:
        if self.stages != sorted(set(self.stages)) or not set(self.stages) <= {1, 2, 3}:
            raise InputError(f"stages: must be some of 1 2 3, in order, not {self.stages}")
        if self.only_stage is not None and self.only_stage not in self.stages:
            raise InputError(f"only_stage: must be one of the stages {self.stages}, not {self.only_stage}")
        if self.in_place and not self.sandwich:
            raise InputError("in_place: is for a --sandwich, where there is a largest architecture to learn from")

    def _check_sampler(self) -> None:
        if self.sampler not in SAMPLERS:
            raise InputError(f"sampler: must be {', '.join(SAMPLERS)}, not {self.sampler!r}")
        if len(set(self.objectives)) != len(self.objectives) or "loss" not in self.objectives[:1]:
            raise InputError(f"objectives: must be loss, then others, each once, not {' '.join(self.objectives)!r}")
        for metric in self.objectives[1:]:
            if metric not in METRICS:
                raise InputError(f"objectives: unknown objective {metric!r}; known are loss, {', '.join(METRICS)}")
        if len(self.objectives) > 1 and self.sampler not in SEVERAL_OBJECTIVES:
            raise InputError(
                f"sampler: '{self.sampler}' looks at one objective; for {' and '.join(self.objectives)} choose "
                f"{' or '.join(SEVERAL_OBJECTIVES)}"
            )
        if self.reduction_factor is not None and (self.reduction_factor < 2 or len(self.objectives) > 1):
            raise InputError(
                f"reduction_factor: must be at least 2, and is for one objective, not {self.reduction_factor} for "
                f"{' and '.join(self.objectives)}"
            )

    def _check_scores(self) -> None:
        if self.reduction_factor is None and max(len(self.scores), len(self.supernet_scores)) > 1:
            raise InputError("scores, supernet_scores: several are for successive halving: give --reduction_factor 3")
        for name, known in (("scores", TRAINING_SCORES), ("supernet_scores", SUPERNET_SCORES)):
            words = getattr(self, name)
            if len(set(words)) != len(words) or not set(words) <= set(known):
                raise InputError(f"{name}: must be some of {', '.join(known)}, not {' '.join(words)!r}")

    def _check_tasks(self) -> None:
        sources = self.task_sources()
        check_flags_for_known(self, "task_data", "task_split")
        used = {*self.scores, *self.supernet_scores} & {"probe", "tasks"}
        if used and not sources:
            raise InputError(f"tasks: none is named, but scores {', '.join(sorted(used))} need one")
        if self.task_teachers is not None and len(self.task_teachers) != len(sources):
            raise InputError(
                f"task_teachers: {len(self.task_teachers)} for {len(sources)} tasks; give one for each, in order"
            )
        trains = {1, 2} & set(self.stages) and "short" in self.scores
        if sources and self.task_teachers is None and (trains or "tasks" in self.supernet_scores):
            raise InputError("task_teachers: candidates learn tasks from teachers; fine-tune one for each task")
        if {1, 2} & set(self.stages) and "short" in self.scores and not (self.general_steps or sources):
            raise InputError("general_steps: must be at least 1 for score short without --tasks, not 0")
        if "tasks" in self.supernet_scores and self.supernets > 1:
            raise InputError("supernets: several are for text; --supernet_scores tasks needs 1")
        if not 0 < self.task_held_out < 1:
            raise InputError(f"task_held_out: must be between 0 and 1, not {self.task_held_out}")
        if not self.task_epochs > 0 or not self.task_learning_rate > 0:
            raise InputError("task_epochs, task_learning_rate: must be above 0")

    def _check_task_flags(self) -> None:
        """Refuses flags for tasks where no task has a use for them."""
        trains = bool(self.tasks) and bool({1, 2} & set(self.stages)) and "short" in self.scores
        shares = bool(self.tasks) and 3 in self.stages and "tasks" in self.supernet_scores
        used = {
            "task_data": ("--tasks", bool(self.tasks)),
            "task_split": ("--tasks", bool(self.tasks)),
            "task_epochs": ("--tasks that stages 1 and 2 train on (--scores short)", trains),
            "task_steps": ("--tasks that stage 3 trains on (--supernet_scores tasks)", shares),
        }
        for name in ("task_teachers", "task_held_out", "task_learning_rate", "task_batch_size"):
            used[name] = ("--tasks that candidates are trained on", trains or shares)
        for name in changed_arguments(self):
            if name in used and not used[name][1]:
                raise InputError(f"{name}: is for {used[name][0]}, and there are none")

    def decisive(self) -> dict[str, Any]:
        """All that decides what a search comes to, as JSON values: it goes on only with the same."""
        from efficientbert.search.study.storage import without_password

        arguments = {name: value for name, value in run_arguments(self).items() if name not in UNDECISIVE}
        if self.storage is not None:
            arguments["storage"] = without_password(self.storage)
        return json.loads(json.dumps(arguments))

    def parsed_budgets(self) -> tuple[Budget, ...]:
        """The budgets.

        Raises:
            InputError: if one cannot be read, or a metric stands twice.
        """
        budgets = []
        for word in self.budgets:
            metric, given, limits = word.partition("=")
            least, colon, most = limits.partition(":")
            try:
                budgets.append(Budget(metric, float(least or 0), float(most or "inf")))
            except ValueError as error:
                if isinstance(error, InputError):
                    raise
                given = ""
            if not given or not colon or limits == ":":
                raise InputError(
                    f"budgets: {word!r}: must be METRIC=LEAST:MOST, as in parameters=15e6:16e6 or latency=:20"
                )
        if len({budget.metric for budget in budgets}) < len(budgets):
            raise InputError(f"budgets: a metric stands twice in {' '.join(self.budgets)!r}")
        return tuple(budgets)

    def stop_rule(self) -> StopRule:
        """When a stage ends."""
        return StopRule(self.num_candidates, self.hours, self.patience)

    def check_sources(self) -> None:
        """See `GeneralArguments.check_sources`; of the tasks and their teachers, too."""
        super().check_sources()
        if Path(self.student).suffix == ".json":
            check_model(self.student, "student")
        for source in self.task_sources():
            source.check_sources()
        for teacher in self.task_teachers or ():
            check_model(teacher, "teacher")

    def task_sources(self) -> list[LabelledData]:
        """The data of every task."""
        sources = labelled_sources(self.tasks or [], self.task_data, self.task_split)
        titles = [source.title() for source in sources]
        if len(set(titles)) != len(titles):
            raise InputError(f"tasks: must have different names, not {', '.join(map(repr, titles))}")
        return sources
