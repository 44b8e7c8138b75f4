"""Random input: it is read, or refused in one line; nothing else comes out."""

import json
import os
import string

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.train.cli.arguments import field_kinds, parse_arguments, read_recipe
from efficientbert.train.cli.errors import LOAD_ERRORS, InputError, bad_input_errors
from efficientbert.train.distillation.arguments import DistillArguments
from efficientbert.train.tasks.arguments import FinetuneArguments


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
    assert len(config.ffn_expressions) == len(config.ffn_stacks) == config.num_hidden_layers


@pytest.mark.parametrize("text", ["", "[]", "3", "{", "null", '{"hidden_size": 1e400}', "\ufeff{}"])
def test_configurations_of_odd_files(text, tmp_path):
    from efficientbert.train.distillation.student import read_config

    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises((InputError, *bad_input_errors())):
        read_config(tmp_path / "config.json")
