"""``everlearn resume`` and ``everlearn verify-resume``."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from everlearn.cli.options import Import, Json, Quiet, Verbose
from everlearn.cli.reporting import print_json, reported_errors
from everlearn.cli.training import TimeLimit, finish


def resume(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of a run.")],
    require: Annotated[
        str | None, typer.Option("--require", metavar="LEVEL", help="exact, exact-replay or episode: refuse less.")
    ] = None,
    extend: Annotated[
        float, typer.Option("--extend", metavar="STEPS", help="Environment steps beyond those it was for.")
    ] = 0,
    time_limit: TimeLimit = None,
    imports: Import = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Go on with a run that was interrupted, from its latest checkpoint to its end."""
    with reported_errors(verbose):
        from everlearn.config import import_plugins
        from everlearn.report import display_for
        from everlearn.runs import resume as resume_run

        import_plugins(imports or [], "--import")
        steps = int(extend) if extend == int(extend) else extend
        with closing(display_for(Console(stderr=True), quiet)) as display:
            done = resume_run(run, require=require, extend=steps, time_limit=time_limit, display=display)  # type: ignore[arg-type]
    finish(done, as_json=as_json)


def verify_resume(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A checkpoint.")],
    run: Annotated[Path | None, typer.Option("--run", metavar="DIR", help="Its run, if it is not in it.")] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Resume a checkpoint twice, in new processes, for one iteration each, and compare what they have come to."""
    with reported_errors(verbose):
        from everlearn.runs.verifying import verify_resume as verify

        result = verify(file, run)
    if as_json:
        report = {"agrees": result.agrees, "digests": result.digests, "level": result.level, "reasons": result.reasons}
        print_json({"file": str(file), **report})
    else:
        verdict = "both continuations come to the same state" if result.agrees else "the continuations DIFFER"
        reasons = f" ({'; '.join(result.reasons)})" if result.reasons else ""
        console = Console(soft_wrap=True, highlight=False)
        console.print(f"{file}: {verdict} (SHA-256 {result.digests[0][:16]}...); level: {result.level}{reasons}")
    if not result.agrees:
        raise typer.Exit(1)
