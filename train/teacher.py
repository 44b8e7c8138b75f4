"""Teachers: any BERT-like encoder of transformers, loaded, checked, and captured without touching its code."""

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter

import torch
from torch import nn
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from efficientbert.train.capture import CaptureError, Captures, Recorder
from efficientbert.train.packing import model_inputs
from efficientbert.train.script import LOAD_ERRORS, InputError


@dataclass(frozen=True)
class Layout:
    """Where a family of encoders keeps its attention: the list of layers, and four linears within one."""

    families: str
    layers: str
    query: str
    key: str
    value: str
    output: str


LAYOUTS = (
    Layout(
        "BERT, RoBERTa, ELECTRA",
        "encoder.layer",
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
    ),
    Layout("MPNet", "encoder.layer", "attention.attn.q", "attention.attn.k", "attention.attn.v", "attention.attn.o"),
    Layout(
        "DistilBERT",
        "transformer.layer",
        "attention.q_lin",
        "attention.k_lin",
        "attention.v_lin",
        "attention.out_lin",
    ),
)


class Teacher:
    """A frozen encoder with its tokenizer and everything that distillation and initialisation read from it.

    Args:
        model: A BERT-like encoder without a head.
        tokenizer: Its tokenizer.
        name: What the user called it, for messages.

    Raises:
        InputError: if its attention cannot be captured, or the tokenizer does not fit its vocabulary.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str):
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        for size in ("num_hidden_layers", "num_attention_heads", "hidden_size"):
            if not hasattr(model.config, size):
                raise InputError(f"teacher {name}: model type {model.config.model_type!r} has no {size}")
        self.num_layers: int = model.config.num_hidden_layers
        self.num_heads: int = model.config.num_attention_heads
        self.hidden_size: int = model.config.hidden_size
        self.layout = self._find_layout()
        layers = attrgetter(self.layout.layers)(model)
        paths = (self.layout.query, self.layout.key, self.layout.value)
        self.recorder = Recorder(
            model, [[attrgetter(path)(layer) for path in paths] for layer in layers], self.num_heads
        )
        self._check_tokenizer()
        self._check_captures()

    def _find_layout(self) -> Layout:
        for layout in LAYOUTS:
            try:
                layers = attrgetter(layout.layers)(self.model)
                paths = (layout.query, layout.key, layout.value, layout.output)
                linears = [attrgetter(path)(layer) for layer in layers for path in paths]
            except AttributeError:
                continue
            if len(layers) == self.num_layers and all(isinstance(linear, nn.Linear) for linear in linears):
                return layout
        known = ", ".join(layout.families for layout in LAYOUTS)
        raise InputError(
            f"teacher {self.name}: attention of model type {self.model.config.model_type!r} cannot be captured; "
            f"families that can be: {known}"
        )

    def _check_tokenizer(self) -> None:
        rows = self.vocab_size
        if len(self.tokenizer) > rows:
            raise InputError(
                f"teacher {self.name}: its tokenizer has {len(self.tokenizer)} tokens but its vocabulary {rows} rows"
            )
        if self.tokenizer.pad_token_id is None:
            raise InputError(f"teacher {self.name}: its tokenizer has no padding token")

    @torch.no_grad()
    def _check_captures(self) -> None:
        """Holds captured queries and keys against the attention probabilities that the model itself reports.

        log p - score is a constant per row, plus a position bias where the family has one; neither the mask nor the
        bias depends on the tokens, so what remains after removing the row mean must be the same for two different
        inputs.
        """
        generator = torch.Generator().manual_seed(0)
        input_ids = torch.randint(0, len(self.tokenizer), (2, 8), generator=generator)
        if self.tokenizer.pad_token_id is not None:
            input_ids[input_ids == self.tokenizer.pad_token_id] = self.tokenizer.unk_token_id or 0
        inputs = {"input_ids": input_ids.to(self.model.device)}
        implementation = self.model.config._attn_implementation
        try:
            self.model.set_attn_implementation("eager")
            outputs = []

            def forward() -> object:
                outputs.append(self.model(**inputs, output_hidden_states=True, output_attentions=True))
                return outputs[0]

            captures = self.recorder.record(forward)
        except CaptureError as error:
            raise InputError(f"teacher {self.name}: {error}") from None
        finally:
            self.model.set_attn_implementation(implementation)
        for layer, probabilities in enumerate(outputs[0].attentions or ()):
            rest = probabilities.float().clamp_min(1e-30).log() - captures.attention_scores(layer).float()
            rest = rest - rest.mean(-1, keepdim=True)
            if not torch.allclose(rest[0], rest[1], atol=1e-2):
                raise InputError(
                    f"teacher {self.name}: queries and keys captured in layer {layer} do not give the attention of "
                    f"model type {self.model.config.model_type!r}; it cannot be a teacher"
                )
        if len(outputs[0].attentions or ()) != self.num_layers:
            raise InputError(f"teacher {self.name}: reports no attention probabilities to check the captures against")

    @classmethod
    def load(cls, name: str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> "Teacher":
        """Loads a teacher from the Hub or a folder.

        Raises:
            InputError: if it cannot be loaded or cannot be a teacher.
        """
        try:
            tokenizer = AutoTokenizer.from_pretrained(name)
            model = AutoModel.from_pretrained(name, dtype=dtype)
        except LOAD_ERRORS as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise InputError(f"teacher {name}: cannot be loaded: {reason}") from None
        return cls(model.to(device), tokenizer, name)

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
        """The captures of a batch, packed or not, with `input_ids` and `attention_mask`, each of shape `(B, L)`."""
        inputs = model_inputs(batch, self.model.dtype, self.position_offset)
        return self.recorder.record(lambda: self.model(**inputs, output_hidden_states=True))
