"""Makes the quickstart's data from English Wikipedia articles and the English part of XQuAD.

    python make_data.py WIKIPEDIA_FOLDER XQUAD_FOLDER

`data/wikipedia.parquet`: the first 8,000 characters of 400 articles. `data/answers/*.csv`: does this sentence answer
this question? One sentence that holds the answer and, for each, one from another paragraph of the same article. The
split is XQuAD's as found in the folder, by article.
"""

import random
import re
import sys
from pathlib import Path

from datasets import Dataset, load_dataset


DATA = Path(__file__).with_name("data")


def sentences(text: str) -> list[str]:
    """A paragraph cut behind full stops that a capital follows."""
    return [part.strip() for part in re.split(r"(?<=[.!?])\s+(?=[A-Z\"'(])", text) if part.strip()]


def answer_pairs(rows: Dataset, rng: random.Random) -> list[dict[str, str]]:
    """One right and one wrong sentence for every question."""
    by_title: dict[str, set[str]] = {}
    for row in rows:
        by_title.setdefault(row["title"], set()).add(row["context"])
    pairs = []
    for row in rows:
        answer = row["answers"]["text"][0]
        right = next((s for s in sentences(row["context"]) if answer in s), None)
        others = sorted(by_title[row["title"]] - {row["context"]})
        if right is None or not others:
            continue
        wrong = rng.choice([s for s in sentences(rng.choice(others)) if answer not in s] or [right])
        if wrong == right:
            continue
        pairs.append({"question": row["question"], "sentence": right, "label": "answer"})
        pairs.append({"question": row["question"], "sentence": wrong, "label": "no_answer"})
    return pairs


def main(wikipedia: str, xquad: str) -> None:
    """Writes both data sets."""
    articles = load_dataset(wikipedia, split="train[:400]")
    articles = articles.map(lambda row: {"text": row["text"][:8000]})
    articles.select_columns(["title", "text"]).to_parquet(DATA / "wikipedia.parquet")
    for split in ("train", "validation"):
        pairs = answer_pairs(load_dataset(xquad, "xquad_en", split=split), random.Random(0))
        Dataset.from_list(pairs).to_csv(DATA / "answers" / f"{split}.csv", index=False)
        print(split, len(pairs), "pairs")


if __name__ == "__main__":
    main(*sys.argv[1:])
