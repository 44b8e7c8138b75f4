"""What kind of model a teacher is."""

import os

from transformers.utils import cached_file

from efficientbert.search.compression.arguments import CompressArguments
from efficientbert.train.cli.errors import InputError
from efficientbert.train.model_folder.loading import load_config, loading


EMBEDDER, ENCODER = "embedder", "encoder"
KIND_OF_HEAD = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMultipleChoice": "multiple-choice",
}


def recognise(name: str) -> str:
    """The kind of a teacher: one of `KIND_OF_HEAD`'s, `EMBEDDER` or `ENCODER`.

    Args:
        name: Folder or Hub id.

    Raises:
        InputError: if there is no such model.
    """
    config = load_config(name, "teacher")
    for architecture in config.architectures or ():
        for ending, kind in KIND_OF_HEAD.items():
            if architecture.endswith(ending):
                return kind
    return EMBEDDER if _has_modules(name) else ENCODER


def _has_modules(name: str) -> bool:
    """Whether sentence-transformers has saved the model."""
    if os.path.isdir(name):
        return os.path.isfile(os.path.join(name, "modules.json"))
    with loading(name, "teacher"):
        found = cached_file(name, "modules.json", _raise_exceptions_for_missing_entries=False)
    return found is not None


def check_kind(kind: str, args: CompressArguments) -> None:
    """Refuses data that a teacher of a kind has no head for, and a teacher with a head without data.

    Args:
        kind: As of `recognise`.
        args: Arguments of the run.

    Raises:
        InputError: saying what would do.
    """
    teacher = f"teacher {args.teacher!r}"
    if args.has_data and kind == ENCODER:
        raise InputError(
            f"{teacher}: is a bare encoder, which predicts nothing for --data; fine-tune it first with "
            f"`efficientbert finetune --model {args.teacher}`, or give --corpus alone"
        )
    if not args.has_data and kind in KIND_OF_HEAD.values():
        raise InputError(f"{teacher}: is for {kind}; give --data with texts for it, with labels or without")
    asked = args.task_kind() if args.kind or args.task else None
    if args.kind and kind == EMBEDDER:
        raise InputError(f"kind: {teacher} embeds texts and predicts nothing; leave --kind out")
    if kind in KIND_OF_HEAD.values() and asked not in (None, kind):
        raise InputError(f"{'kind' if args.kind else 'task'}: {teacher} is for {kind}, not for {asked}")
