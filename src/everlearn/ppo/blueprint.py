"""What a file says a model is made of, and that model, built and not yet filled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.utils import get_device
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from everlearn.checkpoint.codec import JSON
from everlearn.checkpoint.errors import CheckpointError, Mismatch, refused
from everlearn.core.errors import ArgumentError, suggestion
from everlearn.ppo.argument_types import fitting
from everlearn.ppo.file_contents import constructor_arguments
from everlearn.ppo.frugal import frugal, require_small_buffer
from everlearn.ppo.hyperparameters import HYPERPARAMETERS, SCHEDULED
from everlearn.ppo.model_file import CONFIG, SPACES, ModelFile, lost
from everlearn.ppo.schedules import LostSchedule
from everlearn.ppo.state import SWITCHES
from everlearn.ppo.vocabulary import OPAQUE, described, opaque_places, policies, resolved

if TYPE_CHECKING:
    from everlearn.ppo.saving import SavedLearner

Model = TypeVar("Model", bound="SavedLearner")

ALIASES = {"policy_class": "policy", "lr_schedule": "learning_rate"}
"""What SB3 calls some arguments among its custom objects."""


@dataclass(frozen=True)
class Blueprint(Generic[Model]):
    """A model as a file describes it, with what is to be different.

    Args:
        kind: The class of the model.
        file: The file.
        env: The new environment, wrapped as SB3 wraps it; None for none.
        device: Where it is to compute.
        given: Arguments that replace the file's and are in force.
        custom_objects: Arguments, and spaces, that replace the file's where it has them.
    """

    kind: type[Model]
    file: ModelFile
    env: VecEnv | None
    device: torch.device | str
    given: Mapping[str, Any]
    custom_objects: Mapping[str, Any]

    def built(self, weights: Mapping[str, Tensor]) -> Model:
        """A model of the right shape for some weights; its own are whatever memory held.

        Raises:
            CheckpointError: If the file describes none, or one that does not fit the environment. Where arguments
                were given, which may be the reason, a note names them.
            ArgumentError: If a given argument is unknown or outside its range.
        """
        get_device(self.device)  # which is the caller's, not the file's
        try:
            return self._built(weights)
        except CheckpointError as error:
            if self.given:
                error.add_note(f"These arguments were given and may be the reason: {', '.join(self.given)}.")
            raise

    def _built(self, weights: Mapping[str, Tensor]) -> Model:
        arguments = self._arguments()
        policy, n_envs, switched_off = (arguments.pop(name) for name in ("policy", "n_envs", "switched_off"))
        spaces = self._spaces()
        if type(n_envs) is not int or n_envs < 1:
            raise Mismatch(self.file.archive.file, f"n_envs is {n_envs!r}.", "Do not use the file.", CONFIG + JSON)
        with refused(self.file.archive.file, CONFIG + JSON):
            env: Any = self.env  # SB3's annotation leaves out None, which it means
            model = self.kind(policy, env, device=self.device, _init_setup_model=False, **arguments)
            model.vgs_kwargs = arguments.get("vgs_kwargs") or {}  # to which the class has added its own defaults
            off = {*switched_off, *(name for name, value in self.given.items() if value is False)}
            model.switched_off = [name for name in SWITCHES.values() if name in off]
            if self.env is None:
                vars(model).update(spaces, n_envs=n_envs)
            samples = model.n_steps * model.n_envs
            require_small_buffer(spaces.values(), samples, self.file.archive.file, self.file.limits)
            policy_kwargs = model.policy_kwargs or {}
            limit = self.file.limits.network
            with frugal(weights, self.file.archive.file, limit, model.policy_class, policy_kwargs):
                self._set_up(model)
        return model

    def _set_up(self, model: Model) -> None:
        """Build the networks; orthogonal weights, which take a while to compute, would be overwritten."""
        if policies.name_of(model.policy_class) is None:
            model._setup_model()
            return
        given = model.policy_kwargs
        model.policy_kwargs = {**given, "ortho_init": False}
        model._setup_model()
        model.policy_kwargs = given
        model.policy.ortho_init = bool(given.get("ortho_init", True))

    def _arguments(self) -> dict[str, Any]:
        """The constructor's arguments: the file's, replaced by custom objects and by what is given."""
        data = self.file.config()
        replaced = self.replaced(data)
        known = {*constructor_arguments(self.kind), "policy", "n_envs", "switched_off"}
        for name in data.keys() - known:
            raise Mismatch(
                self.file.archive.file,
                f"it has an argument '{name}', which {self.kind.__name__} has not.",
                f"Load it with the class that saved it, {self.file.manifest.get('algorithm')!r}.",
                CONFIG + JSON,
            )
        arguments = {name: self._argument(name, value) for name, value in data.items() if name not in replaced}
        self._require_equal_policy(data, replaced)
        return {**{"policy": None, "n_envs": 1, "switched_off": []}, **arguments, **replaced}

    def _argument(self, name: str, data: Any) -> Any:
        """An argument from its plain data; a schedule that was a function is replaced by its last value."""
        if name in SCHEDULED and isinstance(data, Mapping) and OPAQUE in data:
            with refused(self.file.archive.file, CONFIG + JSON):
                return LostSchedule(str(data[OPAQUE]), float(data["value"]))
        for path, what in opaque_places(data, name):
            raise lost(path, what, self.file.archive.file)
        with refused(self.file.archive.file, CONFIG + JSON):
            return fitting(self.constructor, name, data if name in SCHEDULED else resolved(data, name))

    @property
    def constructor(self) -> type[SavedLearner]:
        """The class of everlearn whose arguments a subclass of a user hands on."""
        ours = (base for base in self.kind.__mro__ if base.__module__.startswith("everlearn."))
        return next(base for base in ours if "__init__" in vars(base))

    def replaced(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments that do not come from the file.

        Raises:
            ArgumentError: For a given argument that the class does not have.
        """
        known = constructor_arguments(self.kind)
        for name in self.given:
            if name not in known:
                raise ArgumentError(f"load: a {self.kind.__name__} has no argument '{name}'.{suggestion(name, known)}")
        given = {name: fitting(self.constructor, name, value) for name, value in self.given.items()}
        for name in given.keys() & HYPERPARAMETERS.keys():
            HYPERPARAMETERS[name].checked(name, given[name])
        aliased = {ALIASES[name]: value for name, value in self.custom_objects.items() if name in ALIASES}
        custom = {name: value for name, value in {**aliased, **self.custom_objects}.items() if name in data}
        return {**custom, **given}

    def _spaces(self) -> dict[str, Any]:
        """The spaces of the model, by attribute.

        Raises:
            Mismatch: If the environment has others; row 8 of the failure modes.
        """
        with refused(self.file.archive.file, SPACES + JSON):
            spaces = {name: self.custom_objects.get(name, space) for name, space in self.file.spaces().items()}
        for name, space in spaces.items():
            found = space if self.env is None else getattr(self.env, name)
            if found != space:
                what = name.replace("_", " ").capitalize()
                problem = f"{what}s do not match: the model was trained with {space}, the environment has {found}."
                remedy = "Load it with an environment of the same spaces."
                if "normaliser" in self.file and is_image_space(found):
                    remedy = "A normaliser of images comes before SB3 reorders them: give VecNormalize(env)."
                raise Mismatch(self.file.archive.file, problem, remedy, SPACES + JSON)
        return spaces

    def _require_equal_policy(self, data: Mapping[str, Any], replaced: Mapping[str, Any]) -> None:
        """SB3's check: the policy of a saved model is not another one's."""
        stored = data.get("policy_kwargs", {})
        comparable = {"policy_kwargs"} <= self.given.keys() & data.keys() and not list(opaque_places(stored, ""))
        if comparable and described(replaced["policy_kwargs"] or {}) != stored:
            raise Mismatch(
                self.file.archive.file,
                f"policy_kwargs={replaced['policy_kwargs']!r} do not equal the stored policy_kwargs={stored!r}.",
                "Leave policy_kwargs out.",
            )
