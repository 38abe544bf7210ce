import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from everlearn.population.store import PopulationStore
from everlearn.report.population_summary import PopulationSummary, population_summary, print_population
from tests.report.toy_populations import STEPS, rules, trained


def summary_of(directory: Path, trainer, **options) -> PopulationSummary:
    store = PopulationStore(directory / "population.sqlite", read_only=True)
    journal = store.read()
    store.close()
    assert journal is not None
    about = {"directory": directory, "environment": "Toy-v0", "algorithm": "PPO", "seed": 0}
    return population_summary(trainer.population, journal, **about, **options)


def printed(summary: PopulationSummary, width: int = 100, **options) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_population(console, summary, **options)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def finished(tmp_path: Path) -> PopulationSummary:
    misfortunes = {"1:0": "raise", "2:1": "nan"}
    trainer = trained(tmp_path, rules(), 6, misfortunes, interruptions=["0:1", "3:2"])
    return summary_of(tmp_path, trainer)


@pytest.fixture
def stopped(tmp_path: Path) -> PopulationSummary:
    stop = iter([False] * 9 + [True])
    trainer = trained(tmp_path, rules(), 6, {"2:1": "raise"}, stopped=lambda: next(stop))
    return summary_of(tmp_path, trainer, stopped_by="SIGINT")


def test_a_finished_population_tells_what_it_has_come_to(finished: PopulationSummary) -> None:
    best = finished.best
    assert best is not None
    assert (finished.done, finished.generations, finished.failures, finished.interruptions) == (3, 3, 1, 2)
    assert finished.env_steps == 17 * 2 * STEPS
    assert finished.verdict() == f"Finished: the best, member {best.member_id}, reaches a score of {best.score:.2f}."
    text = printed(finished)
    assert "PPO on Toy-v0: 6 members, 3 of 3 generations, 2,176 env steps" in text
    assert finished.verdict() in text
    assert f"* {best.member_id}" in text


def test_for_a_machine_it_is_strict_json(finished: PopulationSummary) -> None:
    plain = json.loads(json.dumps(finished.as_dict(), allow_nan=False))
    best = finished.best
    assert best is not None
    assert (plain["best_member"], plain["best_score"]) == (best.member_id, best.score)
    assert plain["best_hyperparams"] == best.hyperparams
    assert [row["member"] for row in plain["members"]] == [0, 1, 2, 3, 4, 5]
    assert (plain["generations_done"], plain["training"], plain["stopped_by"]) == (3, False, None)
    assert plain["exploits"] == finished.exploits > 0


def test_incidents_are_lines_and_the_latest_comes_first(finished: PopulationSummary) -> None:
    whats = [each.what for each in finished.incidents]
    assert whats[0].startswith("A worker was lost")
    assert "It has failed: ValueError: a misfortune" in whats
    assert all("\n" not in what for what in whats)
    text = printed(finished)
    assert text.index("A worker was lost") < text.index("It has failed")


def test_one_that_was_stopped_tells_where_and_who_is_done(stopped: PopulationSummary) -> None:
    done = "generation 2 of 3; 2 of 6 members are done in it, 1 failed"
    assert stopped.verdict() == f"Stopped by SIGINT in {done}; what is done is kept."
    assert replace(stopped, stopped_by=None, is_training=True).verdict() == f"In training: {done}."
    assert replace(stopped, stopped_by="time limit").verdict().startswith("Stopped by the time limit in")
    text = printed(stopped)
    assert "member 2 has failed: ValueError: a misfortune" in text
    assert [row.state for row in stopped.members] == ["done", "done", "failed", "open", "open", "open"]


def test_one_that_has_not_begun_and_one_without_a_score_can_be_shown(tmp_path: Path) -> None:
    fresh = summary_of(tmp_path / "fresh", trained(tmp_path / "fresh", rules(), 6, stopped=lambda: True))
    assert fresh.verdict() == "Not finished: generation 1 of 3; 0 of 6 members are done in it."
    assert "6 members, 0 of 3 generations, 0 s, seed 0" in printed(fresh)
    (tmp_path / "nan").mkdir()
    nan = summary_of(tmp_path / "nan", trained(tmp_path / "nan", rules(1), 2, {"0:0": "nan"}))
    assert nan.verdict() == "Finished, and no member has a score."
    assert nan.as_dict()["best_member"] is None
    assert "1 member, 1 of 1 generations" in printed(nan)


def test_files_that_are_there_are_named(finished: PopulationSummary) -> None:
    (finished.directory / "lineage.png").touch()
    (finished.directory / "model.zip").touch()
    text = printed(finished, plugins=["mine"])
    assert "who took over whom" in text
    assert f"everlearn evaluate {finished.directory} --import mine" in text
    assert "schedules.png" not in text
