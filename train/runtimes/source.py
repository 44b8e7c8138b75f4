"""The model that is exported: loaded, and with the rows or sentences that its graphs are compared on."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase
from transformers.models.auto import modeling_auto

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.embeddings import load_embedder
from efficientbert.train.model_folder.card import HEADS, architecture
from efficientbert.train.model_folder.loading import find_folder, is_embedder, load_config, load_model, load_tokenizer
from efficientbert.train.model_folder.tokenizer_check import check_tokenizer, fit_segments
from efficientbert.train.runtimes.arguments import ExportArguments
from efficientbert.train.runtimes.comparison import LENGTH, Probe, RowProbe, SentenceProbe
from efficientbert.train.runtimes.graph import Traced, trace_embedder, trace_model
from efficientbert.train.runtimes.sentences import SENTENCES
from efficientbert.train.tasks.division import splits_to_score
from efficientbert.train.tasks.trained import has_head, load_trained, recorded_arguments


@dataclass(frozen=True)
class Source:
    """A model to export.

    Attributes:
        folder: Where it lies.
        traced: What becomes a graph.
        vocab_size: Of it.
        tokenizer: Its tokenizer.
        choosing: What decides which products stay in float32 in int8.
        comparing: What the finished graphs are held against the model on; nothing was chosen by it.
    """

    folder: Path
    traced: Traced
    vocab_size: int
    tokenizer: PreTrainedTokenizerBase
    choosing: Probe
    comparing: Probe


def load_source(args: ExportArguments) -> Source:
    """Loads the model of the arguments.

    Raises:
        InputError: if it cannot be loaded or is none of ours, or its data cannot be read.
    """
    folder = find_folder(args.model, "model")
    if is_embedder(folder):
        embedder = load_embedder(str(folder), "cpu", "model")
        traced, tokenizer = trace_embedder(embedder), embedder.tokenizer
        longest = min(embedder.max_seq_length or LENGTH, LENGTH)
        return _on_sentences(folder, traced, embedder[0].auto_model.config.vocab_size, tokenizer, longest)
    config = load_config(str(folder), "model")
    if config.model_type != EfficientBertConfig.model_type:
        raise InputError(
            f"model {args.model!r}: is a {config.model_type}; models of efficientbert are exported: `efficientbert "
            "compress` makes one of it"
        )
    if has_head(folder):
        found = _on_rows(args, folder, config)
        if found is not None:
            return found
    auto_class = getattr(modeling_auto, HEADS[architecture(config)][0])
    model, report = load_model(auto_class, str(folder), "model", dtype=torch.float32)
    if report["missing_keys"]:
        raise InputError(f"model {args.model!r}: lacks weights, such as {sorted(report['missing_keys'])[0]!r}")
    tokenizer = load_tokenizer(str(folder))
    check_tokenizer(tokenizer, model, f"model {args.model!r}")
    fit_segments(tokenizer, model)
    longest = min(LENGTH, config.max_position_embeddings)
    return _on_sentences(folder, trace_model(model, tokenizer), config.vocab_size, tokenizer, longest)


def _on_sentences(
    folder: Path, traced: Traced, vocab_size: int, tokenizer: PreTrainedTokenizerBase, longest: int
) -> Source:
    """A model that is compared on sentences of ours: every other one to choose by."""
    probes = (SentenceProbe(traced, tokenizer, SENTENCES[start::2], longest) for start in (0, 1))
    return Source(folder, traced, vocab_size, tokenizer, *probes)


def _on_rows(args: ExportArguments, folder: Path, config: EfficientBertConfig) -> Source | None:
    """A model that is compared on its task's rows; none where no data is given and what is recorded is not at hand.

    Raises:
        InputError: if data is given and cannot be read.
    """
    given = args.task is not None or args.data is not None
    if not given and not recorded_arguments(str(folder), config):
        return None
    try:
        task, model = load_trained(str(folder), args.task_arguments(), "cpu", args.split)
        split = args.split or splits_to_score(task.args)[0]
        choosing = RowProbe(task, model, task.load(args.train_split))
        comparing = RowProbe(task, model, task.load(split))
    except InputError as error:
        if given:
            raise
        print(f"note: compared on sentences of ours, as its own rows are not at hand: {error}")
        return None
    return Source(folder, trace_model(model, task.tokenizer), config.vocab_size, task.tokenizer, choosing, comparing)
