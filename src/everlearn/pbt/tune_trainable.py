"""An agent as Ray Tune drives one: by the segments, the files and the take-over of our own populations."""

from __future__ import annotations

import logging
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, final

from ray import tune

from everlearn.core.errors import EverlearnError
from everlearn.pbt.rules import total_updates
from everlearn.pbt.runner import agent_runner
from everlearn.pbt.tune_checkpoint import Standing, read_standing, seed_from, write_standing
from everlearn.pbt.tune_config import Decided, Told, decided, require_changeable, told
from everlearn.population.files import drop_all_but
from everlearn.population.members import MemberId
from everlearn.population.segments import Result, Task

_log = logging.getLogger(__name__)


class TrialFailed(EverlearnError):  # noqa: N818 - the family's names are the words for what happened
    """A trial could not train; Tune tries again from its last checkpoint, where ``FailureConfig`` says so."""


class Trainable(tune.Trainable):
    """An agent for any scheduler of Ray Tune: ``tune.Tuner(Trainable, param_space={"run": ..., "ent_coef": ...})``.

    Of a trial's configuration ``run`` is the configuration of the run, a YAML file or a mapping as for ``everlearn
    train`` and ``everlearn pbt``; ``seed``, if it is there, is the seed of a trial that begins; every other key is a
    hyper-parameter, by the names that populations use. Of the section population ``perturbation_interval`` (training
    updates in a step of Tune's), ``score``, ``copied`` and ``optimizer_exploit_strategy`` count: the rest is Tune's.

    A step is a segment: the agent that ends it is in a file, whole, before Tune hears of it. A checkpoint of the same
    trial goes on bit for bit, in whatever process; one of another trial is taken over with all that it is, counters
    included, but for its generators and its running episodes. In either case the hyper-parameters in force are those of
    the trial's own configuration.

    Reports ``score`` (the mean return, NaN where no episode has ended yet), ``env_steps``, ``timesteps_total``,
    ``updates``, every number as it was logged last, and each hyper-parameter as ``hyperparams/NAME``; it is done with
    the run's ``total_timesteps``.

    Args:
        config: Of the trial.
        storage: Tune's.

    Raises:
        ConfigError: If the configuration of a trial is not valid, when it begins and when it changes.
        TrialFailed: If a segment fails, with the cause in full.
    """

    _place: _Workplace | None = None
    _told: Told
    _standing: Standing

    def setup(self, config: dict[str, Any]) -> None:
        """Become the trial that Tune says, with environments of its own."""
        self._become(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Become another trial, or the same one anew; another run is built, other hyper-parameters build nothing."""
        self._become(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train for a segment; one that is past its end reports once more, and does not train."""
        place, standing = self._at_work(), self._standing
        updates = min(place.decided.population.perturbation_interval, place.total_updates - standing.step)
        if updates < 1:
            return self._metrics(0, ())
        result = place.trained(
            Task(
                standing.trial_id,
                standing.generation,
                standing.step,
                updates,
                standing.seed,
                self._told.hyperparams,
                standing.checkpoint,
                standing.copy,
            )
        )
        self._standing = standing.after(result)
        return self._metrics(result.env_steps, result.records)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Leave the trial as it stands; also before its first step, and before one that takes another over.

        Raises:
            SaveError: If it cannot be written.
        """
        write_standing(self._standing, self._at_work().directory, Path(checkpoint_dir))

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Stand where this trial stood, or where another one did; the hyper-parameters stay those of the own trial.

        Args:
            checkpoint: The directory.

        Raises:
            CheckpointError: If it is damaged.
        """
        place = self._at_work()
        found = read_standing(Path(checkpoint), place.directory)
        is_own = found.trial_id == self.trial_id
        self._standing = found if is_own else self._standing.in_place_of(found, place.decided.population)
        place.keep(self._standing)

    def cleanup(self) -> None:
        """Close the environments, and delete what was private."""
        place, self._place = self._place, None
        if place is not None:
            place.close()

    def _become(self, config: Mapping[str, Any]) -> None:
        wanted, place = told(config), self._place
        if place is None or wanted.run != self._told.run:
            run = decided(wanted.run)
            require_changeable(wanted.hyperparams, run.known)
            self.cleanup()
            self._place = place = _Workplace(run)
        else:
            require_changeable(wanted.hyperparams, place.decided.known)
        assert place.decided.config.seed is not None
        seed = seed_from(place.decided.config.seed, self.trial_id) if wanted.seed is None else wanted.seed
        self._told, self._standing = wanted, Standing(self.trial_id, seed)

    def _at_work(self) -> _Workplace:
        assert self._place is not None
        return self._place

    def _metrics(self, env_steps: int, records: Sequence[Mapping[str, float]]) -> dict[str, Any]:
        standing, place = self._standing, self._at_work()
        return {
            **{name: value for record in records for name, value in record.items() if name != "step"},
            **{f"hyperparams/{name}": value for name, value in self._told.hyperparams.items()},
            "score": math.nan if standing.performance is None else standing.performance,
            "env_steps": env_steps,
            "timesteps_total": standing.timesteps,
            "updates": standing.step,
            "done": standing.step >= place.total_updates,
        }


@final
class _Workplace:
    """What trains the segments of a run, in a directory of its own.

    Args:
        run: Which.
    """

    def __init__(self, run: Decided) -> None:
        self.decided, self.total_updates = run, total_updates(run.config)
        self.directory = Path(tempfile.mkdtemp(prefix="everlearn-trial-"))
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
            self._runner = agent_runner(run.config.model_dump(exclude_none=True), self.directory)
            stack.callback(self._runner.close)
            self._held = stack.pop_all()

    def trained(self, task: Task) -> Result:
        """What comes of a segment; its file is the only one then.

        Raises:
            TrialFailed: If it fails.
        """
        (result,) = self._runner.run([task], _unwatched)
        if result.error is not None:
            raise TrialFailed(f"Trial {task.member_id} has failed after {task.step} updates. {result.error}")
        for each in result.interruptions:
            _log.warning("Trial %s: %s", task.member_id, each)
        if result.checkpoint is not None:
            drop_all_but(self.directory, {result.checkpoint.name})
        return result

    def keep(self, standing: Standing) -> None:
        """Delete the files that a trial which stands there has no use for."""
        drop_all_but(self.directory, set() if standing.checkpoint is None else {standing.checkpoint.name})

    def close(self) -> None:
        """Close the environments and delete the directory."""
        self._held.close()


def _unwatched(member_id: MemberId, updates: int) -> None:
    """Tune watches its actors by other means."""
