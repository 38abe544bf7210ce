import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import contestants, growth, limits, peer_worker, peers, profiling
from benchmarks.workers import Worker, environment, started

# --- contestants and their processes ----------------------------------------------------------------------------------


def contestant(**changes):
    fields = {"algorithm": "PPO", "env_id": "CartPole-v1", "n_envs": 2, "n_steps": 16, "batch_size": 8, "n_epochs": 3}
    return contestants.Contestant(**{"library": contestants.SB3, **fields, **changes})


def test_an_iteration_counts_every_minibatch_of_every_epoch_and_the_last_small_one():
    assert (contestant().rollout_size, contestant().updates) == (32, 12)
    assert contestant(batch_size=30).updates == 6


def test_everlearn_is_built_with_its_own_environments_and_what_is_asked_for():
    arguments = {"kl_penalty": True, "n_critics": 3}
    wanted = contestant(library=contestants.OWN, algorithm="DistributionalPPO", arguments=arguments, compiled=False)
    model = contestants.build(wanted)
    assert type(model).__name__ == "DistributionalPPO"
    assert "everlearn" in type(model.env).__module__
    assert (model.n_steps, model.batch_size, model.n_epochs, model.env.num_envs) == (16, 8, 3, 2)
    assert model.kl_controller is not None
    assert model.policy.ensemble.n_critics == 3
    assert contestants.parameters(model) == sum(each.numel() for each in model.policy.parameters())


def test_a_contestant_in_a_process_answers_every_question():
    named = {"SB3": (Path(sys.executable), contestant())}
    with started(named, threads=1, processes=True) as runners:
        worker = runners["SB3"]
        turns = [worker.iterate() for _ in range(2)]
        profile, bounds = worker.profile(), worker.limits()
    assert worker.first == turns[0] != turns[1]
    assert all(0 < turn.collect + turn.update <= turn.seconds for turn in turns)
    assert list(profile) == list(profiling.PARTS)
    assert all(bounds[part] > 0 for part in (profiling.SIMULATION, profiling.INFERENCE, profiling.UPDATE))
    assert worker.versions["torch"] == torch.__version__
    assert worker.parameters == 9155
    if hasattr(os, "sched_setaffinity"):
        assert len(worker.cores) == 1


@pytest.mark.slow
def test_a_contestant_of_everlearn_compiles_in_its_process_and_says_so():
    wanted = contestant(library=contestants.OWN, n_envs=1)
    with started({"PPO": (Path(sys.executable), wanted)}, threads=1, processes=True) as runners:
        assert runners["PPO"].iterate().compiled


def test_a_process_that_cannot_start_says_why(tmp_path):
    with pytest.raises(RuntimeError, match="NoSuchWorld"):
        Worker(Path(sys.executable), contestant(env_id="NoSuchWorld-v1"), 1, tmp_path)


def test_every_library_is_told_the_same_number_of_threads(tmp_path):
    variables = environment(2, tmp_path)
    assert {variables[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")} == {"2"}
    assert variables["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path)


def test_a_process_stays_on_as_many_cores_as_it_has_threads(monkeypatch):
    bound = []
    monkeypatch.setattr(peer_worker.os, "sched_getaffinity", lambda _: {4, 2, 7}, raising=False)
    monkeypatch.setattr(peer_worker.os, "sched_setaffinity", lambda _, cores: bound.append(cores), raising=False)
    assert peer_worker.stay_on_cores(2) == [4, 7]
    assert bound == [[4, 7]]


# --- environments of the peers ----------------------------------------------------------------------------------------


@pytest.fixture
def installations(monkeypatch):
    """What would have been run, while nothing is."""
    commands = []

    def run(command, **_):
        commands.append([str(part) for part in command])
        if command[1:3] == ["-m", "venv"]:
            command[3].mkdir(parents=True)

    monkeypatch.setattr(peers.subprocess, "run", run)
    return commands


def test_an_environment_is_made_once_with_torch_before_all_else(tmp_path, installations):
    python = peers.made(peers.PEERS[contestants.SBX], tmp_path, lambda _: None)
    venv, first, second = installations
    assert venv[1:3] == ["-m", "venv"]
    assert first[0] == second[0] == str(python)
    assert first[first.index(str(peers.CONSTRAINTS)) + 1 :] == ["torch"]
    assert any(package.startswith("sbx-rl==") for package in second)
    assert peers.made(peers.PEERS[contestants.SBX], tmp_path, lambda _: None) == python
    assert len(installations) == 3


def test_an_environment_with_other_requirements_is_made_anew(tmp_path, installations):
    peer = peers.PEERS[contestants.SB3]
    place = peers.made(peer, tmp_path, lambda _: None).parents[1]
    (place / "left over").touch()
    peers.made(replace(peer, requirements=(("torch",),)), tmp_path, lambda _: None)
    assert len(installations) == 5
    assert not (place / "left over").exists()


def test_an_installation_that_failed_is_made_anew(tmp_path, installations, monkeypatch):
    peer = peers.Peer("peer", (("torch",),))
    working = peers.subprocess.run

    def fail(command, **options):
        working(command, **options)
        if "install" in command:
            raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(peers.subprocess, "run", fail)
    with pytest.raises(subprocess.CalledProcessError):
        peers.made(peer, tmp_path, lambda _: None)
    monkeypatch.setattr(peers.subprocess, "run", working)
    peers.made(peer, tmp_path, lambda _: None)
    assert len(installations) == 4


def test_everlearn_runs_in_this_environment():
    assert peers.interpreter(contestants.OWN, lambda _: None) == Path(sys.executable)


# --- where the time goes ----------------------------------------------------------------------------------------------


class Toy:
    """An agent whose work takes seconds of a clock that only it moves."""

    def __init__(self):
        self.now = 0.0
        self.env = self.policy = self

    def spend(self, seconds):
        self.now += seconds
        return seconds

    def collect_rollouts(self):
        self.spend(1)
        self.step()
        self.forward()

    def step(self):
        self.spend(2)
        return self.step_wait()

    def step_wait(self):
        return self.spend(4)

    def forward(self):
        return self.spend(8)

    def train(self):
        self.spend(16)
        self.forward()

    def learn(self):
        self.spend(32)
        self.collect_rollouts()
        self.train()


def test_every_part_of_an_iteration_is_counted_once_and_together_they_are_all_of_it(monkeypatch):
    toy = Toy()
    monkeypatch.setattr(profiling.time, "perf_counter", lambda: toy.now)
    with profiling.stopwatch_on(toy, profiling.METHODS) as stopwatch:
        toy.learn()
    parts = stopwatch.parts(toy.now)
    assert parts == {"simulation": 6, "inference": 8, "rest of the collection": 1, "update": 24, "other": 32}


def test_after_taking_the_time_a_class_has_its_methods_back():
    class Heir(Toy):
        def train(self):
            return "own"

    before = dict(vars(Heir))
    with profiling.stopwatch_on(Heir(), profiling.PHASES):
        assert vars(Heir)["train"] is not before["train"]
        assert "collect_rollouts" in vars(Heir)
        assert Heir().train() == "own"
    assert dict(vars(Heir)) == before


def test_what_is_computed_in_the_background_counts_until_it_is_there(monkeypatch):
    waited = []
    module = type(sys)("jax")
    module.block_until_ready = waited.append
    monkeypatch.setitem(sys.modules, "jax", module)

    class Later:
        def block_until_ready(self):
            raise AssertionError("all of a result is waited for at once")

    result = (Later(), Later())
    assert profiling.finished(result) is result
    assert profiling.finished(3) == 3
    assert waited == [result]


def test_the_layers_of_an_agent_are_those_of_all_its_networks():
    model = contestants.build(contestant(arguments={"policy_kwargs": {"net_arch": [5]}}))
    assert sorted(limits.layer_shapes(model)) == [(1, 5), (2, 5), (5, 4), (5, 4)]


# --- what grows ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", growth.AXES, ids=lambda axis: axis.name)
def test_each_axis_lets_one_thing_grow(axis):
    base = contestant(library=contestants.OWN, algorithm="DistributionalPPO", n_envs=3, compiled=False)
    model = contestants.build(axis.grown(base, 7))
    sizes = {
        "environments": model.env.num_envs,
        "quantiles": model.policy.value_net.out_features,
        "critics": model.policy.ensemble.n_critics,
        "hidden width": model.policy.mlp_extractor.latent_dim_pi,
    }
    others = {"environments": 3, "quantiles": 32, "critics": 2, "hidden width": 64}
    assert sizes == others | {axis.name: 7}
