import inspect

import pytest

from everlearn import DistributionalPPO
from everlearn.core.hyperparameter_names import STRUCTURAL, argument_name, is_structural, without_alias
from everlearn.ppo.hyperparameters import FIXED, HYPERPARAMETERS


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("gamma", "gamma"),
        ("entropy_coef", "ent_coef"),
        ("optimizer.sigma", "optimizer_kwargs.sigma"),
        ("optimizer_kwargs.sigma", "optimizer_kwargs.sigma"),
        ("optimizer.lr", "learning_rate"),
        ("optimizer_kwargs.lr", "learning_rate"),
        ("vgs.alpha", "vgs_alpha"),
        ("vgs.warmup_steps", "vgs_warmup_steps"),
        ("vgs.min_scale", "vgs_kwargs.min_scale"),
        ("kl.target", "kl_penalty.target"),
        ("optimizer", "optimizer"),
        ("my.own", "my.own"),
    ],
)
def test_every_spelling_leads_to_the_constructors_name(name: str, argument: str) -> None:
    assert argument_name(name) == argument
    assert argument_name(argument) == argument


def test_an_alias_is_replaced_and_a_path_is_kept() -> None:
    assert [without_alias(name) for name in ("entropy_coef", "optimizer.sigma")] == ["ent_coef", "optimizer.sigma"]


@pytest.mark.parametrize("name", ["n_steps", "value_head.n_quantiles", "policy_kwargs.net_arch", "vgs_kwargs", "v_min"])
def test_structure(name: str) -> None:
    assert is_structural(name)


@pytest.mark.parametrize("name", ["gamma", "optimizer.sigma", "vgs.min_scale", "kl.target", "entropy_coef", "my_own"])
def test_no_structure(name: str) -> None:
    assert not is_structural(name)


def test_row_28_what_is_structural_agrees_with_the_rules_of_the_model() -> None:
    """Every argument of the constructor may be assigned to a model or is structural; the rollout's size is both."""
    arguments = set(inspect.signature(DistributionalPPO).parameters) - {"_init_setup_model"}
    assert arguments - HYPERPARAMETERS.keys() <= STRUCTURAL
    assert STRUCTURAL & HYPERPARAMETERS.keys() == {"n_steps"}
    assert FIXED.keys() <= STRUCTURAL
