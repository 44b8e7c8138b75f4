"""Where a model is written, and what its card says."""

import os
from dataclasses import dataclass, field

from efficientbert.train.files.output_folder import RECORD


@dataclass(kw_only=True)
class CardArguments:
    """What the model card says beside what was done."""

    group = "model card"

    license: str | None = field(
        default=None,
        metadata={"help": "Licence of the weights in the model card, as the Hub spells it: mit, apache-2.0, …"},
    )
    language: list[str] | None = field(
        default=None, metadata={"help": "Languages that the model is for, in the model card, as codes such as en de."}
    )


@dataclass(kw_only=True)
class FolderArguments:
    """The folder that a command writes."""

    group = "output"

    output_dir: str = field(
        metadata={"help": "Folder to write; the same command resumes an interrupted run.", "path": True}
    )

    def finished(self) -> bool:
        """Whether a run has finished this folder: what it has read may be gone since."""
        return os.path.exists(os.path.join(self.output_dir, RECORD))


@dataclass(kw_only=True)
class OutputArguments(CardArguments, FolderArguments):
    """The folder that a command writes, and what the model card in it says."""
