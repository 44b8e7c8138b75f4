"""Which labelled data, which of its columns, and how it is read."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from efficientbert.train.cli.arguments import changed_arguments, parse_arguments
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.arguments import LossArguments, parse_losses
from efficientbert.train.engine.arguments import DeviceArguments, LoopArguments, check_seed
from efficientbert.train.files.data_files import check_file_columns, check_source
from efficientbert.train.model_folder.arguments import OutputArguments
from efficientbert.train.model_folder.model_names import check_model


KINDS = ("text-classification", "question-answering", "token-classification", "multiple-choice")
PROBLEMS = ("single_label", "multi_label", "regression")  # what a label of text-classification is
GLUE_COLUMNS: dict[str, tuple[str, str | None]] = {
    "cola": ("sentence", None),
    "sst2": ("sentence", None),
    "mrpc": ("sentence1", "sentence2"),
    "stsb": ("sentence1", "sentence2"),
    "qqp": ("question1", "question2"),
    "mnli": ("premise", "hypothesis"),
    "qnli": ("question", "sentence"),
    "rte": ("sentence1", "sentence2"),
    "wnli": ("sentence1", "sentence2"),
    "ax": ("premise", "hypothesis"),
}
GLUE_LABELS: dict[str, tuple[str, ...]] = {  # what the ids 0, 1 and 2 mean
    "cola": ("unacceptable", "acceptable"),
    "sst2": ("negative", "positive"),
    "mrpc": ("not_equivalent", "equivalent"),
    "qqp": ("not_duplicate", "duplicate"),
    "mnli": ("entailment", "neutral", "contradiction"),
    "qnli": ("entailment", "not_entailment"),
    "rte": ("entailment", "not_entailment"),
    "wnli": ("not_entailment", "entailment"),
    "ax": ("entailment", "neutral", "contradiction"),
}
SQUAD = {"squad": "rajpurkar/squad", "squad_v2": "rajpurkar/squad_v2"}
TASKS = (*GLUE_COLUMNS, *SQUAD)
SWAG_COLUMNS = ("sent1", "sent2", "ending0", "ending1", "ending2", "ending3")
LEAST_AROUND = 5  # tokens of a window that cannot be shared: three special ones, a question's, and a new one
TARGET_COLUMNS = {"question-answering": "answers", "token-classification": "tags"}  # of the others it is `label`


@dataclass(kw_only=True)
class TaskArguments:
    """Which labelled data, and which of its columns."""

    group = "data"

    task: str | None = field(
        default=None, metadata={"help": f"Known task: {', '.join(TASKS)}. Leave it out for data of your own."}
    )
    kind: str | None = field(
        default=None,
        metadata={
            "help": f"What is predicted: {', '.join(KINDS)}; by default what the task needs, else text-classification."
        },
    )
    data: str | None = field(
        default=None,
        metadata={
            "help": "Labelled data: a Hub id, a folder, a .csv, .json, .jsonl or .parquet file, or a pattern of "
            "files; by default the known task's on the Hub.",
            "path": True,
        },
    )
    data_name: str | None = field(
        default=None,
        metadata={"help": "Configuration of data in a folder or on the Hub; by default the name of the GLUE task."},
    )
    text_column: str | None = field(
        default=None,
        metadata={"help": "Column with the text, the question, the list of words, or the text to continue."},
    )
    text_pair_column: str | None = field(
        default=None,
        metadata={"help": "Column with the second text, the context of the question, or the start of every choice."},
    )
    label_column: str | None = field(
        default=None,
        metadata={"help": "Column with the label, the answers, or the tags; by default label, answers or tags."},
    )
    choice_columns: list[str] | None = field(
        default=None,
        metadata={"help": "Columns with the choices of multiple-choice, or one column with lists of them."},
    )
    problem: str | None = field(
        default=None,
        metadata={
            "help": f"What a label of text-classification is: {', '.join(PROBLEMS)}. By default lists are "
            "multi_label; decimal numbers, as in '3.7', are a regression; anything else is a class."
        },
    )
    metric: str | None = field(
        default=None,
        metadata={
            "help": "Metric of the library evaluate, such as f1; by default the task's, or one that suits the labels."
        },
    )
    max_length: int = field(
        default=128, metadata={"help": "Tokens of a sequence; a longer text is cut, a longer context read in windows."}
    )
    doc_stride: int = field(
        default=32, metadata={"help": "Tokens that two windows of a long context share (questions and tags)."}
    )
    max_query_length: int = field(default=64, metadata={"help": "Tokens of a question; a longer one is cut."})
    max_answer_length: int = field(default=30, metadata={"help": "Tokens of the longest answer."})

    def check_task(self) -> None:
        """Checks what can be checked without the data.

        Raises:
            InputError: naming the argument.
        """
        if self.task is not None and self.task not in TASKS:
            raise InputError(f"task {self.task!r}: unknown; known are {', '.join(TASKS)}")
        if self.kind is not None and self.kind not in KINDS:
            raise InputError(f"kind {self.kind!r}: unknown; known are {', '.join(KINDS)}")
        if self.task is None and self.data is None:
            raise InputError("task: give --task for a known task, or --data and its columns for data of your own")
        if self.max_length < 8:
            raise InputError(f"max_length: must be at least 8, not {self.max_length}")
        for name, least in (("doc_stride", 0), ("max_query_length", 1), ("max_answer_length", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name}: must be at least {least}, not {getattr(self, name)}")
        most = self.max_length - LEAST_AROUND
        if self.task_kind() == "question-answering" and self.doc_stride > most:
            raise InputError(
                f"doc_stride: must be at most {most} with max_length {self.max_length}, of which the question and "
                f"special tokens take a part, not {self.doc_stride}; lower it, or raise max_length"
            )
        if self.problem is not None and self.problem not in PROBLEMS:
            raise InputError(f"problem {self.problem!r}: unknown; known are {', '.join(PROBLEMS)}")
        if self.problem is not None and self.task_kind() != "text-classification":
            raise InputError(f"problem: is for text-classification, not for {self.task_kind()}")
        if self.task in GLUE_COLUMNS and self.problem not in (None, self.known_problem()):
            raise InputError(f"problem: of {self.task!r} is {self.known_problem()!r}, not {self.problem!r}")

    def check_sources(self) -> None:
        """Looks whether data on this machine is there, with its columns.

        Raises:
            InputError: if anything is not, or a column must be named and is not.
        """
        if self.data is not None:
            check_source(self.data, "data")
        check_file_columns(self.source(), self.named_columns(), "data")

    def named_columns(self) -> tuple[str, ...]:
        """All columns that are known to be read."""
        return (*self.text_columns(), self.target_column())

    def text_columns(self) -> tuple[str, ...]:
        """Columns that are read, without what is to be predicted.

        Raises:
            InputError: if they must be named and are not.
        """
        kind = self.task_kind()
        if kind == "question-answering":
            return self.text_column or "question", self.text_pair_column or "context"
        if kind == "token-classification":
            return (self.text_column or "tokens",)
        if kind == "multiple-choice":
            first, start, choices = self.choice_parts()
            return (first, *choices) if start is None else (first, start, *choices)
        text, second = self.text_column, self.text_pair_column
        known = GLUE_COLUMNS.get(self.task or "")
        if text is None:
            if known is None or second is not None:
                raise InputError("text_column: must name the column of the text in data of your own")
            text, second = known
        elif known is not None and (known[1] is None) != (second is None):
            columns = "--text_column alone" if second else "both --text_column and --text_pair_column"
            raise InputError(f"text_pair_column: {self.task!r} takes {columns}")
        return (text,) if second is None else (text, second)

    def choice_parts(self) -> tuple[str, str | None, tuple[str, ...]]:
        """Columns of the first text, of the start of every choice or None, and of the choices; by default SWAG's.

        Raises:
            InputError: if the arguments name some, but not enough.
        """
        first, start, choices = self.text_column, self.text_pair_column, self.choice_columns
        if first is None and start is None and choices is None:
            return SWAG_COLUMNS[0], SWAG_COLUMNS[1], SWAG_COLUMNS[2:]
        if first is None:
            raise InputError("text_column: must name the column of the text that comes before the choices")
        if not choices:
            raise InputError("choice_columns: must name the columns of the choices, or the one with lists of them")
        return first, start, tuple(choices)

    def target_column(self) -> str:
        """Column with what is to be predicted."""
        return self.label_column or TARGET_COLUMNS.get(self.task_kind(), "label")

    def task_arguments(self) -> "TaskArguments":
        """These arguments alone, without what a command adds to them."""
        return TaskArguments(**{field.name: getattr(self, field.name) for field in fields(TaskArguments)})

    def task_kind(self) -> str:
        """What is predicted, one of `KINDS`."""
        return self.kind or ("question-answering" if self.task in SQUAD else "text-classification")

    def known_problem(self) -> str | None:
        """What a label of text-classification is, where it is said or the task is known; one of `PROBLEMS`."""
        known = "regression" if self.task == "stsb" else "single_label" if self.task in GLUE_COLUMNS else None
        return known or self.problem

    def configuration(self) -> str | None:
        """Which configuration of the data is meant."""
        return self.data_name or (self.task if self.task in GLUE_COLUMNS else None)

    def source(self) -> str:
        """Where the data comes from."""
        return self.data or SQUAD.get(self.task or "", "nyu-mll/glue")

    def title(self) -> str:
        """What to call the task in tables and messages."""
        return self.task or Path(self.source()).stem

    def eval_splits(self) -> tuple[str, ...]:
        """The splits that score a model of this task: MNLI has two, the diagnostic set AX only an unlabelled one."""
        return {"mnli": ("validation_matched", "validation_mismatched"), "ax": ("test",)}.get(
            self.task or "", ("validation",)
        )


@dataclass(kw_only=True)
class LabelledData(TaskArguments):
    """Labelled data to train and score on."""

    group = "rows to train and score on"

    train_split: str = field(
        default="train", metadata={"help": "Split to train on, or a slice of it such as train[:90%]."}
    )
    augmented_data: str | None = field(
        default=None,
        metadata={
            "help": "File that `efficientbert augment` wrote, to train on in place of the split.",
            "path": True,
        },
    )
    eval_split: list[str] | None = field(
        default=None,
        metadata={
            "help": "Splits to score the final weights on; nothing is chosen by them. By default the validation "
            "split, or of data with one split the tenth that is held out (held_out); none scores nothing."
        },
    )

    def check_sources(self) -> None:
        """See `TaskArguments.check_sources`."""
        super().check_sources()
        if self.augmented_data is not None:
            check_source(self.augmented_data, "augmented_data")

    def scored_splits(self) -> tuple[str, ...]:
        """The splits that the final weights are scored on."""
        if self.eval_split is None:
            return self.eval_splits()
        return () if self.eval_split == ["none"] else tuple(self.eval_split)


def labelled_sources(tasks: list[str], data: str | None, train_split: str = "train") -> list[LabelledData]:
    """The data of several tasks, in order.

    Args:
        tasks: Known tasks, or YAML files with the flags of `finetune` for the data.
        data: Hub id or folder of the known ones.
        train_split: What the known ones are trained on.

    Raises:
        InputError: if a task is neither known nor a YAML file.
    """
    sources = []
    for task in tasks:
        if task.endswith((".yaml", ".yml")):
            source = parse_arguments(LabelledData, [task], "efficientbert", "")
        elif task in TASKS:
            source = LabelledData(task=task, data=data, train_split=train_split)
        else:
            raise InputError(
                f"tasks: {task!r} is neither a known task ({', '.join(TASKS)}) nor a .yaml; for data of your own, "
                "write the flags of `efficientbert finetune` for the data to a .yaml, one a line, as in 'data: my.csv'"
            )
        source.check_task()
        sources.append(source)
    return sources


def check_flags_for_known(args: Any, *names: str) -> None:
    """Refuses flags for the known ones among --tasks where all are YAML files, which name their data themselves.

    Raises:
        InputError: naming the flags.
    """
    given = [name for name in names if name in changed_arguments(args)]
    if given and args.tasks and not set(args.tasks) & set(TASKS):
        raise InputError(
            f"{', '.join(given)}: for known tasks, such as 'rte', and none of --tasks is one; a .yaml names its data "
            "itself"
        )


# What a run on several tasks writes beside the folders of the tasks.
RESERVED = ("checkpoints", "encoder", "logs", "results.json", "run.json", "selected.safetensors", "training_log.json")


def check_names(names: list[str]) -> None:
    """Checks that every task can have a folder of its name.

    Raises:
        InputError: if one is no plain name of a folder, is taken, or stands twice.
    """
    for index, name in enumerate(names):
        plain = name.isprintable() and not {"/", "\\"} & set(name) and name == name.strip(" .") != ""
        if not plain or name.endswith(".partial"):
            fault = "is no plain name of a folder"
        elif name.lower() in RESERVED:
            fault = "is what the run itself writes"
        elif name.lower() in (earlier.lower() for earlier in names[:index]):
            fault = "stands twice"
        else:
            continue
        raise InputError(
            f"names: {name!r} of task {index + 1} {fault}; give every task a folder name of its own with --names, in "
            "order"
        )


# Peak learning rates. A student that learns inner states takes larger steps; labels alone suffer from them.
LABEL_RATE, INNER_RATE = 1e-4, 1e-3
DISTILLATIONS = ("outputs", "together", "sequence")


@dataclass(kw_only=True)
class TaskTrainingArguments(OutputArguments, LoopArguments, LossArguments):
    """How a model is trained on labelled tasks, whether one or several."""

    group = "passes, labels and teachers"

    model: str = field(
        metadata={
            "help": "Folder or Hub id to start from: a distilled student, or an encoder that will be a teacher.",
            "path": True,
        }
    )
    distillation: str = field(
        default="together",
        metadata={
            "help": "What is learned from a teacher: outputs, together (outputs and inner states), or sequence (inner "
            "states in the first half of the steps, outputs in the second)."
        },
    )
    label_weight: float = field(
        default=0.0, metadata={"help": "Weight, from 0 to 1, of the labels beside a teacher's outputs."}
    )
    temperature: float = field(
        default=1.0, metadata={"help": "Temperature that divides the logits of student and teacher."}
    )
    num_epochs: float = field(default=5, metadata={"help": "Passes over the training rows; may be a fraction."})
    max_steps: int | None = field(
        default=None, metadata={"help": "Optimizer steps of the whole run, in place of --num_epochs."}
    )
    selection: float = field(
        default=0.0,
        metadata={
            "help": "Share of the training rows, from 0 to 1, kept aside to choose the best weights and thresholds "
            "on; with 0 the last weights are taken."
        },
    )
    # None is settled by `rate` before anything is trained.
    learning_rate: float | None = field(  # type: ignore[assignment]
        default=None,
        metadata={
            "help": "Peak learning rate of AdamW, reached after the warm-up; by default "
            f"{LABEL_RATE:g}, or {INNER_RATE:g} where a teacher's inner states are learned."
        },
    )

    def check(self) -> None:
        """See `LoopArguments.check`."""
        super().check()
        parse_losses(self.losses)
        if self.distillation not in DISTILLATIONS:
            raise InputError(f"distillation: must be {', '.join(DISTILLATIONS)}, not {self.distillation!r}")
        if not self.num_epochs > 0:
            raise InputError(f"num_epochs: must be above 0, not {self.num_epochs}")
        if self.max_steps is not None and self.max_steps < 1:
            raise InputError(f"max_steps: must be at least 1, not {self.max_steps}")
        if not 0 <= self.label_weight <= 1:
            raise InputError(f"label_weight: must be between 0 and 1, not {self.label_weight}")
        if not self.temperature > 0:
            raise InputError(f"temperature: must be above 0, not {self.temperature}")
        if not 0 <= self.selection < 1:
            raise InputError(f"selection: must be at least 0 and below 1, not {self.selection}")

    def rate(self, taught: bool) -> float:
        """The peak learning rate, where none is given that for labels or inner states.

        Args:
            taught: Whether there is a teacher.
        """
        if self.learning_rate is not None:
            return self.learning_rate
        return INNER_RATE if taught and self.distillation != "outputs" else LABEL_RATE


@dataclass(kw_only=True)
class FinetuneArguments(TaskTrainingArguments, LabelledData):
    """Fine-tunes a model on a labelled task and writes a folder that every Auto class loads."""

    first = ("model", "task", "data", "text_column", "teacher", "output_dir")
    group = "passes, labels and teachers"

    teacher: str | None = field(
        default=None,
        metadata={
            "help": "Folder or Hub id of a teacher that was fine-tuned on the same task; by default labels alone.",
            "path": True,
        },
    )
    labels_alone: bool = field(
        default=False,
        metadata={
            "help": "Beside learning from a --teacher, train on the labels alone, else alike, and tell whether the "
            "student gains by its teacher."
        },
    )
    seeds: list[int] | None = field(
        default=None, metadata={"help": "Train once with each of these seeds, and report mean and standard deviation."}
    )

    def check(self) -> None:
        """See `LoopArguments.check`."""
        super().check()
        self.check_task()
        if self.teacher is None and (self.label_weight, self.temperature) != (0.0, 1.0):
            raise InputError("label_weight, temperature: are for learning from a --teacher, and there is none")
        if self.teacher is None and self.labels_alone:
            raise InputError("labels_alone: is what a student under a --teacher is held against, and there is none")
        if self.seeds is not None and len(set(self.seeds)) != len(self.seeds):
            raise InputError(f"seeds: must be different numbers, not {self.seeds}")
        for seed in self.seeds or ():
            check_seed("seeds", seed)

    def check_sources(self) -> None:
        """See `LabelledData.check_sources`; of the models, too."""
        super().check_sources()
        check_model(self.model, "model")
        if self.teacher is not None:
            check_model(self.teacher, "teacher")


@dataclass(kw_only=True)
class MultitaskArguments(TaskTrainingArguments):
    """Trains one encoder on several labelled tasks and writes it with a head for each of them."""

    first = ("model", "tasks", "teachers", "num_epochs", "output_dir")
    group = "tasks"

    tasks: list[str] = field(
        metadata={
            "help": f"Known tasks ({', '.join(TASKS)}), or YAML files with the data flags of `finetune`.",
            "path": True,
            "words": TASKS,
        }
    )
    teachers: list[str] | None = field(
        default=None,
        metadata={
            "help": "For each task, in order, a teacher that was fine-tuned on it; by default labels alone.",
            "path": True,
        },
    )
    names: list[str] | None = field(
        default=None,
        metadata={
            "help": "For each task, in order, its name and that of its folder; by default the known task or the "
            "data file."
        },
    )
    data: str | None = field(
        default=None,
        metadata={"help": "Hub id or folder of the known tasks; by default GLUE and SQuAD on the Hub.", "path": True},
    )
    sampling: float = field(
        default=0.5,
        metadata={
            "help": "Power, from 0 to 1, of a task's rows that gives its share of the batches: 1 by size, 0 all alike."
        },
    )

    def check(self) -> None:
        """See `LoopArguments.check`."""
        super().check()
        for argument in ("teachers", "names"):
            given = getattr(self, argument)
            if given is not None and len(given) != len(self.tasks):
                raise InputError(
                    f"{argument}: {len(given)} for {len(self.tasks)} tasks; give one for each with --{argument}, "
                    "in order"
                )
        if not 0 <= self.sampling <= 1:
            raise InputError(f"sampling: must be between 0 and 1, not {self.sampling}")

    def check_sources(self) -> None:
        """See `LabelledData.check_sources`, of every task; of the models, too."""
        for source in self.sources().values():
            source.check_sources()
        check_model(self.model, "model")
        for teacher in self.teachers or ():
            check_model(teacher, "teacher")

    def sources(self) -> dict[str, LabelledData]:
        """The data of every task by its name; see `labelled_sources`, `check_flags_for_known` and `check_names`."""
        sources = labelled_sources(self.tasks, self.data)
        check_flags_for_known(self, "data")
        names = self.names or [source.title() for source in sources]
        check_names(names)
        return dict(zip(names, sources, strict=True))


@dataclass(kw_only=True)
class AugmentArguments(DeviceArguments, TaskArguments):
    """Writes the rows of a labelled task with variants of them, in which a masked language model replaced words.

    Only words that are one piece of the model's vocabulary are replaced; the published algorithm replaces others by
    neighbours in GloVe, which is left out. A word's candidates come from the original text, as in the release.
    Variants keep the label and all other columns; those equal to the original or to one another are dropped.
    """

    first = ("task", "data", "model", "copies", "output_file")
    group = "variants"

    model: str = field(
        metadata={
            "help": "Hub id or folder of a masked language model, such as google-bert/bert-base-uncased.",
            "path": True,
        }
    )
    output_file: str = field(
        metadata={"help": "Parquet file to write; the same command resumes an interrupted run.", "path": True}
    )
    split: str = field(
        default="train", metadata={"help": "Split to augment, or a slice of it: the rows that will be trained on."}
    )
    copies: int = field(default=20, metadata={"help": "Variants to draw of every row."})
    replace_probability: float = field(default=0.4, metadata={"help": "Chance, from 0 to 1, that a word is replaced."})
    candidates: int = field(
        default=15, metadata={"help": "Number of the most probable words from which a replacement is drawn."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of the draws."})
    batch_size: int = field(default=32, metadata={"help": "Masked sequences at a time; does not change the variants."})

    def check(self) -> None:
        """Checks the arguments.

        Raises:
            InputError: naming the one that is unfit.
        """
        if self.task_kind() != "text-classification":
            raise InputError(f"kind: only text-classification can be augmented, not {self.task_kind()}")
        self.check_task()
        for name in ("copies", "candidates", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: must be at least 1, not {getattr(self, name)}")
        check_seed("seed", self.seed)
        if not 0 < self.replace_probability <= 1:
            raise InputError(f"replace_probability: must be above 0 and at most 1, not {self.replace_probability}")
        if Path(self.output_file).suffix != ".parquet":
            raise InputError(f"output_file {self.output_file!r}: must end in .parquet")

    def check_sources(self) -> None:
        """See `TaskArguments.check_sources`; of the model, too."""
        super().check_sources()
        check_model(self.model, "model")


@dataclass(kw_only=True)
class TrainedTaskArguments(TaskArguments):
    """Which labelled data a trained model is scored on."""

    # None is a length that is not given, which `settle_arguments` looks up: no `TaskArguments` is left with one.
    max_length: int | None = field(  # type: ignore[assignment]
        default=None, metadata={"help": "Tokens of a sequence; by default as in the training."}
    )
    doc_stride: int | None = field(  # type: ignore[assignment]
        default=None,
        metadata={"help": "Tokens that two windows of a long context share; by default as in the training."},
    )
    max_query_length: int | None = field(  # type: ignore[assignment]
        default=None, metadata={"help": "Tokens of a question; by default as in the training."}
    )
    max_answer_length: int | None = field(  # type: ignore[assignment]
        default=None, metadata={"help": "Tokens of the longest answer; by default as in the training."}
    )


@dataclass(kw_only=True)
class EvaluateArguments(DeviceArguments, TrainedTaskArguments):
    """Scores a fine-tuned model, or a folder of them, and prints a table; optionally writes JSON, cards, submissions.

    Task, data and lengths are those that a model was fine-tuned with, where they are not given.
    """

    first = ("model", "data", "split", "output_json", "update_card")
    group = "scoring"

    model: str = field(
        metadata={
            "help": "Folder or Hub id of a fine-tuned model, or a folder of several model folders.",
            "path": True,
        }
    )
    split: str | None = field(
        default=None,
        metadata={
            "help": "Split to score, or a slice of it; held_out is the tenth that `finetune` held out of data with "
            "one split. By default the validation split."
        },
    )
    batch_size: int = field(default=64, metadata={"help": "Rows at a time; does not change the figures."})
    bootstrap: int = field(
        default=1000,
        metadata={"help": "Draws of the rows for the 95% confidence intervals; 0 leaves the intervals out."},
    )
    seed: int = field(default=0, metadata={"help": "Seed of the draws of --bootstrap."})
    output_json: str | None = field(
        default=None, metadata={"help": "JSON file to write the figures to; by default none.", "path": True}
    )
    update_card: bool = field(
        default=False, metadata={"help": "Write the figures into the model card of every folder."}
    )
    submission_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder for predictions on the test splits of GLUE, as the GLUE site takes them; by default none.",
            "path": True,
        },
    )

    def check(self) -> None:
        """Checks what can be checked without models and data.

        Raises:
            InputError: naming the argument.
        """
        if self.batch_size < 1:
            raise InputError(f"batch_size: must be at least 1, not {self.batch_size}")
        if self.bootstrap < 0:
            raise InputError(f"bootstrap: must be at least 0, not {self.bootstrap}")
        check_seed("seed", self.seed)
        if self.output_json and not Path(self.output_json).absolute().parent.is_dir():
            raise InputError(f"output_json {self.output_json!r}: its folder does not exist")

    def check_sources(self) -> None:
        """See `TaskArguments.check_sources`; of the model, too."""
        super().check_sources()
        check_model(self.model, "model")

    def named_columns(self) -> tuple[str, ...]:
        """Those that are given; the others are as in the training."""
        given = (self.text_column, self.text_pair_column, *(self.choice_columns or ()), self.label_column)
        return tuple(column for column in given if column is not None)
