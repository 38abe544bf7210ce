import json
import logging
import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from everlearn.pbt.log_files import AppendedFile, EventFile
from everlearn.pbt.logs import PopulationLogs
from everlearn.population.scheduler_statistics import statistics_of
from everlearn.population.store import PopulationStore
from everlearn.population.trainer import PopulationTrainer, Watcher
from tests.report.toy_populations import STEPS, rules, trained

ROOT = Path(__file__).parents[2]
MISFORTUNES = {"1:0": "raise", "2:1": "nan"}


class Logging(Watcher):
    """The logs of a population of toys, which opens its journal itself; what is killed sees no end."""

    def __init__(self, directory: Path, *, tensorboard: bool = False, killed: bool = False) -> None:
        self._directory, self._tensorboard, self._killed = directory, tensorboard, killed

    def began(self, population, seconds) -> None:
        with closing(PopulationStore(self._directory / "population.sqlite", read_only=True)) as store:
            self._logs = PopulationLogs(self._directory, store, tensorboard=self._tensorboard)
            self._logs.began(population, seconds)

    def reported(self, population, results) -> None:
        self._logs.reported(population, results)

    def decided(self, population, decided, seconds) -> None:
        self._logs.decided(population, decided, seconds)

    def ended(self, population, seconds) -> None:
        if not self._killed:
            self._logs.ended(population, seconds)


def logged(directory: Path, segments: int | None = None, *, size: int = 4, **options: Any) -> PopulationTrainer:
    """A population that was trained for so many segments, or to its end."""
    left = iter([False] * (segments or 0) + [True]) if segments is not None else None
    watcher = Logging(directory, **options)
    stopped: Callable[[], bool] = (lambda: False) if left is None else (lambda: next(left))
    return trained(directory, rules(size), 6, MISFORTUNES, watcher=watcher, stopped=stopped, interruptions=["0:1"])


def lines(file: Path) -> list[dict[str, Any]]:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    return [json.loads(line, parse_constant=refuse) for line in file.read_text().splitlines()]


def logs_in(directory: Path) -> dict[str, list[dict[str, Any]]]:
    files = [directory / "generations.jsonl", *(directory / "members").glob("*.jsonl")]
    return {file.name: lines(file) for file in files}


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard reads in a folder."""
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    names = accumulator.Tags()["scalars"]
    return {name: [(each.step, each.value) for each in accumulator.Scalars(name)] for name in names}


def without_time(content: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    timed = ("seconds", "pbt/env_steps_per_second")
    return {
        name: [{k: v for k, v in line.items() if k not in timed} for line in rows] for name, rows in content.items()
    }


def test_every_generation_that_is_over_has_a_line(tmp_path: Path) -> None:
    population = logged(tmp_path).population
    found = lines(tmp_path / "generations.jsonl")
    assert [line["generation"] for line in found] == [1, 2, 3]
    assert [line["env_steps"] for line in found] == [3 * 2 * STEPS, 7 * 2 * STEPS, 11 * 2 * STEPS]
    assert [line["failed"] for line in found] == [[1], [], []]
    assert [line["pbt/failures"] for line in found] == [1, 0, 0]
    assert [line["pbt/interruptions"] for line in found] == [0, 1, 0]
    assert found[1]["scores"]["2"] is None  # it was NaN
    assert found[2]["best"] == max(found[2]["scores"].values()) == found[2]["pbt/best_performance"]
    assert found[2]["scores"][str(found[2]["best_member"])] == found[2]["best"]
    assert found[2]["median"] == pytest.approx(float(np.median([*found[2]["scores"].values()])))
    assert found[2]["mean"] == pytest.approx(float(np.mean([*found[2]["scores"].values()])))
    assert sorted(line["seconds"] for line in found) == [line["seconds"] for line in found]
    assert found[2]["pbt/max_performance"] == statistics_of(population.ledger)["pbt/max_performance"]


def test_a_line_tells_every_decision_with_the_format_of_the_file_and_what_came_along(tmp_path: Path) -> None:
    population = logged(tmp_path).population
    exploits = [event for event in population.ledger.events if event.source_id is not None]
    told = [decision for line in lines(tmp_path / "generations.jsonl") for decision in line["decisions"]]
    assert [(each["member"], each["source"]) for each in told] == [
        (each.member_id, each.source_id) for each in exploits
    ]
    assert [each["after"] for each in told] == [dict(each.hyperparams) for each in exploits]
    assert {(each["checkpoint_format"], each["with_vgs_state"]) for each in told} == {("everlearn_v3", True)}
    start = next(event for event in population.ledger.events if event.member_id == told[0]["member"])
    assert told[0]["before"] == start.hyperparams


def test_what_a_population_has_to_be_watched_for_is_there(tmp_path: Path) -> None:
    """R12: formats and success of exploits, transfers of VGS state, the disagreement of each member's critics."""
    logged(tmp_path, tensorboard=True)
    last = lines(tmp_path / "generations.jsonl")[-1]
    assert last["pbt/exploits/everlearn_v3"] == last["pbt/exploitation_count"] > 0
    assert (last["pbt/exploit_success_rate"], last["pbt/vgs_transfer_success_rate"]) == (1.0, 1.0)
    assert last["disagreement"] == {
        str(member): pytest.approx(0.5 / 6 if member != 1 else 0.5 / 4) for member in range(4)
    }
    for member in range(4):
        assert scalars(tmp_path / "tb" / f"member-{member}")["critics/disagreement"]


def test_members_have_their_records_their_score_and_hyperparameters(tmp_path: Path) -> None:
    population = logged(tmp_path, tensorboard=True).population
    rows, tensorboard = lines(tmp_path / "members" / "member-3.jsonl"), scalars(tmp_path / "tb" / "member-3")
    member = population.ledger.member(3)
    assert [row["step"] // STEPS for row in rows] == [1, 2, 2, 3, 4, 4, 5, 6, 6]
    assert [row["generation"] for row in rows] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert rows[0]["train/loss"] is None  # JSON has no NaN
    ends = [row for row in rows if "pbt/score" in row]
    assert [row["pbt/score"] for row in ends] == [report.performance for report in member.history]
    assert {f"hyperparams/{name}": value for name, value in member.hyperparams.items()}.items() <= ends[-1].items()
    assert [step for step, _ in tensorboard["critics/disagreement"]] == [STEPS * each for each in range(1, 7)]
    assert [step for step, _ in tensorboard["pbt/score"]] == [2 * STEPS, 4 * STEPS, 6 * STEPS]
    assert set(tensorboard) >= {f"hyperparams/{name}" for name in member.hyperparams}


def test_the_hyperparameters_of_a_segment_are_those_by_which_it_was_trained(tmp_path: Path) -> None:
    population = logged(tmp_path).population
    for member in population.members:
        events = [event for event in population.ledger.events if event.member_id == member.member_id]
        rows = lines(tmp_path / "members" / f"member-{member.member_id}.jsonl")
        for row in (each for each in rows if "hyperparams/rate" in each):
            assert row["hyperparams/rate"] == events[row["generation"] - 1].hyperparams["rate"]


def test_tensorboard_has_the_numbers_of_the_lines(tmp_path: Path) -> None:
    logged(tmp_path, tensorboard=True)
    found = lines(tmp_path / "generations.jsonl")
    tensorboard = scalars(tmp_path / "tb" / "population")
    names = {name for line in found for name in line if name.startswith("pbt/")}
    assert set(tensorboard) == names
    assert tensorboard["pbt/best_performance"] == [(each["env_steps"], pytest.approx(each["best"])) for each in found]


@pytest.mark.parametrize("segments", [0, 2, 4, 5, 8, 11])
@pytest.mark.parametrize("tensorboard", [False, True])
def test_after_a_kill_no_line_is_missing_and_none_is_there_twice(
    tmp_path: Path, segments: int, tensorboard: bool
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    logged(whole, tensorboard=tensorboard)
    logged(killed, segments, tensorboard=tensorboard, killed=True)
    with (killed / "generations.jsonl").open("ab") as file:
        file.write(b'{"generation": 9')  # half a line, as a power failure leaves it
    logged(killed, tensorboard=tensorboard)
    assert without_time(logs_in(killed)) == without_time(logs_in(whole))
    if tensorboard:
        expected = {name: scalars(whole / "tb" / name) for name in ("population", "member-1", "member-3")}
        found = {name: scalars(killed / "tb" / name) for name in expected}
        for each in (expected["population"], found["population"]):
            del each["pbt/env_steps_per_second"]
        for each in (*expected.values(), *found.values()):
            each.pop("train/loss", None)  # NaN equals nothing
        assert found == expected
        assert [each.stat().st_size > 0 for each in sorted((killed / "tb" / "member-1").iterdir())] == [False, True]


def test_what_is_finished_is_made_again_byte_for_byte(tmp_path: Path) -> None:
    logged(tmp_path)
    files = [tmp_path / "generations.jsonl", *(tmp_path / "members").glob("*.jsonl")]
    before = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    logged(tmp_path)
    assert [file.read_bytes() for file in files] == before


def test_segments_that_were_trained_again_because_all_had_failed_are_logged_once(tmp_path: Path) -> None:
    watcher = Logging(tmp_path)
    with pytest.raises(Exception, match="All members have failed"):
        trained(tmp_path, rules(2), 4, {"0:1": "raise", "1:1": "raise"}, watcher=watcher)
    assert [line["generation"] for line in lines(tmp_path / "generations.jsonl")] == [1]
    trained(tmp_path, rules(2), 4, watcher=watcher)
    found = lines(tmp_path / "generations.jsonl")
    assert [(line["generation"], line["failed"]) for line in found] == [(1, []), (2, [])]
    assert len(lines(tmp_path / "members" / "member-0.jsonl")) == 6


def test_every_key_is_in_the_monitoring_guide_and_no_other(tmp_path: Path) -> None:
    logged(tmp_path)
    found = [*lines(tmp_path / "generations.jsonl"), *lines(tmp_path / "members" / "member-0.jsonl")]
    keys = {name for line in found for name in line if name.startswith(("pbt/", "hyperparams/"))}
    general = {re.sub("^hyperparams/.*", "hyperparams/NAME", re.sub("exploits/.*", "exploits/FORMAT", k)) for k in keys}
    text = (ROOT / "docs" / "monitoring.md").read_text()
    assert set(re.findall(r"^\| (?:population|member) \| `([\w/]+)`", text, re.MULTILINE)) == general
    assert [key for key in ("env_steps", "decisions", "before") if f"`{key}`" not in text] == []


def test_a_file_that_cannot_be_written_loses_nothing_once_it_can(tmp_path: Path, caplog) -> None:
    file = AppendedFile(tmp_path / "log", "log")
    file.append(b"one\n")
    file.publish()
    (tmp_path / "log").unlink()
    (tmp_path / "log").mkdir()
    with caplog.at_level(logging.WARNING):
        file.append(b"two\n")
        file.append(b"three\n")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    (tmp_path / "log").rmdir()
    file.append(b"four\n")
    assert (tmp_path / "log").read_bytes() == b"two\nthree\nfour\n"


def test_part_of_a_piece_is_overwritten_by_the_next(tmp_path: Path) -> None:
    file = AppendedFile(tmp_path / "log", "log")
    file.append(b"one\n")
    file.publish()
    with (tmp_path / "log").open("ab") as other:
        other.write(b"tw")
    file.append(b"two\n")
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"


def test_until_it_is_published_the_file_before_stays(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"before\n")
    file = AppendedFile(tmp_path / "log", "log")
    file.append(b"after\n")
    assert (tmp_path / "log").read_bytes() == b"before\n"
    file.publish()
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {"log": b"after\n"}


def test_a_tensorboard_that_is_running_forgets_what_was_before(tmp_path: Path) -> None:
    first = EventFile(tmp_path, 1000.0)
    first.append(5, 1001.0, {"a": 1.0})
    first.publish()
    (before,) = tmp_path.iterdir()
    accumulator = EventAccumulator(str(tmp_path)).Reload()
    second = EventFile(tmp_path, 2000.0)
    second.append(3, 2001.0, {"a": 2.0})
    second.publish()
    emptied, _ = sorted(tmp_path.iterdir())
    assert (emptied, emptied.stat().st_size) == (before, 0)
    accumulator.Reload()
    assert [(each.step, each.value) for each in accumulator.Scalars("a")] == [(3, 2.0)]
    EventFile(tmp_path, 3000.0).publish()
    assert [each.stat().st_size > 0 for each in sorted(tmp_path.iterdir())] == [False, True]
