"""An environment whose episode can be repeated: what a state is made of where nobody knows how to take one out."""

from __future__ import annotations

import copy
import hashlib
from typing import Any, SupportsFloat

import gymnasium
import numpy as np

from everlearn.core.errors import StateError
from everlearn.core.rng import GlobalGenerators
from everlearn.environments.adapters import Env, generators_of
from everlearn.environments.object_state import frozen, set_attributes, thawed


class NotRepeated(StateError):  # noqa: N818 - the family has such names
    """An environment did not do again what it had done: it draws from elsewhere, or remembers earlier episodes."""


class Recorded(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Keeps the actions of the running episode, and the generators as they were before it began.

    Args:
        env: The environment, directly inside this.
    """

    def __init__(self, env: Env) -> None:
        super().__init__(env)
        self._before: dict[str, Any] | None = None
        self._reset: dict[str, Any] = {}
        self._actions: list[Any] = []
        self._observation: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        self._before = {"environment": generators_of(self.unwrapped), "global": GlobalGenerators().state_dict()}
        self._reset, self._actions = {"seed": seed, "options": options}, []
        self._observation, info = super().reset(seed=seed, options=options)
        return self._observation, info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take a step."""
        self._actions.append(np.array(action) if isinstance(action, np.ndarray) else copy.deepcopy(action))
        outcome = super().step(action)
        self._observation = outcome[0]
        return outcome

    def recording(self) -> dict[str, Any]:
        """From what the running episode can be repeated.

        Raises:
            StateError: If no episode has begun.
            NotPlain: If an action or an option is something that no state can hold.
        """
        if self._before is None:
            raise StateError("no episode has begun")
        return {
            "before": self._before,
            "reset": frozen(self._reset, "reset"),
            "actions": frozen(self._actions, "actions"),
            "observation": digest_of(self._observation),
            "after": generators_of(self.unwrapped),
        }

    def repeat(self, recording: dict[str, Any]) -> None:
        """Repeat an episode; the global generators are where they were then afterwards, whatever they were before.

        Raises:
            NotRepeated: If it does not lead to the same observation.
        """
        reset, actions = thawed(recording["reset"], None, "reset"), thawed(recording["actions"], None, "actions")
        set_attributes(self.unwrapped, recording["before"]["environment"])
        GlobalGenerators().load_state_dict(recording["before"]["global"])
        self.reset(seed=reset["seed"], options=reset["options"])
        for action in actions:
            self.step(action)
        self._before = recording["before"]
        if digest_of(self._observation) != recording["observation"]:
            raise NotRepeated(f"{self.env} came to another observation when its {len(actions)} actions were repeated")
        set_attributes(self.unwrapped, recording["after"])


def digest_of(observation: Any) -> str:
    """SHA-256 of an observation's numbers, their types and shapes."""
    content = hashlib.sha256()
    _feed(content, observation)
    return content.hexdigest()


def _feed(content: Any, value: Any) -> None:
    if isinstance(value, dict):
        for key in sorted(value, key=repr):
            content.update(repr(key).encode())
            _feed(content, value[key])
    elif isinstance(value, tuple | list):
        for item in value:
            _feed(content, item)
    else:
        array = np.asarray(value)
        content.update(f"{array.dtype.str}{array.shape}".encode())
        content.update(np.ascontiguousarray(array).tobytes())
