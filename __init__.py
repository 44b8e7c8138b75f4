"""EfficientBERT: small, fast BERT-like encoders, searched and distilled from any teacher."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from .configuration_efficientbert import EfficientBertConfig
from .modeling_efficientbert import (
    EfficientBertForMaskedLM,
    EfficientBertForMultipleChoice,
    EfficientBertForQuestionAnswering,
    EfficientBertForSequenceClassification,
    EfficientBertForTokenClassification,
    EfficientBertModel,
    EfficientBertPreTrainedModel,
)


AutoConfig.register("efficientbert", EfficientBertConfig)
AutoModel.register(EfficientBertConfig, EfficientBertModel)
AutoModelForMaskedLM.register(EfficientBertConfig, EfficientBertForMaskedLM)
AutoModelForMultipleChoice.register(EfficientBertConfig, EfficientBertForMultipleChoice)
AutoModelForQuestionAnswering.register(EfficientBertConfig, EfficientBertForQuestionAnswering)
AutoModelForSequenceClassification.register(EfficientBertConfig, EfficientBertForSequenceClassification)
AutoModelForTokenClassification.register(EfficientBertConfig, EfficientBertForTokenClassification)

__version__ = "0.1.0"

__all__ = [
    "EfficientBertConfig",
    "EfficientBertForMaskedLM",
    "EfficientBertForMultipleChoice",
    "EfficientBertForQuestionAnswering",
    "EfficientBertForSequenceClassification",
    "EfficientBertForTokenClassification",
    "EfficientBertModel",
    "EfficientBertPreTrainedModel",
]
