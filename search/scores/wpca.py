"""W-PCA: a score of untrained architectures, from parameters and the variance inside feed-forward networks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.modeling_efficientbert import EfficientBertModel
from efficientbert.search.scores.score import ReportRung, isolated_randomness
from efficientbert.search.space.architecture import Architecture
from efficientbert.train.engine.finite import NotFiniteError


@dataclass(frozen=True)
class RandomEncoders:
    """Stand-alone encoders with random weights, in eval mode.

    Attributes:
        base: What no architecture decides.
        seed: Of the weights, the same for all.
        device: Where they live.
    """

    base: EfficientBertConfig
    seed: int
    device: torch.device

    def __call__(self, architecture: Architecture) -> EfficientBertModel:
        """The encoder of an architecture, always with the same weights."""
        with isolated_randomness(self.seed):
            return EfficientBertModel(architecture.to_config(self.base)).to(self.device).eval()


@dataclass(frozen=True)
class WPca:
    """Weight-weighted PCA (W-PCA, ICLR 2025): parameters times principal components of the feed-forward networks.

    The components are those of the inner states of a network, as its second linear takes them: as many as are needed
    for more than a share of their variance over the tokens of one batch, summed over all networks of all layers.
    Nothing is trained; a loss is minus the product.

    Attributes:
        encoder: Makes an architecture's encoder: `RandomEncoders`, or slices of a supernet that was initialised from
            the teacher.
        parameters: Exact number of an architecture's parameters.
        batch: Text as `input_ids` and `attention_mask`, each of shape `(B, L)`, on the encoder's device; with fewer
            tokens than the networks are wide, their number limits what is counted.
        variance: The share, below 1.
    """

    encoder: Callable[[Architecture], EfficientBertModel]
    parameters: Callable[[Architecture], float]
    batch: Mapping[str, torch.Tensor]
    variance: float = 0.99

    def __call__(self, architecture: Architecture, report: ReportRung | None = None) -> float:
        """The loss; see `Score`."""
        return -self.parameters(architecture) * self.components(architecture)

    @torch.no_grad()
    def components(self, architecture: Architecture) -> int:
        """Principal components, summed over all networks."""
        encoder = self.encoder(architecture).eval()
        valid = self.batch["attention_mask"].bool()
        counts: list[int] = []

        def count(linear: torch.nn.Linear, inputs: tuple[torch.Tensor]) -> None:
            counts.append(principal_components(inputs[0][valid], self.variance))

        hooks = [ffn.linear2.register_forward_pre_hook(count) for layer in encoder.layers for ffn in layer.ffns]
        try:
            encoder(input_ids=self.batch["input_ids"], attention_mask=self.batch["attention_mask"])
        finally:
            for hook in hooks:
                hook.remove()
        return sum(counts)


def principal_components(states: torch.Tensor, variance: float) -> int:
    """How many principal components hold more than a share of the variance; 0 of states without any.

    Args:
        states: Shape `(N, D)`.
        variance: The share.

    Raises:
        NotFiniteError: if a state is no finite number.
    """
    centred = states.double() - states.double().mean(0)
    moments = centred.T @ centred
    if not moments.isfinite().all():
        raise NotFiniteError("W-PCA: the states of a feed-forward network are not finite")
    eigenvalues = torch.linalg.eigvalsh(moments).flip(0).clamp_min(0)
    if eigenvalues[0] == 0:
        return 0
    shares = eigenvalues.cumsum(0) / eigenvalues.sum()
    return min(int((shares <= variance).sum()) + 1, len(shares))
