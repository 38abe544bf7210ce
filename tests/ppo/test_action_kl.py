"""The divergence between two batches of action distributions is torch's, and that of several parts their sum."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.distributions import Bernoulli, Categorical, Laplace, Normal, kl_divergence

from everlearn.ppo.action_kl import action_kl, action_parameters


def normal(seed: int) -> Normal:
    rng = torch.Generator().manual_seed(seed)
    return Normal(torch.randn(5, 3, generator=rng), torch.rand(5, 3, generator=rng) + 0.1)


def categorical(seed: int, size: int = 4) -> Categorical:
    return Categorical(logits=torch.randn(5, size, generator=torch.Generator().manual_seed(seed)))


def bernoulli(seed: int) -> Bernoulli:
    return Bernoulli(logits=torch.randn(5, 3, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize(("family", "dims"), [(normal, 1), (categorical, 0), (bernoulli, 1)])
def test_it_is_torchs_own(family: Any, dims: int) -> None:
    old, new = family(0), family(1)
    theirs = kl_divergence(old, new)
    found = action_kl(new, action_parameters(old))
    assert torch.allclose(found, theirs.sum(-1) if dims else theirs, atol=1e-6)
    assert found.min() > 0.01


def test_of_several_numbers_it_is_the_sum_over_them() -> None:
    old, new = [categorical(0), categorical(1, 2)], [categorical(2), categorical(3, 2)]
    expected = kl_divergence(old[0], new[0]) + kl_divergence(old[1], new[1])
    assert torch.allclose(action_kl(new, action_parameters(old)), expected, atol=1e-6)


@pytest.mark.parametrize("distribution", [normal(0), categorical(0), bernoulli(0), [categorical(0), categorical(1)]])
def test_between_equals_it_is_nothing(distribution: Any) -> None:
    assert torch.allclose(action_kl(distribution, action_parameters(distribution)), torch.zeros(5), atol=1e-6)


def test_without_a_closed_form_there_are_no_parameters_and_asking_for_it_is_an_error() -> None:
    laplace = Laplace(torch.zeros(2), torch.ones(2))
    assert action_parameters(laplace) is None
    with pytest.raises(TypeError, match="Laplace has no closed form"):
        action_kl(laplace, torch.zeros(2))
