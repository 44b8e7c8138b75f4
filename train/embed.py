"""Distils a sentence-transformers teacher's embeddings into a student on unlabelled text.

    efficientbert embed --teacher sentence-transformers/all-MiniLM-L6-v2 --corpus corpus.txt \
        --student my-student --max_steps 2000 --output_dir my-embedder

The folder that it writes loads in sentence-transformers, which must be installed.
"""

from efficientbert.train.cli.command import run_command
from efficientbert.train.cli.outcome import Outcome
from efficientbert.train.distillation.arguments import EmbedArguments
from efficientbert.train.files.writing import write_json


def main(args: EmbedArguments) -> Outcome:
    """Runs the job from arguments to a finished folder, with how near the student is on held-out passages."""
    args.check()
    if not args.finished():
        args.check_sources()
    from efficientbert.train.distillation.embeddings import (
        EmbeddingDistillation,
        EmbeddingTeacher,
        load_embedder,
        save_embedder,
        score_student,
        teacher_variance,
    )
    from efficientbert.train.engine.accelerator import make_accelerator
    from efficientbert.train.engine.loop import train
    from efficientbert.train.files.run_folder import run_folder
    from efficientbert.train.model_folder.record import read_result
    from efficientbert.train.model_folder.write import write_checkpoint
    from efficientbert.train.start.embedder_start import make_student
    from efficientbert.train.text.batches import batches
    from efficientbert.train.text.preparation import prepare_passages

    folder = run_folder(args, ("teacher", "student"), "corpus", args.corpus)
    if folder.complete:
        return Outcome(folder.path, read_result(folder.path))
    accelerator = make_accelerator(args, folder.work)
    device = accelerator.device
    teacher = EmbeddingTeacher(load_embedder(args.teacher, device, "teacher"), args.teacher)
    if teacher.described_prompts() is not None:
        accelerator.print(teacher.described_prompts())
    with accelerator.main_process_first():  # the others find its cache
        text = prepare_passages(args, teacher, args.batch_size * accelerator.num_processes)
    student = make_student(args, teacher, text, device)
    if accelerator.is_main_process:
        folder.open({f"corpus {args.corpus!r}": text.digest(args)})
    accelerator.wait_for_everyone()
    with accelerator.main_process_first():
        variance = teacher_variance(teacher, batches(text.sample, 32, text.collator, device), folder.work)
    objective = EmbeddingDistillation(teacher, variance, args.cosine_weight, args.mse_weight)
    if args.gradient_checkpointing:
        student.encoder.gradient_checkpointing_enable()
    log = train(
        accelerator,
        student,
        objective,
        text.training,
        text.collator,
        args,
        args.max_steps,
        folder.work / "checkpoints",
        "Distilling embeddings",
        lengths=None if args.streaming else text.training["length"][:],
    )
    result: dict[str, float] = {}
    if accelerator.is_main_process:
        held_out = list(batches(text.held_out, 32, text.collator, device))
        result = score_student(student, objective, held_out)
        write_checkpoint(
            folder.work, student.encoder, teacher.tokenizer, "embed", args, result, args.student, sources=[args.corpus]
        )
        save_embedder(folder.work, student, teacher)
        write_json(folder.work / "training_log.json", log)
        print("held-out " + "  ".join(f"{name} {value:.4f}" for name, value in result.items()))
        print(folder.finish())
    accelerator.end_training()
    return Outcome(folder.path, result)


def cli() -> None:
    """Runs the script with this process's arguments."""
    run_command(main, EmbedArguments, "embed")


if __name__ == "__main__":
    cli()
