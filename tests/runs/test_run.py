import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import everlearn
from everlearn.core.errors import ConfigError, StateError
from everlearn.ppo.algorithm import DistributionalPPO
from everlearn.runs import Run, train
from tests.runs.tiny import tiny


def copied(run: Run, to: Path) -> Path:
    return Path(shutil.copytree(run.path, to))


def test_a_run_opened_later_is_the_run_that_was_trained(run: Run) -> None:
    opened = Run(str(run.path))
    assert opened.summary == run.summary
    assert opened.config == run.config
    assert opened.config.seed == 7
    assert type(opened.model) is type(run.model)
    for name, value in run.model.policy.state_dict().items():
        assert torch.equal(opened.model.policy.state_dict()[name], value)
    assert repr(opened) == f"Run({str(run.path)!r})"


def test_a_run_may_move(run: Run, tmp_path: Path) -> None:
    moved = Run(copied(run, tmp_path / "moved"))
    assert moved.summary.directory == tmp_path / "moved"
    assert moved.summary.returns == run.summary.returns


def test_the_records_are_columns(run: Run) -> None:
    metrics = run.progress()
    assert metrics["step"] == [16, 32, 48, 64]
    assert math.isnan(metrics["train/approx_kl"][0])
    assert all(math.isfinite(value) for value in metrics["train/approx_kl"][1:])
    assert {len(column) for column in metrics.values()} == {4}
    episodes = run.episodes()
    assert list(episodes) == ["env_step", "env", "return", "length", "seconds"]
    assert episodes["return"] == run.summary.returns
    assert episodes["env_step"] == [18, 18, 36, 36, 54, 54]
    assert run.evaluations() == {name: [] for name in run.evaluations()}


def test_a_line_that_is_still_being_written_is_left_out(run: Run, tmp_path: Path) -> None:
    going_on = Run(copied(run, tmp_path / "run"))
    for file, part in ((going_on.directory.progress_jsonl, '{"step": 8'), (going_on.directory.episodes, "72,0,-1")):
        with file.open("a") as stream:
            stream.write(part)
    assert going_on.progress()["step"] == [16, 32, 48, 64]
    assert len(going_on.episodes()["return"]) == 6


def test_a_run_without_an_end_has_no_summary(run: Run, tmp_path: Path) -> None:
    killed = copied(run, tmp_path / "run")
    (killed / "summary.json").unlink()
    with pytest.raises(StateError, match=r"summary\.json: there is none.*progress\(\) has the metrics"):
        _ = Run(killed).summary


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"best": null, "evaluation": 3}'])
def test_a_damaged_summary_is_named(run: Run, tmp_path: Path, text: str) -> None:
    damaged = copied(run, tmp_path / "run")
    (damaged / "summary.json").write_text(text)
    with pytest.raises(StateError, match=r"summary\.json: it is damaged"):
        _ = Run(damaged).summary


def test_the_summary_file_is_strict_json_and_has_all_figures(run: Run) -> None:
    values = json.loads(run.directory.summary.read_text())
    assert values == run.summary.as_dict()


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("env: {id: mine}\n")
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(ConfigError, match=r"this is no run of everlearn\. Name the directory that a training"):
            Run(path)


def test_there_is_a_best_agent_only_where_somebody_looked(run: Run, tmp_path: Path) -> None:
    assert run.load("best").num_timesteps == 64  # the mean return of the last training episodes is a score
    unscored = train(tiny(**{"checkpoint.every": 0}), tmp_path / "unscored")
    with pytest.raises(ConfigError, match=r"no checkpoint with a score\. .*evaluation: \{every: N\}"):
        unscored.load("best")
    evaluated = train(tiny(**{"evaluation.every": 32, "name": "DistributionalPPO"}), tmp_path / "run")
    assert type(evaluated.load("best")) is DistributionalPPO
    worst: Any = "worst"
    with pytest.raises(ConfigError, match="'best' and 'latest'"):
        run.load(worst)


def test_an_unknown_device_is_refused(run: Run) -> None:
    with pytest.raises(ConfigError, match="device: Input should be auto, cpu"):
        run.load(device="gpu")


def test_environments_are_as_the_agent_was_trained_to_see_them(run: Run) -> None:
    venv = run.environment(n_envs=2, seed=3)
    observations = venv.reset()
    assert observations.shape == (2, 3)
    assert torch.equal(
        torch.as_tensor(observations),
        torch.as_tensor(run.load("latest").normalize_obs(venv.get_original_obs())),
    )


def test_a_run_imports_no_plug_in_by_itself(run: Run, tmp_path: Path) -> None:
    path = copied(run, tmp_path / "run")
    config = path / "config.yaml"
    config.write_text(config.read_text().replace("plugins: []", "plugins: [everlearn_tests_evil]"))
    (tmp_path / "everlearn_tests_evil.py").write_text("raise SystemExit('it ran')")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        patch.syspath_prepend(tmp_path)
        for opened in (lambda: Run(path).model, lambda: Run(path).environment()):
            with pytest.raises(ConfigError, match="--import everlearn_tests_evil, or import them before in Python"):
                opened()


def test_the_public_names_are_these_objects() -> None:
    assert everlearn.train is train
    assert everlearn.Run is Run
