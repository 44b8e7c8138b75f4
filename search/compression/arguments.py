"""What a compression can be told."""

import math
from dataclasses import dataclass, field

from efficientbert.train.cli.arguments import check_kinds
from efficientbert.train.cli.errors import InputError
from efficientbert.train.engine.arguments import DeviceArguments, check_seed
from efficientbert.train.files.data_files import check_file_columns, check_source
from efficientbert.train.model_folder.arguments import OutputArguments
from efficientbert.train.model_folder.model_names import check_model
from efficientbert.train.tasks.arguments import LabelledData
from efficientbert.train.text.arguments import CORPUS, CorpusSplitArguments


DEPLOYED = ("onnx", "onnx-int8")  # runtimes that are not that of the training


@dataclass(kw_only=True)
class CompressArguments(OutputArguments, LabelledData, CorpusSplitArguments, DeviceArguments):
    """Finds the best model for a number of milliseconds on this machine, and makes it from a teacher of yours."""

    first = ("teacher", "latency", "data", "corpus", "hours", "output_dir")
    group = "what is wanted"

    teacher: str = field(
        metadata={
            "help": "Hub id or folder of the model to compress: fine-tuned on a task, of sentence-transformers, or a "
            "bare encoder. Its kind is found out.",
            "path": True,
        }
    )
    latency: float | None = field(
        default=None,
        metadata={
            "help": "Milliseconds that one text of --max_length tokens may take here. Without --latency and --size, "
            "models of a half, a quarter and a tenth of the teacher's time are made to choose from."
        },
    )
    size: float | None = field(
        default=None, metadata={"help": "Megabytes that the encoder's weights may take in float32."}
    )
    runtime: str | None = field(
        default=None,
        metadata={
            "help": f"What will run the model, and is timed: {' or '.join(DEPLOYED)}, of onnxruntime on the CPU; by "
            "default PyTorch. `efficientbert export` writes the graphs."
        },
    )
    corpus: str | None = field(
        default=None,
        metadata={
            "help": f"Unlabelled text to learn from first: {CORPUS}; by default the texts of the data.",
            "path": True,
        },
    )
    corpus_column: str = field(default="text", metadata={"help": "Column with the documents of the corpus."})
    hours: float | None = field(
        default=None,
        metadata={"help": "Hours that the whole may take here; by default 1,000 steps on text and the epochs below."},
    )
    num_epochs: float = field(default=5.0, metadata={"help": "Passes over the data at most."})
    threads: int | None = field(
        default=None, metadata={"help": "CPU threads that the model will have; by default all cores."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of the search, new weights and the order of the data."})

    def check(self) -> None:
        """Checks what can be checked without models and data.

        Raises:
            InputError: naming the argument.
        """
        check_kinds(self)
        for name in ("latency", "size", "hours", "num_epochs"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name}: must be a number above 0, not {value}")
        if self.runtime is not None and self.runtime not in DEPLOYED:
            raise InputError(f"runtime: unknown {self.runtime!r}; known are {', '.join(DEPLOYED)}")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads: must be at least 1, not {self.threads}")
        check_seed("seed", self.seed)
        if self.has_data:
            self.check_task()
        elif self.corpus is None:
            raise InputError("corpus: there is no text to learn from; give --corpus, or --data or --task")

    @property
    def has_data(self) -> bool:
        """Whether there is data of a task."""
        return self.task is not None or self.data is not None

    def check_sources(self) -> None:
        """Looks whether what is on this machine is there; which columns of the data are read depends on the teacher.

        Raises:
            InputError: naming what is not.
        """
        check_model(self.teacher, "teacher")
        for source in (self.data, self.augmented_data):
            if source is not None:
                check_source(source, "data")
        if self.corpus is not None:
            check_source(self.corpus, "corpus")
            check_file_columns(self.corpus, [self.corpus_column], "corpus")
