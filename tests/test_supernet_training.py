"""Training of the supernet: which architectures a step trains, and what each of them learns from whom."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.search.space.architecture import Architecture, LayerChoice, Shape
from efficientbert.search.space.expressions import GATED, PLAIN
from efficientbert.search.space.sizes import Choices
from efficientbert.search.space.space import SearchSpace
from efficientbert.search.supernet.supernet import Supernet, TaskSupernet
from efficientbert.search.supernet.training import (
    Candidates,
    LargestInTurns,
    Slices,
    SupernetDistillation,
    TaskSupernetDistillation,
    bounds,
    in_place_objective,
    task_objectives,
)
from efficientbert.train.distillation.arguments import LossArguments
from efficientbert.train.distillation.capture import Captures
from efficientbert.train.distillation.loss_choice import make_recipe
from efficientbert.train.distillation.multitask_objective import MultitaskObjective
from efficientbert.train.distillation.objective import GeneralDistillation
from efficientbert.train.distillation.scales import Scales
from efficientbert.train.distillation.student import fit_config
from efficientbert.train.distillation.task_objective import TaskObjective
from efficientbert.train.distillation.task_teacher import TaskTeacher
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.engine.accelerator import make_accelerator
from efficientbert.train.engine.arguments import LoopArguments
from efficientbert.train.engine.loop import train
from efficientbert.train.tasks.arguments import TaskArguments
from efficientbert.train.tasks.texts import TextTask
from efficientbert.train.text.batches import PaddingCollator


ROOT = Path(__file__).parents[1]
LARGEST = Architecture(Shape(18, 8), (LayerChoice(PLAIN, 2, 20, 3, 6),) * 4)
SMALLEST = Architecture(Shape(12, 5), (LayerChoice(PLAIN, 1, 5, 3, 4),) * 2)
SCALES = Scales((0.5, 0.6, 0.7, 0.8, 0.9), (0.1, 0.2, 0.3, 0.4, 0.45), (2.0, 3.0, 4.0, 5.0))


def sample(rng: random.Random) -> Architecture:
    shape = Shape(rng.choice((12, 18)), rng.choice((5, 8)))
    attentions = [rng.choice(((0, 0), (3, 4), (3, 6))) for _ in range(rng.choice((1, 3)))] + [(3, rng.choice((4, 6)))]
    rng.shuffle(attentions)
    layers = (LayerChoice(PLAIN, rng.randint(1, 2), rng.choice((5, 20)), *attention) for attention in attentions)
    return Architecture(shape, tuple(layers))


@pytest.fixture(scope="module")
def teacher(teacher_folder) -> Teacher:
    return Teacher.load(teacher_folder())


def make_supernet(teacher: Teacher) -> Supernet:
    base = fit_config(EfficientBertConfig(initializer_range=0.3), teacher)
    torch.manual_seed(0)
    return Supernet(base, LARGEST, teacher.hidden_size)


@pytest.fixture
def supernet(teacher) -> Supernet:
    return make_supernet(teacher)


def objectives(teacher: Teacher, supernet: Supernet, losses: LossArguments | None = None):
    def objective(architecture: Architecture) -> GeneralDistillation:
        recipe = make_recipe(losses or LossArguments(), architecture.to_config(supernet.base), teacher)
        return GeneralDistillation(teacher, SCALES, recipe)

    return objective


def make_batch(rows: int = 3) -> dict[str, torch.Tensor]:
    mask = torch.ones(rows, 10, dtype=torch.long)
    mask[1, 6:] = 0
    return {"input_ids": torch.randint(5, 60, (rows, 10)), "attention_mask": mask}


def reference(
    student: Captures, theirs: Captures, batch: dict, states: list, variances: list, score_variances: list
) -> float:
    """Hidden states plus 0.3 times attention scores, row by row and token by token, in float64."""
    total = 0.0
    tokens = int(batch["attention_mask"].sum())
    pairs = int(batch["attention_mask"].sum(1).square().sum())
    lengths = batch["attention_mask"].sum(1).tolist()
    for (mine, other), variance in zip(states, variances, strict=True):
        for row, length in enumerate(lengths):
            error = student.hidden_states[mine][row, :length] - theirs.hidden_states[other][row, :length]
            total += error.double().square().mean(-1).sum().item() / tokens / variance
    for (mine, other), variance in zip(states[1:], score_variances, strict=True):
        if student.queries[mine - 1] is None:
            continue
        error = student.attention_scores(mine - 1) - theirs.attention_scores(other - 1)
        for row, length in enumerate(lengths):
            valid = error[row, :, :length, :length].double()
            total += 0.3 * valid.square().sum().item() / (error.shape[1] * pairs) / variance
    return total


def test_a_step_alone_decides_its_architectures():
    candidates = Candidates(sample, LARGEST, seed=3)
    drawn = [candidates(step) for step in range(2, 40)]
    assert all(len(architectures) == 1 for architectures in drawn) and len(set(drawn)) > 20
    random.seed(1)
    again = Candidates(sample, LARGEST, seed=3)
    assert [again(step) for step in reversed(range(2, 40))] == drawn[::-1]
    assert [replace(candidates, seed=4)(step) for step in range(2, 40)] != drawn


def test_a_sandwich_is_the_largest_the_smallest_and_random_ones():
    candidates = Candidates(sample, LARGEST, seed=0, smallest=SMALLEST, num_random=3)
    sandwiches = [candidates(step) for step in range(1, 20)]
    assert all(len(one) == 5 and one[:2] == (LARGEST, SMALLEST) for one in sandwiches)
    assert len({architecture for one in sandwiches for architecture in one[2:]}) > 20
    assert sandwiches == [candidates(step) for step in range(1, 20)]


def test_a_warm_up_takes_turns_between_plain_and_gated_wholes():
    gated = replace(LARGEST, layers=tuple(replace(layer, expression=GATED) for layer in LARGEST.layers))
    plain = replace(LARGEST, layers=tuple(replace(layer, expression=PLAIN) for layer in LARGEST.layers))
    assert [LargestInTurns.of(gated)(step) for step in range(4)] == [(plain,), (gated,), (plain,), (gated,)]
    assert [LargestInTurns.of(plain)(step) for step in range(3)] == [(plain,)] * 3


def test_a_shallow_slice_is_compared_with_the_teacher_layers_of_its_depth(teacher, supernet):
    batch = make_batch()
    distillation = SupernetDistillation(objectives(teacher, supernet), Candidates(lambda rng: SMALLEST, LARGEST, 0))
    loss, terms = distillation(Slices(supernet), batch, distillation.count(batch), 0)
    mine, theirs = supernet.extract(SMALLEST)(**batch), teacher(batch)
    expected = reference(mine, theirs, batch, [(0, 0), (1, 2), (2, 4)], [0.5, 0.7, 0.9], [3.0, 5.0])
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert loss.item() == pytest.approx((terms["hidden_states"] + 0.3 * terms["attention_scores"]).item(), rel=1e-5)


@pytest.mark.parametrize("in_place", [False, True])
def test_a_sandwich_learns_the_mean_of_its_losses(in_place, teacher, supernet):
    batch, objective = make_batch(), objectives(teacher, supernet)
    candidates = Candidates(sample, LARGEST, seed=0, smallest=SMALLEST, num_random=1)
    distillation = SupernetDistillation(objective, candidates, in_place)
    loss, _ = distillation(Slices(supernet), batch, distillation.count(batch), 0)
    loss.backward()
    found = {name: parameter.grad.clone() for name, parameter in supernet.named_parameters()}

    target = supernet.whole(**batch)
    target = Captures(*([t.detach() for t in getattr(target, part)] for part in PARTS))
    losses, sums = [], {}
    for architecture in candidates(0):
        supernet.zero_grad()
        mine = supernet(architecture, **batch)
        if architecture == LARGEST or not in_place:
            single = objective(architecture).loss(mine, teacher(batch), batch, distillation.count(batch))[0]
        elif len(architecture.layers) == 2:  # slices of the supernet's layers 2 and 4, with the teacher's variances
            states = [(0, 0), (1, 2), (2, 4)]
            value = reference(mine, target, batch, states, [0.5, 0.7, 0.9], [3.0, 5.0])
            single = fixed_losses(mine, target, batch, states, [0.5, 0.7, 0.9], [3.0, 5.0])
            assert single.item() == pytest.approx(value, rel=1e-5)
        else:
            states = [(layer, layer) for layer in range(5)]
            single = fixed_losses(mine, target, batch, states, SCALES.hidden_states, SCALES.attention_scores)
        single.backward()
        losses.append(single.item())
        for name, parameter in supernet.named_parameters():
            if parameter.grad is not None:
                sums[name] = sums.get(name, 0) + parameter.grad / 3
    assert len(losses) == 3
    assert loss.item() == pytest.approx(sum(losses) / 3, rel=1e-5)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, sums[name], rtol=1e-3, atol=1e-5)


PARTS = ("hidden_states", "queries", "keys", "values")


def fixed_losses(mine: Captures, theirs: Captures, batch: dict, states, variances, score_variances) -> torch.Tensor:
    """As `reference`, with a gradient."""
    mask = batch["attention_mask"].float()
    pairs = mask[:, :, None] * mask[:, None]
    total = 0.0
    for (a, b), variance in zip(states, variances, strict=True):
        error = (mine.hidden_states[a] - theirs.hidden_states[b]).square().mean(-1)
        total = total + (error * mask).sum() / mask.sum() / variance
    for (a, b), variance in zip(states[1:], score_variances, strict=True):
        if mine.queries[a - 1] is None:
            continue
        error = (mine.attention_scores(a - 1) - theirs.attention_scores(b - 1)).square().mean(1)
        total = total + 0.3 * (error * pairs).sum() / pairs.sum() / variance
    return total


def test_the_largest_has_nothing_to_learn_from_itself(teacher, supernet):
    batch = make_batch()
    for losses in (["hidden_states", "attention_scores"], ["minilm_relations"], ["qkv_relations"]):
        objective = objectives(teacher, supernet, LossArguments(losses=losses))(LARGEST)
        own = in_place_objective(objective, LARGEST, objective, LARGEST)
        captures = supernet(LARGEST, **batch)
        assert own.loss(captures, captures, batch, own.count(batch))[0].item() == pytest.approx(0, abs=1e-6)


def test_relations_are_learned_in_place_across_widths(teacher, supernet):
    batch = make_batch()
    for layer_map in (["last"], ["uniform"]):
        losses = LossArguments(losses=["hidden_states", "qkv_relations"], layer_map=layer_map)
        objective = objectives(teacher, supernet, losses)
        own = in_place_objective(objective(SMALLEST), SMALLEST, objective(LARGEST), LARGEST)
        assert own.recipe.states == (((2, 4),) if layer_map == ["last"] else ((0, 0), (1, 2), (2, 4)))
        assert (own.recipe.relation_heads, own.recipe.relation_layers) == (6, (1, 3))  # of 3 x 4 and 3 x 6 channels
        captures = [supernet(architecture, **batch) for architecture in (SMALLEST, LARGEST)]
        assert own.loss(*captures, batch, own.count(batch))[0].item() > 0


def test_relations_are_learned_in_place_by_the_last_layer_with_attention(teacher, supernet):
    none = LayerChoice(PLAIN, 1, 5, 0, 0)
    architecture = replace(SMALLEST, layers=(SMALLEST.layers[0], none))
    whole = replace(LARGEST, layers=(*LARGEST.layers[:2], replace(LARGEST.layers[0], heads=2), none))
    objective = objectives(teacher, supernet, LossArguments(losses=["qkv_relations"]))
    own = in_place_objective(objective(architecture), architecture, objective(whole), whole)
    assert (own.recipe.relation_heads, own.recipe.relation_layers) == (12, (0, 2))  # of 3 x 4 and 2 x 6 channels


def test_layers_learned_in_place_have_the_variances_of_the_teacher_layers_they_stand_for(teacher, supernet):
    whole = replace(LARGEST, layers=LARGEST.layers[:2])  # compared with the teacher's layers 2 and 4
    flat, objective = replace(SMALLEST, layers=SMALLEST.layers[:1]), objectives(teacher, supernet)
    own = in_place_objective(objective(flat), flat, objective(whole), whole)
    assert own.recipe.states == ((0, 0), (1, 2))
    assert own.scales == Scales((0.5, 0.7, 0.9), (0.1, 0.3, 0.45), (3.0, 5.0))


def make_tasks(teacher: Teacher, teacher_folder) -> list[TaskObjective]:
    """Two tasks under one teacher each, one of them with inner states."""
    found = []
    for labels in (("no", "yes"), ("a", "b", "c")):
        task = TextTask(TaskArguments(data="x", text_column="text", problem="single_label"), teacher.tokenizer, labels)
        torch.manual_seed(len(labels))
        model = task.auto_class.from_pretrained(teacher_folder(), num_labels=len(labels))
        encoder = Teacher(model.base_model, teacher.tokenizer, "teacher") if len(labels) == 2 else None
        inner = None
        if encoder is not None:
            inner = GeneralDistillation(encoder, SCALES, make_recipe(LossArguments(), SIZES, encoder))
        found.append(TaskObjective(task, TaskTeacher(model, encoder), 0.25, 2.0, inner))
    return found


SIZES = LARGEST.to_config(EfficientBertConfig())


@pytest.mark.parametrize("number", [0, 1])
def test_a_task_step_trains_one_slice_as_it_would_be_trained_alone(number, teacher, teacher_folder, supernet):
    tasks = make_tasks(teacher, teacher_folder)
    model = TaskSupernet(supernet, [one.task for one in tasks])
    candidates = Candidates(lambda rng: SMALLEST, LARGEST, 0)
    distillation = TaskSupernetDistillation(task_objectives(tasks, LossArguments(), supernet.base), candidates)
    batch = make_batch() | {"labels": torch.tensor([1, 0, 1]), "task": torch.tensor([number])}
    counts = distillation.count(batch)
    assert counts == {"batches": torch.ones(())}
    loss, terms = distillation(model, batch, {"batches": torch.tensor(2.0)}, 0)
    loss.backward()

    alone, single = model.extract(SMALLEST, number), tasks[number]
    if single.inner is not None:
        recipe = replace(single.inner.recipe, states=((0, 0), (1, 2), (2, 4)))
        single.inner = GeneralDistillation(single.inner.teacher, SCALES, recipe)
    students = [None, None]
    students[number] = alone

    def run(task: int, **inputs):
        return students[task](**inputs) if "capture" in inputs else students[task].model(**inputs)

    expected, expected_terms = MultitaskObjective(tasks)(run, batch, {"batches": torch.tensor(2.0)}, 0)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert (
        terms.keys()
        == expected_terms.keys()
        == ({"labels", "teacher"} | ({"hidden_states", "attention_scores"} if number == 0 else set()))
    )
    head = model.wholes[number].model.classifier.pooler.weight.grad
    torch.testing.assert_close(head[:12, :12], alone.model.classifier.pooler.weight.grad)
    shared = supernet.whole.encoder.layers[3].ffns[0].linear1.weight.grad
    torch.testing.assert_close(shared[:5, :12], alone.model.efficientbert.layers[1].ffns[0].linear1.weight.grad)


class Recorded(SupernetDistillation):
    """Notes what every call was asked for."""

    def __call__(self, model, batch, counts, step):
        self.calls = [*getattr(self, "calls", []), (step, self.candidates(step))]
        return super().__call__(model, batch, counts, step)


def make_rows(teacher: Teacher, rows: int = 24) -> Dataset:
    rng = random.Random(0)
    return Dataset.from_dict({"input_ids": [[rng.randrange(5, 60) for _ in range(12)] for _ in range(rows)]})


def run_training(folder: Path, teacher: Teacher, supernet: Supernet, steps: int, batch_size: int = 4, **changes):
    args = LoopArguments(batch_size=batch_size, learning_rate=3e-3, checkpoint_steps=2, **changes)
    accelerator = make_accelerator(args, folder, find_unused_parameters=True)
    candidates = Candidates(sample, LARGEST, seed=5, smallest=SMALLEST, num_random=1)
    distillation = Recorded(objectives(teacher, supernet), candidates, in_place=True)
    collator = PaddingCollator(teacher.tokenizer.pad_token_id)
    rows = make_rows(teacher)
    train(accelerator, Slices(supernet), distillation, rows, collator, args, steps, folder / "checkpoints", "supernet")
    return distillation.calls


def test_all_batches_of_a_step_train_the_same_architectures(teacher, supernet, tmp_path):
    calls = run_training(tmp_path, teacher, supernet, 3, gradient_accumulation_steps=2)
    assert [step for step, _ in calls] == [0, 0, 1, 1, 2, 2]
    assert all(calls[2 * step][1] == calls[2 * step + 1][1] for step in range(3))
    assert [len(architectures) for _, architectures in calls[::2]] == [3, 3, 3]


def test_accumulated_batches_give_the_weights_of_one_whole(teacher, tmp_path):
    weights = []
    for name, batch_size, accumulated in (("whole", 8, 1), ("parts", 4, 2)):
        fresh = make_supernet(teacher)
        run_training(tmp_path / name, teacher, fresh, 3, batch_size, gradient_accumulation_steps=accumulated)
        weights.append(fresh.state_dict())
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-3, atol=1e-4)


def test_two_processes_train_a_sandwich_as_one_with_the_double_batch(teacher, supernet, ranks, tmp_path):
    def work():
        trained = make_supernet(teacher)
        run_training(tmp_path, teacher, trained, 4, batch_size=2)
        if torch.distributed.get_rank() == 0:
            save_file(trained.state_dict(), tmp_path / "supernet.safetensors")
        torch.distributed.destroy_process_group()

    assert ranks(work) == [0, 0]
    run_training(tmp_path / "one", teacher, supernet, 4)
    two = load_file(tmp_path / "supernet.safetensors")
    for name, tensor in supernet.state_dict().items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-4)


SPACE = SearchSpace(
    EfficientBertConfig(),
    Choices(
        depths=(3, 2, 4),
        hidden_sizes=(20, 12, 30),
        head_counts=(4, 2),
        head_dims=(5, 4),
        embedding_sizes=(8, 5),
        stacks=(3, 1, 2),
    ),
)


def test_the_bounds_of_a_space_hold_all_that_is_drawn():
    largest, smallest = bounds(SPACE)
    assert largest == SPACE.largest() and SPACE.contains(largest)
    assert smallest == Architecture(Shape(12, 5), (LayerChoice(PLAIN, 1, 3, 2, 4),) * 2) and SPACE.contains(smallest)
    supernet = Supernet(SPACE.base, SPACE.largest(), 7)
    rng = random.Random(0)
    for architecture in (smallest, *(SPACE.sample(rng) for _ in range(5))):
        assert supernet(architecture, **make_batch()).hidden_states[-1].shape == (3, 10, 7)


def test_bounds_have_the_expressions_and_sizes_that_a_stage_has_fixed():
    texts = ("linear2(relu(mul(linear1(x), x)))", "tanh(linear2(gelu(linear1(x))))")
    found = Architecture(Shape(20, 5), (LayerChoice(texts[0], 1, 10, 2, 4), LayerChoice(texts[1], 3, 20, 0, 0)))
    largest, smallest = bounds(SPACE.fix_expressions(found))
    sizes = [(layer.expression, layer.stack, layer.intermediate_size) for layer in largest.layers]
    assert sizes == [(texts[0], 3, 30)] * 2 + [(texts[1], 3, 30)] * 2
    sizes = [(layer.expression, layer.stack, layer.intermediate_size) for layer in smallest.layers]
    assert sizes == [(texts[0], 1, 3), (texts[1], 1, 3)]
    wide = replace(SPACE, choices=replace(SPACE.choices, base_width=40)).fix_expressions(found)
    sizes = [(layer.expression, layer.intermediate_size) for layer in bounds(wide)[0].layers]
    assert sizes == [(texts[0], 20)] * 2 + [(texts[1], 40)] * 2  # the first crops at the hidden size
    for bound in bounds(SPACE.fix_sizes(found)):
        assert [(layer.stack, layer.intermediate_size) for layer in bound.layers] == [(1, 10), (3, 20)]
        assert [(layer.heads, layer.head_dim) for layer in bound.layers] == [(2, 4), (0, 0)]


def test_bounds_have_attention_in_all_layers():
    space = replace(SPACE, choices=replace(SPACE.choices, head_counts=(4, 0, 2)))
    largest, smallest = bounds(space)
    assert {(layer.heads, layer.head_dim) for layer in largest.layers} == {(4, 5)}
    assert {(layer.heads, layer.head_dim) for layer in smallest.layers} == {(2, 4)} and space.contains(smallest)
