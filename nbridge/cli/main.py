"""``nbridge``: one function for each verb, and one place where a mistake becomes one line and an exit code."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from nbridge.cli import inspecting, serving, training
from nbridge.errors import NBridgeError

app = typer.Typer(
    name="nbridge",
    help="Multimodal VAEs that fill in whole missing modalities, from a declarative spec.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for _verb in (
    training.train,
    training.resume,
    serving.impute,
    serving.generate,
    serving.embed,
    inspecting.validate,
    inspecting.params,
    inspecting.schema,
):
    app.command()(_verb)


@app.callback(invoke_without_command=True)
def _options(version: bool = typer.Option(False, "--version", help="Show the version and leave.")) -> None:
    if version:
        from nbridge.version import __version__

        typer.echo(f"nbridge {__version__}")
        raise typer.Exit


def main() -> None:
    """Runs a command. Exits with 0 on success, 2 on a mistake of the user, 1 on a failure of nbridge, 130 when interrupted."""
    # At the end, so that a spec may name a class of a module in the current folder and no installed module is hidden by it.
    sys.path.append(str(Path.cwd()))
    try:
        app()
    except NBridgeError as error:
        _leave(str(error), 2)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _leave(f"{where}{error.strerror or error}", 2)
    except KeyboardInterrupt:
        _leave("interrupted", 130)


def _leave(text: str, code: int) -> None:
    sys.stderr.write(text + "\n")
    sys.exit(code)
