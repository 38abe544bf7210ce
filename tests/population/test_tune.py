"""The Trainable by itself, as Tune calls it, without a cluster: what is in force, what goes on, what is refused."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("ray")
pytest.importorskip("ray.tune")

from ray.tune.result import TRIAL_INFO
from ray.tune.trainable import trainable as rays

from everlearn.checkpoint.errors import CheckpointError, Corrupt, Unsupported
from everlearn.core.digest import digest
from everlearn.core.errors import ConfigError
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


def test_names_may_be_nested_and_values_numpys(made: Made) -> None:
    import numpy as np

    actor = made(run=EVERYTHING, optimizer={"sigma": np.float64(0.003)}, learning_rate={"kind": "linear", "start": 1.0})
    assert actor._told.hyperparams == {"optimizer.sigma": 0.003, "learning_rate": {"kind": "linear", "start": 1.0}}
    assert type(actor._told.hyperparams["optimizer.sigma"]) is float


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"leraning_rate": 1e-3}, "leraning_rate: there is no such.*Did you mean 'learning_rate'"),
        ({"kl.target": 1e-3}, "kl.target: there is no such .* or its part is off"),
        ({"n_steps": 64}, "n_steps: it belongs to what an agent is built of.* under 'run'"),
        ({"policy_kwargs": {"net_arch": [8]}}, "policy_kwargs.net_arch: it belongs to what"),
        ({"gamma": 1.2}, r"gamma: gamma=1.2 is outside \[0, 1\].*custom_explore_fn"),
        ({"ent_coef": 0.1, "entropy_coef": 0.1}, "entropy_coef: it is the same hyper-parameter as ent_coef"),
        ({"seed": -1}, "seed=-1 is no seed"),
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
        ({"format": 2}, Unsupported),
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
    path = Path(saved(actor, tmp_path / "checkpoint")) / ABOUT
    about = {**json.loads(path.read_text()), **change}
    del about["sha256"]
    path.write_text(json.dumps({**about, "sha256": _fingerprint(about)}))
    with pytest.raises(error):
        actor.load_checkpoint(str(path.parent))


def test_errors_go_to_other_processes_whole() -> None:
    import copy

    for error in (Corrupt("file", "it is broken.", "Mend it.", "part"), TrialFailed("why"), ConfigError("what")):
        again = copy.copy(error)  # by the protocol of pickle
        assert type(again) is type(error)
        assert (str(again), vars(again)) == (str(error), vars(error))
