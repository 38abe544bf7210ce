import copy
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError
from everlearn.optim import UPGD
from everlearn.optim.noise import TABLE_SIZE, NoiseStream, make_stream
from everlearn.testing.optimizers import held, random_parameters, same, take_step, take_steps, through_a_file, values

KINDS = ["generator", "table"]
CPU = torch.device("cpu")


def draws(stream: NoiseStream, count: int, size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """(count, size) numbers."""
    return torch.stack([stream.draw(size, dtype, CPU).clone() for _ in range(count)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("count", "size"), [(400, 3_000), (4, TABLE_SIZE // 2 + 5)])
def test_the_numbers_have_the_moments_of_a_standard_normal(kind, count, size):
    numbers = draws(make_stream(kind, seed=0), count, size).double()
    assert numbers.mean().item() == pytest.approx(0.0, abs=0.006)
    assert numbers.var().item() == pytest.approx(1.0, abs=0.01)
    assert (numbers**3).mean().item() == pytest.approx(0.0, abs=0.02)
    assert (numbers**4).mean().item() == pytest.approx(3.0, abs=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_sees_mean_zero_and_variance_one_over_the_steps(kind):
    numbers = draws(make_stream(kind, seed=0), 5_000, 8)
    assert numbers.mean(dim=0).abs().max().item() < 0.06
    assert (numbers.var(dim=0) - 1).abs().max().item() < 0.1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lag", [1, 2, 7])
def test_steps_do_not_know_each_other(kind, lag):
    numbers = draws(make_stream(kind, seed=0), 60, 10_000)
    assert (numbers[lag:] * numbers[:-lag]).mean().abs().item() < 0.008


@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_do_not_know_each_other(kind):
    numbers = draws(make_stream(kind, seed=0), 60, 10_000)
    assert (numbers[:, 1:] * numbers[:, :-1]).mean().abs().item() < 0.008


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_one_sequence_and_another_seed_another(kind):
    first, again, other = (draws(make_stream(kind, seed), 3, 50) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first[0], other[0])
    assert all(not torch.equal(before, after) for before, after in pairwise(first))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 2, 33, TABLE_SIZE // 2, TABLE_SIZE // 2 + 1, TABLE_SIZE + 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_draw_has_the_wanted_size_and_dtype(kind, size, dtype):
    numbers = make_stream(kind, seed=0).draw(size, dtype, CPU)
    assert numbers.shape == (size,)
    assert numbers.dtype == dtype


def test_the_pieces_of_a_large_draw_from_the_table_differ():
    numbers = make_stream("table", seed=0).draw(TABLE_SIZE, torch.float32, CPU)
    assert not torch.equal(numbers[:1000], numbers[TABLE_SIZE // 2 :][:1000])


def test_the_table_holds_the_negative_of_every_number():
    """So a weight that meets the same place of the table again is as likely to be pushed back."""
    numbers = draws(make_stream("table", seed=0), 20_000, 1).flatten()
    positive, negative = numbers[numbers > 0].tolist(), (-numbers[numbers < 0]).tolist()
    assert len(set(positive) & set(negative)) > 30


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_stream_continues_where_it_stood(kind):
    stream, other = make_stream(kind, seed=1), make_stream(kind, seed=2)
    for each in (stream, other):
        draws(each, 3, 100)
    saved = through_a_file(stream.state_dict())
    expected = draws(stream, 3, 100)
    other.load_state_dict(saved)
    assert same(other.state_dict(), saved)
    assert torch.equal(draws(other, 3, 100), expected)


def test_the_state_of_the_table_is_two_integers():
    stream = make_stream("table", seed=5)
    draws(stream, 3, 10)
    assert stream.state_dict() == {"kind": "table", "seed": 5, "counter": 3}


def test_a_stream_saved_on_a_device_that_is_missing_here_begins_from_its_seed():
    """Files of a GPU load on a machine without one, and go back to it unharmed."""
    there = {"kind": "generator", "seed": 4, "generators": {"cuda:0": torch.arange(16, dtype=torch.uint8)}}
    stream = make_stream("generator", seed=1)
    stream.load_state_dict(there)
    assert torch.equal(draws(stream, 1, 10), draws(make_stream("generator", seed=4), 1, 10))
    assert torch.equal(stream.state_dict()["generators"]["cuda:0"], there["generators"]["cuda:0"])


def test_an_unknown_source_is_refused_with_a_suggestion():
    with pytest.raises(ArgumentError, match="Did you mean 'table'"):
        make_stream("tabel", 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("untouched_generators")
def test_no_global_generator_is_advanced(kind):
    """Else noise would change the actions that are sampled, and runs with and without it could not be compared."""
    draws(make_stream(kind, seed=0), 2, 10)


# --- in an optimizer -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_without_sigma_nothing_is_drawn(kind):
    optimizer = UPGD(random_parameters((5,)), sigma=0.0, noise=kind)
    before = optimizer.state_dict()["noise"]
    take_steps(optimizer, range(3))
    assert same(optimizer.state_dict()["noise"], before)


def test_noise_can_be_switched_off_on_the_way():
    optimizer = UPGD(random_parameters((5,)), lr=0.1, weight_decay=0.0, adaptive_noise=True, min_noise_std=0.1)
    nothing = [torch.zeros(5)]
    take_step(optimizer, nothing)
    before = values(optimizer)
    optimizer.param_groups[0]["sigma"] = 0.0
    take_step(optimizer, nothing)
    assert same(values(optimizer), before)


def test_a_group_without_sigma_takes_no_noise_and_uses_none_up():
    """Biases, gains of norms and log-standard-deviations go into such a group."""
    options = {"lr": 0.1, "weight_decay": 0.0, "scope": "tensor", "seed": 0}
    noisy, quiet = ({"params": random_parameters((size,)), "sigma": sigma} for size, sigma in ((40, 1.0), (9, 0.0)))
    beside = UPGD(copy.deepcopy([quiet, noisy]), **options)
    alone, silent = UPGD([noisy], **options), UPGD([quiet], **options)
    for optimizer in (beside, alone, silent):
        take_step(optimizer, [torch.ones_like(param) for param in held(optimizer)])
    assert same(values(beside), [*values(silent), *values(alone)])


@pytest.mark.parametrize("kind", KINDS)
def test_the_default_seed_follows_from_torchs_and_a_given_one_overrules_it(kind):
    def after(global_seed: int, seed: int | None) -> list[Tensor]:
        torch.manual_seed(global_seed)
        optimizer = UPGD(random_parameters((30,)), lr=0.1, sigma=1.0, noise=kind, seed=seed)
        take_steps(optimizer, range(2))
        return values(optimizer)

    assert same(after(1, None), after(1, None))
    assert not same(after(1, None), after(2, None))
    assert same(after(1, 8), after(2, 8))
