"""Searches for the best student architecture within a budget of parameters, FLOPs or latency.

    efficientbert search recipes/search-trained.yaml --teacher sentence-transformers/all-MiniLM-L12-v2 \
        --corpus corpus.txt --budgets parameters=7.4e6:7.52e6 --output_dir my-search
    efficientbert distill --teacher sentence-transformers/all-MiniLM-L12-v2 --corpus corpus.txt \
        --student my-search/best --output_dir my-student

The second command trains the best architecture further. An interrupted search goes on when the same command is given
again. Started once more while it runs, on any machine that sees the output folder, the command works on the same
search. In the end the output folder holds the best architecture as the checkpoint `best`, with several objectives a
Pareto front in `front`, and `report.md`.
"""

import random
from dataclasses import replace
from functools import partial
from pathlib import Path

from efficientbert.search.arguments import SearchArguments
from efficientbert.train.cli.command import run_command
from efficientbert.train.cli.outcome import Outcome
from efficientbert.train.files.output_folder import INPUTS, RECORD, check_inputs, check_place, holds_run, read_record
from efficientbert.train.files.writing import write_json


def main(args: SearchArguments) -> Outcome:
    """Runs the job from arguments to a finished stage, with the figures of the best candidate."""
    args.check()
    args.check_sources()
    from efficientbert.search.costs.latency import Latency
    from efficientbert.search.material import Material
    from efficientbert.search.preparation import load_probe, load_tasks, make_space, uniform_architectures
    from efficientbert.search.scores.remembered_teacher import RememberedTeacher
    from efficientbert.search.scores.score import objectives
    from efficientbert.search.stages import Stages
    from efficientbert.search.study.group import Group
    from efficientbert.search.study.storage import open_storage
    from efficientbert.train.distillation.held_out import capture_held_out
    from efficientbert.train.distillation.scales import teacher_scales
    from efficientbert.train.distillation.teacher import Teacher
    from efficientbert.train.engine.accelerator import make_accelerator
    from efficientbert.train.files.digests import digest, digest_models, digest_rows
    from efficientbert.train.model_folder.record import read_result
    from efficientbert.train.text.preparation import prepare_text

    folder = Path(args.output_dir).absolute()
    arguments = args.decisive()
    check_place(folder, "output folder")
    holds_run(folder, arguments)
    accelerator = make_accelerator(args, folder, find_unused_parameters=True)
    tell = partial(accelerator.print, flush=True)
    tell(f"loading teacher {args.teacher!r}")
    teacher = Teacher.load(args.teacher, accelerator.device)
    space = make_space(args, teacher)
    if "latency" not in space.costs:
        space.sample(random.Random(args.seed))  # refuses budgets that cannot be met before anything is written
    tell(f"reading corpus {args.corpus!r}")
    with accelerator.main_process_first():  # the others find its cache
        text = prepare_text(args, teacher, args.batch_size * accelerator.num_processes, args.seed)
    if args.tasks:
        tell(f"loading tasks: {', '.join(args.tasks)}")
    tasks, probe = load_tasks(args, teacher, accelerator), load_probe(args, teacher, accelerator)

    database = None if args.storage is None else open_storage(args.storage)
    # Before the journal and all else: a folder without it is taken for somebody else's.
    if accelerator.is_main_process:
        inputs = digest_models(args, "teacher", "student", "task_teachers", "tasks")
        inputs[f"corpus {args.corpus!r}"] = text.digest(args)
        for task in tasks:
            rows = [digest_rows(data.features) for data in (task.data, task.held_out)]
            inputs[f"data of task {task.task.args.title()!r}"] = digest(*rows)
        if (folder / RECORD).exists():
            check_inputs(read_record(folder).get(INPUTS), inputs, f"delete {folder.name} or give another --output_dir")
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / RECORD, arguments | {INPUTS: inputs})
    accelerator.wait_for_everyone()
    storage = open_storage(folder) if database is None else database
    args = replace(args, storage=None)  # what is recorded of them goes with checkpoints: no password in it
    with accelerator.main_process_first():
        latency = space.costs.get("latency")
        if isinstance(latency, Latency):
            tell("measuring the latency of the parts of architectures")
            latency.prepare(space.parts())
        tell("measuring the teacher on the corpus")
        scales = teacher_scales(teacher, text, folder, accelerator.device)
    space.sample(random.Random(args.seed))
    objective = objectives(args, space.base, teacher, scales)
    candidates = uniform_architectures(space)
    students = [(candidate.to_config(space.base), objective(candidate).recipe) for candidate in candidates]
    held_out = capture_held_out(text, teacher, accelerator.device, students)
    remembered = RememberedTeacher(teacher, [recipe for _, recipe in students])
    group = Group(accelerator)
    material = Material(
        args, accelerator, group, storage, folder, teacher, remembered, space, text, objective, held_out, tasks, probe
    )
    Stages(material).run()
    accelerator.end_training()
    return Outcome(folder, read_result(folder / "best"))


def cli() -> None:
    """Runs the script with this process's arguments."""
    run_command(main, SearchArguments, "search")


if __name__ == "__main__":
    cli()
