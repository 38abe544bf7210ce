import numpy as np
import pytest

from everlearn.core.errors import StateError
from everlearn.population.config import PBTConfig
from everlearn.population.decisions import decide, hyperparams_after
from everlearn.population.members import Record
from everlearn.population.space import HyperparamConfig

SPACE = [HyperparamConfig("x", 1.0, 100.0)]


def config(**changes) -> PBTConfig:
    return PBTConfig(**{"population_size": 4, "hyperparams": SPACE, "explore_method": "perturb", **changes})


def records(*scores: float | None) -> list[Record]:
    return [Record(number, {"x": 10.0 * (number + 1)}, score) for number, score in enumerate(scores)]


def test_b31_every_member_of_a_generation_gets_a_decision_in_order() -> None:
    decisions = decide(records(3.0, 1.0, 2.0, 4.0), config(), np.random.default_rng(0))
    assert [decision.member_id for decision in decisions] == [0, 1, 2, 3]
    assert [decision.sources for decision in decisions] == [(), (3, 0, 2), (), ()]
    assert len({decision.seed for decision in decisions}) == 4


def test_the_same_records_rules_and_generator_decide_the_same(untouched_generators: None) -> None:
    population, rules = records(3.0, 1.0, None, 4.0), config(exploit_method="binary_tournament")
    first, second = (decide(population, rules, np.random.default_rng(5)) for _ in range(2))
    other = decide(population, rules, np.random.default_rng(6))
    assert first == second != other


def test_a_generator_that_goes_on_is_all_that_has_to_be_remembered() -> None:
    population, rules = records(3.0, 1.0, 2.0, 4.0), config(exploit_method="binary_tournament")
    original = np.random.default_rng(0)
    decide(population, rules, original)
    restored = np.random.default_rng(1)
    restored.bit_generator.state = original.bit_generator.state
    assert decide(population, rules, original) == decide(population, rules, restored)


def test_decisions_about_some_look_at_all() -> None:
    (decision,) = decide(records(3.0, 1.0, 2.0, 4.0), config(), np.random.default_rng(0), targets={1})
    assert (decision.member_id, decision.sources) == (1, (3, 0, 2))


def test_after_an_exploit_hyperparameters_are_the_sources_explored() -> None:
    population = records(3.0, 1.0, 2.0, 4.0)
    decision = decide(population, config(), np.random.default_rng(0))[1]
    assert hyperparams_after(decision, 3, population, config())["x"] in (48.0, 40.0 / 1.2)
    assert hyperparams_after(decision, 0, population, config())["x"] in (12.0, 10.0 / 1.2)
    assert hyperparams_after(decision, 3, population, config()) == hyperparams_after(decision, 3, population, config())


def test_without_an_exploit_hyperparameters_stay() -> None:
    population = records(3.0, 1.0, 2.0, 4.0)
    for decision in decide(population, config(), np.random.default_rng(0)):
        own = {"x": 10.0 * (decision.member_id + 1)}
        assert hyperparams_after(decision, None, population, config()) == own


def test_mutate_all_changes_all_but_the_best() -> None:
    population, rules = records(3.0, 1.0, 2.0, 4.0), config(mutate_all=True)
    decisions = decide(population, rules, np.random.default_rng(0))
    after = [hyperparams_after(decision, None, population, rules)["x"] for decision in decisions]
    assert [value == 10.0 * (number + 1) for number, value in enumerate(after)] == [False, False, False, True]


def test_mutate_all_spares_nobody_where_nobody_has_a_score() -> None:
    population, rules = records(None, None), config(population_size=2, mutate_all=True)
    decisions = decide(population, rules, np.random.default_rng(0))
    assert all(hyperparams_after(each, None, population, rules) != population[0].hyperparams for each in decisions)


def test_what_is_explored_fits_together_or_stays() -> None:
    space = [HyperparamConfig("a", 1, 100), HyperparamConfig("b", 1, 100)]
    rules = config(hyperparams=space, constraint=lambda values: values["a"] % 2 == values["b"] % 2)
    never = config(hyperparams=space, constraint=lambda values: False)
    population = [Record(0, {"a": 51, "b": 49}, 1.0), Record(1, {"a": 1, "b": 3}, 2.0)]
    for seed in range(20):
        decision = decide(population, rules, np.random.default_rng(seed))[0]
        values = hyperparams_after(decision, 1, population, rules)
        assert values["a"] % 2 == values["b"] % 2
        assert hyperparams_after(decision, 1, population, never) == {"a": 1, "b": 3}


def test_a_member_without_a_record_is_an_error() -> None:
    population = records(1.0, 2.0)
    decision = decide(population, config(), np.random.default_rng(0))[0]
    with pytest.raises(StateError, match="no record of member 'x'"):
        hyperparams_after(decision, "x", population, config())
