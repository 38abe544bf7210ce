import copy
import io
import re
import warnings

import pytest
import torch
from torch import nn

from everlearn.core.errors import OrderError, StateError
from everlearn.core.flat import FlatLayout
from everlearn.core.stateful import Stateful
from everlearn.gradients import VarianceGradientScaler
from everlearn.gradients.history import GradientHistory
from everlearn.gradients.placement import OnGradient
from tests.gradients.feeding import feed, parameters_of, random_steps

SHAPES = ((4, 3), (5,))
CLASSES = [VarianceGradientScaler, GradientHistory, FlatLayout, OnGradient, torch.Size]


def fed_scaler(steps: int = 20, **options) -> VarianceGradientScaler:
    parameters = zip(("weight", "bias"), parameters_of(*SHAPES), strict=True)
    scaler = VarianceGradientScaler(parameters, **{"warmup_steps": 5, **options})
    feed(scaler, random_steps(steps, *SHAPES, mean=0.3))
    return scaler


def fresh_scaler(**options) -> VarianceGradientScaler:
    return fed_scaler(0, **options)


def through_a_file(scaler: VarianceGradientScaler) -> VarianceGradientScaler:
    """Pickled and unpickled, by an unpickler that knows these classes only."""
    file = io.BytesIO()
    torch.save(scaler, file)
    file.seek(0)
    with torch.serialization.safe_globals(CLASSES):
        return torch.load(file, weights_only=True)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def assert_continues_alike(one: VarianceGradientScaler, other: VarianceGradientScaler) -> None:
    """The same statistics, the same next factors, and so on for some steps, bit for bit."""
    assert same(one.state_dict(), other.state_dict())
    for gradients in random_steps(5, *SHAPES):
        assert one.get_scaling_factors() == other.get_scaling_factors()
        assert feed(one, [gradients]) == feed(other, [gradients])
        assert all(torch.equal(p.grad, q.grad) for p, q in zip(one.parameters, other.parameters, strict=True))
    assert one.get_scaling_factor() < 1.0


# --- snapshots ---------------------------------------------------------------------------------------------------


def test_b1_a_loaded_snapshot_continues_bit_for_bit():
    original, restored = fed_scaler(), fresh_scaler()
    restored.load_state_dict(original.state_dict())
    assert_continues_alike(original, restored)


def test_b1_ten_cycles_change_nothing():
    original, cycled = fed_scaler(), fed_scaler()
    for _ in range(10):
        successor = fresh_scaler()
        cycled.load_state_dict(original.state_dict())
        successor.load_state_dict(cycled.state_dict())
        cycled = successor
    assert_continues_alike(original, cycled)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, through_a_file])
def test_b1_a_copy_continues_bit_for_bit(duplicate):
    original = fed_scaler()
    twin = duplicate(original)
    twin.update_parameters(parameters_of(*SHAPES))
    assert_continues_alike(original, twin)


def test_b1_a_snapshot_travels_through_a_safe_file():
    original, restored, file = fed_scaler(), fresh_scaler(), io.BytesIO()
    torch.save(original.state_dict(), file)
    file.seek(0)
    restored.load_state_dict(torch.load(file, weights_only=True))
    assert_continues_alike(original, restored)


def test_a_snapshot_is_keyed_by_parameter_name_and_holds_tensors_only():
    state = fed_scaler().state_dict()
    assert set(state) == {
        *("mean.weight", "mean.bias", "ss.weight", "ss.bias", "c", "q"),
        *("grad_mean_ema", "grad_norm_ema", "magnitude_weight", "step_count", "skipped_steps", "resets"),
    }
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    assert state["mean.weight"].shape == (4, 3)
    assert isinstance(fed_scaler(), Stateful)


def test_a_snapshot_has_the_same_keys_before_the_first_step():
    assert fresh_scaler().state_dict().keys() == fed_scaler().state_dict().keys()


def test_a_snapshot_does_not_follow_the_scaler():
    scaler = fed_scaler()
    state = scaler.state_dict()
    kept = copy.deepcopy(state)
    feed(scaler, random_steps(3, *SHAPES))
    assert same(state, kept)
    assert not same(state, scaler.state_dict())


def test_loading_restores_statistics_and_not_configuration():
    loaded = fresh_scaler(beta=0.5, alpha=3.0, warmup_steps=7, min_scale=0.4)
    loaded.load_state_dict(fed_scaler().state_dict())
    assert (loaded.beta, loaded.alpha, loaded.warmup_steps, loaded.min_scale) == (0.5, 3.0, 7, 0.4)
    assert loaded.step_count == 20


def test_a_scaler_does_not_follow_what_it_has_loaded():
    scaler, other = fed_scaler(), fresh_scaler()
    other.load_state_dict(scaler.state_dict())
    state = other.state_dict()
    feed(scaler, random_steps(3, *SHAPES))
    assert same(other.state_dict(), state)


def test_loading_drops_a_pending_measurement():
    scaler = fed_scaler()
    state = scaler.state_dict()
    scaler.scale_gradients()
    scaler.load_state_dict(state)
    scaler.step()
    assert same(scaler.state_dict(), state)


@pytest.mark.parametrize(("missing", "unknown"), [(["ss.bias"], ["ss.head"]), (["c"], []), ([], ["extra"])])
def test_missing_and_unknown_names_are_refused_and_named(missing, unknown):
    scaler = fed_scaler()
    before, state = scaler.state_dict(), fed_scaler().state_dict()
    state = {name: value for name, value in state.items() if name not in missing} | dict.fromkeys(unknown, state["c"])
    with pytest.raises(StateError, match=re.escape(f"{missing} are missing, {unknown} are unknown")):
        scaler.load_state_dict(state)
    assert same(scaler.state_dict(), before)


@pytest.mark.parametrize("strict", [True, False])
def test_another_shape_is_refused_before_anything_changes(strict):
    scaler = fed_scaler()
    before, state = scaler.state_dict(), fed_scaler(7).state_dict()
    state["ss.bias"] = torch.zeros(6)
    with pytest.raises(StateError, match=r"'ss.bias' has shape \(6,\), but here it needs \(5,\)"):
        scaler.load_state_dict(state, strict)
    assert same(scaler.state_dict(), before)


def test_loading_leniently_keeps_what_is_missing():
    scaler, state = fresh_scaler(), fed_scaler().state_dict()
    lacking = {name: value for name, value in state.items() if name != "step_count"} | {"stranger": torch.zeros(1)}
    scaler.load_state_dict(lacking, strict=False)
    assert scaler.step_count == 0
    assert torch.equal(scaler.state_dict()["ss.weight"], state["ss.weight"])


def test_writing_into_the_live_tensors_changes_the_history():
    scaler, other = fresh_scaler(), fed_scaler()
    for name, tensor in scaler.history.tensors().items():
        tensor.copy_(other.state_dict()[name])
    assert_continues_alike(scaler, other)


# --- copies without parameters -----------------------------------------------------------------------------------


@pytest.mark.parametrize("duplicate", [copy.deepcopy, through_a_file])
def test_b2_a_copy_holds_statistics_and_no_parameters(duplicate):
    original = fed_scaler()
    twin = duplicate(original)
    assert twin.parameters == []
    assert same(twin.state_dict(), original.state_dict())
    assert twin.get_scaling_factors() == original.get_scaling_factors()
    with pytest.raises(OrderError, match="update_parameters"):
        twin.scale_gradients()
    twin.step()
    assert twin.step_count == original.step_count


def test_b2_the_bytes_of_a_scaler_hold_neither_parameters_nor_gradients_nor_optimizer():
    parameters = parameters_of((10_000,))
    scaler = VarianceGradientScaler(parameters)
    scaler.attach(torch.optim.Adam(parameters))
    feed(scaler, random_steps(1, (10_000,)))
    scaler.scale_gradients()
    file = io.BytesIO()
    torch.save(scaler, file)
    assert file.tell() < 2 * 40_000 + 20_000  # mean and ss of ten thousand elements, and what is small


def test_b2_copying_leaves_the_original_linked():
    scaler = fed_scaler()
    parameters = scaler.parameters
    copy.deepcopy(scaler)
    assert scaler.parameters is parameters


def test_b2_after_linking_the_very_parameters_are_scaled():
    twin = copy.deepcopy(fed_scaler())
    parameters = parameters_of(*SHAPES)
    twin.update_parameters(iter(parameters))
    assert all(mine is yours for mine, yours in zip(twin.parameters, parameters, strict=True))
    factors = list(twin.get_scaling_factors().values())
    feed(twin, [[torch.ones(shape) for shape in SHAPES]])
    for parameter, factor in zip(parameters, factors, strict=True):
        torch.testing.assert_close(parameter.grad, torch.full_like(parameter, factor))


# --- new parameters ----------------------------------------------------------------------------------------------


def test_b4_parameters_of_the_same_shapes_keep_statistics_names_and_groups():
    groups = [{"params": [("weight", torch.zeros(4, 3))]}, {"params": [("bias", torch.zeros(5))]}]
    scaler = VarianceGradientScaler(groups, warmup_steps=0, scope="group")
    feed(scaler, [[torch.randn(4, 3), torch.ones(5)] for _ in range(10)])
    state, factors = scaler.state_dict(), scaler.get_scaling_factors()
    scaler.update_parameters(parameters_of(*SHAPES))
    assert same(scaler.state_dict(), state)
    assert scaler.get_scaling_factors() == factors
    assert factors["weight"] < factors["bias"] == 1.0


def test_new_names_are_taken_over_with_the_statistics():
    scaler = fed_scaler()
    factors = list(scaler.get_scaling_factors().values())
    layer = nn.Linear(3, 4)
    scaler.update_parameters([("layer", layer.weight), ("offset", parameters_of((5,))[0])])
    assert scaler.get_scaling_factors() == dict(zip(("layer", "offset"), factors, strict=True))


def test_new_groups_are_taken_over():
    first, second = parameters_of(*SHAPES)
    scaler = VarianceGradientScaler([{"params": [first, second]}], warmup_steps=5, scope="group")
    feed(scaler, random_steps(20, *SHAPES, mean=0.3))
    assert len(set(scaler.get_scaling_factors().values())) == 1
    scaler.update_parameters([{"params": [first]}, {"params": [second]}])
    assert len(set(scaler.get_scaling_factors().values())) == 2


def test_groups_do_not_outlive_the_shapes_they_came_with():
    first, second = parameters_of(*SHAPES)
    scaler = VarianceGradientScaler([{"params": [first]}, {"params": [second]}], warmup_steps=0, scope="group")
    scaler.update_parameters(parameters_of((2,), (3,)))
    feed(scaler, [[torch.randn(2), torch.ones(3)] for _ in range(10)])
    assert len(set(scaler.get_scaling_factors().values())) == 1


def test_statistics_widen_with_the_parameters():
    scaler = fed_scaler()
    state = scaler.state_dict()
    scaler.update_parameters(parameters_of(*SHAPES, dtype=torch.float64))
    assert scaler.history.ss.dtype == torch.float64
    assert torch.equal(scaler.state_dict()["ss.weight"], state["ss.weight"].double())


def test_b7_parameters_of_other_shapes_reset_everything_with_a_warning_that_names_the_loss():
    scaler = fed_scaler()
    feed(scaler, [[torch.full(shape, torch.inf) for shape in SHAPES]])
    with pytest.warns(UserWarning, match="statistics of 20 steps are lost"):
        scaler.update_parameters(parameters_of((4, 3), (6,)))
    assert (scaler.step_count, scaler.resets, scaler.skipped_steps) == (0, 1, 1)
    assert scaler.grad_norm_ema is None
    assert list(scaler.get_scaling_factors().values()) == [1.0, 1.0]
    assert feed(scaler, random_steps(5, (4, 3), (6,))) == [1.0] * 5


@pytest.mark.parametrize("shapes", [((3, 4), (5,)), ((4, 3),), ((5,), (4, 3))])
def test_b7_another_order_or_number_of_shapes_resets_too(shapes):
    scaler = fed_scaler()
    with pytest.warns(UserWarning, match="20 steps"):
        scaler.update_parameters(parameters_of(*shapes))
    assert scaler.step_count == 0
    assert list(scaler.get_scaling_factors()) == [str(index) for index in range(len(shapes))]


def test_b7_empty_statistics_are_replaced_silently():
    scaler = fresh_scaler()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scaler.update_parameters(parameters_of((9,)))
    assert scaler.resets == 0


def test_new_parameters_drop_a_pending_measurement():
    scaler = fed_scaler()
    state = scaler.state_dict()
    scaler.scale_gradients()
    scaler.update_parameters(parameters_of(*SHAPES))
    scaler.step()
    assert same(scaler.state_dict(), state)


def test_a_reset_forgets_gradients_pending_ones_and_the_counter():
    scaler = fed_scaler()
    feed(scaler, [[torch.full(shape, torch.nan) for shape in SHAPES]])
    feed(scaler, random_steps(1, *SHAPES))
    scaler.scale_gradients()
    scaler.reset_statistics()
    scaler.step()
    counts = {"resets": torch.tensor(1), "skipped_steps": torch.tensor(1)}
    assert same(scaler.state_dict(), fresh_scaler().state_dict() | counts)
