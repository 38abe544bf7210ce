"""Ray Tune's population based training of Stable-Baselines3's PPO, or of everlearn's, as fast as it goes.

``python -m benchmarks.ray_tune POPULATION DIRECTORY MEMBER`` runs in the peer's environment, or in everlearn's where
MEMBER is everlearn, from a ``Population`` as JSON. It leaves a line per generation in the directory, and what else
Ray writes. Members are asynchronous: they wait for nobody, and their actors are reused, which Tune does not do for a
synchronous population.
"""

from __future__ import annotations

import json
import logging
import random
import sys
import time
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any

import ray
import torch
from ray import tune
from ray.tune.schedulers import PopulationBasedTraining
from ray.tune.search import BasicVariantGenerator
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

from benchmarks.population_task import GENERATIONS, SPACE, Population, Range

_MODEL = "model.zip"


class Member(tune.Trainable):
    """An actor that trains one member after another: the environments stay, the agents come from checkpoints."""

    def setup(self, config: dict[str, Any]) -> None:
        """Make the environments."""
        torch.set_num_threads(1)
        self.population = Population(**config["population"])
        self.environments = make_vec_env(self.population.env_id, self.population.n_envs, seed=config["seed"])
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Be another member, or one with other hyper-parameters; an agent is loaded next, unless it is a new one."""
        self.config, self.agent = new_config, None
        return True

    def step(self) -> dict[str, float]:
        """Train for a generation."""
        self.agent = self.agent or self._new_agent()
        self.agent.learn(self.population.segment, reset_num_timesteps=False, log_interval=None)
        returns = [episode["r"] for episode in self.agent.ep_info_buffer]
        return {"score": mean(returns) if returns else -sys.float_info.max}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Save the agent."""
        self.agent.save(Path(checkpoint_dir) / _MODEL)

    def load_checkpoint(self, checkpoint: str) -> None:
        """Load an agent, this member's or another's, with the hyper-parameters of this one."""
        changes = {**self._hyperparams, "seed": None}  # with the seed it would draw once more what it has drawn
        self.agent = PPO.load(Path(checkpoint) / _MODEL, env=self.environments, device="cpu", **changes)

    @property
    def _hyperparams(self) -> dict[str, float]:
        return {name: self.config[name] for name in SPACE}

    def _new_agent(self) -> PPO:
        return PPO(
            "MlpPolicy",
            self.environments,
            n_steps=self.population.n_steps,
            batch_size=self.population.batch_size,
            n_epochs=self.population.n_epochs,
            seed=self.config["seed"],
            device="cpu",
            **self._hyperparams,
        )


class Generations(tune.Stopper):
    """Notes generations and stops after the last: one is over when as many members have reported as there are.

    The first is over when all have. Later some may be ahead of others, or behind: who copies another goes back to where
    that one was.

    Args:
        population: Whose generations.
        scheduler: Which knows how many members have copied another.
        file: Where they are noted.
    """

    def __init__(self, population: Population, scheduler: PopulationBasedTraining, file: Path) -> None:
        self._population, self._scheduler, self._file = population, scheduler, file
        self._began = time.monotonic()
        self._reports, self._over, self._waited_for, self._exploits = 0, 0, population.members, 0
        self._reported: set[str] = set()

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """A member has trained for a generation; it need not stop by itself."""
        self._reports += 1
        self._reported.add(trial_id)
        if len(self._reported) == self._population.members and self._reports >= self._waited_for:
            self._over, self._waited_for = self._over + 1, self._reports + self._population.members
            self._note()
        return False

    def stop_all(self) -> bool:
        """Whether there have been enough."""
        return self._over > self._population.generations

    def _note(self) -> None:
        before, self._exploits = self._exploits, self._scheduler._num_perturbations  # its log would cost time
        record = {
            "generation": self._over,
            "seconds": time.monotonic() - self._began,
            "env_steps": self._reports * self._population.segment,
            "exploits": self._exploits - before,
        }
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def main() -> None:
    """Train a population.

    Raises:
        RuntimeError: If training a member fails.
    """
    population, directory = Population(**json.loads(sys.argv[1])), Path(sys.argv[2])
    random.seed(population.seed)  # the scheduler draws from it
    ray.init(
        address="local",
        num_cpus=population.cores,
        num_gpus=0,
        include_dashboard=False,
        object_store_memory=100_000_000,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=str(directory),
    )
    try:
        results = _tuner(population, directory, sys.argv[3]).fit()
    finally:
        ray.shutdown()
    if results.errors:
        raise results.errors[0]


def _stable_baselines3(population: Population) -> tuple[type[tune.Trainable], dict[str, Any]]:
    return Member, {"population": asdict(population)}


def _everlearn(population: Population) -> tuple[type[tune.Trainable], dict[str, Any]]:
    from benchmarks.population_runs import configuration
    from everlearn.population.tune import Trainable

    # Tune decides; of the section it is how long a segment is that everlearn is told.
    section = {"perturbation_interval": population.interval}
    return Trainable, {"run": {**configuration(population), "population": section}}


MEMBERS = {"stable-baselines3": _stable_baselines3, "everlearn": _everlearn}
"""What is trained: the trainable, and what its configuration says besides hyper-parameters."""


def _tuner(population: Population, directory: Path, member: str) -> tune.Tuner:
    trainable, settings = MEMBERS[member](population)
    space = {name: _domain(bounds) for name, bounds in SPACE.items()}
    scheduler = PopulationBasedTraining(
        time_attr="training_iteration",
        perturbation_interval=1,
        hyperparam_mutations=space,
        quantile_fraction=population.truncation,
        custom_explore_fn=_within,
        log_config=False,
    )
    return tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space={**space, "seed": tune.randint(0, 2**31), **settings},
        tune_config=tune.TuneConfig(
            metric="score",
            mode="max",
            num_samples=population.members,
            scheduler=scheduler,
            search_alg=BasicVariantGenerator(random_state=population.seed),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="population",
            storage_path=str(directory / "results"),
            stop=Generations(population, scheduler, directory / GENERATIONS),
            verbose=0,
        ),
    )


def _domain(bounds: Range) -> Any:
    return (tune.loguniform if bounds.log else tune.uniform)(bounds.low, bounds.high)


def _within(config: dict[str, Any]) -> dict[str, Any]:
    """Perturbed values may have left their ranges."""
    return config | {name: min(max(config[name], bounds.low), bounds.high) for name, bounds in SPACE.items()}


if __name__ == "__main__":
    main()
