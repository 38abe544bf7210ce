"""The Trainable under Ray Tune's own schedulers, on a Ray of this machine, in a process of its own."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")
pytest.importorskip("ray.tune")

from tests.document_pages import ROOT

SECONDS = 120
EXAMPLE = ROOT / "examples" / "ray_tune_pbt.py"


def program(arguments: list[str], directory: Path) -> str:
    """What a program prints."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def tuned(kind: str, directory: Path) -> dict[str, Any]:
    """What came of the trials that a scheduler has driven."""
    printed = program(["-m", "tests.population.tuning", kind, str(directory / "results")], directory)
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


def require_trained(trials: list[dict[str, Any]]) -> None:
    """Each has trained to its end, with the hyper-parameters of its configuration in force, and is in a file."""
    for trial in trials:
        assert trial["error"] is None
        assert (trial["timesteps_total"], trial["updates"], trial["training_iteration"]) == (384, 6, 3)
        assert trial["done"] is True
        assert {name: trial[f"hyperparams/{name}"] for name in trial["config"]} == trial["config"]
        assert trial["train/learning_rate"] == pytest.approx(trial["config"]["learning_rate"])
        assert [name.partition("-")[0] for name in trial["files"]] == ["member", "trial.json"]


@pytest.mark.slow
def test_population_based_training_drives_three_trials_by_one_actor_that_becomes_each(tmp_path: Path) -> None:
    trials = tuned("asynchronous", tmp_path)["trials"]
    require_trained(trials)
    assert [trial["pid"] for trial in trials] == [trials[0]["pid"]] * 3


@pytest.mark.slow
def test_in_a_synchronous_population_the_worse_goes_on_as_the_better(tmp_path: Path) -> None:
    found = tuned("synchronous", tmp_path)
    require_trained(found["trials"])
    assert found["copies"] == 2


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="Tune's PB2 needs scikit-learn")
def test_pb2_drives_trials(tmp_path: Path) -> None:
    found = tuned("pb2", tmp_path)
    require_trained(found["trials"])
    assert found["copies"] == 2


@pytest.mark.slow
def test_asha_compares_networks_of_several_widths_in_actors_that_are_built_anew(tmp_path: Path) -> None:
    trials = tuned("asha", tmp_path)["trials"]
    assert {trial["error"] for trial in trials} == {None}
    assert len(trials) == 3
    assert {trial["updates"] for trial in trials} <= {2, 4, 6}
    require_trained([trial for trial in trials if trial["updates"] == 6])


@pytest.mark.slow
def test_what_is_refused_is_the_trials_error_in_full(tmp_path: Path) -> None:
    (trial,) = tuned("refused", tmp_path)["trials"]
    assert "ConfigError: gamma: gamma=1.5 is outside [0, 1]" in trial["error"]


@pytest.mark.slow
def test_a_trial_whose_segment_fails_is_tried_again_from_its_last_checkpoint(tmp_path: Path) -> None:
    (trial,) = tuned("failing", tmp_path)["trials"]
    assert (tmp_path / "results-flag").exists()
    assert (trial["error"], trial["updates"], trial["timesteps_total"]) == (None, 6, 192)
    assert trial["iterations_since_restore"] < trial["training_iteration"] == 3


@pytest.mark.slow
def test_the_example_trains_a_population(tmp_path: Path) -> None:
    printed = program([str(EXAMPLE), str(tmp_path / "results")], tmp_path)
    assert "The best of 4 trials has" in printed


def test_the_page_shows_the_example() -> None:
    page = (ROOT / "docs" / "how-to" / "ray_tune.md").read_text()
    assert f"\n{EXAMPLE.read_text()}```" in page


def test_without_ray_it_is_said_what_to_install() -> None:
    without = (
        "import sys; sys.modules['ray'] = None\n"
        "from everlearn.core.errors import MissingExtraError\n"
        "import everlearn.population\n"
        "try: import everlearn.population.tune\n"
        "except MissingExtraError as error: print(error)\n"
    )
    assert "pip install 'everlearn[ray]'" in program(["-c", without], ROOT)


def test_a_population_alone_does_not_import_ray() -> None:
    line = "import sys, everlearn.population, everlearn.pbt; print('ray' in sys.modules)"
    assert program(["-c", line], ROOT) == "False\n"
