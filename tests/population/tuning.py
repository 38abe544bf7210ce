"""A population that a scheduler of Ray Tune drives: ``python -m tests.population.tuning SCHEDULER DIRECTORY``.

A process of its own: what Ray is told stands in the environment before it is imported, and its threads go with it.
"""

import json
import os
import random
import secrets
import sys
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv

ON_LOOPBACK = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
}
SMALL: dict[str, Any] = {
    "env": {"id": "CartPole-v1", "n_envs": 2},
    "algorithm": {
        "name": "PPO",
        "n_steps": 32,
        "batch_size": 32,
        "n_epochs": 2,
        "compile": False,
        "policy_kwargs": {"net_arch": [8]},
    },
    "population": {"perturbation_interval": 2},
    "total_timesteps": 6 * 64,
    "seed": 3,
}
SAMPLES = {"asynchronous": 3, "synchronous": 2, "pb2": 2}
WIDTHS = [[4], [8], [16]]


class Once(CartPoleEnv):
    """Fails once, in whatever process, after some steps of its own."""

    def __init__(self, flag: str) -> None:
        super().__init__()
        self._flag, self._left = Path(flag), 100

    def step(self, action):
        self._left -= 1
        if self._left < 0 and not self._flag.exists():
            self._flag.touch()
            raise RuntimeError("once and never again")
        return super().step(action)


if "Once-v0" not in gymnasium.registry:
    gymnasium.register("Once-v0", Once)


def run_of(kind: str, directory: str) -> dict[str, Any]:
    """The run's configuration; where networks are compared, with Tune's space in it."""
    from ray import tune

    if kind == "asha":
        return {**SMALL, "algorithm": {**SMALL["algorithm"], "policy_kwargs": {"net_arch": tune.grid_search(WIDTHS)}}}
    if kind == "failing":
        env = {"id": "Once-v0", "n_envs": 1, "kwargs": {"flag": f"{directory}-flag"}}
        return {**SMALL, "env": env, "plugins": ["tests.population.tuning"], "total_timesteps": 6 * 32}
    return SMALL


def main(kind: str, directory: str) -> None:
    """Train; the last line says what came of each trial."""
    os.environ |= ON_LOOPBACK
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, PopulationBasedTraining
    from ray.tune.schedulers.pb2 import PB2

    from everlearn.population.tune import Trainable

    bounds = {"learning_rate": (1e-4, 1e-2), "ent_coef": (1e-4, 1e-2)}
    space = {name: tune.loguniform(*each) for name, each in bounds.items()}
    every = {"time_attr": "training_iteration", "perturbation_interval": 1, "quantile_fraction": 0.5}
    schedulers = {
        "asynchronous": lambda: PopulationBasedTraining(**every, hyperparam_mutations=space),
        "synchronous": lambda: PopulationBasedTraining(**every, hyperparam_mutations=space, synch=True),
        "pb2": lambda: PB2(**every, hyperparam_bounds={name: list(each) for name, each in bounds.items()}, synch=True),
        "asha": lambda: ASHAScheduler("training_iteration", max_t=3, grace_period=1, reduction_factor=2),
        "failing": FIFOScheduler,
        "refused": FIFOScheduler,
    }
    random.seed(0)
    scheduler = schedulers[kind]()
    ray.init(
        address="local",
        num_cpus=1 if kind == "asynchronous" else 2,
        num_gpus=0,
        include_dashboard=False,
        object_store_memory=100_000_000,
        log_to_driver=False,
    )
    own = {"gamma": 1.5} if kind == "refused" else {}
    results = tune.Tuner(
        Trainable,
        param_space={"run": run_of(kind, directory), **space, **own},
        tune_config=tune.TuneConfig(
            metric="score",
            mode="max",
            num_samples=SAMPLES.get(kind, 1),
            scheduler=scheduler,
            reuse_actors=kind in ("asynchronous", "asha"),
        ),
        run_config=tune.RunConfig(
            name="here",
            storage_path=directory,
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1, checkpoint_at_end=True),
            failure_config=tune.FailureConfig(max_failures=int(kind == "failing")),
        ),
    ).fit()
    ray.shutdown()
    trials = [
        {
            **{name: value for name, value in (each.metrics or {}).items() if type(value) in (int, float, bool)},
            "config": {name: each.config[name] for name in space if each.config},
            "files": sorted(os.listdir(each.checkpoint.path)) if each.checkpoint else [],
            "error": None if each.error is None else f"{type(each.error).__name__}: {each.error}",
        }
        for each in results
    ]
    copies = getattr(scheduler, "_num_perturbations", 0)
    print(json.dumps({"trials": trials, "copies": copies}))


if __name__ == "__main__":
    main(*sys.argv[1:])
