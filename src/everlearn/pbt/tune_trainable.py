"""An agent as Ray Tune drives one: by the segments, the files and the take-over of our own populations."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, final

from ray import tune

from everlearn.core.errors import EverlearnError, OrderError
from everlearn.core.scratch import scratch_directory
from everlearn.pbt.rules import total_updates
from everlearn.pbt.runner import agent_runner
from everlearn.pbt.tune_checkpoint import Standing, read_standing, seed_from, write_standing
from everlearn.pbt.tune_config import Decided, asked, decided, told
from everlearn.population.files import drop_all_but
from everlearn.population.members import MemberId
from everlearn.population.segments import Result, Task

_log = logging.getLogger(__name__)


class TrialFailed(EverlearnError):  # noqa: N818 - the family's names are the words for what happened
    """A trial could not train; Tune tries again from its last checkpoint, where ``FailureConfig`` says so."""


class Trainable(tune.Trainable):
    """An agent for any scheduler of Ray Tune: ``tune.Tuner(Trainable, param_space={"run": ..., "ent_coef": ...})``.

    Of a trial's configuration ``run`` is the configuration of the run, a YAML file or a mapping as for ``everlearn
    train`` and ``everlearn pbt``, whose seed is 0 unless it names one; ``seed``, if it is there, is the seed of a trial
    that begins; every other key is a hyper-parameter, by the names that populations use. Of the section population
    ``perturbation_interval`` (training updates in a step of Tune's), ``score``, ``copied`` and
    ``optimizer_exploit_strategy`` count: the rest is Tune's.

    A step is a segment: the agent that ends it is in a file, whole, before Tune hears of it. A checkpoint of the same
    trial goes on bit for bit, in whatever process; one of another trial is taken over with all that it is, counters
    included, but for its generators and its running episodes. In either case the hyper-parameters in force are those of
    the trial's own configuration: its keys', and else the run's. A run that has other environments or another
    architecture takes no state over; one whose ``total_timesteps`` have grown trains on.

    Reports ``score`` (the mean return, NaN where no episode has ended yet), ``env_steps``, ``timesteps_total``,
    ``updates``, every number as it was logged last, and each hyper-parameter as ``hyperparams/NAME``; it is done with
    the run's ``total_timesteps``.

    Args:
        config: Of the trial.
        storage: Tune's.

    Raises:
        ConfigError: If the configuration of a trial is not valid, when it begins and when it changes; nothing goes on
            under its name then.
        TrialFailed: If a segment fails, with the cause in full.
    """

    _place: _Workplace | None = None
    _told: Mapping[str, Any]
    _in_force: Mapping[str, Any]
    _standing: Standing | None = None

    def setup(self, config: dict[str, Any]) -> None:
        """Become the trial that Tune says, with environments of its own."""
        self._become(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Become another trial, or the same one anew; another run is built, other hyper-parameters build nothing."""
        self._become(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train for a segment; one that is past its end reports once more, and does not train."""
        place, standing = self._at_work()
        updates = min(place.decided.population.perturbation_interval, place.total_updates - standing.step)
        if updates < 1:
            return self._metrics(place, standing)
        result = place.trained(
            Task(
                standing.trial_id,
                standing.generation,
                standing.step,
                updates,
                standing.seed,
                self._in_force,
                standing.checkpoint,
                standing.copy,
            )
        )
        self._standing = after = standing.after(result)
        return self._metrics(place, after, result.env_steps, result.records)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Leave the trial as it stands; also before its first step, and before one that takes another over.

        Raises:
            SaveError: If it cannot be written.
        """
        place, standing = self._at_work()
        write_standing(standing, place.structure, place.directory, Path(checkpoint_dir))

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Stand where this trial stood, or where another one did; the hyper-parameters stay those of the own trial.

        Args:
            checkpoint: The directory.

        Raises:
            CheckpointError: If it is damaged, or of a run with other environments or another architecture.
        """
        place, standing = self._at_work()
        found = read_standing(Path(checkpoint), place.structure, place.directory)
        is_own = found.trial_id == self.trial_id
        self._standing = found if is_own else standing.in_place_of(found, place.decided.population)
        place.keep(self._standing)

    def cleanup(self) -> None:
        """Close the environments, and delete what was private."""
        place, self._place = self._place, None
        if place is not None:
            place.close()

    def _become(self, config: Mapping[str, Any]) -> None:
        self._standing = None  # nowhere, until all of it has proved valid
        wanted, place = told(config), self._place
        run = asked(wanted.run)
        if place is None or place.decided.asked != run.config:
            of_run = decided(run)
            in_force = of_run.in_force(wanted.hyperparams)
            self.cleanup()
            self._place = place = _Workplace(of_run)
        else:
            in_force = place.decided.in_force(wanted.hyperparams)
        assert run.config.seed is not None
        seed = seed_from(run.config.seed, self.trial_id) if wanted.seed is None else wanted.seed
        self._told, self._in_force, self._standing = wanted.hyperparams, in_force, Standing(self.trial_id, seed)

    def _at_work(self) -> tuple[_Workplace, Standing]:
        if self._place is None or self._standing is None:
            raise OrderError(f"Trial {self.trial_id} has no valid configuration: the last one was refused. Reset it.")
        return self._place, self._standing

    def _metrics(
        self, place: _Workplace, standing: Standing, env_steps: int = 0, records: Sequence[Mapping[str, float]] = ()
    ) -> dict[str, Any]:
        return {
            **{name: value for record in records for name, value in record.items() if name != "step"},
            **{f"hyperparams/{name}": value for name, value in self._told.items()},
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
        self.decided, self.total_updates, self.structure = run, total_updates(run.config), run.structure()
        with ExitStack() as stack:
            self.directory = Path(stack.enter_context(scratch_directory("trial")))
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
