"""Checkpoints of the original release, read into our models."""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.ffn_efficientbert import BINARY, UNARY, Call, ExpressionError, parse, read_calls
from efficientbert.modeling_efficientbert import (
    EfficientBertForMultipleChoice,
    EfficientBertForQuestionAnswering,
    EfficientBertForSequenceClassification,
    EfficientBertModel,
)
from efficientbert.train.cli.errors import InputError, one_line
from efficientbert.train.model_folder.loading import load_tokenizer
from efficientbert.train.model_folder.release_tasks import CHOICE_TASKS, LABELS, NOTATION, SPAN_TASKS


FFNS_PER_LAYER = 4  # stored in every layer of a release checkpoint, however many of them its expression uses


@dataclass(frozen=True)
class ReleaseFFN:
    """One layer's expression in our own language, networks in a row, and what the stored width is divided by."""

    expression: str
    stack: int
    divisor: int


def read_expression(text: str) -> ReleaseFFN:
    """Translates the release's notation, in which `linearS_D(x,wb1)` is the first linear at stack S, expansion 1/D.

    Raises:
        InputError: if the text is not in that notation, its linears disagree, or its expression is invalid.
    """
    shapes = []

    def translate(call: Call) -> str:
        linear = re.fullmatch(r"linear([1-4])_([1-4])", call.name)
        if linear and len(call.arguments) == 2 and call.arguments[1] in (Call("wb1"), Call("wb2")):
            shapes.append((int(linear[1]), int(linear[2])))
            return f"linear{call.arguments[1].name[2]}({translate(call.arguments[0])})"
        if call.name not in ("x", *UNARY, *BINARY):
            raise InputError(f"--ffn_expr {text!r}: {call.name!r} is not in the release's notation, as in {NOTATION}")
        operands = [translate(argument) for argument in call.arguments]
        return f"{call.name}({', '.join(operands)})" if operands else call.name

    try:
        expression = str(parse(translate(read_calls(text))))
    except ExpressionError as error:
        raise InputError(f"--ffn_expr {text!r}: {error}") from None
    if shapes[0] != shapes[1]:
        first, second = (f"linear{stack}_{divisor}" for stack, divisor in shapes)
        raise InputError(f"--ffn_expr {text!r}: {first} and {second} must have the same two numbers")
    return ReleaseFFN(expression, *shapes[0])


class Checkpoint:
    """The weights of a release checkpoint by name, without the leading `module.`; each is taken out once.

    Args:
        path: The file, for messages.
        weights: Its state dict.
    """

    def __init__(self, path: str | Path, weights: dict[str, torch.Tensor]):
        self.path = path
        prefix = "module." if all(name.startswith("module.") for name in weights) else ""
        self.weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}

    def take(self, name: str, *shape: int | None) -> torch.Tensor:
        """Takes out one tensor, as float32.

        Args:
            name: Its name.
            *shape: Its shape, with None where any size will do.

        Raises:
            InputError: if it is missing or has another shape.
        """
        if name not in self.weights:
            raise InputError(f"checkpoint '{self.path}': has no {name}")
        tensor = self.weights.pop(name)
        if len(shape) != tensor.dim() or any(size not in (None, found) for size, found in zip(shape, tensor.shape)):
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise InputError(f"checkpoint '{self.path}': {name} has shape {tuple(tensor.shape)}, not ({wanted})")
        return tensor.float()

    def take_affine(self, name: str, *shape: int | None) -> dict[str, torch.Tensor]:
        """Takes out the weight of the given shape and the bias of a linear or LayerNorm."""
        weight = self.take(f"{name}.weight", *shape)
        return {"weight": weight, "bias": self.take(f"{name}.bias", weight.shape[0])}

    def drop(self, *prefixes: str) -> list[str]:
        """Leaves out everything below the given names, and returns which of these names there were."""
        found = [prefix for prefix in prefixes if any(name.startswith(f"{prefix}.") for name in self.weights)]
        self.weights = {
            name: tensor for name, tensor in self.weights.items() if not name.startswith(tuple(f"{p}." for p in found))
        }
        return found

    def num_layers(self) -> int:
        """One more than the highest layer number."""
        numbers = [re.match(r"encoder\.(\d+)\.", name) for name in self.weights]
        return max((int(number[1]) + 1 for number in numbers if number), default=0)


def read_weights(path: str | Path, file: bytes) -> dict[str, torch.Tensor]:
    """The state dict in a file written by `torch.save`: the whole of it, or its entry `state_dict`. No code is run.

    Args:
        path: The file, for messages.
        file: Its content.

    Raises:
        InputError: if it is anything but dense floating-point tensors by name.
    """
    try:
        content = torch.load(io.BytesIO(file), map_location="cpu", weights_only=True)
    except Exception:  # what torch.load raises on a damaged, foreign or hostile file is not documented
        raise InputError(f"checkpoint '{path}': is no file of plain tensors written by torch.save") from None
    weights = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not weights:
        raise InputError(f"checkpoint '{path}': holds no state dict")
    for name, tensor in weights.items():
        dense = isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided and tensor.device.type == "cpu"
        if not isinstance(name, str) or not dense or not tensor.is_floating_point():
            raise InputError(f"checkpoint '{path}': {name!r} in its state dict is no floating-point tensor")
    return weights


def take_embeddings(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """The embeddings' weights under our names; their shapes hold the sizes."""
    words = checkpoint.take("embeddings.token_embeddings.weight", None, None)
    projection = checkpoint.take_affine("embeddings.dense", None, 3 * words.shape[1])
    hidden_size = projection["weight"].shape[0]
    return {
        "word_embeddings.weight": words,
        "position_embeddings.weight": checkpoint.take("embeddings.position_embeddings.weight", None, hidden_size),
        "token_type_embeddings.weight": checkpoint.take("embeddings.segment_embeddings.weight", None, hidden_size),
        **under("projection", projection),
        **under("layer_norm", checkpoint.take_affine("embeddings.layernorm", hidden_size)),
    }


def take_layer(checkpoint: Checkpoint, index: int, ffn: ReleaseFFN, hidden_size: int) -> dict[str, torch.Tensor]:
    """One layer's weights under our names: fused queries, keys and values, and the used part of the stored FFNs."""
    name, size = f"encoder.{index}", hidden_size
    query, key, value = (
        checkpoint.take_affine(f"{name}.attention.{part}", size, size) for part in ("query", "key", "value")
    )
    layer = {
        **under("attention.qkv", {part: torch.cat((query[part], key[part], value[part])) for part in query}),
        **under("attention.output", checkpoint.take_affine(f"{name}.attention.dense", size, size)),
        **under("layer_norm", checkpoint.take_affine(f"{name}.attention.layernorm", size)),
    }
    base = None
    for number in range(FFNS_PER_LAYER):
        dense1 = checkpoint.take_affine(f"{name}.all_ffn.{number}.dense1", base, size)
        base = dense1["weight"].shape[0]
        dense2 = checkpoint.take_affine(f"{name}.all_ffn.{number}.dense2", size, base)
        layer_norm = checkpoint.take_affine(f"{name}.all_ffn.{number}.layernorm", size)
        if number < ffn.stack:
            width = base // ffn.divisor
            linear1 = {part: tensor[:width] for part, tensor in dense1.items()}
            linear2 = {"weight": dense2["weight"][:, :width], "bias": dense2["bias"]}
            layer |= under(f"ffns.{number}.linear1", linear1) | under(f"ffns.{number}.linear2", linear2)
            layer |= under(f"ffns.{number}.layer_norm", layer_norm)
    return layer


def under(prefix: str, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same weights with `prefix.` before every name."""
    return {f"{prefix}.{name}": tensor for name, tensor in weights.items()}


def take_encoder(
    checkpoint: Checkpoint, ffns: list[ReleaseFFN], num_attention_heads: int
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The encoder's weights under our names, and the configuration fields that say its sizes.

    Raises:
        InputError: if weights are missing or of another shape, or `ffns` or the heads do not fit.
    """
    embeddings = take_embeddings(checkpoint)
    vocab_size, embedding_size = embeddings["word_embeddings.weight"].shape
    max_positions, hidden_size = embeddings["position_embeddings.weight"].shape
    if num_attention_heads < 1 or hidden_size % num_attention_heads:
        raise InputError(
            f"--num_attention_heads {num_attention_heads}: must divide the hidden size {hidden_size} "
            f"of {checkpoint.path}"
        )
    num_layers = checkpoint.num_layers()
    if num_layers == 0:
        raise InputError(f"checkpoint '{checkpoint.path}': has no encoder.0")
    if len(ffns) not in (1, num_layers):
        raise InputError(
            f"--ffn_expr: {len(ffns)} expressions for the {num_layers} layers of {checkpoint.path}; "
            "give one for all of them, or one for each"
        )
    ffns = ffns * num_layers if len(ffns) == 1 else ffns
    layers = [take_layer(checkpoint, index, ffn, hidden_size) for index, ffn in enumerate(ffns)]
    weights = under("embeddings", embeddings)
    for index, layer in enumerate(layers):
        weights |= under(f"layers.{index}", layer)
    return weights, {
        "vocab_size": vocab_size,
        "embedding_size": embedding_size,
        "hidden_size": hidden_size,
        "num_hidden_layers": num_layers,
        "num_attention_heads": num_attention_heads,
        "ffn_expressions": [ffn.expression for ffn in ffns],
        "ffn_stacks": [ffn.stack for ffn in ffns],
        "intermediate_sizes": [layer["ffns.0.linear1.weight"].shape[0] for layer in layers],
        "max_position_embeddings": max_positions,
        "type_vocab_size": embeddings["token_type_embeddings.weight"].shape[0],
    }


def take_head(
    checkpoint: Checkpoint, task: str, hidden_size: int
) -> tuple[Callable[[EfficientBertConfig], PreTrainedModel], dict[str, torch.Tensor], dict[str, Any]]:
    """A task's model class, the weights of its head under our names, and the configuration fields it sets.

    Raises:
        InputError: if the head is missing, or has no outputs that fit the task.
    """
    if task in SPAN_TASKS:
        weights = under("qa_outputs", checkpoint.take_affine("classifier", 2, hidden_size))
        return EfficientBertForQuestionAnswering, weights, {}
    single_output = task in CHOICE_TASKS or task == "stsb"
    pooler = checkpoint.take_affine("cls_pooler.dense", hidden_size, hidden_size)
    classifier = checkpoint.take_affine("classifier", 1 if single_output else None, hidden_size)
    weights = under("pooler", pooler) | under("output", classifier)
    if task in CHOICE_TASKS:
        return EfficientBertForMultipleChoice, under("choice_classifier", weights), {}
    labels, num_labels = LABELS[task], len(classifier["bias"])
    fields: dict[str, Any] = {"num_labels": num_labels}
    if task == "stsb":
        fields["problem_type"] = "regression"
    elif num_labels == 1:
        raise InputError(
            f"checkpoint '{checkpoint.path}': its classifier has one output, {task} has {len(labels)} labels"
        )
    else:
        fields["problem_type"] = "single_label_classification"
    if len(labels) == num_labels:
        fields["id2label"] = dict(enumerate(labels))
        fields["label2id"] = {label: index for index, label in enumerate(labels)}
    return EfficientBertForSequenceClassification, under("classifier", weights), fields


def convert(
    checkpoint: Checkpoint, ffns: list[ReleaseFFN], num_attention_heads: int, task: str | None = None
) -> tuple[PreTrainedModel, dict[str, torch.Tensor], list[str]]:
    """Builds our model from a release checkpoint.

    Args:
        checkpoint: Its weights; they are taken out of it.
        ffns: One for all layers, or one for each.
        num_attention_heads: Heads of every layer.
        task: Task whose head is converted, as `datasets` spells it; by default none.

    Returns:
        The model, float32; the distillation projection's `weight` and `bias`, empty where there is none; and the names
        of what was left out.

    Raises:
        InputError: if the checkpoint lacks something, holds something unknown, or does not fit the other arguments.
    """
    left_out = checkpoint.drop("lm_head", "classifiers", *(() if task else ("cls_pooler", "classifier")))
    weights, fields = take_encoder(checkpoint, ffns, num_attention_heads)
    projection = {}
    if any(name.startswith("fit_dense.") for name in checkpoint.weights):
        projection = checkpoint.take_affine("fit_dense", None, fields["hidden_size"])
    model_class: Callable[[EfficientBertConfig], PreTrainedModel] = EfficientBertModel
    if task:
        model_class, head, head_fields = take_head(checkpoint, task, fields["hidden_size"])
        weights, fields = under("efficientbert", weights) | head, fields | head_fields
    if checkpoint.weights:
        names = ", ".join(sorted(checkpoint.weights)[:5]) + (", ..." if len(checkpoint.weights) > 5 else "")
        raise InputError(
            f"checkpoint '{checkpoint.path}': does not belong in a {task or 'release'} checkpoint: {names}"
        )
    try:
        model = model_class(EfficientBertConfig(**fields))
    except (ValueError, StrictDataclassError) as error:
        raise InputError(f"checkpoint '{checkpoint.path}': {one_line(error)}") from None
    model.load_state_dict(weights)
    return model.eval(), projection, left_out


def fitting_tokenizer(name: str, config: EfficientBertConfig, checkpoint: Path) -> PreTrainedTokenizerBase:
    """A tokenizer from a folder or the Hub, held against all that is known of the one a checkpoint was trained with.

    Args:
        name: The folder or Hub id.
        config: Of the model that was made of the checkpoint.
        checkpoint: Its file, which a vocabulary may lie beside.

    Raises:
        InputError: if there is none, or it has another number of tokens, padding token or vocabulary.
    """
    tokenizer = load_tokenizer(name, "--tokenizer")
    if len(tokenizer) != config.vocab_size:
        raise InputError(f"--tokenizer {name!r}: has {len(tokenizer)} tokens, the checkpoint {config.vocab_size}")
    if tokenizer.pad_token_id != config.pad_token_id:
        raise InputError(
            f"--tokenizer {name!r}: its padding token {tokenizer.pad_token!r} has the id {tokenizer.pad_token_id}, in "
            f"checkpoints of the release it is {config.pad_token_id}"
        )
    path, mine = checkpoint.parent / "vocab.txt", tokenizer.get_vocab()
    if path.is_file():
        lines = path.read_text(encoding="utf-8", errors="replace").removesuffix("\n").split("\n")
        theirs = {token: index for index, token in enumerate(lines)}
        if mine != theirs:
            odd = min(mine.items() ^ theirs.items())[0]
            raise InputError(
                f"--tokenizer {name!r}: token {odd!r} has the id {mine.get(odd)} in it and {theirs.get(odd)} in "
                f"'{path}', beside the checkpoint"
            )
    return tokenizer
