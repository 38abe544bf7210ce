"""A new model from a file: built aside from what the file says, and handed out only when it is whole."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from everlearn.checkpoint.codec import JSON, TENSORS
from everlearn.checkpoint.errors import Mismatch, refused
from everlearn.core.digest import identical
from everlearn.environments.normaliser import check_normaliser_state
from everlearn.ppo.blueprint import Blueprint, Model
from everlearn.ppo.frugal import require_small_buffer
from everlearn.ppo.hyperparameters import HYPERPARAMETERS
from everlearn.ppo.model_file import MEMBER_OF, ModelFile, learned_states, libraries
from everlearn.ppo.options import OptimizerOptions
from everlearn.ppo.persistence import PersistentLearner
from everlearn.ppo.state import SWITCHES, HyperparameterState, is_opaque


def loaded(blueprint: Blueprint[Model]) -> Model:
    """The model of a file, whole.

    Raises:
        CheckpointError: If anything in the file does not fit.
        ArgumentError: If a given argument is unknown or outside its range.
    """
    file = blueprint.file
    _warn_of_other_libraries(file)
    weights = file.weights()
    model = blueprint.built(weights)
    require_fit(weights, model.policy.state_dict(), file)
    _restore_learned(model, blueprint)
    _take_over(model, blueprint)
    model.parent_content = file.manifest.get("content_id")
    if model.use_sde:
        model.policy.reset_noise()
    return model


def require_fit(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], file: ModelFile) -> None:
    """Names, shapes and dtypes of a file's weights are those of a network's.

    Raises:
        Mismatch: With the differences.
    """
    lacking = [f"lacks {name}" for name in own.keys() - weights.keys()]
    beyond = [f"has {name}" for name in weights.keys() - own.keys()]
    different = [
        f"has {name} as {_form(weights[name])} where the network has {_form(own[name])}"
        for name in own.keys() & weights.keys()
        if _form(weights[name]) != _form(own[name])
    ]
    differences = sorted(lacking + beyond + different)
    if differences:
        shown = "; ".join(differences[:5]) + (f"; and {len(differences) - 5} more" if len(differences) > 5 else "")
        problem = f"its weights are of another network: the file {shown}."
        raise Mismatch(file.archive.file, problem, "Load it as it was saved.", "policy" + TENSORS)


def _restore_learned(model: PersistentLearner, blueprint: Blueprint[Any]) -> None:
    """What was learned, and then a look at whether it is what was saved.

    Raises:
        CheckpointError: If a part does not fit, or has changed on its way.
    """
    file = blueprint.file
    with refused(file.archive.file, "optimizer" + JSON):
        learned = learned_states(file, model)
    with refused(file.archive.file, ", ".join(MEMBER_OF.get(part, part) for part in learned)):
        # A part that a given argument has switched on begins anew.
        new = {part for part, name in SWITCHES.items() if name in blueprint.given and part not in learned}
        wanted = {part: state for part, state in model.get_parameters().items() if part in new} | learned
        model.take_parameters(wanted, exact_match=True, device=blueprint.device)
    present = model.get_parameters()
    for part, saved in learned.items():
        if part in present and not identical(present[part], saved):
            problem = "as restored it is not what was saved: the object that took it has changed it."
            remedy = "Load it with the arguments it was saved with."
            raise Mismatch(file.archive.file, problem, remedy, MEMBER_OF.get(part, part))


def _take_over(model: PersistentLearner, blueprint: Blueprint[Any]) -> None:
    """The parts that are not learned, but for what was replaced; what was given is put in force."""
    file, tree = blueprint.file, model.state_tree()
    for part in ("progress", "divergence", "counters", "observations", "episodes", "probe"):
        if part in file:
            with refused(file.archive.file, part + JSON):
                tree[part].load_state_dict(file.state(part))
    if "hyperparameters" in file:
        with refused(file.archive.file, "hyperparameters" + JSON):
            _restore_hyperparameters(model, blueprint)
        spaces = (model.observation_space, model.action_space)
        require_small_buffer(spaces, model.n_steps * model.n_envs, file.archive.file, file.limits)
    if "normaliser" in file:
        with refused(file.archive.file, "normaliser" + JSON):
            state = file.state("normaliser")
            check_normaliser_state(state, model.observation_space)
            model._saved_normaliser = state
    _put_in_force(model, blueprint.given)


def _restore_hyperparameters(model: PersistentLearner, blueprint: Blueprint[Any]) -> None:
    replaced = blueprint.replaced(blueprint.file.config())
    present = model.get_hyperparameters()  # without the options of parts that are off now
    HyperparameterState(model).load_state_dict(
        {
            name: value
            for name, value in blueprint.file.state("hyperparameters").items()
            if name in present and not (is_opaque(value) or {name, name.partition(".")[0]} & replaced.keys())
        }
    )


def _put_in_force(model: PersistentLearner, given: Mapping[str, Any]) -> None:
    """Hyper-parameters given now rule over the ones in force when the model was saved."""
    options = dict(given.get("optimizer_kwargs") or {})
    if "lr" in options:
        model.learning_rate = options.pop("lr")
    for option, value in options.items():
        OptimizerOptions(model.policy).set(option, value)
    for name in given.keys() & HYPERPARAMETERS.keys():
        setattr(model, name, given[name])


def _warn_of_other_libraries(file: ModelFile) -> None:
    """Row 10 of the failure modes: other versions load, and the last bits of what follows may differ."""
    saved = file.manifest.get("libraries")
    saved = saved if isinstance(saved, Mapping) else {}
    here = libraries()
    different = [
        f"{name} {saved[name]} (here {here[name]})" for name in here if saved.get(name, here[name]) != here[name]
    ]
    if different:
        warnings.warn(
            f"{file.archive.file} was saved with {', '.join(different)}: it is loaded, and training on may differ in "
            "the last bits from what it would have been there.",
            stacklevel=2,
        )


def _form(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {tensor.dtype}"
