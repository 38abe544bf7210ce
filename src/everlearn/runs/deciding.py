"""What a configuration comes to, without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from everlearn.config import as_yaml, import_plugins, load_document
from everlearn.environments.build import training_environment
from everlearn.runs.building import build_agent, resolved
from everlearn.runs.checking import check_names


def decided_settings(
    config: Path | None, settings: Mapping[str, Any] | None = None, plugins: Sequence[str] = ()
) -> str:
    """Every setting with the value that training would use, as YAML; environment and agent are built on trial.

    A seed that training would draw stays open.

    Args:
        config: A YAML file; None starts from the defaults.
        settings: Dotted key to value, which replaces what the file says.
        plugins: Modules to import, before those that the file names.

    Raises:
        ConfigError: With all complaints that can be made together, each with its line in the file.
    """
    wanted, document = load_document(config, settings, plugins)
    with document.blamed():
        import_plugins(wanted.plugins)
        check_names(wanted)
        with closing(training_environment(wanted.env, wanted.algorithm.gamma)) as venv:
            decided, _ = resolved(wanted, venv)
            build_agent(decided, venv)
    left_open = {"seed": wanted.seed, "evaluation": wanted.evaluation}
    return as_yaml(decided.model_copy(update=left_open).model_dump())
