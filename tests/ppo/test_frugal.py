"""What is built from a file takes no more than the file's size, and no time for what will be overwritten."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from everlearn.checkpoint.errors import TooLarge
from everlearn.ppo.frugal import frugal

SMALL = {"w": torch.zeros(4)}


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.empty(10**12),
        lambda: torch.zeros(10**6, 10**6),
        lambda: torch.ones(10**12),
        lambda: torch.full((10**12,), 1.0),
        lambda: torch.rand(10**12),
        lambda: torch.randn(10**12),
        lambda: torch.linspace(0, 1, 10**12),
        lambda: torch.arange(10**12),
        lambda: torch.arange(0, 10**12),
        lambda: torch.arange(0, 10**12, 2),
        lambda: torch.eye(10**6),
        lambda: torch.empty_strided((10**6, 10**6), (10**6, 1)),
        lambda: torch.zeros(1).new_empty(10**12),
        lambda: torch.zeros(1).new_zeros(10**12),
        lambda: torch.zeros(1).new_ones(10**12),
        lambda: torch.zeros(1).new_full((10**12,), 2.0),
        lambda: nn.Linear(10**6, 10**6),
    ],
)
def test_row_7_whatever_makes_a_huge_tensor_is_refused_before_it_is_made(make: object) -> None:
    """Row 7 of the failure modes."""
    with (
        pytest.raises(TooLarge, match=r"a\.zip, config\.json: .* far beyond the 4 weights"),
        frugal(SMALL, "a.zip", 1.0, nn.Linear, {}),
    ):
        make()  # type: ignore[operator]


def test_row_7_a_million_small_tensors_are_refused_too() -> None:
    """Row 7 of the failure modes."""
    with pytest.raises(TooLarge), frugal(SMALL, "a.zip", 1.0, nn.Linear, {}):
        for _ in range(10**6):
            nn.Linear(1, 1)


def test_the_allowance_grows_with_the_weights() -> None:
    with frugal({"w": torch.zeros(300_000)}, "a.zip", 1.0, nn.Linear, {}):
        assert torch.zeros(10_000_000).numel() == 10_000_000


def test_parameters_are_not_initialised_and_other_tensors_are() -> None:
    state = torch.get_rng_state()
    with frugal(SMALL, "a.zip", 1.0, nn.Linear, {}):
        layer = nn.Linear(30, 30)
        nn.init.normal_(layer.weight)
        assert torch.equal(torch.get_rng_state(), state)
        other = nn.init.constant_(torch.empty(3), 2.0)
    assert other.tolist() == [2.0, 2.0, 2.0]
    nn.init.constant_(layer.weight, 3.0)
    assert layer.weight.unique().tolist() == [3.0]
