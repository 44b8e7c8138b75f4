"""The command distill with every loss and layer map: what it writes, how it resumes, and what it refuses."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoTokenizer, pipeline

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.modeling_efficientbert import EfficientBertForMaskedLM, EfficientBertModel
from efficientbert.search import search
from efficientbert.train import distill
from efficientbert.train.cli.command import run_command
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.arguments import DistillArguments
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.model_folder.record import read_provenance
from efficientbert.train.model_folder.write import write_checkpoint
from efficientbert.train.start.student_start import load_model


TEXT = {"--max_length": 24, "--held_out": 8, "--init_sequences": 16, "--batch_size": 4}
ODD = '{"hidden_size": 16, "num_hidden_layers": 5, "num_attention_heads": 2, "embedding_size": 8}'


@pytest.fixture(scope="module")
def masked_lm_folder(teacher_folder, tmp_path_factory):
    """Gives the folder of a tiny teacher of a family with its masked-LM head."""
    made: dict[str, str] = {}

    def folder(family: str = "bert") -> str:
        if family not in made:
            made[family] = str(tmp_path_factory.mktemp(f"masked-lm-{family}"))
            torch.manual_seed(0)
            config = AutoConfig.from_pretrained(teacher_folder(family))
            AutoModelForMaskedLM.from_config(config).save_pretrained(made[family])
            AutoTokenizer.from_pretrained(teacher_folder(family)).save_pretrained(made[family])
        return made[family]

    return folder


def arguments(teacher: str, corpus: str, student: str, output: Path, *more: object) -> list[str]:
    right = {"--teacher": teacher, "--corpus": corpus, "--student": student, "--output_dir": output, **TEXT}
    kept = [word for flag, value in right.items() if flag not in more for word in (flag, value)]
    return list(map(str, [*kept, *more]))


def call(*given: object) -> dict:
    """Runs the command and gives the figures it recorded."""
    argv = arguments(*given, *(() if "--max_steps" in given else ("--max_steps", 4)))
    run_command(distill.main, distill.DistillArguments, "distill", argv)
    return read_provenance(Path(argv[argv.index("--output_dir") + 1]))[-1]["result"]


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "mpnet", "distilbert"])
def test_logits_of_every_family(family, masked_lm_folder, corpus_file, student_file, tmp_path):
    folder = masked_lm_folder(family)
    result = call(folder, corpus_file, student_file, tmp_path / "out", "--losses", "logits", "masked_lm")
    assert result["logits_loss"] > 0 and result["masked_lm_loss"] > 0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    filled = pipeline("fill-mask", model=str(tmp_path / "out"))(f"word1 {tokenizer.mask_token} word2")
    assert len(filled) == 5 and filled[0]["sequence"].startswith("word1")
    teacher, whole = Teacher.load(folder, masked_lm=True), AutoModelForMaskedLM.from_pretrained(folder)
    ids = torch.randint(5, 60, (2, 9), generator=torch.Generator().manual_seed(1))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.where(ids % 2 == 1, ids, -100)}
    torch.testing.assert_close(teacher(batch).logits, whole.eval()(ids).logits[ids % 2 == 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "losses",
    [
        ["hidden_states"],
        ["pooled_states"],
        ["attention_scores"],
        ["minilm_relations"],
        ["qkv_relations"],
        ["logits"],
        ["masked_lm"],
    ],
)
def test_every_loss_falls(losses, masked_lm_folder, corpus_file, student_file, tmp_path):
    found = []
    for steps in (0, 60):
        more = ("--max_steps", steps, "--learning_rate", "3e-3", "--losses", *losses)
        found.append(call(masked_lm_folder(), corpus_file, student_file, tmp_path / str(steps), *more)["loss"])
    assert found[1] < 0.99 * found[0]


def test_how_a_training_cut_its_texts_is_not_saved(teacher_folder, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(teacher_folder())
    tokenizer(["word1 word2 word3"] * 2, truncation=True, max_length=4, padding="max_length")
    assert tokenizer.backend_tokenizer.truncation and tokenizer.backend_tokenizer.padding
    model = EfficientBertModel(EfficientBertConfig(vocab_size=65, hidden_size=8, num_attention_heads=2))
    write_checkpoint(
        tmp_path, model, tokenizer, "distill", DistillArguments(teacher="t", corpus="c", output_dir="o"), {}
    )
    saved = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert saved.truncation is None and saved.padding is None


def test_weights_decide_between_losses(masked_lm_folder, corpus_file, student_file, tmp_path):
    found = {}
    for weight in ("0.001", "1000"):
        losses = ("hidden_states", f"attention_scores={weight}", "--max_steps", 60, "--learning_rate", "3e-3")
        result = call(masked_lm_folder(), corpus_file, student_file, tmp_path / weight, "--losses", *losses)
        assert result["loss"] == pytest.approx(
            result["hidden_states_loss"] + float(weight) * result["attention_scores_loss"], rel=1e-5
        )
        found[weight] = result
    assert found["0.001"]["hidden_states_loss"] < found["1000"]["hidden_states_loss"]
    assert found["0.001"]["attention_scores_loss"] > found["1000"]["attention_scores_loss"]


@pytest.mark.parametrize(
    "more",
    [
        ["--losses", "qkv_relations", "--relation_heads", "4", "--relation_layer", "3"],
        ["--losses", "hidden_states", "--layer_map", "last"],
        ["--losses", "hidden_states", "qkv_relations", "--layer_map", "1", "2", "2", "3", "4"],
    ],
    ids=["relations", "last", "explicit"],
)
def test_a_deeper_student_with_other_heads(more, masked_lm_folder, corpus_file, tmp_path):
    (tmp_path / "odd.json").write_text(ODD, encoding="utf-8")
    call(masked_lm_folder(), corpus_file, tmp_path / "odd.json", tmp_path / "out", *more)
    assert AutoModel.from_pretrained(tmp_path / "out").config.num_hidden_layers == 5
    scales = json.loads((tmp_path / "out" / "teacher_scales.json").read_text(encoding="utf-8"))
    assert len(scales["hidden_states"]) == 5 and len(scales["attention_scores"]) == 4


def test_the_layer_map_decides_what_the_student_starts_from(masked_lm_folder, corpus_file, student_file, tmp_path):
    """Its first layer's attention is made of the mapped teacher layer's."""
    found = {}
    for layers in ("1 4", "2 4", "uniform"):
        more = ("--max_steps", 0, "--layer_map", *layers.split())
        call(masked_lm_folder(), corpus_file, student_file, tmp_path / layers, *more)
        found[layers] = load_file(tmp_path / layers / "model.safetensors")["layers.0.attention.qkv.weight"]
    assert torch.equal(found["2 4"], found["uniform"]) and not torch.equal(found["1 4"], found["uniform"])


def test_a_student_goes_on_with_its_masked_lm_head(masked_lm_folder, corpus_file, student_file, tmp_path):
    call(masked_lm_folder(), corpus_file, student_file, tmp_path / "a", "--losses", "masked_lm")
    more = ("--max_steps", 0, "--losses", "masked_lm")
    call(masked_lm_folder(), corpus_file, tmp_path / "a", tmp_path / "b", *more)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("a", "b"))
    assert one.keys() == other.keys() and "lm_head.dense.weight" in one
    assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())
    call(masked_lm_folder(), corpus_file, tmp_path / "a", tmp_path / "c", "--max_steps", 0)
    encoder = load_file(tmp_path / "c" / "model.safetensors")
    assert all(torch.equal(tensor, one[f"efficientbert.{key}"]) for key, tensor in encoder.items())


def test_a_student_starts_with_the_masked_lm_head_of_its_source(masked_lm_folder, corpus_file, student_file, tmp_path):
    call(masked_lm_folder(), corpus_file, student_file, tmp_path / "a", "--losses", "masked_lm", "hidden_states")
    os.remove(tmp_path / "a" / "distillation_projection.safetensors")
    more = ("--losses", "masked_lm", "hidden_states", "--max_steps", 0, "--initialization", tmp_path / "a")
    result = call(masked_lm_folder(), corpus_file, student_file, tmp_path / "b", *more)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("a", "b"))
    assert "lm_head.dense.weight" in one and all(torch.equal(tensor, other[key]) for key, tensor in one.items())
    assert result["cosine"] > 0.5  # the projection was fitted: a random one gives some 0.1


def test_no_text_need_be_held_out(masked_lm_folder, corpus_file, student_file, tmp_path):
    assert call(masked_lm_folder(), corpus_file, student_file, tmp_path / "a", "--held_out", 0) == {}


def test_a_student_with_fewer_positions_than_tokens_is_refused(masked_lm_folder, tmp_path):
    teacher = Teacher.load(masked_lm_folder())
    sizes = {"hidden_size": 18, "num_hidden_layers": 2, "num_attention_heads": 3, "embedding_size": 8}
    config = EfficientBertConfig(**sizes, vocab_size=teacher.vocab_size, max_position_embeddings=16)
    EfficientBertForMaskedLM(config).save_pretrained(tmp_path / "short")
    args = distill.DistillArguments(
        teacher="t", corpus="c", output_dir="o", student=str(tmp_path / "short"), max_length=17
    )
    with pytest.raises(InputError, match="has 16 positions, fewer than --max_length 17"):
        load_model(args, teacher)
    load_model(replace(args, max_length=16), teacher)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"compile": True}, "compile: is not for a search"),
        ({"gradient_checkpointing": True}, "gradient_checkpointing: is not for a search"),
        ({"held_out": 0}, "held_out: must be at least 1, not 0"),
    ],
)
def test_what_a_search_cannot_do(change, message):
    with pytest.raises(InputError, match=message):
        search.SearchArguments(teacher="t", corpus="c", output_dir="o", **change).check()


def test_killed_while_masking_and_started_again_gives_the_same(
    masked_lm_folder, corpus_file, student_file, kill_behind, tmp_path
):
    """kill -9 behind a checkpoint in the second epoch, where other words are hidden than in the first."""
    more = ["--losses", "masked_lm", "logits", "hidden_states", "--packing", "true"]
    more += ["--batch_size", "40", "--max_steps", "8", "--checkpoint_steps", "4"]
    whole = call(masked_lm_folder(), corpus_file, student_file, tmp_path / "whole" / "out", *more)
    argv = arguments(masked_lm_folder(), corpus_file, student_file, tmp_path / "cut" / "out", *more)
    kill_behind(4, "distill", *argv)
    resumed = call(masked_lm_folder(), corpus_file, student_file, tmp_path / "cut" / "out", *more)
    one, other = (load_file(tmp_path / name / "out" / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())
    assert whole == resumed


def test_losses_and_layers_of_a_yaml_recipe(masked_lm_folder, corpus_file, student_file, tmp_path):
    weights = []
    for index, (losses, layers) in enumerate(
        [("[hidden_states, qkv_relations=0.5]", "[1, 4]"), ("hidden_states qkv_relations=0.5", "1 4")]
    ):
        recipe = tmp_path / f"{index}.yaml"
        recipe.write_text(f"losses: {losses}\nlayer_map: {layers}\n", encoding="utf-8")
        argv = arguments(masked_lm_folder(), corpus_file, student_file, tmp_path / str(index), "--max_steps", 4)
        run_command(distill.main, distill.DistillArguments, "distill", [str(recipe), *argv])
        weights.append(load_file(tmp_path / str(index) / "model.safetensors"))
    assert all(torch.equal(tensor, weights[1][key]) for key, tensor in weights[0].items())


BAD = [
    (["--losses", "hidden"], "losses: unknown loss 'hidden'; known are hidden_states"),
    (["--losses", "logits=x"], "losses: the weight of 'logits' must be a number above 0"),
    (["--losses", "logits"], "teacher .*: its checkpoint has no masked-LM head"),
    (["--losses", "minilm_relations", "--student", "{odd}"], "2 attention heads but .* has 3; minilm_relations can"),
    (["--losses", "qkv_relations", "--relation_heads", "5"], "relation_heads: must divide the 18 channels"),
    (["--losses", "qkv_relations", "--relation_layer", "9"], "relation_layer: must be between 1 and the 4 layers"),
    (["--layer_map", "2"], "layer_map: names 1 teacher layers, but the student has 2"),
    (["--layer_map", "2", "5"], "layer_map: teacher .* has layers 1 to 4, not '5'"),
    (["--layer_map", "middle"], "layer_map: must be uniform, last or teacher layers"),
    (["--init_sequences", "0"], "init_sequences: must be at least 1, not 0"),
    (["--held_out", "-1"], "held_out: must be at least [01], not -1"),
    (["--seed", "-1"], "seed: must be between 0 and 4294967295, not -1"),
    (["--losses"], "losses: expected at least one argument"),
]


@pytest.mark.parametrize(("more", "message"), BAD)
@pytest.mark.parametrize("command", ["distill", "search"])
def test_bad_recipes_get_one_line_and_write_nothing(
    command, more, message, teacher_folder, corpus_file, student_file, tmp_path, capsys
):
    (tmp_path / "odd.json").write_text(ODD.replace('"num_hidden_layers": 5', '"num_hidden_layers": 2'))
    more = [word.format(odd=tmp_path / "odd.json") for word in more]
    argv = arguments(teacher_folder(), corpus_file, student_file, tmp_path / "out", *more)
    if command == "search" and "logits" in more:
        message = "masked_lm and logits need a head, which no supernet has"
    module, arguments_class = {
        "distill": (distill, distill.DistillArguments),
        "search": (search, search.SearchArguments),
    }[command]
    with pytest.raises(SystemExit) as ended:
        run_command(module.main, arguments_class, "test", argv)
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert ended.value.code == 2 and re.search(message, last), last
    assert [path.name for path in tmp_path.iterdir()] == ["odd.json"]
