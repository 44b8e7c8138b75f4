"""Teachers: any BERT-like encoder of transformers, loaded, checked, and captured without touching its code."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter

import torch
from torch import nn
from transformers import AutoModel, AutoModelForMaskedLM, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import BaseModelOutput

from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.capture import CaptureError, Captures, Recorder
from efficientbert.train.model_folder.loading import load_model, load_tokenizer
from efficientbert.train.model_folder.tokenizer_check import check_tokenizer, fit_segments
from efficientbert.train.text.batches import encoder_inputs


@dataclass(frozen=True)
class Layout:
    """Where a family of encoders keeps its attention: the list of layers, and four linears within one.

    `heads` are the ways its members name the parts of their masked-LM head, first to last.
    """

    families: str
    layers: str
    query: str
    key: str
    value: str
    output: str
    heads: tuple[tuple[str, ...], ...]


LAYOUTS = (
    Layout(
        "BERT, RoBERTa, ELECTRA",
        "encoder.layer",
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        (("cls",), ("lm_head",), ("generator_predictions", "generator_lm_head")),
    ),
    Layout(
        "MPNet",
        "encoder.layer",
        "attention.attn.q",
        "attention.attn.k",
        "attention.attn.v",
        "attention.attn.o",
        (("lm_head",),),
    ),
    Layout(
        "DistilBERT",
        "transformer.layer",
        "attention.q_lin",
        "attention.k_lin",
        "attention.v_lin",
        "attention.out_lin",
        (("vocab_transform", "activation", "vocab_layer_norm", "vocab_projector"),),
    ),
)


class Teacher:
    """A frozen encoder with its tokenizer and everything that distillation and initialisation read from it.

    Args:
        model: A BERT-like encoder without a head.
        tokenizer: Its tokenizer; it is made to give no segments where the teacher has none.
        name: What the user called it, for messages.
        masked_lm: The model with its masked-LM head around `model`, where logits are wanted.

    Raises:
        InputError: if its attention or logits cannot be captured, or the tokenizer does not fit its vocabulary.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        name: str,
        masked_lm: PreTrainedModel | None = None,
    ):
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        for size in ("num_hidden_layers", "num_attention_heads", "hidden_size"):
            if getattr(model.config, size, 0) < 1:
                raise InputError(f"teacher {name!r}: model type {model.config.model_type!r} has no {size}")
        self.num_layers: int = model.config.num_hidden_layers
        self.num_heads: int = model.config.num_attention_heads
        self.hidden_size: int = model.config.hidden_size
        self.layout = self._find_layout()
        layers = attrgetter(self.layout.layers)(model)
        paths = (self.layout.query, self.layout.key, self.layout.value)
        projections = [[attrgetter(path)(layer) for path in paths] for layer in layers]
        self.recorder = Recorder(model, projections, [self.num_heads] * self.num_layers)
        self._check_tokenizer()
        self._check_captures()
        self.head = None if masked_lm is None else self._find_head(masked_lm.eval().requires_grad_(False))

    def _find_layout(self) -> Layout:
        for layout in LAYOUTS:
            try:
                layers = attrgetter(layout.layers)(self.model)
                paths = (layout.query, layout.key, layout.value, layout.output)
                linears = [attrgetter(path)(layer) for layer in layers for path in paths]
            except AttributeError:
                continue
            if len(layers) == self.num_layers and self._fits(linears):
                return layout
        known = ", ".join(layout.families for layout in LAYOUTS)
        raise InputError(
            f"teacher {self.name!r}: attention of model type {self.model.config.model_type!r} cannot be captured; "
            f"families that can be: {known}; `efficientbert finetune --distillation outputs` takes any teacher"
        )

    def _fits(self, linears: list) -> bool:
        """Whether tables and linears have BERT's shapes: families that differ may use the same names.

        Args:
            linears: Query, key, value and output of every layer in turn.
        """
        embeddings = getattr(self.model, "embeddings", None)
        words = getattr(embeddings, "word_embeddings", None)
        positions = getattr(embeddings, "position_embeddings", None)
        if not isinstance(words, nn.Embedding) or not isinstance(positions, nn.Embedding):
            return False
        if not isinstance(getattr(embeddings, "LayerNorm", None), nn.LayerNorm):
            return False
        if words.embedding_dim != self.hidden_size and not hasattr(self.model, "embeddings_project"):
            return False
        if not all(isinstance(linear, nn.Linear) for linear in linears):
            return False
        shapes = [(linear.in_features, linear.out_features) for linear in linears]
        query, key, value, output = (set(shapes[index::4]) for index in range(4))
        into, out = (self.hidden_size, linears[0].out_features), (linears[2].out_features, self.hidden_size)
        return query == key == {into} and value == {out[::-1]} and output == {out} and into[1] % self.num_heads == 0

    def _find_head(self, masked_lm: PreTrainedModel) -> nn.Module:
        """The masked-LM head as one module, held against the logits that the whole model gives."""
        input_ids = torch.arange(len(self.tokenizer))[None, -8:].to(self.model.device)
        with torch.no_grad():
            states, expected = self.model(input_ids=input_ids)[0], masked_lm(input_ids=input_ids).logits
            for names in self.layout.heads:
                if all(hasattr(masked_lm, name) for name in names):
                    head = nn.Sequential(*(getattr(masked_lm, name) for name in names))
                    if torch.allclose(head(states), expected, rtol=1e-3, atol=1e-3):
                        return head
        raise InputError(
            f"teacher {self.name!r}: the masked-LM head of model type {self.model.config.model_type!r} cannot be "
            f"captured; leave out the loss logits"
        )

    def _check_tokenizer(self) -> None:
        if not self.tokenizer.is_fast:
            raise InputError(
                f"teacher {self.name!r}: its tokenizer {type(self.tokenizer).__name__} is a slow one, which cannot "
                "cut texts to sequences; save it with a tokenizer.json"
            )
        check_tokenizer(self.tokenizer, self.model, f"teacher {self.name!r}")
        fit_segments(self.tokenizer, self.model)

    @torch.no_grad()
    def _check_captures(self) -> None:
        """Holds captured queries and keys against the attention probabilities that the model itself reports.

        log p - score is a constant per row, plus a position bias where the family has one; neither the mask nor the
        bias depends on the tokens, so what remains after removing the row mean must be the same for two different
        inputs.
        """
        generator = torch.Generator().manual_seed(0)
        input_ids = torch.randint(0, len(self.tokenizer), (2, 8), generator=generator)
        input_ids[input_ids == self.tokenizer.pad_token_id] = self.tokenizer.unk_token_id or 0
        inputs = {"input_ids": input_ids.to(self.model.device)}
        implementation = self.model.config._attn_implementation
        try:
            self.model.set_attn_implementation("eager")
            outputs = []

            def forward() -> BaseModelOutput:
                outputs.append(self.model(**inputs, output_hidden_states=True, output_attentions=True))
                return outputs[0]

            captures = self.recorder.record(forward)
        except CaptureError as error:
            raise InputError(f"teacher {self.name!r}: {error}") from None
        finally:
            self.model.set_attn_implementation(implementation)
        for layer, probabilities in enumerate(outputs[0].attentions or ()):
            scores = captures.attention_scores(layer).float()
            fits = probabilities.shape == scores.shape
            if fits:
                rest = probabilities.float().clamp_min(1e-30).log() - scores
                rest = rest - rest.mean(-1, keepdim=True)
                fits = torch.allclose(rest[0], rest[1], atol=1e-2)
            if not fits:
                raise InputError(
                    f"teacher {self.name!r}: queries and keys captured in layer {layer} do not give the attention of "
                    f"model type {self.model.config.model_type!r}; it cannot be a teacher"
                )
        if len(outputs[0].attentions or ()) != self.num_layers:
            raise InputError(
                f"teacher {self.name!r}: reports no attention probabilities to check the captures against"
            )

    @classmethod
    def load(
        cls,
        name: str,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        masked_lm: bool = False,
    ) -> "Teacher":
        """Loads a teacher from the Hub or a folder, with its masked-LM head if `masked_lm`.

        Raises:
            InputError: if it cannot be loaded or cannot be a teacher, or lacks weights or the head.
        """
        auto_class = AutoModelForMaskedLM if masked_lm else AutoModel
        model, report = load_model(auto_class, name, "teacher", dtype=dtype)
        tokenizer = load_tokenizer(name, "teacher")
        missing = sorted(key for key in report["missing_keys"] if "pooler" not in key)
        of_head = [key for key in missing if masked_lm and not key.startswith(model.base_model_prefix + ".")]
        if of_head:
            raise InputError(
                f"teacher {name!r}: its checkpoint has no masked-LM head (no {of_head[0]}); leave out the loss logits"
            )
        if missing:
            raise InputError(f"teacher {name!r}: its checkpoint lacks {len(missing)} weights, such as {missing[0]}")
        model = model.to(device)
        return cls(model.base_model, tokenizer, name, model if masked_lm else None)

    @property
    def vocab_size(self) -> int:
        """Rows of the token table."""
        return self.model.get_input_embeddings().weight.shape[0]

    @property
    def position_offset(self) -> int:
        """Rows of the position table in front of the first position (RoBERTa and MPNet keep two)."""
        padding_idx = self.model.embeddings.position_embeddings.padding_idx
        return 0 if padding_idx is None else padding_idx + 1

    @property
    def max_positions(self) -> int:
        """Longest sequence, in tokens."""
        return self.model.embeddings.position_embeddings.weight.shape[0] - self.position_offset

    @property
    def num_segments(self) -> int:
        """Rows of the segment table; 1 where there is none."""
        table = getattr(self.model.embeddings, "token_type_embeddings", None)
        return 1 if table is None else table.weight.shape[0]

    def attention_linears(self, layer: int) -> tuple[nn.Linear, nn.Linear, nn.Linear, nn.Linear]:
        """Query, key, value and output linears of one layer."""
        module = attrgetter(self.layout.layers)(self.model)[layer]
        paths = (self.layout.query, self.layout.key, self.layout.value, self.layout.output)
        return tuple(attrgetter(path)(module) for path in paths)

    @torch.no_grad()
    def __call__(self, batch: Mapping[str, torch.Tensor]) -> Captures:
        """The captures of a batch as of `encoder_inputs`, with logits if it has `labels` and the teacher a head.

        Position biases, of which the queries and keys know nothing, act within it as everywhere.
        """
        inputs = encoder_inputs(batch, self.model.dtype, self.position_offset)
        captures = self.recorder.record(lambda: self.model(**inputs, output_hidden_states=True))
        if self.head is None or "labels" not in batch:
            return captures
        predicted = captures.hidden_states[-1][batch["labels"] != -100]
        return dataclasses.replace(captures, logits=self.head(predicted))
