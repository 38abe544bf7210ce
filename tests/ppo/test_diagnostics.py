"""R12: what is logged of the parts."""

from __future__ import annotations

import pytest
import torch

from everlearn import PPO
from everlearn.ppo import learning
from everlearn.ppo.diagnostics import Probe, critic_metrics
from tests.ppo.together import everything
from tests.ppo.updates import minibatch_for, model_of


@pytest.fixture(scope="module")
def logged() -> dict[str, float]:
    """Of a run whose warm-up is over."""
    model = everything(n_steps=64, n_epochs=10, vgs_kwargs={"mode": "noise"})
    model.learn(4 * 64)
    return dict(model.logger.name_to_value)


def test_r12_the_critics_are_measured_in_reward_units(logged: dict[str, float]) -> None:
    """R12."""
    assert -1000 < logged["critics/value_mean"] < 0, "Pendulum's returns"
    assert 0 < logged["critics/disagreement"] < 1000
    assert 0 < logged["critics/value_std"] < 1000
    assert 0 < logged["critics/spread"] < 1000
    assert logged["critics/cvar_10"] < logged["critics/value_mean"]
    assert abs(logged["critics/bias"]) < 1000
    assert 0 < logged["critics/forgetting_loss"] < 100
    assert logged["train/explained_variance"] <= 1.0


def test_r12_upgd_is_measured_for_actor_and_critics(logged: dict[str, float]) -> None:
    """R12."""
    for part in ("actor", "critics"):
        assert logged[f"upgd/{part}/eta"] > 0
        assert 0 <= logged[f"upgd/{part}/protected"] <= 1
        assert 0 <= logged[f"upgd/{part}/refreshed"] <= 1
        assert 0 < logged[f"upgd/{part}/noise_to_update"] < 0.1
        assert logged[f"upgd/{part}/noise_std"] > 0


def test_r12_variance_scaling_is_measured(logged: dict[str, float]) -> None:
    """R12."""
    assert 0.1 <= logged["vgs/factor_p10"] <= logged["vgs/factor_p50"] <= logged["vgs/factor_p90"] <= 10.0
    assert logged["vgs/factor_p10"] < 1.0
    assert logged["vgs/warmup_done"] == 1
    assert logged["vgs/noise_to_signal_median"] > 0
    assert 0 < logged["vgs/gradient_variance_after"] < logged["vgs/gradient_variance_before"]
    assert (logged["vgs/resets"], logged["vgs/skipped_steps"], logged["train/skipped_updates"]) == (0, 0, 0)


def test_r12_what_is_off_is_not_logged() -> None:
    """R12."""
    model = model_of(algorithm=PPO)
    model.learn(32)
    names = set(model.logger.name_to_value)
    assert not [name for name in names if name.startswith(("vgs/", "upgd/"))]
    assert not names & {"critics/spread", "critics/cvar_10"}
    assert {"critics/disagreement", "critics/bias", "train/skipped_updates"} <= names


def test_r12_forgetting_is_measured_on_the_first_rollout(monkeypatch: pytest.MonkeyPatch) -> None:
    """R12."""
    kept = []
    monkeypatch.setattr(learning, "critic_metrics", lambda evaluator, probe, old: kept.append((probe, old)) or {})
    model_of("pendulum").learn(3 * 32)
    first = kept[0][0]
    assert [old is first for _, old in kept] == [True] * 3
    assert all(probe is not first for probe, _ in kept[1:])
    assert len(first.samples.returns) == 32


def test_r12_what_is_remembered_has_no_forgetting_loss() -> None:
    """R12."""
    model = model_of("pendulum", value_head="scalar", n_critics=1)
    model.learn(32)  # so that there is a unit of returns
    known, unknown = minibatch_for(model, 0), minibatch_for(model, 1)
    predicted = model.policy.predict_values(known.observations).squeeze(1).detach()
    remembered = Probe(known._replace(returns=predicted))
    other = Probe(unknown._replace(returns=1000 * torch.ones(len(unknown.returns))))
    losses = [
        critic_metrics(model.evaluator, new, kept)["forgetting_loss"]
        for new, kept in ((other, remembered), (remembered, other))
    ]
    assert losses[0] == pytest.approx(0.0, abs=1e-6)
    assert losses[1] > 1.0


def test_r12_the_bias_is_how_far_values_are_above_the_realised_returns() -> None:
    """R12."""
    model = model_of("pendulum", n_steps=64, learning_rate=0.0)
    model.learn(64)  # sets the unit, in which these critics predict about zero: the mean of the returns
    model.learn(64)
    logged, returns = model.logger.name_to_value, model.rollout_buffer.returns
    assert logged["critics/bias"] == pytest.approx(logged["critics/value_mean"] - returns.mean(), rel=1e-3)
