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
class LoopArguments:
    """What every training run can be told."""

    group = "training"

    learning_rate: float = field(default=5e-4, metadata={"help": "Peak learning rate of AdamW."})
    batch_size: int = field(default=32, metadata={"help": "Sequences a process takes at a time."})
    gradient_accumulation_steps: int = field(
        default=1, metadata={"help": "Batches of a process to one optimizer step."}
    )
    warmup_ratio: float = field(default=0.1, metadata={"help": "Part of all steps in which the learning rate rises."})
    weight_decay: float = field(default=0.01, metadata={"help": "Weight decay, not applied to biases and norms."})
    max_grad_norm: float = field(default=1.0, metadata={"help": "Largest norm of the gradient; longer ones are cut."})
    seed: int = field(default=0, metadata={"help": "Seed of weights, order of the data and dropout."})
    device: str | None = field(
        default=None, metadata={"help": "cpu, cuda or cuda:1; by default the GPU if there is one."}
    )
    mixed_precision: str = field(default="no", metadata={"help": "no, bf16 or fp16."})
    gradient_checkpointing: bool = field(default=False, metadata={"help": "Recompute layers to save memory."})
    compile: bool = field(default=False, metadata={"help": "Compile the trained model with torch.compile."})
    max_skipped_steps: int = field(
        default=10,
        metadata={"help": "Steps of a run that may be skipped because loss or gradient are no finite numbers."},
    )
    checkpoint_steps: int = field(default=200, metadata={"help": "Optimizer steps between checkpoints."})
    log_steps: int = field(default=10, metadata={"help": "Optimizer steps between log rows."})
    tracker: str | None = field(default=None, metadata={"help": "Tracker of accelerate: tensorboard, wandb, all, …"})

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
        if not 0 <= self.warmup_ratio <= 1:
            raise InputError(f"warmup_ratio: must be between 0 and 1, not {self.warmup_ratio}")
        if self.mixed_precision not in ("no", "bf16", "fp16"):
            raise InputError(f"mixed_precision: must be no, bf16 or fp16, not {self.mixed_precision!r}")
