"""Training of one encoder on several labelled tasks."""

from efficientbert.train.distillation.multitask_objective import MultitaskModel
from efficientbert.train.tasks.prediction import main_score, predict, score
from efficientbert.train.tasks.task import Task, TaskData


def mean_scores(model: MultitaskModel, tasks: list[Task], data: list[TaskData], batch_size: int) -> list[float]:
    """The main score of every task, as a fraction."""
    scores = []
    for single, task, part in zip(model.models, tasks, data):
        scores.append(main_score(score(task, predict(single, task, part, batch_size), part), task.metric()))
    return scores
