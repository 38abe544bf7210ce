"""Ray Tune's population based training of our agents: pip install 'everlearn[ray]', python examples/ray_tune_pbt.py.

Tune keeps what it writes in the directory that is given, or in runs/ray_tune.
"""

import os
import random
import secrets
import sys
from pathlib import Path

OF_RAY = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # every port on the loopback interface
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_USAGE_STATS_ENABLED": "0",
}
os.environ |= {**OF_RAY, **os.environ}  # before ray is imported

import ray  # noqa: E402
from ray import tune  # noqa: E402
from ray.tune.schedulers import PopulationBasedTraining  # noqa: E402

from everlearn.population.tune import Trainable  # noqa: E402

RUN = {
    "env": {"id": "CartPole-v1", "n_envs": 4},
    "algorithm": {"name": "PPO", "n_steps": 128, "batch_size": 128, "n_epochs": 4},
    "population": {"perturbation_interval": 4},  # training updates in one step of Tune's
    "total_timesteps": 10_240,  # of each trial: 20 updates, 5 steps
    "seed": 1,
}
BOUNDS = {"learning_rate": (1e-4, 1e-2), "ent_coef": (1e-5, 2e-2), "clip_range": (0.1, 0.4)}
SPACE = {name: tune.loguniform(*bounds) for name, bounds in BOUNDS.items()}
TRIALS = 4


def within(config: dict) -> dict:
    """Tune multiplies by 0.8 or 1.2 whatever the bounds are; this puts what has left them back."""
    return config | {name: min(max(config[name], low), high) for name, (low, high) in BOUNDS.items()}


def main(directory: Path) -> tune.ResultGrid:
    """Train the trials."""
    random.seed(RUN["seed"])  # the scheduler draws from it
    scheduler = PopulationBasedTraining(
        time_attr="training_iteration", perturbation_interval=1, hyperparam_mutations=SPACE, custom_explore_fn=within
    )
    ray.init(address="local", num_cpus=2, num_gpus=0, include_dashboard=False, object_store_memory=100_000_000)
    try:
        return tune.Tuner(
            Trainable,
            param_space={"run": RUN, **SPACE},
            tune_config=tune.TuneConfig(
                metric="score", mode="max", num_samples=TRIALS, scheduler=scheduler, reuse_actors=True
            ),
            run_config=tune.RunConfig(
                name="pbt",
                storage_path=str(directory.resolve()),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=True),
                failure_config=tune.FailureConfig(max_failures=2),
            ),
        ).fit()
    finally:
        ray.shutdown()


if __name__ == "__main__":
    results = main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/ray_tune"))
    best = results.get_best_result()
    (model,) = Path(best.checkpoint.path).glob("member-*.zip")
    print(f"The best of {len(results)} trials has {best.metrics['score']:.0f}: {model}")
