"""What every training run can be told."""

from dataclasses import dataclass, field

from efficientbert.train.cli.arguments import check_kinds
from efficientbert.train.cli.errors import InputError


LARGEST_SEED = 2**32 - 1  # that NumPy takes


def check_seed(name: str, seed: int) -> None:
    """Checks that a seed is one.

    Raises:
        InputError: if it is not, naming the argument.
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise InputError(f"{name}: must be between 0 and {LARGEST_SEED}, not {seed}")


@dataclass(kw_only=True)
class DeviceArguments:
    """Where a command computes."""

    group = "device"

    device: str | None = field(
        default=None,
        metadata={"help": "Device to compute on: cpu, cuda, cuda:1 or mps; by default the GPU if there is one."},
    )


@dataclass(kw_only=True)
class LoopArguments(DeviceArguments):
    """What every training run can be told."""

    group = "training"

    learning_rate: float = field(
        default=5e-4, metadata={"help": "Peak learning rate of AdamW, reached after the warm-up."}
    )
    batch_size: int = field(default=32, metadata={"help": "Sequences that a process takes at a time."})
    gradient_accumulation_steps: int = field(
        default=1, metadata={"help": "Batches of a process that make one optimizer step."}
    )
    warmup_ratio: float = field(
        default=0.1, metadata={"help": "Share of all steps, from 0 to 1, in which the learning rate rises."}
    )
    stable_ratio: float = field(
        default=0.0,
        metadata={
            "help": "Share of the steps behind the warm-up, from 0 to 1, in which the learning rate stays at its peak "
            "before it falls."
        },
    )
    weight_decay: float = field(default=0.01, metadata={"help": "Weight decay of AdamW; biases and norms have none."})
    max_grad_norm: float = field(
        default=1.0, metadata={"help": "Largest norm of the gradient; a longer gradient is scaled down to it."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of new weights, the order of the data and dropout."})
    mixed_precision: str = field(
        default="no", metadata={"help": "Precision of the computation: no (float32), bf16 or fp16."}
    )
    gradient_checkpointing: bool = field(
        default=False, metadata={"help": "Compute layers again in the backward pass, which saves memory."}
    )
    compile: bool = field(default=False, metadata={"help": "Speed up the model that is trained with torch.compile."})
    max_skipped_steps: int = field(
        default=10,
        metadata={
            "help": "Steps that a run may skip because their loss or gradient is not finite; at one more it ends."
        },
    )
    checkpoint_steps: int = field(
        default=200,
        metadata={"help": "Optimizer steps between two checkpoints, from which an interrupted run goes on."},
    )
    log_steps: int = field(default=10, metadata={"help": "Optimizer steps between two rows of the log."})
    tracker: str | None = field(
        default=None,
        metadata={
            "help": "Where to show curves: tensorboard, wandb or another tracker of accelerate; by default nowhere."
        },
    )

    def check(self) -> None:
        """Checks values that no run can work with.

        Raises:
            InputError: naming the argument.
        """
        check_kinds(self)
        for name in ("batch_size", "gradient_accumulation_steps", "checkpoint_steps", "log_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: must be at least 1, not {getattr(self, name)}")
        for name in ("max_skipped_steps", "weight_decay"):
            if getattr(self, name) < 0:
                raise InputError(f"{name}: must be at least 0, not {getattr(self, name)}")
        check_seed("seed", self.seed)
        for name in ("learning_rate", "max_grad_norm"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name}: must be above 0, not {value}")
        for name in ("warmup_ratio", "stable_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name}: must be between 0 and 1, not {getattr(self, name)}")
        if self.mixed_precision not in ("no", "bf16", "fp16"):
            raise InputError(f"mixed_precision: must be no, bf16 or fp16, not {self.mixed_precision!r}")
