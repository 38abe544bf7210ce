"""Whether updates are compiled: what was asked for, whether it pays, and what stood in the way."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Generator, Iterable
from functools import partial
from typing import Literal, TypeVar

from torch import Tensor

from everlearn.core.errors import ArgumentError
from everlearn.core.metrics import Row
from everlearn.core.private_cache import keep_compiled_code_private
from everlearn.core.rng import kept_generators
from everlearn.ppo.compilable import NotCompiled
from everlearn.ppo.compiled import CompiledRunner, Graphs
from everlearn.ppo.loss import Coefficients
from everlearn.ppo.rollout import Rollout
from everlearn.ppo.update import EagerRunner, Outcome

T = TypeVar("T")
CompileChoice = Literal["auto"] | bool
Updates = Callable[[Iterable[Tensor]], Generator[tuple[Row, Outcome]]]
WORTH_COMPILING = 40_000
"""Updates of a training from which on compiling, which takes some ten seconds, is paid back."""
_log = logging.getLogger(__name__)


class UpdateCompiler:
    """Makes the updates of one model's rollouts, compiled where that is wanted and possible.

    Attributes:
        compiled: Whether the last rollout's updates were; None before the first.
        reason: Why updates are eager; None while they are compiled, or nothing has been decided.
        is_short: Whether training will be over soon, however many steps it is for, so that "auto" does not compile.
    """

    def __init__(self) -> None:
        self._graphs = Graphs()
        self._has_failed = False
        self._told: set[str] = set()
        self.is_short = False
        self.compiled: bool | None = None
        self.reason: str | None = None

    def decides(self, earlier: bool | None, updates: float) -> bool:
        """What "auto" comes to: once and for all for a training.

        Args:
            earlier: What it has come to before; None at the beginning.
            updates: Of the whole training.
        """
        return pays("auto", updates) and not self.is_short if earlier is None else earlier

    def updates(
        self, eager: EagerRunner, rollout: Rollout, batch_size: int, coefficients: Coefficients, wanted: bool
    ) -> Updates:
        """What does an update with each of some rows of a rollout.

        Args:
            eager: The eager runner.
            rollout: The samples.
            batch_size: Samples of a minibatch.
            coefficients: The numbers of the loss.
            wanted: Whether they should be compiled.
        """
        if wanted and not self._has_failed:
            runner = attempted(lambda: self._compiled(eager, rollout, batch_size, coefficients))
            if isinstance(runner, CompiledRunner):
                self.compiled, self.reason = True, None
                return runner.updates
            self._has_failed = not isinstance(runner, NotCompiled | ArgumentError)  # which may go away
            self._refuse(runner)
        elif not self._has_failed:
            self.reason = "compiling would not be paid back, or was not asked for"
        self.compiled = False
        return partial(eager.updates, rollout.samples, coefficients=coefficients)

    def _compiled(
        self, eager: EagerRunner, rollout: Rollout, batch_size: int, coefficients: Coefficients
    ) -> CompiledRunner:
        start = time.monotonic()
        runner = CompiledRunner(eager, rollout, batch_size, coefficients, self._graphs)
        if runner.is_new:
            _log.info("The update has been compiled in %.1f seconds.", time.monotonic() - start)
        return runner

    def _refuse(self, error: Exception) -> None:
        """Stay with the eager update for this rollout, and say why, once."""
        self.reason = f"{type(error).__name__}: {error}"
        if self.reason not in self._told:
            self._told.add(self.reason)
            warnings.warn(
                f"The update cannot be compiled and stays eager, which is slower: {self.reason}", stacklevel=2
            )
            _log.debug("The update cannot be compiled", exc_info=error)


def attempted(make: Callable[[], T]) -> T | Exception:
    """What is made of compiled code, or why it cannot be; no global generator is advanced.

    Args:
        make: Makes it, and compares it with what it stands for, where a layer that draws would draw.
    """
    try:
        keep_compiled_code_private()
        with kept_generators():
            return make()
    except Exception as error:  # whatever tracer and compiler raise: the eager update does the same
        return error


def require_choice(choice: object) -> None:
    """Refuse what is no choice.

    Raises:
        ArgumentError: Naming it.
    """
    if not (choice == "auto" or isinstance(choice, bool)):
        raise ArgumentError(f"compile={choice!r}: there are 'auto', True and False.")


def pays(choice: CompileChoice, updates: float) -> bool:
    """Whether to compile: as asked for or, with "auto", where a training has enough updates.

    Args:
        choice: The argument ``compile``.
        updates: Of the whole training, those that were done included.
    """
    require_choice(choice)
    return updates >= WORTH_COMPILING if choice == "auto" else choice
