from typing import Any

import pytest
import torch
from torch import nn

from everlearn.config import RunConfig
from everlearn.core.errors import ConfigError
from everlearn.environments.build import training_environment
from everlearn.ppo.algorithm import DistributionalPPO
from everlearn.runs.building import resolved, thread_count
from tests.runs.tiny import built, tiny


def decided(**overrides: Any) -> RunConfig:
    config = tiny(**overrides)
    return resolved(config, training_environment(config.env, config.algorithm.gamma))[0]


def test_everything_left_open_is_decided() -> None:
    config = decided(**{"name": "distributional_ppo", "n_steps": None, "env.n_envs": 4, "seed": None})
    algorithm = config.algorithm
    assert (algorithm.name, algorithm.policy, algorithm.n_steps) == ("DistributionalPPO", "MlpPolicy", 512)
    assert (algorithm.value_head, algorithm.n_critics, algorithm.optimizer_class) == ("quantile", 2, "adaptive_upgd")
    assert config.env.normalize.enabled is False
    assert config.seed is not None


def test_what_was_given_stays() -> None:
    given = tiny(value_head="scalar", n_critics=3, normalize_returns=False, policy="MlpPolicy")
    kept = resolved(given, training_environment(given.env, 0.99))[0].algorithm
    left_open = {"critic_reduction", "optimizer_class", "variance_gradient_scaling", "vgs_kwargs", "divergence"}
    assert kept.model_dump(exclude=left_open) == given.algorithm.model_dump(exclude=left_open)


def test_continuous_control_is_normalised_by_default() -> None:
    assert decided(**{"env.id": "Pendulum-v1"}).env.normalize.enabled is True


def test_a_drawn_seed_differs_from_run_to_run() -> None:
    assert len({decided(seed=None).seed for _ in range(5)}) > 1


def test_an_unknown_algorithm_has_a_suggestion() -> None:
    with pytest.raises(
        ConfigError,
        match=r"^algorithm\.name: There is no algorithm 'DistributionalPPOO'. Did you mean 'DistributionalPPO'",
    ):
        decided(name="DistributionalPPOO")


def test_every_argument_reaches_the_constructor() -> None:
    agent = built(
        name="DistributionalPPO",
        gamma=0.9,
        gae_lambda=0.8,
        ent_coef=0.01,
        vf_coef=0.4,
        max_grad_norm=0.3,
        target_kl=0.05,
        n_critics=3,
        vgs_alpha=0.2,
        optimizer_kwargs={"lr": 1e-3, "sigma": 0.01},
        policy_kwargs={"net_arch": [16], "activation_fn": "ReLU"},
    )
    assert type(agent) is DistributionalPPO
    values = (agent.gamma, agent.gae_lambda, agent.ent_coef, agent.vf_coef, agent.max_grad_norm, agent.target_kl)
    assert values == (0.9, 0.8, 0.01, 0.4, 0.3, 0.05)
    assert (agent.n_critics, agent.vgs_alpha, agent.n_epochs, agent.batch_size) == (3, 0.2, 1, 8)
    assert agent.policy.optimizer.param_groups[0]["sigma"] == 0.01
    assert any(isinstance(module, nn.ReLU) for module in agent.policy.modules())
    assert agent.seed == 7


def test_linear_schedules_fall_from_their_start_to_zero() -> None:
    agent = built(learning_rate="lin_0.001", clip_range="lin_0.2", clip_range_vf=0.3)
    for schedule, start in ((agent.lr_schedule, 0.001), (agent.clip_range, 0.2)):
        assert [schedule(1.0), schedule(0.5), schedule(0.0)] == [start, start / 2, 0.0]
    assert agent.clip_range_vf is not None
    assert agent.clip_range_vf(0.0) == 0.3


def test_an_unknown_activation_function_has_a_suggestion() -> None:
    where = r"^algorithm\.policy_kwargs\.activation_fn"
    with pytest.raises(ConfigError, match=where + r": There is no activation function 'rellu'. Did you mean 'relu'"):
        built(**{"policy_kwargs.activation_fn": "rellu"})


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        ({"policy": "CnnPolicy"}, "CnnPolicy cannot read"),
        ({"use_sde": True}, "needs continuous actions"),
        ({"optimizer_class": "adaptive_upgdd"}, r"^algorithm\.optimizer_class: .*Did you mean 'adaptive_upgd'"),
        (
            {"optimizer_kwargs": {"sigm": 1.0}, "optimizer_class": "upgd"},
            r"^algorithm\.optimizer_kwargs\.sigm: unknown key. Did you mean 'sigma'",
        ),
        (
            {"optimizer_kwargs": {"sigma": -1.0}, "optimizer_class": "upgd"},
            r"^algorithm\.optimizer_kwargs: upgd refuses them: sigma=-1\.0 is outside",
        ),
        (
            {"optimizer_kwargs": {"momentum": -1}, "optimizer_class": "sgd"},
            r"^algorithm\.optimizer_kwargs: sgd refuses them: Invalid momentum",
        ),
        ({"vgs_kwargs": {"foo": 1}}, r"^algorithm\.vgs_kwargs\.foo: unknown key. Known: eps, min_scale, mode, scope\."),
        ({"vgs_kwargs.warmup_steps": 1}, r"^algorithm\.vgs_kwargs\.warmup_steps: unknown key"),
        ({"vgs_kwargs": {"mode": "noisy"}}, r"^algorithm\.vgs_kwargs\.mode: Input should be 'noise' or 'relative'"),
        (
            {"policy_kwargs.features_extractor_kwargs": {"foo": 1}},
            r"^algorithm\.policy_kwargs\.features_extractor_kwargs\.foo: unknown key",
        ),
    ],
)
def test_what_does_not_fit_is_a_configuration_error(overrides: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        built(**overrides)


def test_arguments_arrive_as_their_constructors_types() -> None:
    agent = built(variance_gradient_scaling=True, vgs_kwargs={"eps": "1e-6"}, optimizer_kwargs={"lr": "2e-3"})
    assert agent.variance_gradient_scaler is not None
    assert agent.variance_gradient_scaler.eps == 1e-6
    assert agent.policy.optimizer.param_groups[0]["lr"] == 0.002


def test_small_networks_get_one_thread_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    small, large = built(), built(**{"policy_kwargs.net_arch": [1024, 1024]})
    assert [thread_count(tiny(), agent) for agent in (small, large)] == [1, 6]
    assert thread_count(tiny(**{"runtime.threads": 3}), small) == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_missing_gpu_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"runtime\.device: 'cuda' was asked for and torch sees no GPU"):
        built(**{"runtime.device": "cuda"})
