"""The kinds of labelled tasks, chosen by name."""

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from efficientbert.train.tasks.arguments import TaskArguments
from efficientbert.train.tasks.choices import ChoiceTask
from efficientbert.train.tasks.spans import SpanTask
from efficientbert.train.tasks.task import Task
from efficientbert.train.tasks.texts import TextTask
from efficientbert.train.tasks.tokens import TokenTask


TASK_CLASSES: dict[str, type[Task]] = {
    "text-classification": TextTask,
    "token-classification": TokenTask,
    "multiple-choice": ChoiceTask,
    "question-answering": SpanTask,
}


def task_of_data(args: TaskArguments, tokenizer: PreTrainedTokenizerBase, split: str) -> Task:
    """The task of the arguments, as a split of its data shows it: with the labels that it names.

    Raises:
        InputError: if the arguments or the data are unfit.
    """
    args.check_task()
    task = TASK_CLASSES[args.task_kind()](args, tokenizer)
    task.read_rows(task.load_rows(split))
    return task


def task_of_model(args: TaskArguments, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> Task:
    """The task of the arguments, with the labels of a fine-tuned model in the order of its outputs.

    Raises:
        InputError: if the arguments are unfit.
    """
    args.check_task()
    task = TASK_CLASSES[args.task_kind()](args, tokenizer)
    task.adopt(config)
    return task
