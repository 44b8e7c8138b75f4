"""Weights of trained candidates: those of the front are kept, and given back to the bit."""

import pytest
import torch

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.modeling_efficientbert import EfficientBertModel
from efficientbert.search.scores.trained_candidates import TrainedCandidates
from efficientbert.search.space.architecture import Architecture, LayerChoice, Shape
from efficientbert.train.distillation.student import Student


def make_architecture(width: int) -> Architecture:
    return Architecture(Shape(12, 3, 4, 8), (LayerChoice("linear2(gelu(linear1(x)))", 1, width),))


def make_student(architecture: Architecture, seed: int) -> Student:
    torch.manual_seed(seed)
    return Student(EfficientBertModel(architecture.to_config(EfficientBertConfig(vocab_size=50))), 24)


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
        architecture = make_architecture(number + 1)
        trained.keep(architecture, loss, make_student(architecture, number))
    found = [trained.load(make_architecture(n + 1), make_student(make_architecture(n + 1), 9)) for n in range(5)]
    assert [number for number, there in enumerate(found) if there] == kept
    assert len(list((tmp_path / "trained").iterdir())) == len(kept)


def test_weights_come_back(tmp_path):
    architecture = make_architecture(5)
    TrainedCandidates(tmp_path, lambda *_: (1.0,)).keep(architecture, 1.0, make_student(architecture, 0))
    found, expected = make_student(architecture, 1), make_student(architecture, 0).state_dict()
    assert TrainedCandidates(tmp_path, lambda *_: (1.0,)).load(architecture, found)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.state_dict().items())


def test_a_failed_save_leaves_nothing_behind(tmp_path, monkeypatch):
    def fails(*_):
        raise OSError("no room")

    monkeypatch.setattr("os.replace", fails)
    architecture = make_architecture(5)
    with pytest.raises(OSError, match="no room"):
        TrainedCandidates(tmp_path, lambda *_: (1.0,)).keep(architecture, 1.0, make_student(architecture, 0))
    assert list(tmp_path.iterdir()) == []
