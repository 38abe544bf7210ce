"""Agents that are compared, as the users of each library build them; only the library that is asked for is imported."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

SB3, SBX, OWN = "Stable-Baselines3", "SBX", "everlearn"


@dataclass(frozen=True)
class Contestant:
    """An agent and what an iteration of it consists of.

    Attributes:
        library: Whose it is: ``SB3``, ``SBX`` or ``OWN``.
        algorithm: Name of the class.
        env_id: Of the environments.
        n_envs: Environments.
        n_steps: Steps of each environment per rollout.
        batch_size: Samples per update.
        n_epochs: Passes over a rollout.
        seed: Of the agent and its environments.
        arguments: Further ones of the class.
        compiled: Whether it updates with compiled code, where the class offers that by an argument.
    """

    library: str
    algorithm: str
    env_id: str
    n_envs: int
    n_steps: int
    batch_size: int
    n_epochs: int
    seed: int = 0
    arguments: dict[str, Any] = field(default_factory=dict)
    compiled: bool = True

    @property
    def rollout_size(self) -> int:
        """Environment steps of an iteration."""
        return self.n_envs * self.n_steps

    @property
    def updates(self) -> int:
        """Minibatches of an iteration."""
        return self.n_epochs * -(-self.rollout_size // self.batch_size)


def build(contestant: Contestant) -> Any:
    """The agent, with environments of its own, on the processor."""
    make = {SB3: _sb3, SBX: _sbx, OWN: _everlearn}[contestant.library]
    algorithm, environments, arguments = make(contestant)
    return algorithm(
        "MlpPolicy",
        environments,
        n_steps=contestant.n_steps,
        batch_size=contestant.batch_size,
        n_epochs=contestant.n_epochs,
        seed=contestant.seed,
        **arguments,
        **contestant.arguments,
    )


def compiles(algorithm: Callable[..., Any]) -> bool:
    """Whether a class has compiled updates to offer."""
    return "compile" in inspect.signature(algorithm).parameters


def parameters(model: Any) -> int:
    """How many numbers an agent learns."""
    if hasattr(model.policy, "actor_state"):
        return _jax_parameters(model)
    return sum(parameter.numel() for parameter in model.policy.parameters())


def _sb3(contestant: Contestant) -> tuple[Any, Any, dict[str, Any]]:
    import stable_baselines3

    return getattr(stable_baselines3, contestant.algorithm), _sb3_environments(contestant), {"device": "cpu"}


def _sbx(contestant: Contestant) -> tuple[Any, Any, dict[str, Any]]:
    import sbx

    return getattr(sbx, contestant.algorithm), _sb3_environments(contestant), {}


def _sb3_environments(contestant: Contestant) -> Any:
    from stable_baselines3.common.env_util import make_vec_env

    return make_vec_env(contestant.env_id, n_envs=contestant.n_envs, seed=contestant.seed)


def _everlearn(contestant: Contestant) -> tuple[Any, Any, dict[str, Any]]:
    """Environments as a run of everlearn has them, without the normalisation that the others do not have either."""
    import everlearn
    from everlearn.environments.build import training_environment
    from everlearn.environments.spec import EnvConfig

    algorithm = getattr(everlearn, contestant.algorithm)
    config = EnvConfig(id=contestant.env_id, n_envs=contestant.n_envs, normalize=False)
    compiled = {"compile": contestant.compiled} if compiles(algorithm) else {}
    return algorithm, training_environment(config, gamma=0.99), {"device": "cpu"} | compiled


def _jax_parameters(model: Any) -> int:
    import jax

    states = (model.policy.actor_state, model.policy.vf_state)
    return sum(int(leaf.size) for state in states for leaf in jax.tree_util.tree_leaves(state.params))
