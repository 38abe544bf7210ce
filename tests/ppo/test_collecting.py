"""Collecting: what is not finite is refused, callbacks see what SB3's do, and an actor may act for the policy."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import stable_baselines3
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.envs import SimpleMultiObsEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize
from torch import Tensor
from torch.testing import assert_close

from everlearn import PPO, DistributionalPPO
from everlearn.core.errors import NonFiniteError
from everlearn.environments.finite import FiniteVecEnv
from everlearn.environments.normaliser import Normaliser
from everlearn.ppo.acting import Actor, actor_for
from tests.ppo.updates import assert_identical, learned, model_of
from tests.ppo.worlds import Script, Scripted, scripted

# --- what is not finite -----------------------------------------------------------------------------------------------

GOOD: Script = [(1.0, "goes on")]
LATE: Script = [(1.0, "goes on"), (1.0, "goes on"), (1.0, "runs out of time")]


class LostVector(SimpleMultiObsEnv):
    """Its vector is infinite from the third step on."""

    def get_state_mapping(self) -> dict[str, np.ndarray]:
        mapping = super().get_state_mapping()
        return {**mapping, "vec": mapping["vec"] * np.inf} if self.count >= 3 else mapping


def bad_worlds() -> dict[str, tuple[VecEnv, str]]:
    nan_reward = [(1.0, "goes on"), (1.0, "goes on"), (np.nan, "goes on")]
    infinite_reward = [(1.0, "goes on"), (-np.inf, "terminates")]
    return {
        "reward NaN": (scripted(GOOD, nan_reward), r"Environment 1 .*reward at its step 3: nan"),
        "reward infinite": (scripted(infinite_reward), r"Environment 0 .*reward at its step 2: -inf"),
        "reward before a normaliser spreads it": (
            VecNormalize(scripted(GOOD, nan_reward)),
            r"Environment 1 .*reward at its step 3: nan",
        ),
        "reward before a normaliser clips it": (
            VecNormalize(scripted(GOOD, infinite_reward)),
            r"Environment 1 .*reward at its step 2: -inf",
        ),
        "observation": (
            DummyVecEnv([lambda: Scripted(GOOD), lambda: Scripted(GOOD, bad_observation_at=4)]),
            r"Environment 1 .* non-finite observation at its step 4: ",
        ),
        "first observation": (
            DummyVecEnv([lambda: Scripted(GOOD), lambda: Scripted(GOOD, bad_observation_at=0)]),
            r"Environment 1 .* non-finite observation at its step 0: ",
        ),
        "reward, at a gate": (
            FiniteVecEnv([lambda: Scripted(GOOD), lambda: Scripted(nan_reward)]),
            r"Environment 1 .*reward at its step 3: nan",
        ),
        "observation, at a gate with a normaliser": (
            Normaliser(DummyVecEnv([lambda: Scripted(GOOD, bad_observation_at=4)])),
            r"Environment 0 .* non-finite observation at its step 4: ",
        ),
        "terminal observation": (
            DummyVecEnv([lambda: Scripted(LATE)] * 2 + [lambda: Scripted(LATE, bad_observation_at=3)]),
            r"Environment 2 .* non-finite terminal observation at its step 3: ",
        ),
        "a part of the observation": (
            DummyVecEnv([LostVector]),
            r"Environment 0 .*observation 'vec' at its step 3: ",
        ),
    }


@pytest.mark.parametrize("case", bad_worlds())
def test_what_is_not_finite_is_refused_with_environment_and_step_and_nothing_is_learned(case: str) -> None:
    environment, message = bad_worlds()[case]
    policy = "MultiInputPolicy" if isinstance(environment.observation_space, spaces.Dict) else "MlpPolicy"
    model = DistributionalPPO(policy, environment, n_steps=16, batch_size=16, device="cpu")
    before = learned(model)
    with np.errstate(invalid="ignore"), pytest.raises(NonFiniteError, match=message):
        model.learn(64)
    assert_identical(learned(model), before)


# --- callbacks --------------------------------------------------------------------------------------------------------


class NamesSeen(BaseCallback):
    """The local names at each event, and what some of them hold at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[str, set[str]] = {}
        self.steps: list[tuple[int, list[float], list[bool]]] = []

    def _on_training_start(self) -> None:
        self.names["training start"] = set(self.locals)

    def _on_step(self) -> bool:
        self.names["step"] = set(self.locals)
        self.steps.append((self.locals["n_steps"], self.locals["rewards"].tolist(), self.locals["dones"].tolist()))
        return True

    def _on_rollout_end(self) -> None:
        self.names["rollout end"] = set(self.locals)


LEFT_OVER = {"idx", "done", "terminal_obs", "terminal_value", "__class__"}
"""Of a loop in SB3 that has ended by then."""


def test_callbacks_find_sb3s_local_names_and_values() -> None:
    expected, found = NamesSeen(), NamesSeen()
    for algorithm, callback in ((stable_baselines3.PPO, expected), (PPO, found)):
        venv = scripted([(float(step), "terminates" if step == 5 else "goes on") for step in range(7)])
        algorithm("MlpPolicy", venv, n_steps=8, batch_size=8, n_epochs=1, device="cpu").learn(16, callback)
    assert {"actions", "rewards", "dones", "infos", "obs_tensor", "values", "log_probs"} <= expected.names["step"]
    missing = {event: names - found.names[event] - LEFT_OVER for event, names in expected.names.items()}
    assert missing == {"training start": set(), "step": set(), "rollout end": set()}
    assert found.steps == expected.steps


def test_a_callback_that_returns_false_ends_training_before_anything_is_learned() -> None:
    class Stop(BaseCallback):
        def _on_step(self) -> bool:
            return self.num_timesteps < 5

    model = model_of()
    before = learned(model)
    model.learn(64, callback=Stop())
    assert model.num_timesteps == 5
    assert_identical(learned(model), before)


# --- an actor in the policy's place -----------------------------------------------------------------------------------


def counted(model: PPO, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Give the model an actor; how many observations it has had at each call."""
    calls: list[int] = []
    act = Actor.__call__

    def count(actor: Actor, observations: np.ndarray) -> Any:
        calls.append(len(observations))
        return act(actor, observations)

    monkeypatch.setattr(Actor, "__call__", count)
    space = model.observation_space
    model._actor = actor_for(model.policy, np.zeros((model.n_envs, *space.shape), space.dtype))
    assert model._actor is not None
    monkeypatch.setattr(model, "_fast_actor", lambda: model._actor)
    return calls


class Buffers(BaseCallback):
    """The buffer and torch's generator after each rollout, and what the locals hold at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.buffers: list[dict[str, Tensor]] = []
        self.generators: list[Tensor] = []
        self.locals_seen: list[dict[str, type]] = []

    def _on_step(self) -> bool:
        self.locals_seen.append({name: type(value) for name, value in self.locals.items() if name != "actor"})
        return True

    def _on_rollout_end(self) -> None:
        names = ("observations", "actions", "rewards", "values", "log_probs", "advantages", "returns")
        buffer = self.model.rollout_buffer
        self.buffers.append({name: torch.as_tensor(getattr(buffer, name).copy()) for name in names})
        self.generators.append(torch.get_rng_state())


@pytest.mark.parametrize("algorithm", [PPO, DistributionalPPO])
@pytest.mark.parametrize("place", ["cartpole", "pendulum", "scripted, several numbers", "scripted, switches"])
def test_an_actor_collects_what_the_policy_collects_and_draws_what_it_draws(
    algorithm: type[PPO], place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, calls = [], []
    for has_actor in (False, True):
        model = model_of(place, algorithm=algorithm, learning_rate=0.0)  # else rounding would grow from there on
        if has_actor:
            calls = counted(model, monkeypatch)
        seen.append(Buffers())
        model.learn(64, callback=seen[-1])
    assert calls == [1] * 64
    for one, other in zip(seen[0].buffers, seen[1].buffers, strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-4)
    for one, other in zip(seen[0].generators, seen[1].generators, strict=True):
        assert torch.equal(one, other)
    assert seen[0].locals_seen == seen[1].locals_seen


def test_an_actor_learns_on_with_the_policys_new_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("pendulum")
    counted(model, monkeypatch)
    model.learn(32)
    model.policy.load_state_dict(deepcopy(model.policy.state_dict()), assign=True)
    model.policy.optimizer = model.policy._make_optimizer(1e-3)
    model.learn(64)
    assert model.logger.name_to_value["train/behaviour_log_prob_error"] < 1e-4
    assert model.logger.name_to_value["train/behaviour_value_error"] < 1e-4


def test_an_actor_stands_aside_where_it_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of()
    calls = counted(model, monkeypatch)
    model.policy.value_net.register_forward_hook(lambda *_: None)
    model.learn(32)
    assert calls == []


def test_an_actor_of_another_policy_does_not_act(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of()
    calls = counted(model, monkeypatch)
    model.policy = deepcopy(model.policy)
    with torch.no_grad():
        model.collect_rollouts(model.env, model._setup_learn(64)[1], model.rollout_buffer, 4)
    assert calls == []
