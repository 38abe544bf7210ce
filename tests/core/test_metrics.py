import weakref

import pytest
import torch

from everlearn.core.metrics import Row, RunningMeans


class Witness:
    """Lives as long as the graph that holds it."""


@pytest.fixture
def means() -> RunningMeans:
    return RunningMeans()


def test_the_mean_is_over_the_calls_that_had_the_name(means: RunningMeans) -> None:
    means.add(Row.of({"loss": torch.tensor(1.0)}))
    means.add(Row.of({"loss": torch.tensor(2.0), "kl": torch.tensor(0.25)}))
    means.add(Row.of({"loss": torch.tensor(6.0)}))
    assert means.means() == {"loss": 3.0, "kl": 0.25}


def test_the_series_keeps_every_value_in_order(means: RunningMeans) -> None:
    for value in (2.0, -1.0, 0.5):
        means.add(Row.of({"loss": torch.tensor(value)}))
    assert means.series() == {"loss": [2.0, -1.0, 0.5]}


def test_a_value_is_read_once(means: RunningMeans) -> None:
    loss = torch.tensor(2.0)
    means.add(Row.of({"loss": loss}))
    assert means.means() == {"loss": 2.0}
    loss.fill_(5.0)
    means.add(Row.of({"loss": torch.tensor(4.0)}))
    assert means.series() == {"loss": [2.0, 4.0]}
    assert means.means() == {"loss": 3.0}


def test_nothing_added_is_nothing_reported(means: RunningMeans) -> None:
    assert means.means() == {}


def test_adding_does_not_read_the_value(means: RunningMeans) -> None:
    means.add(Row.of({"loss": torch.zeros((), device="meta")}))
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        means.means()


def test_adding_does_not_keep_the_graph_alive(means: RunningMeans) -> None:
    loss = torch.tensor(3.0, requires_grad=True).square()
    witness = Witness()
    loss.grad_fn.metadata["witness"] = witness
    alive = weakref.ref(witness)
    means.add(Row.of({"loss": loss}))
    del witness, loss
    assert alive() is None
    assert means.means() == {"loss": 9.0}
