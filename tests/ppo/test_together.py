"""Critics, UPGD, variance scaling and the unit of returns, all on, in long runs and in hard ones."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch

from everlearn import PPO, DistributionalPPO
from everlearn.environments.normaliser import Normaliser
from tests.ppo.together import EVERYTHING, KINDS, assert_finite, everything
from tests.ppo.updates import learned, leaves, model_of
from tests.ppo.worlds import scripted, world


@pytest.mark.parametrize("steps", [256, 2048, pytest.param(5120, marks=pytest.mark.slow)])
def test_b35_everything_stays_finite(steps: int) -> None:
    """B35."""
    model = DistributionalPPO("MlpPolicy", world("pendulum"), n_steps=256, seed=0, device="cpu", **EVERYTHING)
    model.learn(steps)
    assert_finite(model)
    assert model.skipped_updates == 0
    assert model.variance_gradient_scaler.step_count == steps // 256 * 10 * 4


@pytest.mark.parametrize("kind", KINDS)
def test_b36_one_update_sends_a_gradient_to_every_parameter_and_moves_it(kind: str) -> None:
    """B36."""
    model = everything(**KINDS[kind], n_epochs=1, batch_size=32)
    before = learned(model)["parameters"]
    model.learn(32)
    for name, parameter in model.policy.named_parameters():
        assert parameter.grad.abs().max() > 0, f"no gradient reaches {name}"
        assert not torch.equal(parameter, before[name]), f"{name} did not move"


HARD = {
    "no reward at all": [(0.0, "goes on")] * 20 + [(0.0, "terminates")],
    "extreme rewards": [(1e6, "goes on"), (-1e6, "terminates"), (1e6, "runs out of time")],
    "nothing, then everything": [(0.0, "goes on")] * 40 + [(1e5, "terminates")] * 2,
    "tiny rewards": [(1e-8, "goes on"), (-1e-8, "terminates")],
}


@pytest.mark.parametrize("case", HARD)
@pytest.mark.parametrize("head", ["scalar", "quantile", "categorical"])
def test_b38_zero_extreme_and_mixed_gradients_leave_everything_finite(case: str, head: str) -> None:
    """B38."""
    model = DistributionalPPO(
        "MlpPolicy",
        scripted(HARD[case]),
        n_steps=32,
        batch_size=16,
        value_head=head,
        n_epochs=3,
        seed=0,
        device="cpu",
        **EVERYTHING,
    )
    model.learn(4 * 32)
    assert [name for name, tensor in leaves(learned(model)).items() if not tensor.isfinite().all()] == []
    assert model.skipped_updates == 0


@pytest.mark.parametrize("algorithm", [PPO, DistributionalPPO])
def test_b40_batches_of_one(algorithm: type[PPO]) -> None:
    """B40."""
    model = model_of("pendulum", algorithm, n_steps=8, batch_size=1, normalize_advantage=False)
    model.learn(16)
    assert_finite(model)
    assert model._n_updates == 4


def test_b40_a_truncated_minibatch_of_one() -> None:
    """B40."""
    with pytest.warns(UserWarning, match="a truncated mini-batch of size 1"):
        model = everything(n_steps=17, batch_size=16)
    model.learn(34)
    assert_finite(model)


def test_b41_memory_is_stable_over_repeated_learn() -> None:
    """B41."""
    model = everything("cartpole", n_steps=64, batch_size=64)
    for _ in range(3):  # SB3's buffers of episodes and the caches fill up
        model.learn(64, reset_num_timesteps=False)
    tracemalloc.start()
    sizes = []
    for _ in range(2):
        model.learn(5 * 64, reset_num_timesteps=False)
        gc.collect()
        tensors = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
        sizes.append((tracemalloc.get_traced_memory()[0], tensors))
    tracemalloc.stop()
    assert sizes[1][0] - sizes[0][0] < 50_000, "bytes of python objects"
    assert sizes[1][1] == sizes[0][1], "tensors alive"


def resident_pages() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from Linux's /proc")
def test_r14_saved_and_loaded_every_1024_steps_it_stays_finite_and_memory_stays(tmp_path: Any) -> None:
    """R14."""
    model = DistributionalPPO(
        "MlpPolicy", Normaliser(world("pendulum")), n_steps=256, seed=0, device="cpu", kl_penalty=True, **EVERYTHING
    )
    memory = []
    for cycle in range(1, 6):
        model.learn(1024, reset_num_timesteps=False)
        assert_finite(model)
        model.save(tmp_path / "model")
        model = DistributionalPPO.load(tmp_path / "model", env=world("pendulum"), device="cpu")
        assert model.num_timesteps == cycle * 1024
        assert model.variance_gradient_scaler.step_count == cycle * 4 * 10 * 4
        memory.append(resident_pages())
    assert model.skipped_updates == 0
    assert memory[-1] < 1.05 * memory[0]
