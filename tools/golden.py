"""``python -m tools.golden``: files of this version, which every later version has to load.

They lie in tests/data/golden/VERSION with what they contain; once a version is released its files never change.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.env_util import make_vec_env

import everlearn
from everlearn import PPO, DistributionalPPO
from everlearn.checkpoint.archive import pack
from everlearn.checkpoint.files import write_file
from everlearn.core.digest import digest
from everlearn.core.stateful import Role
from everlearn.environments.normaliser import Normaliser

FOLDER = Path(__file__).parent.parent / "tests" / "data" / "golden"
EXPECTATIONS = "expectations.json"
_TRAINING: dict[str, Any] = {"n_steps": 32, "batch_size": 16, "n_epochs": 2, "seed": 0, "device": "cpu"}
_SMALL: dict[str, Any] = {"policy_kwargs": {"net_arch": [8]}}

MODELS: dict[str, Callable[[], PPO]] = {
    "ppo": lambda: PPO("MlpPolicy", "CartPole-v1", **_TRAINING, **_SMALL),
    "distributional": lambda: DistributionalPPO(
        "MlpPolicy", "Pendulum-v1", kl_penalty="pid", learning_rate="lin_1e-3", **_TRAINING, **_SMALL
    ),
    "gsde": lambda: DistributionalPPO(
        "MlpPolicy", "Pendulum-v1", use_sde=True, value_head="categorical", **_TRAINING, **_SMALL
    ),
}


def observations_for(model: PPO) -> np.ndarray:
    """Some observations, (5, features), the same for ever."""
    shape = model.observation_space.shape or ()
    count = 5 * int(np.prod(shape))
    return np.linspace(-1, 1, count, dtype=np.float32).reshape(5, -1)


def contents_of(model: PPO) -> dict[str, Any]:
    """What a model has learned and does, in few words."""
    observations = observations_for(model)
    tensors = model.policy.obs_to_tensor(observations)[0]
    return {
        "digests": {name: digest(state) for name, state in model.get_parameters().items()},
        "hyperparameters": model.get_hyperparameters(),
        "num_timesteps": model.num_timesteps,
        "actions": model.predict(observations, deterministic=True)[0].tolist(),
        "values": model.policy.predict_values(tensors).detach().flatten().tolist(),
    }


def write(folder: Path) -> None:
    """Write the files of this version and what they contain."""
    expectations: dict[str, Any] = {}
    for name, make in MODELS.items():
        model = make().learn(64)
        model.save(folder / f"{name}.zip")
        expectations[f"{name}.zip"] = contents_of(model)
    venv = Normaliser(make_vec_env("Pendulum-v1"))
    model = DistributionalPPO("MlpPolicy", venv, **_TRAINING, **_SMALL).learn(64)
    write_file(folder / "checkpoint.zip", pack(*model.file_contents(Role)))
    expectations["checkpoint.zip"] = contents_of(model)
    write_file(folder / EXPECTATIONS, [json.dumps(expectations, indent=1).encode()])


if __name__ == "__main__":
    write(FOLDER / everlearn.__version__)
