"""A population is the sum of its journal, whatever its rules and whatever happens to its members."""

import math
import random
from collections.abc import Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn import HyperparamConfig, PBTConfig
from everlearn.population.executors import Inline, SegmentRunner
from everlearn.population.lineage import schedule
from everlearn.population.population import Population, PopulationFailed
from everlearn.population.scheduler_state import state_of
from everlearn.population.scheduler_statistics import statistics_of
from everlearn.population.segments import Checkpoint, Result, Task
from everlearn.population.store import PopulationStore
from everlearn.population.trainer import PopulationTrainer, Watcher, replayed

EXPLOITS = ("truncation", "binary_tournament", {"kind": "k_tournament", "size": 2}, "t_test", "threshold", "none")
SPACE = [
    HyperparamConfig("learning_rate", 1e-5, 1e-2, is_log_scale=True, default=1e-3),
    HyperparamConfig("n_epochs", 1, 20, default=4),
    HyperparamConfig("batch_size", 32, 512, divides=2048, default=64),
    HyperparamConfig("optimizer.betas", values=[(0.9, 0.999), (0.8, 0.99)], default=(0.9, 0.999)),
    HyperparamConfig("optimizer.noise", values=["fixed", "adaptive", None, True], default="fixed"),
]
RULES = st.fixed_dictionaries(
    {
        "population_size": st.integers(1, 6),
        "perturbation_interval": st.integers(1, 3),
        "exploit_method": st.sampled_from(EXPLOITS),
        "explore_method": st.sampled_from(("perturb", "resample", "both", "reset", "pb2")),
        "metric_mode": st.sampled_from(("max", "min")),
        "burn_in": st.integers(0, 4),
        "mutate_all": st.booleans(),
        "relative_gap": st.sampled_from((0.0, 0.2)),
        "copied": st.sampled_from(("everything", "weights")),
        "hyperparams": st.just(SPACE),
        "checkpoint_dir": st.none(),
    }
)


class Chronicler(SegmentRunner):
    """Members whose state is what it was trained by: a list of member, step and hyper-parameters. Many fail."""

    def __init__(self, seed: int) -> None:
        self.states: dict[str, list] = {}
        self._seed, self._attempt = seed, 0

    def run(self, tasks: Sequence[Task], beat) -> list[Result]:
        return [self._trained(task) for task in tasks]

    def _trained(self, task: Task) -> Result:
        self._attempt += 1
        luck = random.Random(f"{self._seed} {self._attempt}")
        if luck.random() < 0.25:
            return task.failed("bad luck")
        start = task.checkpoint if task.copy is None else task.copy.checkpoint
        state = [] if start is None else list(self.states[start.name])
        state += [(task.member_id, task.step + update, dict(task.hyperparams)) for update in range(task.updates)]
        name = f"member-{task.member_id}-generation-{task.generation}-{self._attempt}"
        self.states[name] = state
        score = luck.choice([*(luck.gauss(0, 1) for _ in range(6)), math.nan, math.inf, -math.inf, None])
        samples = (math.nan, *(luck.gauss(0.0 if score is None else score, 0.1) for _ in range(4)))
        checkpoint = Checkpoint(name, name, name, ("policy", "vgs_state"))
        return Result(task.member_id, task.generation, task.step + task.updates, score, samples, 7, 0.5, checkpoint)


def everything(population: Population, generator) -> str:
    """All that there is to know, as a text, in which NaN equals NaN and 1 is not 1.0."""
    ledger = population.ledger
    known = (state_of(ledger, None), statistics_of(ledger), population.places, population.results)
    return repr((*known, population.generation, generator.bit_generator.state))


class Comparing(Watcher):
    """After each decision, and at the end of each run, the journal comes to the same population."""

    def __init__(self, config: PBTConfig, store: PopulationStore) -> None:
        self._config, self._store, self.trainer = config, store, None

    def decided(self, population, decided, seconds) -> None:
        self.ended(population, seconds)

    def ended(self, population, seconds) -> None:
        standing, generator, _ = replayed(self._config, self._store.read())
        assert everything(standing, generator) == everything(population, self.trainer.generator)


def lived(config: PBTConfig, updates: int, seed: int, path: Path) -> tuple[Population, Chronicler]:
    """A population to its end; now and then the process is another one, or all members have failed."""
    runner, luck = Chronicler(seed), random.Random(seed)
    is_over = False
    while not is_over:
        with closing(PopulationStore(path)) as store:
            watcher = Comparing(config, store)
            trainer = PopulationTrainer(config, store, updates, partial(unreadable, seed), seed)
            watcher.trainer = trainer
            with suppress(PopulationFailed):
                is_over = trainer.run(Inline(lambda _: runner, Path()), lambda: luck.random() < 0.1, watcher)
    return trainer.population, runner


def unreadable(seed: int, checkpoint: Checkpoint) -> str | None:
    return "it is damaged" if random.Random(f"{seed} {checkpoint.name}").random() < 0.2 else None


def trained_by(population: Population, member) -> list:
    """What the state from which a member goes on was trained by, according to the lineage."""
    stretches = schedule(population.ledger.events, member.member_id, member.step)
    return [
        (stretch.member_id, step, stretch.hyperparams)
        for stretch in stretches
        for step in range(stretch.first_step, stretch.last_step)
    ]


@settings(max_examples=40)
@given(RULES, st.integers(1, 9), st.integers(0, 2**32))
def test_row_29_row_30_the_journal_comes_to_the_same_population_at_every_generation(
    rules, updates: int, seed: int
) -> None:
    """B30: values keep their types and ranges there; and what the lineage says of a state is what it was trained by."""
    config = PBTConfig(**rules)
    with TemporaryDirectory() as folder:
        population, runner = lived(config, updates, seed, Path(folder) / "journal")
    for member in population.members:
        for each in SPACE:
            assert each.allowed.contains(member.hyperparams[each.name])
        place = population.places[member.member_id]
        start = place.checkpoint if place.copy is None else place.copy.checkpoint
        assert trained_by(population, member) == ([] if start is None else runner.states[start.name])
