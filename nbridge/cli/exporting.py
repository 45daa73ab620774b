"""``nbridge export``."""

from __future__ import annotations

from typing import Annotated

import typer

from nbridge.cli.options import Overwrite, RunPath, check_output
from nbridge.errors import RunError


def export(
    directory: RunPath,
    out: Annotated[str, typer.Option(metavar="FILE", help="The file to write, .onnx or .pt2 (torch.export).", show_default=False)],
    given: Annotated[str | None, typer.Option(metavar="A,B", help="The modalities that are inputs.", show_default="all")] = None,
    targets: Annotated[str | None, typer.Option(metavar="A,B", help="The modalities that are outputs.", show_default="all")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Export a model as a graph that imputes without nbridge. Values and NAME__present in, NAME__completed out, for every pattern.

    It gives the best estimate that `nbridge impute` gives, in the units of the data, for any number of rows.
    """
    target = check_output(out, overwrite, (".onnx", ".pt2"))
    from nbridge.model import load

    try:
        told = load(directory).export(target, given=_listed(given), targets=_listed(targets))
    except RunError as error:
        text = str(error)
        raise RunError(f"--{text}" if text.startswith(("given", "targets")) else text) from error
    typer.echo(f"{target}: {', '.join(told['inputs'])} -> {', '.join(told['outputs'])}")


def _listed(names: str | None) -> list[str] | None:
    return None if names is None else [name.strip() for name in names.split(",") if name.strip()]
