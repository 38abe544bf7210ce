"""Seats: whoever sat there before, a member's segment comes to the same; what it is told is in force."""

from pathlib import Path
from typing import Any

import pytest

from everlearn import DistributionalPPO
from everlearn.config import RunConfig, load
from everlearn.environments.build import training_environment
from everlearn.pbt.runner import AgentRunner, StackedRunner
from everlearn.pbt.seat import Seat, Segment
from everlearn.population.members import MemberId
from everlearn.population.segments import Copy, Result, Task
from everlearn.ppo.hyperparameters import HYPERPARAMETERS
from everlearn.runs.building import resolved
from tests.pbt.small import SETTINGS

EVERYTHING = {
    **SETTINGS,
    "algorithm.name": "DistributionalPPO",
    "env.id": "Pendulum-v1",
    "kl_penalty": "pid",
    "vgs_warmup_steps": 2,
    "learning_rate": "lin_1e-3",
}


def configured(**settings: Any) -> RunConfig:
    wanted = load(None, {**EVERYTHING, **{key.replace("__", "."): value for key, value in settings.items()}})
    venv = training_environment(wanted.env, wanted.algorithm.gamma)
    config = resolved(wanted, venv)[0]
    venv.close()
    return config


def task(member_id: MemberId, generation: int, before: Result | None = None, **more: Any) -> Task:
    checkpoint = None if before is None else before.checkpoint
    values = {"hyperparams": {"gamma": 0.97}, "seed": 100 + int(member_id), **more}
    return Task(member_id, generation, 2 * generation, 2, checkpoint=checkpoint, **values)


def no_beat(member_id: MemberId, updates: int) -> None:
    """Nobody wants to know."""


def plain(result: Result) -> tuple[Any, ...]:
    """What of a result does not depend on the clock."""
    assert result.error is None, result.error
    records = [{name: value for name, value in record.items() if "time" not in name} for record in result.records]
    checkpoint = result.checkpoint
    return result.performance, result.samples, result.env_steps, checkpoint and checkpoint.policy_digest, records


def test_it_does_not_matter_who_sat_there_before(tmp_path: Path) -> None:
    config = configured()
    alone, shared = Seat(config, tmp_path), Seat(config, tmp_path)
    first = alone.train(task(1, 0), no_beat)
    second = alone.train(task(1, 1, first), no_beat)
    for other in (5, 6):
        shared.train(task(other, 0, hyperparams={"gamma": 0.5}), no_beat)
    again = shared.train(task(1, 0), no_beat)
    shared.train(task(7, 0, hyperparams={"gamma": 0.6}), no_beat)
    assert plain(again) == plain(first)
    assert plain(shared.train(task(1, 1, again), no_beat)) == plain(second)


def test_going_on_is_the_same_as_going_back_to_the_file(tmp_path: Path) -> None:
    config = configured()
    kept = AgentRunner(config, tmp_path)
    (first,) = kept.run([task(0, 0)], no_beat)
    (second,) = kept.run([task(0, 1, first)], no_beat)
    fresh = AgentRunner(config, tmp_path)
    assert plain(fresh.run([task(0, 1, first)], no_beat)[0]) == plain(second)


def test_b27_after_a_copy_the_policy_is_the_sources_and_the_rest_comes_along(tmp_path: Path) -> None:
    seat = Seat(configured(), tmp_path)
    source = seat.train(task(0, 0), no_beat)
    target = seat.train(task(1, 0), no_beat)
    assert source.checkpoint is not None
    assert {"policy", "policy.optimizer", "vgs_state", "kl_penalty_state", "normaliser"} <= set(source.checkpoint.parts)
    for seed in (3, 3, 4):
        copy = Copy(0, source.checkpoint, "everything", "copy", seed)
        copied = seat.train(task(1, 1, target, copy=copy), no_beat)
        assert copied.env_steps == 2 * 64
    steps = seat.agent.variance_gradient_scaler.step_count
    assert steps == 2 * (2 * 64 // 32) * 2  # of the source's two updates and of the copy's


def test_row_27_a_state_that_is_gone_when_the_segment_begins_fails_the_member_alone(tmp_path: Path) -> None:
    runner = AgentRunner(configured(), tmp_path)
    (first,) = runner.run([task(0, 0)], no_beat)
    (tmp_path / first.checkpoint.name).unlink()
    results = runner.run([task(1, 0), task(0, 1, first), task(2, 0)], no_beat)
    assert results[0].error is None is results[2].error
    fresh = AgentRunner(configured(), tmp_path)
    (failed,) = fresh.run([task(0, 1, first)], no_beat)
    assert "FileNotFoundError" in failed.error


@pytest.mark.parametrize("runner", [AgentRunner, StackedRunner])
def test_b29_every_hyperparameter_of_a_task_is_in_force_in_its_updates(tmp_path: Path, runner: type) -> None:
    config = configured(learning_rate=3e-4, kl_penalty=None, compile=False)
    values: dict[str, Any] = {
        "learning_rate": 1e-3,
        "clip_range": 0.11,
        "clip_range_vf": 0.5,
        "ent_coef": 0.007,
        "vf_coef": 0.3,
        "max_grad_norm": 0.9,
        "gamma": 0.91,
        "gae_lambda": 0.83,
        "target_kl": 7.0,
        "vgs_alpha": 0.2,
        "vgs_beta": 0.9,
        "optimizer.sigma": 0.002,
        "optimizer.weight_decay": 0.01,
    }
    made = runner(config, tmp_path)
    (result,) = made.run([task(0, 0, hyperparams=values)], no_beat)
    assert result.error is None, result.error
    seat = made._seat if runner is AgentRunner else made._seats[0]
    agent = seat.agent
    found = agent.get_hyperparameters()
    names = {"optimizer.sigma": "optimizer_kwargs.sigma", "optimizer.weight_decay": "optimizer_kwargs.weight_decay"}
    assert {name: found[names.get(name, name)] for name in values} == values
    assert agent.rollout_buffer.gamma == 0.91
    assert agent.rollout_buffer.gae_lambda == 0.83
    assert agent.policy.optimizer.param_groups[0]["lr"] == pytest.approx(1e-3)
    assert result.records[-1]["train/clip_range"] == pytest.approx(0.11)
    assert set(values) & set(HYPERPARAMETERS)


@pytest.mark.parametrize("rate", ["lin_1e-3", 5e-4])
def test_what_a_divergence_has_left_of_the_learning_rate_stays_when_segments_end_and_members_change(
    tmp_path: Path, rate: object
) -> None:
    seat = Seat(configured(total_timesteps=9 * 64), tmp_path)
    hyperparams = {"learning_rate": rate, "gamma": 0.9}
    before = seat.train(task(0, 0, hyperparams=hyperparams), no_beat)
    seat.agent.divergence_guard.lr_factor = 0.5
    for generation in (1, 2):
        before = seat.train(task(0, generation, before, hyperparams=hyperparams), no_beat)
        assert seat.agent.divergence_guard.lr_factor == 0.5
    other = seat.train(task(1, 0, hyperparams={"learning_rate": 1e-4}), no_beat)
    assert seat.agent.divergence_guard.lr_factor == 1.0
    seat.train(task(0, 3, before, hyperparams=hyperparams), no_beat)
    assert seat.agent.divergence_guard.lr_factor == 0.5
    copy = Copy(0, before.checkpoint, "everything", "copy", 4)
    seat.train(task(1, 1, other, copy=copy, hyperparams=hyperparams), no_beat)
    assert seat.agent.divergence_guard.lr_factor == 0.5


def test_a_segment_that_is_shorter_than_its_task_is_none(tmp_path: Path) -> None:
    runner = AgentRunner(configured(total_timesteps=3 * 64), tmp_path)
    (first,) = runner.run([task(0, 0)], no_beat)
    (second,) = runner.run([task(0, 1, first)], no_beat)
    assert first.error is None
    assert "ended after 1 of the segment's 2 updates" in second.error


def test_a_training_whose_end_has_moved_goes_on(tmp_path: Path) -> None:
    (ended,) = AgentRunner(configured(total_timesteps=2 * 64), tmp_path).run([task(0, 0)], no_beat)
    (second,) = AgentRunner(configured(total_timesteps=4 * 64), tmp_path).run([task(0, 1, ended)], no_beat)
    assert (second.error, second.env_steps) == (None, 2 * 64)


def test_a_member_that_fails_harms_no_other_and_sits_again(tmp_path: Path) -> None:
    from tests.pbt import misfortune

    assert misfortune.Misfortune is not None
    config = configured(env__id="Misfortune-v0", kl_penalty=None)
    for runner in (AgentRunner(config, tmp_path), StackedRunner(config, tmp_path)):
        for generation in range(2):
            results = runner.run([task(0, generation), task(1, generation)], no_beat)
            assert all("a misfortune" in result.error for result in results)


def test_stacked_members_come_to_what_they_come_to_alone(tmp_path: Path) -> None:
    config = configured(compile=False)
    tasks = [task(number, 0, hyperparams={"gamma": 0.9 + number / 100}) for number in range(3)]
    expected = [plain(each) for each in AgentRunner(config, tmp_path).run(tasks, no_beat)]
    assert [plain(each) for each in StackedRunner(config, tmp_path).run(tasks, no_beat)] == expected


def test_row_2_a_member_whose_own_state_is_lost_begins_anew_with_what_it_takes_over(tmp_path: Path) -> None:
    runner = AgentRunner(configured(), tmp_path)
    source, target = runner.run([task(0, 0), task(1, 0)], no_beat)
    path = tmp_path / target.checkpoint.name
    path.write_bytes(path.read_bytes()[:-9])
    copy = Copy(0, source.checkpoint, "everything", "copy", 4)
    rescued, lost = AgentRunner(configured(), tmp_path).run(
        [task(1, 1, target, copy=copy), task(1, 1, target)], no_beat
    )
    assert rescued.error is None
    assert "Its own state cannot be read" in rescued.interruptions[0]
    assert lost.error is not None


def test_files_carry_the_seed_of_their_own_member(tmp_path: Path) -> None:
    runner = AgentRunner(configured(), tmp_path)
    first = runner.run([task(0, 0), task(1, 0)], no_beat)
    again = runner.run([task(0, 1, first[0]), task(1, 1, first[1])], no_beat)
    seeds = [DistributionalPPO.load(tmp_path / each.checkpoint.name).seed for each in (*first, *again)]
    assert seeds == [100, 101, 100, 101]


def test_a_score_without_new_episodes_is_that_of_the_policy(tmp_path: Path) -> None:
    seat = Seat(configured(env__id="CartPole-v1", kl_penalty=None), tmp_path)
    source = seat.train(task(0, 0), no_beat)
    assert source.performance is not None
    slow = Seat(configured(), tmp_path)
    assert slow.train(task(2, 0), no_beat).performance is None  # Pendulum's episodes last for 200 steps


def test_an_evaluation_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Segment, "_PAUSE", 0.0)
    seen: list[int] = []
    config = configured(population__score="evaluation", evaluation__episodes=1)
    Seat(config, tmp_path).train(task(0, 0), lambda member_id, updates: seen.append(updates))
    assert len(seen) >= 2 * 32 + 200
