"""The parts of the state that belong to the loop of training: environments, callbacks, records that wait for a log."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from stable_baselines3.common import callbacks as sb3
from stable_baselines3.common.callbacks import BaseCallback

from everlearn.checkpoint.codec import members_of
from everlearn.core.errors import StateError
from everlearn.core.resume_level import Level, Resumability
from everlearn.core.stateful import callable_with
from everlearn.environments.vector_state import restore_vector, vector_snapshot

if TYPE_CHECKING:
    from everlearn.ppo.tuning import TunableLearner

_log = logging.getLogger(__name__)


class EnvironmentsState:
    """The simulators with all that is wrapped around them.

    Args:
        model: Whose.
    """

    attributes = ("env",)

    def __init__(self, model: TunableLearner) -> None:
        self._model = model

    def state_dict(self) -> dict[str, Any]:
        """As from ``vector_snapshot``; empty without an environment."""
        return {} if self._model.env is None else vector_snapshot(self._model.env)

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        """Put them back; where running episodes cannot be, the next ``learn`` resets them.

        Raises:
            StateError: If they are others.
        """
        if state_dict and self._model.env is not None and not restore_vector(self._model.env, state_dict):
            self._model._last_obs = None


_ATTRIBUTES: dict[Any, tuple[str, ...]] = {
    BaseCallback: ("n_calls",),
    sb3.EvalCallback: (
        *("best_mean_reward", "last_mean_reward", "evaluations_results", "evaluations_timesteps"),
        *("evaluations_length", "evaluations_successes", "_is_success_buffer"),
    ),
    sb3.EveryNTimesteps: ("last_time_trigger",),
    sb3.StopTrainingOnMaxEpisodes: ("_total_max_episodes", "n_episodes"),
    sb3.StopTrainingOnNoModelImprovement: ("last_best_mean_reward", "no_improvement_evals"),
}
"""What SB3's callbacks change while they are called; a class has those of its bases, too."""
_STATELESS = (
    *(sb3.CallbackList, sb3.CheckpointCallback, sb3.EvalCallback, sb3.EventCallback, sb3.EveryNTimesteps),
    *(sb3.LogEveryNTimesteps, sb3.ProgressBarCallback, sb3.StopTrainingOnMaxEpisodes),
    *(sb3.StopTrainingOnNoModelImprovement, sb3.StopTrainingOnRewardThreshold),
)
"""SB3's classes: what ``_ATTRIBUTES`` has is all of their state."""


class CallbackStates:
    """What callbacks remember: SB3's by a list of their attributes, others by ``state_dict`` and ``load_state_dict``.

    A callback of a user without these two is not restored; that lowers the level of a file only where it says
    ``affects_training = True``.

    Args:
        model: Whose.
    """

    attributes = ("_callback",)

    def __init__(self, model: TunableLearner) -> None:
        self._model = model

    def state_dict(self) -> dict[str, Any]:
        """A state for every callback, in the order in which they are called."""
        waiting: dict[str, Any] | None = (self._model._waiting or {}).get("callbacks")
        if waiting is not None:
            return waiting
        return {"callbacks": [_callback_state(callback) for callback in _each(self._model._callback)]}

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        """Give each of the callbacks of now what it knew; before ``learn`` has any, it waits for them.

        One that is new, or was not saved, begins anew.
        """
        if self._model._callback is None:
            self._model._waiting = {**(self._model._waiting or {}), "callbacks": dict(state_dict)}
            return
        waiting = list(state_dict["callbacks"])
        for callback in _each(self._model._callback):
            found = next((each for each in waiting if each["kind"] == _kind(callback)), None)
            if found is not None:
                waiting.remove(found)
                _restore_callback(callback, found)
        lost = [each["kind"] for each in waiting if each["saved"] and each["state"].keys() - {"n_calls"}]
        if lost:
            warnings.warn(
                f"The file has the state of {', '.join(lost)}, and no such callback is given now.", stacklevel=2
            )


def require_well_formed(callbacks: Any, records: Any) -> None:
    """Refuse states of callbacks and of records that are none, before anything is restored.

    Raises:
        StateError: Saying which.
    """
    for each in callbacks["callbacks"]:
        saved = each["saved"]
        if type(each["kind"]) is not str or type(saved) is not bool or (saved and not isinstance(each["state"], dict)):
            raise StateError(f"The state of a callback is damaged: {each!r:.200}. Restore the file from a copy.")
    for part, kinds in (("values", (bool, int, float, str)), ("counts", (int,)), ("excluded", (list,))):
        if not all(type(value) in kinds for value in records[part].values()):
            raise StateError(f"The {part} of records that wait are damaged. Restore the file from a copy.")


def callback_resumability(states: Mapping[str, Any]) -> Resumability:
    """What the states of callbacks promise."""
    lost = [each for each in states["callbacks"] if not each["saved"]]
    affecting = [each["kind"] for each in lost if each["affects_training"]]
    reasons = tuple(f"the callback {kind} affects training and has no state_dict()" for kind in affecting)
    return Resumability(Level.WEIGHTS if affecting else Level.EXACT, reasons)


def without_callbacks(states: Mapping[str, Any], problem: str) -> dict[str, Any]:
    """States of callbacks for which a file has no room: only which there were."""
    _log.warning("The states of callbacks have no place in a file and are not saved: %s", problem)
    return {
        "callbacks": [
            {"kind": each["kind"], "saved": False, "affects_training": each["affects_training"], "problem": problem}
            for each in states["callbacks"]
        ]
    }


def not_restored(states: Mapping[str, Any]) -> list[str]:
    """Names of the callbacks whose state is in no file; ours that have none are found in what a run leaves."""
    lost = [each for each in states["callbacks"] if not (each["saved"] or each["kind"].startswith("everlearn."))]
    return [f"{each['kind']} ({each['problem']})" if each["problem"] else each["kind"] for each in lost]


def _each(callback: BaseCallback | None, seen: set[int] | None = None) -> Iterator[BaseCallback]:
    """A callback and those that it calls, as SB3's lists and events do, each once."""
    seen = set() if seen is None else seen
    if not isinstance(callback, BaseCallback) or id(callback) in seen:
        return
    seen.add(id(callback))
    yield callback
    inner: list[Any] = callback.callbacks if isinstance(callback, sb3.CallbackList) else []
    inner = [*inner, callback.callback] if isinstance(callback, sb3.EventCallback) else inner
    inner = [*inner, callback.callback_on_new_best] if isinstance(callback, sb3.EvalCallback) else inner
    for one in inner:
        yield from _each(one, seen)


def _callback_state(callback: BaseCallback) -> dict[str, Any]:
    affects = bool(getattr(callback, "affects_training", False))
    about = {"kind": _kind(callback), "saved": True, "affects_training": affects}
    if type(callback) in _STATELESS:
        about["state"] = {name: getattr(callback, name) for name in _names(callback)}
        evaluation = getattr(callback, "eval_env", None)
        return about if evaluation is None else {**about, "environments": vector_snapshot(evaluation)}
    own, problem = _own_state(callback)
    return {**about, "saved": False, "problem": problem} if own is None else {**about, "state": own}


def _own_state(callback: Any) -> tuple[dict[str, Any] | None, str]:
    """What a callback of a user's says of itself, in plain data, tensors and arrays; None, and why, if nothing."""
    if not _keeps_state(callback):
        return None, ""
    state = callback.state_dict()
    if not isinstance(state, dict):
        return None, "its state_dict() is no dictionary"
    try:
        members_of("callback", state)
    except StateError as error:
        return None, f"its state_dict() has no place in a file: {error}"
    return state, ""


def _keeps_state(callback: Any) -> bool:
    """Whether it has both methods of ``Stateful``; such of the same names with other arguments mean something else."""
    return callable_with(getattr(callback, "state_dict", None), 0) and callable_with(
        getattr(callback, "load_state_dict", None), 1
    )


def _restore_callback(callback: BaseCallback, saved: Mapping[str, Any]) -> None:
    if not saved["saved"]:
        return
    if _keeps_state(callback):
        callback.load_state_dict(saved["state"])  # type: ignore[attr-defined]
        return
    for name in _names(callback):
        if name not in saved["state"]:
            raise StateError(f"The state of {saved['kind']} lacks '{name}'. Load what such a callback has saved.")
        setattr(callback, name, saved["state"][name])
    if "environments" in saved:
        restore_vector(callback.eval_env, saved["environments"])  # type: ignore[attr-defined]


def _names(callback: BaseCallback) -> list[str]:
    names = (name for kind, names in _ATTRIBUTES.items() if isinstance(callback, kind) for name in names)
    return [name for name in names if hasattr(callback, name)]


def _kind(callback: BaseCallback) -> str:
    return f"{type(callback).__module__}.{type(callback).__qualname__}"


_RECORDED = ("name_to_value", "name_to_count", "name_to_excluded")


class PendingRecords:
    """What was recorded and has not been written to the logs yet.

    Args:
        model: Whose.
    """

    attributes = ("_logger",)

    def __init__(self, model: TunableLearner) -> None:
        self._model = model

    def state_dict(self) -> dict[str, Any]:
        """The numbers and texts by key, how many each is the mean of, and which writers leave it out."""
        waiting: dict[str, Any] | None = (self._model._waiting or {}).get("records")
        logger = getattr(self._model, "_logger", None)
        if waiting is not None:
            return waiting
        if logger is None:
            return {"values": {}, "counts": {}, "excluded": {}}
        values, counts, excluded = (getattr(logger, name, {}) for name in _RECORDED)
        numbers = {key: _number(value) for key, value in values.items()}
        kept = {key: value for key, value in numbers.items() if value is not None}
        return {
            "values": kept,
            "counts": {key: counts[key] for key in kept if key in counts},
            "excluded": {key: list(excluded.get(key) or ()) for key in kept},
        }

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        """Record it again, in the logger of now; before ``learn`` has one, it waits for that."""
        logger = getattr(self._model, "_logger", None)
        if logger is None:
            self._model._waiting = {**(self._model._waiting or {}), "records": dict(state_dict)}
            return
        for attribute, part in zip(_RECORDED, ("values", "counts", "excluded"), strict=True):
            if hasattr(logger, attribute):
                getattr(logger, attribute).update(state_dict[part])


def _number(value: Any) -> Any:
    """A plain number or text; None for pictures and histograms, which are left out."""
    if isinstance(value, np.generic | np.ndarray | torch.Tensor):
        value = value.tolist()
    return value if type(value) in (bool, int, float, str) else None
