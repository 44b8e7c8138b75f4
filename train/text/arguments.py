"""Where unlabelled text comes from and how it is cut."""

from dataclasses import dataclass, field

from efficientbert.train.files.data_files import check_source


@dataclass(kw_only=True)
class CorpusArguments:
    """Where unlabelled text comes from and how it is cut."""

    group = "text"

    corpus: str = field(
        metadata={"help": "Hub id, folder, .txt, .json, .jsonl, .csv or .parquet file, or a pattern.", "path": True}
    )
    corpus_name: str | None = field(default=None, metadata={"help": "Configuration of the corpus."})
    corpus_split: str = field(default="train", metadata={"help": "Split of the corpus, or a slice: train[:1000]."})
    text_column: str = field(default="text", metadata={"help": "Column with the documents."})
    streaming: bool = field(default=False, metadata={"help": "Read the corpus as it is needed; nothing is cached."})
    max_length: int = field(default=128, metadata={"help": "Tokens in a sequence."})
    packing: bool = field(
        default=False, metadata={"help": "Fill rows of max_length with several sequences that do not see each other."}
    )
    held_out: int = field(default=64, metadata={"help": "Sequences kept for scoring, never trained on."})
    init_sequences: int = field(
        default=64, metadata={"help": "Sequences from which teacher statistics are taken at the start."}
    )

    def check_sources(self) -> None:
        """Looks whether a corpus on this machine is there.

        Raises:
            InputError: if it is not.
        """
        check_source(self.corpus, "corpus")
