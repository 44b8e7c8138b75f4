"""The checkpoints that ship: what is in their folders, and that they load, agree and tell texts apart."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from efficientbert.train.model_folder.upload import check_loads
from efficientbert.train.model_folder.upload_check import CODE_FILES, check_complete


ROOT = Path(__file__).parents[1]
FOLDERS = sorted(path for path in (ROOT / "checkpoints").iterdir() if path.is_dir())
TRIPLES = [  # the second text says what the first one does, the third does not
    ("A cat sleeps on the sofa.", "A kitten is napping on a couch.", "The bank raised its interest rates."),
    ("The film was a great success.", "The movie did very well.", "The river flows into the North Sea."),
    ("He was born in Vienna in 1902.", "His birthplace is Vienna.", "Enzymes speed up chemical reactions."),
    ("How do I reset my password?", "I forgot my password and need a new one.", "When does the train leave?"),
]


@pytest.fixture(params=FOLDERS, ids=lambda path: path.name)
def folder(request) -> Path:
    return request.param


def test_there_is_one():
    assert FOLDERS


def test_it_is_complete_and_small(folder):
    check_complete(folder)
    check_loads(folder)
    sizes = {path.relative_to(folder): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    graphs = sum(size for path, size in sizes.items() if path.parts[0] == "onnx")
    assert graphs <= 10e6 and sum(sizes.values()) - graphs <= 20e6
    for name in CODE_FILES:
        assert (folder / name).read_bytes() == (ROOT / name).read_bytes()
    assert all(tensor.dtype == torch.float16 for tensor in load_file(folder / "model.safetensors").values())
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"# {folder.name}\n" in card and "license: mit" in card and "base_model: thenlper/gte-small" in card


def test_it_loads_without_the_package(folder, fresh, tmp_path):
    program = "import torch\nfrom transformers import AutoModel, AutoTokenizer\n"
    program += "from sentence_transformers import SentenceTransformer\n"
    program += "embedder = SentenceTransformer(sys.argv[1], trust_remote_code=True, device='cpu')\n"
    program += "model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)\n"
    program += "tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True)\n"
    program += "batch = tokenizer(sys.argv[2:], padding=True, return_tensors='pt')\n"
    program += "with torch.no_grad():\n    states = model(**batch).last_hidden_state\n"
    program += "print([embedder.encode(sys.argv[2:]).tolist(), states[:, 0].tolist()])\n"
    program += "assert 'efficientbert' not in sys.modules and states.dtype == torch.float32"
    texts = TRIPLES[0]
    code, stdout, stderr = fresh(program, folder, *texts, HF_MODULES_CACHE=str(tmp_path))
    assert code == 0, stderr
    embeddings, states = json.loads(stdout.splitlines()[-1])
    expected = SentenceTransformer(str(folder), device="cpu").encode(list(texts))
    np.testing.assert_allclose(embeddings, expected, rtol=0, atol=1e-5)
    batch = AutoTokenizer.from_pretrained(folder)(list(texts), padding=True, return_tensors="pt")
    with torch.no_grad():
        found = AutoModel.from_pretrained(folder)(**batch).last_hidden_state[:, 0]
    np.testing.assert_allclose(states, found, rtol=0, atol=1e-5)


def test_it_tells_texts_apart_in_float32_and_int8(folder):
    texts = [text for triple in TRIPLES for text in triple]
    session = onnxruntime.InferenceSession(str(folder / "onnx" / "model_quantized.onnx"))
    batch = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="np")
    outputs = session.run(["sentence_embedding"], {given.name: batch[given.name] for given in session.get_inputs()})
    whole = SentenceTransformer(str(folder), device="cpu").encode(texts)
    whole /= np.linalg.norm(whole, axis=1, keepdims=True)
    small = outputs[0] / np.linalg.norm(outputs[0], axis=1, keepdims=True)
    assert (whole * small).sum(1).min() > 0.99
    for embeddings in (whole, small):
        first, second, other = (embeddings[start::3] for start in range(3))
        assert ((first * second).sum(1) > (first * other).sum(1) + 0.03).all()


def test_it_can_be_fine_tuned(folder):
    model, report = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2, output_loading_info=True)
    assert model.dtype == torch.float32 and all(key.startswith("classifier") for key in report["missing_keys"])
    batch = AutoTokenizer.from_pretrained(folder)([text for text, *_ in TRIPLES], padding=True, return_tensors="pt")
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    losses = []
    for _ in range(8):
        loss = model(**batch, labels=torch.tensor([0, 1, 1, 0])).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
