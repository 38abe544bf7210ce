import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stable_baselines3.common.logger import DISABLED, CSVOutputFormat

from everlearn.checkpoint.errors import SaveError
from everlearn.core.errors import EverlearnError, NonFiniteError
from everlearn.ppo.algorithm import PPO
from everlearn.runs import train
from everlearn.runs.directory import RunDirectory
from everlearn.runs.recording import metric_logger
from everlearn.runs.writing import LineFile, write_text, writing
from tests.runs.tiny import tiny


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_the_system_refuses_to_write_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing" / "file"
    writes: list[Callable[[], object]] = [
        lambda: LineFile(missing),
        lambda: metric_logger(RunDirectory(missing), tensorboard=False),
    ]
    for write in writes:
        with pytest.raises(EverlearnError, match=r"missing/file.*: it cannot be written \(No such file or directory\)"):
            write()
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match="file/text: it cannot be written"):
        write_text(tmp_path / "file" / "text", "")


def test_a_text_is_written_whole(tmp_path: Path) -> None:
    write_text(tmp_path / "text", "one\n")
    write_text(tmp_path / "text", "två\n")
    assert (tmp_path / "text").read_text("utf-8") == "två\n"


def test_a_line_is_in_the_file_as_soon_as_it_is_written(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "rows.csv")
    file.write("a,b\n")
    assert (tmp_path / "rows.csv").read_text() == "a,b\n"
    file.close()


class Disk:
    """Stands in for a file whose disk has room for so many bytes."""

    def __init__(self, file: Any, room: float) -> None:
        self.file, self.room = file, room

    def write(self, content: bytes) -> int:
        if self.room <= 0:
            full()
        written = self.file.write(content[: int(min(self.room, len(content)))])
        self.room -= written
        return int(written)

    def close(self) -> None:
        self.file.close()


def test_lines_that_find_the_disk_full_are_written_when_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Row 14 of the failure modes: one warning, no line lost, none twice, none torn."""
    path = tmp_path / "rows.csv"
    file = LineFile(path)
    disk = Disk(file._file, room=6)
    file._file = disk  # type: ignore[assignment]
    with caplog.at_level(logging.WARNING):
        assert [file.write(f"row {number}\n") for number in range(3)] == [6, 6, 6]
        assert path.read_text() == "row 0\n"
        disk.room = 3
        file.write("row 3\n")
        assert path.read_text() == "row 0\nrow"
        disk.room = 1000
        file.write("row 4\n")
    assert path.read_text() == "".join(f"row {number}\n" for number in range(5))
    (record,) = caplog.records
    assert f"{path}: it cannot be written (No space left on device)" in record.getMessage()
    file.close()


def test_lines_that_wait_are_written_on_closing(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "rows.csv")
    disk = Disk(file._file, room=0)
    file._file = disk  # type: ignore[assignment]
    file.write("row\n")
    disk.room = 1000
    file.close()
    assert (tmp_path / "rows.csv").read_text() == "row\n"
    assert disk.file.closed


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_lines_that_can_never_be_written_are_an_error_on_closing_only() -> None:
    file = LineFile(Path("/dev/full"))
    file.write("a,b\n")
    with pytest.raises(EverlearnError, match=r"^/dev/full: it cannot be written \(No space left on device\)"):
        file.close()
    assert file._file.closed


def test_a_sink_that_fails_is_given_up_after_five_times_in_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Row 39 of the failure modes: training goes on, and progress.jsonl has all metrics."""
    logger = metric_logger(RunDirectory(tmp_path), tensorboard=False)
    csv = logger.output_formats[1]
    write = csv.write
    failing: list[int] = [*range(1, 5), *range(6, 12)]  # four times, and later for good

    def sometimes(values: Any, excluded: Any, step: int) -> None:
        if step in failing:
            full()
        write(values, excluded, step)

    monkeypatch.setattr(csv, "write", sometimes)
    with caplog.at_level(logging.WARNING):
        for step in range(1, 13):
            logger.record("x", step)
            logger.dump(step)
            assert (csv in logger.output_formats) is (step < 10)
    assert (tmp_path / "progress.jsonl").read_text().count("\n") == 12
    (record,) = caplog.records
    assert f"{tmp_path}: CSVOutputFormat could not be written 5 times in a row" in record.getMessage()
    assert csv.file.closed
    logger.close()


def test_each_record_is_written_once(tmp_path: Path) -> None:
    logger = metric_logger(RunDirectory(tmp_path), tensorboard=False)
    logger.record("x", 1)
    logger.dump(1)
    logger.record("y", 2)
    logger.dump(2)
    logger.close()
    assert (tmp_path / "progress.jsonl").read_text() == '{"step": 1, "x": 1}\n{"step": 2, "y": 2}\n'


def test_a_logger_that_is_disabled_writes_nothing(tmp_path: Path) -> None:
    logger = metric_logger(RunDirectory(tmp_path), tensorboard=False)
    logger.set_level(DISABLED)
    logger.record("x", 1)
    logger.dump(1)
    logger.close()
    assert (tmp_path / "progress.jsonl").read_text() == ""


def test_all_sinks_are_closed_although_one_complains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = metric_logger(RunDirectory(tmp_path), tensorboard=False)
    lines, csv = logger.output_formats
    monkeypatch.setattr(lines, "close", full)
    with pytest.raises(EverlearnError, match=rf"^{tmp_path}: it cannot be written \(No space left on device\)"):
        logger.close()
    assert csv.file.closed
    lines._file.close()


def test_records_that_cannot_be_closed_do_not_cost_the_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    close = CSVOutputFormat.close
    monkeypatch.setattr(CSVOutputFormat, "close", lambda self: (close(self), full()))
    with pytest.raises(EverlearnError, match=rf"^{tmp_path / 'run'}: it cannot be written \(No space left") as error:
        train(tiny(), tmp_path / "run")
    assert PPO.load(tmp_path / "run" / "model.zip").num_timesteps == 64
    assert "The agent as it was then is saved" in error.value.__notes__[0]


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError), writing(tmp_path):
        raise NonFiniteError("not finite")
