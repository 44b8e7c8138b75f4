"""What the cut of a vocabulary can be told."""

from dataclasses import dataclass, field

from efficientbert.train.cli.arguments import check_kinds
from efficientbert.train.cli.errors import InputError
from efficientbert.train.files.data_files import check_file_columns, check_source
from efficientbert.train.model_folder.arguments import OutputArguments
from efficientbert.train.model_folder.model_names import check_model
from efficientbert.train.text.arguments import CORPUS, CorpusSplitArguments


@dataclass(kw_only=True)
class TrimArguments(OutputArguments, CorpusSplitArguments):
    """Cuts a model's vocabulary to the tokens that a corpus needs most; texts of kept tokens give the same outputs.

    A word whose token is cut is spelt in smaller ones. The tokenizer is WordPiece, BPE, Unigram or WordLevel; the
    model any of transformers that reads text, with its head, or a sentence-transformers embedder. Trim a teacher
    before it is distilled, and its student has the same tokens.
    """

    first = ("model", "corpus", "vocab_size", "output_dir")
    group = "vocabulary"

    model: str = field(metadata={"help": "Folder or Hub id of the model.", "path": True})
    corpus: str = field(metadata={"help": f"Text that says which tokens are needed: {CORPUS}.", "path": True})
    text_column: str = field(
        default="text", metadata={"help": "Column with the documents; of a .txt every line is one."}
    )
    vocab_size: int = field(metadata={"help": "Tokens that are kept, special tokens and characters among them."})

    def check(self) -> None:
        """Checks what can be checked without a model.

        Raises:
            InputError: naming the argument.
        """
        check_kinds(self)
        if self.vocab_size < 1:
            raise InputError(f"vocab_size: must be at least 1, not {self.vocab_size}")

    def check_sources(self) -> None:
        """Looks whether what is on this machine is there.

        Raises:
            InputError: naming what is not.
        """
        check_model(self.model, "model")
        check_source(self.corpus, "corpus")
        check_file_columns(self.corpus, [self.text_column], "corpus")
