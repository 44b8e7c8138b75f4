"""Where an embedder starts: its tokenizer, and the weights that training begins with."""

from pathlib import Path

import torch

from efficientbert.slicing_efficientbert import nearest_layers
from efficientbert.train.distillation.arguments import EmbedArguments
from efficientbert.train.distillation.embeddings import EmbeddingStudent, EmbeddingTeacher, start_dense
from efficientbert.train.distillation.projection import fit_projection, load_projection
from efficientbert.train.distillation.student import Student, choose_attention
from efficientbert.train.start.from_teacher import initialize_from_teacher
from efficientbert.train.start.student_start import load_model
from efficientbert.train.text.preparation import Text


def make_student(
    args: EmbedArguments, teacher: EmbeddingTeacher, text: Text, device: torch.device
) -> EmbeddingStudent:
    """A student with its starting weights: from a checkpoint, from the teacher, or random.

    Raises:
        InputError: as `load_model`.
    """
    source = teacher.as_teacher()
    model, fresh = load_model(args, source)
    encoder = model.efficientbert
    start = Student(encoder, source.hidden_size).to(device)
    choose_attention(encoder)
    if not fresh:
        if not load_projection(start.projection, Path(args.student)):
            last = (encoder.config.num_hidden_layers, source.num_layers)
            fit_projection(start, source, (last,), text.sample_batch(device))
    elif args.initialization == "teacher":
        layers = nearest_layers(encoder.config.num_hidden_layers, source.num_layers)
        initialize_from_teacher(start, source, layers, text.sample_batch(device))
    student = EmbeddingStudent(encoder, teacher.pooling, teacher.size).to(device)
    start_dense(student.dense, start.projection, teacher, Path(args.student))
    return student
