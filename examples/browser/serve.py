"""Serves a page that runs an exported classifier and an exported embedder in the browser.

    npm ci --ignore-scripts
    python serve.py my-classifier-onnx my-embedder-onnx

All that the page needs is copied into one folder, which any other web server can serve as well.
"""

import argparse
import json
import shutil
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


HERE = Path(__file__).parent
PAGE = ("index.html", "main.js")
LIBRARIES = (
    "@huggingface/transformers/dist/transformers.web.min.js",
    "onnxruntime-web/dist/ort.wasm.min.mjs",
    "onnxruntime-web/dist/ort-wasm-simd-threaded.mjs",
    "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm",
)
MODEL = ("config.json", "tokenizer.json", "tokenizer_config.json", "onnx/model_quantized.onnx")


def write_site(classifier: Path, embedder: Path, site: Path) -> None:
    """Copies the page, its libraries and two models into a folder.

    Args:
        classifier: A folder that `efficientbert export` has made of a model that classifies text.
        embedder: One that it has made of an embedder.
        site: The folder; it need not exist.

    Raises:
        FileNotFoundError: naming a file that is not there.
    """
    files = {}
    for folder, name in ((classifier, "classifier"), (embedder, "embedder")):
        files |= {folder / file: f"models/{name}/{file}" for file in MODEL}
    files |= {HERE / name: name for name in PAGE}
    files |= {HERE / "node_modules" / name: f"lib/{Path(name).name}" for name in LIBRARIES}
    for source, name in files.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, site / name)
    for path in site.glob("models/*/config.json"):
        name_bert(path)


def name_bert(path: Path) -> None:
    """Says in a config.json that the model is a BERT.

    transformers.js refuses to classify with a type that it does not know, and takes nothing but inputs and outputs
    from it. Those are a BERT's.
    """
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"model_type": "bert"}, indent=2), encoding="utf-8")


class Handler(SimpleHTTPRequestHandler):
    """Has the browser ask whether a file has changed, so that it never runs a model of an earlier start."""

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()


def main() -> None:
    """Writes the folder and serves it on this machine alone, until it is interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("classifier", type=Path, help="folder of an exported classifier")
    parser.add_argument("embedder", type=Path, help="folder of an exported embedder")
    parser.add_argument(
        "--site", type=Path, default=HERE / "site", help="folder to write (default: site, beside this)"
    )
    parser.add_argument("--port", type=int, default=8000, help="of the server; 0 takes a free one (default: 8000)")
    args = parser.parse_args()
    try:
        write_site(args.classifier, args.embedder, args.site)
    except FileNotFoundError as error:
        parser.error(f"{error.filename} is not there; README.md says what makes it")
    with ThreadingHTTPServer(("127.0.0.1", args.port), partial(Handler, directory=str(args.site))) as server:
        print(f"http://127.0.0.1:{server.server_port}/", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
