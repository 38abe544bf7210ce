"""Checks and choices made once, when a model is built."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from stable_baselines3.common.policies import BasePolicy

from everlearn.core.errors import ArgumentError
from everlearn.optim.directions import AdamDirection
from everlearn.optim.registry import optimizers
from everlearn.optim.utility_optimizer import UtilityOptimizer
from everlearn.ppo.policy import ActorCriticPolicy


def choose_optimizer(
    optimizer_class: str | type[torch.optim.Optimizer] | None,
    optimizer_kwargs: Mapping[str, Any] | None,
    policy_kwargs: Mapping[str, Any],
) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """The optimizer and its arguments, from the model's arguments or from ``policy_kwargs``.

    Adam without arguments gets SB3's ``eps=1e-5``; the UPGD family normalises utilities per part of the network.

    Raises:
        ArgumentError: If it is given in both places.
    """
    for name, value in (("optimizer_class", optimizer_class), ("optimizer_kwargs", optimizer_kwargs)):
        if value is not None and name in policy_kwargs:
            raise ArgumentError(f"{name} is given twice: as an argument and in policy_kwargs. Keep one of them.")
    chosen: Any = policy_kwargs.get("optimizer_class", optimizer_class)
    given = policy_kwargs.get("optimizer_kwargs", optimizer_kwargs)
    kind: type[torch.optim.Optimizer] = optimizers[chosen] if isinstance(chosen, str) else chosen
    arguments = dict(given or {})
    if isinstance(chosen, str):
        arguments = optimizers.arguments(chosen, arguments, "optimizer_kwargs")
    if issubclass(kind, UtilityOptimizer):
        eps = {"eps": 1e-5} if isinstance(kind.direction, AdamDirection) else {}
        arguments = {"scope": "group", **eps, **arguments}
    elif kind is torch.optim.Adam and not arguments.keys() - {"lr"}:
        arguments["eps"] = 1e-5
    return kind, arguments


def policy_arguments(
    policy_class: type[BasePolicy],
    policy_kwargs: Mapping[str, Any],
    optimizer: tuple[type[torch.optim.Optimizer], Mapping[str, Any]],
    critics: Mapping[str, Any],
) -> dict[str, Any]:
    """What the policy is built with: the user's ``policy_kwargs``, the optimizer, and the critics where it has some.

    Raises:
        ArgumentError: If critics are described in ``policy_kwargs``, or a policy with a scalar value of its own should
            have other critics.
    """
    twice = [name for name in critics if name in policy_kwargs]
    if twice:
        raise ArgumentError(f"{twice} in policy_kwargs: give these as arguments of the algorithm instead.")
    kind, options = optimizer
    arguments = {
        **policy_kwargs,
        "optimizer_class": kind,
        "optimizer_kwargs": {key: value for key, value in options.items() if key != "lr"},
    }
    if issubclass(policy_class, ActorCriticPolicy):
        return {**critics, **arguments}
    plain = {"value_head": "scalar", "n_critics": 1, "critic_reduction": "mean", "normalize_returns": False}
    different = {name: value for name, value in critics.items() if value != plain[name]}
    if different:
        raise ArgumentError(
            f"{policy_class.__name__} has one scalar value and cannot have {different}. Use everlearn.PPO, or derive "
            "the policy from everlearn.ppo.policy.ActorCriticPolicy."
        )
    return arguments


def check_batch_size(batch_size: int, n_steps: int, n_envs: int, normalize_advantage: bool) -> None:
    """SB3's checks of a rollout's size against the minibatches', with SB3's exceptions and its warning."""
    buffer_size = n_envs * n_steps
    if normalize_advantage:
        assert batch_size > 1, (
            "`batch_size` must be greater than 1. See https://github.com/DLR-RM/stable-baselines3/issues/440"
        )
        assert buffer_size > 1, (
            f"`n_steps * n_envs` must be greater than 1. Currently n_steps={n_steps} and n_envs={n_envs}"
        )
    if buffer_size % batch_size > 0:
        warnings.warn(
            f"You have specified a mini-batch size of {batch_size}, but because the `RolloutBuffer` is of size "
            f"`n_steps * n_envs = {buffer_size}`, after every {buffer_size // batch_size} untruncated mini-batches, "
            f"there will be a truncated mini-batch of size {buffer_size % batch_size}\n"
            "We recommend using a `batch_size` that is a factor of `n_steps * n_envs`.\n"
            f"Info: (n_steps={n_steps} and n_envs={n_envs})",
            stacklevel=2,
        )
