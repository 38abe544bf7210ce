"""A population goes on by its own rules."""

from typing import Any

import pytest

from everlearn import HyperparamConfig, PBTConfig
from everlearn.core.errors import ConfigError
from everlearn.population.exploit import KTournament
from everlearn.population.journal_rules import require_plain, require_same_rules, rules_of
from everlearn.population.space import SearchSpace


def rules(**changes: Any) -> PBTConfig:
    values = {"hyperparams": [HyperparamConfig("learning_rate", 1e-5, 1e-2)], "checkpoint_dir": None, **changes}
    return PBTConfig(4, **values)


SAME = (
    {"checkpoint_dir": "elsewhere"},
    {"exploit_method": {"kind": "k_tournament", "size": 3}},
    {"exploit_method": KTournament(3)},
    {"hyperparams": [HyperparamConfig("n", values=(1, 2))]},
    {"hyperparams": (HyperparamConfig("n", values=[1, 2]),)},
)


@pytest.mark.parametrize("changes", SAME)
def test_the_same_rules_are_the_same(changes) -> None:
    require_same_rules(rules(**changes), {}, 5, {"total_updates": 5, "rules": rules_of(rules(**changes), {})})


OTHERS = (
    ({"perturbation_interval": 6}, "perturbation_interval: 5, and the configuration says 6"),
    ({"metric_mode": "min"}, "metric_mode: 'max', and the configuration says 'min'"),
    ({"exploit_method": {"kind": "k_tournament", "size": 3}}, "exploit_method"),
    ({"exploit_method": KTournament(3)}, "exploit_method: 'truncation', and the configuration says KTournament"),
    ({"hyperparams": [HyperparamConfig("learning_rate", 1e-6, 1e-2)]}, r"hyperparams.learning_rate: 1e-05, .*1e-06"),
    ({"hyperparams": [HyperparamConfig("ent_coef", 0.0, 0.1)]}, r"hyperparams.learning_rate: .* says None"),
    ({"hyperparam_mutations": {"gamma": [0.9, 0.99]}}, r"hyperparams.gamma: None"),
)


@pytest.mark.parametrize(("changes", "message"), OTHERS)
def test_other_rules_are_refused_by_name(changes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        require_same_rules(rules(**changes), {}, 5, {"total_updates": 5, "rules": rules_of(rules(), {})})


def test_another_length_is_refused() -> None:
    with pytest.raises(ConfigError, match="total_updates: 5, and the configuration says 7"):
        require_same_rules(rules(), {}, 7, {"total_updates": 5, "rules": rules_of(rules(), {})})


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), {1, 2}, len, b"x"])
def test_a_value_that_no_journal_can_keep_is_refused_at_the_beginning(value) -> None:
    with pytest.raises(ConfigError, match=r"target_kl: the value .* cannot be kept in a journal"):
        require_plain(SearchSpace([HyperparamConfig("target_kl", values=[None, value])]))


def test_plain_values_are_accepted() -> None:
    values = [None, True, 3, 0.5, "x", (1, (2.0, "y")), {"a": [1]}]
    require_plain(SearchSpace([HyperparamConfig("target_kl", values=values, default=3)]))


def test_other_settings_are_refused_by_name() -> None:
    about = {"total_updates": 5, "rules": rules_of(rules(), {"algorithm.n_epochs": 2})}
    require_same_rules(rules(), {"algorithm.n_epochs": 2}, 5, about)
    with pytest.raises(ConfigError, match=r"algorithm.n_epochs: 2, and the configuration says 3"):
        require_same_rules(rules(), {"algorithm.n_epochs": 3}, 5, about)
