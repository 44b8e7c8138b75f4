"""A teacher's answers, kept: the same as its own, asked for once, and never more than there is room for."""

import pytest
import torch

from efficientbert.search.scores import remembered_teacher
from efficientbert.search.scores.remembered_teacher import RememberedTeacher
from efficientbert.train.distillation.losses import LossRecipe
from efficientbert.train.distillation.teacher import Teacher


STATES = ((0, 0), (1, 2), (2, 4))
ATTENTIVE = frozenset({0, 1})
EVERYTHING = {"hidden_states": 1.0, "attention_scores": 0.3, "minilm_relations": 1.0}


class CountingTeacher:
    """A teacher that counts its batches."""

    def __init__(self, name: str):
        self.teacher = Teacher.load(name)
        self.model = self.teacher.model
        self.asked = 0

    def __call__(self, batch):
        self.asked += 1
        return self.teacher(batch)


@pytest.fixture
def teacher(teacher_folder) -> CountingTeacher:
    return CountingTeacher(teacher_folder())


def make_batch(seed: int, length: int = 7) -> dict[str, torch.Tensor]:
    ids = torch.randint(5, 60, (3, length), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def test_a_batch_is_read_once_and_answered_alike(teacher):
    remembered = RememberedTeacher(teacher, [LossRecipe(EVERYTHING, STATES, 1, (1, 3), ATTENTIVE)])
    batches = [make_batch(0), make_batch(1), make_batch(0, length=5)]
    batches.append(batches[0] | {"attention_mask": torch.ones_like(batches[0]["input_ids"]).tril()})
    for _ in range(2):
        for batch in batches:
            mine, theirs = remembered(batch), teacher.teacher(batch)
            assert all(torch.equal(mine.hidden_states[state], theirs.hidden_states[state]) for state in (0, 2, 4))
            for layer in (1, 3):
                assert torch.equal(mine.queries[layer], theirs.queries[layer])
                assert torch.equal(mine.keys[layer], theirs.keys[layer])
            assert torch.equal(mine.values[3], theirs.values[3])
    assert teacher.asked == len(batches)


@pytest.mark.parametrize(
    "losses, states, queries, values",
    [
        (["hidden_states"], {0, 2, 4}, set(), set()),
        (["pooled_states"], {4}, set(), set()),
        (["attention_scores"], set(), {1, 3}, set()),
        (["qkv_relations"], set(), {2}, {2}),
    ],
)
def test_only_what_is_compared_is_kept(losses, states, queries, values, teacher):
    recipe = LossRecipe(dict.fromkeys(losses, 1.0), STATES, 1, (1, 2), ATTENTIVE)
    found = RememberedTeacher(teacher, [recipe])(make_batch(0))
    for tensors, expected in ((found.hidden_states, states), (found.queries, queries), (found.values, values)):
        assert {number for number, tensor in enumerate(tensors) if tensor is not None} == expected


def test_no_more_is_kept_than_there_is_room_for(teacher):
    bytes_of_one = 3 * 3 * 7 * 24 * 4  # states, sequences, tokens, width, float32
    remembered = RememberedTeacher(
        teacher, [LossRecipe({"hidden_states": 1.0}, STATES, 1, (1, 3), ATTENTIVE)], room=2 * bytes_of_one
    )
    for _ in range(2):
        for seed in range(3):
            remembered(make_batch(seed))
    assert teacher.asked == 3 + 1  # the third is read again


def test_what_is_forgotten_is_read_anew_from_then_on(teacher):
    remembered = RememberedTeacher(teacher, [LossRecipe({"hidden_states": 1.0}, STATES, 1, (1, 3), ATTENTIVE)])
    remembered(make_batch(0))
    remembered.forget()
    for _ in range(2):
        remembered(make_batch(0))
    assert teacher.asked == 1 + 2


def test_little_free_memory_is_little_room(teacher, monkeypatch):
    monkeypatch.setattr(remembered_teacher, "free_memory", lambda device: 4000)
    assert RememberedTeacher(teacher, []).room == 1000
    monkeypatch.setattr(remembered_teacher, "free_memory", lambda device: 10**15)
    assert RememberedTeacher(teacher, []).room == 3 * 2**30
