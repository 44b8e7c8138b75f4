"""The page that runs exported models in a browser: beside Python, by keyboard alone, without a network."""

import json
import os
import re
import runpy
import shutil
import string
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import AutoTokenizer, BertTokenizer

from efficientbert import (
    EfficientBertConfig,
    EfficientBertForSequenceClassification,
    EfficientBertModel,
    commands,
)
from efficientbert.train.runtimes import comparison, quantization
from efficientbert.train.runtimes.sentences import SENTENCES


EXAMPLE = Path(__file__).parents[1] / "examples" / "browser"
SERVE = runpy.run_path(str(EXAMPLE / "serve.py"))
LENGTH = 40  # tokens that the models read
TEXTS = [
    *SENTENCES,
    "",
    "   ",
    "\t\n",
    "word " * 200,
    "👩‍👩‍👧‍👦🏳️‍🌈 👍🏽",
    "ÀÉÎÕÜ ñ ø ß ﬁ ½ Å e\u0301",
    "مرحبا بالعالم",
    "שלום עולם",
    "สวัสดีชาวโลก",
    "안녕하세요 세계",
    "ＦＵＬＬ　ｗｉｄｔｈ",
    "zero\u200bwidth\u00a0space\ufeff and\u0000 nul \ufffd",
    "[CLS] [SEP] [MASK] [UNK] are tokens",
    "don't “quote” — $5.00 ≤ €6, x^2 == `y`~|",
]
SIZES = {
    "embedding_size": 16,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "ffn_expressions": "linear2(mul(swish(linear1(x)), gate(x)))",
    "intermediate_sizes": [40, 40, 40],
    "max_position_embeddings": LENGTH,
    "initializer_range": 0.15,
}
LABELS = dict(enumerate(("anger", "disgust", "fear", "joy", "sadness", "surprise")))  # the page shows the best five


def make_tokenizer(path: Path) -> BertTokenizer:
    """A WordPiece tokenizer that knows some words, and of every script in the texts most letters."""
    others = sorted(set("".join(TEXTS)) - set(string.printable))
    letters = [*string.digits, *string.ascii_lowercase, *others[::2], *others[1::4]]
    words = ["the", "and", "of", "word", "##ing", "##ed", "##s", "a", "train", "lit", "##tle", "##er", "day"]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.punctuation, *letters, *words]
    tokens += [f"##{letter}" for letter in letters]
    path.write_text("\n".join(dict.fromkeys(tokens)), encoding="utf-8")
    return BertTokenizer(str(path), model_max_length=LENGTH)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> tuple[Path, Path]:
    """Folders of an exported classifier and of an exported embedder whose embeddings are not of length 1."""
    folder = tmp_path_factory.mktemp("exported")
    tokenizer = make_tokenizer(folder / "vocab.txt")
    torch.manual_seed(0)
    config = EfficientBertConfig(**SIZES, vocab_size=len(tokenizer))
    encoder = EfficientBertModel(config)
    config.id2label, config.label2id = LABELS, {label: index for index, label in LABELS.items()}
    models = {"encoder": encoder, "classifier": EfficientBertForSequenceClassification(config)}
    for name, model in models.items():
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    modules = [Transformer(str(folder / "encoder"), max_seq_length=LENGTH), Pooling(SIZES["hidden_size"], "mean")]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "embedder"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "AGREEMENT", 0.0)  # models that have learned nothing lose much, and stay in int8
        patch.setattr(quantization, "TABLE", 100)  # as in models with a vocabulary of real size
        for name in ("classifier", "embedder"):
            commands.export(model=folder / name, dtypes=["int8"], output_dir=folder / f"{name}-onnx")
    return folder / "classifier-onnx", folder / "embedder-onnx"


def run_graph(folder: Path, output: str) -> np.ndarray:
    """An output of an int8 graph in Python for all texts, each on its own."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    session = onnxruntime.InferenceSession(folder / "onnx" / "model_quantized.onnx")
    names = [given.name for given in session.get_inputs()]
    found = []
    for text in TEXTS:
        batch = tokenizer([text], truncation=True, return_tensors="np")
        found.append(session.run([output], {name: batch[name] for name in names})[0][0])
    return np.stack(found)


@pytest.fixture(scope="module")
def program() -> str:
    """The browser; all that needs it is skipped where it or a package of npm is not installed."""
    for name in SERVE["LIBRARIES"]:
        if not (EXAMPLE / "node_modules" / name).exists():
            pytest.skip(f"needs {name} of npm, which is not here: `npm ci --ignore-scripts` in examples/browser")
    return shutil.which("chromium") or pytest.skip("needs chromium, which is not installed")


@contextmanager
def serve(exported: tuple[Path, Path], site: Path) -> Iterator[str]:
    """Runs `serve.py` with a folder to serve; its address."""
    command = [sys.executable, EXAMPLE / "serve.py", *exported, "--site", site, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def address(program, exported, tmp_path_factory):
    """Where the page is served."""
    with serve(exported, tmp_path_factory.mktemp("site")) as address:
        yield address


@pytest.fixture(scope="module")
def browser(program):
    with runpy.run_path(str(EXAMPLE / "drive.py"))["Page"](program) as page:
        yield page


@pytest.fixture
def page(browser, address):
    """The page, opened anew, when both models have answered."""
    browser.open(address)
    browser.wait("document.querySelector('#similarities table')")
    return browser


def call(page, function: str) -> list:
    """What a function of the page gives for every text."""
    loop = f"const found = []; for (const text of {json.dumps(TEXTS)}) found.push(await main.{function}(text));"
    return page.run(f"import('/main.js').then(async (main) => {{ {loop} return found; }})")


def read(page, selector: str) -> list[str]:
    """What stands in all elements that a selector finds."""
    return page.run(f"[...document.querySelectorAll({json.dumps(selector)})].map((one) => one.textContent)")


def scores_of(logits: np.ndarray) -> np.ndarray:
    exponents = np.exp(logits - logits.max(-1, keepdims=True))
    return exponents / exponents.sum(-1, keepdims=True)


def assert_close(found: np.ndarray, wanted: np.ndarray, largest: float) -> None:
    """Texts have the same numbers, but for a few where a last bit decides which 8-bit number is the nearest."""
    differences = np.abs(found - wanted).max(1)
    assert len(differences) == 50 and np.quantile(differences, 0.8) < 1e-5 and differences.max() < largest


def test_scores_are_those_of_python(page, exported):
    rows = call(page, "classify")
    assert all(row == sorted(row, key=lambda one: -one["score"]) for row in rows)
    found = [{one["label"]: one["score"] for one in row} for row in rows]
    wanted = scores_of(run_graph(exported[0], "logits"))
    assert_close(np.array([[row[label] for label in LABELS.values()] for row in found]), wanted, 0.03)
    assert wanted.std(0).max() > 0.05  # texts differ


def test_embeddings_are_those_of_python(page, exported):
    wanted = run_graph(exported[1], "sentence_embedding")
    assert_close(np.array(call(page, "embed")), wanted, 0.06)
    assert wanted.std(0).max() > 0.2 and np.linalg.norm(wanted, axis=1).min() > 2  # not of length 1


def test_a_text_is_classified_by_keyboard(page, exported):
    first = read(page, "#first")
    page.press("Tab")
    page.type(TEXTS[4])
    page.press("Tab")
    before = read(page, "#scores")
    page.press("Enter")
    page.wait(f"document.querySelector('#scores').textContent !== {json.dumps(before[0])}")
    scores = scores_of(run_graph(exported[0], "logits")[4])
    best = np.argsort(-scores)[:5]
    assert read(page, "#scores li span:first-child") == [LABELS[index] for index in best]
    shown = [float(text.removesuffix("%")) for text in read(page, "#scores li span:last-child")]
    assert np.allclose(shown, 100 * scores[best], atol=3)
    size = (exported[0] / "onnx" / "model_quantized.onnx").stat().st_size / 1e6
    assert read(page, "#classifier-size") == [f"{size:.1f} MB"] and read(page, "#first") == first
    assert re.fullmatch(r"\d+\.\d s", first[0]) and re.fullmatch(r"\d+ ms", *read(page, "#last"))


def test_lines_are_compared_by_keyboard(page, exported):
    for _ in range(3):
        page.press("Tab")
    page.type(f"{TEXTS[2]}\n\n{TEXTS[9]}\n{TEXTS[27]}\n")  # lines without text are left out
    page.press("Tab")
    page.press("Enter")
    page.wait("document.querySelectorAll('#similarities tr').length === 4")
    rows = [f"1  {TEXTS[2]}", f"2  {TEXTS[9]}", f"3  {TEXTS[27]}"]
    assert read(page, "#similarities th[scope=row]") == rows and read(page, "#similarities th[scope=col]") == [*"123"]
    embeddings = run_graph(exported[1], "sentence_embedding")[[2, 9, 27]]
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    shown = np.array(read(page, "#similarities tr td + td, #similarities th + td"), dtype=float).reshape(3, 3)
    assert np.allclose(shown, embeddings @ embeddings.T, atol=0.011) and (shown.diagonal() == 1).all()
    size = (exported[1] / "onnx" / "model_quantized.onnx").stat().st_size / 1e6
    assert read(page, "#embedder-size") == [f"{size:.1f} MB"]


def test_all_files_come_from_the_server(page, address):
    loaded = page.run("performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert all(name.startswith(address) for name in loaded)
    assert f"{address}lib/ort-wasm-simd-threaded.wasm" in loaded


def test_the_library_refuses_the_models_own_type(browser, exported, tmp_path):
    """This is why the served copy says `bert`; the folder itself does not."""
    with serve(exported, tmp_path) as address:
        config = tmp_path / "models" / "classifier" / "config.json"
        own, served = json.loads((exported[0] / "config.json").read_text()), json.loads(config.read_text())
        assert own["model_type"] == "efficientbert" and served == own | {"model_type": "bert"}
        config.write_text(json.dumps(own))
        browser.open(address)
        browser.wait("document.querySelector('#similarities table')")
        assert read(browser, "#scores") == ["Unsupported model type: efficientbert"]


def test_a_model_that_takes_anothers_name_is_used_at_once(browser, exported, tmp_path):
    labels = "[...document.querySelectorAll('#scores li span:first-child')].map((one) => one.textContent)"
    with serve(exported, tmp_path) as address:
        config = tmp_path / "models" / "classifier" / "config.json"
        os.utime(config, (0, 0))  # a browser keeps an old file for long, unless it is told to ask
        browser.open(address)
        assert set(browser.wait(f"{labels}.length && {labels}")) < set(LABELS.values())
        browser.open("about:blank")  # the same address again would be a reload, which asks for all files
        served = json.loads(config.read_text())
        config.write_text(json.dumps(served | {"id2label": {index: f"new {index}" for index in LABELS}}))
        browser.open(address)
        assert set(browser.wait(f"{labels}.length && {labels}")) < {f"new {index}" for index in LABELS}


def test_a_file_that_is_not_there_is_named(exported, tmp_path):
    command = [sys.executable, EXAMPLE / "serve.py", exported[0], tmp_path, "--site", tmp_path / "site"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(
        f"error: {tmp_path}/config.json is not there; README.md says what makes it"
    )
