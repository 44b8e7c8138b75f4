"""What the original release calls its tasks, and what its classifiers' outputs stand for."""

NOTATION = "tanh(linear4_2(gelu(linear4_2(x,wb1)),wb2))"

# What the outputs of the release's classifiers stand for. Its three-way order is not the one of `datasets`
# (entailment, neutral, contradiction), so a score against those labels has to go through the names.
THREE_WAY = ("contradiction", "entailment", "neutral")
TWO_WAY = ("entailment", "not_entailment")
LABELS: dict[str, tuple[str, ...]] = {
    "cola": ("unacceptable", "acceptable"),
    "sst2": ("negative", "positive"),
    "mrpc": ("not_equivalent", "equivalent"),
    "stsb": (),
    "qqp": ("not_duplicate", "duplicate"),
    "mnli": THREE_WAY,
    "mnli_matched": THREE_WAY,
    "mnli_mismatched": THREE_WAY,
    "ax": THREE_WAY,
    "qnli": TWO_WAY,
    "rte": TWO_WAY,
    "wnli": ("not_entailment", "entailment"),
}
SPAN_TASKS = ("squad", "squad_v2")
CHOICE_TASKS = ("swag", "race")
RELEASE_NAMES = {
    "sst-2": "sst2",
    "sts-b": "stsb",
    "mnli-mm": "mnli_mismatched",
    "squad1.1": "squad",
    "squad2.0": "squad_v2",
}
