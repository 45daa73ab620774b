"""``nbridge export``."""

from __future__ import annotations

from typing import Annotated

import typer

from nbridge.cli.options import Overwrite, RunPath, check_output, split_names
from nbridge.cli.parameters import option
from nbridge.errors import RunError


def export(
    directory: RunPath,
    out: Annotated[str, option("FILE", "The file to write, .onnx or .pt2 (torch.export).")],
    given: Annotated[str | None, option("A,B", "The input modalities.", shown="all")] = None,
    targets: Annotated[str | None, option("A,B", "The output modalities.", shown="all")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Export a model as a graph that imputes without nbridge. It maps NAME and NAME__present to NAME__completed.

    The graph computes the same point estimate as `nbridge impute`, in the units of the data, for any number of rows and any pattern of
    presence.
    """
    target = check_output(out, overwrite, (".onnx", ".pt2"))
    from nbridge.model import load

    try:
        chosen = {name: None if value is None else split_names(value) for name, value in (("given", given), ("targets", targets))}
        described = load(directory).export(target, **chosen)
    except RunError as error:
        text = str(error)
        raise RunError(f"--{text}" if text.startswith(("given", "targets")) else text) from error
    typer.echo(f"{target}: {', '.join(described['inputs'])} -> {', '.join(described['outputs'])}")
