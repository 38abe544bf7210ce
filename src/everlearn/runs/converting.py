"""Model files of other systems made into ours, and ours into Stable-Baselines3's."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from everlearn.checkpoint.errors import Mismatch
from everlearn.checkpoint.files import is_directory, mode_at
from everlearn.checkpoint.foreign import Kind, recognise
from everlearn.checkpoint.places import written_path
from everlearn.config import AlgorithmConfig, import_plugins, load_document
from everlearn.core.errors import ConfigError
from everlearn.environments.build import training_environment
from everlearn.environments.spaces import check_policy, policy_for
from everlearn.environments.spec import EnvConfig
from everlearn.ppo.algorithm import PPO
from everlearn.ppo.model_file import read_model_file
from everlearn.runs.building import constructor_arguments
from everlearn.runs.checking import check_names
from everlearn.runs.model_files import class_of, existing
from everlearn.runs.names import algorithms

Target = Literal["everlearn", "sb3"]

_OPTIONS = {"env.id": "--env", "algorithm.name": "--algorithm", "name": "--algorithm"}
"""What the command calls settings; the others are ``--set``."""
_OF_ANOTHER = (
    "If it is of another algorithm or network, name these: --algorithm DistributionalPPO, "
    "--set policy_kwargs.net_arch=[...] (settings in Python)."
)


def convert(
    source: Path,
    out: Path,
    *,
    to: Target = "everlearn",
    config: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    trust: bool = False,
    sha256: str | None = None,
    overwrite: bool = False,
) -> PPO:
    """Read a model file and write it in the other format; warnings say what is left behind.

    Args:
        source: A zip of Stable-Baselines3, a v1 or v2 file; with ``to="sb3"`` one of ours.
        out: The new file.
        to: ``"sb3"`` for Stable-Baselines3.
        config: A YAML file that names environment, algorithm and policy of the new model.
        settings: Dotted key to value, which replaces what ``config`` says.
        trust: Read a zip of Stable-Baselines3 with its own loader, which runs what the file brings along; it needs no
            environment then, and nothing but ``algorithm.name`` can be set.
        sha256: What the SHA-256 of ``source`` has to be.
        overwrite: Replace ``out`` if it is there.

    Returns:
        The model.

    Raises:
        ConfigError: If ``out`` is there, a directory or ``source``, the configuration is not valid, an argument has no
            effect beside another, or there is nothing to convert.
        CheckpointError: If ``source`` is refused, or does not fit the configuration.
        SaveError: If ``out`` cannot be written.
    """
    _require_effect(to, config, settings or {}, trust=trust)
    target, path = written_path(out), existing(source)
    require_free(target, path, overwrite=overwrite)
    agent = _read(path, to, config, settings, trust, sha256)
    agent.save(target, format=to)
    return agent


def require_free(target: Path, source: Path, *, overwrite: bool) -> None:
    """Refuse to write over a directory, the source, or a file that is not to be replaced.

    Raises:
        ConfigError: Naming it.
    """
    if is_directory(target):
        raise ConfigError(f"{target}: this is a directory. Name a file in it.")
    if not mode_at(target):
        return
    if target.samefile(source):
        raise ConfigError(f"{target}: this is the file that is to be converted, which stays. Name another file.")
    if not overwrite:
        raise ConfigError(f"{target}: it is there already. Name another file, or add --overwrite (overwrite=True).")


def _require_effect(to: Target, config: Path | None, settings: Mapping[str, Any], *, trust: bool) -> None:
    """Refuse what would be ignored: our files, and those read in full, bring environment and arguments along.

    Raises:
        ConfigError: Naming it.
    """
    if to == "everlearn" and not trust:
        return
    options = [] if config is None else ["--config"]
    options += [_OPTIONS.get(key, f"--set {key}") for key in settings]
    if to == "sb3":
        beside, idle = "--to sb3", [*options, "--trust"] if trust else options
    else:
        beside, idle = "--trust", [option for option in options if option != "--algorithm"]
    if idle:
        raise ConfigError(f"{', '.join(idle)}: no effect with {beside}, which takes all from the file. Leave it out.")


def _read(
    path: Path, to: Target, config: Path | None, settings: Mapping[str, Any] | None, trust: bool, sha256: str | None
) -> PPO:
    ours = recognise(path) is Kind.EVERLEARN
    if to == "sb3":
        if not ours:
            read_model_file(path, sha256=sha256)  # says what it is instead
        return class_of(path).load(path, device="cpu", sha256=sha256)
    if ours:
        raise ConfigError(f"{path}: this is a file of everlearn already. Load it as it is, or add --to sb3.")
    if trust:
        named = load_document(None, {"env.id": "none", **(settings or {})})[0].algorithm
        return _algorithm(named).load(path, device="cpu", trust=True, sha256=sha256)
    return _imported(path, config, settings, sha256)


def _imported(path: Path, config: Path | None, settings: Mapping[str, Any] | None, sha256: str | None) -> PPO:
    """A new model with the weights of a file; what the configuration does not say, the file and then the class do."""
    wanted, document = load_document(config, settings)
    algorithm = wanted.algorithm
    with document.blamed():
        import_plugins(wanted.plugins)
        check_names(wanted)
        with closing(training_environment(_plain(wanted.env), algorithm.gamma)) as venv:
            policy = algorithm.policy or policy_for(venv.observation_space)
            check_policy(policy, venv.observation_space, venv.action_space, use_sde=algorithm.use_sde)
            arguments = constructor_arguments(algorithm, policy)
            given = {name: arguments[name] for name in arguments.keys() & algorithm.model_fields_set}
            kind = _algorithm(algorithm)
            try:
                return kind.import_weights(path, venv, policy, sha256=sha256, device="cpu", **given)
            except Mismatch as error:
                error.add_note(_OF_ANOTHER)
                raise


def _plain(env: EnvConfig) -> EnvConfig:
    """One environment, if no number is given; normalised if that is asked for only: such files have no statistics."""
    changes: dict[str, Any] = {} if "n_envs" in env.model_fields_set else {"n_envs": 1}
    if env.normalize.enabled == "auto":
        changes["normalize"] = env.normalize.model_copy(update={"enabled": False})
    return env.model_copy(update=changes)


def _algorithm(config: AlgorithmConfig) -> type[PPO]:
    """The class; what nobody has named is PPO, whose critic other systems have."""
    name = config.name if "name" in config.model_fields_set else "PPO"
    return algorithms[algorithms.canonical(name, "algorithm.name")]
