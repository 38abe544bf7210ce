"""Training in segments: pauses change nothing, a model becomes what a file holds, and takes over what others know."""

import io
import warnings

import numpy as np
import pytest
import torch

from everlearn import PPO, DistributionalPPO
from everlearn.checkpoint.archive import pack
from everlearn.checkpoint.errors import CheckpointError, Mismatch
from everlearn.core.digest import digest, identical
from everlearn.core.errors import OrderError, StateError
from everlearn.core.stateful import Role
from everlearn.environments.build import training_environment
from everlearn.environments.spec import EnvConfig

N_STEPS, N_ENVS = 16, 2
SMALL = {
    "n_steps": N_STEPS,
    "batch_size": 16,
    "n_epochs": 2,
    "policy_kwargs": {"net_arch": [8]},
    "compile": False,
    "kl_penalty": "pid",
    "learning_rate": "lin_1e-3",
}
ROLLOUT = N_STEPS * N_ENVS
TOTAL = 6 * ROLLOUT


def made(seed: int = 0, kind: type[PPO] = DistributionalPPO, normalize: bool = True, **arguments) -> PPO:
    config = EnvConfig(id="Pendulum-v1", n_envs=N_ENVS, normalize={"enabled": normalize})
    return kind("MlpPolicy", training_environment(config, 0.99), seed=seed, **{**SMALL, **arguments})


class Taken:
    """A callback that takes the checkpoint at the end of each segment."""

    def __init__(self) -> None:
        from stable_baselines3.common.callbacks import BaseCallback

        outer = self

        class Callback(BaseCallback):
            def _on_step(self) -> bool:
                return True

            def _on_training_end(self) -> None:
                outer.files.append(b"".join(pack(*self.model.file_contents(tuple(Role)))))

        self.files: list[bytes] = []
        self.callback = Callback()


def segment(model: PPO, updates: int) -> bytes:
    taken = Taken()
    model.learn_updates(updates, TOTAL, taken.callback)
    return taken.files[-1]


def state_of(model: PPO) -> dict:
    tree = model.state_tree().state_dict()
    tree["progress"].pop("_num_timesteps_at_start")  # of the last call of learn
    return {name: state for name, state in tree.items() if name not in ("callbacks", "episodes", "records")}


@pytest.mark.parametrize("kind", [PPO, DistributionalPPO])
def test_pauses_change_nothing(kind: type[PPO]) -> None:
    whole = made(kind=kind).learn(TOTAL)
    expected = {name: digest(state) for name, state in state_of(whole).items()}
    parts = made(kind=kind)
    for updates in (1, 3, 2):
        segment(parts, updates)
    assert parts.num_timesteps == TOTAL
    assert {name: digest(state) for name, state in state_of(parts).items()} == expected


def test_a_model_becomes_what_a_checkpoint_holds_and_goes_on_to_the_bit() -> None:
    first = made(seed=1)
    file = segment(first, 2)
    segment(first, 2)
    other = made(seed=2, learning_rate=1e-4)
    segment(other, 3)
    before = other.policy
    torch.manual_seed(5)
    assert str(other.restore(io.BytesIO(file)).level) == "exact"
    assert other.policy is before
    segment(other, 2)
    assert digest(state_of(other)) == digest(state_of(first))


def test_a_training_that_has_ended_goes_on_to_an_end_that_has_moved() -> None:
    model = made(learning_rate="lin_1e-3")
    model.learn_updates(9, 2 * ROLLOUT)
    assert model.num_timesteps == 2 * ROLLOUT
    model.learn_updates(9, 4 * ROLLOUT)
    assert model.num_timesteps == model._total_timesteps == 4 * ROLLOUT
    model.learn_updates(1, 10 * ROLLOUT)
    assert model._current_progress_remaining == pytest.approx(0.5)


def test_what_a_divergence_has_left_of_the_learning_rate_comes_back_with_it() -> None:
    model, other = made(), made(learning_rate=0.5)
    content = segment(model, 1)
    model.divergence_guard.lr_factor = 0.25
    content = segment(model, 1)
    other.restore(io.BytesIO(content))
    assert (other.lr_schedule(1.0), other.divergence_guard.lr_factor) == (model.lr_schedule(1.0), 0.25)


def test_a_model_becomes_one_that_has_not_begun() -> None:
    expected = made(seed=3)
    segment(expected, 2)
    fresh = made(seed=3)
    file = b"".join(pack(*fresh.file_contents(tuple(Role))))
    other = made(seed=4)
    segment(other, 2)
    other.restore(io.BytesIO(file))
    segment(other, 2)
    assert digest(other.get_parameters()) == digest(expected.get_parameters())


def test_only_checkpoints_of_models_built_alike_are_restored() -> None:
    model = made()
    model_file = b"".join(pack(*model.file_contents()))
    with pytest.raises(Mismatch, match="no training that could be continued"):
        model.restore(io.BytesIO(model_file))
    other = segment(made(policy_kwargs={"net_arch": [12]}), 1)
    with pytest.raises(CheckpointError, match="policy"):
        model.restore(io.BytesIO(other))
    with pytest.raises(CheckpointError):
        model.restore(io.BytesIO(other[:-20]))
    alone = DistributionalPPO.load(io.BytesIO(model_file))
    with pytest.raises(OrderError, match="no environment"):
        alone.restore(io.BytesIO(other))


@pytest.fixture
def pair() -> tuple[PPO, PPO, bytes]:
    source, target = made(seed=1), made(seed=2)
    segment(source, 3)
    file = segment(source, 1)
    segment(target, 2)
    return source, target, file


def test_b27_after_a_copy_every_learned_part_is_the_sources(pair) -> None:
    source, target, file = pair
    steps, returns = target.num_timesteps, target.env.returns.copy()
    target.take_over(io.BytesIO(file), seed=7)
    found, expected = target.get_parameters(), source.get_parameters()
    for name in ("policy", "vgs_state", "kl_penalty_state"):
        assert identical(found[name], expected[name]), name
    assert identical(found["policy.optimizer"]["state"], expected["policy.optimizer"]["state"])
    assert found["policy.optimizer"]["noise"]["seed"] != expected["policy.optimizer"]["noise"]["seed"]
    assert identical(target.normaliser_state["obs_rms"], source.normaliser_state["obs_rms"])
    assert np.array_equal(target.env.returns, returns)
    assert target.num_timesteps == steps
    assert target.variance_gradient_scaler.step_count == source.variance_gradient_scaler.step_count > 0
    segment(target, 2)
    assert target.num_timesteps == TOTAL - 2 * N_STEPS * N_ENVS


def test_b27_weights_alone_reset_what_belongs_to_others(pair) -> None:
    source, target, file = pair
    with pytest.warns(UserWarning, match="come without 'vgs_state'"):
        target.take_over(io.BytesIO(file), "weights", seed=7)
    assert identical(target.get_parameters()["policy"], source.get_parameters()["policy"])
    assert target.variance_gradient_scaler.step_count == 0
    state = target.policy.optimizer.state_dict()["state"]
    assert all(float(each["step"]) == 0 for each in state.values())


def test_b27_an_optimizer_may_be_reset(pair) -> None:
    source, target, file = pair
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        target.take_over(io.BytesIO(file), optimizer="reset", seed=7)
    state = target.policy.optimizer.state_dict()["state"]
    assert all(float(each["step"]) == 0 for each in state.values())
    assert target.variance_gradient_scaler.step_count == source.variance_gradient_scaler.step_count


@pytest.mark.parametrize("optimizer", ["copy", "reset"])
def test_no_two_copies_draw_the_same(pair, optimizer: str) -> None:
    _, target, file = pair
    draws, noise = [], []
    for seed in (1, 2, 1):
        target.take_over(io.BytesIO(file), optimizer=optimizer, seed=seed)
        draws.append((float(torch.rand(1)), float(np.random.rand())))
        noise.append(target.get_parameters()["policy.optimizer"]["noise"]["seed"])
    assert draws[0] == draws[2] != draws[1]
    assert noise[0] == noise[2] != noise[1]


def test_a_source_without_a_normaliser_is_refused() -> None:
    file = segment(made(normalize=False), 1)
    with pytest.raises(StateError, match="only one of the two models has a normaliser"):
        made().take_over(io.BytesIO(file), seed=0)


def test_b29_the_sources_hyperparameters_come_along(pair) -> None:
    source, target, _ = pair
    source.set_hyperparameter("gamma", 0.9)
    target.take_over(io.BytesIO(segment(source, 1)), seed=0)
    assert target.gamma == 0.9 == target.rollout_buffer.gamma


def test_new_episodes_begin_with_generators_of_their_own_and_nothing_else_changes() -> None:
    models = []
    for _ in range(3):
        models.append(made())
        segment(models[-1], 1)
    models[1].begin_episodes(7)
    models[2].begin_episodes(8)
    assert len({digest(model.get_parameters()) for model in models}) == 1
    for model in models:
        segment(model, 1)
    assert [model.num_timesteps for model in models] == [2 * N_STEPS * N_ENVS] * 3
    states = [
        str([env.unwrapped.np_random.bit_generator.state for env in model.env.unwrapped.envs]) for model in models
    ]
    assert len(set(states)) == 3


def test_episodes_need_an_environment_to_begin_in() -> None:
    model = made()
    model.env = None
    with pytest.raises(OrderError, match="set_env"):
        model.begin_episodes(1)
