"""Weights of trained candidates: those that no other beats are kept, also by workers that are started later,
and given back to the bit."""

import random

import pytest
import torch
from torch import nn

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.modeling_efficientbert import EfficientBertModel
from efficientbert.search.scores.trained_candidates import TrainedCandidates
from efficientbert.search.space.architecture import Architecture, LayerChoice, Shape
from efficientbert.train.distillation.student import Student


def architecture_of(width: int) -> Architecture:
    return Architecture(Shape(12, 8), (LayerChoice("linear2(gelu(linear1(x)))", 1, width, 3, 4),))


def make_student(architecture: Architecture, seed: int) -> Student:
    torch.manual_seed(seed)
    return Student(EfficientBertModel(architecture.to_config(EfficientBertConfig(vocab_size=50))), 24)


def weights(value: float) -> nn.Module:
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, value)
    return module


def worker(folder, objectives: int = 1) -> TrainedCandidates:
    """As a process that is started now: it knows the folder alone. The second objective is the width."""
    return TrainedCandidates(folder, lambda a, loss: (loss, float(a.layers[0].intermediate_size))[:objectives])


def kept(folder, widths) -> dict[int, float]:
    found = {}
    for width in widths:
        module = weights(-1.0)
        if worker(folder).load(architecture_of(width), module):
            found[width] = module.weight.item()
    return found


def test_a_worker_that_is_started_again_drops_what_it_beats_and_keeps_nothing_worse(tmp_path):
    folder = tmp_path / "trained"
    worker(folder).keep(architecture_of(1), 0.5, weights(5.0))
    worker(folder).keep(architecture_of(2), 0.6, weights(6.0))  # worse than what an earlier worker has kept
    assert kept(folder, (1, 2)) == {1: 5.0}
    worker(folder).keep(architecture_of(3), 0.4, weights(4.0))
    assert kept(folder, (1, 2, 3)) == {3: 4.0}
    assert len(list(folder.iterdir())) == 1


def test_a_candidate_that_is_trained_again_takes_its_own_place(tmp_path):
    for value in (5.0, 7.0):
        worker(tmp_path).keep(architecture_of(1), 0.5, weights(value))
    assert kept(tmp_path, (1,)) == {1: 7.0}


@pytest.mark.parametrize("objectives", [1, 2])
@pytest.mark.parametrize("restarts", [1, 3, 100])
def test_what_is_kept_are_the_candidates_that_no_other_dominates(objectives, restarts, tmp_path):
    rng = random.Random(objectives)
    losses = {width: (rng.randint(0, 9) / 8, float(width))[:objectives] for width in rng.sample(range(1, 20), 12)}
    for number, width in enumerate(losses):
        if number % max(1, len(losses) // restarts) == 0:
            trained = worker(tmp_path, objectives)
        trained.keep(architecture_of(width), losses[width][0], weights(float(width)))
    best = {
        width
        for width, own in losses.items()
        if not any(o != own and all(x <= y for x, y in zip(o, own)) for o in losses.values())
    }
    assert kept(tmp_path, losses) == {width: float(width) for width in best}


def test_files_without_losses_are_left_alone_and_can_be_loaded(tmp_path):
    """As versions before have written them, or of a worker that was killed."""
    from safetensors.torch import save_file

    worker(tmp_path).keep(architecture_of(1), 0.5, weights(5.0))
    (path,) = tmp_path.iterdir()
    save_file({"weight": torch.full((1, 1), 3.0)}, path)
    (tmp_path / "broken.safetensors").write_bytes(b"x")
    worker(tmp_path).keep(architecture_of(2), 0.6, weights(6.0))
    assert kept(tmp_path, (1, 2)) == {1: 3.0, 2: 6.0}


@pytest.mark.parametrize(
    "objectives, kept",
    [
        (1, [4]),  # of losses 3, 2, 5, 2, 1 for widths 1 to 5
        (2, [0, 1, 4]),  # with the width beside: 3 is as good as 1 and wider, 5 is worse
    ],
)
def test_only_what_none_is_better_than_stays(objectives, kept, tmp_path):
    trained = TrainedCandidates(
        tmp_path / "trained", lambda architecture, loss: (loss, architecture.layers[0].intermediate_size)[:objectives]
    )
    for number, loss in enumerate((3.0, 2.0, 5.0, 2.0, 1.0)):
        architecture = architecture_of(number + 1)
        trained.keep(architecture, loss, make_student(architecture, number))
    found = [trained.load(architecture_of(n + 1), make_student(architecture_of(n + 1), 9)) for n in range(5)]
    assert [number for number, there in enumerate(found) if there] == kept
    assert len(list((tmp_path / "trained").iterdir())) == len(kept)


def test_weights_come_back(tmp_path):
    architecture = architecture_of(5)
    TrainedCandidates(tmp_path, lambda *_: (1.0,)).keep(architecture, 1.0, make_student(architecture, 0))
    found, expected = make_student(architecture, 1), make_student(architecture, 0).state_dict()
    assert TrainedCandidates(tmp_path, lambda *_: (1.0,)).load(architecture, found)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.state_dict().items())


def test_a_failed_save_leaves_nothing_behind(tmp_path, monkeypatch):
    def fails(*_):
        raise OSError("no room")

    monkeypatch.setattr("os.replace", fails)
    architecture = architecture_of(5)
    with pytest.raises(OSError, match="no room"):
        TrainedCandidates(tmp_path, lambda *_: (1.0,)).keep(architecture, 1.0, make_student(architecture, 0))
    assert list(tmp_path.iterdir()) == []
