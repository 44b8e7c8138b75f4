"""Configuration of EfficientBERT models: sizes, and one feed-forward network per layer."""

from typing import TYPE_CHECKING, Any

from huggingface_hub.dataclasses import as_validated_field, strict
from transformers import PreTrainedConfig

from .ffn_efficientbert import check_widths, parse


# The published search result, first to last layer (Dong et al., 2021, Figure 4 and released code).
PUBLISHED_EXPRESSIONS = [
    "tanh(linear2(gelu(linear1(x))))",
    "elu(linear2(gelu(linear1(x))))",
    "sigmoid(linear2(relu(linear1(x))))",
    "linear2(gelu(linear1(max(x, tanh(x)))))",
    "linear2(relu(mul(linear1(x), x)))",
    "leaky_relu(linear2(gelu(linear1(x))))",
]
PUBLISHED_STACKS = [4, 2, 1, 2, 1, 2]
PUBLISHED_EXPANSION_DIVISORS = [2, 1, 2, 2, 2, 3]
PER_LAYER = ("ffn_expressions", "ffn_stacks", "intermediate_sizes")


def spread(published: list, num_layers: int) -> list:
    """One entry per layer out of the published six; of twelve layers, two neighbours share one (EfficientBERT++)."""
    return [published[layer * len(published) // num_layers] for layer in range(num_layers)]


PRESETS: dict[str, dict[str, Any]] = {
    "efficientbert-tiny": {"hidden_size": 360},
    "efficientbert": {},
    "efficientbert-plus": {},
    "efficientbert-plus-plus": {
        "hidden_size": 360,
        "num_hidden_layers": 12,
        "intermediate_sizes": [540 // divisor for divisor in spread(PUBLISHED_EXPANSION_DIVISORS, 12)],
    },
}

AUTO_MAP = {
    "AutoConfig": "configuration_efficientbert.EfficientBertConfig",
    "AutoModel": "modeling_efficientbert.EfficientBertModel",
    "AutoModelForMaskedLM": "modeling_efficientbert.EfficientBertForMaskedLM",
    "AutoModelForSequenceClassification": "modeling_efficientbert.EfficientBertForSequenceClassification",
    "AutoModelForTokenClassification": "modeling_efficientbert.EfficientBertForTokenClassification",
    "AutoModelForQuestionAnswering": "modeling_efficientbert.EfficientBertForQuestionAnswering",
    "AutoModelForMultipleChoice": "modeling_efficientbert.EfficientBertForMultipleChoice",
}


@as_validated_field
def positive(value: float | list[int] | None) -> None:
    """A field whose number, or whose every entry, must be above zero."""
    for number in value if isinstance(value, list) else [value]:
        if number is not None and not number > 0:
            raise ValueError(f"must be positive, not {number}")


@as_validated_field
def countable(value: list[int] | None) -> None:
    """A field whose every entry must be at least zero."""
    for number in value or []:
        if number < 0:
            raise ValueError(f"must be at least 0, not {number}")


@as_validated_field
def probability(value: float | None) -> None:
    """A field that must be at least 0 and below 1."""
    if value is not None and not 0 <= value < 1:
        raise ValueError(f"must be at least 0 and below 1, not {value}")


@as_validated_field
def expressions(value: list[str] | str | None) -> None:
    """A field of feed-forward expressions."""
    for text in [value] if isinstance(value, str) else value or []:
        parse(text)


@strict
class EfficientBertConfig(PreTrainedConfig):
    r"""
    Configuration of an EfficientBERT model. The defaults are the published EfficientBERT (15.3M encoder parameters).

    Args:
        vocab_size: Rows of the token table.
        embedding_size: Width of the token table; three neighbouring tokens are projected to `hidden_size`.
        hidden_size: Width of the encoder.
        num_hidden_layers: Number of layers.
        num_attention_heads: Attention heads per layer.
        head_dim: Width of one head; by default `hidden_size / num_attention_heads`, which must then be whole.
        attention_heads: Attention heads of each layer, where they differ; a layer of 0 heads has no attention.
        head_dims: Width of one head in each layer, where they differ.
        ffn_expressions: What each layer's feed-forward networks compute, see `ffn_efficientbert`. One text per layer,
            or one text for all. By default the published six, spread over the layers.
        ffn_stacks: Number of feed-forward networks in a row, per layer or one number for all.
        intermediate_sizes: Width between `linear1` and `linear2`, per layer or one number for all. By default the
            published expansions of `hidden_size`.
        hidden_dropout_prob: Dropout on embeddings, attention outputs and feed-forward outputs.
        attention_probs_dropout_prob: Dropout on attention probabilities.
        classifier_dropout: Dropout of the task heads; by default `hidden_dropout_prob`.
        max_position_embeddings: Longest sequence, in tokens.
        type_vocab_size: Number of segments.
        initializer_range: Standard deviation of random initial weights.
        layer_norm_eps: Epsilon of every LayerNorm.
        pad_token_id: Id of the padding token.
        tie_word_embeddings: Whether the masked-LM decoder shares the token table.

    Raises:
        StrictDataclassError: if a field has the wrong type, a size is not positive or an expression is invalid, on
            construction and on assignment; if a list does not have one entry per layer, an expression does not fit its
            sizes, or `hidden_size` is no multiple of the heads and `head_dim` is not given, on construction, on saving
            and when a model is built.
    """

    model_type = "efficientbert"

    vocab_size: int = positive(default=30522)
    embedding_size: int = positive(default=128)
    hidden_size: int = positive(default=540)
    num_hidden_layers: int = positive(default=6)
    num_attention_heads: int = positive(default=12)
    if TYPE_CHECKING:  # what is read off a configuration; it takes more
        head_dim: int = positive(default=None)
        ffn_expressions: list[str] = expressions(default=None)
        ffn_stacks: list[int] = positive(default=None)
        intermediate_sizes: list[int] = positive(default=None)
    else:
        head_dim: int | None = positive(default=None)
        ffn_expressions: list[str] | str | None = expressions(default=None)
        ffn_stacks: list[int] | int | None = positive(default=None)
        intermediate_sizes: list[int] | int | None = positive(default=None)
    hidden_dropout_prob: float | int = probability(default=0.1)
    attention_probs_dropout_prob: float | int = probability(default=0.1)
    classifier_dropout: float | int | None = probability(default=None)
    max_position_embeddings: int = positive(default=512)
    type_vocab_size: int = positive(default=2)
    initializer_range: float = positive(default=0.02)
    layer_norm_eps: float = positive(default=1e-5)
    attention_heads: list[int] | None = countable(default=None)
    head_dims: list[int] | None = countable(default=None)
    pad_token_id: int | None = 0
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        if self.head_dim is None and self.hidden_size % self.num_attention_heads == 0:
            self.head_dim = self.hidden_size // self.num_attention_heads
        layers = self.num_hidden_layers
        if self.ffn_expressions is None:
            self.ffn_expressions = spread(PUBLISHED_EXPRESSIONS, layers)
        if self.ffn_stacks is None:
            self.ffn_stacks = spread(PUBLISHED_STACKS, layers)
        if self.intermediate_sizes is None:
            divisors = spread(PUBLISHED_EXPANSION_DIVISORS, layers)
            self.intermediate_sizes = [max(1, self.hidden_size // divisor) for divisor in divisors]
        for name in PER_LAYER:
            value = getattr(self, name)
            setattr(self, name, list(value) if isinstance(value, list) else [value] * layers)
        self.ffn_expressions = [str(parse(text)) for text in self.ffn_expressions]
        kwargs["auto_map"] = AUTO_MAP | (kwargs.get("auto_map") or {})
        super().__post_init__(**kwargs)

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> "EfficientBertConfig":
        """The configuration of a published model.

        Args:
            name: `efficientbert-tiny`, `efficientbert`, `efficientbert-plus` or `efficientbert-plus-plus`.
            **overrides: Fields to set to something else, such as `num_labels`.

        Raises:
            ValueError: if the name is unknown.
        """
        if name not in PRESETS:
            raise ValueError(f"unknown preset {name!r}; known are {', '.join(PRESETS)}")
        return cls(**(PRESETS[name] | overrides))

    @property
    def attentions(self) -> list[tuple[int, int]]:
        """Heads and width of a head in every layer; zeros of a layer without attention."""
        heads = self.attention_heads or [self.num_attention_heads] * self.num_hidden_layers
        sizes = self.head_dims or [self.head_dim] * self.num_hidden_layers
        return [(count, size if count else 0) for count, size in zip(heads, sizes)]

    def validate_layers(self) -> None:
        """Part of `@strict`-powered validation: one entry for each layer, and expressions that fit their sizes."""
        for name in (*PER_LAYER, "attention_heads", "head_dims"):
            value = getattr(self, name)
            if value is None and name not in PER_LAYER:
                continue
            if not isinstance(value, list) or len(value) != self.num_hidden_layers:
                found = f"{len(value)}" if isinstance(value, list) else repr(value)
                raise ValueError(f"{name} must have {self.num_hidden_layers} entries, one for each layer, not {found}")
        for expression, intermediate_size in zip(self.ffn_expressions, self.intermediate_sizes):
            check_widths(parse(expression), self.hidden_size, intermediate_size)

    def validate_heads(self) -> None:
        """Part of `@strict`-powered validation: a whole width for every head."""
        if self.head_dim is None and self.head_dims is None:
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be a multiple of num_attention_heads "
                f"({self.num_attention_heads}), or head_dim be given"
            )
        for layer, (heads, size) in enumerate(self.attentions):
            if heads and not size:
                raise ValueError(f"head_dims must be positive where a layer has heads, not 0 as in layer {layer}")

    def validate_pad_token(self) -> None:
        """Part of `@strict`-powered validation: the padding token is in the vocabulary."""
        if self.pad_token_id is not None and not 0 <= self.pad_token_id < self.vocab_size:
            raise ValueError(f"pad_token_id ({self.pad_token_id}) must be below vocab_size ({self.vocab_size})")


EfficientBertConfig.register_for_auto_class()

__all__ = ["EfficientBertConfig"]
