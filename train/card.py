"""The model card and the record it is rendered from: what was done to make a model, with which result."""

import json
import os
import re
import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, ModelCardData, eval_result_entries_to_yaml
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

import efficientbert
from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.train.folders import write_json
from efficientbert.train.script import InputError


HEADS = {  # class: the Auto class that loads it, and its pipeline
    "EfficientBertModel": ("AutoModel", "feature-extraction"),
    "EfficientBertForMaskedLM": ("AutoModelForMaskedLM", "fill-mask"),
    "EfficientBertForSequenceClassification": ("AutoModelForSequenceClassification", "text-classification"),
    "EfficientBertForTokenClassification": ("AutoModelForTokenClassification", "token-classification"),
    "EfficientBertForQuestionAnswering": ("AutoModelForQuestionAnswering", "question-answering"),
    "EfficientBertForMultipleChoice": ("AutoModelForMultipleChoice", None),
}
INTERVAL_NOTE = "95% interval"
RESULTS_START, RESULTS_END = "<!-- results: start -->", "<!-- results: end -->"


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


def read_provenance(folder: Path) -> list[dict[str, Any]]:
    """The steps that made the model in `folder`, first to last; none where it keeps no record.

    Raises:
        InputError: if the record is no list of steps.
    """
    path = folder / "provenance.json"
    if not path.exists():
        return []
    try:
        steps = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"provenance {path}: cannot be read: {error}") from None
    if not isinstance(steps, list) or not all(isinstance(step, dict) and "step" in step for step in steps):
        raise InputError(f"provenance {path}: must be a list of steps, each with its name under 'step'")
    return steps


def write_provenance(folder: Path, steps: list[dict[str, Any]]) -> None:
    """Keeps the steps that made a model in `folder/provenance.json`, without the paths of this machine.

    Args:
        folder: The model's folder.
        steps: First to last, each `{"step": command, "arguments": {...}, "result": {...}, "versions": {...}}`.
    """
    write_json(folder / "provenance.json", without_paths(steps))


def without_paths(value: Any) -> Any:
    """A JSON value in which every local path is cut down to `./` and its last component."""
    if isinstance(value, dict):
        return {key: without_paths(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_paths(entry) for entry in value]
    if isinstance(value, Path):
        return f"./{value.name}"
    if not isinstance(value, str):
        return value
    value = value.removeprefix("file://")
    if is_path(value):
        return f"./{Path(value).name}"
    # Paths inside a longer text; the slashes of https:// are none.
    return re.sub(r"(?<![\w./~])(?:~/|/(?!/))(?:[^\s,;:'\"/]+/)*([^\s,;:'\"/]+)/?", r"./\1", value)


def is_path(text: str) -> bool:
    """Whether the whole text names a file or folder of this machine. A single word only as a model folder."""
    if any(mark in text for mark in ",;\n") or len(text) > 255:
        return False
    if text.startswith(("/", "./", "../", "~/")):
        return True
    return Path(text).exists() if "/" in text else Path(text, "config.json").is_file() and text != ""


def is_hub_id(text: str) -> bool:
    """Whether the text can be an id on the Hub and is nothing on this machine."""
    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return not is_path(text) and not Path(text).exists()


def first_argument(steps: list[dict[str, Any]], name: str) -> str | None:
    """The first value that any step has for an argument."""
    values = (step.get("arguments", {}).get(name) for step in steps)
    return next((value for value in values if value), None)


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


def add_results(folder: Path, results: list[EvalResult]) -> None:
    """Adds evaluation results to a model's card and `.eval_results`; a result given again replaces the earlier one.

    They go into the card's `model-index` and a table, and, where the dataset is one of the Hub, into
    `.eval_results/TASK.yaml` (https://huggingface.co/docs/hub/eval-results). All else in these files stays.

    Args:
        folder: A model folder with a card.
        results: One entry per metric.

    Raises:
        InputError: if there is no card, or a file cannot be read.
    """
    path = folder / "README.md"
    if not path.exists():
        raise InputError(f"model folder {folder}: has no model card README.md")
    results = [EvalResult(**without_paths(vars(result))) for result in results]
    try:
        card = ModelCard.load(path)
    except (ValueError, yaml.YAMLError) as error:
        raise InputError(f"model card {path}: cannot be read: {' '.join(str(error).split())}") from None
    files = eval_result_files(folder, results)

    known = [old for old in card.data.eval_results or [] if not any(same_figure(old, new) for new in results)]
    card.data.eval_results = known + results
    card.data.model_name = card.data.model_name or folder.absolute().name.removesuffix(".partial")
    card.text = with_results_table(card.text, card.data.eval_results)
    write_text(path, card.content)
    for file, content in files.items():
        file.parent.mkdir(exist_ok=True)
        write_text(file, content)


def same_figure(old: EvalResult, new: EvalResult) -> bool:
    """Whether two results differ in nothing but the value and its interval."""
    return replace(old, metric_args=None).is_equal_except_value(replace(new, metric_args=None))


def interval_text(result: EvalResult) -> str:
    """The 95% interval of a result, kept among the arguments of its metric; empty where it has none."""
    interval = (result.metric_args or {}).get("interval_95")
    return f"{number(interval[0])} to {number(interval[1])}" if interval else ""


def eval_result_files(folder: Path, results: list[EvalResult]) -> dict[Path, str]:
    """The files of `.eval_results`, one per task, with `results` added to what they hold.

    Raises:
        InputError: if a file there cannot be read.
    """
    contents: dict[Path, list[dict[str, Any]]] = {}
    for result in results:
        if not is_hub_id(result.dataset_type):
            continue
        task = result.dataset_config or "default"
        notes = [result.metric_name or result.metric_type]
        notes += [f"{result.dataset_split} split"] if result.dataset_split else []
        notes += [f"{INTERVAL_NOTE} {interval_text(result)}"] if interval_text(result) else []
        entry = EvalResultEntry(
            dataset_id=result.dataset_type,
            task_id=task,
            value=result.metric_value,
            dataset_revision=result.dataset_revision,
            source_url=result.source_url,
            source_name=result.source_name,
            notes=", ".join(notes),
        )
        stem = result.dataset_config or result.dataset_type.split("/")[-1]
        file = folder / ".eval_results" / f"{re.sub(r'[^A-Za-z0-9_-]', '-', stem)}.yaml"
        contents.setdefault(file, read_entries(file))
        (new,) = eval_result_entries_to_yaml([entry])
        contents[file] = [old for old in contents[file] if not same_evaluation(old, new)] + [new]
    return {file: yaml.safe_dump(entries, sort_keys=False, allow_unicode=True) for file, entries in contents.items()}


def read_entries(file: Path) -> list[dict[str, Any]]:
    """The entries of one `.eval_results` file; none where it does not exist.

    Raises:
        InputError: if it holds anything but a list of entries.
    """
    if not file.exists():
        return []
    try:
        entries = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"evaluation results {file}: cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"evaluation results {file}: must be a list of entries, each with dataset and value")
    return entries


def same_evaluation(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether two entries of `.eval_results` differ in nothing but the value and its interval."""

    def rest(entry: dict[str, Any]) -> dict[str, Any]:
        return {**entry, "value": None, "notes": str(entry.get("notes", "")).split(f", {INTERVAL_NOTE}")[0]}

    return rest(old) == rest(new)


def with_results_table(text: str, results: list[EvalResult]) -> str:
    """A card's text with the table of all results, in the place of the earlier table or at the end."""
    header = ["dataset", "configuration", "split", "metric", "value"]
    rows = [
        [
            result.dataset_name,
            result.dataset_config or "",
            result.dataset_split or "",
            result.metric_name or result.metric_type,
            number(result.metric_value),
        ]
        for result in results
    ]
    intervals = [interval_text(result) for result in results]
    if any(intervals):
        header, rows = [*header, INTERVAL_NOTE], [[*row, interval] for row, interval in zip(rows, intervals)]
    block = "\n".join([RESULTS_START, table(tuple(header), [tuple(row) for row in rows]), RESULTS_END])
    before, start, rest = text.partition(RESULTS_START)
    _, end, after = rest.partition(RESULTS_END)
    if start and end:
        return before + block + after
    return f"{text.rstrip()}\n\n## Results\n\n{block}\n"


def table(header: tuple[str, ...], rows: list[tuple]) -> str:
    """A Markdown table; the cells are escaped."""
    lines = [header, ["---"] * len(header), *([number(cell).replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: Any) -> str:
    """A value as one line of text, floats to five digits."""
    return f"{value:.5g}" if isinstance(value, float) else " ".join(str(value).split())


def shown(text: str) -> str:
    """A Hub id or text as it is; of a local path the last component."""
    short = without_paths(text)
    return f"{short.removeprefix('./')} (local)" if short.startswith("./") else short


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, keys joined by dots."""
    flat = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def write_text(path: Path, text: str) -> None:
    """Writes a text under a temporary name and moves it, so that a reader never sees half a file."""
    temporary = path.with_name(path.name + ".partial")
    with open(temporary, "w", encoding="utf-8", newline="") as file:
        file.write(text)
    os.replace(temporary, path)
