import pytest
import torch
from torch import nn

from everlearn.core.errors import ArgumentError, OrderError
from everlearn.gradients import VarianceGradientScaler
from tests.gradients.feeding import feed, give, parameters_of, random_steps
from tests.reference import variance_scaling as reference


def is_finite(scaler: VarianceGradientScaler) -> bool:
    return all(torch.isfinite(tensor).all() for tensor in scaler.state_dict().values())


def same_state(scaler: VarianceGradientScaler, state: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, state[name]) for name, tensor in scaler.state_dict().items())


# --- arguments ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("beta", 0.0),
        ("beta", 1.0),
        ("alpha", -0.1),
        ("alpha", float("nan")),
        ("alpha", float("inf")),
        ("warmup_steps", -1),
        ("warmup_steps", 1.5),
        ("eps", 0.0),
        ("min_scale", 0.0),
        ("min_scale", 1.1),
    ],
)
def test_an_argument_outside_its_range_is_refused_by_name(argument, value):
    with pytest.raises(ArgumentError, match=argument):
        VarianceGradientScaler(parameters_of((1,)), **{argument: value})


def test_a_misspelt_scope_or_mode_is_refused_with_a_suggestion():
    with pytest.raises(ArgumentError, match="Did you mean 'tensor'"):
        VarianceGradientScaler(parameters_of((1,)), scope="tensors")
    with pytest.raises(ArgumentError, match="Did you mean 'relative'"):
        VarianceGradientScaler(parameters_of((1,)), mode="relativ")


def test_redistribution_within_a_single_scope_is_refused():
    with pytest.raises(ArgumentError, match="scope='global' is a single one"):
        VarianceGradientScaler(parameters_of((1,)), scope="global", mode="relative")


def test_parameters_on_several_devices_are_refused():
    with pytest.raises(ArgumentError, match="several devices"):
        VarianceGradientScaler([torch.zeros(2), torch.zeros(2, device="meta")])


# --- factors -----------------------------------------------------------------------------------------------------


def test_b16_the_factor_is_exactly_one_through_warm_up_and_falls_after_it():
    scaler = VarianceGradientScaler(parameters_of((8, 8)), warmup_steps=10)
    returned = feed(scaler, random_steps(30, (8, 8)))
    assert returned[:10] == [1.0] * 10
    assert all(0.1 <= factor < 1.0 for factor in returned[10:])


def test_b16_without_warm_up_the_factor_is_exactly_one_until_two_steps_were_seen():
    returned = feed(VarianceGradientScaler(parameters_of((8, 8)), warmup_steps=0), random_steps(4, (8, 8)))
    assert returned[:2] == [1.0, 1.0]
    assert max(returned[2:]) < 1.0


def test_b16_a_parameter_is_scaled_only_after_its_own_gradient_was_seen_twice():
    scaler = VarianceGradientScaler([("early", torch.zeros(9)), ("late", torch.zeros(9))], warmup_steps=0)
    steps = random_steps(8, (9,), (9,))
    feed(scaler, [[early, None] for early, _ in steps[:5]])
    feed(scaler, steps[5:6])
    assert scaler.get_scaling_factors()["late"] == 1.0
    assert scaler.get_scaling_factors()["early"] < 1.0
    feed(scaler, steps[6:7])
    assert scaler.get_scaling_factors()["late"] < 1.0


def test_b16_a_parameter_seen_once_does_not_take_the_factor_of_its_scope():
    scaler = VarianceGradientScaler(
        [("early", torch.zeros(9)), ("late", torch.zeros(9))], warmup_steps=0, scope="global"
    )
    steps = random_steps(6, (9,), (9,))
    feed(scaler, [[early, None] for early, _ in steps[:5]])
    feed(scaler, steps[5:])
    assert scaler.get_scaling_factors()["early"] < scaler.get_scaling_factors()["late"] == 1.0


def test_b16_a_disabled_scaler_changes_neither_gradients_nor_its_state():
    scaler = VarianceGradientScaler(parameters_of((4,)), warmup_steps=0)
    feed(scaler, random_steps(5, (4,)))
    scaler.enabled = False
    state, gradient = scaler.state_dict(), torch.randn(4)
    assert feed(scaler, [[gradient]]) == [1.0]
    assert torch.equal(scaler.parameters[0].grad, gradient)
    assert same_state(scaler, state)
    assert scaler.get_scaling_factor() == 1.0


@pytest.mark.parametrize("mode", ["noise", "relative"])
@pytest.mark.parametrize("noise", [0.0, 0.1, 1.0, 100.0])
def test_b16_factors_stay_within_their_bounds(mode, noise):
    scaler = VarianceGradientScaler(parameters_of((5,), (7, 3)), warmup_steps=3, alpha=2.0, min_scale=0.25, mode=mode)
    highest = 1.0 if mode == "noise" else 4.0
    for gradients in random_steps(40, (5,), (7, 3), noise=noise, mean=0.01):
        feed(scaler, [gradients])
        assert all(0.25 <= factor <= highest for factor in scaler.get_scaling_factors().values())


def test_b16_the_factor_does_not_drift_on_stationary_gradients():
    scaler = VarianceGradientScaler(parameters_of((128,)), warmup_steps=0)
    returned = feed(scaler, random_steps(1200, (128,), mean=1.0))
    early, late = returned[300:600], returned[900:]
    assert sum(late) / 300 == pytest.approx(sum(early) / 300, rel=0.01)
    # one unit of noise per unit of signal, alpha = 0.1
    assert sum(late) / 300 == pytest.approx(1 / 1.1, rel=0.01)


def test_b19_constant_gradients_leave_the_factor_exactly_one():
    gradient = torch.randn(16, 4) * torch.tensor([1e-4, 1.0, 1e4, 0.0])
    assert feed(VarianceGradientScaler(parameters_of((16, 4)), warmup_steps=0), [[gradient]] * 100) == [1.0] * 100


@pytest.mark.parametrize(
    ("scope", "mode"),
    [("tensor", "noise"), ("group", "noise"), ("global", "noise"), ("tensor", "relative"), ("group", "relative")],
)
def test_b19_factors_are_bit_for_bit_invariant_to_the_scale_of_gradients(scope, mode):
    steps = random_steps(30, (4,), (3, 2), mean=0.3)
    factors = []
    for scale in (1.0, 2.0**-15):
        groups = [{"params": [parameter]} for parameter in parameters_of((4,), (3, 2))]
        scaler = VarianceGradientScaler(groups, warmup_steps=0, scope=scope, mode=mode)
        feed(scaler, [[scale * gradient for gradient in gradients] for gradients in steps])
        factors.append(scaler.get_scaling_factors())
    assert factors[0] == factors[1]


def test_a_group_scope_without_groups_is_refused():
    with pytest.raises(ArgumentError, match="needs groups"):
        VarianceGradientScaler(parameters_of((4,)), scope="group")


def test_the_returned_factor_is_the_mean_over_elements_known_before_the_step():
    scaler = VarianceGradientScaler([("noisy", torch.zeros(3)), ("quiet", torch.zeros(9))], warmup_steps=0)
    feed(scaler, [[torch.randn(3), torch.ones(9)] for _ in range(10)])
    factors, expected = scaler.get_scaling_factors(), scaler.get_scaling_factor()
    assert expected == pytest.approx((3 * factors["noisy"] + 9 * 1.0) / 12, rel=1e-12)
    assert feed(scaler, [[1e6 * torch.randn(3), torch.randn(9)]]) == [expected]


def test_the_statistic_equals_explicit_weights_while_gradients_come_and_go():
    scaler = VarianceGradientScaler(parameters_of((3,), (2,), dtype=torch.float64), warmup_steps=0)
    seen: list[list[list[float]]] = [[], []]
    betas: list[list[float]] = [[], []]
    for step in range(100):
        scaler.beta = 0.9 if step < 50 else 0.97
        gradients = [torch.randn(3), torch.randn(2) if step % 3 else None]
        feed(scaler, [gradients])
        for index, gradient in enumerate(gradients):
            if gradient is not None:
                seen[index].append(gradient.double().tolist())
                betas[index].append(scaler.beta)
    noise, signal = scaler.history.noise_and_signal()
    for index in range(2):
        expected = reference.noise_and_signal(seen[index], betas[index])
        assert (noise[index].item(), signal[index].item()) == pytest.approx(expected, rel=1e-9)


def test_a_group_of_parameters_shares_one_factor():
    first, second, third = parameters_of((4,), (5,), (6,))
    groups = [{"params": [first, second]}, {"params": [third]}]
    scaler = VarianceGradientScaler(groups, warmup_steps=0, scope="group")
    feed(scaler, [[torch.randn(4), torch.ones(5), torch.ones(6)] for _ in range(10)])
    factors = scaler.get_scaling_factors()
    assert factors["0"] == factors["1"] < 1.0
    assert factors["2"] == 1.0


def test_the_relative_mode_gives_a_quiet_parameter_longer_steps():
    scaler = VarianceGradientScaler(
        [("noisy", torch.zeros(50)), ("quiet", torch.zeros(50))], warmup_steps=0, alpha=0.5, mode="relative"
    )
    feed(scaler, [[1 + torch.randn(50), 1 + 0.1 * torch.randn(50)] for _ in range(50)])
    factors = scaler.get_scaling_factors()
    assert factors["noisy"] < 1.0 < factors["quiet"]


# --- order of calls ----------------------------------------------------------------------------------------------


def test_nothing_is_committed_before_step():
    scaler = VarianceGradientScaler(parameters_of((4,)))
    give(scaler.parameters, [torch.randn(4)])
    state = scaler.state_dict()
    scaler.scale_gradients()
    assert same_state(scaler, state)
    scaler.step()
    assert scaler.step_count == 1


def test_a_second_step_commits_nothing():
    scaler = VarianceGradientScaler(parameters_of((4,)))
    feed(scaler, random_steps(3, (4,)))
    state = scaler.state_dict()
    scaler.step()
    assert same_state(scaler, state)


def test_scaling_twice_before_step_is_an_error_that_changes_nothing():
    scaler = VarianceGradientScaler(parameters_of((4,)), warmup_steps=0)
    feed(scaler, random_steps(5, (4,)))
    give(scaler.parameters, random_steps(1, (4,))[0])
    scaler.scale_gradients()
    gradient = scaler.parameters[0].grad.clone()
    with pytest.raises(OrderError, match=r"without step\(\)"):
        scaler.scale_gradients()
    assert torch.equal(scaler.parameters[0].grad, gradient)
    scaler.step()
    assert scaler.step_count == 6


def test_the_measurement_is_of_the_gradient_before_scaling_and_clipping():
    touched, untouched = (VarianceGradientScaler(parameters_of((4,)), warmup_steps=0) for _ in range(2))
    for gradients in random_steps(10, (4,)):
        give(touched.parameters, gradients)
        touched.scale_gradients()
        nn.utils.clip_grad_norm_(touched.parameters, 1e-3)
        touched.step()
        feed(untouched, [gradients])
    assert same_state(touched, untouched.state_dict())


# --- unusual gradients -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_b17_a_gradient_that_is_not_finite_leaves_nothing_but_a_count(bad):
    scaler = VarianceGradientScaler(parameters_of((4,), (2,)), warmup_steps=2)
    feed(scaler, random_steps(10, (4,), (2,)))
    state, factor = scaler.state_dict(), scaler.get_scaling_factor()
    gradients = [torch.randn(4), torch.tensor([1.0, bad])]
    assert feed(scaler, [gradients]) == [1.0]
    assert all(torch.equal(p.grad, g) for p, g in zip(scaler.parameters, gradients, strict=True) if bad == bad)
    assert scaler.skipped_steps == 1
    assert scaler.step_count == 10
    assert same_state(scaler, state | {"skipped_steps": torch.tensor(1)})
    assert feed(scaler, random_steps(1, (4,), (2,))) == [factor]


def test_b17_zero_gradients_are_defined_and_leave_the_factor_one():
    scaler = VarianceGradientScaler(parameters_of((4,)), warmup_steps=0)
    assert feed(scaler, [[torch.zeros(4)]] * 20) == [1.0] * 20
    assert is_finite(scaler)
    assert (scaler.grad_mean_ema, scaler.grad_var_ema, scaler.grad_norm_ema) == (0.0, 0.0, 0.0)


def test_b17_zero_and_other_gradients_do_not_disturb_one_another():
    alone = VarianceGradientScaler(parameters_of((4,)), warmup_steps=0)
    beside = VarianceGradientScaler(parameters_of((4,), (6,)), warmup_steps=0)
    steps = random_steps(20, (4,))
    feed(alone, steps)
    feed(beside, [[gradient, torch.zeros(6)] for (gradient,) in steps])
    assert beside.get_scaling_factors() == {"0": alone.get_scaling_factor(), "1": 1.0}


def test_b17_a_gradient_that_vanishes_for_good_ends_with_finite_statistics():
    scaler = VarianceGradientScaler(parameters_of((4,)), warmup_steps=0, beta=0.5)
    feed(scaler, random_steps(5, (4,)))
    returned = feed(scaler, [[torch.zeros(4)]] * 300)
    assert all(0.1 <= factor <= 1.0 for factor in returned)
    assert is_finite(scaler)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e6, 1e17])
def test_b38_extreme_gradients_keep_statistics_and_factors_finite(scale):
    """B17: also of extreme variance."""
    scaler = VarianceGradientScaler(parameters_of((4,), (3, 3)), warmup_steps=0)
    returned = feed(scaler, random_steps(50, (4,), (3, 3), noise=scale))
    assert scaler.step_count == 50
    assert all(0.1 <= factor <= 1.0 for factor in returned)
    assert is_finite(scaler)


def test_b38_one_outlier_is_remembered_no_longer_than_beta_says():
    """B17."""
    scaler = VarianceGradientScaler(parameters_of((4,)), warmup_steps=0, beta=0.9)
    returned = feed(scaler, [[torch.ones(4)]] * 50 + [[torch.full((4,), 1e3)]] + [[torch.ones(4)]] * 300)
    assert returned[50] == 1.0
    assert returned[51] < 0.7
    assert returned[-1] == pytest.approx(1.0, abs=1e-6)


def test_a_parameter_without_gradient_keeps_its_statistics_bit_for_bit():
    scaler = VarianceGradientScaler([("seen", torch.zeros(4)), ("unseen", torch.zeros(5))], warmup_steps=0)
    feed(scaler, random_steps(5, (4,), (5,)))
    before = scaler.state_dict()
    feed(scaler, [[gradient, None] for (gradient,) in random_steps(5, (4,))])
    after = scaler.state_dict()
    assert all(torch.equal(after[f"{part}.unseen"], before[f"{part}.unseen"]) for part in ("mean", "ss"))
    assert all(after[name][1] == before[name][1] for name in ("c", "q"))
    assert not torch.equal(after["ss.seen"], before["ss.seen"])


def test_without_any_gradient_there_is_nothing_to_do():
    scaler = VarianceGradientScaler(parameters_of((4,)), warmup_steps=0)
    assert feed(scaler, [[None]]) == [1.0]
    assert scaler.step_count == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_statistics_are_kept_in_float32_at_least(dtype):
    scaler = VarianceGradientScaler([*parameters_of((4,), dtype=dtype)], warmup_steps=0)
    returned = feed(scaler, random_steps(20, (4,)))
    assert scaler.history.mean.dtype == scaler.history.ss.dtype == torch.float32
    assert returned[-1] < 1.0
    assert scaler.parameters[0].grad.dtype == dtype


def test_parameters_of_several_dtypes_share_the_widest():
    parameters = [*parameters_of((2,), dtype=torch.bfloat16), *parameters_of((2,), dtype=torch.float64)]
    scaler = VarianceGradientScaler(parameters, warmup_steps=0)
    feed(scaler, random_steps(3, (2,), (2,)))
    assert scaler.history.mean.dtype == torch.float64


# --- beside other things -----------------------------------------------------------------------------------------


def test_b18_learning_rates_follow_their_schedule_as_without_the_scaler():
    rates = {}
    for with_scaler in (False, True):
        parameters = parameters_of((4,))
        optimizer = torch.optim.AdamW(parameters, lr=0.1)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
        scaler = VarianceGradientScaler(parameters, warmup_steps=2, enabled=with_scaler)
        scaler.attach(optimizer)
        rates[with_scaler] = []
        for gradients in random_steps(20, (4,)):
            give(parameters, gradients)
            scaler.scale_gradients()
            optimizer.step()
            scaler.step()
            schedule.step()
            rates[with_scaler].append(optimizer.param_groups[0]["lr"])
        assert (scaler.get_scaling_factor() < 1.0) == with_scaler
    assert rates[True] == rates[False]


def test_global_generators_are_left_alone(untouched_generators):
    scaler = VarianceGradientScaler(parameters_of((4,)), warmup_steps=0)
    feed(scaler, [[torch.arange(4.0) * step] for step in range(5)])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_b39_a_step_skipped_by_mixed_precision_leaves_the_statistics_untouched(dtype):
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scaler = VarianceGradientScaler(model.named_parameters(), warmup_steps=3)
    scaler.attach(optimizer)
    loss_scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    for step in range(12):
        state = scaler.state_dict()
        weights = [parameter.detach().clone() for parameter in model.parameters()]
        with torch.autocast("cpu", dtype=dtype):
            loss = model(torch.randn(16, 4)).square().mean() * (float("inf") if step == 6 else 1.0)
        optimizer.zero_grad()
        loss_scaler.scale(loss).backward()
        loss_scaler.unscale_(optimizer)
        scaler.scale_gradients()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        loss_scaler.step(optimizer)
        scaler.step()
        loss_scaler.update()
        moved = not all(map(torch.equal, weights, model.parameters()))
        assert moved == (step != 6)
        if step == 6:
            assert same_state(scaler, state | {"skipped_steps": torch.tensor(1)})
    assert (scaler.step_count, scaler.skipped_steps) == (11, 1)
    assert scaler.get_scaling_factor() < 1.0
    assert is_finite(scaler)


def test_statistics_do_not_depend_on_the_loss_scale_of_mixed_precision():
    plain, scaled = (VarianceGradientScaler(parameters_of((6,)), warmup_steps=0) for _ in range(2))
    steps = random_steps(20, (6,))
    feed(plain, steps)
    feed(scaled, [[65536.0 * gradient] for (gradient,) in steps])
    assert scaled.get_scaling_factor() == plain.get_scaling_factor()


# --- summary -----------------------------------------------------------------------------------------------------


def test_summary_values_are_none_before_the_first_step():
    scaler = VarianceGradientScaler(parameters_of((4,)))
    assert (scaler.grad_mean_ema, scaler.grad_var_ema, scaler.grad_norm_ema) == (None, None, None)


def test_summary_values_are_means_over_steps():
    scaler = VarianceGradientScaler(parameters_of((2,)), beta=0.5)
    feed(scaler, [[torch.tensor([3.0, -4.0])], [torch.tensor([0.0, 0.0])]])
    # weights 1/4 and 1/2: a third of the first step
    assert scaler.grad_mean_ema == pytest.approx(3.5 / 3)
    assert scaler.grad_norm_ema == pytest.approx(5.0 / 3)
    assert scaler.grad_var_ema == pytest.approx((9 / 2 + 16 / 2) / 2)


def test_the_mean_gradient_is_over_elements_that_have_one():
    scaler = VarianceGradientScaler(parameters_of((2,), (100,)))
    feed(scaler, [[torch.tensor([3.0, -5.0]), None]])
    assert scaler.grad_mean_ema == 4.0


def test_diagnostics_tell_factors_ratios_variances_and_counts():
    scaler = VarianceGradientScaler(parameters_of((50,), (50,), (50,)), warmup_steps=5, alpha=1.0)
    steps = [[torch.ones(50), 1 + torch.randn(50), 1 + 3 * torch.randn(50)] for _ in range(40)]
    feed(scaler, steps[:5])
    assert scaler.diagnostics()["warmup_done"] == 1.0
    feed(scaler, steps[5:])
    feed(scaler, [[torch.full((50,), torch.nan)] * 3])
    found = scaler.diagnostics()
    assert found["factor_p10"] < found["factor_p50"] < found["factor_p90"] < 1.0
    assert found["factor_p50"] == pytest.approx(0.5, rel=0.2)
    assert found["noise_to_signal_median"] == pytest.approx(1.0, rel=0.4)
    assert found["noise_to_signal_global"] == pytest.approx(10 / 3, rel=0.4)
    assert found["gradient_variance_before"] == pytest.approx(500, rel=0.2)
    assert found["gradient_variance_after"] == pytest.approx(50 / 4 + 450 / 100, rel=0.4)
    assert (found["resets"], found["skipped_steps"]) == (0.0, 1.0)


def test_diagnostics_before_the_first_step_are_neutral():
    found = VarianceGradientScaler(parameters_of((3,))).diagnostics()
    assert found["factor_p50"] == 1.0
    assert found["warmup_done"] == found["noise_to_signal_global"] == found["gradient_variance_after"] == 0.0
