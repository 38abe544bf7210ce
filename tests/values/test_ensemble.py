import copy

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.functional import mse_loss
from torch.testing import assert_close

from everlearn.core.errors import ArgumentError
from everlearn.testing.heads import random_outputs
from everlearn.values import (
    CategoricalHead,
    CriticEnsemble,
    QuantileHead,
    ReturnScale,
    ScalarHead,
    ValueHead,
    clipped_prediction_loss,
    reductions,
)

HEADS = [ScalarHead(), QuantileHead(), CategoricalHead()]
MEAN, MIN = reductions.build("mean"), reductions.build("min")


@pytest.fixture
def scale() -> ReturnScale:
    scale = ReturnScale()
    scale.observe(torch.tensor([90.0, 110.0]))  # mean 100, standard deviation 10
    scale.refresh_()
    return scale


def twin(head: ValueHead, scale: ReturnScale | None = None) -> CriticEnsemble:
    return CriticEnsemble(head, MIN, n_critics=2, return_scale=scale)


def outputs_of(head: ValueHead, n_critics: int = 2, batch: int = 5) -> list[Tensor]:
    return [random_outputs(head, seed, batch) for seed in range(n_critics)]


def test_b23_the_value_is_the_declared_reduction_in_reward_units(scale: ReturnScale) -> None:
    """B23."""
    outputs = [torch.tensor([[1.0], [-2.0]]), torch.tensor([[3.0], [-4.0]])]
    ensemble = twin(ScalarHead(), scale)
    assert_close(ensemble.value(ensemble.distributions(outputs)), torch.tensor([110.0, 60.0]))
    plain = twin(ScalarHead())
    assert plain.value(plain.distributions(outputs)).tolist() == [1.0, -4.0]


def test_whatever_is_reported_is_in_reward_units(scale: ReturnScale) -> None:
    ensemble = CriticEnsemble(QuantileHead(2), MEAN, 2, scale)
    distributions = ensemble.distributions([torch.tensor([[-1.0, 1.0]]), torch.tensor([[1.0, 5.0]])])
    assert_close(ensemble.value(distributions), torch.tensor([115.0]))
    assert_close(ensemble.disagreement(distributions), torch.tensor([15.0]))
    assert_close(ensemble.spread(distributions), torch.tensor([15.0]))
    assert_close(ensemble.cvar(distributions, 0.5), torch.tensor([100.0]))


def test_returns_are_taken_to_the_unit_of_the_heads(scale: ReturnScale) -> None:
    returns = torch.tensor([[100.0, 130.0], [80.0, 95.0]])
    assert_close(twin(ScalarHead(), scale).to_units(returns), torch.tensor([[0.0, 3.0], [-2.0, -0.5]]))
    assert torch.equal(twin(ScalarHead()).to_units(returns), returns)


def test_the_loss_is_the_mean_over_critics_of_their_own() -> None:
    ensemble = twin(ScalarHead())
    distributions = ensemble.distributions([torch.tensor([[1.0]]), torch.tensor([[5.0]])])
    assert ensemble.loss(distributions, torch.tensor([2.0])).tolist() == [5.0]


@pytest.mark.parametrize("clip_range", [None, 0.2])
def test_one_scalar_critic_is_stable_baselines_value_loss_to_the_bit(clip_range: float | None) -> None:
    ensemble = CriticEnsemble(ScalarHead(), MEAN, value_clipping=clipped_prediction_loss)
    outputs, returns, old = torch.randn(64, 1, requires_grad=True), torch.randn(64), torch.randn(64)
    ours = ensemble.loss(ensemble.distributions([outputs]), returns, old.unsqueeze(-1), clip_range).mean()
    values = outputs.flatten()
    theirs = mse_loss(
        returns, values if clip_range is None else old + torch.clamp(values - old, -clip_range, clip_range)
    )
    assert torch.equal(ours, theirs)
    assert torch.equal(*(torch.autograd.grad(0.5 * loss, outputs)[0] for loss in (ours, theirs)))


def test_each_critic_is_clipped_around_its_own_old_value() -> None:
    """Both critics stand where they stood, far from each other: nothing is clipped."""
    ensemble = twin(ScalarHead())
    distributions = ensemble.distributions([torch.tensor([[0.0]]), torch.tensor([[10.0]])])
    returns, old_values = torch.tensor([4.0]), ensemble.means(distributions)
    assert old_values.tolist() == [[0.0, 10.0]]
    assert ensemble.loss(distributions, returns, old_values, 0.1).tolist() == [26.0]
    assert ensemble.loss(distributions, returns, old_values.flip(-1), 0.1).item() > 26.0


@pytest.mark.parametrize("head", HEADS)
def test_b21_selecting_samples_and_taking_the_loss_commute(head: ValueHead) -> None:
    """B21: predictions, old values and returns of the twins are indexed alike."""
    ensemble, outputs, returns = twin(head), outputs_of(head), torch.randn(5)
    old_values, chosen = torch.randn(5, 2), torch.tensor([3, 0, 3])
    whole = ensemble.loss(ensemble.distributions(outputs), returns, old_values, 0.2)
    part = ensemble.distributions([each[chosen] for each in outputs])
    assert_close(ensemble.loss(part, returns[chosen], old_values[chosen], 0.2), whole[chosen])


@pytest.mark.parametrize("head", HEADS)
def test_b22_the_loss_reaches_the_outputs_of_every_critic(head: ValueHead) -> None:
    """B22."""
    outputs = [each.requires_grad_() for each in outputs_of(head, 3)]
    ensemble = CriticEnsemble(head, MIN, 3)
    loss = ensemble.loss(ensemble.distributions(outputs), torch.full((5,), 0.77)).mean()
    for gradient in torch.autograd.grad(loss, outputs):
        assert (gradient != 0).all()


@pytest.mark.parametrize("head", HEADS)
def test_b25_every_critic_is_treated_alike(head: ValueHead) -> None:
    """B25: exchanging the critics exchanges nothing but their gradients."""
    outputs = [each.requires_grad_() for each in outputs_of(head)]
    returns, old_values = torch.randn(5), torch.randn(5, 2)
    ensemble = twin(head)
    loss = ensemble.loss(ensemble.distributions(outputs), returns, old_values, 0.2)
    swapped = ensemble.loss(ensemble.distributions(outputs[::-1]), returns, old_values.flip(-1), 0.2)
    assert_close(swapped, loss)
    for gradient, other in zip(
        torch.autograd.grad(loss.sum(), outputs), torch.autograd.grad(swapped.sum(), outputs), strict=True
    ):
        assert_close(gradient, other)


@pytest.mark.parametrize(
    "old_values",
    [None, torch.zeros(5), torch.zeros(5, 1), torch.zeros(2, 5)],
    ids=["none", "flat", "one", "turned"],
)
def test_b21_clipping_with_old_values_that_do_not_fit_is_refused(old_values: Tensor | None) -> None:
    """B21."""
    ensemble = twin(ScalarHead())
    with pytest.raises(ArgumentError, match="old_values"):
        ensemble.loss(ensemble.distributions(outputs_of(ScalarHead())), torch.zeros(5), old_values, 0.2)


def test_a_critic_too_few_or_too_many_is_refused() -> None:
    ensemble, layers = twin(ScalarHead(), ReturnScale()), [nn.Linear(2, 1)]
    with pytest.raises(ArgumentError, match="outputs has 1 entries for 2 critics"):
        ensemble.distributions([torch.zeros(5, 1)])
    with pytest.raises(ArgumentError, match="distributions has 6 entries"):
        ensemble.loss(ensemble.distributions(outputs_of(ScalarHead())) * 3, torch.zeros(5))
    with pytest.raises(ArgumentError, match="value_nets has 1 entries"):
        ensemble.refresh_scale_(layers)
    with pytest.raises(ArgumentError, match="n_critics"):
        CriticEnsemble(ScalarHead(), MIN, n_critics=0)


@pytest.mark.parametrize("head", [ScalarHead(), QuantileHead()])
def test_moving_the_unit_keeps_every_critic_in_reward_units(head: ValueHead, scale: ReturnScale) -> None:
    ensemble, features = twin(head, scale), torch.randn(5, 3)
    layers = [nn.Linear(3, head.n_outputs) for _ in range(2)]

    def reported() -> tuple[Tensor, Tensor]:
        distributions = ensemble.distributions([layer(features) for layer in layers])
        return ensemble.value(distributions), ensemble.disagreement(distributions)

    before = reported()
    scale.observe(torch.tensor([-700.0, 900.0]))
    ensemble.refresh_scale_(layers)
    assert scale.std.item() > 200.0
    for now, then in zip(reported(), before, strict=True):
        assert_close(now, then, atol=1e-3, rtol=1e-4)


def test_without_a_scale_there_is_no_unit_to_move() -> None:
    layer = nn.Linear(3, 1)
    before = copy.deepcopy(layer.state_dict())
    CriticEnsemble(ScalarHead(), MEAN).refresh_scale_([layer])
    assert_close(layer.state_dict(), before)


@pytest.mark.parametrize("reduction", [reductions.build(name) for name in reductions], ids=list(reductions))
@pytest.mark.parametrize("head", HEADS)
def test_a_traced_ensemble_equals_eager_on_other_data(head: ValueHead, reduction, scale: ReturnScale) -> None:
    ensemble = CriticEnsemble(head, reduction, 2, scale)

    def critics(outputs: list[Tensor], returns: Tensor, old_values: Tensor, clip_range: Tensor) -> tuple[Tensor, ...]:
        distributions = ensemble.distributions(outputs)
        loss = ensemble.loss(distributions, ensemble.to_units(returns), old_values, clip_range)
        return ensemble.value(distributions), loss, ensemble.disagreement(distributions)

    traced = make_fx(critics)(outputs_of(head), torch.randn(5), torch.randn(5, 2), torch.tensor(0.2))
    others = (outputs_of(head)[::-1], 100 + 10 * torch.randn(5), torch.randn(5, 2), torch.tensor(0.5))
    for graph, eager in zip(traced(*others), critics(*others), strict=True):
        assert_close(graph, eager)


@pytest.mark.parametrize("head", HEADS)
def test_vmap_over_members_equals_a_loop(head: ValueHead) -> None:
    """Each member has its own outputs, targets and clip range."""
    ensemble = twin(head)

    def loss(outputs: list[Tensor], returns: Tensor, old_values: Tensor, clip_range: Tensor) -> Tensor:
        return ensemble.loss(ensemble.distributions(outputs), returns, old_values, clip_range).mean()

    gradient = torch.func.grad(loss)
    stacked = [torch.stack([random_outputs(head, 10 * critic + seed) for seed in range(3)]) for critic in range(2)]
    rest = (torch.randn(3, 5), torch.randn(3, 5, 2), torch.tensor([0.1, 0.5, 2.0]))
    together = torch.func.vmap(gradient)(stacked, *rest)
    for member in range(3):
        alone = gradient([each[member] for each in stacked], *(each[member] for each in rest))
        assert_close([each[member] for each in together], alone)


def test_a_copied_policy_reads_its_own_scale(scale: ReturnScale) -> None:
    policy = nn.Module()
    policy.scale, policy.critics = scale, twin(ScalarHead(), scale)
    other = copy.deepcopy(policy)
    assert other.critics.return_scale is other.scale
    assert other.scale is not scale


def test_quantiles_are_those_of_the_mixture_of_all_critics_in_reward_units() -> None:
    scale = ReturnScale()
    scale.mean.fill_(10.0)
    scale.std.fill_(2.0)
    ensemble = CriticEnsemble(QuantileHead(2), MEAN, 2, scale)
    distributions = ensemble.distributions([torch.tensor([[0.0, 1.0]]), torch.tensor([[5.0, -1.0]])])
    found = ensemble.quantiles(distributions, torch.tensor([0.25, 0.5, 0.75, 0.99]))
    assert torch.equal(found, torch.tensor([[8.0, 10.0, 12.0, 20.0]]))
