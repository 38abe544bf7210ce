"""The laws of every value head: subclass ``ValueHeadConformance`` and give it a ``head`` fixture."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing import assert_close

from everlearn.core.errors import ArgumentError
from everlearn.core.rng import private_generator
from everlearn.values.head import ValueDistribution, ValueHead

BATCH = 5


def random_outputs(head: ValueHead, seed: int = 0, batch: int = BATCH) -> Tensor:
    """What an untrained network may put out, (batch, n_outputs)."""
    return torch.randn(batch, head.n_outputs, generator=private_generator(seed))


def fitted_layer(head: ValueHead, returns: Tensor, steps: int = 200) -> nn.Linear:
    """A last layer that minimises the loss: its i-th column, with the bias, predicts the i-th return."""
    layer = nn.Linear(len(returns), head.n_outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.2)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.2 * (1 - step / steps)
        optimizer.zero_grad()
        predicted(head, layer).loss(returns).sum().backward()
        optimizer.step()
    return layer


def predicted(head: ValueHead, layer: nn.Linear) -> ValueDistribution:
    """The distributions that a fitted layer predicts, one per return it was fitted to."""
    return head.distribution(layer(torch.eye(layer.in_features)))


def readings(head: ValueHead, outputs: Tensor, returns: Tensor) -> tuple[Tensor, ...]:
    """Everything that a distribution tells, as one function of tensors; each is (batch,) or (batch, n)."""
    distribution = head.distribution(outputs)
    tail = max(0.5, distribution.tail_resolution)
    moved = distribution.shift(0.1 * returns)
    metrics = distribution.mean, distribution.spread, distribution.cvar(tail), *distribution.atoms()
    return *metrics, distribution.loss(returns), moved.loss(returns), distribution.recentre(returns).mean


class ValueHeadConformance:
    """Laws of a value head; tolerances are in the head's unit, and a subclass may widen them.

    A subclass has a fixture ``head`` that returns the head, able to predict returns from -2 to 2.
    """

    fit_tolerance: ClassVar[float] = 0.01
    shift_tolerance: ClassVar[float] = 1e-5
    rescale_tolerance: ClassVar[float] = 1e-4
    returns: ClassVar[Tensor] = torch.tensor([-1.5, -0.7, 0.0, 0.4, 1.3])

    @pytest.fixture
    def distribution(self, head: ValueHead) -> ValueDistribution:
        """What an untrained network predicts."""
        return head.distribution(random_outputs(head))

    @pytest.fixture
    def layer(self, head: ValueHead) -> nn.Linear:
        """A last layer that has learned to predict ``returns``."""
        return fitted_layer(head, self.returns)

    @pytest.mark.parametrize("batch", [1, BATCH])
    def test_b21_every_tensor_has_the_batch_as_its_leading_size(self, head: ValueHead, batch: int) -> None:
        """B21, and B40 for a batch of one."""
        shapes = {each.shape for each in readings(head, random_outputs(head, batch=batch), torch.zeros(batch))}
        assert {shape[0] for shape in shapes} == {batch}
        assert {len(shape) for shape in shapes} == {1, 2}

    def test_b21_returns_that_would_broadcast_are_refused(self, distribution: ValueDistribution) -> None:
        """B21: (batch, 1) against (batch,) would make a batch-by-batch loss."""
        with pytest.raises(ArgumentError, match="returns has the shape"):
            distribution.loss(self.returns.unsqueeze(-1))
        with pytest.raises(ArgumentError, match="returns has the shape"):
            distribution.loss(self.returns[:1])

    def test_samples_do_not_influence_each_other(self, head: ValueHead) -> None:
        """Another first row changes the first entry of each reading, and no other."""
        outputs, others = random_outputs(head, 0), random_outputs(head, 1)
        changed = torch.cat([others[:1], outputs[1:]])
        for before, after in zip(
            readings(head, outputs, self.returns), readings(head, changed, self.returns), strict=True
        ):
            assert_close(after[1:], before[1:])
        assert not torch.equal(head.distribution(changed).mean[0], head.distribution(outputs).mean[0])

    def test_b40_a_batch_of_one_reads_like_a_row_of_a_larger_batch(self, head: ValueHead) -> None:
        """B40."""
        outputs = random_outputs(head)
        whole = readings(head, outputs, self.returns)
        alone = readings(head, outputs[2:3], self.returns[2:3])
        for row, single in zip(whole, alone, strict=True):
            assert_close(single, row[2:3])

    def test_reading_leaves_the_outputs_as_they_were(self, head: ValueHead) -> None:
        """Nothing works in place on what it is given."""
        outputs, returns = random_outputs(head), self.returns.clone()
        readings(head, outputs, returns)
        assert torch.equal(outputs, random_outputs(head))
        assert torch.equal(returns, self.returns)

    def test_atoms_are_a_distribution_with_the_mean(self, distribution: ValueDistribution) -> None:
        """Probabilities are not negative and sum to 1; ``mean`` is theirs."""
        positions, probabilities = distribution.atoms()
        assert (probabilities >= 0).all()
        assert_close(probabilities.sum(-1), torch.ones(BATCH))
        assert_close((positions * probabilities).sum(-1), distribution.mean)

    def test_minimising_the_loss_makes_the_mean_the_return(self, head: ValueHead, layer: nn.Linear) -> None:
        """The loss is lowest where the prediction is right."""
        assert_close(predicted(head, layer).mean, self.returns, atol=self.fit_tolerance, rtol=0.0)

    def test_b22_the_loss_has_a_gradient_for_every_output(self, head: ValueHead) -> None:
        """B22: no output of the network is left without a teacher."""
        outputs = random_outputs(head).requires_grad_()
        (gradient,) = torch.autograd.grad(head.distribution(outputs).loss(self.returns + 0.01).sum(), outputs)
        assert torch.isfinite(gradient).all()
        assert (gradient != 0).all()

    @pytest.mark.parametrize("delta", [-0.5, 0.03, 0.6])
    def test_shift_moves_the_mean_by_delta(self, head: ValueHead, layer: nn.Linear, delta: float) -> None:
        """As far as the head can represent it."""
        before = predicted(head, layer)
        after = before.shift(torch.full_like(self.returns, delta))
        assert_close(after.mean, before.mean + delta, atol=self.shift_tolerance, rtol=0.0)

    def test_a_shift_of_zero_changes_nothing(self, distribution: ValueDistribution) -> None:
        """Value clipping inside of the range is no clipping."""
        same = distribution.shift(torch.zeros(BATCH))
        for before, after in zip(distribution.atoms(), same.atoms(), strict=True):
            assert_close(after, before)
        assert_close(same.loss(self.returns), distribution.loss(self.returns))

    def test_recentre_puts_the_mean_where_it_is_told(self, head: ValueHead, layer: nn.Linear) -> None:
        """As far as the head can represent it."""
        wanted = self.returns.flip(0)
        assert_close(predicted(head, layer).recentre(wanted).mean, wanted, atol=self.shift_tolerance, rtol=0.0)

    def test_cvar_of_everything_is_the_mean(self, distribution: ValueDistribution) -> None:
        """The worst share of 1 is all."""
        assert_close(distribution.cvar(1.0), distribution.mean)

    def test_cvar_never_falls_as_alpha_grows(self, distribution: ValueDistribution) -> None:
        """A larger share of the worst returns has better ones in it."""
        shares = torch.linspace(max(0.01, distribution.tail_resolution), 1.0, 20).clamp(max=1.0).tolist()
        tails = torch.stack([distribution.cvar(max(share, distribution.tail_resolution)) for share in shares])
        assert (tails.diff(dim=0) >= -1e-5).all()

    @pytest.mark.parametrize("alpha", [-0.1, 0.0, 1.01, float("nan")])
    def test_cvar_refuses_a_share_that_is_none(self, distribution: ValueDistribution, alpha: float) -> None:
        """Shares of probability are above 0 and at most 1."""
        with pytest.raises(ArgumentError, match="alpha"):
            distribution.cvar(alpha)

    def test_spread_is_small_where_one_return_was_always_seen(self, head: ValueHead, layer: nn.Linear) -> None:
        """A standard deviation: never negative, and not above a few bins."""
        spread = predicted(head, layer).spread
        assert (spread >= 0).all()
        assert (spread <= 0.5).all()

    def test_a_traced_graph_reads_other_data_as_eager_does(self, head: ValueHead) -> None:
        """No value of a tensor is burnt in."""
        traced = make_fx(lambda outputs, returns: readings(head, outputs, returns))(
            random_outputs(head, 0), self.returns
        )
        outputs, returns = random_outputs(head, 1), self.returns.flip(0)
        for graph, eager in zip(traced(outputs, returns), readings(head, outputs, returns), strict=True):
            assert_close(graph, eager)

    def test_vmap_over_members_equals_a_loop(self, head: ValueHead) -> None:
        """A population is one more leading dimension, for values and gradients."""

        def loss(outputs: Tensor, returns: Tensor) -> Tensor:
            distribution = head.distribution(outputs)
            return (distribution.loss(returns) + distribution.shift(0.1 * returns).loss(returns)).mean()

        gradient = torch.func.grad(loss)
        outputs = torch.stack([random_outputs(head, seed) for seed in range(3)])
        returns = torch.stack([self.returns, self.returns.flip(0), 0.5 * self.returns])
        looped = torch.stack([gradient(*member) for member in zip(outputs, returns, strict=True)])
        assert_close(torch.func.vmap(gradient)(outputs, returns), looped)

    @pytest.mark.parametrize("unit", [(0.0, 1.0), (0.1, 1.3), (-0.2, 0.9), (0.5, 2.5)])
    def test_rescale_keeps_predictions_in_reward_units(
        self, head: ValueHead, layer: nn.Linear, unit: tuple[float, float]
    ) -> None:
        """The unit moves, the critic's opinion does not."""
        old_mean, old_std, new_mean, new_std = torch.tensor([0.0, 1.0, *unit])
        before = predicted(head, layer).mean * old_std + old_mean
        head.rescale_(layer, old_mean, old_std, new_mean, new_std)
        after = predicted(head, layer).mean * new_std + new_mean
        assert_close(after, before, atol=self.rescale_tolerance * max(1.0, unit[1]), rtol=0.0)
