"""The best weights of a run are kept, whatever happens in between."""

import torch
from torch import nn

from efficientbert.train.engine.best_weights import Selection


def run(model, scores, path, steps=range(1, 11), every=3, last=10):
    """Sets the weight to the step and scores it as given."""
    selection = Selection(model, lambda: scores[int(model.weight)], path, every, last)
    for step in steps:
        nn.init.constant_(model.weight, step)
        selection(step)
    return selection


def make_model():
    return nn.Linear(1, 1, bias=False)


def test_the_earliest_of_the_best_is_kept_and_restored(tmp_path):
    model = make_model()
    selection = run(model, {3: 0.1, 6: 0.7, 9: 0.7, 10: 0.5}, tmp_path / "best.safetensors")
    assert selection.restore() == (6, 0.7) and model.weight.item() == 6
    assert [path.name for path in tmp_path.iterdir()] == ["best.safetensors"]


def test_the_last_step_is_scored(tmp_path):
    selection = run(make_model(), {3: 0.1, 6: 0.2, 9: 0.3, 10: 0.9}, tmp_path / "best.safetensors")
    assert selection.best() == (10, 0.9)


def test_an_interrupted_run_keeps_what_an_uninterrupted_one_does(tmp_path):
    scores = {3: 0.1, 6: 0.4, 9: 0.4, 10: 0.2}
    for killed_behind in range(1, 11):
        path = tmp_path / f"{killed_behind}.safetensors"
        model = make_model()
        run(model, scores, path, range(1, killed_behind + 1))
        checkpoint = killed_behind // 4 * 4
        assert run(model, scores, path, range(checkpoint + 1, 11)).restore() == (6, 0.4)
        assert torch.equal(model.weight, torch.full((1, 1), 6.0))


def test_other_processes_do_not_score(tmp_path):
    def never():
        raise AssertionError

    Selection(make_model(), never, tmp_path / "best.safetensors", 1, 2, writes=False)(1)
    assert not list(tmp_path.iterdir())


def test_a_score_that_is_no_number_loses(tmp_path):
    model = make_model()
    nan = float("nan")
    assert run(model, {3: nan, 6: 0.2, 9: nan, 10: 0.1}, tmp_path / "best.safetensors").restore() == (6, 0.2)
