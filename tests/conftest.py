"""Shared by all tests: no network, tiny teachers, tokenizers and texts made in-process."""

import os


os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models gain nothing from threads, and lose where cores are shared

import base64
import gc
import hashlib
import json
import multiprocessing
import random
import runpy
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    DebertaV2Config,
    DebertaV2Model,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    MPNetConfig,
    MPNetModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

from efficientbert.commands import job_of
from efficientbert.search.compression import plan, preparation, scoring
from efficientbert.search.costs import latency
from efficientbert.search.known import choice
from efficientbert.train.cli.command import run_command
from efficientbert.train.engine import loop


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background of a shell
    signal.signal(signal.SIGINT, signal.default_int_handler)

WORDS = [f"word{index}" for index in range(60)]
FORK = multiprocessing.get_context("fork")
FRESH = multiprocessing.get_context("forkserver")
# What transformers imports of other libraries: it takes seconds.
FRESH.set_forkserver_preload(["torch._dynamo", "torch.distributed.tensor", "torch.distributed.fsdp", "scipy.optimize"])


def pytest_collection_finish() -> None:
    """What the imports made stays: searches collect garbage after every candidate, which then takes no time."""
    gc.freeze()


def make_tokenizer(roberta: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words; special tokens first, in the order of BERT or of RoBERTa."""
    special = (
        ["<s>", "<pad>", "</s>", "<unk>", "<mask>"] if roberta else ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    )
    start, end, pad, unk, mask = (0, 2, 1, 3, 4) if roberta else (2, 3, 0, 1, 4)
    vocabulary = {word: index for index, word in enumerate(special + WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=special[unk]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    first, second = special[start], special[end]
    pair = f"{first} $A {second} $B {second}" if roberta else f"{first} $A {second} $B:1 {second}:1"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {second}", pair=pair, special_tokens=[(first, start), (second, end)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        cls_token=first,
        sep_token=second,
        pad_token=special[pad],
        unk_token=special[unk],
        mask_token=special[mask],
        model_input_names=["input_ids", "attention_mask"] + ([] if roberta else ["token_type_ids"]),
    )


def make_teacher_model(family: str) -> PreTrainedModel:
    """A tiny random encoder of a family: 4 layers of width 24, 3 heads."""
    sizes = {"vocab_size": 5 + len(WORDS), "hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 3}
    sizes |= {"intermediate_size": 40, "max_position_embeddings": 64, "initializer_range": 0.3}
    offset = {"max_position_embeddings": 66, "pad_token_id": 1}
    torch.manual_seed(0)
    if family == "bert":
        return BertModel(BertConfig(**sizes), add_pooling_layer=False)
    if family == "roberta":
        return RobertaModel(RobertaConfig(**(sizes | offset | {"type_vocab_size": 1})), add_pooling_layer=False)
    if family == "electra":
        return ElectraModel(ElectraConfig(**sizes, embedding_size=16))
    if family == "mpnet":
        return MPNetModel(MPNetConfig(**(sizes | offset)), add_pooling_layer=False)
    if family == "distilbert":
        sizes = {"vocab_size": 5 + len(WORDS), "dim": 24, "n_layers": 4, "n_heads": 3, "hidden_dim": 40}
        return DistilBertModel(DistilBertConfig(**sizes, max_position_embeddings=64, initializer_range=0.3))
    return DebertaV2Model(DebertaV2Config(**sizes, relative_attention=True, pos_att_type=["c2p", "p2c"]))


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory):
    """Gives the folder of a tiny teacher of a family: bert, roberta, electra, mpnet, distilbert or deberta."""
    made: dict[str, str] = {}

    def folder(family: str = "bert") -> str:
        if family not in made:
            path = tmp_path_factory.mktemp(f"teacher-{family}")
            make_teacher_model(family).save_pretrained(path)
            make_tokenizer(roberta=family in ("roberta", "mpnet")).save_pretrained(path)
            made[family] = str(path)
        return made[family]

    return folder


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory) -> str:
    """A text file of 80 documents of 20 to 60 words, one a line."""
    rng = random.Random(0)
    lines = [" ".join(rng.choice(WORDS) for _ in range(rng.randint(20, 60))) for _ in range(80)]
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture(scope="session")
def task_file(tmp_path_factory) -> str:
    """A CSV with 64 rows of `text` and `label`: whether word0 stands first."""
    rng = random.Random(1)
    rows = ["text,label"]
    for index in range(64):
        rest = " ".join(rng.choice(WORDS[2:]) for _ in range(rng.randint(3, 9)))
        rows.append(f"{WORDS[index % 2]} {rest},{('yes', 'no')[index % 2]}")
    path = tmp_path_factory.mktemp("task") / "task.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture(scope="session")
def student_file(tmp_path_factory) -> str:
    """A config.json of a tiny student: 2 layers of width 18, 3 heads."""
    path = tmp_path_factory.mktemp("student") / "student.json"
    path.write_text(
        '{"hidden_size": 18, "num_hidden_layers": 2, "num_attention_heads": 3, "embedding_size": 8}', encoding="utf-8"
    )
    return str(path)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and teachers beside the repository; the test is skipped where there is none."""
    path = Path(__file__).parents[2] / "shared"
    if not path.exists():
        pytest.skip("needs ../shared, which is not here")
    return path


def run_forks(*jobs: Callable[[], object]) -> list[int]:
    processes = [FORK.Process(target=job) for job in jobs]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


@pytest.fixture(scope="session")
def forks():
    """Runs jobs side by side in processes of their own, which have imported all that this one has; exit codes."""
    return run_forks


@pytest.fixture(scope="session")
def ranks():
    """Runs a job in two processes that train together, without a launcher that ends one for the other; exit codes."""

    def run(job: Callable[[], object]) -> list[int]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]

        def as_rank(rank: int) -> None:
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            AcceleratorState._reset_state(True)  # of a test before
            job()

        return run_forks(lambda: as_rank(0), lambda: as_rank(1))

    return run


@pytest.fixture(scope="session")
def kill_behind():
    """Runs a command in a process that kills itself, as `kill -9` does, behind the checkpoint of a step."""

    def run(step: int, command: str, *words: object) -> None:
        save = loop.save_checkpoint

        def killed(accelerator, checkpoints, reached: int) -> None:
            save(accelerator, checkpoints, reached)
            if reached == step:
                os.kill(os.getpid(), signal.SIGKILL)

        def job() -> None:
            loop.save_checkpoint = killed
            run_command(*job_of(command), command, list(map(str, words)))

        assert run_forks(job) == [-signal.SIGKILL]

    return run


@pytest.fixture(scope="session")
def fresh(tmp_path_factory):
    """Runs a program in a process that has imported torch and scipy, nothing else; its exit code, stdout and stderr.

    Most of the time of a process that starts anew goes into these two.
    """

    def run(program: str, *words: object, **environment: str) -> tuple[int, str, str]:
        folder = tmp_path_factory.mktemp("fresh")
        outputs = [folder / name for name in ("stdout", "stderr")]
        started = f"""
import os, sys
for number, path in enumerate({list(map(str, outputs))}, 1):
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
os.environ.update({environment})
sys.argv[1:] = {list(map(str, words))}
# Code of models that this process has loaded is found through its path.
sys.path[:] = [place for place in sys.path if not os.path.isdir(os.path.join(place, "transformers_modules"))]
"""
        (folder / "program.py").write_text(started + program, encoding="utf-8")
        process = FRESH.Process(target=runpy.run_path, args=(str(folder / "program.py"),))
        process.start()
        process.join()
        return process.exitcode, *(path.read_text(encoding="utf-8") for path in outputs)

    return run


@pytest.fixture
def no_clock(monkeypatch):
    """Times are counts of numbers in parts, and few candidates are looked at."""

    def measure_parts(parts, base, settings) -> list[float]:
        return [0.1 + sum(map(int, part.split()[1:])) / 200 for part in parts]

    def measure_times(models, vocab_size, args, device) -> list[dict[int, list[float]]]:
        times = [40.0 if number == 0 else 10.0 + number for number, _ in enumerate(models)]
        return [{size: [time if size == 1 else 0.75 * size * time] for size in args.batch_sizes} for time in times]

    def measure_config_latency(configs, settings, rounds) -> list[float]:
        return [12.0 if settings.batch_size == 1 else 9.0 * settings.batch_size for _ in configs]

    monkeypatch.setattr(latency, "measure_parts", measure_parts)
    monkeypatch.setattr(latency.Latency.__init__, "__defaults__", (measure_parts,))
    monkeypatch.setattr(scoring, "measure_times", measure_times)
    monkeypatch.setattr(plan, "measure_config_latency", measure_config_latency)
    monkeypatch.setattr(preparation.psutil, "cpu_percent", lambda seconds: 50.0)
    monkeypatch.setattr(choice, "DRAWS", 8)
    monkeypatch.setattr(choice, "CANDIDATES", 16)
    monkeypatch.setattr(plan, "STEPS", 4)
    monkeypatch.setattr(scoring, "DRAWS", 50)


class Hub(ThreadingHTTPServer):
    """Keeps what is committed in `files`, by revision and path; paths with a part in `refuse` get that status."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.token = "hf_of_the_test"
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repos, self.branches, self.messages, self.large, self.files, self.refuse = {}, [], [], {}, {}, {}
        self.repositories, self.collections = {}, {}  # what is in each repository; notes by item, by slug

    @contextmanager
    def reachable(self):
        """Lets this very process talk to the server."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(huggingface_hub.constants, "ENDPOINT", self.url)
            patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
            patch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
            patch.setenv("HF_TOKEN", self.token)
            yield


class HubHandler(BaseHTTPRequestHandler):
    """Answers what `huggingface_hub` asks when it uploads."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, value, status=200, code=None):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refused(self):
        for part, status in self.server.refuse.items():
            if part in self.path:
                self.answer({"error": f"refused with {status}"}, status)
                return True
        if not self.path.startswith("/lfs/") and self.headers["Authorization"] != f"Bearer {self.server.token}":
            self.answer({"error": "Invalid username or password."}, 401)
            return True
        return False

    def do_GET(self):
        slug = self.path.removeprefix("/api/collections/")
        if slug in self.server.collections:
            self.answer(self.collection(slug))
        else:
            self.answer({"error": "Entry not found"}, 404, "EntryNotFound")

    do_HEAD = do_GET

    def collection(self, slug):
        items = [
            {"_id": name, "id": name, "type": "model", "position": index, "note": {"text": note}}
            for index, (name, note) in enumerate(self.server.collections[slug].items())
        ]
        owner = {"name": slug.split("/")[0]}
        said = {"slug": slug, "title": slug.split("/")[1], "owner": owner, "items": items, "position": 0}
        return said | {"lastUpdated": "2026-01-01T00:00:00Z", "private": False, "theme": "green", "upvotes": 0}

    def do_PUT(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.large[hashlib.sha256(content).hexdigest()] = content
        self.answer({})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.refused():
            return
        hub, path = self.server, self.path.split("?")[0]
        if path == "/api/repos/create":
            request = json.loads(body)
            name = f"{request['organization']}/{request['name']}"
            hub.repos[name] = request
            self.answer({"url": f"{hub.url}/{name}"})
        elif path == "/api/validate-yaml":
            text = json.loads(body)["content"]
            assert isinstance(yaml.safe_load(text.split("---")[1]), dict)
            self.answer({"errors": [], "warnings": []})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            actions = [{**o, "actions": {"upload": {"href": f"{hub.url}/lfs/{o['oid']}"}}} for o in objects]
            self.answer({"transfer": "basic", "objects": actions})
        elif "/preupload/" in path:
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for file in json.loads(body)["files"]
            ]
            self.answer({"files": modes})
        elif "/branch/" in path:
            hub.branches.append(path.split("/branch/")[1])
            self.answer({})
        elif "/commit/" in path:
            files = hub.files.setdefault(path.split("/commit/")[1], {})
            repository = hub.repositories[path.split("/commit/")[0].removeprefix("/api/models/")] = {}
            for line in body.splitlines():
                entry = json.loads(line)
                value = entry["value"]
                if entry["key"] == "header":
                    hub.messages.append(value["summary"])
                elif entry["key"] == "file":
                    repository[value["path"]] = files[value["path"]] = base64.b64decode(value["content"])
                elif entry["key"] == "lfsFile":
                    repository[value["path"]] = files[value["path"]] = hub.large[value["oid"]]
            self.answer({"commitUrl": f"{hub.url}/user/name/commit/1", "commitOid": "1" * 40})
        elif path == "/api/collections":
            request = json.loads(body)
            slug = f"{request['namespace']}/{request['title']}-1"
            there = slug in hub.collections
            hub.collections.setdefault(slug, {})
            self.answer(self.collection(slug), 409 if there else 200)
        elif path.startswith("/api/collections/") and path.endswith("/items"):
            items, request = hub.collections[path.split("/", 3)[3].removesuffix("/items")], json.loads(body)
            there = request["item"]["id"] in items
            items.setdefault(request["item"]["id"], request.get("note"))
            self.answer(self.collection(path.split("/", 3)[3].removesuffix("/items")), 409 if there else 200)
        else:
            self.answer({"error": f"unknown {path}"}, 404)


@pytest.fixture
def hub():
    """A server of the Hub's protocol on this machine; see `Hub`."""
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def in_process(hub):
    """Lets this very process talk to the server."""
    with hub.reachable():
        yield hub
