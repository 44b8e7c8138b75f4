"""Random input: it is read, or refused in one line; nothing else comes out."""

import csv
import io
import json
import os
import re
import string

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.train.cli.arguments import field_kinds, parse_arguments, read_recipe
from efficientbert.train.cli.errors import LOAD_ERRORS, InputError, bad_input_errors
from efficientbert.train.distillation.arguments import DistillArguments
from efficientbert.train.tasks.arguments import FinetuneArguments, TaskArguments
from efficientbert.train.tasks.kinds import task_of_data


# The suite runs the same 200 cases every time; `make fuzz` runs more, others each time.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "200"))
settings.register_profile(
    "fuzz",
    max_examples=EXAMPLES,
    derandomize=EXAMPLES == 200,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("fuzz")

NAMES = sorted({*field_kinds(DistillArguments), "nonsense", "", "max-steps"})
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12), st.dates(), st.just("no"), st.just("~")
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner))


def check_kinds_of(arguments) -> None:
    for name, (kind, several, optional) in field_kinds(type(arguments)).items():
        value = getattr(arguments, name)
        assert (value is None and optional) or all(
            isinstance(one, (int, float) if kind is float else kind) for one in (value if several else [value])
        ), (name, value)


def one_line(error: Exception) -> None:
    assert "\n" not in " ".join(str(error).split()) and str(error).strip()


@given(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5))
def test_recipes_of_any_values(tmp_path, values):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    try:
        given_values = read_recipe(path, DistillArguments)
    except InputError as error:
        one_line(error)
        return
    needed = {"teacher": "t", "corpus": "c", "output_dir": "o"}
    check_kinds_of(DistillArguments(**(needed | given_values)))


@given(st.text(max_size=60) | st.text(string.printable, max_size=60))
def test_recipes_of_any_text(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        read_recipe(path, DistillArguments)
    except InputError as error:
        one_line(error)


WORDS = st.one_of(
    st.sampled_from([f"--{name}" for name in NAMES]), st.text(string.printable, max_size=8), st.just("-")
)


@given(st.lists(WORDS, max_size=8))
def test_command_lines_of_any_words(words):
    for arguments_class in (DistillArguments, FinetuneArguments):
        try:
            check_kinds_of(parse_arguments(arguments_class, words, "test"))
        except InputError as error:
            one_line(error)
        except SystemExit as ended:  # "--help", abbreviated or not
            assert ended.code == 0


FIELDS = ["hidden_size", "num_hidden_layers", "num_attention_heads", "head_dim", "embedding_size", "vocab_size"]
FIELDS += ["ffn_expressions", "ffn_stacks", "intermediate_sizes", "hidden_act", "type_vocab_size", "id2label"]
FIELDS += ["attention_heads", "head_dims"]
EXPRESSIONS = st.text("linear12gatexmul(),. ", max_size=30) | st.just("linear2(gelu(linear1(x)))")
CONFIG_VALUES = (
    st.integers(-2, 40) | st.floats() | st.none() | EXPRESSIONS | st.lists(st.integers(-1, 40) | EXPRESSIONS)
)


@given(st.dictionaries(st.sampled_from(FIELDS), CONFIG_VALUES, max_size=5))
def test_configurations_of_any_values(tmp_path, fields):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(fields), encoding="utf-8")
    try:
        config = EfficientBertConfig.from_json_file(path)
    except (*bad_input_errors(), *LOAD_ERRORS) as error:  # what commands make one line of
        one_line(error)
        return
    layers = config.num_hidden_layers
    assert len(config.ffn_expressions) == len(config.ffn_stacks) == len(config.attentions) == layers


@pytest.mark.parametrize("text", ["", "[]", "3", "{", "null", '{"hidden_size": 1e400}', "\ufeff{}"])
def test_configurations_of_odd_files(text, tmp_path):
    from efficientbert.train.distillation.student import read_config

    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises((InputError, *bad_input_errors())):
        read_config(tmp_path / "config.json")


TABLE_EXAMPLES = EXAMPLES if "FUZZ_EXAMPLES" in os.environ else 40  # reading a file takes `datasets` a while
CELLS = st.text(st.sampled_from("abé 0'1\",;\t#-.\u2028"), max_size=6) | st.sampled_from(
    ["None", "null", "NA", "nan", "01"]
)
ENDS = st.sampled_from(["\n", "\r\n"])
JSON_CELLS = CELLS | st.integers(-3, 3) | st.booleans() | st.none() | st.just(0.5) | st.lists(CELLS, max_size=2)


@pytest.fixture(scope="module")
def tokenizer(teacher_folder):
    return AutoTokenizer.from_pretrained(teacher_folder())


def read_task(path, tokenizer):
    """Texts and label names of a table as the commands read it; None where it is refused."""
    try:
        task = task_of_data(TaskArguments(data=str(path), text_column="text"), tokenizer, "train")
        data = task.load("train")
    except InputError as error:
        one_line(error)
        return None
    labels = data.features["labels"][:]
    if task.label_names is None:
        return data.rows["text"][:], labels
    if task.multi_label:
        return data.rows["text"][:], [[task.label_names[i] for i, one in enumerate(row) if one] for row in labels]
    return data.rows["text"][:], [task.label_names[label] for label in labels]


NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)\s*")


def is_regression(labels):
    """Whether texts are taken for numbers: more than half of them are, and some are not whole."""
    numbers = [float(label) for label in labels if NUMBER.fullmatch(label)]
    return 2 * len(numbers) > len(labels) and not all(number.is_integer() for number in numbers)


def can_be_learned(labels):
    """Whether texts are numbers where they are taken for such, or else two classes at least."""
    return all(map(NUMBER.fullmatch, labels)) if is_regression(labels) else len(set(labels)) > 1


@settings(max_examples=TABLE_EXAMPLES)
@given(
    st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=6), ENDS, st.booleans(), st.booleans(), st.integers(0, 6)
)
def test_csv_tables(tmp_path, tokenizer, rows, end, mark, quoted, ragged):
    path = tmp_path / "table.csv"
    written = io.StringIO(newline="")
    quoting = csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
    csv.writer(written, lineterminator=end, quoting=quoting).writerows([("text", "label"), *rows])
    extra = f"a,b,c{end}" if ragged == 1 else ""
    text = ("\ufeff" if mark else "") + written.getvalue() + extra
    path.write_text(text, encoding="utf-8", newline="")
    found = read_task(path, tokenizer)
    if extra or not all(text and label for text, label in rows) or not can_be_learned([label for _, label in rows]):
        assert found is None  # a field too many, a missing text or label, one class, or no number among numbers
        return
    reference = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline="")))
    assert found is not None and found[0] == [row["text"] for row in reference]
    labels = [row["label"] for row in reference]
    assert found[1] == (labels if isinstance(found[1][0], str) else list(map(float, labels)))


@settings(max_examples=TABLE_EXAMPLES)
@given(
    st.lists(st.fixed_dictionaries({"text": CELLS | JSON_CELLS, "label": JSON_CELLS}), min_size=1, max_size=5)
    | st.lists(st.fixed_dictionaries({"text": CELLS, "label": CELLS}), min_size=2, max_size=5),
    st.booleans(),
    st.booleans(),
)
def test_json_tables(tmp_path, tokenizer, rows, lines, ascii_only):
    path = tmp_path / ("table.jsonl" if lines else "table.json")
    text = "\n".join(json.dumps(row, ensure_ascii=ascii_only) for row in rows)
    path.write_text(text if lines else json.dumps(rows, ensure_ascii=ascii_only), encoding="utf-8")
    found = read_task(path, tokenizer)
    texts, labels = ([row[name] for row in rows] for name in ("text", "label"))
    kinds = {"number" if type(label) in (int, float) else type(label) for label in labels}
    if not all(isinstance(one, str) for one in texts) or len(kinds) > 1 or None in labels:
        assert found is None
        return
    if found is None:  # one class, no label in any row, or no number among numbers
        refused = len({str(label) for label in labels}) < 2 or kinds == {list}
        assert refused or (kinds == {str} and not can_be_learned(labels))
        return
    assert found[0] == texts
    if kinds == {list}:
        assert list(map(set, found[1])) == list(map(set, labels))
    elif isinstance(found[1][0], str):
        assert found[1] == list(map(str, labels))
    else:
        assert found[1] == pytest.approx(list(map(float, labels)))
