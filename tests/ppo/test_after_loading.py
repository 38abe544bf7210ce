"""What a loaded model does next: it explores as trained, and is saved again as it was."""

from __future__ import annotations

import copy
import io

import pytest

from everlearn import PPO
from everlearn.checkpoint.archive import read_archive
from everlearn.core.errors import StateError
from tests.ppo.files import file_of
from tests.ppo.updates import model_of


def loaded(content: bytes, **arguments: object) -> PPO:
    return PPO.load(io.BytesIO(content), device="cpu", **arguments)


def test_noise_that_depends_on_the_state_is_drawn_from_the_trained_deviations() -> None:
    model = model_of("pendulum", PPO, use_sde=True)
    model.policy.log_std.data.fill_(-9.0)
    again = loaded(file_of(model))
    assert 0 < float(again.policy.action_dist.exploration_mat.detach().abs().max()) < 0.01


def test_the_policy_of_a_loaded_model_is_saved_with_orthogonal_weights_in_its_arguments() -> None:
    again = loaded(file_of(model_of("cartpole", PPO)))
    assert again.policy.ortho_init is True
    again.policy.save(stream := io.BytesIO())
    assert read_archive(stream).json("config.json")["ortho_init"] is True


@pytest.mark.parametrize("ortho_init", [True, False])
def test_orthogonal_weights_that_were_chosen_stay_so(ortho_init: bool) -> None:
    again = loaded(file_of(model_of("cartpole", PPO, policy_kwargs={"ortho_init": ortho_init})))
    assert again.policy.ortho_init is ortho_init


def test_a_part_that_was_switched_off_stays_off_through_files() -> None:
    source = model_of("cartpole", PPO, variance_gradient_scaling=True).learn(32)
    with pytest.warns(UserWarning, match="variance_gradient_scaling is switched off"):
        off = loaded(file_of(source), variance_gradient_scaling=False)
    assert off.switched_off == ["variance_gradient_scaling"]
    for again in (loaded(file_of(off)), copy.deepcopy(off)):
        with pytest.warns(UserWarning, match="variance_gradient_scaling is switched off"):
            again.set_parameters(source.get_parameters())


def test_a_part_that_is_merely_off_by_default_is_not_taken_as_switched_off_after_loading() -> None:
    source = model_of("cartpole", PPO, variance_gradient_scaling=True).learn(32)
    again = loaded(file_of(model_of("cartpole", PPO)))
    assert again.switched_off == []
    with pytest.raises(StateError, match="variance_gradient_scaling is off here"):
        again.set_parameters(source.get_parameters())
