"""Models from files of other systems: the weights that can be had without trust, and the whole model with it.

Rows 4, 5, 7 and 36 of the failure-mode table: no pickle runs unless the caller trusts the file, old formats come over
with a word on what they lack, nothing is allocated on a file's word alone, and what does not fit is named.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import stable_baselines3
import torch
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv

from everlearn.checkpoint.errors import Mismatch, refused
from everlearn.checkpoint.foreign import Kind, recognise, refusal
from everlearn.checkpoint.limits import LIMITS, Limits
from everlearn.checkpoint.places import Place
from everlearn.core.errors import ArgumentError, Noted, suggestion
from everlearn.core.rng import kept_generators
from everlearn.ppo import state
from everlearn.ppo.adopting import adopt
from everlearn.ppo.file_contents import constructor_arguments
from everlearn.ppo.frugal import require_small_buffer
from everlearn.ppo.imported import RULES, content_of, imported_from
from everlearn.ppo.persistence import PersistentLearner

Model = TypeVar("Model", bound=PersistentLearner)

_NO_NORMALISER = (
    "normaliser: such files have none. If the policy was trained on normalised observations, give an env with the "
    "statistics, a VecNormalize or a Normaliser."
)
_TRAINING = (*state.COUNTERS, *state.PROGRESS, *state.OBSERVATIONS)

_FURTHER = (
    *("rollout_buffer_class", "rollout_buffer_kwargs", "tensorboard_log"),
    *("policy_kwargs", "verbose", "seed", "device"),
)
"""Arguments that a trusted model brings beside its hyper-parameters."""


def import_weights(
    cls: type[Model],
    path: Place,
    env: GymEnv | str,
    policy: Any = "MlpPolicy",
    *,
    sha256: str | None = None,
    limits: Limits = LIMITS,
    **arguments: Any,
) -> Model:
    """A new model with the weights of a Stable-Baselines3 zip, or of a v1 or v2 file; nothing in the file is run.

    Environment, policy and arguments are the caller's. Numbers that the file has in plain form (``n_steps``, ``gamma``,
    ...) stand for arguments that are not given; pickled ones, as schedules are, do not. One warning tells what was
    left.

    Args:
        cls: The class of the model.
        path: The file; its suffix ``.zip`` may be left out.
        env: Its environment.
        policy: As for the constructor.
        sha256: What the file's content has to hash to, in hexadecimal; None for no such demand.
        limits: How much the file may ask for.
        arguments: Of the constructor.

    Raises:
        CheckpointError: If the file is refused, its policy does not fit, or a number in it is not finite.
        ArgumentError: If an argument is outside its range.
    """
    content, file = content_of(path, limits, sha256)
    imported = imported_from(content, file, limits, given=arguments.keys() | _implied(arguments))
    with kept_generators():
        venv = _vectorised(cls, env)
        chosen = {**imported.arguments, **arguments}
        if "n_steps" in imported.arguments:
            spaces = (venv.observation_space, venv.action_space)
            require_small_buffer(spaces, chosen["n_steps"] * venv.num_envs, file, limits)
        model = _built(cls, policy, venv, chosen, file)
        with Noted(lambda: imported.hint):
            kept = adopt(model, imported.parameters, file)
        vars(model).update(imported.counters)
    _warn_of_the_rest(model, f"{file} was imported", [*kept, *imported.left])
    return model


def load_trusted(
    cls: type[Model],
    path: Place,
    env: GymEnv | None = None,
    device: torch.device | str = "auto",
    custom_objects: Mapping[str, Any] | None = None,
    print_system_info: bool = False,
    force_reset: bool = True,
    *,
    sha256: str | None = None,
    limits: Limits | None = None,
    **arguments: Any,
) -> Model:
    """The model of a Stable-Baselines3 zip, read by Stable-Baselines3's own loader, which RUNS CODE OF THE FILE.

    To be called only because the caller has said ``trust=True`` of this file.

    Args:
        cls: The class of the model.
        path: The file; its suffix ``.zip`` may be left out.
        env: Its environment; None for none.
        device: Where it computes.
        custom_objects: What Stable-Baselines3 is to take instead of what is pickled, by attribute.
        print_system_info: Whether to print versions.
        force_reset: Whether the environment is reset before training goes on.
        sha256: What the file's content has to hash to, in hexadecimal; None for no such demand.
        limits: How large it may be; the usual ones by default.
        arguments: Of the constructor, in place of the file's.

    Raises:
        CheckpointError: If it is no file of Stable-Baselines3's PPO, holds a hyper-parameter outside its range, or does
            not fit.
        ArgumentError: If an argument is unknown or outside its range.
    """
    content, file = content_of(path, limits or LIMITS, sha256)
    kind = recognise(io.BytesIO(content))
    further = (_plain(custom_objects), print_system_info, force_reset)
    if kind is Kind.EVERLEARN:  # which needs no trust
        options = {"limits": limits, **arguments}
        return cls.load(io.BytesIO(content), env, device, *further, **options)
    if kind is not Kind.SB3:
        raise refusal(io.BytesIO(content), file)
    _check_given(cls, arguments)
    with kept_generators(), refused(file, "data"):
        theirs = stable_baselines3.PPO.load(io.BytesIO(content), env, device, *further)
        model = _equal_model(cls, theirs, arguments)
        left = adopt(model, theirs.get_parameters(), file)
    vars(model).update({name: getattr(theirs, name) for name in _TRAINING})
    _warn_of_the_rest(model, f"{file} was loaded", left)
    return model


def _warn_of_the_rest(model: PersistentLearner, done: str, left: Iterable[str]) -> None:
    """One warning tells what a file had and the model has not, or the other way round."""
    left = [*left, *([] if model.get_vec_normalize_env() is not None else [_NO_NORMALISER])]
    if left:
        listed = "".join(f"\n  {sentence}" for sentence in left)
        warnings.warn(f"{done}; this was left:{listed}", stacklevel=4)


def _plain(custom_objects: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if custom_objects is None else dict(custom_objects)


def _implied(arguments: Mapping[str, Any]) -> set[str]:
    """Arguments that contradict one that is given."""
    return {"target_kl"} if arguments.get("kl_penalty") else set()


# --- building ---------------------------------------------------------------------------------------------------------


def _built(cls: type[Model], policy: Any, venv: VecEnv, arguments: Mapping[str, Any], file: object) -> Model:
    """The new model; SB3's assertions about sizes that do not fit together are about the file's numbers too."""
    try:
        return cls(policy, venv, **arguments)
    except AssertionError as error:
        raise Mismatch(file, str(error), "Give batch_size=... and n_steps=... to import_weights.", "data") from error


def _vectorised(cls: type[PersistentLearner], env: GymEnv | str | None) -> VecEnv:
    made = maybe_make_env(env, 0) if env is not None else None
    if made is None:
        raise ArgumentError("import_weights needs the environment that the policy is for. Give env=...")
    return cls._wrap_env(made)


def _check_given(cls: type[PersistentLearner], given: Mapping[str, Any]) -> None:
    """Refuse arguments that the caller, not the file, has wrong.

    Raises:
        ArgumentError: If one is unknown or outside its range.
    """
    known = constructor_arguments(cls)
    for name, value in given.items():
        if name not in known:
            raise ArgumentError(f"load: a {cls.__name__} has no argument '{name}'.{suggestion(name, known)}")
        if name in RULES:
            RULES[name][1].checked(name, value)


def _equal_model(cls: type[Model], theirs: stable_baselines3.PPO, given: Mapping[str, Any]) -> Model:
    """A model of ours with the spaces, the policy and the hyper-parameters of one of Stable-Baselines3's."""
    names = {kind: name for name, kind in stable_baselines3.PPO.policy_aliases.items()}
    same = [name for name in RULES if name != "stats_window_size"]
    arguments = {name: getattr(theirs, name) for name in (*same, *_FURTHER)}
    arguments["stats_window_size"] = theirs._stats_window_size
    if _implied(given):
        arguments["target_kl"] = None
    policy: Any = names.get(theirs.policy_class, theirs.policy_class)
    env: Any = theirs.env
    model = cls(policy, env, _init_setup_model=False, **{**arguments, **given})
    if theirs.env is None:
        vars(model).update(
            observation_space=theirs.observation_space, action_space=theirs.action_space, n_envs=theirs.n_envs
        )
    model._setup_model()
    return model
