"""Taking a model's state out and putting it back: parameters, files, pickles, and the normaliser that belongs to it."""

from __future__ import annotations

import io
import pathlib
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Self

import torch
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.type_aliases import GymEnv

from everlearn.core.digest import digest
from everlearn.core.errors import NonFiniteError, StateError
from everlearn.core.rng import GlobalGenerators
from everlearn.core.stateful import Stateful, StateTree, snapshot
from everlearn.ppo.hyperparameters import HYPERPARAMETERS
from everlearn.ppo.normalising import NormalisedLearner
from everlearn.ppo.options import OptimizerOptions
from everlearn.ppo.state import HyperparameterState, is_opaque, learned_parts, state_tree

SWITCHES = {"vgs_state": "variance_gradient_scaling", "kl_penalty_state": "kl_penalty"}
"""Parts that may be off, and the argument that switches them."""


class PersistentLearner(NormalisedLearner):
    """A learner whose state can be taken out and put back, whole or in part."""

    switched_off: list[str]
    """Arguments that the user has set to False, whose parts' states are left out of what is loaded."""
    algorithm_name: str
    _saved_parts: dict[str, Any] | None = None

    # --- parts ----------------------------------------------------------------------------------------------------

    def state_tree(self) -> StateTree:
        """Every part of the state with its role; parameters, files and transfers are subsets of it."""
        return state_tree(self)

    @property
    def vgs_state(self) -> Stateful | None:
        """The scaler under the name that its state has among the parameters."""
        return self.variance_gradient_scaler

    @property
    def kl_penalty_state(self) -> Stateful | None:
        """The KL control under the name that its state has among the parameters."""
        return self.kl_controller

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return list(learned_parts(self)), []

    def set_parameters(
        self,
        load_path_or_dict: str | Mapping[str, Any],
        exact_match: bool = True,
        device: torch.device | str = "auto",
    ) -> None:
        """Load what ``get_parameters`` returned, or a file's; if anything does not fit, nothing has changed.

        Args:
            load_path_or_dict: The file, or the state of each part by its name.
            exact_match: Whether all parts have to be there. Without it, statistics that belong to other weights than
                the new ones are reset, with a warning.
            device: Where a file's tensors are loaded to.

        Raises:
            ValueError: If a part is unknown or missing.
            StateError: If a part does not fit, or is off here without having been switched off.
            NonFiniteError: If a parameter is not finite.
            RuntimeError: If the policy has other parameters.
        """
        given = (
            dict(load_path_or_dict)
            if isinstance(load_path_or_dict, Mapping)
            else load_from_zip_file(load_path_or_dict, device=device, load_data=False)[1]
        )
        given = {name: state for name, state in given.items() if not self._is_left_out(name)}
        require_finite_state(given)
        before, complete = snapshot(self.get_parameters()), False
        try:
            super().set_parameters(given, exact_match, device)
            complete = True
        finally:
            if not complete:
                super().set_parameters(before, exact_match=True, device=device)
        if not exact_match and "policy" in given and "vgs_state" not in given:
            self._reset_scaler()

    def _is_left_out(self, name: str) -> bool:
        """Whether a part's state has no place here because the user has switched the part off."""
        if name not in SWITCHES or name in learned_parts(self):
            return False
        if SWITCHES[name] not in self.switched_off:
            raise StateError(
                f"The parameters hold '{name}', and {SWITCHES[name]} is off here. Build the model with it, or with "
                f"{SWITCHES[name]}=False to leave that state out."
            )
        warnings.warn(f"{SWITCHES[name]} is switched off: the state of '{name}' is left out.", stacklevel=3)
        return True

    def _reset_scaler(self) -> None:
        scaler = self.variance_gradient_scaler
        if scaler is not None and scaler.step_count:
            warnings.warn(
                f"The new parameters come without 'vgs_state': the statistics of {scaler.step_count} steps belong to "
                "other weights and are reset, and warm-up begins again.",
                stacklevel=3,
            )
            scaler.reset_statistics()

    # --- files and pickles ----------------------------------------------------------------------------------------

    def _excluded_save_params(self) -> list[str]:
        parts = ["variance_gradient_scaler", "kl_controller", "divergence_guard", "_probe"]
        rests = ["_saved_normaliser", "_own_normaliser", "_rewards_rest", "_warned_of_behaviour"]
        return [*super()._excluded_save_params(), *parts, *rests]

    def save(
        self,
        path: str | pathlib.Path | io.BufferedIOBase,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """Save the model under SB3's rules for names, with all that it has learned and its normaliser's statistics.

        Args:
            path: A path, whose suffix ``.zip`` may be left out, or an open binary file.
            exclude: Attributes to leave out.
            include: Attributes to save that are left out otherwise.

        Raises:
            NonFiniteError: If a parameter or a statistic is not finite; nothing is written.
            StateError: If a part's state has an object in it, which no file could give back.
        """
        parameters, normaliser = self.get_parameters(), self.normaliser_state
        require_finite_state({**parameters, "normaliser": normaliser})
        self.algorithm_name = type(self).__name__
        self._saved_parts = {
            "normaliser": normaliser,
            "hyperparameters": HyperparameterState(self).state_dict(),
            "divergence": self.divergence_guard.state_dict(),
            "digests": _digests(parameters),
        }
        try:
            super().save(path, exclude, include)
        finally:
            self._saved_parts = None

    @classmethod
    def load(
        cls,
        path: str | pathlib.Path | io.BufferedIOBase,
        env: GymEnv | None = None,
        device: torch.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> Self:
        """A new model from a file; the caller's random generators stay as they are.

        Args:
            path: A path, whose suffix ``.zip`` may be left out, or an open binary file.
            env: Its new environment. If the model was trained on normalised observations, an environment without a
                normaliser gets one with the saved statistics, which rests until ``learn``; one with a normaliser has
                its statistics replaced.
            device: Where it computes.
            custom_objects: Attributes to take instead of the saved ones.
            print_system_info: Whether to print versions.
            force_reset: Whether the environment is reset before training goes on.
            kwargs: Arguments that differ from the saved ones; hyper-parameters given here are in force.

        Raises:
            StateError: If a part is not what was saved, or the environment's observations do not fit the normaliser.
        """
        off = [name for name in SWITCHES.values() if kwargs.get(name) is False]
        generators = GlobalGenerators()
        before = generators.state_dict()
        try:
            arguments = {**kwargs, "switched_off": off} if off else kwargs
            model: Self = super().load(path, env, device, custom_objects, print_system_info, force_reset, **arguments)
        finally:
            generators.load_state_dict(before)
        saved, model._saved_parts = model._saved_parts or {}, None
        model._check_digests(saved.get("digests", {}), left_out={name for name in SWITCHES if SWITCHES[name] in off})
        model._take_over(saved, kwargs, replaced={*kwargs, *(custom_objects or ())})
        if model.env is not None:
            model.set_env(model.env, force_reset=False)
        return model

    def _check_digests(self, digests: Mapping[str, str], left_out: set[str]) -> None:
        """Compare what was restored with what was saved.

        Raises:
            StateError: If a digest differs.
        """
        found = _digests(self.get_parameters())
        for name, expected in digests.items():
            if name not in left_out and found.get(name) != expected:
                raise StateError(
                    f"'{name}' as restored is not what was saved: digests differ. The file is damaged, or the model "
                    "was built with other arguments; load it with those it was saved with."
                )

    def _take_over(self, saved: Mapping[str, Any], given: Mapping[str, Any], replaced: set[str]) -> None:
        """Restore what SB3 does not know, but for what was ``replaced``, and put what was ``given`` in force."""
        present = self.get_hyperparameters()  # without the options of parts that are off now
        in_force = {
            name: value
            for name, value in saved.get("hyperparameters", {}).items()
            if name in present and not (is_opaque(value) or {name, name.partition(".")[0]} & replaced)
        }
        HyperparameterState(self).load_state_dict(in_force)
        if "divergence" in saved:
            self.divergence_guard.load_state_dict(saved["divergence"])
        self._saved_normaliser = saved.get("normaliser")
        options = dict(given.get("optimizer_kwargs") or {})
        if "lr" in options:
            self.learning_rate = options.pop("lr")
        for option, value in options.items():
            OptimizerOptions(self.policy).set(option, value)
        for name in given.keys() & HYPERPARAMETERS.keys():
            setattr(self, name, given[name])

    def __reduce__(self) -> tuple[Any, ...]:
        """A pickle, or a copy, holds the model's file and nothing else: no environment, no logger."""
        file = io.BytesIO()
        self.save(file)
        return _unpickled, (type(self), file.getvalue(), str(self.device))


def _digests(parameters: Mapping[str, Any]) -> dict[str, str]:
    return {name: digest(state) for name, state in parameters.items()}


def _unpickled(kind: type[PersistentLearner], file: bytes, device: str) -> PersistentLearner:
    """The model of a pickle, on its device where this machine has one of that kind."""
    here = device if torch.device(device).type == "cpu" or torch.cuda.is_available() else "cpu"
    return kind.load(io.BytesIO(file), device=here)


def require_finite_state(state: Any, path: str = "") -> None:
    """Refuse a state with a floating-point tensor that is not finite.

    Raises:
        NonFiniteError: Naming the tensor by its dotted path.
    """
    if isinstance(state, Mapping):
        for key, part in state.items():
            require_finite_state(part, f"{path}.{key}" if path else str(key))
    elif isinstance(state, torch.Tensor) and state.is_floating_point() and not bool(torch.isfinite(state).all()):
        raise NonFiniteError(f"'{path}' is not finite. Go on from an earlier state; this one cannot be used or saved.")
