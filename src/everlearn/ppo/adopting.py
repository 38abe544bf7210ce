"""States of another system put into a model that was just built: what fits is taken, the rest is told or refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from everlearn.checkpoint.errors import Corrupt, Mismatch, NonFinite, refused
from everlearn.core.errors import StateError
from everlearn.core.stateful import snapshot
from everlearn.optim.utility_optimizer import UtilityOptimizer
from everlearn.ppo.persistence import PersistentLearner
from everlearn.ppo.policy import CRITIC_MODULES, ActorCriticPolicy
from everlearn.values import ScalarHead

State = Mapping[str, Any]

_MOMENTS = frozenset({"step", "exp_avg", "exp_avg_sq"})
_LARGEST = frozenset({"max_exp_avg_sq"})
_STATES: dict[type[torch.optim.Optimizer], frozenset[str]] = {
    torch.optim.Adam: _MOMENTS,
    torch.optim.AdamW: _MOMENTS,
    torch.optim.SGD: frozenset({"momentum_buffer"}),
}
"""What optimizers of torch remember of a parameter; those of everlearn check that themselves."""
_OF_CRITICS = ("policy.optimizer", "vgs_state")
"""Parts that know every parameter, the critics' too."""
_SHOWN = 5


def adopt(model: PersistentLearner, parameters: Mapping[str, State], file: object) -> list[str]:
    """Put the states of the parts into a new model.

    The policy has to fit, but for critics of another kind than the model's, which stay new. Optimizer state is taken
    where class and layout are the same; statistics where their definition is, and otherwise they and their counter
    begin anew.

    Args:
        model: A model that has learned nothing; it is of no use after an error.
        parameters: The state of each part by its name, ``policy`` among them.
        file: Where they come from, for messages.

    Returns:
        A sentence for each part that was not taken, or not whole.

    Raises:
        Mismatch: If the policy has other parameters, with the differences.
        NonFinite: If a number is not finite.
    """
    for part, state in parameters.items():
        _require_state(state, part, file)
        _require_finite(state, part, file)
    with refused(file, "policy"):
        state, critics_are_new = _fitting_weights(model, parameters["policy"], file)
        model.policy.load_state_dict(state)
    if model.use_sde:
        model.policy.reset_noise()
    reasons = {
        name: _taken(model, name, state, file)
        for name, state in parameters.items()
        if name != "policy" and not (critics_are_new and name in _OF_CRITICS)
    }
    left = [f"{name}: it belongs to the file's critics too." for name in _OF_CRITICS if name in parameters]
    critics = "critics: the file's are of another kind than this model's, which stay new."
    return [*([critics, *left] if critics_are_new else []), *(f"{name}: {why}" for name, why in reasons.items() if why)]


def _taken(model: PersistentLearner, part: str, state: State, file: object) -> str | None:
    """Take a part over; why not, where it is left."""
    if part not in _TAKERS:
        return "there is no such part here."
    with refused(file, part):
        return _TAKERS[part](model, state)


def _require_state(state: Any, part: str, file: object) -> None:
    if not (isinstance(state, Mapping) and all(isinstance(name, str) for name in state)):
        problem = f"it holds a {type(state).__name__} that is no state of a part."
        raise Corrupt(file, problem, "Get it from where it was made.", part)


def _require_finite(state: Any, path: str, file: object) -> None:
    if isinstance(state, Mapping):
        for name, part in state.items():
            _require_finite(part, f"{path}.{name}", file)
    elif isinstance(state, Sequence) and not isinstance(state, str):
        for index, part in enumerate(state):
            _require_finite(part, f"{path}.{index}", file)
    elif isinstance(state, Tensor | float) and not bool(torch.isfinite(torch.as_tensor(state)).all()):
        raise NonFinite(file, "it is not finite.", "Take an earlier file.", path)


# --- the policy -------------------------------------------------------------------------------------------------------


def _fitting_weights(model: PersistentLearner, state: State, file: object) -> tuple[dict[str, Tensor], bool]:
    """The weights to load, and whether the critics are new because only the actor's fit."""
    policy = model.policy
    own = policy.state_dict()
    if policy.share_features_extractor:
        state = {**_further_names(state), **state}
    differences = differences_between(state, own)
    if not differences:
        return dict(state), False
    if isinstance(policy, ActorCriticPolicy) and not _has_sb3_critic(policy):
        actor = {name: tensor for name, tensor in state.items() if policy.part_of(name) != "critics"}
        actors = {name: tensor for name, tensor in own.items() if not _is_of_critics(name)}
        differences = differences_between(actor, actors)
        if not differences:
            return {**own, **actor}, True
    remedy = "Give the env, the policy and the policy_kwargs that it was trained with."
    raise Mismatch(file, f"its policy is another one than this model's. {differences}", remedy, "policy")


def _further_names(state: State) -> dict[str, Any]:
    """The names that a shared extractor has for actor and critic too, which files before 1.7 do not have."""
    shared = {name: value for name, value in state.items() if name.startswith("features_extractor.")}
    return {f"{part}_{name}": value for part in ("pi", "vf") for name, value in shared.items()}


def _has_sb3_critic(policy: ActorCriticPolicy) -> bool:
    """Whether the critics are what SB3 has: one, of scalars in reward units."""
    ensemble = policy.ensemble
    return isinstance(ensemble.head, ScalarHead) and ensemble.n_critics == 1 and ensemble.return_scale is None


def _is_of_critics(name: str) -> bool:
    return name.startswith((*CRITIC_MODULES, "return_scale.", "ensemble."))


def differences_between(found: State, expected: Mapping[str, Tensor]) -> str:
    """In which names, shapes and types two states of a module differ, as a sentence; empty where they do not."""
    common = found.keys() & expected.keys()
    differing = sorted(name for name in common if _form(found[name]) != _form(expected[name]))
    complaints = {
        "The file lacks": [name for name in expected if name not in found],
        "The model lacks": [name for name in found if name not in expected],
        "Of another shape": [f"{name} {_form(found[name])} instead of {_form(expected[name])}" for name in differing],
    }
    return " ".join(f"{words}: {_listed(names)}." for words, names in complaints.items() if names)


def _form(value: Any) -> str:
    """Shape and type of a tensor."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(f'{name:.100}' for name in names[:_SHOWN])}{more}"


# --- the other parts: each function says why it did not take the state, or nothing ------------------------------------


def _take_optimizer(model: PersistentLearner, state: State) -> str | None:
    """Take an optimizer's state, but not its hyper-parameters: those are the model's."""
    optimizer = model.policy.optimizer
    own = optimizer.state_dict()
    numbers = _numbers(state, [len(group["params"]) for group in own["param_groups"]])
    if numbers is None:
        return "it is laid out for other parameters, so the optimizer begins anew."
    found = state["state"]
    values = snapshot({place: found[number] for place, number in enumerate(numbers) if number in found})
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if not (isinstance(optimizer, UtilityOptimizer) or _fits_torch(optimizer, state, values, parameters)):
        return f"it is no state of {type(optimizer).__name__} for these parameters, so the optimizer begins anew."
    try:
        optimizer.load_state_dict({**state, "state": values, "param_groups": own["param_groups"]})
    except (StateError, TypeError, AttributeError, KeyError) as error:  # what utility optimizers do not take
        return f"the optimizer begins anew: {error}"
    return None


def _numbers(state: State, sizes: list[int]) -> list[int] | None:
    """The numbers under which parameters have their state, where there are as many in as many groups."""
    groups = state.get("param_groups")
    if not isinstance(groups, list) or not isinstance(state.get("state"), Mapping):
        return None
    members = [group.get("params") if isinstance(group, Mapping) else None for group in groups]
    if not all(isinstance(each, list) for each in members) or [len(each or ()) for each in members] != sizes:
        return None
    numbers = [number for each in members for number in each or ()]
    whole = all(isinstance(number, int) for number in numbers)
    return numbers if whole and len(set(numbers)) == len(numbers) else None


def _fits_torch(
    optimizer: torch.optim.Optimizer, state: State, values: Mapping[int, Any], parameters: Sequence[Tensor]
) -> bool:
    """Whether an optimizer of torch's own can go on from the values: it checks next to nothing itself."""
    expected = _STATES.get(type(optimizer))
    if expected is None:
        return False
    for own, group in zip(optimizer.param_groups, state["param_groups"], strict=True):
        decoupled = group.get("decoupled_weight_decay", own.get("decoupled_weight_decay"))
        if decoupled != own.get("decoupled_weight_decay") or ("betas" in own) != ("betas" in group):
            return False
    if any(group.get("amsgrad") for group in optimizer.param_groups):
        expected |= _LARGEST
    return all(_fits_parameter(values[place], expected, parameters[place]) for place in values)


def _fits_parameter(values: Any, expected: frozenset[str], parameter: Tensor) -> bool:
    if not isinstance(values, Mapping) or values.keys() != expected:
        return False
    return all(
        _is_number(value) if name == "step" else _shape(value) == parameter.shape for name, value in values.items()
    )


def _shape(value: Any) -> Any:
    return value.shape if isinstance(value, Tensor) else None


def _is_number(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1
    return isinstance(value, int | float) and not isinstance(value, bool)


def _take_statistics(model: PersistentLearner, state: State) -> str | None:
    scaler = model.variance_gradient_scaler
    if scaler is None:
        return "variance gradient scaling is off here."
    count = state.get("step_count")
    steps = f"{float(count):g}" if _is_number(count) and count is not None else "unknown"
    again = f"statistics of another definition; they and their counter (steps: {steps}) begin anew, as does warm-up."
    if not all(isinstance(value, Tensor) for value in state.values()):
        return again
    try:
        scaler.load_state_dict(state)
    except StateError:
        return again
    return None


def _take_control(model: PersistentLearner, state: State) -> str | None:
    control = model.kl_controller
    if control is None:
        return "there is no KL control here."
    again = f"it is no state of {type(control).__name__}, which begins anew."
    if not all(_is_number(value) for value in state.values()):
        return again
    try:
        control.load_state_dict(state)
    except StateError:
        return again
    return None


_TAKERS = {
    "policy.optimizer": _take_optimizer,
    "vgs_state": _take_statistics,
    "kl_penalty_state": _take_control,
}
"""By part: what puts a state into the model's, or says why not."""
