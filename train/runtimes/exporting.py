"""From a loaded model to the folder with its graphs, figures and card."""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import onnxruntime
import torch
from tokenizers.models import WordPiece
from transformers import PreTrainedTokenizerBase

from efficientbert.train.cli.errors import InputError
from efficientbert.train.files.tables import table
from efficientbert.train.files.writing import write_json, write_text
from efficientbert.train.model_folder.card import add_section, write_card
from efficientbert.train.model_folder.record import read_provenance, recorded, write_provenance
from efficientbert.train.model_folder.upload import split_files
from efficientbert.train.runtimes.arguments import FILES, ExportArguments
from efficientbert.train.runtimes.comparison import Comparison
from efficientbert.train.runtimes.graph import OPSET, count_operators, write_graph
from efficientbert.train.runtimes.quantization import has_vnni, write_float16
from efficientbert.train.runtimes.sensitive import write_faithful
from efficientbert.train.runtimes.session import Session
from efficientbert.train.runtimes.source import Source


FOLDER, FIGURES = "onnx", "export.json"
SECTION = "Without PyTorch"  # of a card
EXACT = 1e-3  # the largest difference of an output that the order of sums explains
OPERATORS = ("Attention", "LayerNormalization", "Gelu", "MatMul", "MatMulInteger")  # that are counted for a reader


@dataclass(frozen=True)
class Graph:
    """A graph that was written.

    Attributes:
        file: In the folder of the model.
        megabytes: Of the file.
        operators: How often some operators stand in it.
        kept: Modules whose products stay in float32.
        comparison: It beside the model.
    """

    file: str
    megabytes: float
    operators: dict[str, int]
    kept: list[str]
    comparison: Comparison


def draw_graph(source: Source, args: ExportArguments, path: Path) -> Comparison:
    """Draws the graph of a model in float32, and compares it with the model.

    Args:
        source: The model.
        args: Arguments of the run.
        path: Of the file.

    Raises:
        InputError: if it is not the model's.
    """
    print("draws the graph", flush=True)
    write_graph(source.traced, source.vocab_size, path)
    comparison = source.comparing.compare(Session(path))
    if not comparison.largest <= EXACT:
        raise InputError(f"model {args.model!r}: its graph is off by {comparison.largest:.3g}; nothing is written")
    return comparison


def write_graphs(
    source: Source, drawn: Path, exact: Comparison, args: ExportArguments, work: Path
) -> dict[str, Graph]:
    """Writes the model, its graphs, their figures and the card.

    Args:
        source: The model.
        drawn: Its graph in float32.
        exact: That graph beside the model.
        args: Arguments of the run.
        work: Folder of the run.

    Returns:
        The graphs by what they compute in.
    """
    copy_model(source, work)
    (work / FOLDER).mkdir(exist_ok=True)
    paths = {name: work / FOLDER / file for name, file in FILES.items()}
    shutil.copyfile(drawn, paths["float32"])
    found: dict[str, Graph] = {}

    def add(name: str, comparison: Comparison, kept: list[str]) -> None:
        path = paths[name]
        counted = {operator: count for operator, count in count_operators(path).items() if operator in OPERATORS}
        found[name] = Graph(f"{FOLDER}/{path.name}", path.stat().st_size / 1e6, counted, kept, comparison)

    add("float32", exact, [])
    if "float16" in args.dtypes:
        write_float16(paths["float32"], paths["float16"])
        add("float16", source.comparing.compare(Session(paths["float16"])), [])
    if "int8" in args.dtypes:
        reduce_range = not has_vnni() if args.reduce_range is None else args.reduce_range
        kept = write_faithful(paths["float32"], paths["int8"], source.choosing, reduce_range)
        if kept is None:
            print("note: int8 loses too much even with half of all products in float32, and is not written")
        else:
            add("int8", source.comparing.compare(Session(paths["int8"])), kept)
    said = describe(found, source)
    print(f"\n{said}\n")
    write_json(work / FIGURES, {name: asdict(graph) for name, graph in found.items()})
    add_section(work, SECTION, f"{said}\n\n{code(source)}")
    step = {
        "step": "export",
        "arguments": recorded(args),
        "result": {name: asdict(graph.comparison) for name, graph in found.items()},
        "versions": {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__},
    }
    write_provenance(work, [*read_provenance(source.folder), step])
    return found


def read_figures(folder: Path) -> dict[str, dict]:
    """The figures of a finished export."""
    return json.loads((folder / FIGURES).read_text(encoding="utf-8"))


def copy_model(source: Source, work: Path) -> None:
    """Copies a model's folder without what only training needs, and lists its tokens where some loaders want that."""
    kept, _ = split_files(source.folder)
    for name in [*kept, *(["README.md"] if (source.folder / "README.md").exists() else [])]:
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.folder / name, work / name)
    if not (work / "README.md").exists():
        write_card(work)
    if is_word_piece(source.tokenizer):
        vocabulary = sorted(source.tokenizer.get_vocab().items(), key=lambda item: item[1])
        write_text(work / "vocab.txt", "".join(f"{token}\n" for token, _ in vocabulary))


def is_word_piece(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a list of tokens, one a line, is all that other tokenizers need."""
    return tokenizer.is_fast and isinstance(tokenizer.backend_tokenizer.model, WordPiece)


def describe(graphs: dict[str, Graph], source: Source) -> str:
    """A table of the graphs, and what its columns mean."""
    first = next(iter(graphs.values())).comparison
    header = ["graph", "dtype", "MB", "largest difference"]
    header += ["equal predictions"] if first.agreement is not None else []
    header += ["cosine"] if first.cosine is not None else []
    header += [str(first.metric), "less the model's"] if first.metric is not None else []
    rows = []
    for name, graph in graphs.items():
        comparison = graph.comparison
        row = [f"`{graph.file}`", name, f"{graph.megabytes:.1f}", f"{comparison.largest:.2g}"]
        row += [f"{comparison.agreement:.2%}"] if comparison.agreement is not None else []
        row += [f"{comparison.cosine:.5f}"] if comparison.cosine is not None else []
        if comparison.metric is not None and comparison.gain_interval_95 is not None:
            low, high = comparison.gain_interval_95
            row += [f"{comparison.score:.4f}", f"{comparison.gain:+.4f} ({low:+.4f} to {high:+.4f})"]
        rows.append(row)
    operators = ", ".join(f"{count} {name}" for name, count in graphs["float32"].operators.items())
    kept = graphs["int8"].kept if "int8" in graphs else []
    said = (
        f"The graphs of opset {OPSET} take {', '.join(f'`{name}`' for name in source.traced.inputs)} (int64) of any "
        f"batch size and length and give {', '.join(f'`{name}`' for name in source.traced.outputs)}. Each was "
        f"compared with the model in PyTorch on {first.rows:,} texts"
        + (", with 95% bootstrap intervals" if first.metric is not None else "")
        + f". In float32 the graph has {operators}."
    )
    if "int8" in graphs:
        said += " In int8 weights have a scale for every channel, and token tables one for every row"
        said += f"; in float32 stay {', '.join(kept)}." if kept else "."
    return f"{table(header, rows)}\n\n{said}"


def code(source: Source) -> str:
    """How to run a graph, for the card."""
    outputs = ", ".join(source.traced.outputs)
    return f"""```python
import onnxruntime
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")  # this folder
session = onnxruntime.InferenceSession("{FOLDER}/{FILES["float32"]}")
batch = tokenizer(["A cat sleeps."], padding=True, truncation=True, return_tensors="np")
names = [given.name for given in session.get_inputs()]
{outputs} = session.run(None, {{name: batch[name] for name in names}})
```"""
