"""``everlearn export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from everlearn.cli.options import Import, Json, Verbose
from everlearn.cli.reporting import print_json, reported_errors


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model file, a checkpoint or a run's directory.")],
    onnx: Annotated[Path, typer.Option("--onnx", metavar="OUT", help="The new file, whose name ends with .onnx.")],
    quantiles: Annotated[
        bool | None,
        typer.Option("--quantiles/--no-quantiles", help="Of the value, from a market's model; where it has them."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it is there.")] = False,
    sha256: Annotated[
        str | None, typer.Option("--sha256", metavar="HEX", help="What the SHA-256 of MODEL has to be.")
    ] = None,
    imports: Import = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write a model as ONNX, with normalisation and post-processing in the graph, for programs without everlearn.

    The graph is run and compared with the policy first; one that differs is not written.
    """
    with reported_errors(verbose):
        from everlearn.config import import_plugins
        from everlearn.runs.converting import require_free
        from everlearn.runs.model_files import class_of, model_at
        from everlearn.signals.onnx_export import export_onnx

        import_plugins(imports or [], "--import")
        source = model_at(model)
        require_free(onnx, source, overwrite=overwrite)
        agent = class_of(source).load(source, device="cpu", sha256=sha256)
        report = export_onnx(agent, onnx, quantiles=_levels(quantiles))
    if as_json:
        print_json(report.as_dict())
    else:
        Console().print(_line(report), highlight=False, markup=False, soft_wrap=True)


def _levels(asked: bool | None) -> tuple[float, ...] | None:
    from everlearn.signals.predictor import LEVELS

    return None if asked is None else LEVELS if asked else ()


def _line(report: Any) -> str:
    ends = [", ".join(f"{name} {what}" for name, what in each.items()) for each in (report.inputs, report.outputs)]
    return (
        f"{report.file}: {' -> '.join(ends)}; opset {report.opset}, {report.bytes:,} bytes, at most "
        f"{report.largest_difference:.1e} from torch."
    )
