"""Code in model cards that predicts something, one text for every kind of head; `model` and `tokenizer` are loaded."""

STATES = """
inputs = tokenizer(["A cat sleeps.", "A kitten naps."], padding=True, truncation=True, return_tensors="pt")
print(model(**inputs).last_hidden_state.shape)  # texts, tokens, numbers of each
"""

MASK = """
inputs = tokenizer(f"Paris is the {tokenizer.mask_token} of France.", return_tensors="pt")
logits = model(**inputs).logits[inputs["input_ids"] == tokenizer.mask_token_id]
print(tokenizer.convert_ids_to_tokens(logits[0].topk(3).indices.tolist()))
"""

# In the next three the texts are put in, which are one or two.
CLASSES = """
inputs = tokenizer({texts}, truncation=True, return_tensors="pt")
probabilities = model(**inputs).logits[0].softmax(-1)
for label, probability in enumerate(probabilities.tolist()):
    print(model.config.id2label[label], round(probability, 3))
"""

SEVERAL = """
inputs = tokenizer({texts}, truncation=True, return_tensors="pt")
probabilities = model(**inputs).logits[0].sigmoid()  # of every label by itself
for label, probability in enumerate(probabilities.tolist()):
    print(model.config.id2label[label], round(probability, 3))
"""

NUMBER = """
inputs = tokenizer({texts}, truncation=True, return_tensors="pt")
print(model(**inputs).logits.item())
"""

# As in training, a word has the tag of its first piece.
TAGS = """
inputs = tokenizer("Ada left London .", truncation=True, return_tensors="pt")
tags = model(**inputs).logits[0].argmax(-1).tolist()
for token, tag in zip(inputs.tokens(), tags):  # a word has the tag of its first token
    print(token, model.config.id2label[tag])
"""

ANSWER = """
import torch

question, context = "Who left?", "Ada left in the morning."
inputs = tokenizer(question, context, truncation="only_second", return_offsets_mapping=True, return_tensors="pt")
offsets = inputs.pop("offset_mapping")[0].tolist()
outputs = model(**inputs)
in_context = torch.tensor([side == 1 for side in inputs.sequence_ids()])
spans = (in_context[:, None] & in_context).triu()  # from a token to the same or a later one
scores = outputs.start_logits[0][:, None] + outputs.end_logits[0]
# Where scores[0, 0] is higher, a model that was trained on questions without an answer gives none.
first, last = divmod(scores.masked_fill(~spans, -torch.inf).argmax().item(), len(offsets))
print(context[offsets[first][0] : offsets[last][1]])
"""

CHOICE = """
text, choices = "She sat", ["down.", "blue."]
inputs = tokenizer([text] * len(choices), choices, padding=True, truncation=True, return_tensors="pt")
logits = model(**{name: tensor[None] for name, tensor in inputs.items()}).logits[0]
print(choices[logits.argmax()])
"""

CODE = {
    "EfficientBertModel": STATES,
    "EfficientBertForMaskedLM": MASK,
    "EfficientBertForSequenceClassification": CLASSES,
    "EfficientBertForTokenClassification": TAGS,
    "EfficientBertForQuestionAnswering": ANSWER,
    "EfficientBertForMultipleChoice": CHOICE,
}
OF_PROBLEM = {"regression": NUMBER, "multi_label_classification": SEVERAL}  # in the place of CLASSES


def prediction_code(architecture: str, problem_type: str | None, pair: bool) -> str:
    """Code that predicts something.

    Args:
        architecture: Class of the model.
        problem_type: As its configuration says it.
        pair: Whether its head for texts was trained on two texts a row.
    """
    code = CODE[architecture]
    if code is CLASSES:
        texts = '"A first text.", "A second text."' if pair else '"A text."'
        code = OF_PROBLEM.get(problem_type or "", CLASSES).format(texts=texts)
    return code.strip()
