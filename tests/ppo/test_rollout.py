"""A rollout: its advantages, the behaviour policy that it shows, its samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import RolloutBufferSamples
from torch import Tensor
from torch.testing import assert_close

from everlearn import PPO, DistributionalPPO
from everlearn.ppo import rollout as rollout_module
from everlearn.ppo.rollout import Rollout, add_step, compute_advantages, read_rollout, recover_behaviour
from everlearn.values import ValueDistribution
from tests.ppo.updates import model_of
from tests.ppo.worlds import Script, scripted, world


class AtRolloutEnd(BaseCallback):
    """Looks at a model whose buffer is full, before it learns."""

    def __init__(self, look: Callable[[PPO], None]) -> None:
        super().__init__()
        self._look = look

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self._look(self.model)


def first_rollout(model: PPO, look: Callable[[PPO], Any]) -> Any:
    """What ``look`` sees of the model at the end of its first rollout."""
    seen: list[Any] = []
    model.learn(model.n_steps * model.n_envs, callback=AtRolloutEnd(lambda model: seen.append(look(model))))
    return seen[0]


# --- advantages -------------------------------------------------------------------------------------------------------

MIXED: Script = [
    (1.0, "goes on"),
    (-2.0, "goes on"),
    (0.5, "runs out of time"),
    (3.0, "goes on"),
    (1.0, "terminates"),
    (-1.0, "runs out of time"),
    (2.0, "goes on"),
]


def observation_at(step: int) -> Tensor:
    return torch.tensor([[np.sin(step), np.cos(step)]], dtype=torch.float32)


def advantages_by_definition(
    script: Script, value: Callable[[int], float], n_steps: int, gamma: float, gae_lambda: float
) -> list[float]:
    """``A_t = sum_k (gamma*lambda)^k * delta_(t+k)`` up to the end of the episode or rollout, slowly."""
    advantages = []
    for start in range(n_steps):
        advantage, weight = 0.0, 1.0
        for step in range(start, n_steps):
            reward, ending = script[step % len(script)]
            following = 0.0 if ending == "terminates" else gamma * value(step + 1)
            advantage += weight * (reward + following - value(step))
            weight *= gamma * gae_lambda
            if ending != "goes on":
                break
        advantages.append(advantage)
    return advantages


def truncated_by_hand(distributions: Sequence[ValueDistribution]) -> Tensor:
    pooled = torch.cat([distribution.quantiles for distribution in distributions], -1).sort(-1).values
    return pooled[:, :12].mean(-1)  # of 16


BY_HAND: dict[str, tuple[Any, Callable[[Sequence[ValueDistribution]], Tensor]]] = {
    "mean": ("mean", lambda two: (two[0].mean + two[1].mean) / 2),
    "min": ("min", lambda two: torch.minimum(two[0].mean, two[1].mean)),
    "lcb": (
        {"kind": "lcb", "c": 3.0},
        lambda two: (two[0].mean + two[1].mean - 3 * (two[0].mean - two[1].mean).abs()) / 2,
    ),
    "truncated": ({"kind": "truncated", "fraction": 0.25}, truncated_by_hand),
}


def values_by_hand(model: PPO, reduction: str, n_steps: int) -> list[float]:
    """Of the observations 0 to n_steps, in reward units."""
    _, reduce = BY_HAND[reduction]
    with torch.no_grad():
        distributions = model.policy.predict_distributions(torch.cat([observation_at(t) for t in range(n_steps + 1)]))
    return [2.0 + 5.0 * value for value in reduce(distributions).tolist()]


@pytest.mark.parametrize("reduction", BY_HAND)
def test_b23_advantages_bootstraps_and_logs_use_the_declared_reduction(reduction: str) -> None:
    """B23."""
    model = DistributionalPPO(
        "MlpPolicy",
        scripted(MIXED),
        n_steps=18,
        batch_size=18,
        gamma=0.9,
        gae_lambda=0.8,
        value_head={"kind": "quantile", "n_quantiles": 8},
        critic_reduction=BY_HAND[reduction][0],
        seed=1,
        device="cpu",
    )
    model.policy.return_scale.mean.fill_(2.0)
    model.policy.return_scale.std.fill_(5.0)

    def look(model: PPO) -> tuple[list[float], np.ndarray, np.ndarray, np.ndarray]:
        buffer = model.rollout_buffer
        arrays = (buffer.values, buffer.advantages, buffer.returns)
        return values_by_hand(model, reduction, 18), *(array.flatten() for array in arrays)

    expected, values, advantages, returns = first_rollout(model, look)
    assert values == pytest.approx(expected[:-1], rel=1e-5)
    by_definition = advantages_by_definition(MIXED, expected.__getitem__, 18, 0.9, 0.8)
    assert advantages == pytest.approx(by_definition, rel=1e-4, abs=1e-4)
    assert returns == pytest.approx(advantages + values)
    explained = 1 - np.var(returns - np.array(expected[:-1])) / np.var(returns)
    assert model.logger.name_to_value["train/explained_variance"] == pytest.approx(explained, rel=1e-4)


@pytest.mark.parametrize("reduction", ["mean", "min"])
def test_b23_the_logged_value_is_the_declared_reduction(reduction: str) -> None:
    """B23."""
    model = model_of("pendulum", critic_reduction=reduction)
    observations = first_rollout(model, lambda model: read_rollout(model.rollout_buffer, model.action_space)).samples
    distributions = model.policy.predict_distributions(observations.observations)
    scale = model.policy.return_scale
    expected = scale.denormalize(BY_HAND[reduction][1](distributions)).mean().item()
    assert model.logger.name_to_value["critics/value_mean"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("ending", "expected"),
    [("runs out of time", [-1.0, 2.0]), ("terminates", [-3.0, 2.0]), ("goes on", [-0.2, 2.0])],
)
def test_truncation_adds_the_discounted_value_and_cuts_the_recursion(ending: str, expected: list[float]) -> None:
    script = [(1.0, ending), (4.0, "goes on")]
    model = PPO(
        "MlpPolicy", scripted(script), n_steps=2, batch_size=2, gamma=0.5, gae_lambda=0.8, n_epochs=1, device="cpu"
    )
    with torch.no_grad():
        model.policy.value_net.weight.zero_()
        model.policy.value_net.bias.fill_(4.0)
    advantages = first_rollout(model, lambda model: model.rollout_buffer.advantages.flatten().copy())
    assert advantages == pytest.approx(expected)


def random_buffer(seed: int, kind: type[RolloutBuffer] = RolloutBuffer, **arguments: Any) -> RolloutBuffer:
    """A full buffer of random steps, whose episodes end now and then."""
    rng = np.random.default_rng(seed)
    steps, environments = int(rng.integers(1, 12)), int(rng.integers(1, 5))
    space = spaces.Box(-1, 1, (2,))
    settings = {"gamma": float(rng.random()), "gae_lambda": float(rng.random()), **arguments}
    buffer = kind(steps, space, space, "cpu", n_envs=environments, **settings)
    for name in ("rewards", "values"):
        setattr(buffer, name, rng.normal(size=(steps, environments)).astype(np.float32))
    buffer.episode_starts = (rng.random((steps, environments)) < 0.2).astype(np.float32)
    return buffer


def both_advantages(seed: int, last_values: Callable[[int], Tensor], **arguments: Any) -> list[RolloutBuffer]:
    """Ours, then SB3's."""
    buffers = [random_buffer(seed, **arguments) for _ in range(2)]
    values = last_values(buffers[0].n_envs)
    dones = np.random.default_rng(seed).random(buffers[0].n_envs) < 0.5
    compute_advantages(buffers[0], values, dones)
    buffers[1].compute_returns_and_advantage(values, dones)
    return buffers


@pytest.mark.parametrize("arguments", [{}, {"gamma": 1.0, "gae_lambda": 1.0}, {"gamma": np.float64(0.99)}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_advantages_and_returns_have_the_bits_of_sb3s(arguments: dict[str, Any], dtype: torch.dtype) -> None:
    for seed in range(40):
        mine, theirs = both_advantages(
            seed, lambda count: torch.linspace(-1, 2, count, dtype=dtype)[:, None], **arguments
        )
        assert mine.advantages.tobytes() == theirs.advantages.tobytes()
        assert mine.returns.tobytes() == theirs.returns.tobytes()
        assert mine.returns.dtype == theirs.returns.dtype


class OwnAdvantages(RolloutBuffer):
    """A user's buffer, with advantages of its own."""

    def compute_returns_and_advantage(self, last_values: Tensor, dones: np.ndarray) -> None:
        self.advantages[:] = 5.0


def test_a_buffers_own_advantages_are_used() -> None:
    mine, _ = both_advantages(0, lambda count: torch.zeros(count, 1), kind=OwnAdvantages)
    assert (mine.advantages == 5.0).all()
    replaced = random_buffer(0)
    replaced.compute_returns_and_advantage = lambda last_values, dones: None
    compute_advantages(replaced, torch.zeros(replaced.n_envs, 1), np.zeros(replaced.n_envs, bool))
    assert (replaced.advantages == 0.0).all()


# --- filling the buffer -----------------------------------------------------------------------------------------------

OBSERVATIONS: dict[str, tuple[type[RolloutBuffer], spaces.Space[Any]]] = {
    "vectors": (RolloutBuffer, spaces.Box(-1, 1, (3,), np.float32)),
    "images": (RolloutBuffer, spaces.Box(0, 255, (1, 4, 4), np.uint8)),
    "numbers": (RolloutBuffer, spaces.Discrete(5)),
    "dictionaries": (DictRolloutBuffer, spaces.Dict({"a": spaces.Box(-1, 1, (3,)), "b": spaces.Discrete(3)})),
}
ACTIONS = [spaces.Discrete(4), spaces.Box(-1, 1, (2, 2)), spaces.MultiDiscrete([3, 2]), spaces.MultiBinary(3)]


def random_step(buffer: RolloutBuffer, seed: int) -> tuple[Any, ...]:
    """What the collection adds."""
    rng, count = np.random.default_rng(seed), buffer.n_envs
    batched = batch_space(buffer.observation_space, count)
    batched.seed(seed)
    actions = batch_space(buffer.action_space, count)
    actions.seed(seed)
    rewards, starts = rng.normal(size=count).astype(np.float32), rng.random(count) < 0.5
    values, log_probs = torch.as_tensor(rng.normal(size=(2, count)), dtype=torch.float32)
    return batched.sample(), actions.sample(), rewards, starts, values[:, None], log_probs


@pytest.mark.parametrize("action_space", ACTIONS, ids=str)
@pytest.mark.parametrize("kind", OBSERVATIONS)
def test_a_step_is_added_as_the_buffer_would(kind: str, action_space: spaces.Space[Any]) -> None:
    buffer_class, space = OBSERVATIONS[kind]
    mine, theirs = (buffer_class(3, space, action_space, "cpu", n_envs=2) for _ in range(2))
    for seed in range(3):
        step = random_step(mine, seed)
        add_step(mine, step)
        theirs.add(*step)
        assert (mine.pos, mine.full) == (theirs.pos, theirs.full)
        step[2][:] = 77.0  # what a caller does with its arrays later is nothing to the buffer
    for name in ("observations", "actions", "rewards", "episode_starts", "values", "log_probs"):
        np.testing.assert_equal(getattr(mine, name), getattr(theirs, name))


def test_a_buffers_own_way_to_add_is_used() -> None:
    class Counting(RolloutBuffer):
        def add(self, *args: Any) -> None:
            self.added = len(args)

    space = spaces.Box(-1, 1, (3,), np.float32)
    buffer = Counting(3, space, space, "cpu")
    add_step(buffer, random_step(buffer, 0))
    assert buffer.added == 6
    replaced = RolloutBuffer(3, space, space, "cpu")
    replaced.add = lambda *args: None
    add_step(replaced, random_step(replaced, 0))
    assert replaced.pos == 0


# --- the behaviour policy ---------------------------------------------------------------------------------------------

KINDS: dict[str, dict[str, Any]] = {
    "discrete": {},
    "continuous": {"place": "pendulum"},
    "gSDE": {"place": "pendulum", "use_sde": True, "sde_sample_freq": 4},
    "squashed gSDE": {"place": "pendulum", "use_sde": True, "policy_kwargs": {"squash_output": True}},
    "images": {"place": "images", "policy": "CnnPolicy"},
    "dictionaries": {"place": "dictionaries", "policy": "MultiInputPolicy"},
    "several numbers": {"place": "several numbers"},
    "scalar": {"algorithm": PPO, "place": "pendulum"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_b24_log_probabilities_and_values_of_the_rollout_are_reproduced(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B24."""
    monkeypatch.setattr(rollout_module, "CHUNK", 13)  # the last chunk is a short one
    model = model_of(**KINDS[kind])
    model.learn(32)  # so that critics have a unit, and weights are not the first

    def look(model: PPO) -> tuple[Rollout, Any]:
        rollout = read_rollout(model.rollout_buffer, model.action_space)
        return rollout, recover_behaviour(model.evaluator, rollout)

    rollout, behaviour = first_rollout(model, look)
    assert_close(behaviour.log_prob, rollout.samples.old_log_prob, rtol=1e-5, atol=1e-5)
    assert_close(behaviour.value, rollout.values, rtol=1e-4, atol=1e-4)
    assert behaviour.means.shape == (32, model.n_critics)
    logged = model.logger.name_to_value
    assert logged["train/behaviour_log_prob_error"] < 1e-4
    assert logged["train/behaviour_value_error"] < 1e-4


@pytest.mark.parametrize("layer", ["action_net", "value_net"])
def test_b24_a_policy_that_changed_during_the_rollout_is_noticed_once(layer: str) -> None:
    """B24."""

    class Meddling(BaseCallback):
        def _on_step(self) -> bool:
            with torch.no_grad():
                getattr(self.model.policy, layer).bias[0].add_(0.05)
            return True

    model = model_of("cartpole", algorithm=PPO)
    with pytest.warns(UserWarning, match="the first ratios are not 1") as caught:
        model.learn(64, callback=Meddling())
    assert len(caught) == 1, "in two rollouts"
    error = {"action_net": "log_prob", "value_net": "value"}[layer]
    assert model.logger.name_to_value[f"train/behaviour_{error}_error"] > 1e-2


# --- reading the buffer -----------------------------------------------------------------------------------------------


class Doubling(RolloutBuffer):
    """A user's buffer, which hands out its advantages times a factor."""

    def __init__(self, *args: Any, factor: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.factor = factor

    def _get_samples(self, batch_inds: np.ndarray, env: Any = None) -> RolloutBufferSamples:
        samples = super()._get_samples(batch_inds, env)
        return samples._replace(advantages=samples.advantages * self.factor)


def flattened(array: np.ndarray) -> Tensor:
    """(steps, environments, ...) as (environments * steps, ...)."""
    return torch.as_tensor(array.swapaxes(0, 1).reshape(-1, *array.shape[2:]).copy())


def test_a_rollout_is_read_in_the_buffers_order_and_no_generator_advances() -> None:
    own = {"rollout_buffer_class": Doubling, "rollout_buffer_kwargs": {"factor": 2.0}}
    model = PPO("MlpPolicy", world("cartpole", 2), n_steps=8, batch_size=8, n_epochs=1, device="cpu", **own)

    def look(model: PPO) -> None:
        buffer = model.rollout_buffer
        expected = {
            name: flattened(getattr(buffer, name))
            for name in ("observations", "actions", "log_probs", "advantages", "returns", "values")
        }
        before = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
        rollout = read_rollout(buffer, model.action_space)
        assert (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before
        samples = rollout.samples
        assert torch.equal(samples.observations, expected["observations"])
        assert torch.equal(samples.actions, expected["actions"].long().flatten())
        assert torch.equal(samples.old_log_prob, expected["log_probs"])
        assert torch.equal(samples.advantages, 2 * expected["advantages"])
        assert torch.equal(rollout.raw_returns, expected["returns"])
        assert torch.equal(rollout.values, expected["values"])
        assert torch.equal(samples.old_values, expected["values"].unsqueeze(1))

    first_rollout(model, look)


def test_minibatches_are_numpys_permutation_of_dictionaries_too() -> None:
    model = model_of("dictionaries", policy="MultiInputPolicy", n_steps=20, batch_size=20, n_epochs=1)
    rollout = first_rollout(model, lambda model: read_rollout(model.rollout_buffer, model.action_space))
    np.random.seed(5)
    order = torch.as_tensor(np.random.permutation(20))
    np.random.seed(5)
    minibatches = [rollout.samples.rows(rows) for rows in rollout.batches(8)]
    assert [len(minibatch.returns) for minibatch in minibatches] == [8, 8, 4]
    for key, values in rollout.samples.observations.items():
        assert torch.equal(torch.cat([minibatch.observations[key] for minibatch in minibatches]), values[order])
    for field in range(1, 6):
        assert torch.equal(torch.cat([minibatch[field] for minibatch in minibatches]), rollout.samples[field][order])
