"""Rows 4, 7 and 38 of the failure modes: whatever a file brings along, nothing of it runs, and it costs little.

All hostile files are read by everything that reads files, in one process with an audit hook; the tests judge what came.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import everlearn
from everlearn import Run
from everlearn.core.errors import ConfigError
from tests.security.attacks import ALL, ATTACKS

ROOT = Path(__file__).parents[2]
SECONDS, BYTES = 1.0, 200 * 10**6
ALLOWED = {"FileNotFoundError", "ArgumentError"}
"""Errors of a wrong call, which are outside of the family."""

Outcomes = dict[str, dict[str, dict[str, Any]]]


def outcomes(directory: Path, *options: str) -> Outcomes:
    """What a process has found that reads every file with every reader."""
    results = directory / "results.json"
    program = [sys.executable, "-m", "tests.security.reading", str(directory / "canary"), str(results), *options]
    ended = subprocess.run(program, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr[-4000:]
    found: Outcomes = json.loads(results.read_text())
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    return outcomes(tmp_path_factory.mktemp("hostile"))


@pytest.mark.parametrize("name", ATTACKS)
def test_no_reader_runs_anything_of_a_hostile_file(name: str, found: Outcomes) -> None:
    seen = {reader: outcome["seen"] for reader, outcome in found[name].items() if outcome["seen"]}
    assert seen == {}
    assert [reader for reader, outcome in found[name].items() if outcome["canary"]] == []


@pytest.mark.parametrize("name", ATTACKS)
def test_a_hostile_file_is_refused_by_an_error_of_the_family(name: str, found: Outcomes) -> None:
    attack = ATTACKS[name]
    for outcome in found[name].values():
        assert not outcome["error"] or outcome["family"] or outcome["error"] in ALLOWED, outcome["message"]
    for reader in attack.by:
        outcome = found[name][reader]
        assert outcome["error"] in (attack.error or ("",)), f"{reader}: {outcome['message']}"


@pytest.mark.parametrize("name", ATTACKS)
def test_a_hostile_file_costs_little(name: str, found: Outcomes) -> None:
    """Row 7 of the failure modes. The seconds are of the processor, so that a busy machine changes nothing."""
    costly = {
        reader: (outcome["seconds"], outcome["grown"])
        for reader, outcome in found[name].items()
        if outcome["seconds"] > SECONDS or outcome["grown"] > BYTES
    }
    assert costly == {}


def test_every_reader_has_read_every_file(found: Outcomes) -> None:
    assert found.keys() == ATTACKS.keys()
    assert all(set(ALL) <= by_reader.keys() for by_reader in found.values())


def test_the_guard_sees_a_pickle_that_is_really_read(tmp_path: Path) -> None:
    """Without this, a guard that sees nothing would pass."""
    proof = outcomes(tmp_path, "--prove")["proof"]["prove"]
    assert proof["canary"]
    events = {event.split()[0] for event in proof["seen"]}
    assert {"pickle.find_class", "os.system"} <= events


# --- configurations ---------------------------------------------------------------------------------------------------


def test_an_environment_of_a_run_cannot_name_a_module(tmp_path: Path) -> None:
    settings = {"algorithm": {"n_steps": 32, "batch_size": 32}, "total_timesteps": 32}
    quiet = {"logging": {"baseline_episodes": 0, "evaluation_episodes": 0}}
    run = everlearn.train({"env": {"id": "CartPole-v1", "n_envs": 1}, **settings, **quiet}, out=tmp_path / "run")
    config = run.path / "config.yaml"
    config.write_text(config.read_text().replace("id: CartPole-v1", "id: antigravity:CartPole-v1"))
    with pytest.raises(ConfigError, match="antigravity"):
        Run(run.path).environment()
    assert "antigravity" not in sys.modules
