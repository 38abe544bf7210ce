import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everlearn.core.errors import ArgumentError, ConfigError
from everlearn.population.domains import Choices, Interval
from everlearn.population.scales import LinearScale
from everlearn.population.space import HyperparamConfig, SearchSpace


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (HyperparamConfig("lr", 1e-5, 1e-3), float),
        (HyperparamConfig("lr", 1e-5, 1e-3, is_log_scale=True), float),
        (HyperparamConfig("lr", 0, 5, scale="linear"), float),
        (HyperparamConfig("lr", 1, 5, scale="log"), float),
        (HyperparamConfig("lr", 1, 5, is_log_scale=True), int),
        (HyperparamConfig("lr", 1, 5), int),
        (HyperparamConfig("lr", 1.0, 5.0, scale="integer"), int),
        (HyperparamConfig("lr", 0.5, 0.9, scale="one_minus"), float),
        (HyperparamConfig("lr", 0.5, 0.9, scale="logit"), float),
        (HyperparamConfig("lr", values=[True, False]), bool),
        (HyperparamConfig("lr", values=["a", "b"], scale="choice"), str),
        (HyperparamConfig("lr", 8, 64, divides=64), int),
        (HyperparamConfig("lr", domain=Interval(LinearScale(), 0, 1)), float),
    ],
)
def test_b30_the_declaration_says_the_type(config: HyperparamConfig, kind: type) -> None:
    generator = np.random.default_rng(0)
    assert {type(config.allowed.sample(generator)) for _ in range(20)} == {kind}


def test_the_defaults_are_those_of_the_specification() -> None:
    config = HyperparamConfig("ent_coef", 0.0, 1.0)
    assert (config.perturbation_factor, config.resample_probability, config.is_log_scale) == (1.2, 0.25, False)
    assert config.factors == (1.2, 1 / 1.2)
    assert HyperparamConfig("ent_coef", 0.0, 1.0, perturbation_factor=(1.2, 0.8)).factors == (1.2, 0.8)


def test_scales_are_found_in_any_spelling() -> None:
    assert HyperparamConfig("gamma", 0.9, 0.99, scale="OneMinus").allowed.coordinate(0.968377) == pytest.approx(
        0.5, abs=1e-4
    )


def test_a_batch_size_divides_the_rollout() -> None:
    assert HyperparamConfig("batch_size", 32, 512, divides=2048).allowed.values == (32, 64, 128, 256, 512)
    assert HyperparamConfig("batch_size", values=(32, 48, 64), divides=2048).allowed.values == (32, 64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "none of them was given"),
        ({"min_value": 0.0, "max_value": 1.0, "values": [1]}, "min_value and max_value and values was given"),
        ({"min_value": 0.0}, "both have to be finite numbers"),
        ({"min_value": "1e-4", "max_value": 1.0}, "both have to be finite numbers"),
        ({"min_value": 0, "max_value": 1}, r"Write 0.0 and 1.0 .* or values=\(0, 1\)"),
        ({"min_value": 1.0, "max_value": 0.5}, "has to be below"),
        ({"min_value": 0.0, "max_value": 0.5, "is_log_scale": True}, "above 0"),
        ({"min_value": 0.1, "max_value": 0.5, "is_log_scale": True, "scale": "logit"}, "contradicts"),
        ({"min_value": 0.1, "max_value": 0.5, "scale": "lgo"}, "There is no scale 'lgo'. Did you mean 'log'"),
        ({"min_value": 0.1, "max_value": 0.5, "scale": "choice"}, "is for values"),
        ({"values": [1, 2], "scale": "log"}, "a list without a scale"),
        ({"values": "abc"}, "a list without a scale"),
        ({"values": [1, 1]}, "twice"),
        ({"min_value": 9, "max_value": 15, "divides": 32}, "no value to choose"),
        ({"values": [1], "domain": Choices([1])}, "values and domain"),
        ({"domain": Choices([1]), "is_log_scale": True}, "a scale of its own"),
        ({"values": [1, 2], "default": 3}, "the default 3"),
        ({"values": [1, 2], "resample_probability": 1.5}, "x: resample_probability=1.5"),
        ({"values": [1, 2], "perturbation_factor": 1.0}, "x: perturbation_factor=1"),
        ({"values": [1, 2], "perturbation_factor": (1.2, 1.1)}, "x: perturbation_factor=1.1"),
        ({"values": [1, 2], "perturbation_factor": (1.2, 1.0)}, "x: perturbation_factor=1.0"),
        ({"values": [1, 2], "perturbation_factor": (0.9, 0.8)}, "x: perturbation_factor=0.9"),
        ({"values": [1, 2], "perturbation_factor": (1.0, 0.8)}, "x: perturbation_factor=1.0"),
        ({"values": [1, 2], "perturbation_factor": (1.2, 0.0)}, "x: perturbation_factor=0.0"),
        ({"values": [1, 2], "perturbation_factor": (1.2, 0.8, 0.5)}, "neither a number nor two"),
        ({"values": [1, 2], "perturbation_factor": ("1.2", "0.8")}, "neither a number nor two"),
        ({"domain": Choices([1]), "scale": "log"}, "a scale of its own"),
        ({"domain": Choices([1]), "divides": 4}, "a scale of its own"),
        ({"min_value": 3, "max_value": 4}, r"Write 3.0 and 4.0 .* or values=\(3, 4\)"),
        ({"values": [1, 2], "perturbation_factor": "1.2"}, "neither a number nor two"),
        ({"values": [1, 2], "perturbation_factor": 0}, "x: perturbation_factor=0"),
    ],
)
def test_a_declaration_that_cannot_be_meant_is_refused(arguments, message: str) -> None:
    with pytest.raises((ConfigError, ArgumentError), match=message):
        HyperparamConfig("x", **arguments)


@pytest.mark.parametrize("name", ["", ".", "a..b", "a.", 3, None])
def test_a_name_is_a_name(name) -> None:
    with pytest.raises(ArgumentError, match="name="):
        HyperparamConfig(name, 0.0, 1.0)


@pytest.mark.parametrize(
    "name", ["n_critics", "n_atoms", "v_min", "v_max", "n_steps", "net_arch", "value_head", "policy_kwargs.net_arch"]
)
def test_row_28_what_an_agent_is_built_of_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' belongs to an agent's structure"):
        HyperparamConfig(name, values=[1, 2])


def test_names_are_the_constructors() -> None:
    names = ["entropy_coef", "optimizer.sigma", "vgs.alpha", "kl.target"]
    assert [HyperparamConfig(name, 0.1, 1.0).name for name in names] == ["ent_coef", *names[1:]]


@pytest.mark.parametrize(
    "pair",
    [
        ("ent_coef", "ent_coef"),
        ("ent_coef", "entropy_coef"),
        ("optimizer.sigma", "optimizer_kwargs.sigma"),
        ("vgs.alpha", "vgs_alpha"),
        ("optimizer.lr", "learning_rate"),
    ],
)
def test_a_hyperparameter_in_two_spellings_is_one(pair) -> None:
    with pytest.raises(ConfigError, match=r"again\. Give each once"):
        SearchSpace([HyperparamConfig(name, 0.1, 1.0) for name in pair])


SPACE = SearchSpace(
    [HyperparamConfig("a", 0.0, 1.0), HyperparamConfig("n", 1, 9), HyperparamConfig("s", values=["xy"])]
)


def test_given_values_are_checked_and_get_their_types() -> None:
    space = SearchSpace([HyperparamConfig("ent_coef", 0.0, 1.0), HyperparamConfig("n", 1, 9)])
    checked = space.checked({"entropy_coef": 1, "n": 3.0}, "member 0")
    assert checked == {"ent_coef": 1.0, "n": 3}
    assert [type(value) for value in checked.values()] == [float, int]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"a": 0.5}, "member 0: 'n' is missing"),
        ({"a": 0.5, "n": 3, "m": 1}, "member 0: 'm' is no hyper-parameter here"),
        ({"a": 1.5, "n": 3}, "member 0: a=1.5 is outside of its range"),
        ({"a": 0.5, "n": 9}, "member 0: the constraint refuses"),
    ],
)
def test_given_values_that_do_not_fit_are_refused(values, message: str) -> None:
    space = SearchSpace([HyperparamConfig("a", 0.0, 1.0), HyperparamConfig("n", 1, 9)], lambda values: values["n"] < 9)
    with pytest.raises(ConfigError, match=message):
        space.checked(values, "member 0")


@given(st.integers(0, 2**32))
def test_b30_what_is_drawn_fits_together(seed: int) -> None:
    space = SearchSpace(
        [HyperparamConfig("a", 1, 100), HyperparamConfig("b", 1, 100)], lambda v: v["a"] % 2 == v["b"] % 2
    )
    drawn = space.sample(np.random.default_rng(seed))
    assert drawn["a"] % 2 == drawn["b"] % 2


def test_a_constraint_that_nothing_satisfies_is_an_error() -> None:
    space = SearchSpace([HyperparamConfig("a", 1, 100)], lambda values: False)
    with pytest.raises(ConfigError, match="The constraint refused 1000 draws"):
        space.sample(np.random.default_rng(0))
