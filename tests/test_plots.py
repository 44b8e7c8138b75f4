"""Pictures of a search: axes, ticks and keys, read from the figures."""

import pytest
from matplotlib import image

from efficientbert.search.study.plot import plot_front, plot_history
from efficientbert.search.study.record import Record


def record(number: int, state: str = "COMPLETE", **figures: float) -> Record:
    return Record(number, number, state, None, figures, None, {}, 0, "")


RECORDS = [
    record(0, loss=0.5, parameters=7.1e6, flops=1.5e9, latency=12.0),
    record(1, "FAIL"),
    record(2, loss=0.4, parameters=7.3e6, flops=1.7e9, latency=14.0),
    record(3, "PRUNED"),
    record(4, loss=0.45, parameters=7.4e6, flops=1.6e9, latency=13.0),
]
LABELS = {
    "loss": "loss",
    "parameters": "parameters (millions)",
    "flops": "FLOPs of a sequence (billions)",
    "latency": "latency of a forward (ms)",
}


def key(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_candidates_are_whole_numbers(count, tmp_path):
    figure = plot_history(RECORDS[:count], "loss", tmp_path / "history.png")
    assert all(float(tick).is_integer() for tick in figure.axes[0].get_xticks())
    figure = plot_front(RECORDS[:count], "latency", "loss", tmp_path / "front.png")
    assert all(float(tick).is_integer() for tick in figure.axes[1].get_yticks())  # of the colour bar


@pytest.mark.parametrize("objective", LABELS)
def test_axes_have_units(objective, tmp_path):
    (axes,) = plot_history(RECORDS, objective, tmp_path / "history.png").axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("candidate", LABELS[objective])
    axes, bar = plot_front(RECORDS, objective, "loss", tmp_path / "front.png").axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == (LABELS[objective], "loss")
    assert bar.get_ylabel() == "number of the candidate"


def test_figures_stand_in_the_unit_of_their_axis(tmp_path):
    axes = plot_front(RECORDS, "parameters", "loss", tmp_path / "front.png").axes[0]
    assert axes.collections[0].get_offsets().tolist() == [[7.1, 0.5], [7.3, 0.4], [7.4, 0.45]]
    assert axes.lines[0].get_xydata().tolist() == [[7.1, 0.5], [7.3, 0.4]]  # 0.45 at 7.4 is dominated


def test_the_key_names_all_that_is_drawn(tmp_path):
    figure = plot_history(RECORDS, "loss", tmp_path / "history.png")
    assert key(figure) == ["candidate", "best so far", "given up", "failed"]
    colors = [line.get_color() for line in figure.axes[0].lines]
    assert len(set(colors)) == len(colors) == 4
    assert key(plot_history(RECORDS[:1], "loss", tmp_path / "history.png")) == ["candidate", "best so far"]
    assert key(plot_front(RECORDS, "flops", "loss", tmp_path / "front.png")) == ["Pareto front", "candidate"]


def test_the_range_shows_differences(tmp_path):
    low, high = plot_history(RECORDS, "loss", tmp_path / "history.png").axes[0].get_ylim()
    assert 0.35 < low < 0.4 and 0.5 < high < 0.55


def test_candidates_keep_their_numbers(tmp_path):
    figure = plot_front(RECORDS, "latency", "loss", tmp_path / "front.png")
    assert figure.axes[0].collections[0].get_array().tolist() == [0, 2, 4]
    (axes,) = plot_history(RECORDS[2:], "loss", tmp_path / "history.png").axes
    assert axes.lines[0].get_xdata().tolist() == [2, 3, 4]


def test_only_the_picture_is_left(tmp_path):
    plot_history([record(0, "FAIL")], "loss", tmp_path / "history.png")
    plot_front([], "latency", "loss", tmp_path / "front.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["front.png", "history.png"]
    assert image.imread(tmp_path / "history.png").std() > 0
