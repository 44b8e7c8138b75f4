"""Initialisation from another checkpoint: leading dimensions, head by head, layers repeated."""

import json

import pytest
import torch
from safetensors.torch import load_file

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.modeling_efficientbert import EfficientBertModel
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distill import main
from efficientbert.train.distillation.arguments import DistillArguments
from efficientbert.train.start.from_checkpoint import initialize_from_checkpoint


GATED = "linear2(mul(swish(linear1(x)), gate(x)))"


def make_encoder(seed: int, **sizes) -> EfficientBertModel:
    fields = {"vocab_size": 40, "embedding_size": 8, "hidden_size": 24, "num_hidden_layers": 2}
    fields |= {"num_attention_heads": 3, "ffn_stacks": 2, "intermediate_sizes": 10, "ffn_expressions": GATED}
    fields |= {"max_position_embeddings": 16, "initializer_range": 0.3}
    torch.manual_seed(seed)
    encoder = EfficientBertModel(EfficientBertConfig(**(fields | sizes))).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # biases and norms too
    return encoder


def inherited(source: EfficientBertModel, **sizes) -> EfficientBertModel:
    student = make_encoder(1, **sizes)
    initialize_from_checkpoint(student, source)
    return student


def test_same_sizes_give_the_same_outputs():
    source = make_encoder(0)
    ids = torch.randint(1, 40, (2, 9))
    assert torch.equal(inherited(source)(ids).last_hidden_state, source(ids).last_hidden_state)


@pytest.mark.parametrize(("layers", "origins"), [(4, [0, 0, 1, 1]), (3, [0, 0, 1]), (1, [1]), (5, [0, 0, 0, 1, 1])])
def test_layers_are_repeated_evenly(layers, origins):
    source = make_encoder(0)
    student = inherited(source, num_hidden_layers=layers)
    for layer, origin in zip(student.layers, origins, strict=True):
        for name, parameter in layer.named_parameters():
            assert torch.equal(parameter, source.layers[origin].get_parameter(name)), name


def test_narrower_students_are_leading_slices_head_by_head():
    source = make_encoder(0)
    student = inherited(source, hidden_size=15, embedding_size=5, intermediate_sizes=6, ffn_stacks=1)
    mine, theirs = student.embeddings, source.embeddings
    assert torch.equal(mine.word_embeddings.weight, theirs.word_embeddings.weight[:, :5])
    for neighbour in range(3):
        expected = theirs.projection.weight[:15, 8 * neighbour : 8 * neighbour + 5]
        assert torch.equal(mine.projection.weight[:, 5 * neighbour : 5 * neighbour + 5], expected)
    assert torch.equal(mine.projection.bias, theirs.projection.bias[:15])
    assert torch.equal(mine.position_embeddings.weight, theirs.position_embeddings.weight[:, :15])
    assert torch.equal(mine.token_type_embeddings.weight, theirs.token_type_embeddings.weight[:, :15])
    assert torch.equal(mine.layer_norm.weight, theirs.layer_norm.weight[:15])
    for layer, origin in zip(student.layers, source.layers, strict=True):
        # Heads of 5 out of heads of 8: part p (query, key, value), head h begins at 24 p + 8 h in the source.
        rows = [24 * part + 8 * head + row for part in range(3) for head in range(3) for row in range(5)]
        assert torch.equal(layer.attention.qkv.weight, origin.attention.qkv.weight[rows, :15])
        assert torch.equal(layer.attention.qkv.bias, origin.attention.qkv.bias[rows])
        assert torch.equal(layer.attention.output.weight, origin.attention.output.weight[:15, rows[:15]])
        assert torch.equal(layer.attention.output.bias, origin.attention.output.bias[:15])
        assert torch.equal(layer.layer_norm.bias, origin.layer_norm.bias[:15])
        (ffn,), other = layer.ffns, origin.ffns[0]
        assert torch.equal(ffn.linear1.weight, other.linear1.weight[:6, :15])
        assert torch.equal(ffn.gate.weight, other.gate.weight[:6, :15])
        assert torch.equal(ffn.linear2.weight, other.linear2.weight[:15, :6])
        assert torch.equal(ffn.linear2.bias, other.linear2.bias[:15])
        assert torch.equal(ffn.layer_norm.weight, other.layer_norm.weight[:15])


def test_what_a_larger_student_has_more_stays_as_it_was():
    source = make_encoder(0, ffn_expressions="linear2(gelu(linear1(x)))", ffn_stacks=1)
    sizes = {"hidden_size": 30, "num_attention_heads": 5, "max_position_embeddings": 20, "embedding_size": 11}
    fresh, student = make_encoder(1, **sizes), inherited(source, **sizes)
    assert torch.equal(
        student.embeddings.position_embeddings.weight[:16, :24], source.embeddings.position_embeddings.weight
    )
    for (name, before), after in zip(fresh.named_parameters(), student.parameters(), strict=True):
        kept = "gate" in name or "ffns.1" in name
        assert torch.equal(before, after) == kept, name
    weights = [encoder.layers[0].attention.qkv.weight.unflatten(0, (3, 5, 6)) for encoder in (fresh, student)]
    assert torch.equal(weights[0][:, 3:], weights[1][:, 3:])
    theirs = source.layers[0].attention.qkv.weight.unflatten(0, (3, 3, 8))
    assert torch.equal(weights[1][:, :3, :, :24], theirs[:, :, :6])


def test_a_student_is_distilled_from_another_with_its_projection(teacher_folder, corpus_file, student_file, tmp_path):
    common = {
        "teacher": teacher_folder(),
        "corpus": corpus_file,
        "max_length": 16,
        "held_out": 4,
        "init_sequences": 16,
    }
    main(DistillArguments(student=student_file, max_steps=1, output_dir=str(tmp_path / "first"), **common))
    deeper = json.loads(open(student_file).read()) | {"num_hidden_layers": 4, "hidden_size": 12}
    (tmp_path / "deeper.json").write_text(json.dumps(deeper))
    common |= {"student": str(tmp_path / "deeper.json"), "max_steps": 0}
    main(DistillArguments(initialization=str(tmp_path / "first"), output_dir=str(tmp_path / "second"), **common))
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "second"))
    for layer, origin in enumerate((0, 0, 1, 1)):
        theirs = first[f"layers.{origin}.attention.output.bias"][:12]
        assert torch.equal(second[f"layers.{layer}.attention.output.bias"], theirs)
    first, second = (
        load_file(tmp_path / name / "distillation_projection.safetensors") for name in ("first", "second")
    )
    assert torch.equal(second["weight"], first["weight"][:, :12]) and torch.equal(second["bias"], first["bias"])
    with pytest.raises(InputError, match=r"initialization '.*nothing': neither teacher, random nor a checkpoint"):
        main(DistillArguments(initialization=str(tmp_path / "nothing"), output_dir=str(tmp_path / "third"), **common))
    with pytest.raises(InputError, match=r"initialization .* is a checkpoint of model type 'bert'"):
        main(DistillArguments(initialization=teacher_folder(), output_dir=str(tmp_path / "third"), **common))
