"""What an export can be told."""

from dataclasses import dataclass, field

from efficientbert.train.cli.arguments import check_kinds
from efficientbert.train.cli.errors import InputError
from efficientbert.train.files.data_files import check_source
from efficientbert.train.model_folder.arguments import FolderArguments
from efficientbert.train.model_folder.model_names import check_model
from efficientbert.train.tasks.arguments import TrainedTaskArguments


FILES = {
    "float32": "model.onnx",
    "float16": "model_fp16.onnx",
    "int8": "model_quantized.onnx",
}  # by what a graph computes in


@dataclass(kw_only=True)
class ExportArguments(FolderArguments, TrainedTaskArguments):
    """Writes a model as ONNX graphs in float32, float16 and int8, after comparing each with the model itself.

    The folder holds the model, too, and its card says what was compared. Task, data and lengths are those that the
    model was fine-tuned with, where they are not given; a model without data is compared on sentences of ours.
    """

    first = ("model", "data", "dtypes", "output_dir")
    group = "what is exported"

    model: str = field(
        metadata={
            "help": "Folder or Hub id of a model of ours with any head or none, or of an embedder that `efficientbert "
            "embed` has made.",
            "path": True,
        }
    )
    dtypes: list[str] = field(
        default_factory=lambda: list(FILES),
        metadata={"help": f"What the graphs compute in, some of {', '.join(FILES)}; float32 is always written."},
    )
    reduce_range: bool | None = field(
        default=None,
        metadata={
            "help": "Give the weights of int8 7 bits, so that no sum overflows on processors without VNNI; by default "
            "where this one has none."
        },
    )
    train_split: str = field(
        default="train[:512]",
        metadata={"help": "Rows by which it is chosen what stays in float32 in the int8 graph."},
    )
    split: str | None = field(
        default=None, metadata={"help": "Rows that are compared and scored; by default the validation split."}
    )

    def check(self) -> None:
        """Checks what can be checked without models and data.

        Raises:
            InputError: naming the argument.
        """
        check_kinds(self)
        for name in self.dtypes:
            if name not in FILES:
                raise InputError(f"dtypes: unknown {name!r}; known are {', '.join(FILES)}")

    def check_sources(self) -> None:
        """Looks whether what is on this machine is there.

        Raises:
            InputError: naming what is not.
        """
        check_model(self.model, "model")
        if self.data is not None:
            check_source(self.data, "data")
