"""Small good files of every kind that is read, the ground on which inputs are made; and what reads each kind."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import UnionType
from typing import Any

from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv

from everlearn import PPO, DistributionalPPO
from everlearn.checkpoint.archive import pack, read_archive
from everlearn.checkpoint.limits import Limits
from everlearn.core.finite import require_finite_state
from everlearn.core.stateful import Role
from everlearn.environments.normaliser import Normaliser
from everlearn.ppo.importing import import_weights
from everlearn.ppo.persistence import PersistentLearner
from everlearn.ppo.policy import ActorCriticPolicy
from everlearn.ppo.policy_file import save_policy
from everlearn.ppo.saving import SavedLearner

FROZEN = Path(__file__).parents[2] / "tests" / "data"
LIMITS = Limits(
    file_bytes=2**20,
    manifest_bytes=2**15,
    json_bytes=2**16,
    header_bytes=2**16,
    tensors=1_000,
    buffer_bytes=2**22,
)
"""Small enough that whatever passes them is quick to load."""
_SMALL: dict[str, Any] = {
    "n_steps": 16,
    "batch_size": 8,
    "n_epochs": 1,
    "seed": 1,
    "device": "cpu",
    "policy_kwargs": {"net_arch": [4]},
}


@dataclass(frozen=True)
class Seed:
    """A good file.

    Args:
        name: What it is.
        content: Its bytes.
        foreign: Whether it is another system's.
    """

    name: str
    content: bytes
    foreign: bool = False

    @cached_property
    def members(self) -> dict[str, bytes]:
        """Of one of our own, without the manifest."""
        return {name: bytes(part) for name, part in read_archive(io.BytesIO(self.content)).members.items()}

    @cached_property
    def about(self) -> dict[str, Any]:
        """What its manifest says besides the members' hashes."""
        manifest = read_archive(io.BytesIO(self.content)).manifest
        return {key: value for key, value in manifest.items() if key not in ("files", "content_id")}


def seeds() -> list[Seed]:
    """All good files; the same in every process with the same versions of libraries."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = PPO("MlpPolicy", "CartPole-v1", **_SMALL).learn(16)
        for episode in plain.ep_info_buffer or ():
            episode["t"] = 0.5  # wall-clock time, the one thing that would differ
        head = {"kind": "quantile", "n_quantiles": 4}
        everything = DistributionalPPO("MlpPolicy", _normalised(), value_head=head, kl_penalty="pid", **_SMALL)
        everything.learn(16)
    policy, normaliser = io.BytesIO(), io.BytesIO()
    save_policy(everything.policy, policy)  # type: ignore[arg-type]  # SB3 knows its own class of it
    Normaliser(make_vec_env("Pendulum-v1", seed=1)).save(normaliser)
    ours = {
        "ppo": _packed(plain),
        "distributional": _packed(everything),
        "checkpoint": _packed(plain, tuple(Role)),
        "policy": policy.getvalue(),
        "normaliser": normaliser.getvalue(),
    }
    frozen = ("sb3/ppo.zip", "v1/bare.pth", "v1/named.pth", "v2/earlier.pth")
    return [
        *(Seed(name, _timeless(content)) for name, content in ours.items()),
        *(Seed(name, (FROZEN / name).read_bytes(), foreign=True) for name in frozen),
    ]


def _normalised() -> VecEnv:
    return Normaliser(make_vec_env("Pendulum-v1", seed=1))


def _packed(model: SavedLearner, roles: tuple[Role, ...] | None = None) -> bytes:
    return b"".join(pack(*(model.file_contents() if roles is None else model.file_contents(roles))))


def _timeless(content: bytes) -> bytes:
    """The file as if it had always been written at the same moment on the same machine."""
    seed = Seed("", content)
    fixed = {key: value for key, value in seed.about.items() if key != "runtime"}
    if "created" in fixed:
        fixed["created"] = "2026-01-01T00:00:00Z"
    return b"".join(pack(seed.members, json.loads(json.dumps(fixed))))


_WHOLE: dict[type | UnionType, tuple[str, ...]] = {
    int: (
        *("num_timesteps", "_n_updates", "_episode_num", "_total_timesteps", "_num_timesteps_at_start"),
        *("verbose", "n_steps", "n_epochs", "batch_size", "n_envs", "sde_sample_freq", "_stats_window_size"),
    ),
    bool: ("use_sde", "normalize_advantage"),
    float | int: ("gamma", "gae_lambda", "ent_coef", "vf_coef", "max_grad_norm", "_current_progress_remaining"),
    int | None: ("seed",),
    str | None: ("tensorboard_log",),
}
"""What attributes of a model have to be."""

Reader = Callable[[bytes], None]
"""Reads a file in full, and looks at what comes out; any error that is not of the family is a finding."""


def readers() -> Mapping[str, list[Reader]]:
    """Who reads each kind of file: by name of the seed, the first with everything in it."""
    pendulum, cartpole = make_vec_env("Pendulum-v1"), make_vec_env("CartPole-v1")

    def plain(content: bytes) -> None:
        _require_whole(PPO.load(io.BytesIO(content), device="cpu", limits=LIMITS))

    def distributional(content: bytes) -> None:
        _require_whole(DistributionalPPO.load(io.BytesIO(content), device="cpu", limits=LIMITS))

    def policy(content: bytes) -> None:
        loaded = ActorCriticPolicy.load(io.BytesIO(content), device="cpu")
        require_finite_state({"policy": loaded.state_dict()})

    def normaliser(content: bytes) -> None:
        Normaliser.load(io.BytesIO(content), pendulum).reset()

    def importing(content: bytes) -> None:
        net: dict[str, Any] = {"policy_kwargs": {"net_arch": [8]}, "device": "cpu"}
        require_finite_state(import_weights(PPO, io.BytesIO(content), cartpole, limits=LIMITS, **net).get_parameters())

    own: dict[str, list[Reader]] = {
        "ppo": [plain],
        "distributional": [distributional],
        "checkpoint": [plain],
        "policy": [policy],
        "normaliser": [normaliser],
    }
    foreign = ("sb3/ppo.zip", "v1/bare.pth", "v1/named.pth", "v2/earlier.pth")
    return {**own, **{name: [importing, plain] for name in foreign}}


def _require_whole(model: PersistentLearner) -> None:
    """What was loaded is finite, consists of what a model consists of, and can be saved as it was loaded."""
    require_finite_state(model.get_parameters())
    for kind, names in _WHOLE.items():
        for name in names:
            value = getattr(model, name)
            if not isinstance(value, kind) or (kind is int and isinstance(value, bool) and name != "verbose"):
                raise TypeError(f"The loaded model's {name} is {value!r:.80}.")
    assert isinstance(model, SavedLearner)
    pack(*model.file_contents())
