"""Updates that meet something not finite: counted, and after k in a row an older state or the end."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from everlearn import PPO
from everlearn.core.errors import ArgumentError, ConfigError, NonFiniteError
from everlearn.ppo.divergence import DivergenceGuard, Restore, Stop
from tests.ppo.test_update import HUGE
from tests.ppo.updates import assert_identical, learned, model_of
from tests.ppo.worlds import scripted

GOOD, BAD = [(1.0, "terminates")], [(HUGE, "goes on")]


def model_in(script: Any, **arguments: Any) -> PPO:
    options = {"n_steps": 8, "batch_size": 4, "n_epochs": 2, "seed": 0, "device": "cpu", **arguments}
    return PPO("MlpPolicy", scripted(script), **options)


def test_k_updates_in_a_row_end_training_with_the_parameters_as_before() -> None:
    model = model_in(BAD, divergence={"kind": "stop", "patience": 3})
    before = learned(model)
    with pytest.raises(NonFiniteError, match=r"3 updates in a row, the last at env-step 8, .* Lower learning_rate"):
        model.learn(8)
    assert_identical(learned(model), before)
    assert (model.skipped_updates, model.divergence_guard.in_a_row) == (3, 3)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, in SB3's explained variance of such a reward
def test_the_row_goes_on_over_rollouts() -> None:
    model = model_in(BAD, divergence={"kind": "stop", "patience": 7})
    with pytest.raises(NonFiniteError, match="7 updates in a row, the last at env-step 16"):
        model.learn(80)


def test_an_update_that_moves_ends_the_row() -> None:
    guard = DivergenceGuard(Stop(patience=2))
    for skipped in (True, False, True):
        guard.count(skipped=skipped)
    assert (guard.skipped, guard.in_a_row, guard.has_diverged) == (2, 1, False)
    guard.count(skipped=True)
    assert guard.has_diverged


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, in SB3's explained variance of such a reward
def test_the_last_good_state_comes_back_with_a_smaller_learning_rate() -> None:
    model = model_in(GOOD * 16 + BAD * 8 + GOOD * 100, divergence={"kind": "restore", "patience": 4, "factor": 0.25})
    with pytest.warns(UserWarning, match=r"4 updates in a row.* restored, and the learning rate is 0\.25 of"):
        model.learn(24)
    reference = model_in(GOOD * 200).learn(8)  # the state before the last good rollout: what came of it led astray
    assert_identical({"p": learned(model)["parameters"]}, {"p": learned(reference)["parameters"]})
    assert_identical({"p": learned(model)["optimizer"]}, {"p": learned(reference)["optimizer"]})
    assert (model.divergence_guard.restores, model.divergence_guard.in_a_row, model.skipped_updates) == (1, 0, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.learn(16, reset_num_timesteps=False)
    assert model.policy.optimizer.param_groups[0]["lr"] == pytest.approx(0.25 * 3e-4)
    assert model.logger.name_to_value["train/restores"] == 1


def test_a_state_that_was_kept_is_a_copy_and_older_than_the_row() -> None:
    guard, state = DivergenceGuard(Restore(patience=1)), {"policy": [1.0]}
    guard.keep(lambda: state)
    state["policy"][0] = 2.0
    guard.count(skipped=True)
    guard.keep(lambda: state)
    with pytest.warns(UserWarning, match="restored"):
        good = guard.good_state(0)
    assert good == {"policy": [1.0]}


@pytest.mark.filterwarnings("ignore:.*restored:UserWarning", "ignore::RuntimeWarning")
def test_after_the_last_restoration_training_ends() -> None:
    model = model_in(BAD, divergence={"kind": "restore", "patience": 2, "max_restores": 2})
    with pytest.raises(NonFiniteError, match=r"The last good state was restored 2 times\. Lower learning_rate"):
        model.learn(800)
    assert model.divergence_guard.lr_factor == 0.25


def test_with_nothing_kept_there_is_nothing_to_restore() -> None:
    model = model_in(BAD, divergence={"kind": "restore", "patience": 1})
    _, callback = model._setup_learn(8)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, 8)
    with pytest.raises(NonFiniteError, match="parameters are as they were"):
        model.train()


def test_a_guard_that_never_restores_keeps_nothing() -> None:
    DivergenceGuard(Stop()).keep(lambda: pytest.fail("it asked for a state"))


def test_the_guard_goes_on_where_another_was() -> None:
    guard = DivergenceGuard(Restore())
    guard.load_state_dict({"skipped": 5, "in_a_row": 2, "restores": 1, "lr_factor": 0.5})
    assert guard.state_dict() == {"skipped": 5, "in_a_row": 2, "restores": 1, "lr_factor": 0.5}
    assert (guard.in_a_row, guard.lr_factor) == (2, 0.5)


def test_defaults_and_names() -> None:
    assert model_of(algorithm=PPO).divergence_guard.control == Stop(patience=10)
    assert model_of().divergence_guard.control == Restore(patience=10, factor=0.5, max_restores=3)
    assert model_of(divergence=Stop(3)).divergence_guard.control.patience == 3
    with pytest.raises(ConfigError, match="Did you mean 'restore'"):
        model_of(divergence="restor")


@pytest.mark.parametrize("arguments", [{"patience": 0}, {"factor": 0.0}, {"factor": 1.5}, {"max_restores": -1}])
def test_arguments_outside_their_range_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(arguments))):
        Restore(**arguments)


def test_a_state_is_good_once_a_rollout_after_it_had_no_skipped_update() -> None:
    guard = DivergenceGuard(Restore(patience=2))

    def rollout(state: str, *skipped: bool) -> None:
        guard.keep(lambda: {"policy": state})
        for each in skipped:
            guard.count(skipped=each)

    rollout("first", False)
    rollout("second", False)
    rollout("third, astray", True, True)
    with pytest.warns(UserWarning, match="restored"):
        assert guard.good_state(0) == {"policy": "second"}
    rollout("second again", True, True)
    with pytest.warns(UserWarning, match="restored"):
        assert guard.good_state(0) == {"policy": "second"}


def test_a_state_that_no_update_has_followed_is_not_good_yet() -> None:
    guard = DivergenceGuard(Restore(patience=1))
    guard.keep(lambda: {"policy": "first"})
    guard.count(skipped=False)
    for _ in range(2):  # the end of one learn() and the beginning of the next
        guard.keep(lambda: {"policy": "second"})
    guard.count(skipped=True)
    with pytest.warns(UserWarning, match="restored"):
        assert guard.good_state(0) == {"policy": "first"}


def test_a_state_led_astray_by_finite_updates_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_in(GOOD * 200, divergence={"kind": "restore", "patience": 2}).learn(16)
    train = model.train

    def astray() -> None:
        train()
        with torch.no_grad():
            model.policy.value_net.weight.fill_(1e30)
        monkeypatch.setattr(model, "train", train)

    monkeypatch.setattr(model, "train", astray)
    with pytest.warns(UserWarning, match="restored") as warned:
        model.learn(64, reset_num_timesteps=False)
    assert len([each for each in warned if "restored" in str(each.message)]) == 1
    assert model.policy.value_net.weight.abs().max() < 10


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, in SB3's explained variance of such a reward
@pytest.mark.parametrize("kind", ["pid", "adaptive_lr"])
def test_a_rollout_without_an_update_says_nothing_to_the_control_of_the_divergence(kind: str) -> None:
    model = model_in(BAD, divergence={"kind": "stop", "patience": 100}, kl_penalty=kind)
    before = model.kl_controller.state_dict()
    model.learn(24)
    assert model.kl_controller.state_dict() == before
    assert model.skipped_updates == 12
