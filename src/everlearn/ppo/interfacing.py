"""What an environment says of its observations and actions, so that a policy can be used where there is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv

from everlearn.core.errors import StateError
from everlearn.ppo.normalising import NormalisedLearner

ATTRIBUTE = "policy_interface"
"""Of an environment: a dictionary of plain data, with a ``kind``, from which its observations can be made elsewhere."""
_known: WeakKeyDictionary[VecEnv, dict[str, Any] | None] = WeakKeyDictionary()


class InterfacedLearner(NormalisedLearner):
    """A learner whose files hold what its environment says of its observations and actions."""

    _saved_interface: dict[str, Any] | None = None

    @property
    def policy_interface(self) -> dict[str, Any] | None:
        """The environment's attribute ``policy_interface``, or that of a loaded model; None where there is none."""
        venv = self.env
        if venv is None:
            return self._saved_interface
        if venv not in _known:
            _known[venv] = dict(venv.get_attr(ATTRIBUTE)[0]) if venv.has_attr(ATTRIBUTE) else None
        found = _known[venv]
        return self._saved_interface if found is None else found

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Train in another environment from now on, with the same interface where both have one.

        Raises:
            StateError: If its observations or actions mean something else, naming what differs.
        """
        known = self.policy_interface
        venv = self._wrap_env(env, self.verbose)
        if known is not None and venv.has_attr(ATTRIBUTE):
            require_equal(known, dict(venv.get_attr(ATTRIBUTE)[0]))
        super().set_env(venv, force_reset)
        self._saved_interface = known


class InterfaceState:
    """The interface of a model, as a part of its state.

    Args:
        model: Whose.
    """

    attributes = ("_saved_interface",)

    def __init__(self, model: InterfacedLearner) -> None:
        self._model = model

    def state_dict(self) -> dict[str, Any]:
        """The environment's description; empty where it has none."""
        return dict(self._model.policy_interface or {})

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        """Keep it; an environment that is there has to have the same.

        Raises:
            StateError: If it has another.
        """
        if not state_dict:
            return
        present = self._model.policy_interface
        if present is not None:
            require_equal(state_dict, present)
        self._model._saved_interface = dict(state_dict)


def require_equal(trained: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Row 8 of the failure modes: observations of the same shape and another meaning are refused with a diff.

    Raises:
        StateError: Naming what differs.
    """
    names = [name for name in {**trained, **given} if trained.get(name) != given.get(name)]
    if names:
        differences = "; ".join(f"{name} is {given.get(name)!r:.200}, not {trained.get(name)!r:.200}" for name in names)
        raise StateError(
            f"The environment's observations or actions mean something else than those that the policy was trained "
            f"with: {differences}. Make the environment with the model's own policy_interface."
        )
