"""A new model from a file: built aside from what the file says, and handed out only when it is whole."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from everlearn.checkpoint.codec import JSON
from everlearn.checkpoint.errors import Mismatch, refused
from everlearn.core.digest import identical
from everlearn.environments.statistics import require_consistent
from everlearn.ppo.blueprint import Blueprint, Model
from everlearn.ppo.file_contents import configuration, constructor_arguments, libraries
from everlearn.ppo.frugal import require_small_buffer
from everlearn.ppo.hyperparameters import HYPERPARAMETERS
from everlearn.ppo.model_file import MEMBER_OF, ModelFile, learned_states, require_fit
from everlearn.ppo.options import OptimizerOptions
from everlearn.ppo.persistence import PersistentLearner
from everlearn.ppo.policy import unwrapped
from everlearn.ppo.state import SWITCHES, HyperparameterState, is_opaque, learned_parts


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
        wanted = {part: state.state_dict() for part, state in learned_parts(model).items() if part in new} | learned
        model.take_parameters(wanted, exact_match=True, device=blueprint.device)
    present = model.get_parameters()
    for part, saved in learned.items():
        if part in present and not identical(present[part], saved):
            problem = "as restored it is not what was saved: the object that took it has changed it."
            remedy = "Load it with the arguments it was saved with."
            raise Mismatch(file.archive.file, problem, remedy, MEMBER_OF.get(part, part))


def restored(model: PersistentLearner, file: ModelFile) -> None:
    """Put all that a file's model is made of, but for what only a training has, into a model that was built alike.

    Raises:
        CheckpointError: If anything in the file does not fit; parts may have changed then.
    """
    blueprint: Blueprint[Any] = Blueprint(type(model), file, model.env, model.device, {}, {})
    require_fit(file.weights(), unwrapped(model.policy).state_dict(), file)
    _restore_learned(model, blueprint)
    _take_over(model, blueprint)
    model.parent_content = file.manifest.get("content_id")


_NOT_LEARNED = (*("interface", "variables", "progress", "counters", "course", "observations", "episodes", "probe"),)
"""Parts that go into the model as they are, in this order."""


def _take_over(model: PersistentLearner, blueprint: Blueprint[Any]) -> None:
    """The parts that are not learned, but for what was replaced; what was given is put in force."""
    file, tree = blueprint.file, model.state_tree()
    for part in _NOT_LEARNED:
        if part in file:
            with refused(file.archive.file, part + JSON):
                tree[part].load_state_dict(file.state(part))
    if "hyperparameters" in file:
        with refused(file.archive.file, "hyperparameters" + JSON):
            _restore_hyperparameters(model, blueprint)
        spaces = (model.observation_space, model.action_space)
        require_small_buffer(spaces, model.n_steps * model.n_envs, file.archive.file, file.limits)
    if "divergence" in file:  # a learning rate that is set is meant as it is; this says what had become of it
        with refused(file.archive.file, "divergence" + JSON):
            tree["divergence"].load_state_dict(file.state("divergence"))
    if "normaliser" in file:
        with refused(file.archive.file, "normaliser" + JSON):
            state = file.state("normaliser")
            require_consistent(state)
            model._saved_normaliser = state
    replaced = blueprint.replaced(file.config())
    _put_in_force(model, replaced)
    _warn_of_other_arguments(model, blueprint, replaced)


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


def _warn_of_other_arguments(model: PersistentLearner, blueprint: Blueprint[Any], replaced: Mapping[str, Any]) -> None:
    """Say it where a user's subclass has made something else of its own arguments than it was saved with."""
    found, saved = configuration(model), blueprint.file.config()
    theirs, ours = (set(constructor_arguments(kind)) for kind in (type(model), blueprint.constructor))
    for name in theirs - ours:
        if name in saved and name not in replaced and found.get(name) != saved[name]:
            warnings.warn(
                f"{blueprint.file.archive.file} has {name}={saved[name]!r}; the loaded {type(model).__name__} makes "
                f"{found.get(name)!r} of it. Keep an argument under its own name and as it was given.",
                stacklevel=2,
            )


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
