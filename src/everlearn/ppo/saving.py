"""Models in files: saving, loading, pickling, copying."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal, Self

import torch
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import get_system_info

from everlearn.checkpoint.archive import pack
from everlearn.checkpoint.codec import JSON
from everlearn.checkpoint.errors import refused
from everlearn.checkpoint.files import Buffer
from everlearn.checkpoint.limits import LIMITS, OWN, Limits
from everlearn.checkpoint.places import Place, write_to
from everlearn.core.errors import ArgumentError
from everlearn.core.finite import require_finite_state
from everlearn.core.rng import kept_generators
from everlearn.core.stateful import Role
from everlearn.ppo.blueprint import Blueprint
from everlearn.ppo.file_contents import configuration, constructor_arguments, contents, left_out_names
from everlearn.ppo.hyperparameters import SCHEDULED
from everlearn.ppo.loading import loaded
from everlearn.ppo.model_file import ATTRIBUTES, MODEL_ROLES, read_model_file
from everlearn.ppo.persistence import PersistentLearner
from everlearn.ppo.schedules import require_none_lost
from everlearn.ppo.vocabulary import opaque_places

FileFormat = Literal["everlearn", "sb3"]


class SavedLearner(PersistentLearner):
    """A learner that can be put into a file, and comes back whole or not at all. No file is ever executed."""

    def save(
        self,
        path: Place,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
        *,
        format: FileFormat = "everlearn",
    ) -> None:
        """Save the model under SB3's rules for names, with all that it has learned and its normaliser's statistics.

        While ``learn`` is under way, as in a callback or after a failure, this is a checkpoint: the training can be
        resumed from it, as it was before the rollout that is being collected.

        At every moment the path leads to the file before or to the whole new one. Functions and classes that are not
        registered under a name cannot be part of a file: a warning names them, and loading asks for them.

        Args:
            path: A path, whose suffix ``.zip`` may be left out, or an open binary file.
            exclude: Arguments to leave to their defaults.
            include: Arguments to save although they are excluded.
            format: ``"sb3"`` writes a file of Stable-Baselines3, for programs without everlearn: it holds the policy
                with one scalar critic, and pickles as all of SB3's do.

        Raises:
            ArgumentError: If there is no such argument or format, what is excluded is part of every file, or the path
                is that of a directory.
            NonFiniteError: If a parameter or a statistic is not finite; nothing is written.
            SaveError: If the file cannot be written; the one before is untouched.
            StateError: If a part's state has an object in it, which no file could give back.
        """
        left_out = left_out_names(exclude, include, self)
        if format == "sb3":
            self._save_for_sb3(path, left_out)
        elif format == "everlearn":
            self._warn_of_functions(left_out)
            roles = MODEL_ROLES if self._at_clean_point is None else tuple(Role)
            write_to(path, pack(*self.file_contents(roles, left_out)))
        else:
            raise ArgumentError(f"format={format!r}: there are 'everlearn' and 'sb3'.")

    def file_contents(
        self, roles: Iterable[Role] = MODEL_ROLES, left_out: Iterable[str] = ()
    ) -> tuple[dict[str, Buffer], dict[str, Any]]:
        """The members of the model's file, and what its manifest says of it: what ``checkpoint.archive.pack`` takes.

        Args:
            roles: Of the parts of the state to put in; all of them make a checkpoint.
            left_out: Arguments to leave to their defaults.

        Raises:
            NonFiniteError: If a parameter or a statistic is not finite.
            StateError: If a part's state has an object in it, which no file could give back.
        """
        return contents(self, frozenset(roles), frozenset(left_out))

    def _warn_of_functions(self, left_out: Collection[str]) -> None:
        config = {name: data for name, data in configuration(self).items() if name not in left_out}
        for path, what in opaque_places(config, "model"):
            name = path.removeprefix("model.")
            warnings.warn(
                f"{name} is '{what}', which has no name in a file. Register it under one, use a schedule with a kind, "
                f"or load with custom_objects={{{name.partition('.')[0]!r}: ...}}.",
                stacklevel=3,
            )
        for name in constructor_arguments(type(self)):
            if name not in config and name not in left_out:
                warnings.warn(
                    f"The argument '{name}' of {type(self).__name__} is no attribute of that name, so no file has it "
                    "and a loaded model has its default. Keep it as an attribute.",
                    stacklevel=3,
                )

    def _save_for_sb3(self, path: Place, left_out: Collection[str]) -> None:
        from everlearn.ppo.exporting import to_sb3

        require_finite_state(self.get_parameters())
        file = io.BytesIO()
        to_sb3(self).save(file, exclude=left_out)
        write_to(path, [file.getbuffer()])

    @classmethod
    def load(
        cls,
        path: Place,
        env: GymEnv | None = None,
        device: torch.device | str = "auto",
        custom_objects: Mapping[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        *,
        trust: bool = False,
        sha256: str | None = None,
        limits: Limits | None = None,
        **kwargs: Any,
    ) -> Self:
        """A new model from a file; nothing in the file is executed, and the caller's generators stay as they are.

        Args:
            path: A path, whose suffix ``.zip`` may be left out, or an open binary file.
            env: Its new environment. If the model was trained on normalised observations, an environment without a
                normaliser gets one with the saved statistics, which rests until ``learn``; one with a normaliser has
                its statistics replaced.
            device: Where it computes.
            custom_objects: Arguments to take instead of the saved ones, where the file has them: what could not be
                saved, such as a schedule that is a function, comes back by these.
            print_system_info: Whether to print versions.
            force_reset: Whether the environment is reset before training goes on.
            trust: Read a file of Stable-Baselines3 with SB3's own loader, which executes what the file brings along.
            sha256: The file's SHA-256 in hexadecimal; another file is refused.
            limits: How much the file may ask for; ``everlearn.checkpoint.limits.LIMITS`` by default.
            kwargs: Arguments that differ from the saved ones; hyper-parameters given here are in force.

        Raises:
            CheckpointError: If the file is damaged, too large, no model, or does not fit; nothing was executed.
            ArgumentError: If there is no such argument.
            FileNotFoundError: If there is no file.
        """
        _require_kinds(custom_objects, limits)
        with kept_generators():
            if trust:
                from everlearn.ppo.importing import load_trusted

                how = (custom_objects, print_system_info, force_reset)
                return load_trusted(cls, path, env, device, *how, sha256=sha256, limits=limits, **kwargs)
            file = read_model_file(path, limits or LIMITS, sha256)
            if print_system_info:
                _print_libraries(file.manifest)
            verbose = kwargs.get("verbose", 0)
            wrapped = None if env is None else cls._wrap_env(env, verbose if type(verbose) is int else 0)
            model = loaded(Blueprint(cls, file, wrapped, device, kwargs, custom_objects or {}))
        if model.env is not None:
            if force_reset:
                model._last_obs = None
            with refused(file.archive.file, "normaliser" + JSON):
                model.set_env(model.env, force_reset=False)
        return model

    @classmethod
    def import_weights(
        cls,
        path: Place,
        env: GymEnv | str,
        policy: str | type[Any] = "MlpPolicy",
        *,
        sha256: str | None = None,
        limits: Limits | None = None,
        **arguments: Any,
    ) -> Self:
        """A new model with the weights of a Stable-Baselines3 zip, or of a v1 or v2 file; nothing in it is executed.

        Environment, policy and arguments are yours. Plain numbers of the file (``n_steps``, ``gamma``, ...) stand for
        arguments that are not given. One warning tells what was left.

        Args:
            path: The file; its suffix ``.zip`` may be left out.
            env: Its environment.
            policy: As for the constructor.
            sha256: The file's SHA-256 in hexadecimal; another file is refused.
            limits: How much the file may ask for.
            arguments: Of the constructor.

        Raises:
            CheckpointError: If the file is refused, its policy does not fit, or a number in it is not finite.
            ArgumentError: If an argument is outside its range.
        """
        from everlearn.ppo.importing import import_weights

        return import_weights(cls, path, env, policy, sha256=sha256, limits=limits or LIMITS, **arguments)

    def _setup_learn(self, *args: Any, **kwargs: Any) -> Any:
        require_none_lost({name: getattr(self, name) for name in SCHEDULED})
        return super()._setup_learn(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        """A pickle holds the model's file and nothing else: no environment, no logger, no function."""
        self._warn_of_functions(())
        return _unpickled, (type(self), self._file(), str(self.device))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy through the file, with the functions that no file can hold."""
        lost = {name for name, data in configuration(self).items() if list(opaque_places(data, name))}
        objects = {name: getattr(self, ATTRIBUTES.get(name, name)) for name in lost}
        return type(self).load(io.BytesIO(self._file()), device=self.device, custom_objects=objects, limits=OWN)

    def _file(self) -> bytes:
        return b"".join(pack(*self.file_contents()))


def _require_kinds(custom_objects: object, limits: object) -> None:
    """Refuse objects of another kind, which the caller has wrong and no file.

    Raises:
        ArgumentError: Naming the argument.
    """
    if not isinstance(custom_objects, Mapping | None):
        raise ArgumentError(f"custom_objects={custom_objects!r:.200} is no dictionary of arguments by name.")
    if not isinstance(limits, Limits | None):
        raise ArgumentError(f"limits={limits!r:.200}: give everlearn.checkpoint.limits.Limits(...).")


def _print_libraries(manifest: Mapping[str, Any]) -> None:
    print("== CURRENT SYSTEM INFO ==")
    get_system_info()
    print("== SAVED MODEL SYSTEM INFO ==")
    print(json.dumps({key: manifest.get(key) for key in ("libraries", "runtime", "created")}, indent=1))


def _unpickled(kind: type[SavedLearner], file: bytes, device: str) -> SavedLearner:
    """The model of a pickle, on its device where this machine has one of that kind."""
    here = device if torch.device(device).type == "cpu" or torch.cuda.is_available() else "cpu"
    return kind.load(io.BytesIO(file), device=here, limits=OWN)
