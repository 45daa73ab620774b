"""``nbridge doctor``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from nbridge.cli.options import AsJson


def doctor(
    directory: Annotated[str | None, typer.Argument(metavar="[DIR]", help="A run folder to look into.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Check the installation, and a run folder. Shows versions, devices, extras, memory, and whether a run is whole and can go on."""
    from nbridge.runs.doctor import diagnose_run, diagnose_system

    system = diagnose_system()
    run = None if directory is None else diagnose_run(Path(directory))
    if as_json:
        typer.echo(json.dumps({"system": asdict(system), "run": None if run is None else run.as_dict()}, indent=2))
        return
    memory = "unknown" if system.free_memory is None else f"{system.free_memory / 2**30:.1f} GiB"
    lines = [
        ("versions", ", ".join(f"{name} {version}" for name, version in system.versions.items())),
        ("devices", ", ".join(system.devices)),
        ("threads", system.threads),
        ("precision", ", ".join(system.precision)),
        ("memory", f"{memory} free"),
        ("disk", f"{system.free_disk / 2**30:.1f} GiB free here"),
        ("data", system.data or "$NBRIDGE_DATA is not set"),
        ("extras", ", ".join(extra for extra, missing in system.extras.items() if not missing) or "none"),
    ]
    lines += [("missing", f'{", ".join(missing)}: pip install "nbridge[{extra}]"') for extra, missing in system.extras.items() if missing]
    if run is not None:
        lines.append(("run", f"{run.folder}: {run.state}" + (f" by {run.holder}" if run.holder else "")))
        lines += [(f"  {file}", reason) for file, reason in run.damaged.items()]
        lines += [(f"  {Path(path).name}", "left by a killed process; the next training of this run removes it") for path in run.leftovers]
        lines.append(("what to do", run.advice))
    for name, text in lines:
        typer.echo(f"{name + ':':<12}{text}")
