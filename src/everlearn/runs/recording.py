"""What is written down and watched while an agent trains."""

from __future__ import annotations

import csv
import json
import logging
import math
import time
from collections import Counter
from collections.abc import Callable
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
        path: The file to write.
    """

    def __init__(self, path: Path) -> None:
        self._file = LineFile(path)

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


def metric_logger(directory: RunDirectory, *, tensorboard: bool) -> Logger:
    """SB3's logger, writing the run's metric files."""
    formats: list[KVWriter] = [JsonLines(directory.progress_jsonl)]
    with writing(directory.path):
        formats.append(CSVOutputFormat(str(directory.progress_csv)))
        if tensorboard:
            formats.append(TensorBoardOutputFormat(str(directory.tensorboard)))
    return RunLogger(str(directory.path), formats)


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


class EpisodeRecorder(BaseCallback):
    """Writes a line for each finished episode and keeps all of them.

    Args:
        file: Where to write, as CSV.
    """

    def __init__(self, file: LineFile) -> None:
        super().__init__()
        self.episodes: list[Episode] = []
        self._rows = csv.writer(file, lineterminator="\n")
        self._rows.writerow(["return" if name == "ret" else name for name in Episode._fields])
        self._start = time.monotonic()

    def _on_training_start(self) -> None:
        self._start = time.monotonic()

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
