"""Writes a model as ONNX graphs that run without PyTorch, in float32, float16 and int8.

    efficientbert export --model my-classifier --data reviews.csv --text_column review --output_dir my-classifier-onnx
    efficientbert export --model my-embedder --dtypes int8 --output_dir my-embedder-onnx
    efficientbert push --folder my-classifier-onnx --repo_id me/my-classifier

Every graph is compared with the model before it is kept. `docs/serving.md` shows how to run them.
"""

import tempfile
from dataclasses import asdict
from pathlib import Path

from efficientbert.train.cli.command import run_command
from efficientbert.train.cli.outcome import Outcome
from efficientbert.train.runtimes.arguments import ExportArguments


def main(args: ExportArguments) -> Outcome:
    """Runs the job from a model to a folder with the model, its graphs, and how far each is from it."""
    args.check()
    if not args.finished():
        args.check_sources()
    from efficientbert.train.files.run_folder import run_folder
    from efficientbert.train.runtimes.exporting import draw_graph, read_figures, write_graphs
    from efficientbert.train.runtimes.session import require_runtime
    from efficientbert.train.runtimes.source import load_source

    folder = run_folder(args, ("model",), "data", args.data)
    if folder.complete:
        return Outcome(folder.path, {"graphs": read_figures(folder.path)})
    require_runtime()
    source = load_source(args)
    with tempfile.TemporaryDirectory() as scratch:
        drawn = Path(scratch, "model.onnx")
        exact = draw_graph(source, args, drawn)
        folder.open()
        figures = write_graphs(source, drawn, exact, args, folder.work)
    path = folder.finish()
    print(path)
    return Outcome(path, {"graphs": {name: asdict(graph) for name, graph in figures.items()}})


def cli() -> None:
    """Runs the script with this process's arguments."""
    run_command(main, ExportArguments, "export")


if __name__ == "__main__":
    cli()
