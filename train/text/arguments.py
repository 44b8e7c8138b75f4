"""Where unlabelled text comes from and how it is cut."""

from dataclasses import dataclass, field

from efficientbert.train.files.data_files import check_file_columns, check_source


CORPUS = "a Hub id, a folder, a .txt, .json, .jsonl, .csv or .parquet file, or a pattern of files"


@dataclass(kw_only=True)
class CorpusSplitArguments:
    """Which part of a corpus is read."""

    group = "text"

    corpus_name: str | None = field(
        default=None, metadata={"help": "Configuration of a corpus on the Hub; by default its only one."}
    )
    corpus_split: str = field(
        default="train", metadata={"help": "Split of the corpus, or a slice of it such as train[:1000]."}
    )


@dataclass(kw_only=True)
class CorpusArguments(CorpusSplitArguments):
    """Where unlabelled text comes from and how it is cut."""

    group = "text"

    corpus: str = field(metadata={"help": f"Text to learn from: {CORPUS}.", "path": True})
    text_column: str = field(
        default="text", metadata={"help": "Column with the documents; of a .txt every line is one."}
    )
    streaming: bool = field(
        default=False, metadata={"help": "Read the corpus while training, in constant memory; nothing is cached."}
    )
    max_length: int = field(
        default=128, metadata={"help": "Tokens of a sequence; longer documents are cut into several."}
    )
    packing: bool = field(
        default=False,
        metadata={"help": "Fill rows of --max_length tokens with several sequences that do not see each other."},
    )
    held_out: int = field(default=64, metadata={"help": "Sequences that are never trained on, and scored in the end."})
    init_sequences: int = field(
        default=64,
        metadata={"help": "Sequences on which the teacher is measured at the start, for the student's first weights."},
    )

    def check_sources(self) -> None:
        """Looks whether a corpus on this machine is there, with its column.

        Raises:
            InputError: if either is not.
        """
        check_source(self.corpus, "corpus")
        check_file_columns(self.corpus, [self.text_column], "corpus")
