import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from everlearn.gradients import clip_by_global_norm_

SHAPES = [(64, 17), (64,), (64, 64), (1, 64), (), (3, 5, 2)]


def gradients(scale: float = 1.0, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    return [(scale * torch.randn(shape)).to(dtype) for shape in SHAPES]


def clipped_by_torch(originals: list[torch.Tensor], max_norm: float) -> tuple[list[torch.Tensor], torch.Tensor]:
    parameters = [nn.Parameter(torch.zeros_like(original)) for original in originals]
    for parameter, original in zip(parameters, originals, strict=True):
        parameter.grad = original.clone()
    norm = nn.utils.clip_grad_norm_(parameters, max_norm)
    return [parameter.grad for parameter in parameters], norm


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e-8, 1e-3, 1.0, 1e6, 1e25])
@pytest.mark.parametrize("max_norm", [0.5, 0.3, 10.0])
def test_clipping_has_the_bits_of_torch(scale, dtype, max_norm):
    ours = gradients(scale, dtype)
    theirs, norm = clipped_by_torch(ours, max_norm)
    assert torch.equal(clip_by_global_norm_(ours, max_norm), norm)
    assert all(map(torch.equal, ours, theirs))
    assert all(torch.isfinite(gradient).all() for gradient in ours)


def test_a_tensor_as_limit_gives_the_bits_of_a_float():
    for _ in range(20):
        with_float = gradients()
        with_tensor = [gradient.clone() for gradient in with_float]
        clip_by_global_norm_(with_float, 0.3)
        clip_by_global_norm_(with_tensor, torch.tensor(0.3))
        assert all(map(torch.equal, with_float, with_tensor))


def test_a_traced_clip_equals_an_eager_one_on_other_data():
    def clip(max_norm, *tensors):
        return clip_by_global_norm_(tensors, max_norm)

    traced = make_fx(clip)(torch.tensor(1.0), *gradients())
    for scale in (1e-3, 1.0, 1e3):
        graph = gradients(scale)
        eager = [gradient.clone() for gradient in graph]
        assert torch.equal(traced(torch.tensor(0.5), *graph), clip(torch.tensor(0.5), *eager))
        assert all(map(torch.equal, graph, eager))


def test_without_gradients_the_norm_is_zero():
    assert clip_by_global_norm_([], 0.5).item() == 0.0


def test_a_single_gradient_is_clipped_by_its_own_norm():
    (gradient,) = alone = [torch.tensor([3.0, 4.0])]
    assert clip_by_global_norm_(alone, 0.5).item() == 5.0
    assert gradient.tolist() == pytest.approx([0.3, 0.4], rel=1e-5)


def test_gradients_on_several_devices_have_one_norm_which_goes_to_each():
    """The device without memory stands for a second one: all goes well until its norm is asked for on the first."""
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        clip_by_global_norm_([torch.ones(2, device="meta"), torch.ones(2)], 0.5)
