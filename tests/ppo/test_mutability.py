import pytest

from everlearn import PPO, DistributionalPPO, HyperparamConfig
from everlearn.core.errors import ConfigError
from everlearn.population.domains import Choices, Interval
from everlearn.population.scales import LinearScale
from everlearn.ppo.mutability import require_mutable


@pytest.fixture(scope="module")
def model() -> DistributionalPPO:
    return DistributionalPPO("MlpPolicy", "CartPole-v1", n_steps=64, batch_size=32, kl_penalty="pid")


@pytest.mark.parametrize(
    "config",
    [
        HyperparamConfig("learning_rate", 0.0, 1.0),
        HyperparamConfig("entropy_coef", -1.0, 1.0),
        HyperparamConfig("gamma", 0.0, 1.0),
        HyperparamConfig("clip_range", 0.1, 0.4),
        HyperparamConfig("batch_size", values=(16, 64)),
        HyperparamConfig("normalize_advantage", values=(True, False)),
        HyperparamConfig("target_kl", values=(None,)),
        HyperparamConfig("optimizer.sigma", 0.0, 0.1),
        HyperparamConfig("optimizer.lr", 1e-4, 1e-3),
        HyperparamConfig("vgs.alpha", 0.0, 1.0),
        HyperparamConfig("vgs.min_scale", 0.1, 1.0),
        HyperparamConfig("kl.target", 0.01, 0.1),
        HyperparamConfig("n_epochs", 1, 30),
    ],
)
def test_b29_what_a_model_can_put_in_force_is_taken_and_nothing_changes(model, config: HyperparamConfig) -> None:
    before = model.get_hyperparameters()
    require_mutable([config], model)
    assert model.get_hyperparameters() == before


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (HyperparamConfig("gama", 0.9, 0.99), r"'gama' cannot change .* Did you mean 'gamma'"),
        (HyperparamConfig("optimizer.sigmma", 0.0, 0.1), r"'optimizer.sigmma' cannot change"),
        (HyperparamConfig("optimizer.scope", values=("global", "none")), r"'optimizer.scope' cannot change"),
        (HyperparamConfig("gamma", 0.9, 1.5), r"'gamma' may become 1.5: gamma=1.5 is outside"),
        (HyperparamConfig("clip_range", domain=Interval(LinearScale(), 0.0, 0.4)), r"'clip_range' may become 0.0"),
        (HyperparamConfig("clip_range_vf", values=(0.1, -0.1)), r"'clip_range_vf' may become -0.1"),
        (HyperparamConfig("n_epochs", 1.0, 3.5), r"'n_epochs' may become 3.5: .* not a whole number"),
        (HyperparamConfig("normalize_advantage", domain=Choices((0, 1))), r"'normalize_advantage' may become 0"),
    ],
)
def test_b29_what_it_cannot_is_refused_before_anything_trains(model, config: HyperparamConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        require_mutable([HyperparamConfig("ent_coef", 0.0, 0.1), config], model)


def test_b29_options_of_a_part_that_is_off_are_refused() -> None:
    plain = PPO("MlpPolicy", "CartPole-v1", n_steps=64)
    for name in ("kl.target", "vgs.min_scale", "optimizer.sigma"):
        with pytest.raises(ConfigError, match="its part is off"):
            require_mutable([HyperparamConfig(name, 0.01, 0.1)], plain)


def test_names_of_populations_are_names_of_the_model(model) -> None:
    model.set_hyperparameter("entropy_coef", 0.03)
    model.set_hyperparameter("optimizer.sigma", 0.002)
    model.set_hyperparameter("vgs.alpha", 0.2)
    found = model.get_hyperparameters()
    assert (found["ent_coef"], found["optimizer_kwargs.sigma"], found["vgs_alpha"]) == (0.03, 0.002, 0.2)
