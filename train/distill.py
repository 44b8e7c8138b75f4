"""Distils a teacher into a smaller student on unlabelled text (general distillation; paper, section 3.3).

    efficientbert distill --teacher sentence-transformers/all-MiniLM-L6-v2 --corpus corpus.txt \
        --student efficientbert-tiny --max_steps 2000 --output_dir my-student

The folder that it writes loads in transformers, and is what `efficientbert finetune --model` starts from.
"""

from efficientbert.train.cli.command import run_command
from efficientbert.train.cli.outcome import Outcome
from efficientbert.train.distillation.arguments import DistillArguments, parse_losses
from efficientbert.train.files.writing import write_json


def main(args: DistillArguments) -> Outcome:
    """Runs the job from arguments to a finished folder, with how near the student is on held-out text."""
    args.check()
    if not args.finished():
        args.check_sources()
    from efficientbert.train.distillation.held_out import capture_held_out, score_student
    from efficientbert.train.distillation.loss_choice import make_recipe
    from efficientbert.train.distillation.objective import GeneralDistillation
    from efficientbert.train.distillation.projection import save_projection
    from efficientbert.train.distillation.scales import teacher_scales
    from efficientbert.train.distillation.teacher import Teacher
    from efficientbert.train.engine.accelerator import make_accelerator
    from efficientbert.train.engine.loop import train
    from efficientbert.train.files.run_folder import run_folder
    from efficientbert.train.model_folder.record import read_result
    from efficientbert.train.model_folder.write import write_checkpoint
    from efficientbert.train.start.student_start import load_model, make_student
    from efficientbert.train.text.masking import WholeWordMasking
    from efficientbert.train.text.preparation import prepare_text

    folder = run_folder(args, ("teacher", "student", "initialization"), "corpus", args.corpus)
    if folder.complete:
        return Outcome(folder.path, read_result(folder.path))
    losses = parse_losses(args.losses)
    accelerator = make_accelerator(args, folder.work)
    teacher = Teacher.load(args.teacher, accelerator.device, masked_lm="logits" in losses)
    model, fresh = load_model(args, teacher)
    recipe = make_recipe(args, model.config, teacher)
    with accelerator.main_process_first():  # the others find its cache
        text = prepare_text(args, teacher, args.batch_size * accelerator.num_processes, args.seed)
    masking = WholeWordMasking(text.collator, teacher.tokenizer, args.seed) if recipe.masks else None
    student = make_student(args, model, fresh, recipe, teacher, text, accelerator.device)
    if accelerator.is_main_process:
        folder.open({f"corpus {args.corpus!r}": text.digest(args)})
    accelerator.wait_for_everyone()
    with accelerator.main_process_first():
        scales = teacher_scales(teacher, text, folder.work, accelerator.device)
    objective = GeneralDistillation(teacher, scales, recipe)
    if args.gradient_checkpointing:
        student.encoder.gradient_checkpointing_enable()
    log = train(
        accelerator,
        student,
        objective,
        text.training,
        masking or text.collator,
        args,
        args.max_steps,
        folder.work / "checkpoints",
        "Distilling",
    )
    result: dict[str, float] = {}
    if accelerator.is_main_process:
        students = [(model.config, recipe)]
        held_out = capture_held_out(text, teacher, accelerator.device, students, masking)
        result = score_student(student, objective, held_out)
        write_checkpoint(
            folder.work,
            student.shipped(),
            teacher.tokenizer,
            "distill",
            args,
            result,
            args.student,
            sources=[args.corpus],
        )
        save_projection(student.projection, folder.work)
        write_json(folder.work / "training_log.json", log)
        print("held-out " + "  ".join(f"{name} {value:.4f}" for name, value in result.items()))
        print(folder.finish())
    accelerator.end_training()
    return Outcome(folder.path, result)


def cli() -> None:
    """Runs the script with this process's arguments."""
    run_command(main, DistillArguments, "distill")


if __name__ == "__main__":
    cli()
