"""The files of a population's members in one directory: kept as long as somebody refers to them, and no longer."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, final

from everlearn.checkpoint.files import reason_of, remove, sweep
from everlearn.population.members import MemberId
from everlearn.population.parameter_files import write_parameters


@final
class MemberFiles:
    """Writes files and deletes those of its own that nobody needs.

    Args:
        directory: Where they are; made with the first one.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._own: set[Path] = set()
        self._pinned: set[Path] = set()
        self._is_swept = False

    def save(
        self,
        member_id: MemberId,
        step: int,
        performance: float | None,
        parameters: Mapping[str, Any],
        checkpoint_format: str,
    ) -> Path:
        """Write a member's parameters; see ``write_parameters``."""
        if not self._is_swept:
            sweep(self.directory)
            self._is_swept = True
        path = write_parameters(self.directory, member_id, step, performance, parameters, checkpoint_format)
        self._own.add(path)
        return path

    def drop_all_but(self, needed: Iterable[Path]) -> None:
        """Delete the own files that are neither needed nor pinned; one that resists stays, with a warning."""
        for path in sorted(self._own - set(needed) - self._pinned):
            try:
                remove(path, "prune:remove")
            except OSError as error:
                warnings.warn(f"{path}: nobody needs it, but it cannot be deleted ({reason_of(error)}).", stacklevel=3)
            self._own.discard(path)

    def pin(self, needed: Iterable[Path]) -> list[str]:
        """Keep the own files among these, whatever happens, until others are pinned.

        Returns:
            Their names.
        """
        self._pinned = self._own & set(needed)
        return sorted(path.name for path in self._pinned)

    def adopt(self, names: Iterable[str]) -> None:
        """Take files of the directory for own ones too, and pin these alone."""
        self._pinned = {self.directory / Path(name).name for name in names}
        self._own |= self._pinned
