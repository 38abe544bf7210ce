"""What is written down and watched while an agent trains."""

from __future__ import annotations

import csv
import json
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import (
    DISABLED,
    CSVOutputFormat,
    KVWriter,
    Logger,
    TensorBoardOutputFormat,
    filter_excluded_keys,
)

from everlearn.core.errors import EverlearnError
from everlearn.report import Display, Progress
from everlearn.runs.directory import RunDirectory
from everlearn.runs.writing import LineFile, writing

_log = logging.getLogger(__name__)


class JsonLines(KVWriter):
    """One strict JSON object per record: NaN and infinities, which JSON does not have, become null.

    Args:
        file: What to write into; a path begins a new file.
    """

    def __init__(self, file: LineFile | Path) -> None:
        self._file = LineFile(file) if isinstance(file, Path) else file

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Append the numbers and texts of a record; pictures and histograms are left to TensorBoard."""
        record: dict[str, Any] = {"step": step}
        for key, value in filter_excluded_keys(key_values, key_excluded, "json").items():
            plain = value.tolist() if isinstance(value, np.generic | np.ndarray | torch.Tensor) else value
            if isinstance(plain, str):
                record[key] = plain
            elif isinstance(plain, int | float):
                record[key] = plain if math.isfinite(plain) else None
        self._file.write(json.dumps(record, allow_nan=False) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class RunLogger(Logger):
    """SB3's logger, in which a file that cannot be written does not end the training.

    Row 39 of the failure modes: one that fails several times in a row is given up with a warning. ``progress.jsonl``
    is none of these: it keeps what it cannot write.
    """

    _PATIENCE = 5

    def __init__(self, folder: str | None, output_formats: list[KVWriter]) -> None:
        super().__init__(folder, output_formats)
        self._failures: Counter[KVWriter] = Counter()

    def dump(self, step: int = 0) -> None:
        """Write what was recorded."""
        if self.level == DISABLED:
            return
        for sink in list(self.output_formats):
            try:
                sink.write(self.name_to_value, self.name_to_excluded, step)
                self._failures[sink] = 0
            except OSError as error:
                self._count_failure(sink, error)
        self.name_to_value.clear()
        self.name_to_count.clear()
        self.name_to_excluded.clear()

    def close(self) -> None:
        """Close all files, and then complain about those that could not be written to their end.

        Raises:
            EverlearnError: Naming the run's directory or the file.
        """
        refused: list[EverlearnError] = []
        for sink in self.output_formats:
            try:
                with writing(Path(self.dir or ".")):
                    sink.close()
            except EverlearnError as error:
                refused.append(error)
        if refused:
            raise refused[0]

    def _count_failure(self, sink: KVWriter, error: OSError) -> None:
        self._failures[sink] += 1
        if self._failures[sink] < self._PATIENCE:
            return
        self.output_formats.remove(sink)
        _log.warning(
            "%s: %s could not be written %d times in a row (%s), so it is given up; progress.jsonl has all metrics.",
            self.dir,
            type(sink).__name__,
            self._PATIENCE,
            error.strerror or error,
        )
        with suppress(OSError):  # it was said above
            sink.close()


def metric_logger(directory: RunDirectory, *, tensorboard: bool, lines: LineFile | None = None) -> Logger:
    """SB3's logger, writing the run's metric files.

    What ``progress.jsonl`` has kept of a run that is resumed is written into the table anew; TensorBoard, which cannot
    take back what it has, is told from which step on to forget it.

    Args:
        directory: Of the run.
        tensorboard: Whether to write for TensorBoard.
        lines: Its ``progress.jsonl``; None begins a new one.
    """
    lines = lines or LineFile(directory.progress_jsonl)
    records = [json.loads(line) for line in directory.progress_jsonl.read_text("utf-8").splitlines()]
    formats: list[KVWriter] = [JsonLines(lines)]
    with writing(directory.path):
        table = CSVOutputFormat(str(directory.progress_csv))
        for record in records:
            values = {key: math.nan if value is None else value for key, value in record.items() if key != "step"}
            table.write(values, dict.fromkeys(values), record["step"])  # type: ignore[arg-type]
        formats.append(table)
        if tensorboard:
            formats.append(_tensorboard(directory.tensorboard, records[-1]["step"] + 1 if records else None))
    return RunLogger(str(directory.path), formats)


def _tensorboard(folder: Path, purge_step: int | None) -> TensorBoardOutputFormat:
    sink = TensorBoardOutputFormat(str(folder))
    if purge_step is not None:
        sink.writer.close()
        sink.writer = type(sink.writer)(log_dir=str(folder), purge_step=purge_step)
    return sink


class Episode(NamedTuple):
    """One finished episode; the fields are the columns of ``episodes.csv``.

    Attributes:
        env_step: Environment steps, over all environments, when it ended.
        env: Index of its environment.
        ret: Undiscounted sum of its rewards (the column is called ``return``).
        length: Its number of steps.
        seconds: Time since training began when it ended.
    """

    env_step: int
    env: int
    ret: float
    length: int
    seconds: float


def episodes_in(file: Path) -> list[Episode]:
    """The episodes that ``episodes.csv`` has."""
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.reader(lines))[1:]
    return [Episode(int(row[0]), int(row[1]), float(row[2]), int(row[3]), float(row[4])) for row in rows]


class EpisodeRecorder(BaseCallback):
    """Writes a line for each finished episode and keeps all of them.

    Args:
        file: Where to write, as CSV; a new file gets the names of the columns.
        episodes: Those that it has.
    """

    def __init__(self, file: LineFile, episodes: Sequence[Episode] = ()) -> None:
        super().__init__()
        self.episodes = [*episodes]
        self._rows = csv.writer(file, lineterminator="\n")
        if not file.size:
            self._rows.writerow(["return" if name == "ret" else name for name in Episode._fields])
        self._start = time.monotonic()

    def _on_training_start(self) -> None:
        self._start = time.monotonic() - (self.episodes[-1].seconds if self.episodes else 0.0)

    def _on_step(self) -> bool:
        for index, info in enumerate(self.locals["infos"]):
            if "episode" in info:
                seconds = round(time.monotonic() - self._start, 3)
                total, length = float(info["episode"]["r"]), int(info["episode"]["l"])
                episode = Episode(self.num_timesteps, index, total, length, seconds)
                self.episodes.append(episode)
                self._rows.writerow(episode)
        return True

    def mean_return(self, window: int) -> float | None:
        """Mean return of the last ``window`` episodes; None before the first."""
        last = [episode.ret for episode in self.episodes[-window:]]
        return float(np.mean(last)) if last else None


class LogPositions(BaseCallback):
    """How far each log has come: a run that is resumed cuts off what follows.

    Args:
        files: The logs.
    """

    def __init__(self, files: Sequence[LineFile]) -> None:
        super().__init__()
        self._files = files

    def _on_step(self) -> bool:
        return True

    def state_dict(self) -> dict[str, int]:
        """Name of a file to bytes."""
        return {file.path.name: file.size for file in self._files}

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:
        """Nothing: the logs were opened there."""


class ProgressReporter(BaseCallback):
    """Tells a display several times a second how far training is.

    Args:
        display: What shows it.
        recorder: Where the returns come from.
        total: Environment steps to take.
        window: Episodes that the shown return is the mean of.
        evaluated: The mean return of the last evaluation, None if there is none.
    """

    _PAUSE = 0.2  # seconds

    def __init__(
        self,
        display: Display,
        recorder: EpisodeRecorder,
        total: int,
        window: int,
        evaluated: Callable[[], float | None] = lambda: None,
    ) -> None:
        super().__init__()
        self._evaluated = evaluated
        self._display, self._recorder, self._total, self._window = display, recorder, total, window
        self._start = self._next = time.monotonic()
        self.seconds = 0.0

    def _on_training_start(self) -> None:
        self._start = self._next = time.monotonic()

    def _on_step(self) -> bool:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self._PAUSE
            self._show()
        return True

    def _on_training_end(self) -> None:
        self._show()

    def _show(self) -> None:
        self.seconds = time.monotonic() - self._start
        mean = self._recorder.mean_return(self._window)
        self._display.update(Progress(self.num_timesteps, self._total, self.seconds, mean, self._evaluated()))


class Stopper(BaseCallback):
    """Ends training after the current step once ``requested`` says so.

    Args:
        requested: Asked at every step.
    """

    def __init__(self, requested: Callable[[], bool]) -> None:
        super().__init__()
        self._requested = requested

    def _on_step(self) -> bool:
        return not self._requested()
