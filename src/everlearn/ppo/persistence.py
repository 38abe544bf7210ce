"""Taking a model's state out and putting it back, whole or in part."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch

from everlearn.checkpoint.errors import refused
from everlearn.checkpoint.places import Place
from everlearn.core.errors import StateError
from everlearn.core.finite import require_finite_state
from everlearn.core.stateful import Stateful, StateTree, snapshot
from everlearn.ppo.interfacing import InterfacedLearner
from everlearn.ppo.model_file import learned_states, read_model_file, require_fit
from everlearn.ppo.optimizer_state import fresh_state
from everlearn.ppo.policy import unwrapped
from everlearn.ppo.state import SWITCHES, learned_parts, state_tree

_COMPILED = "_orig_mod."
"""What ``torch.compile`` puts before the names of a policy's weights."""


class PersistentLearner(InterfacedLearner):
    """A learner whose state can be taken out and put back, whole or in part."""

    switched_off: list[str]
    """Arguments that the user has set to False, whose parts' states are left out of what is loaded."""
    _at_clean_point: dict[str, Any] | None = None
    """While a rollout is collected: the state, before it began, of all parts that are not learned."""
    parent_content: str | None = None
    """``content_id`` of the file that the model was loaded from."""

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
        load_path_or_dict: Place | Mapping[str, Any],
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
            CheckpointError: If a file cannot be loaded.
        """
        if not isinstance(load_path_or_dict, Mapping):
            self._load_parameters(load_path_or_dict, exact_match, device)
            return
        given = dict(load_path_or_dict)
        before, complete = snapshot(self.get_parameters()), False
        try:
            self.take_parameters(given, exact_match, device)
            complete = True
        finally:
            if not complete:
                self._put_parameters(before, True, device)

    def reset_optimizer(self) -> None:
        """Forget what the optimizer remembers of earlier gradients; its options and its noise go on as they are."""
        optimizer = unwrapped(self.policy).optimizer
        optimizer.load_state_dict(fresh_state(optimizer))

    def _load_parameters(self, place: Place, exact_match: bool, device: torch.device | str) -> None:
        file = read_model_file(place)
        require_fit(file.weights(), unwrapped(self.policy).state_dict(), file)
        with refused(file.archive.file, "its parameters"):
            self.set_parameters(learned_states(file, self), exact_match, device)

    def take_parameters(
        self, given: Mapping[str, Any], exact_match: bool = True, device: torch.device | str = "auto"
    ) -> None:
        """``set_parameters`` of a model that is thrown away if it fails: parts may have changed then."""
        wanted = {name: state for name, state in given.items() if not self._is_left_out(name)}
        require_finite_state(wanted)
        self._put_parameters(wanted, exact_match, device)
        if not exact_match and "policy" in wanted and "vgs_state" not in wanted:
            self._reset_scaler()

    def _put_parameters(self, states: Mapping[str, Any], exact_match: bool, device: torch.device | str) -> None:
        """SB3's ``set_parameters``, for a compiled policy too, by either names of its weights."""
        if "policy" in states and unwrapped(self.policy) is not self.policy:
            weights = {f"{_COMPILED}{name.removeprefix(_COMPILED)}": each for name, each in states["policy"].items()}
            states = {**states, "policy": weights}
        super().set_parameters(dict(states), exact_match, device)

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
