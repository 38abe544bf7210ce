"""Checks and choices made once, when a model is built."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from stable_baselines3.common.policies import BasePolicy

from everlearn.core.errors import ArgumentError, require_in_range
from everlearn.optim.directions import AdamDirection
from everlearn.optim.registry import optimizers
from everlearn.optim.utility_optimizer import UtilityOptimizer
from everlearn.ppo.policy import ActorCriticPolicy

RANGES: dict[str, tuple[float, float, bool]] = {
    "gamma": (0, 1, False),
    "gae_lambda": (0, 1, False),
    "ent_coef": (float("-inf"), float("inf"), True),
    "vf_coef": (0, float("inf"), True),
    "max_grad_norm": (0, float("inf"), False),
    "n_steps": (1, float("inf"), True),
    "batch_size": (1, float("inf"), True),
    "n_epochs": (1, float("inf"), True),
    "n_critics": (1, float("inf"), True),
}
"""Lowest and highest value of each plain number, and whether the highest is excluded."""


def check_numbers(arguments: Mapping[str, Any]) -> None:
    """Refuse numbers outside their range, NaN among them.

    Raises:
        ArgumentError: Naming argument, value and range.
    """
    for name, (low, high, open_high) in RANGES.items():
        value = float(arguments[name])
        if open_high or value != high:
            require_in_range(name, value, low, high, open_low=low == float("-inf"), open_high=open_high)
    for name in ("learning_rate", "clip_range"):
        value = arguments[name]
        if callable(value):  # a schedule may start at 0
            require_in_range(f"{name}(1.0)", float(value(1.0)), 0, open_high=True)
        else:
            require_in_range(name, float(value), 0, open_low=name == "clip_range", open_high=True)
    if arguments["target_kl"] is not None:
        require_in_range("target_kl", float(arguments["target_kl"]), 0, open_low=True)


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
