"""Sentence embeddings: text, losses, what is saved and how it is loaded, resuming, scoring, what is refused."""

import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from scipy.stats import pearsonr, spearmanr
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Dropout, Normalize, Pooling, Transformer
from torch import nn
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from efficientbert.train import embed
from efficientbert.train.cli.command import run_command
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation import embeddings
from efficientbert.train.distillation.embeddings import (
    EmbeddingDistillation,
    EmbeddingTeacher,
    cosine_distance,
    embedding_variance,
    load_embedder,
    pair_cosines,
    pool,
    squared_error,
    start_dense,
)
from efficientbert.train.metrics import compute_metric
from efficientbert.train.model_folder.record import read_provenance
from efficientbert.train.text.passages import SHORTEST, cut_passages, passages


TEXTS = ["word1 word2 word3", "word4", "word5 word6 word7 word8 word9 word10 word11 word12", "word2 word1"]


@pytest.fixture(scope="module")
def embedder(teacher_folder, tmp_path_factory):
    """Gives the folder of a tiny embedder made of a pooling and further modules."""

    def make(pooling: str = "mean", *modules: nn.Module) -> str:
        path = tmp_path_factory.mktemp("embedder") / "teacher"
        first = Transformer(teacher_folder(), max_seq_length=40)
        model = SentenceTransformer(modules=[first, Pooling(24, pooling), *modules], device="cpu")
        model.save(str(path), create_model_card=False)
        return str(path)

    return make


@pytest.fixture(scope="module")
def teacher(embedder) -> str:
    """Folder of a tiny embedder with mean pooling and vectors of length 1."""
    return embedder("mean", Normalize())


@pytest.fixture(scope="module")
def sentences(tmp_path_factory) -> str:
    """A text file of 60 documents of 3 to 8 sentences of 4 to 9 words."""
    rng = random.Random(3)

    def sentence() -> str:
        return " ".join(f"word{rng.randrange(60)}" for _ in range(rng.randint(4, 9))) + "."

    lines = [" ".join(sentence() for _ in range(rng.randint(3, 8))) for _ in range(60)]
    path = tmp_path_factory.mktemp("sentences") / "sentences.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def arguments(teacher: str, corpus: str, student: str, output: Path, *more: str) -> list[str]:
    right = {"--teacher": teacher, "--corpus": corpus, "--student": student, "--output_dir": str(output)}
    right |= {"--max_length": "24", "--held_out": "16", "--init_sequences": "64", "--batch_size": "8"}
    right |= {"--max_steps": "6", "--checkpoint_steps": "2", "--learning_rate": "3e-3"}
    return [*(word for flag, value in right.items() if flag not in more for word in (flag, value)), *more]


def call(*argv: str) -> None:
    run_command(embed.main, embed.EmbedArguments, "embed", list(map(str, argv)))


def refused(capsys, *argv: str) -> str:
    with pytest.raises(SystemExit) as ended:
        call(*argv)
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert ended.value.code == 2 and error.startswith("efficientbert embed: error: ")
    return error


@pytest.fixture(scope="module")
def distilled(teacher, sentences, student_file, tmp_path_factory) -> Path:
    """Folder of a tiny student of the tiny embedder."""
    output = tmp_path_factory.mktemp("distilled") / "out"
    call(*arguments(teacher, sentences, student_file, output))
    return output


def test_passages_are_literal_excerpts_and_lose_nothing():
    text = "One two. Three four!  Five?\nSix seven\n\n 八九。十。 Mr. Ten said 3.14 twice. " + "More of it. " * 20
    found = passages(text)
    assert all(passage in text and passage == passage.strip() for passage in found)
    assert "".join("".join(found).split()) == "".join(text.split())
    counts = {passage.count("More of it.") for passage in found}
    assert {1, 2, 4} <= counts and max(counts) == 4
    assert found == passages(text)
    assert passages("") == passages(" \n ") == []
    assert passages("no end") == ["no end"]


def test_boundaries():
    """With one sentence to a passage at most of the turns, every boundary shows somewhere."""
    found = {text for start in range(40) for text in passages(f"{start} a. B c? D!\nE f\n八。十。3.14 g")}
    assert {"B c?", "D!", "E f", "八。", "十。", "3.14 g"} <= found


def test_first_sentences_are_not_always_alone():
    alone = [len(passages(f"Item {index}. Then. And. So. On.")[0].split(". ")) == 1 for index in range(50)]
    assert 10 < sum(alone) < 50


@pytest.mark.parametrize("streaming", [False, True])
def test_cut_passages_keeps_all_tokens(streaming, teacher):
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    text = " ".join(f"word{index}" for index in range(30)) + ". word1 word2 word3 word4. word5."
    documents = Dataset.from_dict({"text": [text, " ", "", "word1 word2."], "other": [1, 2, 3, 4]})
    rows = list(cut_passages(documents.to_iterable_dataset() if streaming else documents, "text", tokenizer, 12))
    assert all(row.keys() == {"input_ids", "length"} and row["length"] == len(row["input_ids"]) for row in rows)
    assert all(SHORTEST <= row["length"] <= 12 for row in rows)
    words = [word for row in rows for word in tokenizer.convert_ids_to_tokens(row["input_ids"])]
    assert [word for word in words if word.startswith("word")][:30] == [f"word{index}" for index in range(30)]
    assert words.count("[CLS]") == words.count("[SEP]") == len(rows)


def test_documents_that_are_no_text_are_named(teacher):
    documents = Dataset.from_dict({"text": [1, 2]})
    with pytest.raises(InputError, match="corpus 'books': row 0: 'text' is 1, not a text"):
        cut_passages(documents, "text", AutoTokenizer.from_pretrained(teacher), 12, "books")
    documents = Dataset.from_dict({"text": [None, "word1 word2 word3."]})
    assert len(cut_passages(documents, "text", AutoTokenizer.from_pretrained(teacher), 12, "books")) == 1


def test_pooling_ignores_padding():
    states = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [100.0, 100.0]]]).to(torch.bfloat16)
    mask = torch.tensor([[1, 1, 0]])
    torch.testing.assert_close(pool(states, mask, "mean"), torch.tensor([[2.0, 3.0]]))
    torch.testing.assert_close(pool(states, mask, "cls"), torch.tensor([[1.0, 2.0]]))


def test_losses_in_closed_form():
    student = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0], [-1.0, 0.0]])
    theirs = torch.tensor([[5.0, 0.0], [1.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    distances = [0.0, 1.0, 1 - 0.5**0.5, 2.0]
    errors = [4.5, 5.0, 0.5, 4.5]
    assert cosine_distance(student, theirs, 4).item() == pytest.approx(sum(distances) / 4, abs=1e-6)
    assert squared_error(student, theirs, 4).item() == pytest.approx(sum(errors) / 4, abs=1e-6)
    objective = EmbeddingDistillation(None, 0.5, cosine_weight=3.0, mse_weight=0.25)
    loss, terms = objective.loss(student, theirs, 4)
    assert terms["mse"].item() == pytest.approx(sum(errors) / 2, abs=1e-5)
    assert loss.item() == pytest.approx(0.75 * sum(distances) + 0.125 * sum(errors), abs=1e-5)
    # However a batch is cut, the parts add up to it.
    parts = [objective.loss(student[cut], theirs[cut], 4)[0] for cut in (slice(0, 1), slice(1, 4))]
    torch.testing.assert_close(sum(parts), loss)


def test_variance_is_the_error_of_the_best_constant():
    embeddings = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)) + 5
    expected = embeddings.double().numpy().var(axis=0).mean()
    assert embedding_variance([embeddings[:7], embeddings[7:]]) == pytest.approx(expected)
    constant = embeddings.mean(0).expand_as(embeddings)
    assert squared_error(constant, embeddings, 40).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", ["bare", "mean", "cls", "dense"])
def test_a_teacher_gives_what_sentence_transformers_gives(kind, teacher_folder, embedder):
    torch.manual_seed(1)
    name = {
        "bare": teacher_folder,
        "mean": lambda: embedder("mean", Normalize()),
        "cls": lambda: embedder("cls"),
        "dense": lambda: embedder("mean", Dense(24, 10), Normalize()),
    }[kind]()
    model = load_embedder(name, "cpu", "teacher")
    ours = EmbeddingTeacher(model, name)
    found = ours(ours.tokenizer(TEXTS, padding=True, return_tensors="pt"))
    assert found.shape == (4, ours.size) and ours.size == (10 if kind == "dense" else 24)
    if ours.normalizes:
        assert not torch.allclose(found.norm(dim=-1), torch.ones(4), atol=1e-2)
        found = nn.functional.normalize(found, dim=-1)
    for text, embedding in zip(TEXTS, found):
        torch.testing.assert_close(embedding, model.encode(text, convert_to_tensor=True), rtol=0, atol=1e-5)
    assert ours.pooling == ("cls" if kind == "cls" else "mean")


def test_the_last_linear_starts_as_the_teachers_linears_behind_the_projection(embedder):
    torch.manual_seed(2)
    name = embedder("mean", Dense(24, 10, activation_function=nn.Identity()), Dense(10, 7, bias=False))
    ours = EmbeddingTeacher(load_embedder(name, "cpu", "teacher"), name)
    projection, dense = nn.Linear(18, 24), nn.Linear(18, 7)
    start_dense(dense, projection, ours, Path("efficientbert-tiny"))
    states = torch.randn(5, 18)
    expected = ours.linears[1](ours.linears[0](projection(states)))
    torch.testing.assert_close(dense(states), expected)


@pytest.mark.parametrize("kind", ["mean", "cls", "dense"])
def test_the_saved_folder_embeds_as_the_student_did(kind, embedder, sentences, student_file, tmp_path, monkeypatch):
    torch.manual_seed(3)
    more = {"mean": [Normalize()], "cls": [], "dense": [Dense(24, 10), Normalize()]}[kind]
    name = embedder("cls" if kind == "cls" else "mean", *more)
    students = []
    real = embeddings.save_embedder
    monkeypatch.setattr(embeddings, "save_embedder", lambda *given: (students.append(given[1]), real(*given)))
    call(*arguments(name, sentences, student_file, tmp_path / "out"))
    (student,) = students
    loaded = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    kinds = ["Transformer", "Pooling", "Dense", *(["Normalize"] if kind != "cls" else [])]
    assert [type(module).__name__ for module in loaded] == kinds
    assert loaded.max_seq_length == 40 and loaded.get_embedding_dimension() == (10 if kind == "dense" else 24)
    tokenizer = AutoTokenizer.from_pretrained(name)
    with torch.no_grad():
        alone = torch.cat([student.eval()(**_inputs(tokenizer, [text])) for text in TEXTS])
        padded = student(**_inputs(tokenizer, TEXTS))
    if kind != "cls":
        alone, padded = nn.functional.normalize(alone, dim=-1), nn.functional.normalize(padded, dim=-1)
    torch.testing.assert_close(padded, alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(loaded.encode(TEXTS, convert_to_tensor=True), alone, rtol=0, atol=1e-5)
    for text, embedding in zip(TEXTS, alone):
        torch.testing.assert_close(loaded.encode(text, convert_to_tensor=True), embedding, rtol=0, atol=1e-5)


def _inputs(tokenizer, texts: list[str]) -> dict[str, torch.Tensor]:
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


def test_the_folder_is_a_checkpoint_too(distilled, teacher):
    model = AutoModel.from_pretrained(distilled)
    embedder = SentenceTransformer(str(distilled), device="cpu")
    batch = _inputs(AutoTokenizer.from_pretrained(distilled), TEXTS)
    with torch.no_grad():
        torch.testing.assert_close(model(**batch).last_hidden_state, embedder[0].model(**batch).last_hidden_state)
    assert AutoModelForSequenceClassification.from_pretrained(distilled, num_labels=3).config.num_labels == 3
    (step,) = read_provenance(distilled)
    assert step["step"] == "embed" and step["result"].keys() == {"loss", "cosine", "mse"}
    card = (distilled / "README.md").read_text(encoding="utf-8")
    assert "pipeline_tag: sentence-similarity" in card and "library_name: sentence-transformers" in card
    assert 'SentenceTransformer("out")' in card and "How it was made" in card
    assert not distilled.with_name("out.partial").exists()


def test_the_folder_loads_without_the_package(distilled, fresh, tmp_path):
    """With the code that lies beside the weights."""
    program = "from sentence_transformers import SentenceTransformer\n"
    program += "model = SentenceTransformer(sys.argv[1], trust_remote_code=True, device='cpu')\n"
    program += "print(model.encode(sys.argv[2:]).tolist())\nassert 'efficientbert' not in sys.modules"
    code, stdout, stderr = fresh(program, distilled, *TEXTS, HF_MODULES_CACHE=str(tmp_path))
    assert code == 0, stderr
    expected = SentenceTransformer(str(distilled), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(json.loads(stdout.splitlines()[-1]), expected, rtol=0, atol=1e-5)


def test_distillation_brings_the_embeddings_nearer(teacher, sentences, student_file, tmp_path):
    results = []
    for steps in ("0", "80"):
        more = ["--max_steps", steps, "--initialization", "random"]
        call(*arguments(teacher, sentences, student_file, tmp_path / steps, *more))
        results.append(read_provenance(tmp_path / steps)[0]["result"])
    before, after = results
    assert after["mse"] < 0.7 * before["mse"] and after["loss"] < 0.7 * before["loss"]
    assert 1 - after["cosine"] < 0.7 * (1 - before["cosine"])
    # The figure in the record is that of the folder, in the teacher's own space.
    ours, theirs = (SentenceTransformer(str(path), device="cpu") for path in (tmp_path / "80", teacher))
    documents = Dataset.from_dict({"text": Path(sentences).read_text(encoding="utf-8").splitlines()})
    rows = list(cut_passages(documents, "text", theirs.tokenizer, 24))[:16]
    texts = [theirs.tokenizer.decode(row["input_ids"], skip_special_tokens=True) for row in rows]
    if all(theirs.tokenizer(text)["input_ids"] == row["input_ids"] for text, row in zip(texts, rows)):
        cosines = (ours.encode(texts) * theirs.encode(texts)).sum(-1)
        assert cosines.mean() == pytest.approx(after["cosine"], abs=1e-4)


PROMPTS = {"query": "word7 word8 ", "document": "word9 "}


@pytest.fixture(scope="module")
def prompted(teacher, tmp_path_factory) -> str:
    """Folder of the tiny embedder with a default prompt and another."""
    path = tmp_path_factory.mktemp("prompted") / "teacher"
    model = SentenceTransformer(teacher, prompts=PROMPTS, default_prompt_name="query", device="cpu")
    model.save(str(path), create_model_card=False)
    return str(path)


def test_a_student_keeps_the_prompts_of_its_teacher_and_learns_the_default(
    prompted, sentences, student_file, tmp_path, capsys
):
    call(*arguments(prompted, sentences, student_file, tmp_path / "out"))
    said = "passages are embedded behind its default prompt 'word7 word8 '; its prompts 'document' are kept, but"
    assert said in capsys.readouterr().out
    ours, theirs = (SentenceTransformer(str(path), device="cpu") for path in (tmp_path / "out", prompted))
    assert (ours.prompts, ours.default_prompt_name) == (PROMPTS, "query")
    np.testing.assert_allclose(ours.encode("word1"), ours.encode("word7 word8 word1", prompt=""), rtol=0, atol=1e-6)

    documents = Dataset.from_dict({"text": Path(sentences).read_text(encoding="utf-8").splitlines()})
    rows = list(cut_passages(documents, "text", theirs.tokenizer, 24, prompt=PROMPTS["query"]))
    prompt = theirs.tokenizer(PROMPTS["query"], add_special_tokens=False)["input_ids"]
    assert all(row["input_ids"][1:3] == prompt and len(row["input_ids"]) <= 24 for row in rows)
    texts = [theirs.tokenizer.decode(row["input_ids"][3:-1]) for row in rows[:16]]
    cosines = (ours.encode(texts) * theirs.encode(texts)).sum(-1)
    assert cosines.mean() == pytest.approx(read_provenance(tmp_path / "out")[0]["result"]["cosine"], abs=1e-4)


def test_prompts_that_students_cannot_have_are_refused(prompted, sentences, student_file, tmp_path, capsys):
    model = SentenceTransformer(prompted, prompts={"long": "word1 " * 9}, default_prompt_name="long", device="cpu")
    model.save(str(tmp_path / "long"), create_model_card=False)
    words = arguments(str(tmp_path / "long"), sentences, student_file, tmp_path / "out", "--max_length", "13")
    error = refused(capsys, *words)
    assert error.endswith(f"must be at least 14 with the teacher's default prompt {'word1 ' * 9!r}, not 13")
    model = SentenceTransformer(prompted, device="cpu")
    model.set_pooling_include_prompt(False)
    model.save(str(tmp_path / "outside"), create_model_card=False)
    error = refused(capsys, *arguments(str(tmp_path / "outside"), sentences, student_file, tmp_path / "out"))
    assert error.endswith("its Pooling leaves out the default prompt 'word7 word8 ', which students cannot")


def test_goes_on_from_an_embedder_with_its_last_linear(distilled, teacher, sentences, tmp_path):
    call(*arguments(teacher, sentences, str(distilled), tmp_path / "next", "--max_steps", "0"))
    for name in ("model.safetensors", "2_Dense/model.safetensors"):
        one, other = load_file(distilled / name), load_file(tmp_path / "next" / name)
        assert one.keys() == other.keys() and all(torch.equal(tensor, other[key]) for key, tensor in one.items())
    assert [step["step"] for step in read_provenance(tmp_path / "next")] == ["embed", "embed"]


def test_streaming(teacher, sentences, student_file, tmp_path):
    call(*arguments(teacher, sentences, student_file, tmp_path / "out", "--streaming", "true"))
    assert (tmp_path / "out" / "modules.json").exists()


def test_killed_and_started_again_gives_the_same(distilled, teacher, sentences, student_file, kill_behind, tmp_path):
    again = arguments(teacher, sentences, student_file, tmp_path / "out")
    kill_behind(4, "embed", *again)
    assert not (tmp_path / "out").exists() and (tmp_path / "out.partial" / "checkpoints").exists()
    call(*again)
    for name in ("model.safetensors", "2_Dense/model.safetensors"):
        one, other = load_file(distilled / name), load_file(tmp_path / "out" / name)
        assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())


def test_similarity_is_scored_as_scipy_does(embedder):
    teacher = embedder("mean")  # of vectors of any length
    rng = random.Random(5)
    rows = []
    for _ in range(30):
        texts = [" ".join(f"word{rng.randrange(60)}" for _ in range(rng.randint(1, 12))) for _ in range(2)]
        rows.append({"a": texts[0], "b": texts[1], "score": rng.choice([0, 1.5, 2, 3.25, 5])})
    model = SentenceTransformer(teacher, device="cpu")
    cosines = []
    for row in rows:
        one, other = (model.encode(row[name]).astype(np.float64) for name in "ab")
        cosines.append(one @ other / np.sqrt((one @ one) * (other @ other)))
    labels = [row["score"] for row in rows]
    expected = {"pearson": pearsonr(cosines, labels).statistic, "spearmanr": spearmanr(cosines, labels).statistic}
    for given in (rows, Dataset.from_list(rows)):
        found_cosines, numbers = pair_cosines(teacher, given, ("a", "b", "score"), "d.csv", 8, "cpu")
        found = compute_metric("stsb", found_cosines, numbers)
        assert found == pytest.approx(expected, abs=1e-5)
    assert abs(expected["pearson"]) > 1e-3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"score": "high"}, "data 'd.csv': row 1: 'score' is 'high', no finite number"),
        ({"score": float("nan")}, "data 'd.csv': row 1: 'score' is nan, no finite number"),
        ({"a": 7}, "data 'd.csv': row 1: 'a' is 7, not a text"),
    ],
)
def test_bad_pairs_are_refused(change, words, teacher):
    rows = [{"a": "word1", "b": "word2", "score": 1.0}, {"a": "word1", "b": "word3", "score": 2.0} | change]
    with pytest.raises(InputError, match=words):
        pair_cosines(teacher, rows, ("a", "b", "score"), "d.csv", 8, "cpu")


def test_what_cannot_be_scored_is_refused(teacher):
    rows = [{"a": "word1", "b": "word2", "score": 1.0}, {"a": "word1", "b": "word3", "score": 2.0}]
    with pytest.raises(InputError, match=r"data 'd.csv': row 0: no column 'd'; it has 'a', 'b', 'score'"):
        pair_cosines(teacher, rows, ("a", "d", "score"), "d.csv", 8, "cpu")
    with pytest.raises(InputError, match=r"data 'd.csv': a correlation needs at least 2 rows, not 1"):
        pair_cosines(teacher, rows[:1], ("a", "b", "score"), "d.csv", 8, "cpu")
    with pytest.raises(InputError, match="model 'nowhere/here': cannot be loaded"):
        pair_cosines("nowhere/here", rows, ("a", "b", "score"), "d.csv", 8, "cpu")


def test_the_package_must_be_there(teacher, sentences, student_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    error = refused(capsys, *arguments(teacher, sentences, student_file, tmp_path / "out"))
    assert "pip install 'efficientbert[embeddings]'" in error and not list(tmp_path.iterdir())


def test_foreign_parts_are_refused(embedder, sentences, student_file, tmp_path, capsys):
    error = refused(capsys, *arguments(embedder("max"), sentences, student_file, tmp_path / "out"))
    assert "pools by 'max'; students can pool by mean or cls" in error
    odd = embedder("mean", Dropout(0.1))
    error = refused(capsys, *arguments(odd, sentences, student_file, tmp_path / "out"))
    assert "only Dense and Normalize are known, not 'Dropout'" in error
    assert not list(tmp_path.iterdir())


def test_a_student_of_another_tokenizer_is_refused(distilled, teacher, sentences, tmp_path, capsys):
    other = tmp_path / "other"
    AutoModel.from_pretrained(distilled).save_pretrained(other)
    AutoTokenizer.from_pretrained(distilled).save_pretrained(other)
    text = (other / "tokenizer.json").read_text(encoding="utf-8")
    swapped = text.replace('"word3": 8', '"word3": -1').replace('"word4": 9', '"word4": 8').replace(": -1", ": 9")
    assert swapped != text
    (other / "tokenizer.json").write_text(swapped, encoding="utf-8")
    error = refused(capsys, *arguments(teacher, sentences, str(other), tmp_path / "out"))
    assert f"is not that of teacher {teacher!r}: token 'word3' is 9 here and 8 there" in error
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--max_length", "41"], "between 8 and the 40 tokens of teacher"),
        (["--cosine_weight", "0", "--mse_weight", "0"], "there is nothing to learn"),
        (["--mse_weight", "-1"], "mse_weight: must be at least 0, not -1.0"),
        (["--held_out", "0"], "held_out: must be at least 2, not 0"),
        (["--held_out", "5000"], "too few"),
        (["--packing", "true"], "packing: is not for embeddings"),
        (["--initialization", "none"], "initialization: must be teacher or random, not 'none'"),
        (["--student", "nowhere/here"], "student 'nowhere/here': no preset, config.json or checkpoint"),
        (["--teacher", "nowhere/here"], "teacher 'nowhere/here': cannot be loaded"),
    ],
)
def test_bad_arguments_are_refused(more, words, teacher, sentences, student_file, tmp_path, capsys):
    assert words in refused(capsys, *arguments(teacher, sentences, student_file, tmp_path / "out", *more))
    assert not list(tmp_path.iterdir())
