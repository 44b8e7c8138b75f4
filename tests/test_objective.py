"""General distillation: every loss through student and teacher, however the batch is cut, padded or packed."""

import dataclasses
import json

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.modeling_efficientbert import EfficientBertForMaskedLM
from efficientbert.train.distillation.arguments import LOSS_NAMES, GeneralArguments
from efficientbert.train.distillation.capture import CaptureError, Captures, Needs
from efficientbert.train.distillation.held_out import HeldOut, capture_held_out, score_student
from efficientbert.train.distillation.losses import LOSSES, LossRecipe
from efficientbert.train.distillation.objective import GeneralDistillation
from efficientbert.train.distillation.scales import Scales, stored_scales
from efficientbert.train.distillation.student import Student, fit_config
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.text.batches import PaddingCollator
from efficientbert.train.text.masking import WholeWordMasking
from efficientbert.train.text.packing import PackingCollator
from efficientbert.train.text.preparation import prepare_text


STATES = ((0, 0), (1, 2), (2, 4))
LENGTHS = (9, 4, 7, 5, 12, 3)


@pytest.fixture(scope="module")
def teacher(teacher_folder, tmp_path_factory) -> Teacher:
    """A tiny BERT with its masked-LM head, in float64."""
    plain = Teacher.load(teacher_folder())
    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig(**plain.model.config.to_diff_dict()))
    folder = tmp_path_factory.mktemp("masked-lm")
    model.save_pretrained(folder)
    plain.tokenizer.save_pretrained(folder)
    return Teacher.load(str(folder), dtype=torch.float64, masked_lm=True)


def make_student(teacher: Teacher, **sizes) -> Student:
    fields = {"hidden_size": 18, "num_hidden_layers": 2, "num_attention_heads": 3, "embedding_size": 8}
    torch.manual_seed(1)
    model = EfficientBertForMaskedLM(fit_config(EfficientBertConfig(**(fields | sizes)), teacher))
    return Student(model.efficientbert, teacher.hidden_size, model.lm_head).double()


def make_objective(
    teacher: Teacher,
    *names: str,
    states: tuple = STATES,
    layer: int = 1,
    attentive: frozenset[int] = frozenset(range(5)),
) -> GeneralDistillation:
    """What a student of two layers, if not said otherwise, learns; relations are of its layer `layer`."""
    scales = Scales((2.0, 3.0, 5.0, 7.0, 11.0), (0.2, 0.3, 0.5, 0.7, 0.9), (13.0, 17.0, 19.0, 23.0))
    weights = {name: 1.0 + index for index, name in enumerate(names)}
    return GeneralDistillation(teacher, scales, LossRecipe(weights, states, 6, (layer, 2), attentive))


def make_rows() -> list[dict[str, torch.Tensor]]:
    """Token ids, and labels of every third token."""
    generator = torch.Generator().manual_seed(2)
    rows = []
    for length in LENGTHS:
        ids = torch.randint(5, 65, (length,), generator=generator)
        rows.append({"input_ids": ids, "labels": torch.where(torch.arange(length) % 3 == 1, ids, -100)})
    return rows


def pad(values: list[torch.Tensor], padding: int) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=padding)


def separate(rows: list[dict[str, torch.Tensor]], padding: int = 0) -> dict[str, torch.Tensor]:
    return PaddingCollator(padding)(rows) | {"labels": pad([row["labels"] for row in rows], -100)}


def packed(rows: list[dict[str, torch.Tensor]], groups: tuple[tuple[int, ...], ...]) -> dict[str, torch.Tensor]:
    def joined(name: str) -> list[torch.Tensor]:
        return [torch.cat([rows[index][name] for index in group]) for group in groups]

    lengths = [[len(rows[index]["input_ids"]) for index in group] for group in groups]
    given = [{"input_ids": ids, "lengths": parts} for ids, parts in zip(joined("input_ids"), lengths)]
    return PackingCollator(0)(given) | {"labels": pad(joined("labels"), -100)}


def gradients(teacher: Teacher, batches: list[dict[str, torch.Tensor]], *names: str) -> dict[str, torch.Tensor]:
    """Of every weight and of the loss, for batches that together are the whole."""
    objective, student = make_objective(teacher, *names), make_student(teacher)
    counted = [objective.count(batch) for batch in batches]
    counts = {name: sum(count[name] for count in counted) for name in counted[0]}
    total = torch.zeros((), dtype=torch.float64)
    for batch in batches:
        loss, _ = objective(student, batch, counts, 0)
        loss.backward()
        total += loss.detach()
    found = {name: p.grad for name, p in student.named_parameters() if p.grad is not None}
    return found | {"loss": total}


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_the_gradient_does_not_depend_on_how_a_batch_is_cut_padded_or_packed(name, teacher):
    rows = make_rows()
    whole = gradients(teacher, [separate(rows)], name)
    assert whole["loss"] > 0 and whole["encoder.embeddings.projection.weight"].abs().max() > 0
    others = {
        "cut": [separate(rows[:1]), separate(rows[1:4]), separate(rows[4:])],
        "padded": [separate(rows, padding=33)],
        "packed": [packed(rows, ((0, 2), (1, 3, 5), (4,)))],
        "packed and cut": [packed(rows, ((0, 2),)), packed(rows, ((1, 3), (5, 4)))],
    }
    for way, batches in others.items():
        found = gradients(teacher, batches, name)
        assert found.keys() == whole.keys()
        for key, value in whole.items():
            assert torch.allclose(found[key], value, rtol=1e-7, atol=1e-10), f"{way}: {key}"


def test_the_loss_is_the_weighted_sum_of_its_terms(teacher):
    batch, student = separate(make_rows()), make_student(teacher)
    objective = make_objective(teacher, *LOSS_NAMES)
    counts = objective.count(batch)
    loss, terms = objective(student, batch, counts, 0)
    assert tuple(terms) == LOSS_NAMES
    assert loss.item() == pytest.approx(sum(index * term.item() for index, term in enumerate(terms.values(), 1)))
    for name, term in terms.items():
        alone, _ = make_objective(teacher, name)(student, batch, counts, 0)
        assert alone.item() == pytest.approx(term.item())


@torch.no_grad()
def test_states_and_scores_are_of_the_mapped_layers_over_their_variances(teacher):
    batch, student = separate(make_rows()), make_student(teacher)
    mine, theirs, valid = student(**batch), teacher(batch), batch["attention_mask"].bool()
    objective = make_objective(teacher, "hidden_states", "attention_scores", states=((2, 3),))
    _, terms = objective.loss(mine, theirs, batch, objective.count(batch))
    error = (mine.hidden_states[2] - theirs.hidden_states[3])[valid].square().mean() / 7
    assert terms["hidden_states"].item() == pytest.approx(error.item())
    pairs = (valid[:, None, :, None] & valid[:, None, None, :]).expand(-1, 3, -1, -1)
    error = (mine.attention_scores(1) - theirs.attention_scores(2))[pairs].square().mean() / 19
    assert terms["attention_scores"].item() == pytest.approx(error.item())


def test_relations_are_of_the_last_student_layer_with_attention_and_the_chosen_teacher_layer(teacher):
    """One whose only layer with attention repeats the teacher's third loses nothing; one that repeats another does."""
    batch = separate(make_rows())
    theirs = teacher(batch)
    objective = make_objective(teacher, "minilm_relations", "qkv_relations", layer=0)

    def terms(layer: int) -> list[float]:
        parts = ((part[layer], None) for part in (theirs.queries, theirs.keys, theirs.values))
        found = objective.loss(Captures((), *parts), theirs, batch, objective.count(batch))[1]
        return [found[name].item() for name in ("minilm_relations", "qkv_relations")]

    assert terms(2) == pytest.approx([0, 0], abs=1e-12)
    assert min(terms(3)) > 1e-3


@torch.no_grad()
def test_scores_of_layers_without_attention_are_left_out(teacher):
    batch, student = separate(make_rows()), make_student(teacher, num_hidden_layers=3, attention_heads=[3, 0, 3])
    mine, theirs = student(**batch), teacher(batch)
    assert [part[1] for part in (mine.queries, mine.keys, mine.values)] == [None] * 3 and mine.queries[2].shape[1] == 3

    def term(states: tuple, attentive: set[int]) -> float:
        objective = make_objective(teacher, "attention_scores", states=states, attentive=frozenset(attentive))
        assert objective.recipe.needs.queries == {states[layer][1] - 1 for layer in attentive}
        needed = objective.recipe.needs.of(theirs)
        return objective.loss(mine, needed, batch, objective.count(batch))[1]["attention_scores"].item()

    states = ((1, 2), (2, 3), (3, 4))
    assert term(states, {0, 2}) == pytest.approx(term(states, {0}) + term(states, {2})) and term(states, {2}) > 0
    assert term(states, set()) == 0


def test_a_student_without_any_attention_learns_hidden_states(teacher):
    batch, student = separate(make_rows()), make_student(teacher, attention_heads=[0, 0])
    objective = make_objective(teacher, "hidden_states", attentive=frozenset())
    loss, _ = objective(student, batch, objective.count(batch), 0)
    loss.backward()
    without = {name for name, parameter in student.named_parameters() if parameter.grad is None}
    assert loss > 0 and all(name.startswith("head.") for name in without)


def test_no_scores_are_compared_on_held_out_text_where_a_layer_has_no_attention(teacher, corpus_file):
    text, student = make_text(teacher, corpus_file), make_student(teacher, attention_heads=[0, 3])
    objective = make_objective(teacher, "hidden_states", "attention_scores", attentive=frozenset({1}))
    held_out = capture_held_out(text, teacher, torch.device("cpu"), [(student.encoder.config, objective.recipe)])
    assert set(score_student(student, objective, held_out)) == {
        *("loss", "hidden_states_loss", "attention_scores_loss", "hidden_state_mse", "cosine")
    }


def test_masked_lm_alone_asks_no_teacher(teacher, monkeypatch):
    monkeypatch.setattr(Teacher, "__call__", None)
    assert gradients(teacher, [separate(make_rows())], "masked_lm")["loss"] > 0


def test_no_token_to_predict_is_no_loss(teacher):
    batch = separate(make_rows())
    batch["labels"].fill_(-100)
    assert gradients(teacher, [batch], "masked_lm", "logits")["loss"] == 0


def test_scales_are_estimated_once_and_kept(teacher, tmp_path):
    batch = separate(make_rows())
    scales = stored_scales(tmp_path, [(teacher(batch), batch)])
    assert json.loads((tmp_path / "teacher_scales.json").read_text()) == {
        name: list(value) for name, value in dataclasses.asdict(scales).items()
    }

    def unread():
        raise AssertionError("estimated again")
        yield

    assert stored_scales(tmp_path, unread()) == scales
    path = tmp_path / "teacher_scales.json"
    fewer = json.loads(path.read_text()) | {"pooled_states": None}
    path.write_text(json.dumps({name: value for name, value in fewer.items() if value}))  # of an earlier version
    assert stored_scales(tmp_path, [(teacher(batch), batch)]) == scales


def make_text(teacher: Teacher, corpus: str, **changes):
    args = GeneralArguments(
        corpus=corpus, teacher="", output_dir="", max_length=24, held_out=8, init_sequences=16, **changes
    )
    return prepare_text(args, teacher, 4, 0)


@torch.no_grad()
def test_scores_on_held_out_text(teacher, corpus_file):
    text, student = make_text(teacher, corpus_file), make_student(teacher)
    objective = make_objective(teacher, "hidden_states", "qkv_relations")
    held_out = capture_held_out(text, teacher, torch.device("cpu"), [(student.encoder.config, objective.recipe)])
    scores = score_student(student, objective, held_out)
    batch = PaddingCollator(0)(text.held_out)
    mine, theirs, valid = student(**batch), teacher(batch), batch["attention_mask"].bool()
    loss, terms = objective.loss(mine, theirs, batch, objective.count(batch))
    assert scores["loss"] == pytest.approx(loss.item())
    assert scores["qkv_relations_loss"] == pytest.approx(terms["qkv_relations"].item())
    pairs = zip(mine.hidden_states, theirs.hidden_states[::2])
    assert scores["hidden_state_mse"] == pytest.approx(sum((a - b)[valid].square().mean().item() for a, b in pairs))
    cosine = torch.cosine_similarity(mine.hidden_states[-1][valid], theirs.hidden_states[-1][valid], dim=-1)
    assert scores["cosine"] == pytest.approx(cosine.mean().item())
    assert student.training


def test_figures_stay_comparable_where_heads_layers_or_masking_differ(teacher, corpus_file):
    text = make_text(teacher, corpus_file)
    student = make_student(teacher, num_attention_heads=2, num_hidden_layers=5)
    objective = make_objective(teacher, "qkv_relations", "masked_lm", layer=4)
    masking = WholeWordMasking(text.collator, teacher.tokenizer, 0)
    masking.set_epoch(3)
    students = [(student.encoder.config, objective.recipe)]
    held_out = capture_held_out(text, teacher, torch.device("cpu"), students, masking)
    assert masking.epoch == 3
    masking.set_epoch(0)
    assert torch.equal(held_out.masked[0][0]["input_ids"], masking(text.held_out)["input_ids"])
    scores = score_student(student, objective, held_out)
    assert set(scores) == {"loss", "qkv_relations_loss", "masked_lm_loss", "hidden_state_mse", "cosine"}
    alone = make_objective(teacher, "qkv_relations", layer=4)
    students = [(student.encoder.config, alone.recipe)]
    plain = score_student(student, alone, capture_held_out(text, teacher, torch.device("cpu"), students))
    assert scores["cosine"] == plain["cosine"] and scores["hidden_state_mse"] == plain["hidden_state_mse"]
    assert scores["qkv_relations_loss"] != plain["loss"]


@pytest.mark.parametrize("heads", [2, 3])
@pytest.mark.parametrize("names", [("hidden_states", "attention_scores"), ("qkv_relations", "logits")])
def test_only_what_is_read_is_kept_of_held_out_text(names, heads, teacher, corpus_file):
    """Bytes counted by hand, of students of two depths; and the figures are those of all captures."""
    text = make_text(teacher, corpus_file)
    names = names if heads == 3 else tuple(name for name in names if name != "attention_scores")
    students = [make_student(teacher, num_attention_heads=heads, num_hidden_layers=depth) for depth in (1, 2)]
    objectives = [
        make_objective(teacher, *names, states=states, layer=last)
        for last, states in enumerate([((1, 3),), ((0, 0), (2, 4))])
    ]
    given = [(student.encoder.config, one.recipe) for student, one in zip(students, objectives)]
    masking = WholeWordMasking(text.collator, teacher.tokenizer, 0) if "logits" in names else None
    held_out = capture_held_out(text, teacher, torch.device("cpu"), given, masking)

    tokens = sum(batch["input_ids"].numel() for batch, _ in held_out.plain) * 24 * 8  # bytes of one state, float64
    states = {0, 2, 4}  # evenly mapped for 1 and 2 layers: the embedding, the second, the last
    layers = {1, 3} if heads == 3 else set()
    if names[0] == "hidden_states":
        states |= {3}
        layers |= {2} if heads == 3 else set()
    expected = tokens * (len(states) + 2 * len(layers))
    masked = 0
    if masking is not None:  # queries, keys and values of one layer, and the logits of what was hidden
        hidden = sum((batch["labels"] != -100).sum().item() for batch, _ in held_out.masked)
        masked = 3 * tokens + hidden * 65 * 8
    assert stored_bytes(held_out.plain) == expected and stored_bytes(held_out.masked or []) == masked

    everything = Needs(*(frozenset(range(5)) for _ in range(4)), logits=True)
    whole = [[(batch, everything.of(teacher(batch))) for batch, _ in part or ()] for part in vars(held_out).values()]
    for student, objective in zip(students, objectives):
        found = score_student(student, objective, held_out)
        assert found == score_student(student, objective, HeldOut(whole[0], whole[1] or None))
        assert ("attention_score_mse" in found) == (heads == 3)


def stored_bytes(captured: list) -> int:
    """Bytes of all storages that captures hold."""
    storages = {}
    for _, captures in captured:
        parts = (captures.hidden_states, captures.queries, captures.keys, captures.values, (captures.logits,))
        for tensor in [tensor for part in parts for tensor in part if tensor is not None]:
            assert tensor.dtype == torch.float64
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return sum(storages.values())


def test_the_names_that_arguments_know_are_those_of_the_losses():
    assert tuple(LOSSES) == LOSS_NAMES


@torch.no_grad()
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_reads_what_it_says_it_needs_and_all_of_that(name, teacher):
    batch, student = separate(make_rows()), make_student(teacher)
    objective = make_objective(teacher, name, states=((0, 1), (2, 3)))
    mine, theirs, counts, needs = student(**batch), teacher(batch), objective.count(batch), objective.recipe.needs
    expected, _ = objective.loss(mine, theirs, batch, counts)
    assert torch.equal(objective.loss(mine, needs.of(theirs), batch, counts)[0], expected)
    fewer = [
        dataclasses.replace(needs, **{part: numbers - {number}})
        for part, numbers in vars(needs).items()
        if part != "logits"
        for number in numbers
    ]
    fewer += [dataclasses.replace(needs, logits=False)] if needs.logits else []
    assert objective.recipe.needs_teacher == bool(fewer) == (name != "masked_lm")
    for less in fewer:
        with pytest.raises((AttributeError, CaptureError, TypeError)):
            objective.loss(mine, less.of(theirs), batch, counts)


def test_packed_text_holds_the_same_tokens(teacher, corpus_file):
    plain, filled = (make_text(teacher, corpus_file, packing=packing) for packing in (False, True))
    assert plain.held_out == filled.held_out and plain.sample == filled.sample
    tokens = [sum(len(row["input_ids"]) for row in text.training) for text in (plain, filled)]
    assert tokens[0] == tokens[1] and len(filled.training) <= len(plain.training)
    assert "sequence_ids" in filled.collator(list(filled.training.take(2)))
