"""Packed rows: packed equals separate, for students and teachers."""

import pytest
import torch
from datasets import Dataset

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.modeling_efficientbert import EfficientBertModel
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.capture import Captures
from efficientbert.train.distillation.student import Student
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.text.batches import pair_mask
from efficientbert.train.text.packing import PackingCollator, best_fit, check_packing, pack_sequences


def test_pairs_are_of_one_sequence_and_valid():
    unpacked = {"attention_mask": torch.tensor([[1, 1, 0], [1, 1, 1]])}
    expected = torch.tensor([[[1, 1, 0], [1, 1, 0], [0, 0, 0]], [[1, 1, 1]] * 3]).bool()
    assert torch.equal(pair_mask(unpacked), expected)
    packed = {"attention_mask": torch.tensor([[1, 1, 1, 0]]), "sequence_ids": torch.tensor([[1, 2, 2, 0]])}
    expected = torch.tensor([[[1, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]]).bool()
    assert torch.equal(pair_mask(packed), expected)


def separate_and_packed(pad_token_id: int) -> tuple[list[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    """Seven sequences, each alone, and in two packed rows of unequal length."""
    generator = torch.Generator().manual_seed(7)
    rows = []
    for lengths in ((5, 9, 3), (8, 1, 2, 4)):
        ids = torch.randint(5, 60, (sum(lengths),), generator=generator).tolist()
        rows.append({"input_ids": ids, "lengths": list(lengths)})
    alone = [torch.tensor(row["input_ids"]).split(row["lengths"]) for row in rows]
    sequences = [
        {"input_ids": ids[None], "attention_mask": torch.ones_like(ids[None])} for row in alone for ids in row
    ]
    return sequences, PackingCollator(pad_token_id)(rows)


def sequences_of(tensor: torch.Tensor, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """Tensors `(1, length, …)` of the sequences of a packed tensor `(B, L, …)`."""
    found = []
    for row, ids in zip(tensor, batch["sequence_ids"]):
        found += [row[ids == sequence][None] for sequence in range(1, int(ids.max()) + 1)]
    return found


def test_packed_batches_are_as_agreed():
    rows = [{"input_ids": [11, 12, 13, 14], "lengths": [3, 1]}, {"input_ids": [15, 16], "lengths": [2]}]
    batch = PackingCollator(9)(rows)
    assert batch["input_ids"].tolist() == [[11, 12, 13, 14], [15, 16, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0], [0, 1, 0, 0]]
    assert batch["sequence_ids"].tolist() == [[1, 1, 1, 2], [1, 1, 0, 0]]


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "mpnet", "distilbert"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_equals_separate_for_teachers(family, attention, teacher_folder):
    teacher = Teacher.load(teacher_folder(family))
    teacher.model.set_attn_implementation(attention)
    sequences, packed = separate_and_packed(teacher.tokenizer.pad_token_id)
    whole = teacher(packed)
    assert all(states.isfinite().all() for states in whole.hidden_states)
    alone = [teacher(sequence) for sequence in sequences]
    for index, states in enumerate(whole.hidden_states):
        for mine, theirs in zip(sequences_of(states, packed), alone, strict=True):
            torch.testing.assert_close(mine, theirs.hidden_states[index], rtol=1e-4, atol=1e-5)
    for mine, theirs in zip(sequences_of(whole.queries[2].transpose(1, 2), packed), alone, strict=True):
        torch.testing.assert_close(mine, theirs.queries[2].transpose(1, 2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_equals_separate_for_students(attention):
    torch.manual_seed(0)
    sizes = {"vocab_size": 65, "hidden_size": 18, "num_hidden_layers": 2, "num_attention_heads": 3}
    student = Student(EfficientBertModel(EfficientBertConfig(**sizes, embedding_size=8, initializer_range=0.3)), 24)
    student.encoder.set_attn_implementation(attention)
    sequences, packed = separate_and_packed(0)
    whole = student(**packed)
    alone = [student(**sequence) for sequence in sequences]
    for index, states in enumerate(whole.hidden_states):
        for mine, theirs in zip(sequences_of(states, packed), alone, strict=True):
            torch.testing.assert_close(mine, theirs.hidden_states[index], rtol=1e-4, atol=1e-5)

    def gradient(captures: list[Captures], valid: list[torch.Tensor]) -> torch.Tensor:
        student.zero_grad()
        sum((c.hidden_states[-1][v] ** 2).sum() for c, v in zip(captures, valid)).backward()
        return torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None])

    packed_gradient = gradient([whole], [packed["attention_mask"].bool()])
    assert packed_gradient.isfinite().all()
    separate_gradient = gradient(alone, [sequence["attention_mask"].bool() for sequence in sequences])
    torch.testing.assert_close(packed_gradient, separate_gradient, rtol=1e-3, atol=1e-4)


def test_rows_are_filled_by_the_best_fit():
    # By hand: 7, 6 and 5 open rows with room for 3, 4 and 5; then 4 goes to the 6, 3 to the 7 and 2 to the 5.
    assert best_fit([4, 7, 5, 3, 6, 2], 10) == [[0, 4], [1, 3], [2, 5]]
    lengths = torch.randint(1, 129, (1000,), generator=torch.Generator().manual_seed(0)).tolist()
    rows = best_fit(lengths, 128)
    assert sorted(index for row in rows for index in row) == list(range(1000))
    assert all(sum(lengths[index] for index in row) <= 128 for row in rows)
    assert len(rows) <= 1.03 * sum(lengths) / 128


@pytest.mark.parametrize("streaming", [False, True])
def test_every_sequence_is_packed_once(streaming):
    lengths = torch.randint(1, 17, (2345,), generator=torch.Generator().manual_seed(1)).tolist()
    given = Dataset.from_dict({"input_ids": [[index] * length for index, length in enumerate(lengths)]})
    rows = list(pack_sequences(given.to_iterable_dataset() if streaming else given, 16))
    found = [ids for row in rows for ids in torch.tensor(row["input_ids"]).split(row["lengths"])]
    assert sorted((int(ids[0]), len(ids)) for ids in found) == list(enumerate(lengths))
    assert all(len(ids.unique()) == 1 for ids in found)
    assert max(len(row["input_ids"]) for row in rows) == 16


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "mpnet", "distilbert"])
def test_a_teacher_that_cannot_pack_is_refused(family, teacher_folder, monkeypatch):
    teacher = Teacher.load(teacher_folder(family))
    check_packing(teacher)
    forward = teacher.model.forward

    def without_positions(*args, position_ids=None, **kwargs):
        return forward(*args, **kwargs)

    monkeypatch.setattr(teacher.model, "forward", without_positions)
    with pytest.raises(InputError, match=f"model type '{family}' cannot keep sequences of one row apart"):
        check_packing(teacher)
