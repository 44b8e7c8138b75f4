"""PyTorch EfficientBERT (Dong et al., Findings of EMNLP 2021): an encoder with searched feed-forward networks.

Shapes in the comments: B sequences, L tokens, E embedding size, D hidden size, H heads of size d.
"""

from collections.abc import Callable, MutableSequence
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BaseModelOutput,
    MaskedLMOutput,
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_efficientbert import EfficientBertConfig
from .ffn_efficientbert import evaluate, parse, uses_gate
from .slicing_efficientbert import slice_weights


class EfficientBertEmbeddings(nn.Module):
    """Narrow token table, three neighbours projected to the hidden size (MobileBERT, "Embedding Factorization")."""

    def __init__(self, config: EfficientBertConfig):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.embedding_size, padding_idx=config.pad_token_id)
        self.projection = nn.Linear(3 * config.embedding_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        input_ids: torch.LongTensor | None,
        attention_mask: torch.Tensor | None,
        token_type_ids: torch.LongTensor | None,
        position_ids: torch.Tensor | None,
        inputs_embeds: torch.Tensor | None,
    ) -> torch.Tensor:
        embeds = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds  # (B, L, E)
        following, preceding = embeds[:, 1:], embeds[:, :-1]
        if attention_mask is not None:
            # A neighbour that a token may not attend to counts as zeros: padding, or another packed sequence.
            if attention_mask.dim() == 2:
                allowed = attention_mask.to(torch.bool)
                sees_following, sees_preceding = allowed[:, 1:], allowed[:, :-1]
            else:
                allowed = attention_mask if attention_mask.dtype == torch.bool else attention_mask == 0
                allowed = allowed[:, 0].expand(-1, embeds.shape[1], -1)
                sees_following, sees_preceding = allowed.diagonal(1, 1, 2), allowed.diagonal(-1, 1, 2)
            following = following * sees_following[..., None]
            preceding = preceding * sees_preceding[..., None]
        following = nn.functional.pad(following, (0, 0, 0, 1))
        preceding = nn.functional.pad(preceding, (0, 0, 1, 0))
        hidden_states = self.projection(torch.cat((following, embeds, preceding), dim=-1))  # (B, L, 3E) -> (B, L, D)

        if position_ids is None:
            position_ids = torch.arange(embeds.shape[1], device=embeds.device)
        hidden_states = hidden_states + self.position_embeddings(position_ids)
        if token_type_ids is None or self.token_type_embeddings.num_embeddings == 1:
            hidden_states = hidden_states + self.token_type_embeddings.weight[0]
        else:
            hidden_states = hidden_states + self.token_type_embeddings(token_type_ids)
        return self.dropout(self.layer_norm(hidden_states))


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Unpack[TransformersKwargs],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention in plain products: the only implementation that returns its probabilities, `(B, H, L, L)`."""
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    elif attention_mask is not None:
        scores = scores + attention_mask
    probabilities = nn.functional.softmax(scores, dim=-1)
    probabilities = nn.functional.dropout(probabilities, p=dropout, training=module.training)
    return torch.matmul(probabilities, value).transpose(1, 2).contiguous(), probabilities


class EfficientBertAttention(nn.Module):
    """Multi-head self-attention with one product for queries, keys and values."""

    def __init__(self, config: EfficientBertConfig, layer_idx: int):
        super().__init__()
        self.config = config
        self.num_heads, self.head_dim = config.attentions[layer_idx]
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.attention_probs_dropout_prob
        self.is_causal = False
        inner_size = self.num_heads * self.head_dim
        self.qkv = nn.Linear(config.hidden_size, 3 * inner_size)
        self.output = nn.Linear(inner_size, config.hidden_size)

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None, **kwargs: Unpack[TransformersKwargs]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        shape = hidden_states.shape[:-1]
        qkv = self.qkv(hidden_states).view(*shape, 3, -1, self.head_dim)  # (B, L, 3, H, d)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, H, L, d) each
        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        context, probabilities = attention_interface(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        return self.output(context.reshape(*shape, -1)), probabilities


class EfficientBertFFN(nn.Module):
    """One feed-forward network with residual and LayerNorm: `LayerNorm(x + dropout(f(x)))` (paper, section 3.1)."""

    def __init__(self, config: EfficientBertConfig, layer_idx: int):
        super().__init__()
        self.expression = parse(config.ffn_expressions[layer_idx])
        intermediate_size = config.intermediate_sizes[layer_idx]
        self.linear1 = nn.Linear(config.hidden_size, intermediate_size)
        self.linear2 = nn.Linear(intermediate_size, config.hidden_size)
        self.gate = nn.Linear(config.hidden_size, intermediate_size) if uses_gate(self.expression) else None
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        linears = {"linear1": self.linear1, "linear2": self.linear2}
        if self.gate is not None:
            linears["gate"] = self.gate
        update = evaluate(self.expression, hidden_states, linears)
        return self.layer_norm(hidden_states + self.dropout(update))


class EfficientBertLayer(GradientCheckpointingLayer):
    """Self-attention, where the layer has heads, then a stack of feed-forward networks that share one expression."""

    def __init__(self, config: EfficientBertConfig, layer_idx: int):
        super().__init__()
        self.attention: EfficientBertAttention | None = None
        self.layer_norm: nn.LayerNorm | None = None
        if config.attentions[layer_idx][0]:
            self.attention = EfficientBertAttention(config, layer_idx)
            self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        ffns = nn.ModuleList(EfficientBertFFN(config, layer_idx) for _ in range(config.ffn_stacks[layer_idx]))
        self.ffns = cast(MutableSequence[EfficientBertFFN], ffns)  # whose type does not say what it holds

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None, **kwargs: Unpack[TransformersKwargs]
    ) -> torch.Tensor:
        if self.attention is not None and self.layer_norm is not None:
            context, _ = self.attention(hidden_states, attention_mask, **kwargs)
            hidden_states = self.layer_norm(hidden_states + self.dropout(context))
        for ffn in self.ffns:
            hidden_states = ffn(hidden_states)
        return hidden_states


class EfficientBertPreTrainedModel(PreTrainedModel):
    """What all EfficientBERT models share: loading, saving, initialisation and the supported attention functions."""

    config: EfficientBertConfig
    config_class = EfficientBertConfig
    base_model_prefix = "efficientbert"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _no_split_modules = ["EfficientBertEmbeddings", "EfficientBertLayer"]
    _can_record_outputs = {"hidden_states": EfficientBertLayer, "attentions": EfficientBertAttention}

    @torch.no_grad()
    def slice(self, config: EfficientBertConfig) -> "EfficientBertPreTrainedModel":
        """A smaller model of the same class with its part of these weights, see `slicing_efficientbert`.

        Args:
            config: Of the smaller model.

        Raises:
            ValueError: if it is larger anywhere.
        """
        part = type(self)(config)
        weights = slice_weights(self, self.config, part, config)
        for name, parameter in part.named_parameters():
            parameter.copy_(weights[name])
        part.set_attn_implementation(self.config._attn_implementation)
        return part.to(self.device).train(self.training)


class EfficientBertModel(EfficientBertPreTrainedModel):
    """The bare encoder: hidden states of every token, without a head."""

    def __init__(self, config: EfficientBertConfig):
        super().__init__(config)
        config.validate()  # single fields may have been assigned since it was made
        self.embeddings = EfficientBertEmbeddings(config)
        layers = nn.ModuleList(EfficientBertLayer(config, index) for index in range(config.num_hidden_layers))
        self.layers = cast(MutableSequence[EfficientBertLayer], layers)
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embeddings.word_embeddings = value

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutput:
        r"""
        Args:
            input_ids: Token ids of shape `(B, L)`.
            attention_mask: 1 for tokens to attend to, 0 for padding, of shape `(B, L)`; or who attends to whom, of
                shape `(B, 1, L, L)` or `(B, 1, 1, L)`, boolean or additive (0 where allowed). A neighbour outside the
                mask counts as zeros in the embedding.
            token_type_ids: Segment ids of shape `(B, L)`; zeros by default, and in a model of one segment.
            position_ids: Positions of shape `(B, L)`; 0 to L - 1 by default.
            inputs_embeds: Token embeddings of shape `(B, L, embedding_size)` instead of `input_ids`.

        Returns:
            `last_hidden_state` of shape `(B, L, hidden_size)`; with `output_hidden_states=True`, `hidden_states`: the
            embedding output and every layer's; with `output_attentions=True` (eager attention), `attentions` of the
            layers that have heads.

        Raises:
            ValueError: if not exactly one of `input_ids` and `inputs_embeds` is given.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        hidden_states = self.embeddings(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        attention_mask = create_bidirectional_mask(
            config=self.config, inputs_embeds=hidden_states, attention_mask=attention_mask
        )
        for layer in self.layers:
            hidden_states = layer(hidden_states, attention_mask, **kwargs)
        return BaseModelOutput(last_hidden_state=hidden_states)


def head_dropout(config: EfficientBertConfig) -> nn.Dropout:
    """Dropout in front of a task head."""
    return nn.Dropout(config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout)


class EfficientBertLMHead(nn.Module):
    """Masked-LM head, factorised through the embedding size so that the decoder can share the token table."""

    def __init__(self, config: EfficientBertConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.embedding_size)
        self.activation = nn.GELU(approximate="tanh")
        self.layer_norm = nn.LayerNorm(config.embedding_size, eps=config.layer_norm_eps)
        self.decoder = nn.Linear(config.embedding_size, config.vocab_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.layer_norm(self.activation(self.dense(hidden_states))))


class EfficientBertPooledHead(nn.Module):
    """Scores of a whole sequence from its first token: tanh pooler, then a linear."""

    def __init__(self, config: EfficientBertConfig, num_outputs: int):
        super().__init__()
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = head_dropout(config)
        self.output = nn.Linear(config.hidden_size, num_outputs)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.output(self.dropout(torch.tanh(self.pooler(hidden_states[:, 0]))))


class EfficientBertForMaskedLM(EfficientBertPreTrainedModel):
    """Encoder with a masked-LM head."""

    _tied_weights_keys = {"lm_head.decoder.weight": "efficientbert.embeddings.word_embeddings.weight"}

    def __init__(self, config: EfficientBertConfig):
        super().__init__(config)
        self.efficientbert = EfficientBertModel(config)
        self.lm_head = EfficientBertLMHead(config)
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm_head.decoder

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.lm_head.decoder = value

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> MaskedLMOutput:
        r"""
        Args:
            labels: Token ids of shape `(B, L)`, -100 where there is nothing to predict. Other arguments as in
                [`EfficientBertModel.forward`].

        Returns:
            `logits` of shape `(B, L, vocab_size)` and, with `labels`, the cross-entropy `loss`.
        """
        outputs = self.efficientbert(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, return_dict=True, **kwargs
        )
        logits = self.lm_head(outputs.last_hidden_state)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return MaskedLMOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class EfficientBertForSequenceClassification(EfficientBertPreTrainedModel):
    """Encoder with a pooled head: single-label and multi-label classification, and regression."""

    def __init__(self, config: EfficientBertConfig):
        super().__init__(config)
        self.efficientbert = EfficientBertModel(config)
        self.classifier = EfficientBertPooledHead(config, config.num_labels)
        self.post_init()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> "EfficientBertForSequenceClassification":
        """As of any model; version 0.1.0 called the head `sequence_classifier`, a name that PEFT does not know."""
        names = {r"^sequence_classifier\.": "classifier."} | (kwargs.pop("key_mapping", None) or {})
        return super().from_pretrained(*args, key_mapping=names, **kwargs)

    def compute_loss(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Loss of the configured problem type, which the labels decide when it is not set.

        Args:
            logits: Shape `(B, num_labels)`.
            labels: Class ids of shape `(B,)`, or floats of the shape of `logits`.
            num_items_in_batch: Labels in the whole accumulated batch, which the sum is then divided by.
        """
        problem = self.config.problem_type
        if problem is None:
            if self.config.num_labels == 1:
                problem = "regression"
            elif labels.is_floating_point():
                problem = "multi_label_classification"
            else:
                problem = "single_label_classification"
            self.config.problem_type = problem
        reduction = "mean" if num_items_in_batch is None else "sum"
        if problem == "regression":
            loss = nn.functional.mse_loss(logits, labels.to(logits.dtype).view_as(logits), reduction=reduction)
        elif problem == "multi_label_classification":
            loss = nn.functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction=reduction)
        else:
            loss = nn.functional.cross_entropy(logits.float(), labels.view(-1), reduction=reduction)
        return loss if num_items_in_batch is None else loss / num_items_in_batch

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SequenceClassifierOutput:
        r"""
        Args:
            labels: Class ids of shape `(B,)`; floats of shape `(B,)` for regression or `(B, num_labels)` for
                multi-label classification. Other arguments as in [`EfficientBertModel.forward`].

        Returns:
            `logits` of shape `(B, num_labels)` and, with `labels`, the `loss`.
        """
        outputs = self.efficientbert(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, return_dict=True, **kwargs
        )
        logits = self.classifier(outputs.last_hidden_state)
        loss = None if labels is None else self.compute_loss(logits, labels, **kwargs)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class EfficientBertForTokenClassification(EfficientBertPreTrainedModel):
    """Encoder with a linear on every token."""

    def __init__(self, config: EfficientBertConfig):
        super().__init__(config)
        self.efficientbert = EfficientBertModel(config)
        self.dropout = head_dropout(config)
        self.token_classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> TokenClassifierOutput:
        r"""
        Args:
            labels: Class ids of shape `(B, L)`, -100 where a token has none. Other arguments as in
                [`EfficientBertModel.forward`].

        Returns:
            `logits` of shape `(B, L, num_labels)` and, with `labels`, the cross-entropy `loss`.
        """
        outputs = self.efficientbert(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, return_dict=True, **kwargs
        )
        logits = self.token_classifier(self.dropout(outputs.last_hidden_state))
        loss = None if labels is None else self.loss_function(logits, labels, self.config, **kwargs)
        return TokenClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class EfficientBertForQuestionAnswering(EfficientBertPreTrainedModel):
    """Encoder with start and end scores on every token."""

    def __init__(self, config: EfficientBertConfig):
        super().__init__(config)
        self.efficientbert = EfficientBertModel(config)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        start_positions: torch.LongTensor | None = None,
        end_positions: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> QuestionAnsweringModelOutput:
        r"""
        Args:
            start_positions: Index of the answer's first token, of shape `(B,)`.
            end_positions: Index of the answer's last token, of shape `(B,)`. Other arguments as in
                [`EfficientBertModel.forward`].

        Returns:
            `start_logits` and `end_logits` of shape `(B, L)` and, with both positions, the mean cross-entropy `loss`.
        """
        outputs = self.efficientbert(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, return_dict=True, **kwargs
        )
        start_logits, end_logits = self.qa_outputs(outputs.last_hidden_state).unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = self.loss_function(start_logits, end_logits, start_positions, end_positions, **kwargs)
        return QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start_logits,
            end_logits=end_logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class EfficientBertForMultipleChoice(EfficientBertPreTrainedModel):
    """Encoder with one pooled score for each choice."""

    def __init__(self, config: EfficientBertConfig):
        super().__init__(config)
        self.efficientbert = EfficientBertModel(config)
        self.choice_classifier = EfficientBertPooledHead(config, 1)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> MultipleChoiceModelOutput:
        r"""
        Args:
            input_ids: Token ids of shape `(B, choices, L)`, and so every other input of
                [`EfficientBertModel.forward`].
            labels: Index of the right choice, of shape `(B,)`.

        Returns:
            `logits` of shape `(B, choices)` and, with `labels`, the cross-entropy `loss`.

        Raises:
            ValueError: as [`EfficientBertModel.forward`].
        """
        given = input_ids if inputs_embeds is None else inputs_embeds
        if given is None:
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        choices = given.shape[1]
        inputs = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        flat = [None if tensor is None else tensor.flatten(0, 1) for tensor in inputs]
        outputs = self.efficientbert(*flat, return_dict=True, **kwargs)
        logits = self.choice_classifier(outputs.last_hidden_state).view(-1, choices)
        loss = None
        if labels is not None:
            items = kwargs.get("num_items_in_batch")
            loss = nn.functional.cross_entropy(logits.float(), labels, reduction="mean" if items is None else "sum")
            loss = loss if items is None else loss / items
        return MultipleChoiceModelOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


EfficientBertModel.register_for_auto_class("AutoModel")
EfficientBertForMaskedLM.register_for_auto_class("AutoModelForMaskedLM")
EfficientBertForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")
EfficientBertForTokenClassification.register_for_auto_class("AutoModelForTokenClassification")
EfficientBertForQuestionAnswering.register_for_auto_class("AutoModelForQuestionAnswering")
EfficientBertForMultipleChoice.register_for_auto_class("AutoModelForMultipleChoice")

__all__ = [
    "EfficientBertForMaskedLM",
    "EfficientBertForMultipleChoice",
    "EfficientBertForQuestionAnswering",
    "EfficientBertForSequenceClassification",
    "EfficientBertForTokenClassification",
    "EfficientBertModel",
    "EfficientBertPreTrainedModel",
]
