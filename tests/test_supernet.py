"""The supernet: a slice of any shape computes and learns what the stand-alone model does."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.modeling_efficientbert import EfficientBertModel
from efficientbert.search.space.architecture import Architecture, LayerChoice, Shape
from efficientbert.search.supernet.supernet import Supernet, TaskSupernet
from efficientbert.train.distillation.multitask_objective import MultitaskModel
from efficientbert.train.distillation.student import Student
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.start.from_checkpoint import initialize_from_checkpoint
from efficientbert.train.tasks.arguments import TaskArguments
from efficientbert.train.tasks.spans import SpanTask
from efficientbert.train.tasks.texts import TextTask


PLAIN = "linear2(gelu(linear1(x)))"
GATED = "linear2(mul(gelu(linear1(x)), gate(x)))"
LARGEST = Architecture(Shape(24, 8), (LayerChoice(GATED, 3, 36, 4, 7),) * 6)


def with_heads(*attentions: tuple[int, int]) -> Architecture:
    """The largest architecture with other heads, layer by layer."""
    layers = (replace(LARGEST.layers[0], heads=heads, head_dim=head_dim) for heads, head_dim in attentions)
    return replace(LARGEST, layers=tuple(layers))


ORIGINS = {1: [5], 2: [2, 5], 3: [1, 3, 5], 4: [0, 2, 3, 5], 5: [0, 1, 2, 3, 5], 6: [0, 1, 2, 3, 4, 5]}  # by hand
SMALLER = {  # one dimension at a time
    "hidden_size": replace(LARGEST, shape=replace(LARGEST.shape, hidden_size=15)),
    "heads": with_heads(*[(3, 7)] * 6),
    "head_dim": with_heads(*[(4, 5)] * 6),
    "other heads in every layer": with_heads((4, 7), (1, 3), (0, 0), (3, 6), (2, 7), (4, 5)),
    "no attention": with_heads(*[(0, 0)] * 6),
    "embedding_size": replace(LARGEST, shape=replace(LARGEST.shape, embedding_size=5)),
    "depth": replace(LARGEST, layers=LARGEST.layers[:4]),
    "stack": replace(LARGEST, layers=(LayerChoice(GATED, 2, 36, 4, 7),) * 6),
    "width": replace(LARGEST, layers=(LayerChoice(GATED, 3, 9, 4, 7),) * 6),
    "expression": replace(LARGEST, layers=(LayerChoice("tanh(linear2(relu(linear1(x))))", 3, 36, 4, 7),) * 6),
}


def draw(seed: int) -> Architecture:
    """Any architecture: every dimension free."""
    rng = random.Random(seed)
    expressions = (PLAIN, GATED, "linear2(relu(mul(linear1(x), x)))")
    shape = Shape(rng.choice((13, 24)), rng.randint(3, 8))
    attentions = ((0, 0), (3, 5), (4, 7), (4, 5), (3, 7))
    layers = [
        LayerChoice(rng.choice(expressions), rng.randint(1, 3), rng.choice((9, 13)), *rng.choice(attentions))
        for _ in range(6)
    ]
    return Architecture(shape, tuple(layers[: rng.randint(1, 6)]))


ARCHITECTURES = [*SMALLER.values(), *map(draw, range(6))]
IDS = [*SMALLER, *(f"drawn{seed}" for seed in range(6))]


def make_supernet(largest: Architecture = LARGEST) -> Supernet:
    base = EfficientBertConfig(vocab_size=65, max_position_embeddings=16)
    torch.manual_seed(0)
    supernet = Supernet(base, largest, 20)
    for parameter in supernet.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return supernet


@pytest.fixture
def supernet() -> Supernet:
    return make_supernet()


def make_batch() -> dict[str, torch.Tensor]:
    mask = torch.ones(3, 10, dtype=torch.long)
    mask[1, 6:] = 0
    return {"input_ids": torch.randint(1, 60, (3, 10)), "attention_mask": mask}


def tensors(captures) -> list[torch.Tensor]:
    found = [*captures.hidden_states, *captures.queries, *captures.keys, *captures.values]
    return [tensor for tensor in found if tensor is not None]  # of a layer without attention


def layers_of(name: str, architecture: Architecture, largest: Architecture) -> tuple[LayerChoice, LayerChoice, int]:
    """The layer of a weight of a slice, that of the supernet which it is taken from, and the latter's number."""
    number = int(name.split(".layers.")[1].split(".")[0])
    origin = ORIGINS[len(architecture.layers)][number]
    return architecture.layers[number], largest.layers[origin], origin


def factors(
    name: str, shape: tuple[int, ...], architecture: Architecture, largest: Architecture = LARGEST
) -> np.ndarray:
    """What the weights of a slice are multiplied by, row by row."""
    found = np.ones((shape[0], *(1 for _ in shape[1:])))
    if "layer_norm.weight" in name:
        found *= np.sqrt(24 / architecture.shape.hidden_size)
    if "attention.qkv" in name:
        mine, whole, _ = layers_of(name, architecture, largest)
        found[: shape[0] * 2 // 3] *= np.sqrt(np.sqrt(mine.head_dim / whole.head_dim))
    return found


def place(
    name: str, shape: tuple[int, ...], architecture: Architecture, largest: Architecture = LARGEST
) -> tuple[str, tuple[np.ndarray, ...]]:
    """Where a weight of a slice lies in the supernet, found index by index: the name, and an index array an axis."""
    origin, axes = name, [list(range(size)) for size in shape]
    if ".layers." in name:
        mine, whole, number = layers_of(name, architecture, largest)
        before, _, after = name.partition(".layers.")
        origin = f"{before}.layers.{number}.{after.split('.', 1)[1]}"
        inner = [head * whole.head_dim + i for head in range(mine.heads) for i in range(mine.head_dim)]
        if "attention.qkv" in name:
            axes[0] = [part * whole.heads * whole.head_dim + i for part in range(3) for i in inner]
        elif name.endswith("attention.output.weight"):
            axes[1] = inner
    elif name.endswith("embeddings.projection.weight"):
        sizes = largest.shape.embedding_size, architecture.shape.embedding_size
        axes[1] = [side * sizes[0] + i for side in range(3) for i in range(sizes[1])]
    return origin, np.ix_(*axes)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=IDS)
def test_a_slice_alone_computes_what_it_computed_inside(architecture, supernet):
    batch = make_batch()
    inside = supernet.eval()(architecture, **batch)
    alone = supernet.extract(architecture)(**batch)
    depth, attentive = len(architecture.layers), [layer.heads > 0 for layer in architecture.layers]
    assert len(tensors(inside)) == depth + 1 + 3 * sum(attentive)
    assert [query is not None for query in inside.queries] == attentive
    for one, other in zip(tensors(inside), tensors(alone), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=IDS)
def test_extracted_weights_lie_where_they_should_and_are_copies(architecture, supernet):
    student, whole = supernet.extract(architecture), dict(supernet.whole.named_parameters())
    for name, parameter in student.named_parameters():
        origin, index = place(name, parameter.shape, architecture)
        expected = whole[origin].detach().numpy()[index] * factors(name, parameter.shape, architecture)
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-6, err_msg=name)
        parameter.data.zero_()
    assert min(parameter.abs().max() for parameter in whole.values()) > 0


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=IDS)
def test_gradients_reach_the_used_part_of_the_shared_weights_alone(architecture, supernet):
    batch = make_batch()
    sum(t.square().sum() for t in tensors(supernet(architecture, **batch))).backward()
    alone = supernet.extract(architecture)
    sum(t.square().sum() for t in tensors(alone(**batch))).backward()
    whole, used = dict(supernet.whole.named_parameters()), set()
    for name, parameter in alone.named_parameters():
        origin, index = place(name, parameter.shape, architecture)
        found = whole[origin].grad.numpy()
        expected = parameter.grad.numpy() * factors(name, parameter.shape, architecture)
        np.testing.assert_allclose(found[index], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
        rest = found.copy()
        rest[index] = 0
        assert not rest.any(), name
        used.add(origin)
    assert all(parameter.grad is None for name, parameter in whole.items() if name not in used)


def test_the_largest_architecture_is_the_whole(supernet):
    batch = make_batch()
    inside = supernet.eval()(LARGEST, **batch)
    for one, other in zip(tensors(inside), tensors(supernet.whole(**batch)), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        (replace(LARGEST, layers=LARGEST.layers * 2), "12 layers is no part of one of 6"),
        (with_heads(*[(4, 8)] * 6), r"layers.0.attention.qkv.weight .* \(3, 4, 7, "),
        (with_heads(*[(4, 7)] * 5, (5, 7)), r"layers.5.attention.qkv.weight of shape \(3, 5, 7, 24\) is no part"),
        (replace(LARGEST, layers=(LayerChoice(PLAIN, 4, 9, 4, 7),) * 6), "has no encoder.layers.0.ffns.3"),
    ],
)
def test_what_is_no_part_of_the_largest_is_refused(architecture, message, supernet):
    with pytest.raises(ValueError, match=message):
        supernet(architecture, **make_batch())
    with pytest.raises(ValueError, match=message):
        supernet.extract(architecture)


@pytest.mark.parametrize(
    "attentions", [[(4, 7), (0, 0), (2, 5), (3, 6)], [(2, 7), (0, 0), (1, 5), (0, 0)], [(0, 0)] * 4, [(0, 0), (1, 1)]]
)
def test_a_whole_may_have_other_heads_in_every_layer(attentions):
    largest = with_heads((4, 7), (1, 3), (0, 0), (2, 5), (0, 0), (3, 6))  # 4 layers are the first, third, fourth, last
    supernet, architecture = make_supernet(largest), with_heads(*attentions)
    batch, alone = make_batch(), supernet.extract(architecture)
    for one, other in zip(tensors(supernet.eval()(architecture, **batch)), tensors(alone(**batch)), strict=True):
        assert torch.equal(one, other)
    whole = dict(supernet.whole.named_parameters())
    for name, parameter in alone.named_parameters():
        origin, index = place(name, parameter.shape, architecture, largest)
        expected = whole[origin].detach().numpy()[index] * factors(name, parameter.shape, architecture, largest)
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-6, err_msg=name)


def test_attention_where_the_whole_has_none_is_refused():
    supernet = make_supernet(with_heads((4, 7), (0, 0), *[(4, 7)] * 4))
    with pytest.raises(
        ValueError, match=r"no part of the largest, which has no encoder\.layers\.1\.attention\.qkv\.weight"
    ):
        supernet.extract(LARGEST)


def test_a_slice_is_what_a_student_inherits_from_the_whole_as_a_checkpoint(supernet):
    for seed in range(6):
        architecture = draw(seed)  # of the whole's hidden and head size: a checkpoint is inherited without factors
        layers = tuple(replace(layer, head_dim=7 if layer.heads else 0) for layer in architecture.layers)
        architecture = Architecture(replace(architecture.shape, hidden_size=24), layers)
        student = EfficientBertModel(architecture.to_config(supernet.base))
        initialize_from_checkpoint(student, supernet.whole.encoder)
        sliced = supernet.extract(architecture).encoder.state_dict()
        assert all(torch.equal(tensor, sliced[name]) for name, tensor in student.state_dict().items())


def test_a_deeper_student_inherits_a_slice_with_its_layers_repeated(supernet):
    architecture = Architecture(Shape(15, 8), (LayerChoice(PLAIN, 1, 9, 4, 5),) * 6)
    student = EfficientBertModel(replace(architecture, layers=architecture.layers * 2).to_config(supernet.base))
    part = supernet.extract(architecture).encoder
    initialize_from_checkpoint(student, part)
    for index, layer in enumerate(student.layers):
        for name, parameter in layer.named_parameters():
            assert torch.equal(parameter, part.layers[index // 2].get_parameter(name))


def test_slicing_head_by_head_keeps_the_function_of_leading_parts_and_flat_slicing_does_not(supernet):
    for layer in supernet.whole.encoder.layers:
        for parameter in (layer.attention.qkv.weight, layer.attention.qkv.bias):
            parameter.data.unflatten(0, (3, 4, 7))[:, :, 5:] = 0  # what will be cut says nothing
    batch, architecture = make_batch(), SMALLER["head_dim"]
    whole, part = supernet.whole(**batch), supernet.extract(architecture)
    for layer in range(6):
        expected = whole.attention_scores(layer)
        torch.testing.assert_close(part(**batch).attention_scores(layer), expected, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(part(**batch).values[layer], whole.values[layer][..., :5], rtol=1e-3, atol=1e-3)
    attention, origin = part.encoder.layers[0].attention, supernet.whole.encoder.layers[0].attention
    for third in range(3):  # as published: the leading rows of each of the three, whatever head they are of
        attention.qkv.weight.data[20 * third : 20 * third + 20] = origin.qkv.weight.data[28 * third : 28 * third + 20]
        attention.qkv.bias.data[20 * third : 20 * third + 20] = origin.qkv.bias.data[28 * third : 28 * third + 20]
    expected = whole.attention_scores(0)
    assert (part(**batch).attention_scores(0) - expected).abs().mean() > 0.3 * expected.abs().mean()


def test_fewer_channels_keep_their_scale_where_the_others_say_nothing(supernet):
    embeddings = supernet.whole.encoder.embeddings
    tables = (embeddings.projection.weight.T, embeddings.position_embeddings.weight)
    for table in (*tables, embeddings.projection.bias, embeddings.token_type_embeddings.weight):
        table.data[..., 15:] = 0
        table.data[..., :15] -= table.data[..., :15].mean(-1, keepdim=True)  # so has the sum of the channels no part
    embeddings.layer_norm.bias.data[15:] = 0
    batch = make_batch()
    whole = embeddings(batch["input_ids"], batch["attention_mask"], None, None, None)
    part = supernet.extract(SMALLER["hidden_size"]).encoder.embeddings
    found = part(batch["input_ids"], batch["attention_mask"], None, None, None)
    torch.testing.assert_close(found, whole[..., :15], rtol=1e-4, atol=1e-4)


@pytest.fixture
def task_supernet(supernet, teacher_folder) -> TaskSupernet:
    tokenizer = Teacher.load(teacher_folder()).tokenizer
    classes = TextTask(
        TaskArguments(data="x", text_column="text", problem="single_label"), tokenizer, ("no", "maybe", "yes")
    )
    spans = SpanTask(TaskArguments(data="x", kind="question-answering"), tokenizer)
    torch.manual_seed(1)
    return TaskSupernet(supernet, [classes, spans])


def outputs_of(outputs) -> list[torch.Tensor]:
    return [value for name, value in outputs.items() if "logits" in name]


@pytest.mark.parametrize("task", [0, 1])
def test_a_task_slice_alone_computes_what_it_computed_inside(task, task_supernet):
    task_supernet.eval()
    batch = make_batch()
    for seed in range(4):
        architecture = draw(seed)
        outputs, captures = task_supernet(architecture, task, capture=True, **batch)
        alone = task_supernet.extract(architecture, task)
        expected, expected_captures = alone(capture=True, **batch)
        assert outputs_of(outputs)[0].shape == ((3, 3) if task == 0 else (3, 10))
        for one, other in zip(outputs_of(outputs), outputs_of(expected), strict=True):
            assert torch.equal(one, other)
        for one, other in zip(tensors(captures), tensors(expected_captures), strict=True):
            assert torch.equal(one, other)
        for one, other in zip(
            outputs_of(task_supernet(architecture, task, **batch)), outputs_of(expected), strict=True
        ):
            assert torch.equal(one, other)
        states = task_supernet.supernet(architecture, **batch).hidden_states
        assert torch.equal(captures.hidden_states[-1], states[-1])


def test_tasks_share_all_but_their_heads(task_supernet):
    supernet, architecture = task_supernet.supernet, draw(2)
    sizes = {name: parameter.numel() for name, parameter in task_supernet.named_parameters()}
    heads = (24 * 24 + 24) + (3 * 24 + 3) + (2 * 24 + 2)  # pooler and classes, start and end
    assert sum(sizes.values()) == sum(parameter.numel() for parameter in supernet.parameters()) + heads
    outputs_of(task_supernet(architecture, 0, **make_batch()))[0].square().sum().backward()
    classes, spans = (whole.model for whole in task_supernet.wholes)
    hidden = architecture.shape.hidden_size
    assert classes.classifier.pooler.weight.grad[:hidden, :hidden].abs().min() > 0
    assert classes.classifier.output.weight.grad[:, hidden:].abs().sum() == 0
    assert spans.qa_outputs.weight.grad is None
    assert supernet.whole.encoder.embeddings.position_embeddings.weight.grad.abs().sum() > 0
    extracted = task_supernet.extract(architecture, 0).model
    assert torch.equal(extracted.classifier.pooler.weight, classes.classifier.pooler.weight[:hidden, :hidden])
    assert extracted.config.id2label == {0: "no", 1: "maybe", 2: "yes"}


def test_the_largest_of_a_task_supernet_is_the_multi_task_model(task_supernet):
    task_supernet.eval()
    model, batch = MultitaskModel(list(task_supernet.wholes)), make_batch()
    for task in (0, 1):
        inside, whole = task_supernet(LARGEST, task, **batch), model.models[task](**batch)
        for one, other in zip(outputs_of(inside), outputs_of(whole), strict=True):
            assert torch.equal(one, other)


def test_students_have_the_projection_of_their_width(supernet):
    assert isinstance(supernet.extract(draw(0)), Student)
    for architecture in ARCHITECTURES:
        student = supernet.extract(architecture)
        hidden = architecture.shape.hidden_size
        assert torch.equal(student.projection.weight, supernet.whole.projection.weight[:, :hidden])
        assert student.encoder.embeddings.word_embeddings.padding_idx == 0
