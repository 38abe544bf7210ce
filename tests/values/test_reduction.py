import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from everlearn.core.errors import ArgumentError
from everlearn.testing.heads import random_outputs
from everlearn.values import (
    CategoricalHead,
    QuantileDistribution,
    QuantileHead,
    Reduction,
    ScalarDistribution,
    ScalarHead,
    ValueDistribution,
    ValueHead,
    disagreement,
    reductions,
)

HEADS = [ScalarHead(), QuantileHead(), CategoricalHead()]
ALL = [reductions.build(name) for name in reductions]


def points(*critics: Sequence[float]) -> list[ValueDistribution]:
    return [ScalarDistribution(torch.tensor(values)) for values in critics]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("mean", [2.0, -1.0]),
        ("min", [1.0, -3.0]),
        ("lcb", [2.0 - (2 / 3) ** 0.5, -1.0 - (14 / 3) ** 0.5]),
        ({"kind": "lcb", "c": 0.0}, [2.0, -1.0]),
        ({"kind": "truncated", "fraction": 1 / 3}, [1.5, -2.5]),
        ({"kind": "truncated", "fraction": 0.5}, [4 / 3, -8 / 3]),
    ],
)
def test_reductions_of_three_critics(spec: Any, expected: list[float]) -> None:
    value = reductions.build(spec)(points([1.0, -3.0], [2.0, -2.0], [3.0, 2.0]))
    assert value.tolist() == pytest.approx(expected)


def test_the_lower_bound_of_two_critics_is_their_minimum() -> None:
    critics = points([1.0, 5.0], [4.0, 5.0])
    assert_close(reductions.build("lcb")(critics), reductions.build("min")(critics))


def test_truncation_drops_the_two_highest_of_32_quantiles_per_critic() -> None:
    critics = torch.randn(2, 3, 32)
    value = reductions.build("truncated")([QuantileDistribution(quantiles, 1.0) for quantiles in critics])
    pooled = torch.cat(list(critics), dim=-1).sort(dim=-1).values
    assert_close(value, pooled[:, :-4].mean(-1))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("reduction", ALL, ids=list(reductions))
def test_a_reduction_gives_one_value_per_sample_between_the_critics_means_or_below(
    head: ValueHead, reduction: Reduction
) -> None:
    critics = [head.distribution(random_outputs(head, seed)) for seed in range(3)]
    value, means = reduction(critics), torch.stack([critic.mean for critic in critics])
    assert value.shape == (5,)
    assert (value <= means.mean(0) + 1e-6).all()


@pytest.mark.parametrize("name", ["mean", "min", "lcb"])
@pytest.mark.parametrize("head", HEADS)
def test_one_critic_is_its_own_reduction_to_the_bit(head: ValueHead, name: str) -> None:
    critic = head.distribution(random_outputs(head))
    assert torch.equal(reductions.build(name)([critic]), critic.mean)


@pytest.mark.parametrize("reduction", ALL, ids=list(reductions))
def test_the_order_of_critics_does_not_matter(reduction: Reduction) -> None:
    """B25."""
    critics = [QuantileHead().distribution(torch.randn(4, 32)) for _ in range(3)]
    assert_close(reduction(critics[::-1]), reduction(critics))


@pytest.mark.parametrize("reduction", ALL, ids=list(reductions))
def test_a_reduction_follows_a_change_of_unit(reduction: Reduction) -> None:
    """Reducing in the head's unit and converting equals converting and reducing."""

    def reduced(quantiles: Tensor) -> Tensor:
        return reduction([QuantileDistribution(each, 1.0) for each in quantiles])

    quantiles = torch.randn(2, 4, 32)
    assert_close(reduced(7.0 * quantiles - 3.0), 7.0 * reduced(quantiles) - 3.0)


def test_disagreement_is_the_standard_deviation_over_critics() -> None:
    assert disagreement(points([1.0, 4.0], [3.0, 4.0])).tolist() == [1.0, 0.0]


def test_one_critic_agrees_with_itself_without_a_warning() -> None:
    assert disagreement(points([1.0, -7.0])).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "lcb", "c": -1.0}, "c=-1"),
        ({"kind": "lcb", "c": math.inf}, "c=inf"),
        ({"kind": "truncated", "fraction": 1.0}, "fraction"),
        ({"kind": "truncated", "fraction": -0.1}, "fraction"),
    ],
)
def test_arguments_outside_of_their_range_are_refused(spec: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        reductions.build(spec)
