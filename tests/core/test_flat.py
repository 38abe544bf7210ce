import pytest
import torch

from everlearn.core.flat import FlatLayout


@pytest.fixture
def tensors() -> list[torch.Tensor]:
    """A matrix, a scalar, an empty tensor and a transposed one: 6 + 1 + 0 + 4 elements."""
    return [
        torch.arange(6.0).view(2, 3),
        torch.tensor(7.0),
        torch.empty(0, 5),
        torch.tensor([[1.0, 2.0], [3.0, 4.0]]).t(),
    ]


def test_a_layout_knows_where_each_tensor_lies(tensors: list[torch.Tensor]) -> None:
    layout = FlatLayout(tensors)
    assert len(layout) == 4
    assert layout.numel == 11
    assert layout.sizes == [6, 1, 0, 4]
    assert layout.offsets == [0, 6, 7, 7, 11]


def test_gathering_lays_the_elements_out_in_the_order_of_the_tensors(tensors: list[torch.Tensor]) -> None:
    flat = torch.empty(11)
    assert FlatLayout(tensors).gather_(flat, tensors) is flat
    assert flat.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 1.0, 3.0, 2.0, 4.0]


def test_views_of_what_was_gathered_are_the_tensors(tensors: list[torch.Tensor]) -> None:
    layout = FlatLayout(tensors)
    views = layout.views(layout.gather_(torch.empty(11), tensors))
    assert all(torch.equal(view, tensor) for view, tensor in zip(views, tensors, strict=True))


def test_views_write_into_the_flat_vector(tensors: list[torch.Tensor]) -> None:
    flat = torch.zeros(11)
    FlatLayout(tensors).views(flat)[3].fill_(9.0)
    assert flat.tolist() == [0.0] * 7 + [9.0] * 4


def test_gathering_converts_to_the_dtype_of_the_flat_vector() -> None:
    halves = [torch.tensor([1.5, -2.0], dtype=torch.bfloat16), torch.tensor(3.0, dtype=torch.float64)]
    flat = FlatLayout(halves).gather_(torch.empty(3), halves)
    assert flat.dtype is torch.float32
    assert flat.tolist() == [1.5, -2.0, 3.0]


def test_one_value_per_tensor_reaches_each_of_its_elements(tensors: list[torch.Tensor]) -> None:
    expanded = FlatLayout(tensors).expand(torch.tensor([0.5, 2.0, 4.0, -1.0]))
    assert expanded.tolist() == [0.5] * 6 + [2.0] + [-1.0] * 4


def test_no_tensors_make_an_empty_layout() -> None:
    layout, flat = FlatLayout([]), torch.empty(0)
    assert layout.views(layout.gather_(flat, [])) == []
    assert layout.expand(flat).numel() == 0
