"""Scores fine-tuned models: one, or all in a folder, each on the task that it was fine-tuned on.

efficientbert evaluate --model my-rte
efficientbert evaluate --model my-reviews --data reviews.csv --split held_out
efficientbert evaluate --model my-models --data ../shared/data/glue --submission_dir glue-submission
efficientbert evaluate --model my-embedder --task stsb
"""

from pathlib import Path
from typing import Any

from efficientbert.train.cli.command import run_command
from efficientbert.train.cli.outcome import Outcome
from efficientbert.train.files.writing import write_json
from efficientbert.train.tasks.arguments import EvaluateArguments


def main(args: EvaluateArguments) -> Outcome:
    """Runs the job: prints the figures, and writes them where it is told to."""
    args.check()
    args.check_sources()
    from efficientbert.train.model_folder.results import add_results
    from efficientbert.train.tasks.evaluation import card_results, evaluate_models, glue_score, results_table
    from efficientbert.train.tasks.glue_submission import write_submission

    results, texts = evaluate_models(args)
    print(results_table(results))
    report: dict[str, Any] = {"results": [result.as_json() for result in results]}
    glue = glue_score(results)
    if glue is not None:
        report["glue"] = {"score": glue[0], "tasks": glue[1]}
    if args.submission_dir:
        missing = write_submission(Path(args.submission_dir), texts)
        print(f"{args.submission_dir}: {', '.join(sorted(texts))}")
        if missing:
            print(f"not written for want of a model: {', '.join(missing)}; the GLUE site takes one zip of all files")
    if args.update_card:
        for result in results:
            add_results(Path(result.folder), card_results(result))
    if args.output_json:
        write_json(Path(args.output_json), report)
    return Outcome(Path(args.output_json) if args.output_json else None, report)


def cli() -> None:
    """Runs the script with this process's arguments."""
    run_command(main, EvaluateArguments, "evaluate")


if __name__ == "__main__":
    cli()
