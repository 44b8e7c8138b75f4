"""Samplers of candidates over any space, behind one ask and tell."""

from efficientbert.search.samplers.action_space import ActionSpace
from efficientbert.search.samplers.evolution import Evolution
from efficientbert.search.samplers.nsga2 import Nsga2
from efficientbert.search.samplers.optuna_sampler import OptunaSampler
from efficientbert.search.samplers.sampler import Exhausted, RandomSampler, Sampler, Space


SAMPLERS: dict[str, type[Sampler]] = {
    "random": RandomSampler,
    "evolution": Evolution,
    "nsga2": Nsga2,
    "action_space": ActionSpace,
    "tpe": OptunaSampler,
}

__all__ = [
    "SAMPLERS",
    "ActionSpace",
    "Evolution",
    "Exhausted",
    "Nsga2",
    "OptunaSampler",
    "RandomSampler",
    "Sampler",
    "Space",
]
