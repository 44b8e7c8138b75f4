"""The quickstart: its plan, how it is interrupted and goes on, and what it says in the end."""

import importlib
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from efficientbert import EfficientBertConfig
from efficientbert.commands import job_of
from efficientbert.search.costs.cost import count_parameters
from efficientbert.train.cli.arguments import parse_arguments


ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "quickstart"


@pytest.fixture
def quickstart(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(EXAMPLE))
    for name in ("quickstart", "comparison"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("quickstart")


def parse(words):
    return parse_arguments(job_of(words[0])[1], list(words[1:]), "quickstart")


def fill(quickstart, words):
    """Words with numbers in the places of what is found on the way."""
    return ["3" if word in (quickstart.PLAIN_MS, quickstart.STEPS, quickstart.PASSES) else word for word in words]


def test_every_command_is_one_of_ours(quickstart):
    output = Path("outputs/anything")
    jobs = quickstart.make_jobs("a-teacher", output)
    assert len({job.name for job in jobs}) == len(jobs)
    made = []
    for job in jobs:
        arguments = parse(fill(quickstart, job.words))
        if hasattr(arguments, "check") and job.words[0] not in ("evaluate", "benchmark"):  # needs a folder
            arguments.check()
        assert job.words[-2] in ("--output_dir", "--output_json") and job.seconds > 0
        for word in job.words[1:-1]:  # what it reads is there, or has been made
            if word.startswith(str(output)):
                assert any(Path(path).is_relative_to(word) or Path(word).is_relative_to(path) for path in made)
            elif "/" in word:
                assert (ROOT / word).exists()
        made.append(job.words[-1])


def test_recipes_name_data_that_is_there(quickstart):
    for job in quickstart.make_jobs("a-teacher", Path("outputs/anything")):
        arguments = parse(fill(quickstart, job.words))
        for name in ("corpus", "data"):
            if hasattr(arguments, name):
                assert (ROOT / getattr(arguments, name)).exists()


def test_later_jobs_take_what_earlier_ones_have_found(quickstart, tmp_path):
    jobs = {job.name: job.words for job in quickstart.make_jobs("a-teacher", tmp_path)}
    assert quickstart.PLAIN_MS in quickstart.fill(jobs["compress"], tmp_path)  # nothing is known yet
    (tmp_path / "plain.json").write_text('{"models": [{"timings": [{"median_ms": 9.876}]}]}')
    (tmp_path / "compressed").mkdir()
    (tmp_path / "compressed" / "plan.json").write_text('{"models": [{"steps": 100, "epochs": 1.5}]}')
    filled = {name: quickstart.fill(words, tmp_path) for name, words in jobs.items()}
    assert filled["compress"][-4:-2] == ["--latency", "9.88"]
    for name in ("random", "plain"):  # further steps are worth the choice
        assert filled[f"distil-{name}"][-4:-2] == ["--max_steps", "120"]
        assert filled[f"finetune-{name}"][-4:-2] == ["--num_epochs", "1.5"]
    left = {quickstart.PLAIN_MS, quickstart.STEPS, quickstart.PASSES}
    assert left.isdisjoint(word for words in filled.values() for word in words)


@pytest.mark.parametrize("name", ["random", "plain"])
def test_baselines_are_smaller_than_the_teacher(name):
    config = EfficientBertConfig(**json.loads((EXAMPLE / f"{name}.json").read_text()))
    assert 2e6 < count_parameters(config) < 10e6  # of 22.6 million


def make_progress(quickstart, folder, names="abc", seconds=(10, 20, 30)):
    jobs = [
        quickstart.Job(name, f"do {name}", ("x", "y", "--output_dir", str(folder / name)), known)
        for name, known in zip(names, seconds)
    ]
    return jobs, quickstart.Progress(folder / "progress.json", jobs)


def finish(progress, job, seconds):
    Path(job.words[-1]).mkdir()
    progress.record["done"].append(job.name)
    progress.seconds[job.name] = seconds


def test_the_time_left_goes_by_the_pace_of_this_machine(quickstart, tmp_path):
    jobs, progress = make_progress(quickstart, tmp_path)
    assert progress.estimate() == (0, 60)
    finish(progress, jobs[0], 20.0)  # twice as long as known
    assert progress.estimate() == (10, 100)
    progress.seconds["b"] = 10.0  # a quarter of it
    assert progress.estimate() == (15, 90)
    progress.seconds["b"] = 190.0  # far longer than was expected: nearly done at a pace of 10
    assert progress.estimate() == pytest.approx((29, 310))


def test_what_was_deleted_is_made_again(quickstart, tmp_path):
    jobs, progress = make_progress(quickstart, tmp_path)
    finish(progress, jobs[0], 20.0)
    finish(progress, jobs[1], 30.0)
    progress.save()
    Path(jobs[0].words[-1]).rmdir()
    _, progress = make_progress(quickstart, tmp_path)
    assert [progress.done(job) for job in jobs] == [False, True, False]
    assert progress.seconds == {"b": 30.0}


def fake_command(quickstart, monkeypatch, tmp_path, text):
    """Has `text` run by a shell in the place of every command; `$out` is its output."""
    script = tmp_path / "command"
    script.write_text(f'#!/bin/sh\nfor out; do :; done\necho "one\ntwo"\n{text}\n')
    script.chmod(0o755)
    monkeypatch.setattr(quickstart.sys, "executable", str(script))
    monkeypatch.setattr(quickstart, "TICK", 0.01)


def test_seconds_add_up_over_interruptions(quickstart, monkeypatch, tmp_path):
    jobs, progress = make_progress(quickstart, tmp_path)
    pids = tmp_path / "pids"
    fake_command(quickstart, monkeypatch, tmp_path, f"echo $$ > {pids}\nexec sleep 60")

    def interrupt():
        if pids.exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        progress.run(jobs[0], tmp_path / "logs" / "a.log", interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pids.read_text()), 0)
    _, progress = make_progress(quickstart, tmp_path)
    assert progress.seconds["a"] > 0 and not progress.done(jobs[0])
    progress.seconds["a"] = 100.0
    fake_command(quickstart, monkeypatch, tmp_path, 'mkdir "$out"')
    progress.run(jobs[0], tmp_path / "logs" / "a.log", lambda: None)
    _, progress = make_progress(quickstart, tmp_path)
    assert progress.seconds["a"] > 100 and progress.done(jobs[0])


def test_a_job_that_ends_before_the_first_look_has_its_seconds(quickstart, monkeypatch, tmp_path):
    class Ended:
        returncode = 0

        def __init__(self, *words, **options):
            pass

        def poll(self) -> int:
            return self.returncode

    jobs, progress = make_progress(quickstart, tmp_path)
    monkeypatch.setattr(quickstart.subprocess, "Popen", Ended)
    progress.run(jobs[0], tmp_path / "logs" / "a.log", lambda: None)
    assert progress.done(jobs[0]) and progress.seconds["a"] > 0


def test_redirected_output_is_a_line_for_each_job(quickstart, monkeypatch, tmp_path, capfd):
    jobs, progress = make_progress(quickstart, tmp_path)
    finish(progress, jobs[0], 10.0)
    fake_command(quickstart, monkeypatch, tmp_path, 'mkdir "$out"')
    quickstart.run_jobs(jobs, progress, tmp_path)
    written = capfd.readouterr()
    first, second = written.out.splitlines()
    assert first == "job 2 of 3: do b; about 50 s left"
    assert second.startswith("job 3 of 3: do c; about ")
    assert written.err == ""
    assert (tmp_path / "logs" / "b.log").read_text() == "one\ntwo\n"


def test_a_job_that_fails_ends_the_quickstart_with_its_last_line(quickstart, monkeypatch, tmp_path, capsys):
    jobs, progress = make_progress(quickstart, tmp_path)
    fake_command(quickstart, monkeypatch, tmp_path, "exit 3")
    with pytest.raises(SystemExit) as ended:
        progress.run(jobs[0], tmp_path / "logs" / "a.log", lambda: None)
    assert ended.value.code == 3
    assert capsys.readouterr().err.splitlines() == [
        "quickstart: error: do a: two",
        f"quickstart: all that it printed is in {tmp_path / 'logs' / 'a.log'}",
    ]
    assert not progress.done(jobs[0])


def test_a_folder_of_another_plan_is_refused(quickstart, tmp_path, capsys):
    _, progress = make_progress(quickstart, tmp_path)
    progress.save()
    with pytest.raises(SystemExit) as ended:
        make_progress(quickstart, tmp_path, names="abd")
    assert ended.value.code == 2
    assert "choose another --output_dir" in capsys.readouterr().err


def model(name, accuracy, milliseconds, **more):
    interval = [accuracy - 0.04, accuracy + 0.04]
    quartiles = [milliseconds - 0.1, milliseconds + 0.2]
    row = {"model": name, "folder": f"out/answers/{name}", "accuracy": accuracy, "interval_95": interval}
    row |= {"milliseconds": milliseconds, "milliseconds_quartiles": quartiles, "parameters": 10e6, "bytes": 40e6}
    if name != "teacher":
        row |= {"held_out": {"cosine": 0.7}, "seconds": 90.0, "parameters": 4e6}
    return row | more


def rows(searched, random, plain):
    students = {"searched": searched, "random": random, "plain": plain}
    return [model("teacher", 0.8, 12.0), *(model(name, *figures) for name, figures in students.items())]


@pytest.mark.parametrize(
    ("figures", "taken", "reason"),
    [
        (((0.77, 5.0), (0.75, 6.0), (0.74, 4.0)), "plain", "lies within the interval of the best (searched, 0.770)"),
        (((0.77, 5.0), (0.75, 6.0), (0.70, 4.0)), "searched", "none that comes near it is faster"),
        (((0.70, 5.0), (0.77, 6.0), (0.70, 4.0)), "random", "is the best, above all chance"),
    ],
)
def test_the_model_to_take_is_the_fastest_of_the_good_ones(quickstart, figures, taken, reason):
    row, sentence = quickstart.recommend(rows(*figures))
    assert row["model"] == taken
    assert sentence.startswith(f"Take '{taken}' (out/answers/{taken}): its accuracy of {row['accuracy']:.3f} ")
    assert reason in sentence
    speed = {4.0: "3.0", 5.0: "2.4", 6.0: "2.0"}[row["milliseconds"]]
    assert f"{row['accuracy'] / 0.8:.0%} of the teacher's accuracy at {speed} times its speed" in sentence
    assert sentence.endswith("with 40% of its parameters.") and sentence.count(". ") == 0


def test_the_table_has_a_row_for_every_model(quickstart, capsys):
    quickstart.print_table(rows((0.77, 5.0), (0.75, 6.0), (0.74, 4.0)))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert lines[2] == "| teacher | 0.800 (0.760 to 0.840) | 12.0 | 10.0M | 40 |  |  |"
    assert lines[3] == "| searched | 0.770 (0.730 to 0.810) | 5.0 | 4.0M | 40 | 0.700 | 1.5 |"
    assert len(lines) == 6 and len({line.count("|") for line in lines}) == 1


def test_results_come_from_the_commands_files(quickstart, tmp_path):
    for name in quickstart.MODELS:
        quickstart.tuned(tmp_path, name).mkdir(parents=True, exist_ok=True)
        (quickstart.tuned(tmp_path, name) / "model.safetensors").write_bytes(bytes(7))
    for name in quickstart.STUDENTS:
        folder = quickstart.distilled(tmp_path, name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "provenance.json").write_text('[{"result": {"cosine": 0.1}}, {"result": {"cosine": 0.7}}]')
    results = [
        {"model": name, "metrics": {"accuracy": score}, "intervals": {"accuracy": [0.6, 0.8]}}
        for name, score in (("plain", 0.7), ("random", 0.65))
    ]
    (tmp_path / "scores.json").write_text(json.dumps({"results": results}))
    compared = [{"quality": score, "interval_95": [score - 0.1, score + 0.1]} for score in (0.9, 0.75, 0.5)]
    (tmp_path / "compressed" / "compression.json").write_text(json.dumps(compared))
    timing = {"median_ms": 3.0, "lower_quartile_ms": 2.0, "upper_quartile_ms": 4.0}
    speeds = [{"parameters": 5, "timings": [timing]} for _ in quickstart.MODELS]
    (tmp_path / "speed.json").write_text(json.dumps({"models": speeds}))
    seconds = {"compress": 30.0, "distil-random": 14.0, "distil-plain": 13.0}
    seconds |= {"finetune-random": 1.0, "finetune-plain": 2.0}
    found = quickstart.read_results(tmp_path, seconds)
    assert [row["model"] for row in found] == ["teacher", "searched", "random", "plain"]
    assert [row["accuracy"] for row in found] == [0.9, 0.75, 0.65, 0.7]
    assert [row.get("seconds") for row in found] == [None, 30.0, 15.0, 15.0]
    assert found[1]["held_out"] == {"cosine": 0.7} and "held_out" not in found[0]
    assert found[0]["bytes"] == 7 and found[0]["interval_95"] == [0.8, 1.0]


def test_what_comes_next_can_be_typed(quickstart):
    output = Path("outputs/my run")
    taken = model("plain", 0.7, 4.0, folder="outputs/my run/answers/plain")
    (_, ask), *others = quickstart.next_commands(taken, output)
    _, flag, code = shlex.split(ask)
    assert flag == "-c" and "model='outputs/my run/answers/plain'" in code
    compile(code, "ask", "exec")
    made = {job.words[-1] for job in quickstart.make_jobs("a-teacher", output)}
    made.add(str(quickstart.distilled(output, "searched")))
    assert len(others) == 2
    for _, command in others:
        _, flag, package, *words = shlex.split(command)
        assert (flag, package) == ("-m", "efficientbert")
        arguments = parse(words)
        read = {getattr(arguments, name) for name in ("model", "student", "teacher") if hasattr(arguments, name)}
        assert read <= made and arguments.output_dir not in made


def test_the_comparison_shows_intervals_and_the_teacher(quickstart):
    figure = quickstart.plot_comparison(rows((0.77, 5.0), (0.75, 6.0), (0.74, 4.0)))
    accuracy, milliseconds, cosine = figure.axes
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "accuracy on validation pairs",
        "ms per sentence of 72 tokens",
        "cosine of last hidden states",
    ]
    key = [text.get_text() for text in figure.legends[0].get_texts()]
    assert key == ["teacher (shaded: its interval)", "searched", "random", "plain"]
    assert len({bars.lines[0].get_color() for bars in accuracy.containers}) == 3
    ends = [bars.lines[2][0].get_segments()[0][:, 1].tolist() for bars in accuracy.containers]
    assert ends == [pytest.approx(ends) for ends in ([0.73, 0.81], [0.71, 0.79], [0.70, 0.78])]
    for axes, level in ((accuracy, 0.8), (milliseconds, 12.0)):
        assert [level, level] in [list(line.get_ydata()) for line in axes.lines]
    assert 0.6 < accuracy.get_ylim()[0] and 0.6 < cosine.get_ylim()[0]


def test_it_starts_without_torch():
    code = f"import sys; sys.path.insert(0, {str(EXAMPLE)!r}); import quickstart; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
