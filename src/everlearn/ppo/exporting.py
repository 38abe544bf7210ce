"""Models as Stable-Baselines3's own: built of its classes and torch's alone, so that they load without everlearn."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping
from typing import Any

import stable_baselines3
import torch
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor, nn

from everlearn.core.errors import ArgumentError
from everlearn.core.rng import kept_generators
from everlearn.ppo.hyperparameters import HYPERPARAMETERS, SCHEDULED
from everlearn.ppo.optimizer_state import state_by_name, state_by_number
from everlearn.ppo.persistence import PersistentLearner
from everlearn.ppo.policy import ActorCriticPolicy, unwrapped
from everlearn.ppo.schedules import schedule_data
from everlearn.ppo.state import COUNTERS, PROGRESS
from everlearn.values import QuantileHead, ScalarHead

_ADAM = ("betas", "eps", "weight_decay", "amsgrad")
_SAME = (
    *("use_sde", "sde_sample_freq", "rollout_buffer_class", "rollout_buffer_kwargs"),
    *("tensorboard_log", "verbose", "seed", "device"),
)


def to_sb3(model: PersistentLearner) -> stable_baselines3.PPO:
    """A model of Stable-Baselines3 that acts as this one does; one warning tells what it cannot hold.

    With a scalar head and one critic it is equal, Adam's state included. Heads whose mean is linear in their outputs
    become that mean, in reward units: ``value = std*(mean(W) x + mean(b)) + mean``. Of several critics it has the
    first. Other heads leave a constant for a value, the mean of the return scale.

    Args:
        model: A model that is set up.

    Returns:
        A model without an environment.

    Raises:
        ArgumentError: If its policy is a subclass of everlearn's, which Stable-Baselines3 does not have.
    """
    lost: list[str] = []
    with kept_generators():
        exported = _built(model, lost)
    exact = _put_weights(model, exported, lost)
    _put_optimizer(model, exported, exact, lost)
    vars(exported).update({name: getattr(model, name) for name in (*COUNTERS, *PROGRESS)})
    lost += _parts_beside(model)
    if lost:
        listed = "".join(f"\n  {sentence}" for sentence in lost)
        warnings.warn(f"Stable-Baselines3's format cannot hold everything of this model:{listed}", stacklevel=4)
    return exported


# --- building ---------------------------------------------------------------------------------------------------------


def _built(model: PersistentLearner, lost: list[str]) -> stable_baselines3.PPO:
    arguments = {name: getattr(model, name) for name in (*_SAME, *_plain_hyperparameters())}
    arguments |= {name: _schedule(model, name, lost) for name in SCHEDULED}
    exported = stable_baselines3.PPO(
        _policy_class(model),
        None,  # type: ignore[arg-type]  # set up below, without an environment
        **arguments,
        stats_window_size=model._stats_window_size,
        policy_kwargs=_policy_arguments(model),
        _init_setup_model=False,
    )
    exported.observation_space = copy.deepcopy(model.observation_space)
    exported.action_space = copy.deepcopy(model.action_space)
    exported.n_envs = model.n_envs
    exported._setup_model()
    return exported


def _plain_hyperparameters() -> list[str]:
    return [name for name in HYPERPARAMETERS if name not in SCHEDULED and not name.startswith("vgs_")]


def _policy_class(model: PersistentLearner) -> Any:
    """Stable-Baselines3's class for one of ours; a class of the user's that is derived from theirs is itself."""
    theirs = stable_baselines3.PPO.policy_aliases
    for name, ours in model.policy_aliases.items():
        if model.policy_class is ours:
            return theirs[name]
    if issubclass(model.policy_class, ActorCriticPolicy):
        raise ArgumentError(
            f"{model.policy_class.__name__} is derived from everlearn's policy, and a file of Stable-Baselines3 has to "
            "load without everlearn. Save in everlearn's own format."
        )
    return model.policy_class


def _policy_arguments(model: PersistentLearner) -> dict[str, Any]:
    """The user's, with torch's Adam for an optimizer of ours."""
    given = {name: value for name, value in model.policy_kwargs.items() if not name.startswith("optimizer_")}
    optimizer = model.policy.optimizer
    options = {"eps": 1e-5} if type(optimizer) is not torch.optim.Adam else _options(optimizer)
    return {**given, "optimizer_class": torch.optim.Adam, "optimizer_kwargs": options}


def _options(optimizer: torch.optim.Adam) -> dict[str, Any]:
    group = optimizer.param_groups[0]
    return {name: tuple(group[name]) if name == "betas" else group[name] for name in _ADAM}


def _schedule(model: PersistentLearner, name: str, lost: list[str]) -> Any:
    """A number or Stable-Baselines3's linear schedule; what is neither becomes its value now."""
    held = model.lr_schedule if name == "learning_rate" else getattr(model, name)
    if held is None:
        return None
    unit = _unit(model) if name == "clip_range_vf" else 1.0
    data = schedule_data(held)
    if isinstance(data, float):
        return unit * data
    if isinstance(data, Mapping) and data["kind"] == "linear":
        return LinearSchedule(unit * data["start"], unit * data["end"], data["end_fraction"])
    now = unit * held(model._current_progress_remaining)
    kind = data["kind"] if isinstance(data, Mapping) else "of a function"
    lost.append(f"{name}: the schedule is {kind}; from now on it is {now:g}.")
    return now


def _unit(model: PersistentLearner) -> float:
    """The standard deviation in whose unit the critics predict, in reward units."""
    scale = getattr(model.policy, "return_scale", None)
    return 1.0 if scale is None else float(scale.std)


# --- weights ----------------------------------------------------------------------------------------------------------


def _put_weights(model: PersistentLearner, exported: stable_baselines3.PPO, lost: list[str]) -> bool:
    """Load the weights; whether all of them are the model's own."""
    policy, state = unwrapped(model.policy), exported.policy.state_dict()
    own = {name: tensor for name, tensor in policy.state_dict().items() if name in state}
    exact = True
    if isinstance(policy, ActorCriticPolicy):
        folded = _folded(policy, lost)
        exact = folded is None
        own |= folded or {}
    exported.policy.load_state_dict(own)
    return exact


def _folded(policy: ActorCriticPolicy, lost: list[str]) -> dict[str, Tensor] | None:
    """Weight and bias of the one output that Stable-Baselines3's critic has; None where ours is such a critic."""
    ensemble, scale = policy.ensemble, policy.return_scale
    if ensemble.n_critics > 1:
        lost.append(f"critics: the first of {ensemble.n_critics}; values then were their {_name(ensemble.reduction)}.")
    if isinstance(ensemble.head, ScalarHead) and scale is None:
        return None
    mean, std = (0.0, 1.0) if scale is None else (float(scale.mean), float(scale.std))
    net = policy.value_nets()[0]
    if isinstance(ensemble.head, ScalarHead | QuantileHead):
        weight, bias = mean_output(net)
        return _layer(net, std * weight, std * bias + mean)
    lost.append(f"values: the mean of a {_name(ensemble.head)} is not linear in its outputs; they are {mean:g} always.")
    weight, bias = mean_output(net)
    return _layer(net, 0.0 * weight, 0.0 * bias + mean)


def mean_output(layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """Weight, (1, in), and bias, (1,), of the mean of a layer's outputs, in float64."""
    return layer.weight.detach().double().mean(0, keepdim=True), layer.bias.detach().double().mean(0, keepdim=True)


def _layer(like: nn.Linear, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    return {"value_net.weight": weight.to(like.weight.dtype), "value_net.bias": bias.to(like.bias.dtype)}


def _name(part: object) -> str:
    return type(part).__name__


# --- what goes along, and what does not -------------------------------------------------------------------------------


def _put_optimizer(model: PersistentLearner, exported: stable_baselines3.PPO, exact: bool, lost: list[str]) -> None:
    """Adam's state, where the parameters are the same; otherwise Adam begins anew."""
    ours, theirs = model.policy.optimizer, exported.policy.optimizer
    same = _parameter_names(model) == _parameter_names(exported) and len(ours.param_groups) == 1
    if type(ours) is torch.optim.Adam and exact and same:
        named = state_by_name(ours, unwrapped(model.policy))
        theirs.load_state_dict(state_by_number(named, theirs, exported.policy))
    else:
        why = f"it was {_name(ours)}" if type(ours) is not torch.optim.Adam else "its parameters are others"
        lost.append(f"optimizer: an Adam that begins anew; {why}.")


def _parameter_names(model: PersistentLearner | stable_baselines3.PPO) -> list[str]:
    return [name for name, _ in unwrapped(model.policy).named_parameters()]


def _parts_beside(model: PersistentLearner) -> list[str]:
    parts = {
        "variance gradient scaling": model.variance_gradient_scaler,
        "KL control": model.kl_controller,
    }
    lost = [f"{name}: there is none." for name, part in parts.items() if part is not None]
    normaliser = model.normaliser_state
    if normaliser is not None:
        lost.append(f"normaliser: {_without_normaliser(model, normaliser)}")
    return lost


def _without_normaliser(model: PersistentLearner, state: Mapping[str, Any]) -> str:
    """What to do without the statistics, which such a file cannot hold."""
    if not state["obs_rms"]:
        return "its statistics of the rewards are left out; to act, none are needed."
    expected = "the policy expects normalised observations. Here, model.normalize_obs(...) makes them; elsewhere, "
    if type(model.get_vec_normalize_env()) is VecNormalize:
        return expected + (
            "save the statistics with model.get_vec_normalize_env().save(path) and load them with VecNormalize.load."
        )
    options = {name: state["settings"][name] for name in ("clip_obs", "epsilon", "norm_obs_keys")}
    settings = "".join(f", {name}={_literal(value)}" for name, value in options.items())
    each = "obs_rms" if "" in state["obs_rms"] else "obs_rms[key], by key,"
    return expected + (
        f"build VecNormalize(venv, training=False, norm_reward=False{settings}) and set mean and var of its {each} to "
        "those in model.normaliser_state['obs_rms'], as arrays of numpy; a plain observation has the key ''."
    )


def _literal(value: Any) -> str:
    """How a setting is written in Python."""
    return "float('inf')" if value == math.inf else repr(value)
