"""Compiled updates: the eager ones in another form, trusted only when they are, made once for all values."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from everlearn import PPO, UPGD
from everlearn.core import graphs
from everlearn.core.digest import digest
from everlearn.core.errors import ArgumentError
from everlearn.core.rng import GlobalGenerators
from everlearn.ppo import compilation, compiled, learning
from everlearn.ppo.compilable import NotCompiled
from everlearn.ppo.compilation import pays, require_choice
from everlearn.ppo.compiled import CompiledRunner, Graphs
from everlearn.ppo.rollout import read_rollout
from tests.ppo.together import KINDS, everything
from tests.ppo.updates import assert_close_at_scale, learned, model_of, runner_of

needs_compiler = pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
pytestmark = [
    pytest.mark.filterwarnings("ignore:The policy gives the rollout's actions"),
]
EVERYTHING = {"kl_penalty": True, "vgs_warmup_steps": 2, "optimizer_kwargs": {"sigma": 0.1, "lr": 1e-2}}
PLAIN = {"algorithm": PPO, "optimizer_kwargs": {"lr": 1e-2}}


def pair(**arguments: Any) -> tuple[PPO, PPO]:
    """Two equal models, the first of which compiles its updates."""
    return tuple(model_of("pendulum", compile=choice, **arguments) for choice in (True, False))  # type: ignore[return-value]


def learn(model: PPO, steps: int) -> PPO:
    """Go on learning, from the same generators whatever was done before."""
    model.set_random_seed(7)
    return model.learn(steps, reset_num_timesteps=False)


@needs_compiler
@pytest.mark.parametrize("arguments", [PLAIN, EVERYTHING], ids=["plain", "everything on"])
def test_one_compiled_update_is_the_eager_one(arguments: dict[str, Any]) -> None:
    """Within 1e-6 of each tensor's largest element, after one step."""
    fast, slow = pair(n_steps=16, n_epochs=1, **arguments)
    generators = []
    for model in (fast, slow):
        learn(model, 16)
        generators.append(digest(GlobalGenerators().state_dict()))
    assert generators[0] == generators[1], "neither compiling nor comparing has drawn anything"
    assert (fast.update_compiler.reason, fast.skipped_updates) == (None, 0)
    assert slow.update_compiler.reason is not None
    assert_close_at_scale(learned(fast)["parameters"], learned(slow)["parameters"], 1e-6)


@needs_compiler
def test_a_training_with_everything_on_compiles_once_and_stays_near_the_eager_one() -> None:
    """Schedules, KL control, a last small minibatch and a mutated hyper-parameter need no other graph."""
    schedules = {"learning_rate": "lin_1e-3", "clip_range": {"kind": "linear", "start": 0.3, "end": 0.1}}
    with pytest.warns(UserWarning, match="truncated mini-batch of size 8"):
        fast, slow = pair(n_steps=40, **{**EVERYTHING, **schedules, "optimizer_kwargs": {"sigma": 0.1}})
    before = graphs.compilations
    for model in (fast, slow):
        learn(model, 40)
        compilations = graphs.compilations
        model.set_hyperparameter("optimizer_kwargs.sigma", 0.05)
        model.ent_coef = 0.02
        model.vgs_alpha = 0.4
        learn(model, 120)
        assert graphs.compilations == compilations, "warm-up was over"
    assert graphs.compilations == before + 1
    assert fast.variance_gradient_scaler.step_count == slow.variance_gradient_scaler.step_count == 24
    assert_close_at_scale(learned(fast)["parameters"], learned(slow)["parameters"], 1e-2)
    for name, value in slow.logger.name_to_value.items():
        if name.startswith(("train/", "upgd/", "vgs/")) and name != "train/compiled":
            assert fast.logger.name_to_value[name] == pytest.approx(value, rel=0.05, abs=1e-3), name


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("arguments", [PLAIN, EVERYTHING], ids=["plain", "everything on"])
def test_after_a_hundred_updates_it_is_within_the_stated_bound(arguments: dict[str, Any]) -> None:
    """1e-4 of each tensor's largest element, from one rollout, so that nothing but the updates differs."""
    fast, slow = pair(n_steps=160, n_epochs=10, **{**arguments, "optimizer_kwargs": {"lr": 1e-3}})
    for model in (fast, slow):
        learn(model, 160)
    assert fast.update_compiler.compiled
    assert fast._n_updates == 10, "epochs of ten minibatches each"
    assert_close_at_scale(learned(fast)["parameters"], learned(slow)["parameters"], 1e-4)


@needs_compiler
@pytest.mark.slow
def test_a_second_process_finds_the_compiled_code(tmp_path: Path) -> None:
    """It traces again, and the C++ compiler has nothing to do."""
    program = """if True:
        from tests.ppo.updates import model_of
        assert model_of("pendulum", compile=True, n_steps=16).learn(16).update_compiler.compiled
    """
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    made = []
    for _ in range(2):
        subprocess.run([sys.executable, "-c", program], env=environment, check=True)
        made.append({path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.so")})
    assert made[0]
    assert made[0] == made[1]


@needs_compiler
@pytest.mark.slow
def test_the_same_compiled_training_twice_is_equal_to_the_bit(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "everlearn"):
        twins = [learn(model_of("pendulum", compile=True, **EVERYTHING), 64) for _ in range(2)]
    assert caplog.text.count("The update has been compiled in") == 2
    assert digest(twins[0].get_parameters()) == digest(twins[1].get_parameters())


@needs_compiler
def test_a_compiled_training_leaves_everything_to_eager_code_as_an_eager_one_does() -> None:
    fast, slow = pair(**EVERYTHING)
    for model in (fast, slow):
        learn(model, 32)
    fast.compile = False
    for model in (fast, slow):
        learn(model, 32)
    assert fast.update_compiler.reason is not None
    assert_close_at_scale(learned(fast)["parameters"], learned(slow)["parameters"], 1e-3)
    for one, other in zip(fast.policy.parameters(), slow.policy.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-2, atol=1e-3)


@needs_compiler
def test_updates_stop_where_the_kl_has_grown_too_large() -> None:
    fast, slow = pair(target_kl=1e-4, **PLAIN)
    for model in (fast, slow):
        learn(model, 32)
    assert fast._n_updates == slow._n_updates == 1
    assert_close_at_scale(learned(fast)["parameters"], learned(slow)["parameters"], 1e-5)


@needs_compiler
def test_a_wrong_graph_is_caught_by_the_first_update_and_nothing_has_changed(monkeypatch: Any) -> None:
    model = model_of("pendulum", PPO, n_steps=16).learn(16)
    rollout = read_rollout(model.rollout_buffer, model.action_space)
    before = digest(model.get_parameters())
    honest = compiled.compiled

    def with_other_samples(function: Any, example: Any) -> Any:
        graph = honest(function, example)
        return lambda *tensors: graph(*tensors[:-3], tensors[-3].flip(0) // 2, *tensors[-2:])

    monkeypatch.setattr(compiled, "compiled", with_other_samples)
    with pytest.raises(NotCompiled, match=r"the graph's update is not the eager one: \['params'\]"):
        CompiledRunner(runner_of(model), rollout, 16, model._coefficients(), Graphs())
    assert digest(model.get_parameters()) == before


@pytest.fixture
def policy_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is collected is the same to the bit."""
    monkeypatch.setattr(learning, "actor_for", lambda *_: None)


@pytest.mark.usefixtures("policy_acts")
def test_what_cannot_be_compiled_stays_eager_with_one_warning() -> None:
    fast, slow = pair(algorithm=PPO, optimizer_class=torch.optim.RMSprop)
    with pytest.warns(UserWarning, match="cannot be compiled and stays eager.*RMSprop has no functional step") as told:
        learn(fast, 64)
    learn(slow, 64)
    assert len([each for each in told if "stays eager" in str(each.message)]) == 1
    assert fast.update_compiler.reason.startswith("ArgumentError: RMSprop")
    assert digest(learned(fast)) == digest(learned(slow))


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda model: model.policy.value_net.weight.requires_grad_(False), "value_net.weight'] are frozen"),
        (lambda model: model.policy.value_net.double(), "several dtypes"),
        (lambda model: setattr(model.policy, "more", nn.Linear(1, 1)), "parameters are not the policy's"),
        (lambda model: model.policy.optimizer.register_step_post_hook(print), "the optimizer's step has hooks"),
        (lambda model: model.policy.log_std.register_hook(print), "the parameter log_std has hooks"),
        (lambda model: model.policy.value_net.register_forward_hook(print), "the module 'value_net' has hooks"),
    ],
    ids=["frozen", "dtypes", "others", "step", "parameter", "module"],
)
def test_what_a_graph_would_silently_treat_otherwise_is_refused(spoil: Any, problem: str) -> None:
    model = model_of("pendulum", PPO, n_steps=16).learn(16)
    rollout = read_rollout(model.rollout_buffer, model.action_space)
    spoil(model)
    with pytest.raises(NotCompiled) as caught:
        CompiledRunner(runner_of(model), rollout, 16, model._coefficients(), Graphs())
    assert problem in str(caught.value)


@pytest.mark.usefixtures("policy_acts")
def test_a_failure_of_the_compiler_is_told_and_training_goes_on(monkeypatch: Any) -> None:
    def broken(*_: Any) -> Any:
        raise OSError("no compiler here")

    monkeypatch.setattr(compiled, "compiled", broken)
    fast, slow = pair(**EVERYTHING)
    with pytest.warns(UserWarning, match="OSError: no compiler here"):
        learn(fast, 32)
    learn(slow, 32)
    assert digest(learned(fast)) == digest(learned(slow))


def test_only_long_trainings_are_compiled_by_themselves() -> None:
    assert [pays("auto", updates) for updates in (0, compilation.WORTH_COMPILING)] == [False, True]
    assert [pays(choice, 0) for choice in (True, False)] == [True, False]
    model = model_of("pendulum", PPO).learn(32)
    assert model.update_compiler.reason == "compiling would not be paid back, or was not asked for"
    assert model.logger.name_to_value["train/compiled"] == 0.0


@pytest.mark.parametrize("choice", ["yes", None, 1])
def test_there_are_three_choices(choice: Any) -> None:
    with pytest.raises(ArgumentError, match="compile="):
        require_choice(choice)
    with pytest.raises(ArgumentError, match="compile="):
        model_of("pendulum", PPO, compile=choice)


# --- what a graph is made for, with an uncompiled one in its place ----------------------------------------------------


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Graphs are their own functions, called on copies once as a trace is; the number of each that was made."""
    made: list[int] = []

    def as_it_is(function: Any, example: Any) -> Any:
        made.append(len(made))
        function(*(tensor.clone() for tensor in example))
        return function

    monkeypatch.setattr(compiled, "compiled", as_it_is)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_policy_may_be_compiled(kind: str, uncompiled: list[int]) -> None:
    model = everything(**{**KINDS[kind], "compile": True}).learn(32)
    assert (model.update_compiler.compiled, model.update_compiler.reason, len(uncompiled)) == (True, None, 1)


def test_a_batch_that_is_larger_than_the_rollout_is_one_update(uncompiled: list[int]) -> None:
    model = model_of("pendulum", PPO, compile=True, n_steps=16)
    with pytest.warns(UserWarning, match="truncated mini-batch of size 16"):
        model.batch_size = 64
    learn(model, 16)
    assert (model.update_compiler.compiled, len(uncompiled)) == (True, 1)


def test_a_graph_is_trusted_only_after_an_update_that_moved_something(uncompiled: list[int]) -> None:
    model = model_of("pendulum", PPO, n_steps=16).learn(16)
    rollout = read_rollout(model.rollout_buffer, model.action_space)
    graphs = Graphs()
    lost = rollout.samples._replace(returns=torch.full_like(rollout.samples.returns, torch.nan))
    with pytest.raises(NotCompiled, match="the first update to compare it by was skipped"):
        CompiledRunner(runner_of(model), replace(rollout, samples=lost), 16, model._coefficients(), graphs)
    assert (len(graphs.made), len(graphs.trusted)) == (1, 0)
    CompiledRunner(runner_of(model), rollout, 16, model._coefficients(), graphs)
    assert (len(uncompiled), len(graphs.trusted)) == (1, 1)


def test_a_graph_that_fails_while_it_is_compared_leaves_everything_as_it_was(monkeypatch: Any) -> None:
    def failing(function: Any, example: Any) -> Any:
        def call(*tensors: Any) -> Any:
            function(*tensors)
            raise MemoryError

        return call

    monkeypatch.setattr(compiled, "compiled", failing)
    model = model_of("pendulum", n_steps=16).learn(16)
    rollout = model._prepare(read_rollout(model.rollout_buffer, model.action_space))
    before = digest(model.get_parameters())
    with pytest.raises(MemoryError):
        CompiledRunner(runner_of(model), rollout, 16, model._coefficients(), Graphs())
    assert digest(model.get_parameters()) == before


def test_another_module_in_a_policy_needs_another_graph(uncompiled: list[int]) -> None:
    model = learn(model_of("pendulum", PPO, compile=True), 32)
    model.policy.mlp_extractor.policy_net[1] = nn.ReLU()
    learn(model, 32)
    assert len(uncompiled) == 2


def test_what_stood_in_the_way_may_go_away(uncompiled: list[int]) -> None:
    model = model_of("pendulum", PPO, compile=True)
    hook = model.policy.value_net.register_forward_hook(lambda *_: None)
    with pytest.warns(UserWarning, match="'value_net' has hooks"):
        learn(model, 64)
    hook.remove()
    learn(model, 32)
    assert (model.update_compiler.compiled, model.update_compiler.reason) == (True, None)


def test_gradients_and_diagnostics_are_those_of_the_last_update(uncompiled: list[int]) -> None:
    """Also after the first update of a graph, and where updates end early."""
    for arguments in (EVERYTHING, {**EVERYTHING, "kl_penalty": None, "target_kl": 1e-4}):
        fast, slow = pair(**arguments)
        for model in (fast, slow):
            learn(model, 32)
        for (name, one), (_, other) in zip(fast.policy.named_parameters(), slow.policy.named_parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-2, atol=1e-4, msg=name)
        for name, value in slow.policy.optimizer.diagnostics().items():
            torch.testing.assert_close(fast.policy.optimizer.diagnostics()[name], value, rtol=1e-2, atol=1e-5, msg=name)


class Halving(UPGD):
    """An optimizer with a step of its own."""

    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


def test_a_step_of_an_optimizers_own_stays_its_own(uncompiled: list[int]) -> None:
    model = model_of("pendulum", PPO, compile=True, optimizer_class=Halving)
    with pytest.warns(UserWarning, match="Halving has no functional step"):
        learn(model, 32)
    assert uncompiled == []


def test_a_run_with_a_short_time_limit_is_not_compiled_by_itself() -> None:
    model = model_of("pendulum", PPO)
    model._total_timesteps = 10**9
    assert model._is_worth_compiling()
    model._compiles = None  # as at the beginning of a training
    model.update_compiler.is_short = True
    assert not model._is_worth_compiling()
    model.compile = True
    assert model._is_worth_compiling()
