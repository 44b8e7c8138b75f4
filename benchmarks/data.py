"""How fast text is read, cut to tokens, packed and collated, and in how much memory, for two sizes of a corpus.

    python benchmarks/data.py --teacher ../shared/models/gte-small --corpus ../shared/data/wikipedia \
        --output benchmarks/data

Every run is a process of its own. Cached runs begin with an empty cache and are read a second time as training reads
them, in random order.
"""

import dataclasses
import multiprocessing
import os
import resource
import shlex
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
from torch.utils.data import DataLoader
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from efficientbert.search.costs.machine import describe_machine
from efficientbert.train.cli.command import run_command
from efficientbert.train.cli.errors import InputError
from efficientbert.train.engine.order import EpochSampler, Stream
from efficientbert.train.files.writing import write_json
from efficientbert.train.text.corpus import cut_documents, load_documents
from efficientbert.train.text.packing import PackingCollator, pack_sequences


@dataclass
class DataArguments:
    """Times the way of text from files to packed batches; writes OUTPUT.json and OUTPUT.md."""

    teacher: str = field(metadata={"help": "Hub id or folder of the tokenizer."})
    corpus: str = field(metadata={"help": "Folder with parquet files named train-*."})
    output: str = field(metadata={"help": "Path of the results, without ending."})
    few: int = field(default=2, metadata={"help": "Files of the smaller corpus; the larger has all."})
    modes: list[str] = field(default_factory=lambda: ["streaming", "cached"], metadata={"help": "streaming, cached."})
    text_column: str = field(default="text", metadata={"help": "Column with the documents."})
    batch_size: int = field(default=16, metadata={"help": "Rows of a batch."})
    length: int = field(default=128, metadata={"help": "Tokens of a full row."})
    read_batches: int = field(default=2000, metadata={"help": "Batches to read again from the cache."})


class MemoryWatch:
    """Largest anonymous memory of this process while it is open, in MB: what files map in does not count."""

    def __enter__(self) -> "MemoryWatch":
        self.peak = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            lines = Path("/proc/self/status").read_text().splitlines()
            kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
            self.peak = max(self.peak, kilobytes / 1e3)

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def run(args: DataArguments, files: list[str], streaming: bool, cache: str) -> dict[str, float]:
    """One way through one corpus."""
    datasets.config.HF_DATASETS_CACHE = Path(cache)
    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(args.teacher)
    folder = Path(cache) / "corpus"
    folder.mkdir()
    for file in files:
        (folder / Path(file).name).symlink_to(Path(file).resolve())
    with MemoryWatch() as memory:
        start, cpu_start = time.perf_counter(), time.process_time()
        documents = load_documents(str(folder), None, "train", args.text_column, streaming)
        sequences = cut_documents(documents, args.text_column, tokenizer, args.length)
        rows = pack_sequences(sequences, args.length)
        found = {"megabytes_of_files": sum(os.path.getsize(file) for file in files) / 1e6}
        if streaming:
            found |= read(DataLoader(Stream(rows), args.batch_size, collate_fn=collator(tokenizer)), start)
            found["cpu_seconds"] = time.process_time() - cpu_start
        else:
            seconds = time.perf_counter() - start
            found |= {"rows": len(rows), "seconds": seconds, "cpu_seconds": time.process_time() - cpu_start}
            sampler = EpochSampler(len(rows), seed=0)
            loader = DataLoader(rows, args.batch_size, sampler=sampler, collate_fn=collator(tokenizer))
            again = read(zip(range(args.read_batches), loader), time.perf_counter())
            found["filled"] = again["filled"]
            found["tokens"] = len(rows) * args.length * again["filled"]
            found["tokens_per_second"] = found["tokens"] / seconds
            found["cached_tokens_per_second"] = again["tokens_per_second"]
    found["peak_anonymous_mb"] = memory.peak
    found["peak_resident_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return found


def collator(tokenizer: PreTrainedTokenizerBase) -> PackingCollator:
    """The collator of packed rows."""
    return PackingCollator(tokenizer.pad_token_id)


def read(batches: Iterable, start: float) -> dict[str, float]:
    """Tokens a second since `start`, and the part of all places in the batches that holds a token."""
    tokens = places = rows = 0
    for batch in batches:
        mask = (batch[1] if isinstance(batch, tuple) else batch)["attention_mask"]
        tokens, places, rows = tokens + int(mask.sum()), places + mask.numel(), rows + len(mask)
    seconds = time.perf_counter() - start
    return {
        "rows": rows,
        "tokens": tokens,
        "seconds": seconds,
        "filled": tokens / places,
        "tokens_per_second": tokens / seconds,
    }


def table(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        f"Text to packed batches of {result['arguments']['batch_size']} rows of "
        f"{result['arguments']['length']} tokens, one thread; load average "
        f"{result['load_average']['before']:.1f} before and "
        f"{result['load_average']['after']:.1f} after. Anonymous memory leaves out what files map in.",
        "",
        f"`{result['command']}`",
        "",
        "| way | files, MB | million tokens | tokens a second | tokens a second of CPU time | "
        "read again, tokens a second | places filled | peak anonymous memory, MB | peak resident memory, MB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for found in result["runs"]:
        again = found.get("cached_tokens_per_second")
        cells = (
            found["mode"],
            f"{found['megabytes_of_files']:.0f}",
            f"{found['tokens'] / 1e6:.1f}",
            f"{found['tokens_per_second']:,.0f}",
            f"{found['tokens'] / found['cpu_seconds']:,.0f}",
            f"{again:,.0f}" if again else "–",
            f"{found['filled']:.1%}",
            f"{found['peak_anonymous_mb']:.0f}",
            f"{found['peak_resident_mb']:.0f}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def main(args: DataArguments) -> None:
    """Measures and writes."""
    files = sorted(map(str, Path(args.corpus).glob("train-*.parquet")))
    if len(files) <= args.few:
        raise InputError(
            f"corpus {args.corpus}: has {len(files)} files train-*.parquet; more than {args.few} are needed"
        )
    load_before, runs = os.getloadavg()[0], []
    for mode in args.modes:
        for chosen in (files[: args.few], files):
            pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
            with tempfile.TemporaryDirectory() as cache, pool:
                found = pool.submit(run, args, chosen, mode == "streaming", cache).result()
            runs.append({"mode": mode, "files": len(chosen)} | found)
            print(runs[-1], flush=True)
    result = {
        "command": f"python benchmarks/data.py {shlex.join(sys.argv[1:])}",
        "machine": describe_machine(),
        "load_average": {"before": load_before, "after": os.getloadavg()[0]},
        "arguments": dataclasses.asdict(args),
        "runs": runs,
    }
    write_json(Path(args.output + ".json"), result)
    Path(args.output + ".md").write_text(table(result), encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    run_command(main, DataArguments, "data")
