"""Fine-tunes a model on a labelled task, alone or distilled from a fine-tuned teacher (paper, section 3.3).

efficientbert finetune --model my-student --task rte --output_dir my-student-rte
efficientbert finetune --model my-student --task rte --teacher my-teacher-rte --output_dir my-student-rte
efficientbert finetune --model my-student --data reviews.csv --text_column review --output_dir my-student-reviews \
    --train_split "train[:90%]" --eval_split "train[90%:]"
"""

from pathlib import Path

from efficientbert.train.cli.command import run_command
from efficientbert.train.cli.outcome import Outcome
from efficientbert.train.tasks.arguments import FinetuneArguments


def main(args: FinetuneArguments) -> Outcome:
    """Runs the job from arguments to a finished folder, with the figures of every scored split."""
    import torch

    from efficientbert.train.tasks.finetuning import run, run_seeds

    args.check()
    results = run(args) if args.seeds is None else run_seeds(args)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return Outcome(Path(args.output_dir).absolute(), results)


def cli() -> None:
    """Runs the script with this process's arguments."""
    run_command(main, FinetuneArguments, "finetune")


if __name__ == "__main__":
    cli()
