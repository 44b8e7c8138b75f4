"""Sentence embeddings: a sentence-transformers teacher, a student of its embeddings, the saved folder, its score.

Both are an encoder, a pooling of its last hidden states, linear layers and, where the teacher has it, division by the
length. The student ends in a linear to the teacher's size that is shipped with it: its embeddings lie in the teacher's
space, so that either can search what the other has indexed.
"""

import copy
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from efficientbert.modeling_efficientbert import EfficientBertModel
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.engine.finite import check_finite
from efficientbert.train.files.writing import write_json
from efficientbert.train.model_folder.card import write_card
from efficientbert.train.model_folder.loading import loading
from efficientbert.train.text.batches import pool_sequences


POOLINGS = ("mean", "cls")
DENSE_FILE = Path("2_Dense", "model.safetensors")


def library() -> ModuleType:
    """The package sentence-transformers, which only embeddings need.

    Raises:
        InputError: if it is not installed.
    """
    try:
        import sentence_transformers
    except ImportError:
        raise InputError(
            "sentence embeddings need the package sentence-transformers; pip install 'efficientbert[embeddings]'"
        ) from None
    return sentence_transformers


def load_embedder(name: str, device: torch.device | str, role: str) -> Any:
    """A `SentenceTransformer` in float32; a bare encoder gets mean pooling.

    Args:
        name: Folder or Hub id.
        device: Where to.
        role: What it is to be, for messages.

    Raises:
        InputError: if it cannot be loaded.
    """
    package = library()
    with loading(name, role):
        model = package.SentenceTransformer(name, device=str(device), model_kwargs={"dtype": torch.float32})
    return model.eval()


def pool(states: torch.Tensor, attention_mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """One vector a sequence, in float32: the mean over its tokens, or its first token's state.

    Args:
        states: Shape `(B, L, D)`.
        attention_mask: 1 for valid tokens, of shape `(B, L)`.
        pooling: One of `POOLINGS`.

    Returns:
        Shape `(B, D)`.
    """
    if pooling == "cls":
        return states[:, 0].float()
    return pool_sequences(states.float(), attention_mask)[:, 0]


class EmbeddingTeacher:
    """A frozen sentence-transformers model: a transformer, mean or cls pooling, any linears, perhaps a Normalize.

    Args:
        model: A `SentenceTransformer`.
        name: What the user called it, for messages.

    Raises:
        InputError: if it is made of other parts, or pools otherwise.
    """

    def __init__(self, model: Any, name: str):
        library()
        from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

        self.name = name
        modules = list(model.requires_grad_(False))
        self.normalizes = isinstance(modules[-1], Normalize)
        if self.normalizes:
            modules.pop()
        kinds = [type(module).__name__ for module in modules]
        if len(modules) < 2 or not isinstance(modules[0], Transformer) or not isinstance(modules[1], Pooling):
            raise InputError(f"teacher {name!r}: must be a Transformer and a Pooling, but is {', '.join(kinds)}")
        if modules[1].pooling_mode not in POOLINGS:
            raise InputError(
                f"teacher {name!r}: pools by {modules[1].pooling_mode!r}; students can pool by {' or '.join(POOLINGS)}"
            )
        if not all(isinstance(module, Dense) for module in modules[2:]):
            unknown = ", ".join(map(repr, kinds[2:]))
            raise InputError(f"teacher {name!r}: behind its Pooling only Dense and Normalize are known, not {unknown}")
        self.prompts: dict[str, str] = model.prompts
        self.default_prompt_name: str | None = model.default_prompt_name
        self.prompt = self.prompts.get(self.default_prompt_name or "") or ""
        self.pools_prompt: bool = modules[1].include_prompt
        if self.prompt and not self.pools_prompt:
            raise InputError(
                f"teacher {name!r}: its Pooling leaves out the default prompt {self.prompt!r}, which students cannot"
            )
        self.encoder = modules[0].model
        self.tokenizer = modules[0].tokenizer
        self.pooling: str = modules[1].pooling_mode
        self.linears: list[nn.Linear] = [module.linear for module in modules[2:]]
        self.modules = modules
        self.size: int = modules[-1].get_embedding_dimension()
        self.max_seq_length: int = model.max_seq_length

    def described_prompts(self) -> str | None:
        """What becomes of its prompts, in a line; None where it has none."""
        others = [key for key, text in self.prompts.items() if text and key != self.default_prompt_name]
        said = [f"passages are embedded behind its default prompt {self.prompt!r}"] if self.prompt else []
        if others:
            said.append(f"its prompts {', '.join(map(repr, others))} are kept, but nothing is trained behind them")
        return f"teacher {self.name!r}: {'; '.join(said)}" if said else None

    def as_teacher(self) -> Teacher:
        """Its encoder as general distillation and initialisation know a teacher: a copy, since that one gets hooks."""
        return Teacher(copy.deepcopy(self.encoder), self.tokenizer, self.name)

    @torch.no_grad()
    def __call__(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Embeddings before any division by their length, of shape `(B, E)`."""
        features = {name: batch[name] for name in ("input_ids", "attention_mask")}
        for module in self.modules:
            features = module(features)
        return features["sentence_embedding"].float()


class EmbeddingStudent(nn.Module):
    """An encoder, a pooling, and a linear to the size of the teacher's embeddings.

    The linear is there whatever the widths are: the channels of a student that starts from its teacher are the
    teacher's principal directions, not its channels.

    Args:
        encoder: The encoder to train, as `Student` prepares it: without dropout.
        pooling: One of `POOLINGS`.
        size: Size of the teacher's embeddings.
    """

    def __init__(self, encoder: EfficientBertModel, pooling: str, size: int):
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling
        self.dense = nn.Linear(encoder.config.hidden_size, size)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Embeddings of a batch of shape `(B, L)` before any division by their length, of shape `(B, E)`."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return self.dense(pool(states, attention_mask, self.pooling)).float()


@torch.no_grad()
def start_dense(dense: nn.Linear, projection: nn.Linear, teacher: EmbeddingTeacher, start: Path) -> None:
    """Sets the last linear of a student: as the embedder in `start` has it, else from the distillation projection.

    Pooling is linear, so what maps a student's states to the teacher's maps their mean likewise; the teacher's own
    linears follow, their activations left out.

    Args:
        dense: What to set.
        projection: From the student's hidden size to the teacher's.
        teacher: The teacher.
        start: What the student started from; need not be a folder.
    """
    if (start / DENSE_FILE).is_file():
        tensors = load_file(start / DENSE_FILE)
        if tensors["linear.weight"].shape == dense.weight.shape:
            dense.weight.copy_(tensors["linear.weight"])
            dense.bias.copy_(tensors["linear.bias"])
            return
    weight: torch.Tensor = projection.weight
    bias: torch.Tensor = projection.bias
    for linear in teacher.linears:
        weight, bias = linear.weight @ weight, linear.weight @ bias + (0 if linear.bias is None else linear.bias)
    dense.weight.copy_(weight)
    dense.bias.copy_(bias)


def cosine_distance(student: torch.Tensor, teacher: torch.Tensor, rows: torch.Tensor | int) -> torch.Tensor:
    """One less the cosine, averaged over rows.

    Args:
        student, teacher: Embeddings of shape `(B, E)`.
        rows: Rows in the whole batch, over all accumulation steps and processes.
    """
    return (1 - nn.functional.cosine_similarity(student, teacher, dim=-1)).sum() / rows


def squared_error(student: torch.Tensor, teacher: torch.Tensor, rows: torch.Tensor | int) -> torch.Tensor:
    """Squared error, averaged over channels and rows; arguments as of `cosine_distance`."""
    return (student - teacher).square().mean(-1).sum() / rows


def embedding_variance(embeddings: Iterable[torch.Tensor]) -> float:
    """Variance of embeddings of shape `(B, E)` around their mean, averaged over channels: the error of a constant."""
    whole = torch.cat(list(embeddings)).double()
    return (whole - whole.mean(0)).square().mean().item()


class EmbeddingDistillation:
    """Cosine distance, and squared error over the teacher's variance.

    Of vectors of length one the squared error is the cosine distance once more (twice it, over the channels). So it is
    taken of the vectors before they are divided by their length: as a share of the teacher's variance it says how much
    of what tells texts apart is still missing, which the cosine hides where all embeddings point much the same way.

    Args:
        teacher: The teacher.
        variance: Of its embeddings, as of `embedding_variance`.
        cosine_weight: Weight of the first term.
        mse_weight: Weight of the second one.
    """

    def __init__(self, teacher: EmbeddingTeacher, variance: float, cosine_weight: float, mse_weight: float):
        self.teacher = teacher
        self.variance = variance
        self.cosine_weight = cosine_weight
        self.mse_weight = mse_weight

    def count(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Rows of a batch."""
        return {"rows": torch.tensor(len(batch["input_ids"]), device=batch["input_ids"].device)}

    def __call__(
        self, model: nn.Module, batch: Mapping[str, torch.Tensor], counts: Mapping[str, torch.Tensor], step: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The weighted sum, and both terms without weights."""
        return self.loss(model(**batch), self.teacher(batch), counts["rows"])

    def loss(
        self, student: torch.Tensor, teacher: torch.Tensor, rows: torch.Tensor | int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """As calling it, for embeddings that are there already."""
        cosine = cosine_distance(student, teacher, rows)
        error = squared_error(student, teacher, rows) / self.variance
        return self.cosine_weight * cosine + self.mse_weight * error, {"cosine_distance": cosine, "mse": error}


@torch.no_grad()
def score_student(
    student: EmbeddingStudent, objective: EmbeddingDistillation, held_out: Sequence[dict[str, torch.Tensor]]
) -> dict[str, float]:
    """How near a student is to its teacher on held-out batches.

    Returns:
        `loss` as trained, mean `cosine` of the two embeddings, and `mse` over the teacher's variance.
    """
    student.eval()
    pairs = [(student(**batch), objective.teacher(batch)) for batch in held_out]
    mine, theirs = (torch.cat(embeddings) for embeddings in zip(*pairs))
    loss, terms = objective.loss(mine, theirs, len(mine))
    return {"loss": loss.item(), "cosine": 1 - terms["cosine_distance"].item(), "mse": terms["mse"].item()}


def save_embedder(folder: Path, student: EmbeddingStudent, teacher: EmbeddingTeacher) -> None:
    """Makes a folder with the student's encoder, its tokenizer and a card one that sentence-transformers loads.

    Args:
        folder: As `write_checkpoint` left it.
        student: The student.
        teacher: Its teacher, whose limits, prompts and Normalize it takes over.

    Raises:
        NotFiniteError: if a weight is not finite.
    """
    check_finite(student.state_dict(), "embed: the model")
    package = library()
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

    config = student.encoder.config
    longest = min(teacher.max_seq_length, config.max_position_embeddings)
    dense = Dense(config.hidden_size, teacher.size, activation_function=nn.Identity())
    dense.linear.load_state_dict(student.dense.state_dict())
    pooling = Pooling(config.hidden_size, student.pooling, include_prompt=teacher.pools_prompt)
    modules = [Transformer(str(folder), max_seq_length=longest), pooling, dense]
    if teacher.normalizes:
        modules.append(Normalize())
    prompts = {"prompts": teacher.prompts, "default_prompt_name": teacher.default_prompt_name}
    package.SentenceTransformer(modules=modules, device="cpu", **prompts).save(str(folder), create_model_card=False)
    write_card(folder)


def pair_cosines(
    folder_or_name: str,
    rows: Iterable[Mapping[str, Any]],
    columns: tuple[str, str, str],
    source: str,
    batch_size: int,
    device: torch.device | str,
) -> tuple[list[float], list[float]]:
    """The cosines of the embeddings of pairs of texts, and the numbers given for the pairs.

    Args:
        folder_or_name: What `SentenceTransformer` loads.
        rows: Pairs of texts with a number.
        columns: Names of the first text, the second text and the number.
        source: Where the rows come from, for messages.
        batch_size: Texts at a time.
        device: Where to compute.

    Raises:
        InputError: if the model cannot be loaded, a column is missing or of the wrong type, or rows are too few.
    """
    rows = list(rows)
    first, second, number = columns
    for index, row in enumerate(rows):
        for column in columns:
            if column not in row:
                raise InputError(
                    f"data {source!r}: row {index}: no column {column!r}; it has {', '.join(map(repr, row))}"
                )
        for column in (first, second):
            if not isinstance(row[column], str):
                raise InputError(f"data {source!r}: row {index}: {column!r} is {row[column]!r}, not a text")
        value = row[number]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise InputError(f"data {source!r}: row {index}: {number!r} is {value!r}, no finite number")
    if len(rows) < 2:
        raise InputError(f"data {source!r}: a correlation needs at least 2 rows, not {len(rows)}")
    embedder = load_embedder(folder_or_name, device, "model")
    options = {"batch_size": batch_size, "convert_to_tensor": True, "show_progress_bar": False}
    left, right = (embedder.encode([row[column] for row in rows], **options).double() for column in (first, second))
    cosines = nn.functional.cosine_similarity(left, right, dim=-1)
    return cosines.tolist(), [float(row[number]) for row in rows]


VARIANCE_FILE = "embedding_variance.json"


def teacher_variance(teacher: EmbeddingTeacher, sample: Iterable[dict[str, torch.Tensor]], folder: Path) -> float:
    """The variance of the teacher's embeddings, estimated once in a run and kept in `folder`."""
    path = folder / VARIANCE_FILE
    if not path.exists():
        write_json(path, {"variance": embedding_variance(teacher(batch) for batch in sample)})
    return json.loads(path.read_text(encoding="utf-8"))["variance"]
