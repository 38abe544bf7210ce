"""The Trainable by itself, as Tune calls it, without a cluster: what is in force, what goes on, what is refused."""

import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("ray")
pytest.importorskip("ray.tune")

from ray.tune.result import TRIAL_INFO
from ray.tune.trainable import trainable as rays

from everlearn.checkpoint.errors import CheckpointError, Corrupt, Mismatch, Unsupported
from everlearn.core.digest import digest
from everlearn.core.errors import ConfigError, OrderError
from everlearn.pbt.tune_checkpoint import ABOUT, seed_from
from everlearn.population.tune import Trainable, TrialFailed
from tests.pbt import misfortune

RUN: dict[str, Any] = {
    "env": {"id": "CartPole-v1", "n_envs": 2},
    "algorithm": {
        "name": "PPO",
        "n_steps": 32,
        "batch_size": 32,
        "n_epochs": 2,
        "compile": False,
        "policy_kwargs": {"net_arch": [8]},
    },
    "population": {"perturbation_interval": 2},
    "total_timesteps": 6 * 64,
    "seed": 3,
}
EVERYTHING = {
    **RUN,
    "env": {"id": "Pendulum-v1", "n_envs": 2},
    "algorithm": {**RUN["algorithm"], "name": "DistributionalPPO", "vgs_warmup_steps": 2},
}
Made = Callable[..., Trainable]


@pytest.fixture
def made(tmp_path: Path, monkeypatch) -> Iterator[Made]:
    """Makes the actor of a trial; all are stopped in the end."""
    monkeypatch.setattr(rays, "DEFAULT_STORAGE_PATH", str(tmp_path / "results"))
    actors: list[Trainable] = []

    def make(trial_id: str = "abc_00000", run: Any = RUN, **config: Any) -> Trainable:
        actors.append(Trainable(config={"run": run, **of(trial_id), **config}))
        return actors[-1]

    yield make
    for actor in actors:
        actor.stop()


def of(trial_id: str) -> dict[str, Any]:
    """What Tune puts into a configuration to say whose it is."""
    return {TRIAL_INFO: SimpleNamespace(trial_id=trial_id, trial_name=trial_id)}


def agent_of(actor: Trainable) -> Any:
    return actor._place._runner._seat.agent


def saved(actor: Trainable, path: Path) -> str:
    path.mkdir()
    assert actor.save_checkpoint(str(path)) is None, "what is returned would be pickled"
    return str(path)


def told(result: dict[str, Any]) -> dict[str, Any]:
    """What of a result does not depend on the clock."""
    return {name: repr(value) for name, value in result.items() if "time/" not in name}


def digest_of(actor: Trainable) -> str:
    return actor._standing.checkpoint.policy_digest


# --- a trial ----------------------------------------------------------------------------------------------------------


def test_a_trial_reports_its_score_its_counters_what_was_logged_and_what_is_in_force(made: Made) -> None:
    actor = made(learning_rate=1e-3)
    result = actor.train()
    assert result["score"] == pytest.approx(result["rollout/ep_rew_mean"], abs=5)
    assert (result["env_steps"], result["timesteps_total"], result["updates"]) == (128, 128, 2)
    assert result["hyperparams/learning_rate"] == 1e-3 == pytest.approx(result["train/learning_rate"])
    assert result["training_iteration"] == 1
    assert not result["done"]


def test_it_is_done_with_the_time_steps_of_the_run_and_trains_no_further(made: Made) -> None:
    actor = made(run={**RUN, "total_timesteps": 3 * 64})
    results = [actor.step() for _ in range(3)]
    assert [(each["done"], each["updates"], each["env_steps"]) for each in results] == [
        (False, 2, 128),
        (True, 3, 64),
        (True, 3, 0),
    ]
    assert results[2]["score"] == results[1]["score"]


def test_without_an_episode_there_is_no_score(made: Made) -> None:
    assert math.isnan(made(run=EVERYTHING).step()["score"])


def test_the_run_may_be_a_file(made: Made, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "run.yaml").write_text("env: {id: CartPole-v1}\nalgorithm: {n_steps: 32, batch_size: 32}\n")
    monkeypatch.setenv("TUNE_ORIG_WORKING_DIR", str(tmp_path))
    assert made(run="run.yaml")._place.decided.config.algorithm.n_steps == 32


def test_a_trials_files_and_environments_go_with_it(made: Made) -> None:
    actor = made()
    actor.step()
    actor.step()
    directory = actor._place.directory
    assert directory.name.startswith(f"everlearn-trial-{os.getpid()}-"), "so that it is swept, were this process killed"
    assert len([*directory.iterdir()]) == 1
    actor.cleanup()
    actor.cleanup()
    assert not directory.exists()


def test_a_segment_that_fails_is_an_error_with_its_cause(made: Made) -> None:
    assert misfortune.Misfortune is not None
    actor = made(run={**RUN, "env": {"id": "Misfortune-v0"}})
    with pytest.raises(TrialFailed, match=r"(?s)abc_00000.*a misfortune"):
        actor.step()


# --- hyper-parameters -------------------------------------------------------------------------------------------------


def test_b29_hyperparameters_are_in_force_from_the_first_update_on_and_after_a_reset(made: Made) -> None:
    names = {"optimizer.sigma": "optimizer_kwargs.sigma", "vgs.alpha": "vgs_alpha", "entropy_coef": "ent_coef"}
    first = {"learning_rate": 1e-3, "optimizer.sigma": 0.002, "vgs.alpha": 0.2, "entropy_coef": 0.01, "gamma": 0.9}
    second = {name: value / 2 for name, value in first.items()}
    actor = made(run=EVERYTHING, **first)
    place = actor._place
    for values in (first, second):
        actor.step()
        found = agent_of(actor).get_hyperparameters()
        assert {name: found[names.get(name, name)] for name in values} == values
        assert agent_of(actor).rollout_buffer.gamma == values["gamma"]
        assert actor.reset({"run": EVERYTHING, **of("abc_00001"), **second}) is True
    assert actor._place is place, "nothing was built anew"


def test_b29_after_taking_another_over_those_of_the_own_configuration_are_in_force(made: Made, tmp_path: Path) -> None:
    source = made("abc_00000", run=EVERYTHING, gamma=0.9, ent_coef=0.01)
    source.step()
    target = made("abc_00001", run=EVERYTHING, gamma=0.8, ent_coef=0.02)
    target.load_checkpoint(saved(source, tmp_path / "source"))
    assert target.step()["hyperparams/gamma"] == 0.8
    found = agent_of(target).get_hyperparameters()
    assert (found["gamma"], found["ent_coef"]) == (0.8, 0.02)


def with_algorithm(**settings: Any) -> dict[str, Any]:
    return {**EVERYTHING, "algorithm": {**EVERYTHING["algorithm"], **settings}}


IN_RUN = {"gamma": 0.57, "ent_coef": 0.03, "learning_rate": 0.002, "optimizer_kwargs": {"sigma": 0.003}, "n_epochs": 1}


@pytest.mark.filterwarnings("ignore:The new parameters come without 'vgs_state'")
@pytest.mark.parametrize("copied", ["everything", "weights"])
@pytest.mark.parametrize("source_id", ["abc_00001", "abc_00000"], ids=["own", "anothers"])
@pytest.mark.parametrize("reused", [False, True])
def test_b29_what_the_run_says_is_in_force_whatever_is_loaded(
    made: Made, tmp_path: Path, copied: str, source_id: str, reused: bool
) -> None:
    population = {**RUN["population"], "copied": copied}
    source = made(source_id, run=EVERYTHING, vf_coef=0.7, ent_coef=0.01)
    source.step()
    run = {**with_algorithm(**IN_RUN), "population": population}
    if reused:
        target = made("abc_00002", run={**EVERYTHING, "population": population}, vf_coef=0.1)
        target.step()
        target.reset({"run": run, **of("abc_00001"), "gae_lambda": 0.8})
    else:
        target = made("abc_00001", run=run, gae_lambda=0.8)
    target.load_checkpoint(saved(source, tmp_path / "source"))
    for _ in range(2):
        result = target.step()
        found = agent_of(target).get_hyperparameters()
        wanted = {**IN_RUN, "gae_lambda": 0.8, "vf_coef": 0.5, "optimizer_kwargs.sigma": 0.003}
        del wanted["optimizer_kwargs"]
        assert {name: found[name] for name in wanted} == wanted
        assert agent_of(target).rollout_buffer.gamma == agent_of(target).env.gamma == 0.57
        assert "hyperparams/gamma" not in result


def test_b29_after_a_reset_that_names_fewer_the_others_are_the_runs_again(made: Made) -> None:
    actor = made("abc_00000", gamma=0.5, ent_coef=0.01)
    actor.step()
    actor.reset({"run": RUN, **of("abc_00001"), "ent_coef": 0.02})
    actor.step()
    found = agent_of(actor).get_hyperparameters()
    assert (found["gamma"], found["ent_coef"]) == (0.99, 0.02)


def test_names_may_be_nested_and_values_numpys(made: Made) -> None:
    import numpy as np

    actor = made(run=EVERYTHING, optimizer={"sigma": np.float64(0.003)}, learning_rate={"kind": "linear", "start": 1.0})
    assert actor._told == {"optimizer.sigma": 0.003, "learning_rate": {"kind": "linear", "start": 1.0}}
    assert type(actor._told["optimizer.sigma"]) is float


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"leraning_rate": 1e-3}, "leraning_rate: there is no such.*Did you mean 'learning_rate'"),
        ({"kl.target": 1e-3}, "kl.target: there is no such .* or its part is off"),
        ({"n_steps": 64}, "n_steps: it belongs to what an agent is built of.* under 'run'"),
        ({"policy_kwargs": {"net_arch": [8]}}, "policy_kwargs.net_arch: it belongs to what"),
        ({"gamma": 1.2}, r"gamma: gamma=1.2 is outside \[0, 1\].*custom_explore_fn"),
        ({"ent_coef": 0.1, "entropy_coef": 0.1}, "entropy_coef: it is the same hyper-parameter as ent_coef"),
        ({"gamma": 1.2}, "If Tune's PBT has drawn it"),
        ({"optimizer.eps": -1.0}, "optimizer.eps: .*eps"),
        ({"batch_size": 1}, "batch_size: .*greater than 1"),
        ({"learning_rate": {"kind": "linaer", "start": 1.0}}, "learning_rate: .*linaer.*Did you mean 'linear'"),
        ({"learning_rate": {"kind": "linear", "strat": 1.0}}, "(?s)learning_rate: .*strat"),
        ({"learning_rate": {"kind": "linear", "start": "high"}}, "learning_rate: .*start"),
        ({"clip_range_vf": -1.0}, "clip_range_vf: .*must be positive"),
        ({"seed": -1}, "seed=-1 is no seed"),
        ({"seed": 2**32}, "seed=4294967296 is no seed"),
        ({"seed": True}, "seed=True is no seed"),
        ({"run": None}, "run=None is no configuration"),
        ({"run": 5}, "run=5 is no configuration"),
        ({"run": {**RUN, "seed": 2**32}}, "seed: .*less than 4294967296"),
        ({"run": {**RUN, "evaluation": {"every": 7}}}, "evaluation.every: it does nothing"),
        ({"run": {"env": {"id": "CartPole-v7"}}}, "CartPole-v7"),
    ],
)
def test_row_28_what_could_not_be_in_force_is_refused_when_a_trial_begins_and_when_it_changes(
    made: Made, config: dict[str, Any], message: str
) -> None:
    run = config.get("run", RUN)
    with pytest.raises(ConfigError, match=message):
        made(**{**config, "run": run})
    with pytest.raises(ConfigError, match=message):
        made().reset_config({**config, "run": run})


def test_what_the_section_population_says_of_decisions_is_refused_in_one_message(made: Made) -> None:
    section = {"perturbation_interval": 2, "metric_mode": "min", "population_size": 4, "hyperparams": {"gamma": {}}}
    with pytest.raises(ConfigError) as caught:
        made(run={**RUN, "population": section})
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        "population.population_size",
        "population.hyperparams",
        "population.metric_mode",
    ]


def test_what_is_known_is_what_may_be_given(made: Made) -> None:
    with pytest.raises(ConfigError, match=r"Known: .*gamma") as caught:
        made(x=1.0)
    assert "n_steps" not in str(caught.value)


@pytest.mark.parametrize("config", [{"gamma": 1.2}, {"run": {**RUN, "env": {"id": "CartPole-v7"}}}, {"seed": -1}])
def test_after_a_refused_reset_nobody_trains_until_one_is_accepted(made: Made, config: dict[str, Any]) -> None:
    actor = made()
    actor.step()
    with pytest.raises(ConfigError):
        actor.reset({"run": RUN, **of("abc_00001"), **config})
    with pytest.raises(OrderError, match="abc_00001"):
        actor.step()
    actor.reset({"run": RUN, **of("abc_00001"), "gamma": 0.9})
    assert told(actor.step()) == told(made("abc_00001", gamma=0.9).step())


def test_a_run_may_have_numbers_of_numpys(made: Made) -> None:
    import numpy as np

    run = {**RUN, "total_timesteps": np.int64(384), "algorithm": {**RUN["algorithm"], "gamma": np.float64(0.5)}}
    run["algorithm"]["policy_kwargs"] = {"net_arch": np.array([8])}
    actor = made(run=run)
    actor.step()
    assert agent_of(actor).gamma == 0.5


def test_a_trial_without_a_run_is_told_where_that_belongs(made: Made) -> None:
    with pytest.raises(ConfigError, match=r"run: it is missing.*param_space"):
        made().reset_config({"learning_rate": 1e-3})


def test_trials_may_differ_in_what_an_agent_is_built_of(made: Made) -> None:
    actor = made()
    actor.step()
    place = actor._place
    wide = {**RUN, "algorithm": {**RUN["algorithm"], "policy_kwargs": {"net_arch": [16]}}}
    assert actor.reset({"run": wide, **of("abc_00001"), "ent_coef": 0.01}) is True
    assert not place.directory.exists()
    assert actor.step()["updates"] == 2
    assert agent_of(actor).policy.mlp_extractor.policy_net[0].out_features == 16


# --- seeds ------------------------------------------------------------------------------------------------------------


def test_an_actor_that_becomes_another_trial_does_what_one_of_its_own_would(made: Made) -> None:
    actor = made("abc_00000", gamma=0.9)
    actor.step()
    actor.reset({"run": RUN, **of("abc_00001"), "gamma": 0.95})
    assert told(actor.step()) == told(made("abc_00001", gamma=0.95).step())


def test_without_a_seed_a_run_has_the_seed_0_so_that_a_trial_is_the_same_wherever_it_is_tried(made: Made) -> None:
    unseeded = {name: value for name, value in RUN.items() if name != "seed"}
    unseeded["population"] = {**RUN["population"], "score": "evaluation"}
    actors = made(run=unseeded), made(run=unseeded), made(run={**unseeded, "seed": 0})
    other = made("abc_00001", run=unseeded, seed=5)
    assert len({told(actor.step())["score"] for actor in actors}) == 1
    assert len({digest_of(actor) for actor in actors}) == 1
    seeds = {actor._place.decided.config.evaluation.seed for actor in (*actors, other)}
    assert seeds == {10_000}, "all trials play the same episodes"


def test_trials_differ_and_repeat_themselves_in_the_next_experiment(made: Made) -> None:
    first, second, again = (made(name) for name in ("abc_00000", "abc_00001", "fed_00000"))
    for actor in (first, second, again):
        actor.step()
    assert digest_of(first) == digest_of(again) != digest_of(second)
    assert made("other", seed=11)._standing.seed == 11
    assert seed_from(3, "abc_00000") == seed_from(3, "fed_00000") != seed_from(3, "abc")


# --- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", [RUN, EVERYTHING], ids=["plain", "everything"])
def test_a_trial_goes_on_from_its_checkpoint_bit_for_bit(made: Made, tmp_path: Path, run: dict[str, Any]) -> None:
    actor, other = made(run=run, gamma=0.9), made(run=run, gamma=0.9)
    actor.step()
    other.load_checkpoint(saved(actor, tmp_path / "checkpoint"))
    for _ in range(2):
        assert told(actor.step()) == told(other.step())
        assert digest_of(actor) == digest_of(other)


def test_what_is_saved_right_after_loading_or_before_the_first_step_goes_on_alike(made: Made, tmp_path: Path) -> None:
    begun = made(gamma=0.9)
    fresh = saved(begun, tmp_path / "fresh")
    assert {path.name for path in Path(fresh).iterdir()} == {ABOUT}
    begun.step()
    first = saved(begun, tmp_path / "first")
    source = made("abc_00001", gamma=0.95)
    source.step()
    copied = made(gamma=0.9)
    copied.load_checkpoint(saved(source, tmp_path / "source"))
    pending = saved(copied, tmp_path / "pending")
    for path, follower in ((fresh, made()), (first, begun), (pending, copied)):
        between, last = made(gamma=0.9), made(gamma=0.9)
        between.load_checkpoint(path)
        last.load_checkpoint(saved(between, tmp_path / f"{Path(path).name}-again"))
        if follower.iteration or path != fresh:
            assert told(last.step()) == told(follower.step())
            assert digest_of(last) == digest_of(follower)
        else:
            last.step()
            assert digest_of(last) == Path(first, ABOUT).read_text().split('"policy_digest":"')[1].split('"')[0]


def test_b27_who_takes_another_over_is_that_one_with_random_numbers_of_its_own(made: Made, tmp_path: Path) -> None:
    source = made("abc_00000", run=EVERYTHING)
    source.step()
    path = saved(source, tmp_path / "source")
    begun, copies = digest_of(source), [made(f"abc_0000{number}", run=EVERYTHING) for number in (1, 2)]
    for copy in copies:
        copy.load_checkpoint(path)
        standing = copy._standing
        assert (standing.step, standing.timesteps, standing.generation) == (2, 128, 1)
        assert standing.checkpoint.policy_digest == begun, "its policy is the source's until it trains"
    results = [actor.step() for actor in (source, *copies)]
    assert [each["timesteps_total"] for each in results] == [256] * 3
    assert [agent_of(actor).num_timesteps for actor in (source, *copies)] == [256] * 3
    assert len({digest_of(actor) for actor in (source, *copies)}) == 3
    streams = [random_numbers_of(agent_of(actor)) for actor in (source, *copies)]
    assert all(len({stream[kind] for stream in streams}) == 3 for kind in ("noise", "environments"))


def random_numbers_of(agent: Any) -> dict[str, str]:
    """The states of an agent's private generators: of its optimizer's noise, and of its environments."""
    states = [env.unwrapped.np_random.bit_generator.state for env in agent.env.unwrapped.envs]
    return {"noise": digest(agent.get_parameters()["policy.optimizer"]["noise"]), "environments": str(states)}


def test_the_same_take_over_comes_to_the_same(made: Made, tmp_path: Path) -> None:
    source = made("abc_00000")
    source.step()
    path = saved(source, tmp_path / "source")
    reused, fresh = made("abc_00000"), made("abc_00001", gamma=0.9)
    reused.step()  # the seat stands where the source stands
    reused.reset({"run": RUN, **of("abc_00001"), "gamma": 0.9})
    results = []
    for actor in (reused, fresh):
        actor.load_checkpoint(path)
        results.append((told(actor.step()), digest_of(actor)))
    assert results[0] == results[1]


def test_who_takes_over_one_that_has_not_trained_yet_begins_itself(made: Made, tmp_path: Path) -> None:
    path = saved(made("abc_00000"), tmp_path / "source")
    actor = made("abc_00001")
    actor.load_checkpoint(path)
    actor.step()
    alone = made("abc_00001")
    alone.step()
    assert digest_of(actor) == digest_of(alone)


def test_a_trial_whose_run_has_grown_longer_trains_on(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(json.dumps({**RUN, "total_timesteps": 2 * 64}))
    actor = made(run=str(path))
    assert actor.step()["done"]
    checkpoint = saved(actor, tmp_path / "checkpoint")
    path.write_text(json.dumps({**RUN, "total_timesteps": 6 * 64}))
    actor.reset({"run": str(path), **of("abc_00000")})
    for each in (actor, made(run=str(path))):
        each.load_checkpoint(checkpoint)
        results = [each.step() for _ in range(2)]
        assert [(result["updates"], result["env_steps"]) for result in results] == [(4, 128), (6, 128)]
        assert agent_of(each).num_timesteps == agent_of(each)._total_timesteps == 6 * 64
        assert results[-1]["done"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"env": {"id": "Acrobot-v1", "n_envs": 2}}, "env.id is 'CartPole-v1' there and 'Acrobot-v1' here"),
        ({"env": {"id": "CartPole-v1", "n_envs": 4}}, "env.n_envs is 2 there and 4 here"),
        ({"env": {"id": "CartPole-v1", "n_envs": 2, "kwargs": {"render_mode": "rgb_array"}}}, "env.kwargs.render_mode"),
        ({"algorithm": {**RUN["algorithm"], "policy_kwargs": {"net_arch": [16]}}}, r"policy_kwargs.net_arch is \[8\]"),
        (
            {"algorithm": {**RUN["algorithm"], "policy_kwargs": {"activation_fn": "relu"}}},
            "policy_kwargs.activation_fn",
        ),
        ({"algorithm": {**RUN["algorithm"], "n_steps": 64}}, "n_steps is 32 there and 64 here"),
        ({"algorithm": {**RUN["algorithm"], "name": "DistributionalPPO"}}, "name is 'PPO' there"),
        ({"algorithm": {**RUN["algorithm"], "kl_penalty": "pid"}}, "kl_penalty.kind is left out there and 'pid' here"),
    ],
)
@pytest.mark.parametrize("trial_id", ["abc_00000", "abc_00001"], ids=["own", "anothers"])
def test_a_state_of_other_environments_or_another_architecture_is_refused_with_what_differs(
    made: Made, tmp_path: Path, change: dict[str, Any], named: str, trial_id: str
) -> None:
    source = made("abc_00000")
    source.step()
    actor = made(trial_id, run={**RUN, **change})
    before = actor._standing
    with pytest.raises(Mismatch, match=named):
        actor.load_checkpoint(saved(source, tmp_path / "source"))
    assert actor._standing is before
    assert [*actor._place.directory.iterdir()] == []


def test_what_may_change_while_an_agent_learns_keeps_nobody_from_taking_over(made: Made, tmp_path: Path) -> None:
    source = made("abc_00000", run=with_algorithm(kl_penalty="pid"))
    source.step()
    options = {
        "optimizer_kwargs": {"sigma": 0.1},
        "vgs_kwargs": {"mode": "relative", "min_scale": 0.2},
        "learning_rate": "lin_1e-3",
    }
    control = {"kl_penalty": {"kind": "pid", "target": 0.5}, "divergence": "stop", "stats_window_size": 5}
    run = {**with_algorithm(**options, **control), "total_timesteps": 8 * 64, "seed": 8}
    actor = made("abc_00001", run=run)
    actor.load_checkpoint(saved(source, tmp_path / "source"))
    actor.step()
    found = agent_of(actor).get_hyperparameters()
    assert (found["optimizer_kwargs.sigma"], found["vgs_kwargs.min_scale"], found["kl_penalty.target"]) == (
        0.1,
        0.2,
        0.5,
    )
    assert found["learning_rate"] == {"kind": "linear", "start": 1e-3, "end": 0.0, "end_fraction": 1.0}


@pytest.mark.parametrize("rule", [{"optimizer_exploit_strategy": "reset"}, {"copied": "weights"}])
def test_what_is_copied_is_what_the_run_says(made: Made, tmp_path: Path, rule: dict[str, str]) -> None:
    run = {**RUN, "population": {**RUN["population"], **rule}}
    source = made("abc_00000")
    source.step()
    actor = made("abc_00001", run=run)
    actor.load_checkpoint(saved(source, tmp_path / "source"))
    actor.step()
    steps = agent_of(actor).policy.optimizer.state_dict()["state"][0]["step"]
    assert steps == 2 * 2 * 2  # of its own segment alone


CHECKPOINT = {"name": "x.zip", "sha256": "0", "policy_digest": "0", "parts": ["policy"]}
COPY = {"source_id": "a", "checkpoint": CHECKPOINT, "copied": "everything", "optimizer": "copy", "seed": 1}
FORGED: tuple[dict[str, Any], ...] = (
    {"source_id": None},
    {"checkpoint": None},
    {"checkpoint": {**CHECKPOINT, "parts": [1]}},
    {"copied": "nothing"},
    {"optimizer": 1},
    {"seed": "1"},
    {"surplus": 1},
)


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("what", ["member-*.zip", ABOUT])
@pytest.mark.parametrize("harm", [damaged, Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:50])])
def test_row_27_a_damaged_checkpoint_is_refused_and_the_trial_stays(
    made: Made, tmp_path: Path, what: str, harm: Callable[[Path], object]
) -> None:
    actor = made()
    actor.step()
    path = Path(saved(actor, tmp_path / "checkpoint"))
    before = actor._standing
    harm(next(path.glob(what)))
    with pytest.raises(CheckpointError, match="checkpoint"):
        actor.load_checkpoint(str(path))
    assert actor._standing is before
    assert actor.step()["updates"] == 4


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"step": -1}, Corrupt),
        ({"seed": "7"}, Corrupt),
        ({"seed": 7.0}, Corrupt),
        ({"seed": True}, Corrupt),
        ({"trial_id": 3}, Corrupt),
        ({"performance": "much"}, CheckpointError),
        ({"performance": "7"}, Corrupt),
        ({"performance": [7]}, Corrupt),
        ({"performance": True}, Corrupt),
        ({"checkpoint": None}, Corrupt),
        ({"step": 0}, Corrupt),
        ({"copy": 5}, Corrupt),
        *(({"copy": {**COPY, **each}}, Corrupt) for each in FORGED),
        ({"structure": []}, CheckpointError),
        ({"format": 3}, Unsupported),
        ({"checkpoint": {"name": "../x.zip", "sha256": "0", "policy_digest": "0", "parts": []}}, CheckpointError),
        ({"checkpoint": {"name": "x.zip"}}, CheckpointError),
        ({"surplus": 1}, CheckpointError),
    ],
)
def test_row_38_a_checkpoint_that_was_forged_is_refused(
    made: Made, tmp_path: Path, change: dict[str, Any], error: type[Exception]
) -> None:
    from everlearn.pbt.tune_checkpoint import _fingerprint

    actor = made()
    actor.step()
    path = Path(saved(actor, tmp_path / "checkpoint")) / ABOUT
    about = {**json.loads(path.read_text()), **change}
    del about["sha256"]
    path.write_text(json.dumps({**about, "sha256": _fingerprint(about)}))
    with pytest.raises(error):
        actor.load_checkpoint(str(path.parent))


def test_a_checkpoint_of_another_version_is_told_apart_from_a_damaged_one(made: Made, tmp_path: Path) -> None:
    actor = made()
    path = Path(saved(actor, tmp_path / "checkpoint")) / ABOUT
    path.write_text(json.dumps({"format": 9, "something": "else"}))
    with pytest.raises(Unsupported, match="format 9"):
        actor.load_checkpoint(str(path.parent))


def test_errors_go_to_other_processes_whole() -> None:
    import copy

    for error in (Corrupt("file", "it is broken.", "Mend it.", "part"), TrialFailed("why"), ConfigError("what")):
        again = copy.copy(error)  # by the protocol of pickle
        assert type(again) is type(error)
        assert (str(again), vars(again)) == (str(error), vars(error))
