"""The model card and the record it is rendered from: what was done to make a model, with which result."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCardData

import efficientbert
from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.train.cli.errors import InputError
from efficientbert.train.files.tables import flatten, table
from efficientbert.train.files.writing import write_text
from efficientbert.train.model_folder.record import first_argument, is_hub_id, read_provenance, shown, without_paths


HEADS = {  # class: the Auto class that loads it, and its pipeline
    "EfficientBertModel": ("AutoModel", "feature-extraction"),
    "EfficientBertForMaskedLM": ("AutoModelForMaskedLM", "fill-mask"),
    "EfficientBertForSequenceClassification": ("AutoModelForSequenceClassification", "text-classification"),
    "EfficientBertForTokenClassification": ("AutoModelForTokenClassification", "token-classification"),
    "EfficientBertForQuestionAnswering": ("AutoModelForQuestionAnswering", "question-answering"),
    "EfficientBertForMultipleChoice": ("AutoModelForMultipleChoice", None),
}


@dataclass(frozen=True)
class ModelCardInfo:
    """What a card says beside `config.json` and `provenance.json`. What is not given is not said.

    Args:
        license: Licence of the weights, as the Hub spells it.
        language: Language code or codes of the training text.
        teacher: Hub id or folder of the teacher; by default the first one in the provenance.
        corpus: The training text; by default the first one in the provenance.
        datasets: Data that it was trained on; those that are Hub ids enter the metadata.
    """

    license: str | None = None
    language: str | list[str] | None = None
    teacher: str | None = None
    corpus: str | None = None
    datasets: list[str] = field(default_factory=list)


def write_card(folder: Path, card: ModelCardInfo) -> None:
    """Writes `README.md` for the model in `folder`, from its `config.json` and `provenance.json`.

    Args:
        folder: Folder of the saved model and its tokenizer; a trailing `.partial` is no part of the model's name.
        card: What else is known.

    Raises:
        InputError: if there is no configuration, or the provenance cannot be read.
    """
    if not (folder / "config.json").is_file():
        raise InputError(f"model folder {folder}: has no config.json")
    config = EfficientBertConfig.from_pretrained(folder)
    steps = read_provenance(folder)
    teacher = card.teacher or first_argument(steps, "teacher")
    corpus = card.corpus or first_argument(steps, "corpus")
    name = folder.absolute().name.removesuffix(".partial")
    auto_class, pipeline_tag = HEADS[architecture(config)]

    tags = ["efficientbert"]
    tags += ["knowledge-distillation"] if teacher else []
    tags += ["nas"] if any(step["step"] == "search" for step in steps) else []
    datasets = [dataset for dataset in card.datasets if is_hub_id(dataset)]
    data = ModelCardData(
        library_name="transformers",
        license=card.license,
        language=card.language,
        base_model=teacher if teacher and is_hub_id(teacher) else None,
        datasets=datasets or None,
        pipeline_tag=pipeline_tag,
        tags=tags,
    )
    sections = [
        f"# {name}",
        "An EfficientBERT encoder (Dong et al., Findings of EMNLP 2021): BERT-like, every layer with feed-forward "
        "networks of its own shape.",
        architecture_section(config),
        origin_section(steps, teacher, corpus),
        loading_section(name, auto_class, (folder / "tokenizer_config.json").exists()),
    ]
    text = "\n\n".join(section for section in sections if section)
    write_text(folder / "README.md", f"---\n{data.to_yaml()}\n---\n\n{text}\n")


def architecture(config: EfficientBertConfig) -> str:
    """Name of the saved class; the bare encoder where the configuration names none of ours."""
    named = (config.architectures or ["EfficientBertModel"])[0]
    return named if named in HEADS else "EfficientBertModel"


def count_parameters(config: EfficientBertConfig, name: str) -> int:
    """Parameters of the class `name`, shared ones once; no memory is allocated for them."""
    with torch.device("meta"):
        return getattr(efficientbert, name)(config).num_parameters()


def architecture_section(config: EfficientBertConfig) -> str:
    """Sizes, and one table row per layer."""
    name = architecture(config)
    encoder, whole = count_parameters(config, "EfficientBertModel"), count_parameters(config, name)
    layers = zip(config.ffn_expressions, config.ffn_stacks, config.intermediate_sizes)
    rows = [(index + 1, f"`{ffn}`", stack, size) for index, (ffn, stack, size) in enumerate(layers)]
    return "\n\n".join(
        [
            "## Architecture",
            f"`{name}`, {whole:,} parameters ({encoder:,} in the encoder): {config.num_hidden_layers} layers of "
            f"hidden size {config.hidden_size}, {config.num_attention_heads} heads of size {config.head_dim}, "
            f"embedding size {config.embedding_size}, {config.vocab_size:,} tokens, "
            f"{config.max_position_embeddings} positions.",
            table(("layer", "feed-forward expression", "stack", "intermediate size"), rows),
        ]
    )


def origin_section(steps: list[dict[str, Any]], teacher: str | None, corpus: str | None) -> str:
    """Teacher, corpus, and every command with its arguments and final numbers; empty where nothing is known."""
    facts = []
    if teacher:
        known = is_hub_id(teacher)
        facts.append(f"* Teacher: {f'[{teacher}](https://huggingface.co/{teacher})' if known else shown(teacher)}")
    if corpus:
        facts.append(f"* Corpus: {shown(corpus)}")
    parts = ["\n".join(facts), *(step_section(number + 1, step) for number, step in enumerate(steps))]
    parts = [part for part in parts if part]
    return "\n\n".join(["## How it was made", *parts]) if parts else ""


def step_section(number: int, step: dict[str, Any]) -> str:
    """One step: the command, the versions it ran on, its final numbers."""
    words = ["efficientbert", str(step["step"])]
    for name, value in without_paths(step.get("arguments", {})).items():
        if value is not None and value != []:
            words += [f"--{name}", *(str(entry) for entry in (value if isinstance(value, list) else [value]))]
    parts = [f"### {number}. {step['step']}", f"```bash\n{shlex.join(words)}\n```"]
    if step.get("versions"):
        parts.append("With " + ", ".join(f"{name} {version}" for name, version in step["versions"].items()) + ".")
    if step.get("result"):
        parts.append(table(("result", "value"), list(flatten(without_paths(step["result"])).items())))
    return "\n\n".join(parts)


def loading_section(name: str, auto_class: str, has_tokenizer: bool) -> str:
    """How to load the model, with and without the package."""

    def code(package: str, argument: str) -> str:
        names = f"{auto_class}, AutoTokenizer" if has_tokenizer else auto_class
        lines = [*([f"import {package}"] if package else []), f"from transformers import {names}", ""]
        lines += [f'tokenizer = AutoTokenizer.from_pretrained("{name}")'] if has_tokenizer else []
        lines += [f'model = {auto_class}.from_pretrained("{name}"{argument})']
        return "\n".join(["```python", *lines, "```"])

    return "\n\n".join(
        [
            "## How to load it",
            "From its folder, or by its id on the Hub once it is there. With the package `efficientbert` installed:",
            code("efficientbert", ""),
            "Without it, with the code that lies beside the weights:",
            code("", ", trust_remote_code=True"),
        ]
    )
