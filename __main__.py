"""The command `efficientbert`: one subcommand per script."""

import importlib
import sys

from efficientbert import __version__
from efficientbert.train.cli.errors import did_you_mean


SCRIPTS = {
    "compress": ("efficientbert.search.compress", "make the best model for a number of milliseconds from a teacher"),
    "search": ("efficientbert.search.search", "search an architecture for a teacher, a corpus and a budget"),
    "distill": ("efficientbert.train.distill", "distil a teacher into a student on unlabelled text"),
    "embed": ("efficientbert.train.embed", "distil a sentence-transformers teacher's embeddings on unlabelled text"),
    "augment": (
        "efficientbert.train.augment",
        "add variants of labelled texts, with words of a masked language model",
    ),
    "finetune": ("efficientbert.train.finetune", "fine-tune a model on labelled data, alone or under a teacher"),
    "multitask": ("efficientbert.train.multitask", "train one encoder on several labelled tasks at once"),
    "evaluate": ("efficientbert.train.scoring", "score fine-tuned models on their tasks"),
    "convert": ("efficientbert.train.convert", "convert a checkpoint of the original release"),
    "export": ("efficientbert.train.export", "write a model as ONNX graphs that run without PyTorch, and int8"),
    "trim": ("efficientbert.train.trim", "cut the vocabulary of a model to the tokens that a corpus needs"),
    "push": ("efficientbert.train.push", "upload a finished folder to the Hub"),
    "benchmark": ("efficientbert.search.benchmark", "compare parameters, FLOPs, latency and memory of models"),
}
USAGE = "usage: efficientbert COMMAND [RECIPE.yaml] [--flag value ...]\n\n" + "".join(
    f"  {name:<10} {what}\n" for name, (_, what) in SCRIPTS.items()
)
USAGE += "\nefficientbert COMMAND --help shows an example and the flags of a command.\n"


def main() -> None:
    """Hands the arguments to the script of the named command."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(USAGE, end="", file=sys.stdout if len(sys.argv) > 1 else sys.stderr)
        sys.exit(0 if len(sys.argv) > 1 else 2)
    if sys.argv[1] == "--version":
        print(f"efficientbert {__version__}")
        sys.exit(0)
    command = sys.argv.pop(1)
    if command not in SCRIPTS:
        known = did_you_mean(command, SCRIPTS) or f"; known are {', '.join(SCRIPTS)}"
        print(f"efficientbert: error: unknown command {command!r}{known}", file=sys.stderr)
        sys.exit(2)
    importlib.import_module(SCRIPTS[command][0]).cli()


if __name__ == "__main__":
    main()
