"""What distillation on unlabelled text can be told."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from efficientbert.train.cli.errors import InputError
from efficientbert.train.engine.arguments import LoopArguments
from efficientbert.train.model_folder.arguments import OutputArguments
from efficientbert.train.model_folder.model_names import PRESETS, check_model, check_student
from efficientbert.train.text.arguments import CorpusArguments


# Those of `losses.LOSSES`, which imports torch too.
LOSS_NAMES = (
    "hidden_states",
    "pooled_states",
    "attention_scores",
    "minilm_relations",
    "qkv_relations",
    "masked_lm",
    "logits",
)
MOST_RELATION_HEADS = 48  # MiniLMv2, section 4.2
START_FAULT = "neither teacher, random nor a checkpoint"


@dataclass(kw_only=True)
class LossArguments:
    """What a student learns from its teacher."""

    group = "losses"

    losses: list[str] = field(
        default_factory=lambda: ["hidden_states", "attention_scores=0.3"],
        metadata={
            "help": f"What the student learns from the teacher, some of {', '.join(LOSS_NAMES)}; NAME=WEIGHT gives a "
            "loss another weight than 1."
        },
    )
    layer_map: list[str] = field(
        default_factory=lambda: ["uniform"],
        metadata={
            "help": "Teacher layers for hidden_states and attention_scores: uniform (the embedding and evenly spaced "
            "layers), last (the last layer alone), or one number for each student layer, counted from 1."
        },
    )
    relation_heads: int | None = field(
        default=None,
        metadata={"help": f"Heads of the loss qkv_relations; by default as many as fit, up to {MOST_RELATION_HEADS}."},
    )
    relation_layer: int | None = field(
        default=None,
        metadata={
            "help": "Teacher layer for minilm_relations and qkv_relations, counted from 1; by default the last."
        },
    )


def parse_losses(words: Sequence[str] | str) -> dict[str, float]:
    """Weights by name, of words such as `hidden_states` and `attention_scores=0.5`.

    Raises:
        InputError: if a name is unknown or stands twice, a weight is no number above 0, or there is no word.
    """
    weights: dict[str, float] = {}
    for word in words.split() if isinstance(words, str) else words:
        name, given, number = word.partition("=")
        if name not in LOSS_NAMES:
            raise InputError(f"losses: unknown loss {name!r}; known are {', '.join(LOSS_NAMES)}")
        if name in weights:
            raise InputError(f"losses: {name!r} stands twice")
        try:
            weights[name] = float(number) if given else 1.0
        except ValueError:
            weights[name] = math.nan
        if not 0 < weights[name] < math.inf:
            raise InputError(f"losses: the weight of {name!r} must be a number above 0, not {number!r}")
    if not weights:
        raise InputError(f"losses: name at least one of {', '.join(LOSS_NAMES)}")
    return weights


# The help lists groups from the last base to the first: text, losses, training, model card.
@dataclass(kw_only=True)
class GeneralArguments(OutputArguments, LoopArguments, LossArguments, CorpusArguments):
    """What all distillation on unlabelled text can be told."""

    group = "teacher and output"
    least_held_out: ClassVar[int] = 0

    teacher: str = field(
        metadata={
            "help": "Hub id or folder of the teacher: a BERT, RoBERTa, ELECTRA, MPNet or DistilBERT.",
            "path": True,
        }
    )
    learning_rate: float = field(
        default=1.5e-3, metadata={"help": "Peak learning rate of AdamW, reached after the warm-up."}
    )
    batch_size: int = field(
        default=16, metadata={"help": "Sequences, or packed rows, that a process takes at a time."}
    )

    def check(self) -> None:
        """See `LoopArguments.check`."""
        super().check()
        parse_losses(self.losses)
        for name, least in (("held_out", self.least_held_out), ("init_sequences", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name}: must be at least {least}, not {getattr(self, name)}")

    def check_sources(self) -> None:
        """See `CorpusArguments.check_sources`; of the teacher, too."""
        super().check_sources()
        check_model(self.teacher, "teacher")


@dataclass(kw_only=True)
class StudentArguments:
    """What is trained on unlabelled text, and for how long."""

    group = "student"

    student: str = field(
        default="efficientbert",
        metadata={
            "help": f"What is trained: a preset ({', '.join(PRESETS)}), a config.json, or the folder or Hub id of a "
            "checkpoint to go on from.",
            "path": True,
            "words": PRESETS,
        },
    )
    max_steps: int = field(default=1000, metadata={"help": "Optimizer steps of the whole run."})

    def check_student(self) -> None:
        """Checks what can be checked without a model.

        Raises:
            InputError: naming the argument.
        """
        if self.max_steps < 0:
            raise InputError(f"max_steps: must be at least 0, not {self.max_steps}")


@dataclass(kw_only=True)
class DistillArguments(StudentArguments, GeneralArguments):
    """Distils a teacher into a student on unlabelled text and writes a folder that every Auto class loads."""

    group = "student"
    first = ("teacher", "corpus", "student", "max_steps", "output_dir")

    initialization: str = field(
        default="teacher",
        metadata={
            "help": "Where the weights of a preset or config.json start: teacher, random, or the folder or Hub id of "
            "a checkpoint of any width and depth, from which the leading dimensions are copied.",
            "path": True,
            "words": ("teacher", "random"),
        },
    )

    def check(self) -> None:
        """See `LoopArguments.check`."""
        super().check()
        self.check_student()
        named = self.initialization in ("teacher", "random")
        if not named and "/" not in self.initialization and not Path(self.initialization).is_dir():
            raise InputError(
                "initialization: must be teacher or random, or the folder or Hub id of a checkpoint, not "
                f"{self.initialization!r}"
            )

    def check_sources(self) -> None:
        """See `GeneralArguments.check_sources`; of what the student starts from, too."""
        super().check_sources()
        check_student(self.student)
        if self.initialization not in ("teacher", "random"):
            check_model(self.initialization, "initialization", START_FAULT)


@dataclass(kw_only=True)
class EmbedArguments(StudentArguments, OutputArguments, LoopArguments, CorpusArguments):
    """Distils a sentence-transformers teacher's embeddings and writes a folder that sentence-transformers loads."""

    group = "embeddings"
    first = ("teacher", "corpus", "student", "max_steps", "output_dir")

    teacher: str = field(
        metadata={
            "help": "Hub id or folder of the sentence-transformers teacher; a bare encoder gets mean pooling.",
            "path": True,
        }
    )
    initialization: str = field(
        default="teacher", metadata={"help": "Where the weights of a preset or config.json start: teacher or random."}
    )
    batch_size: int = field(default=32, metadata={"help": "Passages that a process takes at a time."})
    learning_rate: float = field(
        default=5e-4, metadata={"help": "Peak learning rate of AdamW, reached after the warm-up."}
    )
    held_out: int = field(default=256, metadata={"help": "Passages that are never trained on, and scored in the end."})
    init_sequences: int = field(
        default=128,
        metadata={"help": "Passages on which the teacher is measured at the start, for the student's first weights."},
    )
    cosine_weight: float = field(
        default=1.0, metadata={"help": "Weight of the cosine distance to the teacher's embedding in the loss."}
    )
    mse_weight: float = field(
        default=1.0, metadata={"help": "Weight of the squared error, divided by the teacher's variance, in the loss."}
    )

    def check(self) -> None:
        """See `LoopArguments.check`."""
        super().check()
        self.check_student()
        if self.initialization not in ("teacher", "random"):
            raise InputError(f"initialization: must be teacher or random, not {self.initialization!r}")
        if self.packing:
            raise InputError("packing: is not for embeddings; batches hold passages of like length anyway")
        for name in ("cosine_weight", "mse_weight"):
            if getattr(self, name) < 0:
                raise InputError(f"{name}: must be at least 0, not {getattr(self, name)}")
        if self.cosine_weight == self.mse_weight == 0:
            raise InputError("cosine_weight: is 0, and so is mse_weight; there is nothing to learn")
        for name in ("held_out", "init_sequences"):
            if getattr(self, name) < 2:
                raise InputError(f"{name}: must be at least 2, not {getattr(self, name)}")

    def check_sources(self) -> None:
        """See `CorpusArguments.check_sources`; of the models, too."""
        super().check_sources()
        check_model(self.teacher, "teacher")
        check_student(self.student)
