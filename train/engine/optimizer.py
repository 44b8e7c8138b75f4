"""The optimizer and its learning rate."""

import math
from collections.abc import Callable

import torch
from torch import nn

from efficientbert.train.engine.arguments import LoopArguments


def make_optimizer(model: nn.Module, args: LoopArguments) -> torch.optim.AdamW:
    """AdamW, without weight decay on biases and norms."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": args.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=args.learning_rate, fused=True)


def make_schedule(args: LoopArguments, max_steps: int) -> Callable[[int], float]:
    """Factor of the peak learning rate: rises linearly from step 1, stays, and falls linearly to 0 in the end.

    Those of transformers start at 0: their first step would train nothing, which counts in the short trainings of a
    search.
    """
    warmup_steps = math.ceil(args.warmup_ratio * max_steps)
    decay_steps = max(1, math.ceil((1 - args.stable_ratio) * (max_steps - warmup_steps)))

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        return max(0.0, min(1.0, (max_steps - step) / decay_steps))

    return factor
