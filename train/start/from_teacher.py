"""Initialisation of a student from its teacher: no weight is copied, the teacher's maps are compressed.

The student's channels are the leading principal directions P of the teacher's hidden states, so that a student state s
stands for the teacher state P s. Every linear map of the teacher's embeddings and attention is carried over into that
basis and cut to the student's sizes by the best approximation of lower rank. The feed-forward networks, which have no
counterpart, start almost silent.

A student wider than its teacher has P padded with zeros. Position tables lose the rows in front of the first position
(RoBERTa, MPNet); where there is no segment table, the student's one segment is zero. MPNet's bias of attention scores
by distance has no counterpart in the student, nor is it part of the scores that are distilled: its effect on the
hidden states is left to the training.
"""

from collections.abc import Callable, Mapping

import torch
from torch import nn

from efficientbert.modeling_efficientbert import EfficientBertAttention
from efficientbert.train.distillation.student import Student
from efficientbert.train.distillation.teacher import Teacher


@torch.no_grad()
def initialize_from_teacher(
    student: Student, teacher: Teacher, layer_map: tuple[int, ...], sample: Mapping[str, torch.Tensor]
) -> None:
    """Sets all weights of a freshly made student from its teacher.

    Args:
        student: Encoder and projection with random weights, of any width, depth and number of heads.
        teacher: The teacher.
        layer_map: For every student layer, the teacher layer it learns from, counted from 0.
        sample: Text as `input_ids` and `attention_mask`, each of shape `(B, L)`, a few thousand tokens at least.
    """
    valid = sample["attention_mask"].bool()
    states = [states[valid].double() for states in teacher(sample).hidden_states]
    basis = principal_directions(torch.cat(states), student.encoder.config.hidden_size)
    student.projection.weight.copy_(basis)
    student.projection.bias.zero_()
    projected = [state @ basis for state in states]
    _initialize_embeddings(student, teacher, basis)
    for index, teacher_layer in enumerate(layer_map):
        layer = student.encoder.layers[index]
        source = projected[layer_map[index - 1] + 1 if index else 0]
        if layer.attention is not None:
            _initialize_attention(layer.attention, teacher, teacher_layer, basis, source)
        for ffn in layer.ffns:
            ffn.linear2.weight.mul_(0.1)
    _fit_norms(student, [projected[0], *(projected[layer + 1] for layer in layer_map)], sample)


def _fit_norms(student: Student, targets: list[torch.Tensor], sample: Mapping[str, torch.Tensor]) -> None:
    """Fits every LayerNorm, first to last, to the projected teacher states that its layer shall yield.

    Least squares over the sample, with one weight for all channels (one a channel follows chance) and a bias for each.
    Each norm sees what the ones before it, already fitted, make of the sample.

    Args:
        student: Everything but its norms is initialised.
        targets: For the embedding and every layer, shape `(N, D)`, N valid tokens.
        sample: The text.
    """
    valid = sample["attention_mask"].bool()

    def fit(target: torch.Tensor) -> Callable:
        def before(norm: nn.LayerNorm, inputs: tuple[torch.Tensor]) -> None:
            normalized = nn.functional.layer_norm(inputs[0][valid].double(), norm.normalized_shape, eps=norm.eps)
            centred = normalized - normalized.mean(0)
            weight = (centred * (target - target.mean(0))).sum() / centred.square().sum()
            norm.weight.fill_(weight)
            norm.bias.copy_(target.mean(0) - weight * normalized.mean(0))

        return before

    encoder = student.encoder
    hooks = [encoder.embeddings.layer_norm.register_forward_pre_hook(fit(targets[0]))]
    for layer, target in zip(encoder.layers, targets[1:]):
        norms = [ffn.layer_norm for ffn in layer.ffns]
        for norm in norms if layer.layer_norm is None else [layer.layer_norm, *norms]:
            hooks.append(norm.register_forward_pre_hook(fit(target)))
    training = encoder.training
    encoder.eval()
    encoder(input_ids=sample["input_ids"], attention_mask=sample["attention_mask"])
    encoder.train(training)
    for hook in hooks:
        hook.remove()


def principal_directions(states: torch.Tensor, size: int) -> torch.Tensor:
    """The leading directions of `states` around the origin, strongest first.

    Args:
        states: Shape `(N, D)`.
        size: Number of directions; columns past `D` are zero.

    Returns:
        Shape `(D, size)`, orthonormal columns.
    """
    _, vectors = torch.linalg.eigh(states.T @ states)
    directions = vectors.flip(-1)[:, :size]
    return nn.functional.pad(directions, (0, size - directions.shape[1]))


def _initialize_embeddings(student: Student, teacher: Teacher, basis: torch.Tensor) -> None:
    """Token, position and segment tables in the student's basis; the token table and its projection by SVD."""
    source, target = teacher.model.embeddings, student.encoder.embeddings
    norm = source.LayerNorm
    # The teacher's LayerNorm weight, and ELECTRA's projection behind it, act before the basis does.
    into_basis = basis
    if hasattr(teacher.model, "embeddings_project"):
        into_basis = teacher.model.embeddings_project.weight.double().T @ basis
    into_basis = norm.weight.double()[:, None] * into_basis
    into_basis = into_basis - into_basis.mean(0, keepdim=True)

    tokens = source.word_embeddings.weight.double() @ into_basis
    right = principal_directions(tokens, min(target.word_embeddings.embedding_dim, tokens.shape[1])).T
    table = tokens @ right.T
    balance = (right.square().mean() / table.square().mean()).pow(0.25)
    rank = right.shape[0]
    target.word_embeddings.weight.zero_()
    target.word_embeddings.weight[:, :rank] = (table * balance).float()
    target.projection.weight.zero_()
    width = target.word_embeddings.embedding_dim
    target.projection.weight[:, width : width + rank] = (right.T / balance).float()
    target.projection.bias.zero_()
    positions = source.position_embeddings.weight.double()[teacher.position_offset :] @ into_basis
    target.position_embeddings.weight.copy_(positions[: target.position_embeddings.num_embeddings])
    target.token_type_embeddings.weight.zero_()
    if getattr(source, "token_type_embeddings", None) is not None:
        target.token_type_embeddings.weight.copy_(source.token_type_embeddings.weight.double() @ into_basis)


def _initialize_attention(
    attention: EfficientBertAttention, teacher: Teacher, layer: int, basis: torch.Tensor, states: torch.Tensor
) -> None:
    """Every student head takes the best low-rank query-key and value-output products of a teacher head.

    Best is meant in expectation over `states`, projected teacher states of shape `(N, D)`: the products are weighted
    by their second moment. With fewer student heads, the teacher heads that write most are kept; with more, heads
    share a teacher head and divide its value-output product among them.
    """
    heads, head_dim = attention.num_heads, attention.head_dim
    query, key, value, output = teacher.attention_linears(layer)
    inputs = torch.cat((states, states.new_ones(len(states), 1)), dim=1)
    metric = _square_root(inputs.T @ inputs / len(inputs))

    def by_head(linear: nn.Linear) -> torch.Tensor:
        """Weights and bias in the student's basis, of shape `(teacher heads, teacher head size, D + 1)`."""
        weight = torch.cat((linear.weight.double() @ basis, linear.bias.double()[:, None]), dim=1)
        return weight.unflatten(0, (teacher.num_heads, -1))

    queries, keys, values = by_head(query), by_head(key), by_head(value)
    outputs = (basis.T @ output.weight.double()).unflatten(1, (teacher.num_heads, -1)).transpose(0, 1)
    writes = torch.stack([torch.linalg.matrix_norm(outputs[h] @ values[h] @ metric) for h in range(teacher.num_heads)])
    if heads <= teacher.num_heads:
        sources = writes.topk(heads).indices.sort().values.tolist()
    else:
        sources = [h * teacher.num_heads // heads for h in range(heads)]

    scale = (head_dim / queries.shape[1]) ** 0.25  # scores are divided by the square root of another head size
    new_qkv = basis.new_empty(3, heads, head_dim, basis.shape[1] + 1)
    new_output = basis.new_zeros(basis.shape[1], heads, head_dim)
    # What no teacher head fills stays random, and small, so that it can learn.
    new_qkv[..., :-1] = attention.qkv.weight.double().unflatten(0, (3, heads, head_dim))
    new_qkv[..., -1] = 0
    for head, source in enumerate(sources):
        copies = sources.count(source)
        left, right = _factors(queries[source], keys[source], metric, head_dim)
        new_qkv[0, head, : len(left)] = left * scale
        new_qkv[1, head, : len(right)] = right * scale
        share = sources[:head].count(source)
        write, read = _value_output_factors(outputs[source], values[source], metric)
        write, read = write[:, share::copies][:, :head_dim], read[share::copies][:head_dim]
        new_qkv[2, head, : len(read)] = read
        new_output[:, head, : write.shape[1]] = write
    new_qkv = new_qkv.flatten(0, 2)
    attention.qkv.weight.copy_(new_qkv[:, :-1])
    attention.qkv.bias.copy_(new_qkv[:, -1])
    attention.output.weight.copy_(new_output.flatten(1))
    attention.output.bias.copy_(output.bias.double() @ basis)


def _square_root(moment: torch.Tensor) -> torch.Tensor:
    """The symmetric root of a positive matrix; directions that never occur keep a trace of weight."""
    values, vectors = torch.linalg.eigh(moment)
    return vectors @ torch.diag(values.clamp_min(1e-6 * values.max()).sqrt()) @ vectors.T


def _factors(
    left: torch.Tensor, right: torch.Tensor, metric: torch.Tensor, rank: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Matrices of at most `rank` rows with the product nearest to `left.T @ right`, weighted by `metric` on both
    sides.

    Args:
        left, right: Shape `(d, D)`.
        metric: Shape `(D, D)`, symmetric.
    """
    _, left_root = torch.linalg.qr(metric @ left.T)
    _, right_root = torch.linalg.qr(metric @ right.T)
    u, singular, vh = torch.linalg.svd(left_root @ right_root.T)
    root = singular[:rank].sqrt()[:, None]
    new_left = root * (u[:, :rank].T @ torch.linalg.pinv(left_root).T @ left)
    new_right = root * (vh[:rank] @ torch.linalg.pinv(right_root).T @ right)
    return new_left, new_right


def _value_output_factors(
    output: torch.Tensor, value: torch.Tensor, metric: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The product `output @ value` as factors with the strongest parts first, weighted by `metric` on the right.

    Args:
        output: Shape `(D, d)`.
        value: Shape `(d, D + 1)`.
        metric: Shape `(D + 1, D + 1)`.
    """
    orthogonal, output_root = torch.linalg.qr(output)
    _, value_root = torch.linalg.qr(metric @ value.T)
    u, singular, vh = torch.linalg.svd(output_root @ value_root.T)
    root = singular.sqrt()
    write = orthogonal @ u * root
    read = root[:, None] * (vh @ torch.linalg.pinv(value_root).T @ value)
    return write, read
