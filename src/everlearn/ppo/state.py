"""The state of a model as one tree of named parts, each with its role."""

from __future__ import annotations

import copy
import math
import warnings
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from stable_baselines3.common.save_util import recursive_getattr
from torch import Tensor

from everlearn.core.errors import StateError
from everlearn.core.rng import GlobalGenerators
from everlearn.core.stateful import Attributes, Part, Role, Stateful, StateTree
from everlearn.environments.normaliser import NormaliserState
from everlearn.ppo.diagnostics import Probe
from everlearn.ppo.hyperparameters import HYPERPARAMETERS
from everlearn.ppo.interfacing import InterfacedLearner, InterfaceState
from everlearn.ppo.loop_state import CallbackStates, EnvironmentsState, PendingRecords
from everlearn.ppo.loss import Minibatch
from everlearn.ppo.tuning import TunableLearner


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_share(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_decision(value: Any) -> bool:
    return value in (None, True, False)


def _is_array(value: Any) -> bool:
    parts = value.values() if isinstance(value, Mapping) else [value]
    return value is None or all(isinstance(part, np.ndarray) for part in parts)


PROGRESS = {
    "_total_timesteps": _is_count,
    "_num_timesteps_at_start": _is_count,
    "_current_progress_remaining": _is_share,
}
COUNTERS = {"num_timesteps": _is_count, "_n_updates": _is_count, "_episode_num": _is_count}
COURSE = {"_iteration": _is_count, "_compiles": _is_decision}
OBSERVATIONS = {"_last_obs": _is_array, "_last_episode_starts": _is_array, "_last_original_obs": _is_array}
OUTSIDE = {
    "rollout_buffer": "consumed at the clean point; the next rollout begins with a reset",
    "start_time": "wall-clock time, from which fps is reckoned",
    "_actor": "acts as the policy does, with the policy's own parameters",
    "update_compiler": "compiled code, and the reason where there is none",
    "lr_schedule": "made from learning_rate, which is a hyper-parameter",
    "_warned_of_behaviour": "whether this process has warned",
    "_at_clean_point": "a copy of the other parts",
    "is_stepping": "whether the simulators are at work",
    "_goes_on": "whether learn was called by continue_learning",
    "_pause_at": "whether learn was called by learn_updates",
    "_waiting": "what a resumed model gives back once it has its callbacks and its logger",
}
"""Attributes of a model that learning may change and that are in no part, each with the reason."""


SWITCHES = {"vgs_state": "variance_gradient_scaling", "kl_penalty_state": "kl_penalty"}
"""Parts that may be off, and the argument that switches them."""


def state_tree(model: InterfacedLearner) -> StateTree:
    """Every part of a model's state: what is learned, hyper-parameters, counters, simulators, records, generators."""
    parts = {name: Part(part, Role.LEARNED) for name, part in learned_parts(model).items()}
    if variables := model._get_torch_save_params()[1]:
        parts["variables"] = Part(TensorVariables(model, variables), Role.LEARNED)
    if model._vec_normalize_env is not None:
        parts["normaliser"] = Part(NormaliserState(model._vec_normalize_env), Role.LEARNED)
    return StateTree(
        {
            **parts,
            "interface": Part(InterfaceState(model), Role.HYPER),
            "hyperparameters": Part(HyperparameterState(model), Role.HYPER),
            "progress": Part(Attributes(model, PROGRESS), Role.HYPER),
            "divergence": Part(model.divergence_guard, Role.HYPER),
            "counters": Part(Attributes(model, COUNTERS), Role.LOOP),
            "course": Part(Attributes(model, COURSE), Role.LOOP),
            "observations": Part(Attributes(model, OBSERVATIONS), Role.LOOP),
            "environments": Part(EnvironmentsState(model), Role.SIMULATION),  # after the last observations
            "episodes": Part(EpisodeStatistics(model), Role.LOOP),
            "callbacks": Part(CallbackStates(model), Role.RECORD),
            "records": Part(PendingRecords(model), Role.RECORD),
            "probe": Part(KeptProbe(model), Role.RECORD),
            "generators": Part(GlobalGenerators(), Role.RANDOM),
        }
    )


def learned_parts(model: TunableLearner) -> dict[str, Stateful]:
    """The parts that ``get_parameters`` returns: the policy first, then the optimizer, then whatever is on."""
    parts: dict[str, Stateful] = {"policy": model.policy, "policy.optimizer": model.policy.optimizer}
    if model.variance_gradient_scaler is not None:
        parts["vgs_state"] = model.variance_gradient_scaler
    if model.kl_controller is not None:
        parts["kl_penalty_state"] = model.kl_controller
    return parts


class HyperparameterState:
    """The hyper-parameters now in force, schedules as data.

    Args:
        model: Whose.
    """

    attributes = tuple(HYPERPARAMETERS)

    def __init__(self, model: TunableLearner) -> None:
        self._model = model

    def state_dict(self) -> dict[str, Any]:
        """Name to value; a schedule that is a function is ``{"opaque": its name}``."""
        values = self._model.get_hyperparameters()
        return {name: {"opaque": _name_of(value)} if callable(value) else value for name, value in values.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        """Set every one that differs; a schedule that was a function stays as the model was built, with a warning."""
        present = self.state_dict()
        for name, value in state_dict.items():
            if is_opaque(value) and present.get(name) != value:
                warnings.warn(
                    f"The schedule of {name} was the function '{value['opaque']}', which is not part of a state; the "
                    "model keeps its own. Use a schedule with a kind, such as 'lin_3e-4'.",
                    stacklevel=2,
                )
        self._model.set_hyperparameters({name: value for name, value in state_dict.items() if not is_opaque(value)})


_NOTHING = object()


def _name_of(schedule: Any) -> str:
    function = getattr(schedule, "value_schedule", schedule)  # SB3's wrapper has none of its own
    return getattr(function, "__name__", type(function).__name__)


def is_opaque(value: Any) -> bool:
    """Whether a hyper-parameter's state stands for a function."""
    return isinstance(value, Mapping) and "opaque" in value


class TensorVariables:
    """Tensors that a subclass keeps as attributes: the second list of SB3's ``_get_torch_save_params``.

    Args:
        model: Whose.
        attributes: Their names, dotted where they are attributes of attributes.
    """

    def __init__(self, model: TunableLearner, attributes: Iterable[str]) -> None:
        self._model, self.attributes = model, tuple(attributes)

    def state_dict(self) -> dict[str, Tensor]:
        """Name to tensor.

        Raises:
            StateError: If one is something else.
        """
        found = {name: recursive_getattr(self._model, name) for name in self.attributes}
        for name, value in found.items():
            if not isinstance(value, Tensor):
                raise StateError(f"'{name}' of _get_torch_save_params is {value!r:.200}, which is no tensor.")
        return {name: value.detach() for name, value in found.items()}

    def load_state_dict(self, state_dict: Mapping[str, Tensor], /) -> None:
        """Put the values into the tensors.

        Raises:
            StateError: If there are others, or of other shapes; nothing has changed then.
        """
        own = self.state_dict()
        forms = [{name: getattr(value, "shape", None) for name, value in each.items()} for each in (own, state_dict)]
        if forms[0] != forms[1]:
            raise StateError(f"The variables of the state have the shapes {forms[1]}, here they have {forms[0]}.")
        for name, value in own.items():
            value.copy_(state_dict[name])


class EpisodeStatistics:
    """The last episodes' returns, lengths and successes, from which ``rollout/`` is logged.

    Args:
        model: Whose.
    """

    attributes = ("ep_info_buffer", "ep_success_buffer")

    def __init__(self, model: TunableLearner) -> None:
        self._model = model

    def state_dict(self) -> dict[str, Any]:
        """Lists of what the buffers hold; None before the first ``learn``."""
        return {name: _plain(getattr(self._model, name)) for name in self.attributes}

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        """Fill the buffers."""
        for name in self.attributes:
            kept = state_dict[name]
            if not (kept is None or isinstance(kept, list)):
                raise StateError(f"{name} cannot be {kept!r}. Load what such a model has saved.")
            buffer = None if kept is None else deque(copy.deepcopy(kept), maxlen=self._model._stats_window_size)
            setattr(self._model, name, buffer)


def _plain(buffer: Any) -> Any:
    """The numbers and texts of a buffer, those of numpy as python's; what else a monitor keeps is left out."""
    if isinstance(buffer, Mapping):
        plain = {key: _plain(value) for key, value in buffer.items()}
        return {key: value for key, value in plain.items() if value is not _NOTHING and isinstance(key, str)}
    if isinstance(buffer, deque | list | tuple):
        return [value for value in map(_plain, buffer) if value is not _NOTHING]
    value = buffer.item() if isinstance(buffer, np.generic) else buffer
    return value if value is None or type(value) in (bool, int, float, str) else _NOTHING


class KeptProbe:
    """The kept batch on which forgetting is measured.

    Args:
        model: Whose.
    """

    attributes = ("_probe",)

    def __init__(self, model: TunableLearner) -> None:
        self._model = model

    def state_dict(self) -> dict[str, Any]:
        """The samples by field; empty before the first update."""
        probe = self._model._probe
        return {} if probe is None else {k: v for k, v in probe.samples._asdict().items() if v is not None}

    def load_state_dict(self, state_dict: Mapping[str, Tensor], /) -> None:
        """Keep these samples."""
        self._model._probe = Probe(Minibatch(**copy.deepcopy(dict(state_dict)))) if state_dict else None
