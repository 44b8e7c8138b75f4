"""Cuts the vocabulary of a model to the tokens that a corpus needs most; what is kept gives the same outputs.

    efficientbert trim --model my-student --corpus corpus.txt --vocab_size 16000 --output_dir my-student-16k

A token table is half of a small model: this halves it, and no layer changes.
"""

from collections import Counter
from dataclasses import asdict
from itertools import chain

from efficientbert.train.cli.command import run_command
from efficientbert.train.cli.outcome import Outcome
from efficientbert.train.trimming.arguments import TrimArguments


def main(args: TrimArguments) -> Outcome:
    """Runs the job from a model to a finished folder, with what the cut costs."""
    args.check()
    if not args.finished():
        args.check_sources()
    from efficientbert.train.files.run_folder import run_folder
    from efficientbert.train.model_folder.loading import find_folder, load_tokenizer
    from efficientbert.train.model_folder.record import read_result
    from efficientbert.train.model_folder.tokenizer_check import check_tokenizer
    from efficientbert.train.model_folder.write import write_checkpoint
    from efficientbert.train.trimming.folder import copy_parts
    from efficientbert.train.trimming.rows import cut_rows, load_whole
    from efficientbert.train.trimming.texts import load_texts
    from efficientbert.train.trimming.vocabulary import choose_tokens, compare, cut_tokenizer, read_backend, spell

    folder = run_folder(args, ("model",), "corpus", args.corpus)
    if folder.complete:
        return Outcome(folder.path, read_result(folder.path))
    source = find_folder(args.model, "model")
    tokenizer, model = load_tokenizer(str(source)), load_whole(str(source))
    check_tokenizer(tokenizer, model, f"model {args.model!r}")
    parts = read_backend(tokenizer, args.model)
    counted, aside = load_texts(args)
    counts = Counter(chain.from_iterable(spell(tokenizer, counted)))
    kept = choose_tokens(parts, counts, args.vocab_size)
    trimmed = cut_tokenizer(tokenizer, parts, kept)
    spelling, parameters = compare(tokenizer, trimmed, aside), model.num_parameters()
    cut_rows(model, kept)
    result = {"parameters": model.num_parameters(), "parameters_before": parameters} | asdict(spelling)
    folder.open()
    copy_parts(source, folder.work)
    write_checkpoint(folder.work, model, trimmed, "trim", args, result, str(source))
    print(
        f"{len(kept):,} tokens; {result['parameters']:,} parameters of {parameters:,}; of texts that were kept aside "
        f"{spelling.kept:.1%} of all tokens stay, and they get {spelling.longer:.1%} longer"
    )
    print(folder.finish())
    return Outcome(folder.path, result)


def cli() -> None:
    """Runs the script with this process's arguments."""
    run_command(main, TrimArguments, "trim")


if __name__ == "__main__":
    cli()
