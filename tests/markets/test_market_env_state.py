"""A market goes on from its state as if nothing had happened."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv

from everlearn import DistributionalPPO
from everlearn.checkpoint.archive import pack, read_archive
from everlearn.checkpoint.codec import members_of, state_of
from everlearn.checkpoint.limits import LIMITS
from everlearn.core.digest import digest
from everlearn.core.errors import StateError
from everlearn.core.resume_level import Level
from everlearn.environments import snapshots
from everlearn.markets import MarketEnv, RegimePrices

ACCOUNT = ("position", "bars_held", "open_return")
PRICES = RegimePrices(bars=60, symbols=2).prices()
SPEC = {"features": ["return_1", "momentum_8"], "window": 3, "account": [*ACCOUNT]}


def monitored(**options: Any) -> gymnasium.Env[Any, Any]:
    return Monitor(MarketEnv(PRICES, SPEC, episode_bars=9, reward="differential_sharpe", **options))


def walked(env: gymnasium.Env[Any, Any], steps: int) -> list[Any]:
    """What it answers to actions of its space's generator, through ends of episodes."""
    found: list[Any] = []
    for _ in range(steps):
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
        found.append((observation.tobytes(), reward, terminated, truncated, info["symbol"], info["bar"]))
        if terminated or truncated:
            found.append(env.reset()[0].tobytes())
    return found


@pytest.mark.parametrize("positions", ["continuous", "discrete"])
@pytest.mark.parametrize("taken", [0, 5, 9, 31])
def test_an_equal_environment_goes_on_from_the_snapshot_of_another(positions: str, taken: int) -> None:
    first, second = monitored(positions=positions), monitored(positions=positions)
    for seed, env in enumerate((first, second)):
        env.reset(seed=seed)
        env.action_space.seed(seed)
    walked(first, taken)
    state = snapshots.snapshot(first)
    assert (state["level"], state["reasons"]) == (Level.EXACT, [])
    file = io.BytesIO(b"".join(pack(members_of("state", state), {"kind": "test"})))
    assert snapshots.restore(second, state_of(read_archive(file), "state", LIMITS))
    assert walked(first, 40) == walked(second, 40)


def stepped(env: MarketEnv, *targets: float) -> list[tuple[bytes, float]]:
    """Observations and rewards of steps with these targets."""
    outcomes = [env.step(np.array([target], np.float32)) for target in targets]
    return [(outcome[0].tobytes(), outcome[1]) for outcome in outcomes]


def test_the_state_is_plain_data_and_no_part_of_the_environment() -> None:
    first, second = (MarketEnv(PRICES, SPEC, reward="differential_sharpe") for _ in range(2))
    first.reset(options={"symbol": "S1", "bar": 7})
    stepped(first, 0.5, 0.7)
    state = json.loads(json.dumps(first.get_state()))
    expected = stepped(first, 0.9, -0.3)
    second.set_state(state)
    assert stepped(second, 0.9, -0.3) == expected


@pytest.mark.parametrize("smaller", [PRICES.head(60), PRICES.head(119)])
def test_a_state_of_a_larger_table_is_refused(smaller: Any) -> None:
    first, second = (MarketEnv(table, {"features": ["return_1"]}) for table in (PRICES, smaller))
    first.reset(options={"symbol": "S1", "bar": 0})
    with pytest.raises(StateError, match="of a table with more bars or symbols"):
        second.set_state(first.get_state())
    first.set_state(first.get_state())
    assert second.get_state()["steps_left"] == 0
    assert second.reset(seed=0)[1]["bar"] == 0


class SavedAt(BaseCallback):
    """Saves the model in the middle of a rollout."""

    affects_training = False

    def __init__(self, step: int, path: Path) -> None:
        super().__init__()
        self.step, self.path = step, path

    def _on_step(self) -> bool:
        if self.num_timesteps == self.step:
            self.model.save(self.path)
        return True


def venv(make: Callable[[], gymnasium.Env[Any, Any]] = monitored) -> VecEnv:
    return make_vec_env(make, 2, seed=5)


def test_a_training_in_a_market_resumes_exactly(tmp_path: Path) -> None:
    options = {"n_steps": 16, "batch_size": 16, "n_epochs": 2, "policy_kwargs": {"net_arch": [8]}, "compile": False}
    straight = DistributionalPPO("MlpPolicy", venv(), seed=1, device="cpu", **options)
    straight.learn(160, SavedAt(84, tmp_path / "model"))
    resumed = DistributionalPPO.resume(tmp_path / "model", venv(), require="exact")
    assert resumed.resumed is not None
    assert (resumed.resumed.level, resumed.num_timesteps) == (Level.EXACT, 64)
    resumed.continue_learning()
    assert digest(resumed.get_parameters()) == digest(straight.get_parameters())
