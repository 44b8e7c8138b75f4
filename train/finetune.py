"""Fine-tunes a model on labelled data, a known task or your own; alone, or under a fine-tuned teacher.

    efficientbert finetune --model my-student --task rte --output_dir my-rte
    efficientbert finetune --model my-student --task rte --teacher teacher-rte --output_dir my-rte
    efficientbert finetune --model my-student --data reviews.csv --text_column review --label_column stars \
        --output_dir my-reviews

One file is enough: a tenth of its rows is held out, never trained on, and scored in the end.
"""

from pathlib import Path

from efficientbert.train.cli.command import run_command
from efficientbert.train.cli.outcome import Outcome
from efficientbert.train.tasks.arguments import FinetuneArguments


def main(args: FinetuneArguments) -> Outcome:
    """Runs the job from arguments to a finished folder, with the figures of every scored split."""
    args.check()
    if not args.finished():
        args.check_sources()
    import torch

    from efficientbert.train.tasks.finetuning import run, run_seeds

    results = run(args) if args.seeds is None else run_seeds(args)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return Outcome(Path(args.output_dir).absolute(), results)


def cli() -> None:
    """Runs the script with this process's arguments."""
    run_command(main, FinetuneArguments, "finetune")


if __name__ == "__main__":
    cli()
