"""Files of lines and TensorBoard's event files that are appended to, opened only while something is written.

So a population of a thousand members needs neither a thousand open files nor as many threads.
"""

from __future__ import annotations

import io
import logging
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, final

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from everlearn.checkpoint import strict_json
from everlearn.checkpoint.files import DRAFT, reason_of
from everlearn.runs.writing import writing

_log = logging.getLogger(__name__)
_EVENTS = "events.out.tfevents."


@final
class AppendedFile:
    """A file that ends with a whole piece, whatever fails; until it is published it grows beside the one before.

    Row 14 of the failure modes: what cannot be written, as on a full disk, waits for the next piece; the first time
    this is a warning. Nothing more is made of it: the journal has it all, and if that cannot be written training ends.

    Args:
        path: Where it will be.
        draft: Its name before; none of another file in the directory.

    Raises:
        EverlearnError: If it cannot be made.
    """

    def __init__(self, path: Path, draft: str) -> None:
        self._path, self._published = path.with_name(f"{DRAFT}{draft}"), path
        self._size, self._waiting, self._warned = 0, b"", False
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_bytes(b"")

    def append(self, piece: bytes) -> None:
        """Write a piece, after those that wait."""
        self._waiting += piece
        try:
            self._write()
        except OSError as error:
            if not self._warned:
                _log.warning(
                    "%s: it cannot be written (%s). What belongs there waits and is tried again; see to free space.",
                    self._published,
                    reason_of(error),
                )
            self._warned = True

    def publish(self) -> None:
        """Put it into its place.

        Raises:
            EverlearnError: If that cannot be done.
        """
        with writing(self._published):
            os.replace(self._path, self._published)
        self._path = self._published

    def _write(self) -> None:
        """What waits, in the place of a part that could not be written to its end."""
        with open(os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "r+b") as file:
            file.seek(min(self._size, file.seek(0, os.SEEK_END)))  # if somebody has deleted it, it begins anew
            file.truncate()
            file.write(self._waiting)
            end = file.tell()
        self._size, self._waiting = end, b""


@final
class EventFile:
    """Numbers at steps, as TensorBoard reads them; the file takes the place of all that are in its folder.

    Args:
        folder: Where.
        wall_time: Of its beginning, in seconds since 1970.

    Raises:
        EverlearnError: If it cannot be made.
    """

    def __init__(self, folder: Path, wall_time: float) -> None:
        numbers = [each.name.removeprefix(_EVENTS).split(".")[0] for each in folder.glob(f"{_EVENTS}*")]
        last = max((int(each) for each in numbers if each.isdecimal()), default=0)
        # A TensorBoard that is running goes on to the next name, and is told there to forget what it has.
        self._path = folder / f"{_EVENTS}{max(int(time.time()), last + 1):010d}.population"
        self._file = AppendedFile(self._path, "events")
        self._file.append(_packed(Event(wall_time=wall_time, file_version="brain.Event:2")))
        self._file.append(_packed(Event(wall_time=wall_time, session_log=SessionLog(status=SessionLog.START))))

    def append(self, step: int, wall_time: float, values: Mapping[str, float]) -> None:
        """Write numbers.

        Args:
            step: At which.
            wall_time: When, in seconds since 1970.
            values: Number by name.
        """
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
        self._file.append(_packed(Event(step=step, wall_time=wall_time, summary=summary)))

    def publish(self) -> None:
        """Put it into its place, and remove those before it; the last of these stays, empty.

        A TensorBoard that is running stands in that one, and would not get past it if it were gone.

        Raises:
            EverlearnError: If that cannot be done.
        """
        self._file.publish()
        others = sorted(each for each in self._path.parent.glob(f"{_EVENTS}*") if each != self._path)
        with suppress(OSError):  # TensorBoard forgets them all the same
            for last in others[-1:]:
                os.truncate(last, 0)
            for earlier in others[:-1]:
                earlier.unlink()


def json_line(value: Mapping[str, Any]) -> bytes:
    """A line of strict JSON."""
    return strict_json.dumps(value) + b"\n"


def _packed(event: Any) -> bytes:
    buffer = io.BytesIO()
    RecordWriter(buffer).write(event.SerializeToString())
    return buffer.getvalue()
