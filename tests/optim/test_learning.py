import copy
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from stable_baselines3 import PPO, SAC
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from everlearn.optim import UPGD, UPGDW, AdaptiveUPGD
from everlearn.testing.optimizers import all_finite, random_parameters, same, take_steps, values

FAMILY = [UPGD, AdaptiveUPGD, UPGDW]


class Regression:
    """A small network that learns a wave of four inputs."""

    def __init__(self, seed: int = 0, batch: int = 64) -> None:
        torch.manual_seed(seed)
        self.inputs = torch.randn(batch, 4)
        self.targets = torch.sin(self.inputs.sum(-1, keepdim=True))
        self.network = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 1))

    def loss(self) -> Tensor:
        return nn.functional.mse_loss(self.network(self.inputs), self.targets)

    def learn(self, optimizer: Optimizer, steps: int) -> float:
        for _ in range(steps):
            optimizer.zero_grad()
            self.loss().backward()
            optimizer.step()
        return self.loss().item()


# --- long runs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FAMILY)
@pytest.mark.parametrize("adaptive_noise", [False, True])
def test_b15_two_hundred_steps_with_much_noise_stay_finite(kind, adaptive_noise):
    """B15."""
    optimizer = kind(random_parameters((8, 8), (8,)), lr=0.1, sigma=1.0, adaptive_noise=adaptive_noise)
    take_steps(optimizer, range(200))
    assert all_finite(optimizer)


@pytest.mark.parametrize(
    "kind", [AdaptiveUPGD, pytest.param(UPGD, marks=pytest.mark.slow), pytest.param(UPGDW, marks=pytest.mark.slow)]
)
def test_b15_five_thousand_steps_of_training_stay_finite(kind):
    """B15: also where nothing is left to learn and utilities fade."""
    task = Regression(batch=8)
    optimizer = kind(task.network.parameters(), lr=0.03, adaptive_noise=True, noise="table")
    assert task.learn(optimizer, 5_000) < 0.05
    assert all_finite(optimizer)


@pytest.mark.parametrize("kind", FAMILY)
def test_b40_a_batch_of_one_is_enough(kind):
    """B40."""
    task = Regression(batch=1)
    optimizer = kind(task.network.parameters(), lr=0.01)
    before = task.loss().item()
    assert task.learn(optimizer, 50) < before
    assert all_finite(optimizer)


@pytest.mark.parametrize(
    ("kind", "base", "steps"),
    [
        (AdaptiveUPGD, lambda params: AdamW(params, lr=0.01, weight_decay=0.001), 200),
        (UPGDW, lambda params: AdamW(params, lr=0.01), 200),
        (UPGD, lambda params: SGD(params, lr=0.1), 600),
    ],
)
def test_b42_it_learns_a_regression_as_fast_as_its_base_optimizer(kind, base: Callable[..., Optimizer], steps):
    """B42: within ten percent of the loss, over three seeds."""

    def mean_loss(make: Callable[..., Optimizer]) -> float:
        tasks = [Regression(seed) for seed in range(3)]
        return sum(task.learn(make(task.network.parameters()), steps) for task in tasks) / len(tasks)

    reached = mean_loss(base)
    assert reached < 0.02
    assert mean_loss(lambda params: kind(params, lr=0.1 if kind is UPGD else 0.01)) < 1.1 * reached


# --- mixed precision -----------------------------------------------------------------------------------------------


def learn_mixed(task: Regression, optimizer: Optimizer, spoilt: set[int], steps: int = 6) -> Iterator[None]:
    """The loop of torch's documentation; the loss overflows in the spoilt steps."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for step in range(steps):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = task.loss()
        scaler.scale(loss * torch.inf if step in spoilt else loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(task.network.parameters(), 0.5)
        scaler.step(optimizer)
        scaler.update()
        yield


@pytest.mark.parametrize("kind", FAMILY)
def test_b39_a_step_that_the_gradient_scaler_skips_leaves_everything_untouched(kind):
    """B39: parameters, averages and the stream of noise."""
    task = Regression()
    optimizer = kind(task.network.parameters(), lr=0.01)
    start = values(optimizer), optimizer.state_dict()
    loop = learn_mixed(task, optimizer, spoilt={2, 3})
    snapshots = [start, *((values(optimizer), optimizer.state_dict()) for _ in loop)]
    changed = [not same(before, after) for before, after in pairwise(snapshots)]
    assert changed == [True, True, False, False, True, True]
    assert all_finite(optimizer)


@pytest.mark.parametrize("kind", FAMILY)
def test_b39_the_loss_scale_does_not_reach_the_utilities(kind):
    """B39: a loop with skipped steps, after which the scale is another one, ends where one without them does."""
    states = []
    for spoilt, steps in (({1, 3}, 6), (set(), 4)):
        task = Regression()
        optimizer = kind(task.network.parameters(), lr=0.01, seed=0)
        for _ in learn_mixed(task, optimizer, spoilt, steps):
            pass
        states.append((values(optimizer), optimizer.state_dict()["state"]))
    assert same(*states)


# --- in other people's algorithms ----------------------------------------------------------------------------------

SMALL = {"net_arch": [16, 16]}
ALGORITHMS: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "PPO": (PPO, "CartPole-v1", {"n_steps": 64, "batch_size": 32, "n_epochs": 2}),
    "SAC": (SAC, "Pendulum-v1", {"learning_starts": 20, "batch_size": 16, "buffer_size": 100}),
}


def optimizers_of(model: Any) -> list[Optimizer]:
    policy = model.policy
    return [policy.optimizer] if isinstance(model, PPO) else [policy.actor.optimizer, policy.critic.optimizer]


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("kind", FAMILY)
def test_it_trains_the_algorithms_of_sb3_which_save_and_load_it(name, kind, tmp_path):
    algorithm, environment, arguments = ALGORITHMS[name]
    policy_kwargs = {**SMALL, "optimizer_class": kind, "optimizer_kwargs": {"sigma": 0.01, "adaptive_noise": True}}
    model = algorithm("MlpPolicy", environment, policy_kwargs=policy_kwargs, seed=0, device="cpu", **arguments)
    before = copy.deepcopy(model.policy.state_dict())
    model.learn(128 if name == "PPO" else 30)
    assert not same(model.policy.state_dict(), before)
    assert all(type(optimizer) is kind and all_finite(optimizer) for optimizer in optimizers_of(model))

    model.save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model", device="cpu")
    pairs = list(zip(optimizers_of(loaded), optimizers_of(model), strict=True))
    assert all(same(left.state_dict(), right.state_dict()) for left, right in pairs)
    for left, right in pairs:
        for optimizer in (left, right):
            take_steps(optimizer, range(2))
        assert same(values(left), values(right))


@pytest.mark.parametrize(("schedule", "moves"), [(1e-3, True), (lambda _: 1e-3, True), (lambda _: 0.0, False)])
def test_the_learning_rate_of_sb3_is_in_force(schedule, moves):
    policy_kwargs = {**SMALL, "optimizer_class": AdaptiveUPGD}
    options = {"policy_kwargs": policy_kwargs, "device": "cpu", **ALGORITHMS["PPO"][2]}
    model = PPO("MlpPolicy", "CartPole-v1", learning_rate=schedule, **options)
    before = values(model.policy.optimizer)
    model.learn(64)
    assert same(values(model.policy.optimizer), before) is not moves
