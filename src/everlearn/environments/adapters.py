"""What is known of simulators: how their state is taken out and put back, by kinds of them."""

from __future__ import annotations

import hashlib
import sys
from abc import ABC, abstractmethod
from typing import Any, final
from weakref import WeakKeyDictionary

import gymnasium
import numpy as np
from gymnasium.utils import EzPickle
from stable_baselines3.common.monitor import Monitor

from everlearn.core.errors import StateError
from everlearn.core.stateful import callable_with
from everlearn.environments.object_state import NotPlain, attributes_of, frozen, set_attributes, thawed

Env = gymnasium.Env[Any, Any]
_NO_STATE: dict[Any, frozenset[str]] = {
    gymnasium.Wrapper: frozenset({"env"}),
    Monitor: frozenset({"results_writer", "t_start", "episode_returns", "episode_lengths", "episode_times"}),
    EzPickle: frozenset({"_ezpickle_args", "_ezpickle_kwargs"}),
}
"""Attributes of classes that are no state: what is wrapped, clocks, growing histories, constructors' arguments."""
_OF_GYMNASIUM = frozenset(
    {
        *("screen", "clock", "surf", "window", "window_surface", "font", "renderer", "isopen", "mujoco_renderer"),
        *("P", "desc", "model", "data", "ale", "_action_set"),
    }
)
"""Attributes of gymnasium's own environments that are pictures, tables, or simulators by other means."""


def left_out(layer: Env) -> set[str]:
    """Names of the attributes of an environment that are no state."""
    names = {name for kind, names in _NO_STATE.items() if isinstance(layer, kind) for name in names}
    return names | (_OF_GYMNASIUM if type(layer).__module__.startswith(("gymnasium.", "ale_py.")) else set())


class Adapter(ABC):
    """The state of one kind of environment or wrapper, without what it is wrapped around."""

    name: str
    """In states."""

    @abstractmethod
    def fits(self, layer: Env) -> bool:
        """Whether it knows such an environment."""

    @abstractmethod
    def snapshot(self, layer: Env) -> Any:
        """Its state, as plain data and arrays.

        Raises:
            NotPlain: If it holds something else.
        """

    @abstractmethod
    def restore(self, layer: Env, state: Any) -> None:
        """Put an equal environment into that state.

        Raises:
            StateError: If it is no equal one.
        """


@final
class OwnMethods(Adapter):
    """An environment, or a wrapper, that has ``get_state()`` and ``set_state(state)``."""

    name = "own"

    def fits(self, layer: Env) -> bool:
        """Whether its class has both, and they can be called so."""
        has_both = all(hasattr(type(layer), method) for method in ("get_state", "set_state"))
        own: Any = layer
        return has_both and callable_with(own.get_state, 0) and callable_with(own.set_state, 1)

    def snapshot(self, layer: Env) -> Any:
        """What it says, and its generators, which need not be in it."""
        own: Any = layer
        try:
            state = own.get_state()
        except NotImplementedError as error:
            raise NotPlain(f"its get_state() is not implemented ({error})") from error
        return {"state": frozen(state, "get_state()"), "generators": generators_of(layer)}

    def restore(self, layer: Env, state: Any) -> None:
        """Tell it what it said."""
        own: Any = layer
        set_attributes(layer, state["generators"])
        own.set_state(thawed(state["state"], None, "set_state()"))


@final
class MujocoState(Adapter):
    """gymnasium's MuJoCo environments: the integration state, and every array whose shape the model decides.

    The integration state alone misses what Ant and Humanoid compute their first reward from.
    """

    name = "mujoco"

    def fits(self, layer: Env) -> bool:
        """Whether it is one; the library is not loaded for it."""
        module = sys.modules.get("gymnasium.envs.mujoco.mujoco_env")
        return module is not None and isinstance(layer, module.MujocoEnv)

    def snapshot(self, layer: Env) -> Any:
        """State, arrays by name, attributes, and whose model it is."""
        import mujoco

        simulator: Any = layer
        model, data = simulator.model, simulator.data
        state = np.empty(mujoco.mj_stateSize(model, _integration()))
        mujoco.mj_getState(model, data, state, _integration())
        digest, names = _model_of(layer)
        arrays = {name: getattr(data, name).copy() for name in names}
        return {
            "model": digest,
            "state": state,
            "arrays": arrays,
            "attributes": attributes_of(layer, _SIMULATOR | left_out(layer)),
        }

    def restore(self, layer: Env, state: Any) -> None:
        """The integration state first: setting it touches arrays."""
        import mujoco

        simulator: Any = layer
        model, data = simulator.model, simulator.data
        digest, names = _model_of(layer)
        if state["model"] != digest:
            raise StateError(f"{layer} has another MuJoCo model than the state. Restore it into an equal environment.")
        mujoco.mj_setState(model, data, state["state"], _integration())
        for name, array in state["arrays"].items():
            if name not in names:
                raise StateError(f"The state has MuJoCo's array '{name}', which this version has not.")
            getattr(data, name)[...] = array
        set_attributes(layer, state["attributes"])


_SIMULATOR = {"model", "data", "mujoco_renderer"}


@final
class AtariState(Adapter):
    """Atari games: the emulator's own copy of its state, with its generator."""

    name = "ale"

    def fits(self, layer: Env) -> bool:
        """Whether it is one; the library is not loaded for it."""
        module = sys.modules.get("ale_py.env")
        return module is not None and isinstance(layer, module.AtariEnv)

    def snapshot(self, layer: Env) -> Any:
        """The emulator's state as bytes, and attributes."""
        game: Any = layer
        (content,) = game.ale.cloneState(include_rng=True).__getstate__()  # serialize() returns no bytes
        attributes = attributes_of(layer, left_out(layer))
        return {"state": np.frombuffer(content, np.uint8).copy(), "attributes": attributes}

    def restore(self, layer: Env, state: Any) -> None:
        """Rebuild the emulator's state from its bytes."""
        from ale_py import ALEState

        game: Any = layer
        kept = ALEState.__new__(ALEState)
        kept.__setstate__((state["state"].tobytes(),))
        game.ale.restoreState(kept)
        set_attributes(layer, state["attributes"])


@final
class PlainAttributes(Adapter):
    """Wrappers, and gymnasium's own small simulators: all there is to them are attributes of plain data."""

    name = "attributes"
    _PLACES = ("gymnasium.envs.classic_control.", "gymnasium.envs.toy_text.", "everlearn.")

    def fits(self, layer: Env) -> bool:
        """Any wrapper, for one that holds something else refuses; of simulators only those that are known."""
        return isinstance(layer, gymnasium.Wrapper) or type(layer).__module__.startswith(self._PLACES)

    def snapshot(self, layer: Env) -> Any:
        """Name to value."""
        return attributes_of(layer, left_out(layer))

    def restore(self, layer: Env, state: Any) -> None:
        """Assign them."""
        set_attributes(layer, state)


ADAPTERS: tuple[Adapter, ...] = (OwnMethods(), MujocoState(), AtariState(), PlainAttributes())
"""In the order in which they are asked."""


def generators_of(layer: Env) -> dict[str, Any]:
    """The generators among the attributes of an environment, as a state of its attributes."""
    kinds = (np.random.Generator, np.random.RandomState, gymnasium.Space)
    return {name: frozen(value, name) for name, value in vars(layer).items() if isinstance(value, kinds)}


def _integration() -> int:
    import mujoco

    return int(mujoco.mjtState.mjSTATE_INTEGRATION)


_models: WeakKeyDictionary[Env, tuple[str, tuple[str, ...]]] = WeakKeyDictionary()


def _model_of(simulator: Any) -> tuple[str, tuple[str, ...]]:
    """The digest of an environment's model, and the names of the arrays of its simulation."""
    import mujoco

    if simulator not in _models:
        content = np.empty(mujoco.mj_sizeModel(simulator.model), np.uint8)
        mujoco.mj_saveModel(simulator.model, None, content)
        fresh = mujoco.MjData(simulator.model)
        _models[simulator] = hashlib.sha256(content.tobytes()).hexdigest(), _fixed_arrays(fresh)
    return _models[simulator]


def _fixed_arrays(fresh: Any) -> tuple[str, ...]:
    """Names of the arrays that have elements before anything has touched or moved."""
    fields = {name: getattr(fresh, name) for name in dir(fresh) if not name.startswith("_")}
    return tuple(name for name, value in fields.items() if _is_own_array(value))


def _is_own_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.size > 0 and value.flags.writeable and value.dtype.kind in "biuf"
