"""Rows of several members: each is updated as its member alone would be, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from everlearn import PPO
from everlearn.core.digest import digest
from everlearn.ppo import compiled, stacked
from everlearn.ppo.compiled import CompiledRunner, Graphs
from everlearn.ppo.rollout import Rollout, read_rollout
from everlearn.ppo.stacked import Epoch, Stack
from everlearn.ppo.update_tensors import UpdateTensors
from tests.ppo.side_by_side import everything, learn
from tests.ppo.updates import assert_close_at_scale, assert_identical, coefficients_of, learned, runner_of

pytestmark = [pytest.mark.filterwarnings("ignore:The policy gives the rollout's actions")]


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def as_it_is(function: Any, example: Any) -> Any:
        function(*(tensor.clone() for tensor in example))
        return function

    for module in (compiled, stacked):
        monkeypatch.setattr(module, "compiled", as_it_is)


def batches(number: int, seed: int) -> list[Tensor]:
    """The rows of so many minibatches."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randperm(32, generator=generator)[:16] for _ in range(number)]


def prepared(model: PPO) -> Rollout:
    """The last rollout as if the policy of now had collected it."""
    rollout = model._prepare(read_rollout(model.rollout_buffer, model.action_space))
    samples = rollout.samples
    with torch.no_grad():
        log_prob = model.evaluator(samples.observations, samples.actions).log_prob
    model.policy.set_training_mode(True)
    return replace(rollout, samples=samples._replace(old_log_prob=log_prob))


class Three:
    """Members that have learned something, and their next updates."""

    def __init__(self, changes: Sequence[dict[str, Any]] = ({}, {}, {})) -> None:
        members = everything(changes, compile=False)
        members.alone(learn)
        self.models = members.models
        self.rollouts = [prepared(model) for model in self.models]

    def tensors(self, number: int) -> UpdateTensors:
        model = self.models[number]
        return UpdateTensors(runner_of(model), self.rollouts[number], model._coefficients())

    def stack(self) -> Stack:
        return Stack(self.tensors(0), 3, 16)

    def epoch(self, number: int, length: int, patience: int = 10) -> Epoch:
        return Epoch(self.tensors(number), batches(length, number), 0, patience)

    def alone(self, number: int, length: int) -> list[Any]:
        """The same minibatches by a graph for one."""
        model = self.models[number]
        runner = CompiledRunner(runner_of(model), self.rollouts[number], 16, model._coefficients(), Graphs())
        done = []
        for update in runner.updates(batches(length, number)):
            done.append(update)
            if update[1] == "stopped":
                break
        return done


def remembering(epoch: Epoch) -> Epoch:
    epoch.tensors.remember_step(epoch.factors)
    return epoch


def assert_as_alone(found: PPO, expected: PPO) -> None:
    assert_close_at_scale(learned(found), learned(expected), 1e-4)
    assert digest(found.policy.optimizer.state_dict()["noise"]) == digest(
        expected.policy.optimizer.state_dict()["noise"]
    )


@pytest.mark.parametrize("reads_at_once", [True, False])
def test_epochs_of_different_lengths_are_what_each_does_alone(reads_at_once: bool) -> None:
    together, alone = Three(), Three()
    stack = together.stack()
    stack.reads_at_once = reads_at_once
    lengths = [3, 1, 2]
    epochs = {number: together.epoch(number, length) for number, length in enumerate(lengths)}
    stack.update(epochs)
    for number, length in enumerate(lengths):
        expected = alone.alone(number, length)
        assert (
            [outcome for _, outcome in epochs[number].done]
            == [outcome for _, outcome in expected]
            == ["moved"] * length
        )
        for (row, _), (other, _) in zip(epochs[number].done, expected, strict=True):
            assert row.names == other.names
            torch.testing.assert_close(row.values, other.values, rtol=1e-3, atol=1e-4)
        remembering(epochs[number])
        assert_as_alone(together.models[number], alone.models[number])
        metrics = [model.policy.optimizer.diagnostics() for model in (together.models[number], alone.models[number])]
        torch.testing.assert_close(*metrics, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("reads_at_once", [True, False])
def test_after_too_large_a_kl_nothing_moves_any_more(reads_at_once: bool) -> None:
    """On the CPU nothing is drawn for it either, as alone."""
    changes = [{"kl_penalty": None, **own} for own in ({}, {"target_kl": 1e-5}, {})]
    together, alone = Three(changes), Three(changes)
    stack = together.stack()
    stack.reads_at_once = reads_at_once
    epochs = {number: together.epoch(number, 4) for number in range(3)}
    stack.update(epochs)
    expected = [alone.alone(number, 4) for number in range(3)]
    assert [len(epoch.done) for epoch in epochs.values()] == [len(each) for each in expected]
    assert epochs[1].has_stopped
    assert len(epochs[1].done) < 4
    for number in (0, 1, 2) if reads_at_once else (0, 2):
        assert_as_alone(together.models[number], alone.models[number])
    assert_close_at_scale(learned(together.models[1]), learned(alone.models[1]), 1e-4)


def test_as_many_numbers_of_another_meaning_are_another_structure() -> None:
    model, rollout = Three().models[0], Three().rollouts[0]
    numbers = [coefficients_of(clip_range_vf=0.1), coefficients_of(kl_coef=0.1), coefficients_of(kl_coef=0.2)]
    first, second, third = (UpdateTensors(runner_of(model), rollout, each).structure() for each in numbers)
    assert first != second == third


def test_a_row_without_an_epoch_keeps_every_bit() -> None:
    three = Three()
    stack = three.stack()
    stack.update({number: three.epoch(number, 1) for number in range(3)})
    rows = [tensor.clone() for tensor in stack._rows[1]]
    models = [learned(model) for model in three.models]
    stack.update({2: three.epoch(2, 2)})
    assert all(torch.equal(row, before) for row, before in zip(stack._rows[1], rows, strict=True))
    for number in (0, 1):
        assert_identical(learned(three.models[number]), models[number])
    assert digest(learned(three.models[2])) != digest(models[2])


def test_to_compare_the_graph_changes_nothing_and_is_done_once() -> None:
    three = Three()
    before = [digest(model.get_parameters()) for model in three.models]
    stack = three.stack()
    epochs = {number: three.epoch(number, 1) for number in (0, 2)}
    assert stack.unknown(epochs) == epochs
    assert stack.differences(epochs) == {}
    assert stack.unknown({**epochs, 1: three.epoch(1, 1)}).keys() == {1}
    assert [digest(model.get_parameters()) for model in three.models] == before


def test_a_member_has_had_enough_after_so_many_skipped_updates_in_a_row() -> None:
    three = Three()
    three.rollouts[1].samples.returns[:] = torch.nan
    epochs = {number: three.epoch(number, 4, patience=3) for number in range(3)}
    epochs[1].in_a_row = 1
    noise = three.models[1].policy.optimizer
    with epochs[1].tensors.optimizer.kept_noise():
        for _ in range(2):
            epochs[1].tensors.optimizer.draw_noise()
        expected = digest(noise.state_dict()["noise"])
    three.stack().update(epochs)
    assert [len(epoch.done) for epoch in epochs.values()] == [4, 2, 4]
    assert [outcome for _, outcome in epochs[1].done] == ["skipped", "skipped"]
    assert digest(noise.state_dict()["noise"]) == expected
