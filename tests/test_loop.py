"""The training loop: accumulation, schedule, data order, and resuming to the same bits."""

import dataclasses
import errno
import functools
import itertools
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import TensorBoardTracker
from accelerate.utils import LoggerType
from datasets import Dataset, IterableDataset
from torch import nn

from efficientbert.train.cli.errors import InputError
from efficientbert.train.engine import accelerator as accelerators
from efficientbert.train.engine import display, loop, tracking
from efficientbert.train.engine.accelerator import make_accelerator
from efficientbert.train.engine.arguments import LoopArguments
from efficientbert.train.engine.best_weights import Selection
from efficientbert.train.engine.checkpoints import newest_checkpoint, save_checkpoint
from efficientbert.train.engine.finite import NotFiniteError
from efficientbert.train.engine.loop import describe_rise, train
from efficientbert.train.engine.optimizer import make_optimizer, make_schedule
from efficientbert.train.engine.order import EpochSampler, LengthSampler


class Killed(Exception):
    """Stands for the end of a process in the middle of a run."""


class Regression:
    """Mean squared error over a whole batch of unequal rows, as a sum over a count."""

    def __init__(self, killed_at: int | None = None):
        self.killed_at = killed_at
        self.seen: list[list[float]] = []

    def count(self, batch):
        return {"rows": torch.tensor(float(len(batch["x"])))}

    def __call__(self, model, batch, counts, step):
        if step == self.killed_at:
            raise Killed
        self.seen.append(batch["x"][:, 0].tolist())
        error = (model(batch["x"]).squeeze(-1) - batch["y"]).square().sum()
        return error / counts["rows"], {"error": error / counts["rows"]}


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.2), nn.LayerNorm(8), nn.Linear(8, 1))


def make_rows(size: int = 20) -> Dataset:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(size, 3, generator=generator)
    return Dataset.from_dict({"x": x.tolist(), "y": x.sum(1).tolist()})


def collate(rows):
    return {name: torch.tensor([row[name] for row in rows]) for name in ("x", "y")}


@dataclasses.dataclass(kw_only=True)
class ListArguments(LoopArguments):
    """With an argument of a kind that trackers do not take."""

    losses: list[str] = dataclasses.field(default_factory=lambda: ["hidden_states", "logits=2"])


def run(folder, objective, model=None, steps=11, rows=None, lengths=None, after_step=None, **changes):
    args = ListArguments(**({"batch_size": 4, "checkpoint_steps": 3, "log_steps": 2, "learning_rate": 0.05} | changes))
    accelerator = make_accelerator(args, folder)
    model = model or make_model()
    log = train(
        accelerator,
        model,
        objective,
        rows or make_rows(),
        collate,
        args,
        steps,
        folder / "checkpoints",
        "Testing",
        lengths=lengths,
        after_step=after_step,
    )
    return model, log


@pytest.mark.parametrize("killed_at", [1, 3, 7, 10])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_killed_run_goes_on_to_the_same_bits(killed_at, accumulation, tmp_path):
    changes = {"gradient_accumulation_steps": accumulation}
    whole, whole_log = run(tmp_path / "whole", Regression(), **changes)
    with pytest.raises(Killed):
        run(tmp_path / "cut", Regression(killed_at), **changes)
    resumed = Regression()
    model, log = run(tmp_path / "cut", resumed, **changes)
    for name, parameter in whole.state_dict().items():
        assert torch.equal(parameter, model.state_dict()[name]), name
    assert log == whole_log
    assert len(resumed.seen) == (11 - killed_at // 3 * 3) * accumulation


def test_a_streamed_run_goes_on_to_the_same_bits(tmp_path):
    def stream():
        return make_rows().to_iterable_dataset().shuffle(seed=1, buffer_size=8)

    whole, _ = run(tmp_path / "whole", Regression(), rows=stream())
    with pytest.raises(Killed):
        run(tmp_path / "cut", Regression(8), rows=stream())
    model, _ = run(tmp_path / "cut", Regression(), rows=stream())
    for name, parameter in whole.state_dict().items():
        assert torch.equal(parameter, model.state_dict()[name]), name


def test_only_the_newest_checkpoint_is_kept_and_half_a_one_is_ignored(tmp_path):
    with pytest.raises(Killed):
        run(tmp_path, Regression(8))
    checkpoints = tmp_path / "checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["step-00000006"]
    (checkpoints / "writing").mkdir()
    (checkpoints / "writing" / "model.safetensors").write_bytes(b"half")
    assert newest_checkpoint(checkpoints).name == "step-00000006"
    run(tmp_path, Regression())


def test_accumulation_gives_the_gradient_of_the_whole_batch(tmp_path):
    models = []
    for batch_size, accumulation in ((8, 1), (4, 2), (2, 4)):
        model = make_model()
        model[1].p = 0.0
        folder = tmp_path / str(batch_size)
        changes = {"batch_size": batch_size, "gradient_accumulation_steps": accumulation, "checkpoint_steps": 100}
        models.append(run(folder, Regression(), model, steps=4, rows=make_rows(16), **changes)[0])
    for model in models[1:]:
        for one, other in zip(models[0].parameters(), model.parameters()):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_every_row_once_an_epoch_in_a_new_order(tmp_path):
    objective = Regression()
    run(tmp_path, objective, steps=10)
    epochs = [[x for batch in part for x in batch] for part in (objective.seen[:5], objective.seen[5:])]
    rows = sorted(row["x"][0] for row in make_rows())
    for epoch in epochs:
        assert sorted(epoch) == pytest.approx(rows)
    assert epochs[0] != epochs[1]
    assert list(EpochSampler(9, 1)) != list(EpochSampler(9, 2))


def test_schedule():
    factor = make_schedule(LoopArguments(warmup_ratio=0.4), 10)
    assert [factor(step) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert [factor(step) for step in (4, 7, 10)] == pytest.approx([1.0, 0.5, 0.0])
    assert make_schedule(LoopArguments(warmup_ratio=0.0), 2)(0) == 1.0


def test_a_schedule_may_stay_before_it_falls():
    factor = make_schedule(LoopArguments(warmup_ratio=0.2, stable_ratio=0.75), 10)
    assert [factor(step) for step in range(11)] == [0.5, *[1.0] * 8, 0.5, 0.0]
    assert make_schedule(LoopArguments(warmup_ratio=0.0, stable_ratio=1.0), 3)(2) == 1.0


def rows_of(losses: list[float]) -> list[dict[str, float]]:
    return [{"step": 10 * (index + 1), "loss": loss} for index, loss in enumerate(losses)]


def test_a_loss_that_has_risen_is_told():
    fell = [3.0 - 0.1 * index for index in range(20)]
    assert describe_rise(rows_of(fell + [0.4] * 20)) is None
    told = describe_rise(rows_of(fell + [0.4] * 10 + [0.9] * 10))
    assert told == (
        "note: the loss was 0.4 until step 240 and is 0.9 in the end; a lower --learning_rate keeps it down"
    )
    assert describe_rise(rows_of([1.0] * 30 + [1.4] * 10)) is None  # that is how losses vary
    assert describe_rise(rows_of([1.0] * 10 + [9.0] * 9)) is None  # too few rows to tell


def test_weight_decay_spares_biases_and_norms():
    model = make_model()
    decayed, spared = make_optimizer(model, LoopArguments(weight_decay=0.3)).param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.3, 0.0)
    assert {id(p) for p in decayed["params"]} == {id(model[0].weight), id(model[3].weight)}


def test_log_rows_average_since_the_last_row(tmp_path):
    losses = []

    class Recorded(Regression):
        def __call__(self, model, batch, counts, step):
            loss, terms = super().__call__(model, batch, counts, step)
            losses.append(loss.item())
            return loss, terms

    _, log = run(tmp_path, Recorded(), steps=7, checkpoint_steps=3)
    assert [row["step"] for row in log] == [2, 3, 4, 6, 7]
    assert log[0]["loss"] == pytest.approx(sum(losses[:2]) / 2, rel=1e-5)
    assert log[1]["loss"] == pytest.approx(losses[2], rel=1e-5)
    assert log[3]["error"] == pytest.approx(sum(losses[4:6]) / 2, rel=1e-5)


def test_less_than_a_batch_is_refused(tmp_path):
    with pytest.raises(InputError, match="less than one batch of 4 rows"):
        run(tmp_path, Regression(), rows=make_rows(3))


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch_size", 0), ("learning_rate", 0.0), ("learning_rate", float("nan")), ("warmup_ratio", 1.5)]
    + [(name, float("inf")) for name in ("learning_rate", "weight_decay", "max_grad_norm")]
    + [("batch_size", "4")]
    + [("mixed_precision", "fp8"), ("checkpoint_steps", 0), ("gradient_accumulation_steps", -1), ("seed", -1)],
)
def test_values_no_run_can_work_with(name, value):
    with pytest.raises(InputError, match=name):
        dataclasses.replace(LoopArguments(), **{name: value}).check()


def test_every_training_has_a_run_of_the_tracker_to_itself(tmp_path, monkeypatch):
    """Four trainings of one accelerator, one of them too short for checkpoints: every row is written once."""
    written, alive = [], []
    real = TensorBoardTracker.log

    def log(self, values, step=None, **more):
        written.append((self.run_name, step))
        real(self, values, step, **more)

    monkeypatch.setattr(TensorBoardTracker, "log", log)
    args = ListArguments(batch_size=4, log_steps=2, tracker="tensorboard")
    accelerator = make_accelerator(args, tmp_path)
    for name, checkpoints in (("Warm-up", "a"), ("Candidate: text", None), ("On 2 tasks", "b"), ("Warm-up", "c")):
        train(
            accelerator,
            make_model(),
            Regression(),
            make_rows(),
            collate,
            args,
            4,
            None if checkpoints is None else tmp_path / checkpoints,
            name,
            after_step=lambda _: alive.append(len(accelerator.trackers)),
        )
    assert alive == [1] * 4 + [0] * 4 + [1] * 8
    assert written == [(name, step) for name in ("warm-up", "on-2-tasks", "warm-up") for step in (2, 4)]
    assert {path.name for path in (tmp_path / "logs").iterdir()} == {"warm-up", "on-2-tasks"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tensorbord", r"tracker: 'tensorbord' is unknown; known are all, .*tensorboard.*; installed are tensorboard"),
        ("clearml", r"tracker: 'clearml' is not installed; installed are tensorboard"),
    ],
)
def test_a_tracker_that_is_not_here_is_refused(name, message, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: [LoggerType.TENSORBOARD])
    with pytest.raises(InputError, match=message):
        make_accelerator(LoopArguments(tracker=name), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "cuda:7"}, "device 'cuda:7': is not here"),
        ({"device": "gpu"}, "device 'gpu': is not here"),
        ({"device": "cpu", "mixed_precision": "fp16"}, "mixed_precision: 'fp16' is for GPUs; on device 'cpu' choose"),
    ],
)
def test_what_a_device_cannot_do_is_refused(changes, message, tmp_path):
    with pytest.raises(InputError, match=message):
        make_accelerator(LoopArguments(**changes), tmp_path)


@pytest.mark.parametrize(
    ("precision", "slowdown", "told"),
    [("bf16", 68.7, "mixed_precision: on this processor 'bf16' takes 69 times as long as 'no'\n")]
    + [("bf16", 0.6, ""), ("no", 68.7, "")],
)
def test_a_processor_that_only_emulates_bfloat16_is_told(precision, slowdown, told, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(accelerators, "bf16_slowdown", lambda: slowdown)
    AcceleratorState._reset_state(True)  # a process has one precision
    make_accelerator(LoopArguments(device="cpu", mixed_precision=precision), tmp_path)
    AcceleratorState._reset_state(True)
    assert capsys.readouterr().out == told


def test_a_named_device_is_the_one(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("cuda"))
    assert make_accelerator(LoopArguments(device="cpu"), tmp_path).device.type == "cpu"
    with pytest.raises(InputError, match="device 'cuda': this process computes on 'cpu' already; start another one"):
        make_accelerator(LoopArguments(), tmp_path)


def test_no_steps_are_told(tmp_path, capsys):
    model, log = run(tmp_path, Regression(), steps=0)
    assert log == [] and "Testing: 0 steps, so nothing was trained" in capsys.readouterr().out
    for name, parameter in make_model().state_dict().items():
        assert torch.equal(parameter, model.state_dict()[name]), name


@pytest.mark.parametrize("steps", [11, 400])
def test_where_is_no_terminal_there_are_lines(steps, tmp_path, capfd):
    run(tmp_path, Regression(), steps=steps, checkpoint_steps=1000)
    lines = capfd.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 21 and all("\r" not in line and "|" not in line for line in lines)
    pattern = r"Testing: step (\d+) of \d+, loss \d+\.\d{4}, \d:\d\d:\d\d left"
    shown = [int(re.fullmatch(pattern, line)[1]) for line in lines]
    assert shown == sorted(set(shown)) and shown[-1] == steps


def test_a_line_is_due_behind_a_silence(monkeypatch):
    now = 100.0
    monkeypatch.setattr(display.time, "monotonic", lambda: now)
    lines, silent = display.Lines(0, 4), display.Lines(0, 0)
    assert [lines.due(done, 16) for done in range(9)] == [done in (4, 8) for done in range(9)]
    assert not any(silent.due(done, 16) for done in (1, 16)) and not lines.due(9, 100)
    now += display.SILENCE
    assert lines.due(9, 100) and silent.due(9, None)
    assert not lines.due(10, 100) and not silent.due(10, 100)


class EpochCollator:
    """Marks every row with its epoch and the process that collated it."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __call__(self, rows):
        return collate(rows) | {"epoch": torch.tensor([self.epoch]), "process": torch.tensor([os.getpid()])}


def test_workers_on_a_gpu_give_the_same_batches_and_know_the_epoch(monkeypatch):
    monkeypatch.setattr(loop, "available_cores", lambda: 3)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)  # no pinned memory here
    args, found = LoopArguments(batch_size=4), {}
    for device in ("cpu", "cuda"):
        accelerator = SimpleNamespace(device=torch.device(device), num_processes=1)
        loader = loop._make_loader(accelerator, make_rows(), EpochCollator(), args, None)
        found[device] = []
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)
            loader.collate_fn.set_epoch(epoch)
            found[device] += list(loader)
    assert {batch["process"].item() for batch in found["cpu"]} == {os.getpid()}
    assert len({batch["process"].item() for batch in found["cuda"]} - {os.getpid()}) == 4  # two in every epoch
    for one, other in zip(found["cpu"], found["cuda"], strict=True):
        assert all(torch.equal(one[name], other[name]) for name in ("x", "y", "epoch"))
    assert [batch["epoch"].item() for batch in found["cuda"]] == [0] * 5 + [1] * 5


LENGTHS = [7, 3, 9, 1, 4, 4, 8, 2, 6, 5] * 2


@pytest.mark.parametrize("killed_at", [3, 7, 10])
def test_a_killed_run_with_batches_of_like_length_goes_on_to_the_same_bits(killed_at, tmp_path):
    whole, whole_log = run(tmp_path / "whole", Regression(), lengths=LENGTHS)
    with pytest.raises(Killed):
        run(tmp_path / "cut", Regression(killed_at), lengths=LENGTHS)
    model, log = run(tmp_path / "cut", Regression(), lengths=LENGTHS)
    for name, parameter in whole.state_dict().items():
        assert torch.equal(parameter, model.state_dict()[name]), name
    assert log == whole_log


def test_every_row_once_an_epoch_with_like_lengths_together():
    lengths = torch.randint(1, 129, (1003,), generator=torch.Generator().manual_seed(2)).tolist()
    sampler = LengthSampler(lengths, 8, seed=3)
    orders = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
        assert orders[-1] == list(sampler)
        assert sorted(orders[-1]) == list(range(1003))
    assert orders[0] != orders[1] != orders[2]
    assert {*orders[0][1000:]} != {*orders[1][1000:]}  # what fills no batch is another every time

    def padded(order: list[int]) -> float:
        batches = [[lengths[row] for row in order[start : start + 8]] for start in range(0, 1000, 8)]
        return sum(8 * max(batch) for batch in batches) / sum(map(sum, batches))

    assert padded(list(EpochSampler(1003, 3))) > 1.5
    assert padded(orders[0]) < 1.06

    def rises(order: list[int]) -> list[bool]:
        totals = [sum(lengths[row] for row in order[start : start + 8]) for start in range(0, 1000, 8)]
        return [one < other for one, other in itertools.pairwise(totals)]

    first, second = rises(orders[0]), rises(orders[1])
    assert 40 < sum(first) < 84  # of 124: batches are shuffled, not sorted,
    assert 40 < sum(one == other for one, other in zip(first, second)) < 84  # and otherwise in every epoch


def test_rows_of_like_length_are_trained_on_once_an_epoch(tmp_path):
    objective = Regression()
    run(tmp_path, objective, steps=5, lengths=LENGTHS)
    rows = make_rows()
    assert sorted(x for part in objective.seen for x in part) == pytest.approx(sorted(row["x"][0] for row in rows))
    length_of = {round(row["x"][0], 5): length for row, length in zip(rows, LENGTHS)}
    lengths = [[length_of[round(x, 5)] for x in part] for part in objective.seen]
    assert [sum(part) for part in lengths] != sorted(sum(part) for part in lengths)
    # Two blocks, of three batches and of two: each block's batches are its lengths in order.
    assert all(part == sorted(part) for part in lengths)
    assert sum(max(part) - min(part) for part in lengths) <= 2 * (9 - 1)


def test_after_step_sees_the_new_weights_before_they_are_kept(tmp_path):
    called, model = [], make_model()

    def after_step(step):
        newest = newest_checkpoint(tmp_path / "checkpoints")
        called.append((step, model.training, None if newest is None else newest.name, model[0].weight.clone()))

    run(tmp_path, Regression(), model, steps=5, after_step=after_step)
    assert [row[0] for row in called] == [1, 2, 3, 4, 5]
    assert all(row[1] for row in called)
    assert [row[2] for row in called] == [None, None, None, "step-00000003", "step-00000003"]
    for (*_, one), (*_, other) in itertools.pairwise(called):
        assert not torch.equal(one, other)
    assert torch.equal(called[-1][3], model[0].weight)


class Faulty(Regression):
    """A loss that is no number, or one whose gradient is infinite, in some steps."""

    def __init__(self, loss=(), gradient=(), killed_at=None):
        super().__init__(killed_at)
        self.loss, self.gradient = loss, gradient

    def __call__(self, model, batch, counts, step):
        loss, terms = super().__call__(model, batch, counts, step)
        if step in self.loss:
            return loss * float("nan"), {"error": loss, "other": loss * float("nan")}
        if step in self.gradient:
            zero = next(model.parameters()).flatten()[0] * 0
            loss = loss + zero.abs().sqrt() * zero.abs().sqrt()
        return loss, {**terms, "other": loss}


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_steps_that_are_not_finite_are_skipped(kind, tmp_path):
    weights = []
    model = make_model()
    objective = Faulty(**{kind: (2, 5)})
    _, log = run(tmp_path, objective, model, steps=8, after_step=lambda step: weights.append(model[0].weight.clone()))
    for step in range(1, 8):
        assert torch.equal(weights[step], weights[step - 1]) == (step in (2, 5)), step
    assert [(row["step"], row["skipped"]) for row in log] == [(2, 0), (3, 1), (4, 0), (6, 1), (8, 0)]
    assert "loss" not in log[1] and all(torch.tensor(list(row.values())).isfinite().all() for row in log)
    rates = [row["learning_rate"] for row in log]
    _, whole_log = run(tmp_path / "whole", Regression(), steps=8)
    assert rates == [row["learning_rate"] for row in whole_log]


def test_skipped_steps_are_told_and_half_a_training_is_none(tmp_path, capsys):
    with pytest.raises(Killed):
        run(tmp_path / "few", Faulty(loss=(2, 7), killed_at=9), steps=11)
    run(tmp_path / "few", Faulty(loss=(2, 7)), steps=11)
    told = "2 of 11 steps were skipped: loss or gradient not finite (first at step 3)"
    assert told in capsys.readouterr().out
    run(tmp_path / "half", Faulty(gradient=(1, 2, 5)), steps=6)
    assert "3 of 6 steps were skipped" in capsys.readouterr().out
    with pytest.raises(NotFiniteError, match=r"training: 4 of 6 steps were skipped: .* \(first at step 2\); lower"):
        run(tmp_path / "most", Faulty(loss=(1, 2, 4, 5)), steps=6)
    run(tmp_path / "none", Regression(), steps=6)
    assert "skipped" not in capsys.readouterr().out


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_weights_that_are_not_finite_are_in_no_checkpoint(value, tmp_path):
    model = make_model()

    def spoil(step: int) -> None:
        if step == 6:
            model[3].weight.data[0, 5] = value

    with pytest.raises(NotFiniteError, match=r"training: step 6: weight '3\.weight' is not finite and not saved"):
        run(tmp_path, Regression(), model, after_step=spoil)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000003"]


def test_weights_that_are_not_finite_are_never_the_best(tmp_path):
    model = make_model()
    selection = Selection(model, lambda: 1.0, tmp_path / "best.safetensors", every=1, last=2)
    model[0].bias.data[1] = float("inf")
    with pytest.raises(NotFiniteError, match=r"step 1: weight '0\.bias'"):
        selection(1)
    assert not list(tmp_path.iterdir())


def test_a_killed_run_with_skipped_steps_goes_on_to_the_same_bits(tmp_path):
    whole, whole_log = run(tmp_path / "whole", Faulty(loss=(1, 7)))
    with pytest.raises(Killed):
        run(tmp_path / "cut", Faulty(loss=(1, 7), killed_at=8))
    model, log = run(tmp_path / "cut", Faulty(loss=(1, 7)))
    for name, parameter in whole.state_dict().items():
        assert torch.equal(parameter, model.state_dict()[name]), name
    assert log == whole_log


def test_too_many_skipped_steps_end_the_run_and_leave_the_checkpoint(tmp_path):
    with pytest.raises(
        NotFiniteError, match=r"step 6: loss, other, gradient not finite; with it 3 steps were skipped.* allows 2"
    ):
        run(tmp_path, Faulty(loss=(1, 4, 5, 6)), max_skipped_steps=2)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000003"]
    # Skipped steps before the checkpoint count on.
    with pytest.raises(InputError, match=r"step 6: gradient not finite; with it 3 steps"):
        run(tmp_path, Faulty(gradient=(4, 5)), max_skipped_steps=2)
    run(tmp_path, Regression(), max_skipped_steps=2)


def test_a_run_without_checkpoints_does_the_same_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected, _ = run(tmp_path / "whole", Regression())
    args = ListArguments(batch_size=4, checkpoint_steps=3, log_steps=2, learning_rate=0.05)
    for _ in range(2):
        accelerator = make_accelerator(args, tmp_path / "none")
        model = make_model()
        train(accelerator, model, Regression(), make_rows(), collate, args, 11, None, "Testing")
        for name, parameter in expected.state_dict().items():
            assert torch.equal(parameter, model.state_dict()[name]), name
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def test_one_accelerator_trains_several_models_in_turn(tmp_path):
    """What is left of the first is not in the second's checkpoints: another process goes on from them."""
    expected, _ = run(tmp_path / "alone", Regression())
    args = ListArguments(batch_size=4, checkpoint_steps=3, log_steps=2, learning_rate=0.05)
    accelerator = make_accelerator(args, tmp_path)
    first = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 1))
    train(accelerator, first, Regression(), make_rows(), collate, args, 11, tmp_path / "first", "Testing")
    model = make_model()
    with pytest.raises(Killed):
        train(
            accelerator,
            model,
            Regression(5),
            make_rows(),
            collate,
            args,
            11,
            tmp_path / "cut" / "checkpoints",
            "Testing",
        )
    model, _ = run(tmp_path / "cut", Regression())
    for name, parameter in expected.state_dict().items():
        assert torch.equal(parameter, model.state_dict()[name]), name


def test_mixed_precision_ends_with_the_training(tmp_path):
    """What is computed behind it is what the saved weights give, to the bit."""
    AcceleratorState._reset_state()  # one process, one precision
    model, _ = run(tmp_path, Regression(), mixed_precision="bf16")
    AcceleratorState._reset_state()
    saved = make_model()
    saved.load_state_dict(model.state_dict())
    x = torch.tensor(make_rows()["x"][:])
    assert torch.equal(model.eval()(x), saved.eval()(x))


def test_compiled_runs_keep_names_and_go_on_to_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(nn.Module, "compile", functools.partialmethod(nn.Module.compile, backend="eager"))
    plain, _ = run(tmp_path / "plain", Regression())
    with pytest.raises(Killed):
        run(tmp_path / "cut", Regression(7), compile=True)
    model, _ = run(tmp_path / "cut", Regression(), compile=True)
    assert model._compiled_call_impl is not None
    assert model.state_dict().keys() == plain.state_dict().keys()
    for name, parameter in plain.state_dict().items():
        torch.testing.assert_close(parameter, model.state_dict()[name], msg=name)


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("PytorchStreamWriter failed writing file data/0")],
)
def test_a_full_disk_leaves_the_last_checkpoint(error, tmp_path, monkeypatch):
    real = Accelerator.save_state

    def save_state(self, folder):
        real(self, folder)
        if (tmp_path / "checkpoints" / "step-00000003").exists():
            (Path(folder) / "optimizer.bin").write_bytes(b"torn")
            raise error

    whole, whole_log = run(tmp_path / "whole", Regression())
    with monkeypatch.context() as patched:
        patched.setattr(Accelerator, "save_state", save_state)
        with pytest.raises(InputError, match=r"step-00000006': cannot be written, with .* MB free: .*make room"):
            run(tmp_path, Regression())
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000003"]
    model, log = run(tmp_path, Regression())
    for name, parameter in whole.state_dict().items():
        assert torch.equal(parameter, model.state_dict()[name]), name
    assert log == whole_log


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("CUDA error: an illegal memory access"), None),
        (PermissionError(errno.EACCES, "Permission denied"), r"MB free: .*Permission denied; start it again"),
    ],
)
def test_what_is_no_full_disk_is_not_called_one(error, told, tmp_path, monkeypatch):
    def save_state(self, folder):
        raise error

    monkeypatch.setattr(Accelerator, "save_state", save_state)
    with pytest.raises(type(error) if told is None else InputError, match=told or "illegal memory access") as caught:
        run(tmp_path, Regression())
    assert "make room" not in str(caught.value)


def test_a_disk_without_room_for_the_folder_of_checkpoints(tmp_path, monkeypatch):
    def mkdir(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    accelerator = make_accelerator(LoopArguments(), tmp_path)
    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(InputError, match=r"step-00000003': cannot be written, with .* MB free: .*make room"):
        save_checkpoint(accelerator, tmp_path / "not" / "there", 3)


@pytest.mark.parametrize("error", [OSError("Corrupt snappy compressed data."), ValueError("no JSON")])
def test_a_stream_that_breaks_ends_the_run_in_one_line(error, tmp_path):
    def rows():
        yield from make_rows(18)
        raise error

    with pytest.raises(InputError, match=f"data: cannot be read: {error}"):
        run(tmp_path, Regression(), rows=IterableDataset.from_generator(rows))
    assert newest_checkpoint(tmp_path / "checkpoints").name == "step-00000003"
