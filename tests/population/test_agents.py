"""Populations of everlearn's own agents: what an exploit carries over, and what is in force then."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from stable_baselines3.common.logger import KVWriter, Logger

from everlearn import DistributionalPPO, HyperparamConfig, PBTConfig, PBTScheduler, PopulationMember
from everlearn.core.digest import identical
from everlearn.population.config import warn_of_warmup

N_STEPS = 32
SMALL = {
    "n_steps": N_STEPS,
    "batch_size": 16,
    "n_epochs": 1,
    "policy_kwargs": {"net_arch": [8]},
    "compile": False,
    "vgs_warmup_steps": 3,
    "kl_penalty": "pid",
}
SPACE = [
    HyperparamConfig("learning_rate", 1e-4, 1e-2, is_log_scale=True),
    HyperparamConfig("entropy_coef", 1e-4, 0.1, scale="log"),
    HyperparamConfig("gamma", 0.9, 0.999, scale="one_minus"),
    HyperparamConfig("vgs.alpha", 0.01, 1.0, scale="log"),
    HyperparamConfig("batch_size", 8, 32, divides=N_STEPS),
]


class Population:
    """Agents and their scheduler, in a loop as users write it."""

    def __init__(self, directory: Path, space: list[HyperparamConfig], rules: dict, **arguments) -> None:
        config = PBTConfig(
            population_size=3, perturbation_interval=1, hyperparams=space, checkpoint_dir=directory, **rules
        )
        self.scheduler = PBTScheduler(config, seed=0)
        self.agents = [
            DistributionalPPO("MlpPolicy", "CartPole-v1", seed=int(member.member_id), **{**SMALL, **arguments})
            for member in self.scheduler.initialize_population()
        ]
        for member in self.scheduler.members:
            self.use(member)

    def use(self, member: PopulationMember) -> None:
        for name, value in member.hyperparams.items():
            self.agents[member.member_id].set_hyperparameter(name, value)

    def train(self, scores: list[float], updates: int = 1) -> None:
        for member, agent, score in zip(self.scheduler.members, self.agents, scores, strict=True):
            agent.learn(updates * N_STEPS, reset_num_timesteps=False)
            self.scheduler.update_performance(member, score, member.step + updates, agent.get_parameters())

    def exploit(self, number: int = 0, exact_match: bool = True) -> None:
        member, agent = self.scheduler.members[number], self.agents[number]
        result = self.scheduler.exploit_and_explore(member)
        assert result.parameters is not None
        agent.set_parameters(result.parameters, exact_match)
        self.scheduler.verify_exploit(member, agent.get_parameters())
        self.use(member)


@pytest.fixture
def population(tmp_path: Path) -> Callable[..., Population]:
    return lambda space=SPACE, rules=None, **arguments: Population(tmp_path, space, rules or {}, **arguments)


def test_b27_after_an_exploit_every_part_is_the_sources(population) -> None:
    three = population()
    three.train([0.0, 1.0, 2.0], updates=3)
    three.exploit()
    target, source = (three.agents[number].get_parameters() for number in (0, 2))
    for name in ("policy", "vgs_state", "kl_penalty_state"):
        assert identical(target[name], source[name]), name
    assert identical(target["policy.optimizer"]["state"], source["policy.optimizer"]["state"])
    assert target["policy.optimizer"]["noise"]["seed"] != source["policy.optimizer"]["noise"]["seed"]
    assert three.agents[0].variance_gradient_scaler.step_count > 0


def test_b27_a_reset_optimizer_is_as_new(population) -> None:
    three = population(rules={"optimizer_exploit_strategy": "reset"})
    fresh = DistributionalPPO("MlpPolicy", "CartPole-v1", **SMALL).get_parameters()["policy.optimizer"]["state"]
    three.train([0.0, 1.0, 2.0], updates=2)
    three.exploit(exact_match=False)
    agent = three.agents[0]
    assert not identical(agent.get_parameters()["policy.optimizer"]["state"], fresh)
    agent.reset_optimizer()
    assert identical(agent.get_parameters()["policy.optimizer"]["state"], fresh)
    assert agent.variance_gradient_scaler.step_count == three.agents[2].variance_gradient_scaler.step_count
    agent.learn(N_STEPS, reset_num_timesteps=False)


@pytest.mark.parametrize("rules", [{"copied": "weights"}, {}])
def test_b27_statistics_of_other_weights_are_reset_with_a_warning(population, rules: dict) -> None:
    three = population(rules=rules)
    three.train([0.0, 1.0, 2.0], updates=2)
    if not rules:
        with pytest.warns(DeprecationWarning, match="model_state_dict"):
            best, weights = three.scheduler.members[2], three.agents[2].policy.state_dict()
            three.scheduler.update_performance(best, 2.0, 3, model_state_dict=weights)
    with pytest.warns(UserWarning, match="come without 'vgs_state': the statistics of .* are reset"):
        three.exploit(exact_match=False)
    assert three.agents[0].variance_gradient_scaler.step_count == 0


def test_b29_every_hyperparameter_of_an_exploit_is_in_force(population) -> None:
    three = population([*SPACE, HyperparamConfig("optimizer.sigma", 1e-4, 1e-2, is_log_scale=True)])
    three.train([0.0, 1.0, 2.0])
    three.exploit()
    member, agent = three.scheduler.members[0], three.agents[0]
    agent.learn(N_STEPS, reset_num_timesteps=False)
    found = agent.get_hyperparameters()
    names = {"optimizer.sigma": "optimizer_kwargs.sigma", "vgs.alpha": "vgs_alpha"}
    assert {name: found[names.get(name, name)] for name in member.hyperparams} == member.hyperparams
    assert agent.rollout_buffer.gamma == member.hyperparams["gamma"]
    assert agent.policy.optimizer.param_groups[0]["lr"] == member.hyperparams["learning_rate"]
    assert agent.policy.optimizer.param_groups[0]["sigma"] == member.hyperparams["optimizer.sigma"]
    assert agent.variance_gradient_scaler.alpha == member.hyperparams["vgs.alpha"]


def test_b32_b45_an_exploit_before_the_warm_up_is_over_carries_its_counter(population) -> None:
    three = population([SPACE[0]], vgs_warmup_steps=1000)
    with pytest.warns(UserWarning, match=r"Raise perturbation_interval to 501 or more"):
        assert warn_of_warmup(1, N_STEPS // 16, 1000)
    three.train([0.0, 1.0, 2.0])
    three.exploit()
    scalers = [three.agents[number].variance_gradient_scaler for number in (0, 2)]
    assert [scaler.step_count for scaler in scalers] == [2, 2]
    assert scalers[0].get_scaling_factor() == 1.0
    three.train([0.0, 1.0, 2.0])
    assert scalers[0].step_count == 4
    assert all(torch.isfinite(weight).all() for weight in three.agents[0].policy.parameters())


class Last(KVWriter):
    """Keeps what was logged last."""

    def __init__(self) -> None:
        self.values: dict = {}

    def write(self, key_values, key_excluded, step=0) -> None:
        self.values.update(key_values)

    def close(self) -> None:
        pass


def test_b43_b44_critics_under_mutated_hyperparameters_stay_finite_without_upgd(population) -> None:
    space = [*SPACE, HyperparamConfig("vf_coef", 0.1, 2.0), HyperparamConfig("clip_range", 0.05, 0.4)]
    three = population(space, {"mutate_all": True}, optimizer_class="adam")
    last = Last()
    three.agents[0].set_logger(Logger(None, [last]))
    generator = np.random.default_rng(0)
    for _ in range(4):
        three.train(generator.normal(size=3).tolist())
        for number, member in enumerate(three.scheduler.members):
            result = three.scheduler.exploit_and_explore(member)
            if result.parameters is not None:
                three.agents[number].set_parameters(result.parameters)
            three.use(member)
    three.agents[0].learn(2 * N_STEPS, reset_num_timesteps=False)
    assert three.scheduler.get_stats()["pbt/exploitation_count"] >= 4
    assert math.isfinite(last.values["critics/disagreement"])
    for agent in three.agents:
        assert all(torch.isfinite(weight).all() for weight in agent.policy.parameters())
