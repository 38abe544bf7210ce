"""Members of a small population, each beside a twin that trains alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from everlearn import PPO
from everlearn.core.digest import digest
from everlearn.core.errors import NonFiniteError
from everlearn.core.rng import GlobalGenerators, kept_generators
from everlearn.ppo.training_together import Together
from tests.ppo.updates import assert_close_at_scale, learned, model_of

STEPS = 96
PLAIN: dict[str, Any] = {"algorithm": PPO, "place": "pendulum"}
EVERYTHING: dict[str, Any] = {"place": "pendulum", "kl_penalty": True, "vgs_warmup_steps": 2, "clip_range_vf": 0.5}
NUMBERS: list[dict[str, Any]] = [
    {"ent_coef": 0.0, "gamma": 0.9, "clip_range": 0.1, "max_grad_norm": 0.3},
    {"ent_coef": 0.01, "gamma": 0.95, "clip_range": 0.2, "max_grad_norm": 0.5, "n_epochs": 3},
    {"ent_coef": 0.03, "gamma": 0.99, "clip_range": 0.3, "max_grad_norm": 1.0, "gae_lambda": 0.8},
]
"""Hyper-parameters in which three members differ."""
OF_PLAIN: list[dict[str, Any]] = [{"optimizer_kwargs": {"lr": lr}} for lr in (1e-3, 3e-3, 1e-2)]
OF_EVERYTHING: list[dict[str, Any]] = [
    {"optimizer_kwargs": {"lr": 1e-2, "sigma": 0.1}, "vgs_alpha": 0.1},
    {"optimizer_kwargs": {"lr": 3e-3, "sigma": 0.05}, "vgs_alpha": 0.2},
    {"optimizer_kwargs": {"lr": 1e-2, "sigma": 0.2, "beta_utility": 0.9}, "vgs_alpha": 0.4},
]

State = dict[str, Any]
Work = Callable[[PPO], Any]


class Members:
    """Models with the state in which each one's making has left the global generators.

    Args:
        arguments: Of each.
        common: Of all.
    """

    def __init__(self, arguments: Sequence[dict[str, Any]], **common: Any) -> None:
        self.models: list[PPO] = []
        self.generators: list[State] = []
        with kept_generators():
            for seed, own in enumerate(arguments):
                self.models.append(model_of(**{"compile": True, "seed": seed, **common, **own}))
                self.generators.append(GlobalGenerators().state_dict())

    def together(self) -> Together:
        return Together(self.models, self.generators)

    def alone(self, work: Work) -> list[Any]:
        """Each does the work by itself; returns what comes of it, or the exception."""
        results = []
        with kept_generators():
            for number, model in enumerate(self.models):
                GlobalGenerators().load_state_dict(self.generators[number])
                try:
                    results.append(work(model))
                except NonFiniteError as error:
                    results.append(error)
                self.generators[number] = GlobalGenerators().state_dict()
        return results


def learn(model: PPO) -> PPO:
    return model.learn(STEPS)


def plain(changes: Sequence[dict[str, Any]] = ({}, {}, {}), **common: Any) -> Members:
    """Three members of PPO with different numbers."""
    arguments = [{**a, **b, **c} for a, b, c in zip(NUMBERS, OF_PLAIN, changes, strict=True)]
    return Members(arguments, **{**PLAIN, **common})


def everything(changes: Sequence[dict[str, Any]] = ({}, {}, {}), **common: Any) -> Members:
    """Three members with everything on, and different numbers."""
    arguments = [{**a, **b, **c} for a, b, c in zip(NUMBERS, OF_EVERYTHING, changes, strict=True)]
    return Members(arguments, **{**EVERYTHING, **common})


def run(together: Together, work: Work, resting: Sequence[int] = ()) -> list[Any]:
    """Have all members do the work together."""
    models = together.models
    return together.run([None if n in resting else lambda m=m: work(m) for n, m in enumerate(models)])  # type: ignore[misc]


def assert_same(found: PPO, expected: PPO, tolerance: float = 1e-4) -> None:
    """The same was learned, to rounding; counts and what is random are equal to the bit."""
    assert_close_at_scale(learned(found)["parameters"], learned(expected)["parameters"], tolerance)
    assert_close_at_scale(learned(found), learned(expected), 10 * tolerance)
    assert (found._n_updates, found.num_timesteps) == (expected._n_updates, expected.num_timesteps)
    assert found.skipped_updates == expected.skipped_updates
    for one, other in zip(found.policy.parameters(), expected.policy.parameters(), strict=True):
        gradients = [{"gradient": parameter.grad.nan_to_num()} for parameter in (one, other)]
        assert_close_at_scale(*gradients, 100 * tolerance)
    noise = [model.policy.optimizer.state_dict().get("noise") for model in (found, expected)]
    assert digest(noise[0]) == digest(noise[1])


def logged(model: PPO) -> dict[str, float]:
    """The numbers of the last training that are the member's own."""
    values = model.logger.name_to_value
    return {
        name: copy.copy(value) for name, value in values.items() if name.startswith(("train/", "upgd/", "vgs/", "kl/"))
    }
