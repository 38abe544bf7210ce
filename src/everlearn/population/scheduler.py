"""Population based training for those with a training loop of their own."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np

from everlearn.checkpoint.errors import SaveError
from everlearn.core.errors import NonFiniteError, OrderError, StateError
from everlearn.population import scheduler_statistics as counted
from everlearn.population.beginning import drawn_members, given_members
from everlearn.population.config import PBTConfig
from everlearn.population.copying import for_copy
from everlearn.population.decisions import Decision, decide, hyperparams_after
from everlearn.population.exploit import NoExploit
from everlearn.population.ledger import Incident, Ledger, Standing, Taken
from everlearn.population.lineage import Event, Stretch, ancestry, schedule
from everlearn.population.member_files import MemberFiles
from everlearn.population.members import PopulationMember
from everlearn.population.parameter_files import policy_digest, read_parameters
from everlearn.population.reports import Given, parameters_given, performance_number, step_number
from everlearn.population.scheduler_state import generator_from, ledger_from, refused_state, state_of

_log = logging.getLogger(__name__)


class ExploitResult(NamedTuple):
    """What a member goes on with.

    Attributes:
        parameters: What to put into its model with ``model.set_parameters``; None if it keeps its own.
        hyperparams: Value by name, to be put in force after the parameters.
        checkpoint_format: ``everlearn_v3``, ``v2_full_parameters`` or ``v1_policy_only``; None without parameters.
    """

    parameters: dict[str, Any] | None
    hyperparams: dict[str, Any]
    checkpoint_format: str | None


@final
class PBTScheduler:
    """Decides for a population of agents who copies whom and with which hyper-parameters each goes on.

    The loop is the caller's: train a member, report with ``update_performance``, and where
    ``should_exploit_and_explore`` says so, ask ``exploit_and_explore`` and put into the model what it returns. No
    global generator is touched, and a scheduler restored from ``state_dict`` decides as the original would have.

    Args:
        config: The rules.
        seed: Of all that is drawn; None draws one, which is ``scheduler.seed`` then.
    """

    def __init__(self, config: PBTConfig, seed: int | None = None) -> None:
        self.config = config
        self.seed: int = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        self._ledger = Ledger()
        self._generator = np.random.default_rng(self.seed)
        self._files = None if config.checkpoint_dir is None else MemberFiles(Path(config.checkpoint_dir))
        self._has_warned = False

    @property
    def members(self) -> list[PopulationMember]:
        """The handles, in the order of the population."""
        return list(self._ledger.members)

    @property
    def events(self) -> list[Event]:
        """What was decided, oldest first; every member's beginning too."""
        return list(self._ledger.events)

    @property
    def incidents(self) -> list[Incident]:
        """What went wrong and was lived with, the latest thousand."""
        return list(self._ledger.incidents)

    def initialize_population(
        self, initial: Sequence[PopulationMember | Mapping[str, Any]] | None = None
    ) -> list[PopulationMember]:
        """The members, whose hyper-parameters are drawn, or are those that are given.

        Args:
            initial: Members, or the hyper-parameters of each; as many as ``population_size``.

        Raises:
            OrderError: If there is a population already.
            ConfigError: If two have the same id, or a value is missing, unknown or outside of its range.
        """
        if self._ledger.members:
            raise OrderError("This scheduler has its population already. Make another scheduler for another one.")
        if initial is None:
            members = drawn_members(self.config, self._generator)
        else:
            members = given_members(self.config, initial)
        self._ledger.begin(members, keeps_files=self._files is not None)
        if len(members) == 1:
            _log.warning("A population of one trains as a single agent: there is nobody to copy.")
        return list(members)

    def should_exploit_and_explore(self, member: PopulationMember) -> bool:
        """Whether it is time: ``perturbation_interval`` updates since its last decision, and ``burn_in`` is over."""
        standing = self._ledger.standing(member)
        is_due = member.step - standing.last_event_step >= self.config.perturbation_interval
        return is_due and standing.has_reported and member.step >= self.config.burn_in

    def update_performance(
        self,
        member: PopulationMember,
        performance: float | None,
        step: int,
        model_parameters: Mapping[str, Any] | None = None,
        model_state_dict: Mapping[str, Any] | None = None,
    ) -> None:
        """Report how a member does, and give what others may take over.

        Args:
            member: Which.
            performance: Its score; None or a number that is not finite counts as a report, and as the worst score.
            step: Its training updates so far.
            model_parameters: What ``model.get_parameters()`` returns; it is on the disk when this returns. A member
                that never gives any is never copied.
            model_state_dict: Deprecated: the policy's weights alone.

        Raises:
            ArgumentError: If an argument is none of these.
            StateError: If no file can hold the parameters.
        """
        standing = self._ledger.standing(member)
        score, step = performance_number(performance), step_number(step)
        given = parameters_given(model_parameters, model_state_dict, self._files is not None)
        if given is not None:
            self._save(member, standing, step, score, given)
        elif self._files is None:
            standing.has_state, standing.saved_step = True, step
        self._ledger.report(member, score, step)

    def exploit_and_explore(self, member: PopulationMember) -> ExploitResult:
        """Decide about a member: whether it takes over another's state, and with which hyper-parameters it goes on.

        Nothing is decided, and the member keeps what it has, until enough others have reported in its generation. After
        ``ready_check_max_wait`` such calls ``min_ready_members`` are enough, so that nobody waits for the dead.

        Args:
            member: Which; it has reported since its last decision.
        """
        standing, present = self._ledger.standing(member), self._ledger.counting(member)
        if not self._is_ready(standing, len(present)):
            return ExploitResult(None, dict(member.hyperparams), None)
        records = self._ledger.records(present, self.config.metric_mode, with_observations=self.config.explore.learns)
        (decision,) = decide(records, self.config, self._generator, (member.member_id,))
        taken = self._taken_over(decision)
        source_id = None if taken.source is None else taken.source.member_id
        hyperparams = hyperparams_after(decision, source_id, records, self.config)
        expected = None if taken.parameters is None else policy_digest(taken.parameters)
        self._ledger.counts[counted.ATTEMPTS] += bool(decision.sources)
        event = self._ledger.event(member, taken, hyperparams)
        path = None if taken.source is None else taken.source.checkpoint_path
        self._ledger.settle(event, path, expected, "vgs_state" in (taken.parameters or {}))
        _log.info("%s", event)
        self._after_decision(len(present))
        return ExploitResult(taken.parameters, dict(hyperparams), taken.checkpoint_format)

    def verify_exploit(self, member: PopulationMember, model_parameters: Mapping[str, Any]) -> None:
        """Check that a member's model has the policy that it was given by its last exploit.

        Args:
            member: Which.
            model_parameters: What its ``model.get_parameters()`` returns before it is trained on.

        Raises:
            StateError: If it has another one.
            OrderError: If it was given none.
        """
        expected = self._ledger.standing(member).expected_digest
        if expected is None:
            raise OrderError(f"Member {member.member_id!r} was given no parameters. Verify it after an exploit.")
        if policy_digest(model_parameters) != expected:
            raise StateError(
                f"The policy of member {member.member_id!r} is not that of member {member.parent!r}, which it was to "
                "take over. Put all parameters into the model, and verify before it trains."
            )

    def schedule(self, member: PopulationMember) -> tuple[Stretch, ...]:
        """All the training that the state of a member has had, whoever did it, with its hyper-parameters."""
        self._ledger.standing(member)
        return schedule(self._ledger.events, member.member_id, member.step)

    def ancestry(self, member: PopulationMember) -> tuple[Event, ...]:
        """The exploits by which a member came by its state, oldest first."""
        self._ledger.standing(member)
        return ancestry(self._ledger.events, member.member_id)

    def get_stats(self) -> dict[str, float]:
        """Numbers for a logger, under ``pbt/``."""
        return counted.statistics_of(self._ledger)

    def state_dict(self) -> dict[str, Any]:
        """All that decisions depend on, as plain data. The files it refers to stay until the next one is taken."""
        files = self._files
        return {
            "seed": self.seed,
            "generator": self._generator.bit_generator.state,
            "files": [] if files is None else files.pin(self._ledger.files()),
            **state_of(self._ledger, None if files is None else files.directory),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a state; handles that the caller has stay valid. What does not fit changes nothing.

        Raises:
            StateError: If it is of another population, or none.
        """
        directory = None if self._files is None else self._files.directory
        ledger, generator = ledger_from(state_dict, directory, self.config.space), generator_from(state_dict)
        with refused_state():
            seed, files = int(state_dict["seed"]), [str(name) for name in state_dict["files"]]
        handles, ids = self._ledger.members, [member.member_id for member in ledger.members]
        wanted = [member.member_id for member in handles] or ids
        if len(ids) != self.config.population_size or ids != wanted:
            raise StateError(f"The state is of members {ids}, here are others. Load it with its own configuration.")
        for handle, member in zip(handles, ledger.members, strict=False):
            vars(handle).update(vars(member))
        ledger.hold(handles or ledger.members)
        self._ledger, self._generator, self.seed = ledger, generator, seed
        if self._files is not None:
            self._files.adopt(files)

    # --- steps of the above ---------------------------------------------------------------------------------------

    def _save(
        self, member: PopulationMember, standing: Standing, step: int, performance: float | None, given: Given
    ) -> None:
        """Write a member's parameters; what cannot be written leaves the file before, and training goes on."""
        assert self._files is not None
        try:
            path = self._files.save(member.member_id, step, performance, given.parameters, given.checkpoint_format)
        except (SaveError, NonFiniteError) as error:
            self._ledger.note(member, f"Its parameters are not kept: {error}")
            warnings.warn(f"Member {member.member_id!r}: {error}", stacklevel=3)
            return
        member.checkpoint_path = path
        standing.has_state, standing.saved_step = True, step
        self._files.drop_all_but(self._ledger.files())

    def _is_ready(self, standing: Standing, present: int) -> bool:
        if not standing.has_reported:
            return False
        if present >= self.config.ready_members:
            return True
        standing.waits += 1
        return standing.waits >= self.config.ready_check_max_wait and present >= self.config.min_ready_members

    def _taken_over(self, decision: Decision) -> Taken:
        """The first source whose state can be read; row 27 of the failure-mode table."""
        passed_over: list[str] = []
        for source in map(self._ledger.member, decision.sources):
            if self._files is None:
                return Taken(source)
            try:
                loaded = read_parameters(_file_of(source))
                how = (self.config.copied, self.config.optimizer_exploit_strategy, decision.seed)
                parameters = for_copy(loaded.parameters, *how)
            except (StateError, OSError) as error:
                passed_over.append(f"member {source.member_id!r}: {error}")
                self._ledger.note(source, f"Its state cannot be taken over: {error}")
            else:
                return Taken(source, parameters, loaded.checkpoint_format, tuple(passed_over))
        return Taken(None, passed_over=tuple(passed_over))

    def _after_decision(self, present: int) -> None:
        """Drop files that nobody needs any more; say it once where nobody has ever given anything to copy."""
        if self._files is None:
            return
        self._files.drop_all_but(self._ledger.files())
        if self._has_warned or present < 2 or any(each.has_state for each in self._ledger.standings.values()):
            return
        if not isinstance(self.config.exploit, NoExploit):
            self._has_warned = True
            warnings.warn(
                "No member has given model_parameters to update_performance, so that nobody can be copied. Give "
                "model.get_parameters(), or set checkpoint_dir=None and copy from member.parent yourself.",
                stacklevel=3,
            )


def _file_of(member: PopulationMember) -> Path:
    if member.checkpoint_path is None:
        raise StateError(f"Member {member.member_id!r} has no checkpoint_path. Leave it as the scheduler has set it.")
    return Path(member.checkpoint_path)
