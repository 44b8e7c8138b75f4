"""The model card and the record it is rendered from: what was done to make a model, with which result."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import torch
import yaml
from huggingface_hub import ModelCard, ModelCardData

import efficientbert
from efficientbert.configuration_efficientbert import PRESETS, EfficientBertConfig
from efficientbert.train.cli.errors import InputError, one_line
from efficientbert.train.files.tables import flatten, table
from efficientbert.train.files.writing import write_text
from efficientbert.train.model_folder.loading import is_embedder
from efficientbert.train.model_folder.predictions import prediction_code
from efficientbert.train.model_folder.record import is_hub_id, read_provenance, recorded_values, shown
from efficientbert.train.tasks.arguments import GLUE_COLUMNS


HEADS = {  # class: the Auto class that loads it, and its pipeline
    "EfficientBertModel": ("AutoModel", "feature-extraction"),
    "EfficientBertForMaskedLM": ("AutoModelForMaskedLM", "fill-mask"),
    "EfficientBertForSequenceClassification": ("AutoModelForSequenceClassification", "text-classification"),
    "EfficientBertForTokenClassification": ("AutoModelForTokenClassification", "token-classification"),
    "EfficientBertForQuestionAnswering": ("AutoModelForQuestionAnswering", "question-answering"),
    "EfficientBertForMultipleChoice": ("AutoModelForMultipleChoice", None),
}


def write_card(folder: Path) -> None:
    """Writes `README.md` for the model in `folder`; see `make_card`."""
    write_text(folder / "README.md", make_card(folder, folder.absolute().name.removesuffix(".partial")))


def make_card(folder: Path, name: str) -> str:
    """The model card of a folder, from its `config.json` and `provenance.json`. What is not known is not said.

    Args:
        folder: Folder of the saved model and its tokenizer.
        name: What it is loaded by: the name of the folder, or an id on the Hub.

    Raises:
        InputError: if there is no configuration, or the provenance cannot be read.
    """
    if not (folder / "config.json").is_file():
        raise InputError(f"model folder '{folder}': has no config.json")
    config = EfficientBertConfig.from_pretrained(folder)
    steps = read_provenance(folder)
    stated = steps[-1].get("arguments", {}) if steps else {}  # licences of earlier models are their own
    teacher, corpus = (next(iter(recorded_values(steps, name)), None) for name in ("teacher", "corpus"))
    auto_class, pipeline_tag = HEADS[architecture(config)]

    has_tokenizer = (folder / "tokenizer_config.json").exists()
    tags = ["efficientbert"]
    tags += ["knowledge-distillation"] if teacher else []
    tags += ["nas"] if any(step["step"] == "search" for step in steps) else []
    embeds = is_embedder(folder)
    tags += ["sentence-transformers", "sentence-similarity"] if embeds else []
    base_model, relation = find_base_model(steps)
    data = ModelCardData(
        library_name="sentence-transformers" if embeds else "transformers",
        license=stated.get("license"),
        language=stated.get("language"),
        base_model=base_model,
        base_model_relation=relation,
        datasets=list(dict.fromkeys(name for step in steps for name in step.get("datasets", []))) or None,
        pipeline_tag="sentence-similarity" if embeds else pipeline_tag,
        tags=tags,
    )
    sections = [
        f"# {name.split('/')[-1]}",
        "An EfficientBERT encoder (Dong et al., Findings of EMNLP 2021): BERT-like, every layer with feed-forward "
        "networks of its own shape.",
        architecture_section(config),
        origin_section(steps, teacher, corpus),
        loading_section(name, auto_class, has_tokenizer),
        prediction_section(config, steps) if has_tokenizer else "",
        embedding_section(folder, name, config.hidden_size) if embeds else "",
    ]
    text = "\n\n".join(section for section in sections if section)
    return f"---\n{data.to_yaml()}\n---\n\n{text}\n"


def add_section(folder: Path, title: str, text: str) -> None:
    """Puts a section at the end of a model's card, in the place of an earlier one of its title."""
    card = folder / "README.md"
    earlier = rf"\n## {re.escape(title)}\n.*?(?=\n## |\Z)"
    before = re.sub(earlier, "", card.read_text(encoding="utf-8"), flags=re.DOTALL)
    write_text(card, f"{before.rstrip()}\n\n## {title}\n\n{text}\n")


def find_base_model(steps: list[dict[str, Any]]) -> tuple[str | None, str | None]:
    """The Hub id of the model that training began with, and the Hub's word for what was done to it.

    A student that was distilled from a configuration has its teacher as base; the Hub has no word for that.
    """
    first = steps[0].get("arguments", {}) if steps else {}
    start = first.get("model") or first.get("student")
    if start and start not in PRESETS and is_hub_id(start):
        return start, "finetune"
    teacher = next(iter(recorded_values(steps, "teacher")), None)
    return (teacher if teacher and is_hub_id(teacher) else None), None


def parse_card(content: bytes, path: Path) -> ModelCard:
    """A model card that a person or another program may have changed.

    Args:
        content: Its text in UTF-8.
        path: Its file, for messages.

    Raises:
        InputError: if it is no text, or its metadata no YAML mapping.
    """
    try:
        return ModelCard(content.decode("utf-8"))
    except (ValueError, yaml.YAMLError) as error:
        raise InputError(f"model card '{path}': cannot be read: {one_line(error)}") from None


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
    attention = [f"{heads} heads of size {size}" if heads else "none" for heads, size in config.attentions]
    layers = zip(attention, config.ffn_expressions, config.ffn_stacks, config.intermediate_sizes)
    rows = [(index + 1, heads, f"`{ffn}`", stack, size) for index, (heads, ffn, stack, size) in enumerate(layers)]
    return "\n\n".join(
        [
            "## Architecture",
            f"`{name}`, {whole:,} parameters ({encoder:,} in the encoder): {config.num_hidden_layers} layers of "
            f"hidden size {config.hidden_size}, embedding size {config.embedding_size}, {config.vocab_size:,} tokens, "
            f"{config.max_position_embeddings} positions.",
            table(("layer", "attention", "feed-forward expression", "stack", "intermediate size"), rows),
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
    for name, value in step.get("arguments", {}).items():
        if value is not None and value != []:
            words += [f"--{name}", *(str(entry) for entry in (value if isinstance(value, list) else [value]))]
    parts = [f"### {number}. {step['step']}", f"```bash\n{shlex.join(words)}\n```"]
    if step.get("versions"):
        parts.append("With " + ", ".join(f"{name} {version}" for name, version in step["versions"].items()) + ".")
    if step.get("result"):
        parts.append(table(("result", "value"), list(flatten(step["result"]).items())))
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
            "From its folder, or by its id on the Hub. With the package `efficientbert` installed:",
            code("efficientbert", ""),
            "Without it, with the code that lies beside the weights:",
            code("", ", trust_remote_code=True"),
        ]
    )


def prediction_section(config: EfficientBertConfig, steps: list[dict[str, Any]]) -> str:
    """A prediction of the kind that the head makes, with the model and tokenizer that were loaded."""
    code = prediction_code(architecture(config), config.problem_type, reads_pairs(steps))
    return f"## How to predict with it\n\nBehind these lines:\n\n```python\n{code}\n```"


def embedding_section(folder: Path, name: str, size: int) -> str:
    """What an embedder gives, and how sentence-transformers loads it."""
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    length = " of length 1" if any(module["type"].endswith("Normalize") for module in modules) else ""
    dense = [module["path"] for module in modules if module["type"].endswith("Dense")]
    if dense:
        size = json.loads((folder / dense[-1] / "config.json").read_text(encoding="utf-8"))["out_features"]
    space = "\nand lie in the space of the teacher's: cosines between the two make sense" if dense else ""
    return f"""## Sentence embeddings

`sentence-transformers` loads this folder. Its embeddings{length} have {size} numbers{space}.

```python
import efficientbert  # or, without the package, SentenceTransformer(..., trust_remote_code=True)
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{name}")
model.similarity(model.encode(["A cat sleeps."]), model.encode(["A kitten naps.", "Rates were raised."]))
```"""


def reads_pairs(steps: list[dict[str, Any]]) -> bool:
    """Whether the last labelled data that a model was trained on had two texts a row."""
    tasks = [step["task_arguments"] for step in steps if "task_arguments" in step]
    last = tasks[-1] if tasks else {}
    return "text_pair_column" in last or GLUE_COLUMNS.get(last.get("task", ""), ("", None))[1] is not None
