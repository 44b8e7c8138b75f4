"""The texts that tokens are counted in, and those on which it is measured what a cut costs."""

from collections.abc import Iterator

from tqdm.auto import tqdm

from efficientbert.train.cli.errors import InputError
from efficientbert.train.text.corpus import check_texts, load_documents
from efficientbert.train.trimming.arguments import TrimArguments


EVERY = 20  # one text of so many is kept aside
MOST = 2000  # that are kept aside


def load_texts(args: TrimArguments) -> tuple[Iterator[str], list[str]]:
    """The texts to count in, as they are read, and those kept aside.

    Raises:
        InputError: if they cannot be loaded or there are too few.
    """
    documents = load_documents(args.corpus, args.corpus_name, args.corpus_split, args.text_column, False)
    if len(documents) < 2:
        raise InputError(f"corpus {args.corpus!r}: has {len(documents)} documents; at least 2 are needed")
    column = args.text_column
    apart = range(0, min(len(documents), EVERY * MOST), EVERY)
    aside = check_texts(documents.select(apart)[column][:], list(apart), column, args.corpus)
    aside = [text for text in aside if text.strip()]
    if not aside:
        raise InputError(f"corpus {args.corpus!r}: every document of {column!r} that is kept aside is empty")

    def counted() -> Iterator[str]:
        left = set(apart)
        with tqdm(total=len(documents), desc="Counting tokens", unit="document", disable=None) as progress:
            for index, text in enumerate(documents[column]):
                progress.update()
                if index not in left:
                    yield from check_texts([text], [index], column, args.corpus)

    return counted(), aside
