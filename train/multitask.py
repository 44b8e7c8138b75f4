"""Trains one encoder on several labelled tasks at once, each under its own teacher (what makes EfficientBERT+).

    efficientbert multitask --model my-student --tasks mrpc rte my-task.yaml \
        --teachers teacher-mrpc teacher-rte my-teacher --output_dir my-student-plus

The output folder holds the shared encoder in `encoder/`, to start from with `efficientbert finetune --model`, and a
model with its head for every task, in a folder called as the task or as --names says. Teachers of one hidden size
share a projection. `encoder/` keeps the projection to the first teacher's size, the folder of a task that to its own.
"""

from pathlib import Path

from efficientbert.train.cli.command import run_command
from efficientbert.train.cli.outcome import Outcome
from efficientbert.train.tasks.arguments import MultitaskArguments


def main(args: MultitaskArguments) -> Outcome:
    """Runs the job from arguments to a finished folder, with the figures of every task by split."""
    args.check()
    if not args.finished():
        args.check_sources()
    from efficientbert.train.tasks.multitask_training import run

    return Outcome(Path(args.output_dir).absolute(), run(args))


def cli() -> None:
    """Runs the script with this process's arguments."""
    run_command(main, MultitaskArguments, "multitask")


if __name__ == "__main__":
    cli()
