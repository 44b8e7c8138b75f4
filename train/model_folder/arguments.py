"""What the model card can be told."""

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class CardArguments:
    """What the model card says beside what was done."""

    group = "model card"

    license: str | None = field(
        default=None,
        metadata={"help": "Licence of the weights in the model card, as the Hub spells it: mit, apache-2.0, …"},
    )
    language: list[str] | None = field(
        default=None, metadata={"help": "Languages that the model is for, in the model card, as codes such as en de."}
    )
