import random
from typing import Any

import numpy as np
import pytest
import torch

from everlearn.core.rng import (
    GlobalGenerators,
    kept_generators,
    private_generator,
    private_seed,
    seeded_generators,
)


def draw_from_all() -> list[float]:
    """The second normal of a pair is held back by python's and numpy's generators: a part of their state."""
    return [random.gauss(0, 1), random.random(), np.random.randn(), np.random.rand(), torch.randn(()).item()]


@pytest.mark.usefixtures("untouched_generators")
def test_private_randomness_leaves_the_global_generators_alone() -> None:
    torch.randn(3, generator=private_generator(private_seed("noise", 1)))


def test_a_private_seed_follows_from_the_global_seed() -> None:
    first = private_seed("noise")
    torch.manual_seed(1)
    other = private_seed("noise")
    torch.manual_seed(0)
    assert private_seed("noise") == first != other


def test_a_private_seed_follows_what_has_been_drawn() -> None:
    before = private_seed("noise")
    torch.rand(1)
    assert private_seed("noise") != before


def test_different_labels_give_different_seeds() -> None:
    labels = [(), ("noise",), ("noise", 0), ("noise", 1), ("noise", "1"), ("noise1",), ("table", 1)]
    assert len({private_seed(*each) for each in labels}) == len(labels)


def test_a_private_seed_fits_every_generator() -> None:
    seeds = [private_seed(label) for label in range(200)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62


def test_private_generators_of_one_seed_draw_alike() -> None:
    first, second, other = (torch.randn(8, generator=private_generator(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_the_global_generators_go_on_from_a_snapshot() -> None:
    draw_from_all()
    snapshot = GlobalGenerators().state_dict()
    expected = [draw_from_all() for _ in range(3)]
    assert draw_from_all() != expected[0]

    GlobalGenerators().load_state_dict(snapshot)

    assert [draw_from_all() for _ in range(3)] == expected


def test_the_snapshot_holds_plain_values_and_tensors_only() -> None:
    draw_from_all()
    assert_plain(GlobalGenerators().state_dict())


def assert_plain(node: Any) -> None:
    if isinstance(node, dict):
        assert all(type(key) is str for key in node)
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            assert_plain(child)
    else:
        assert node is None or type(node) in (int, float, str, torch.Tensor)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_generators_go_on_from_the_snapshot_of_a_machine_with_more_devices() -> None:
    torch.cuda.init()
    snapshot = GlobalGenerators().state_dict()
    expected = torch.randn(4, device="cuda")
    states = [*snapshot["cuda"], snapshot["cuda"][0]]
    GlobalGenerators().load_state_dict({**snapshot, "cuda": states})
    assert torch.equal(torch.randn(4, device="cuda"), expected)


@pytest.mark.usefixtures("untouched_generators")
def test_what_seeded_generators_are_is_known_without_seeding_them() -> None:
    seed = 2**62 + 3
    with kept_generators():
        GlobalGenerators().load_state_dict(seeded_generators(seed))
        found = draw_from_all()
        random.seed(seed)
        np.random.seed(3)
        torch.manual_seed(seed)
        assert found == draw_from_all()
