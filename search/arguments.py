"""What a search can be told."""

import json
from dataclasses import dataclass, field
from typing import Any, ClassVar

from efficientbert.search.costs.budget import METRICS, Budget
from efficientbert.search.study.stop_rule import StopRule
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.arguments import PRESETS, GeneralArguments
from efficientbert.train.files.output_folder import run_arguments
from efficientbert.train.tasks.arguments import TASKS, LabelledData, labelled_sources


SAMPLERS = ("random", "evolution", "nsga2", "action_space", "tpe")
SEVERAL_OBJECTIVES = ("action_space", "nsga2", "random")
SLICE_SCORES = ("parameters", "wpca", "text", "probe")  # of slices as they are
TRAINING_SCORES = (*SLICE_SCORES, "short")
SUPERNET_SCORES = (*SLICE_SCORES, "tasks")
# How long a search goes on and what of it is run now; not what a candidate comes to.
UNDECISIVE = ("stage", "num_candidates", "hours", "patience", "checkpoint_steps")


@dataclass(kw_only=True)
class SearchArguments(GeneralArguments):
    """Searches an architecture in up to three stages and writes the best, or a Pareto front, as checkpoints."""

    least_held_out: ClassVar[int] = 1  # candidates are scored on it

    student: str = field(
        default="efficientbert",
        metadata={"help": f"Sizes that are not searched: a preset ({', '.join(PRESETS)}) or a config.json."},
    )
    depths: list[int] | None = field(default=None, metadata={"help": "Numbers of layers to search among."})
    hidden_sizes: list[int] | None = field(default=None, metadata={"help": "Hidden sizes to search among."})
    head_counts: list[int] | None = field(default=None, metadata={"help": "Numbers of heads to search among."})
    head_dims: list[int] | None = field(default=None, metadata={"help": "Widths of a head to search among."})
    embedding_sizes: list[int] | None = field(
        default=None, metadata={"help": "Widths of the token table to search among."}
    )
    base_width: int | None = field(
        default=None, metadata={"help": "Inner width at expansion 1; by default the hidden size."}
    )
    width_multiple: int = field(default=1, metadata={"help": "Inner widths are multiples of it, such as 16."})
    gate: bool = field(default=True, metadata={"help": "Whether expressions may use the third linear."})

    budgets: list[str] = field(
        default_factory=list,
        metadata={
            "help": "What a candidate may cost, as METRIC=LEAST:MOST, either of which may be left out: parameters, "
            "flops of a sequence, latency in milliseconds. All are kept at once."
        },
    )
    objectives: list[str] = field(
        default_factory=lambda: ["loss"],
        metadata={"help": "What is minimised: loss, and any of parameters, flops, latency."},
    )
    latency_batch_size: int = field(default=1, metadata={"help": "Sequences of a forward whose latency is meant."})

    stages: list[int] = field(
        default_factory=lambda: [1, 2, 3],
        metadata={
            "help": "1 searches all at once, 2 the expressions, 3 everything else by weight sharing. 3 alone searches "
            "all at once by weight sharing."
        },
    )
    stage: int | None = field(default=None, metadata={"help": "Run this stage alone now."})
    num_candidates: int | None = field(default=100, metadata={"help": "Candidates of a stage."})
    hours: float | None = field(default=None, metadata={"help": "Hours of work after which a stage ends."})
    patience: int | None = field(
        default=None, metadata={"help": "Candidates in a row without improvement after which a stage ends."}
    )
    sampler: str = field(default="action_space", metadata={"help": f"Who proposes candidates: {', '.join(SAMPLERS)}."})
    initial: int = field(default=16, metadata={"help": "Random candidates before the sampler goes by their losses."})
    refit_interval: int = field(default=5, metadata={"help": "Candidates between two fits of the action space."})
    reduction_factor: int | None = field(
        default=None,
        metadata={
            "help": "Successive halving: of the candidates that come to a rung (the end of a score, of general "
            "distillation, of an epoch), one in so many goes on."
        },
    )

    warmup_steps: int = field(default=250, metadata={"help": "Steps that distil the whole supernet."})
    scores: list[str] = field(
        default_factory=lambda: ["short"],
        metadata={
            "help": f"How stages 1 and 2 rate candidates, from cheap to expensive: {', '.join(TRAINING_SCORES)}. The "
            "last one decides, those before it are rungs."
        },
    )
    general_steps: int = field(default=50, metadata={"help": "Steps that distil a candidate of stages 1 and 2."})
    sampled_steps: int = field(
        default=750, metadata={"help": "Steps that distil sampled candidates of stage 3 in the supernet."}
    )
    sandwich: bool = field(
        default=False, metadata={"help": "At every such step the largest, the smallest and two random candidates."}
    )
    in_place: bool = field(
        default=False, metadata={"help": "In a sandwich, the others learn from the largest instead of the teacher."}
    )
    supernets: int = field(default=1, metadata={"help": "Supernets that divide the space of stage 3 among them."})
    supernet_scores: list[str] = field(
        default_factory=lambda: ["text"],
        metadata={"help": f"How stage 3 rates candidates, as --scores: {', '.join(SUPERNET_SCORES)}."},
    )

    tasks: list[str] | None = field(
        default=None,
        metadata={
            "help": f"Tasks to score on ({', '.join(TASKS)}, or YAML files with the flags of `finetune` for the "
            "data). Stages 1 and 2 and probes use the first."
        },
    )
    task_teachers: list[str] | None = field(
        default=None, metadata={"help": "A teacher fine-tuned on each task, in their order; probes need none."}
    )
    task_data: str | None = field(default=None, metadata={"help": "Hub id or folder of the known tasks."})
    task_split: str = field(
        default="train", metadata={"help": "Train split of the known tasks, or a slice: train[:1000]."}
    )
    task_held_out: float = field(
        default=0.2, metadata={"help": "Share of these rows on which candidates are scored; never trained on."}
    )
    task_epochs: float = field(default=3.0, metadata={"help": "Passes over the others in stages 1 and 2."})
    task_steps: int = field(default=300, metadata={"help": "Steps that distil sampled candidates on all tasks."})
    task_learning_rate: float = field(default=4e-4, metadata={"help": "Peak learning rate on tasks."})
    task_batch_size: int = field(default=32, metadata={"help": "Rows a process takes at a time on tasks."})

    storage: str | None = field(
        default=None,
        metadata={
            "help": "Database of the study for workers on several machines, such as postgresql://user@host/name; by "
            "default a journal in the output folder."
        },
    )
    name: str | None = field(
        default=None, metadata={"help": "Of the study in its storage; by default that of the output folder."}
    )

    def check(self) -> None:
        """See `LoopArguments.check`."""
        super().check()
        if self.compile:
            raise InputError("compile: is not for a search, which would compile anew at every step")
        if self.gradient_checkpointing:
            raise InputError("gradient_checkpointing: is not for a search; lower --batch_size")
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

    def _check_stages(self) -> None:
        if not self.stages or self.stages != sorted(set(self.stages)) or not set(self.stages) <= {1, 2, 3}:
            raise InputError(f"stages: must be some of 1 2 3, in order, not {self.stages}")
        if self.stage is not None and self.stage not in self.stages:
            raise InputError(f"stage: must be one of the stages {self.stages}, not {self.stage}")
        if self.in_place and not self.sandwich:
            raise InputError("in_place: is for a --sandwich, where there is a largest candidate to learn from")

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
                f"sampler: {self.sampler} looks at one objective; for {' and '.join(self.objectives)} choose "
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
            if not words or len(set(words)) != len(words) or not set(words) <= set(known):
                raise InputError(f"{name}: must be some of {', '.join(known)}, not {' '.join(words)!r}")

    def _check_tasks(self) -> None:
        sources = self.task_sources()
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

    def task_sources(self) -> list[LabelledData]:
        """The data of every task."""
        sources = labelled_sources(self.tasks or [], self.task_data, self.task_split)
        titles = [source.title() for source in sources]
        if len(set(titles)) != len(titles):
            raise InputError(f"tasks: must have different names, not {', '.join(map(repr, titles))}")
        return sources
