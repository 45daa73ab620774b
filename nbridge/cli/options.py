"""Arguments that several commands share, and what they do with a file that exists."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nbridge.errors import RunError

SpecPath = Annotated[str, typer.Argument(metavar="SPEC", help="A spec, a YAML file.", show_default=False)]
RunPath = Annotated[str, typer.Argument(metavar="DIR", help="A run folder, or the model folder inside it.", show_default=False)]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change one value of the spec; may be repeated.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print figures as JSON.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Seed = Annotated[int, typer.Option(help="Seed of the draws.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]


def check_output(path: str, overwrite: bool, endings: tuple[str, ...]) -> Path:
    """The path of a file to write.

    Raises:
        RunError: when its ending is unknown, its folder does not exist, or it exists and may not be replaced.
    """
    target = Path(path)
    if target.suffix not in endings:
        raise RunError(f"--out {path}: expected a file that ends in {' or '.join(endings)}")
    if not target.parent.is_dir():
        raise RunError(f"--out {path}: folder {target.parent} does not exist")
    if target.is_dir() or (target.exists() and not overwrite):
        raise RunError(f"--out {path}: exists already. Use --overwrite to replace it.")
    return target
