import copy
import gc
import itertools

import pytest
import torch
from torch import nn

from everlearn.optim import UPGD, UPGDW, AdaptiveUPGD
from everlearn.optim.shelf import BUNDLE_SIZE, Span
from everlearn.optim.utility_optimizer import CHUNK_SIZE, UtilityOptimizer
from everlearn.testing.optimizers import (
    all_finite,
    held,
    random_gradients,
    random_parameters,
    same,
    take_step,
    take_steps,
    tensors_in,
    values,
)

FAMILY = [UPGD, AdaptiveUPGD, UPGDW]
LARGE = (BUNDLE_SIZE // 128, 130)


def averages(optimizer: UtilityOptimizer, index: int = 0) -> dict[str, torch.Tensor]:
    """The elementwise averages of a parameter."""
    kept = optimizer.state[held(optimizer)[index]]
    return {name: kept[name] for name in ("avg_utility", *optimizer.direction.averages)}


# --- precision -----------------------------------------------------------------------------------------------------


def test_b12_utilities_too_small_for_half_precision_are_kept():
    """B12: 1e-4 times 1e-4 is zero in float16."""
    param = nn.Parameter(torch.tensor([1e-4], dtype=torch.float16))
    optimizer = UPGD([param], beta_utility=0.0)
    take_step(optimizer, [torch.tensor([-1e-4], dtype=torch.float16)])
    assert optimizer.state[param]["avg_utility"].item() == pytest.approx(1e-8, rel=1e-3)


def test_b12_averages_of_bfloat16_parameters_move():
    """B12: in bfloat16, 0.999 * 1 + 0.001 * 2 is 1."""
    param = nn.Parameter(torch.tensor([1.0], dtype=torch.bfloat16))
    optimizer = UPGD([param], lr=0.0, beta_utility=0.999)
    optimizer.state[param]["avg_utility"].fill_(1.0)
    take_step(optimizer, [torch.tensor([-2.0], dtype=torch.bfloat16)])
    assert optimizer.state[param]["avg_utility"].item() == pytest.approx(1.001)


@pytest.mark.parametrize("kind", FAMILY)
@pytest.mark.parametrize("shape", [(3, 4), LARGE])
def test_b12_a_low_precision_parameter_moves_like_its_float32_twin_after_rounding(kind, shape):
    """B12: also a large one, whose own storage cannot be worked in."""
    low = kind(random_parameters(shape, dtype=torch.bfloat16), lr=0.1, sigma=0.5, scope="tensor", seed=1)
    high = kind([nn.Parameter(values(low)[0].float())], lr=0.1, sigma=0.5, scope="tensor", seed=1)
    gradient = random_gradients(held(low), 0)[0]
    take_step(low, [gradient])
    take_step(high, [gradient.float()])
    assert torch.equal(held(low)[0], held(high)[0].bfloat16())
    assert same(averages(low), averages(high))


def test_parameters_of_several_precisions_share_one_maximum():
    """A bfloat16, a float32 and a float64 parameter in one group."""
    dtypes = (torch.bfloat16, torch.float32, torch.float64)
    params = [nn.Parameter(torch.zeros(2, dtype=dtype)) for dtype in dtypes]
    optimizer = UPGD(params, lr=1.0, weight_decay=0.0, sigma=0.0)
    for param, utility in zip(params, (1.0, 2.0, 4.0), strict=True):
        optimizer.state[param]["avg_utility"].fill_(utility)
    take_step(optimizer, [torch.ones_like(param) for param in params])
    assert [-param[0].item() for param in params] == pytest.approx([0.8757, 0.7551, 0.5379], abs=4e-3)
    assert [optimizer.state[param]["avg_utility"].dtype for param in params] == [
        torch.float32,
        torch.float32,
        torch.float64,
    ]


# --- layouts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FAMILY)
@pytest.mark.parametrize("rows", [5, BUNDLE_SIZE // 8, CHUNK_SIZE // 8])
def test_memory_layout_of_weights_and_gradients_does_not_matter(kind, rows):
    weights = torch.randn(9, rows).T
    dense, transposed = (kind([nn.Parameter(w)], lr=0.1, sigma=0.0) for w in (weights.contiguous(), weights))
    assert not held(transposed)[0].is_contiguous()
    for seed in range(3):
        gradient = random_gradients(held(dense), seed)[0]
        take_step(dense, [gradient.T.contiguous().T])
        take_step(transposed, [gradient])
    torch.testing.assert_close(held(transposed)[0], held(dense)[0], rtol=0, atol=0)


@pytest.mark.parametrize("kind", FAMILY)
def test_a_parameter_alone_moves_as_it_does_among_others(kind):
    """Whether it is gathered with neighbours, split from them or too large for it, at the border of the bundles."""
    shapes = [(7,), (BUNDLE_SIZE - 8,), (1,), (3,), (BUNDLE_SIZE,), (2,), (BUNDLE_SIZE + 1,), (BUNDLE_SIZE - 1,), (2,)]
    options = {"lr": 0.1, "sigma": 0.0, "scope": "tensor"}
    together = kind(random_parameters(*shapes), **options)
    alone = [kind([copy.deepcopy(param)], **options) for param in held(together)]
    for seed in range(2):
        gradients = random_gradients(held(together), seed)
        take_step(together, gradients)
        for optimizer, gradient in zip(alone, gradients, strict=True):
            take_step(optimizer, [gradient])
    for param, optimizer in zip(held(together), alone, strict=True):
        torch.testing.assert_close(param, held(optimizer)[0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", FAMILY)
@pytest.mark.parametrize("scope", ["global", "tensor", "row"])
def test_b10_a_parameter_without_elements_is_passed_over(kind, scope):
    """B10."""
    optimizer = kind(random_parameters((0, 3), (2, 2), (0,)), scope=scope, adaptive_noise=True)
    take_steps(optimizer, range(2))
    assert all_finite(optimizer)


# --- who has a gradient --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FAMILY)
def test_a_parameter_counts_only_its_own_steps(kind):
    """Its averages are corrected by its own age: a first gradient that comes late weighs like one that comes first."""
    optimizer = kind(random_parameters((2,), (2,), (2,)), lr=0.0)
    for present in ((1, 1, 0), (1, 0, 0), (1, 1, 1)):
        gradients = [torch.ones(2) if here else None for here in present]
        take_step(optimizer, gradients)
    kept = [optimizer.state[param] for param in held(optimizer)]
    assert [state["step"].item() for state in kept] == [3.0, 2.0, 1.0]
    for param, state in zip(held(optimizer), kept, strict=True):
        torch.testing.assert_close(state["avg_utility"] / state["ema_weights"][0], -param.detach())


@pytest.mark.parametrize("kind", FAMILY)
def test_a_changed_beta_keeps_the_correction_right(kind):
    """``1 - beta**t`` would be wrong: a constant must be its own average whatever beta did on the way."""
    optimizer = kind(random_parameters((3,)), lr=0.0)
    name = "beta2" if kind is UPGDW else "beta_utility"
    for beta in (0.999, 0.999, 0.5, 0.9, 0.0, 0.99):
        optimizer.param_groups[0][name] = beta
        take_step(optimizer, [-torch.ones(3)])
        state = optimizer.state[held(optimizer)[0]]
        torch.testing.assert_close(state["avg_utility"] / state["ema_weights"][0], values(optimizer)[0])


def living_spans() -> int:
    gc.collect()
    return sum(type(thing) is Span for thing in gc.get_objects())


def test_b41_memory_does_not_grow_with_the_patterns_of_missing_gradients():
    """B41: heads that are used at random make as many patterns as there are subsets of them."""
    optimizer, before = UPGD(random_parameters(*[(2,)] * 7)), living_spans()
    for present in itertools.product((True, False), repeat=7):
        take_step(optimizer, [torch.ones(2) if here else None for here in present])
    assert living_spans() - before < 100


# --- parameters that move ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FAMILY)
@pytest.mark.parametrize(("dtype", "kept_in"), [(torch.float64, torch.float64), (torch.bfloat16, torch.float32)])
def test_the_state_follows_a_module_to_another_precision(kind, dtype, kept_in):
    module = nn.ParameterList(random_parameters((3, 4), LARGE))
    optimizer = kind(module.parameters(), lr=1e-3)
    take_steps(optimizer, range(2))
    before = copy.deepcopy(averages(optimizer))
    module.to(dtype)
    take_step(optimizer, [torch.zeros_like(param) for param in module])
    for name, average in averages(optimizer).items():
        assert average.dtype == kept_in
        assert same(torch.sign(average), torch.sign(before[name]).to(kept_in))
    assert [optimizer.state[param]["step"].item() for param in module] == [3.0, 3.0]
    assert all_finite(optimizer)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", FAMILY)
def test_the_state_follows_a_module_to_another_device_and_back(kind):
    options = {"lr": 1e-2, "sigma": 0.0, "adaptive_noise": True}
    stays, moves = (kind(random_parameters((3, 4), LARGE), **options) for _ in range(2))
    module = nn.ParameterList(held(moves))
    for device in ("cpu", "cuda", "cpu"):
        module.to(device)
        for seed in range(3):
            gradients = random_gradients(held(stays), seed)
            take_step(stays, gradients)
            take_step(moves, [gradient.to(device) for gradient in gradients])
        kept = tensors_in([averages(moves), held(moves)])
        assert {tensor.device.type for tensor in kept} == {device}
    for left, right in zip(held(moves), held(stays), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-6)
