import math

import pytest

from everlearn.core.errors import (
    ArgumentError,
    ConfigError,
    EverlearnError,
    MissingExtraError,
    NonFiniteError,
    OrderError,
    StateError,
    require_in_range,
    suggestion,
)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (ArgumentError, ValueError),
        (ConfigError, ValueError),
        (StateError, ValueError),
        (NonFiniteError, ValueError),
        (OrderError, RuntimeError),
        (MissingExtraError, ImportError),
    ],
)
def test_each_error_belongs_to_the_family_and_to_python(error: type, builtin: type) -> None:
    assert issubclass(error, EverlearnError)
    assert issubclass(error, builtin)


def test_a_missing_extra_names_the_feature_the_package_and_the_remedy() -> None:
    message = str(MissingExtraError("The environment Ant-v5", "mujoco", "mujoco"))
    assert message == (
        "The environment Ant-v5 needs the package 'mujoco', which is not installed. "
        "Install it with: pip install 'everlearn[mujoco]'"
    )


def test_a_misspelt_word_gets_the_nearest_known_one() -> None:
    assert suggestion("clip_rage", ["ent_coef", "clip_range"]) == " Did you mean 'clip_range'?"


def test_a_strange_word_gets_everything_known_in_order() -> None:
    assert suggestion("xyz", ["ent_coef", "clip_range"]) == " Known: clip_range, ent_coef."


@pytest.mark.parametrize(("value", "low", "high"), [(0.0, 0.0, 1.0), (1.0, 0.0, 1.0), (1e30, 0.0, math.inf)])
def test_a_closed_side_admits_its_bound(value: float, low: float, high: float) -> None:
    require_in_range("beta", value, low, high)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf, -math.inf])
def test_a_value_outside_the_range_is_refused(value: float) -> None:
    with pytest.raises(ArgumentError):
        require_in_range("beta", value, 0.0, 1.0)


def test_an_open_side_refuses_its_bound_and_only_that() -> None:
    require_in_range("beta", 1.0, 0.0, 1.0, open_low=True)
    require_in_range("beta", 0.0, 0.0, 1.0, open_high=True)
    with pytest.raises(ArgumentError):
        require_in_range("beta", 0.0, 0.0, 1.0, open_low=True)
    with pytest.raises(ArgumentError):
        require_in_range("beta", 1.0, 0.0, 1.0, open_high=True)


def test_infinity_is_refused_where_there_is_no_upper_bound() -> None:
    with pytest.raises(ArgumentError):
        require_in_range("lr", math.inf, 0.0)


@pytest.mark.parametrize(
    ("options", "interval"),
    [
        ({"high": 1.0}, "[0, 1]"),
        ({"high": 1.0, "open_low": True, "open_high": True}, "(0, 1)"),
        ({}, "[0, inf)"),
    ],
)
def test_the_refusal_names_the_argument_its_value_and_the_range(options: dict, interval: str) -> None:
    with pytest.raises(ArgumentError) as refusal:
        require_in_range("lr", -2.5, 0.0, **options)
    assert str(refusal.value) == f"lr=-2.5 is outside {interval}. Choose a value inside this range."
