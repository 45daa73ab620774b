"""The ``nbridge`` command: registers one function per subcommand, and turns errors into a message and an exit code."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import NoReturn

import typer

from nbridge.acceleration.threads import set_thread_count
from nbridge.cli import evaluating, exploring, exporting, hub, init, inspecting, reporting, serving, training
from nbridge.errors import NBridgeError, exit_code

EXAMPLES: dict[Callable[..., None], str] = {
    init.init: "nbridge init rows.csv --out rows.yaml",
    training.train: "nbridge train modality_specs/digits.yaml --out runs/digits",
    training.resume: "nbridge resume runs/digits",
    serving.impute: "nbridge impute runs/digits rows.npz --out completed.npz",
    serving.generate: "nbridge generate runs/digits --given label=3 --out threes.png",
    serving.embed: "nbridge embed runs/digits rows.npz --out codes.npz",
    evaluating.evaluate: "nbridge evaluate runs/digits --metrics likelihood,predictive",
    reporting.report: "nbridge report runs/digits",
    exploring.explore: "nbridge explore runs/digits",
    exporting.export: "nbridge export runs/digits --given top,label --out digits.onnx",
    hub.push: "nbridge push runs/digits user/digits --private",
    hub.pull: "nbridge pull user/digits --out digits",
    evaluating.compare: "nbridge compare modality_specs/digits.yaml --models bridged,mvae",
    inspecting.validate: "nbridge validate rows.yaml --data",
    inspecting.params: "nbridge params modality_specs/digits.yaml",
    inspecting.schema: "nbridge schema --out nbridge.schema.json",
}
"""The subcommands in the order of the help text, each with an example."""
COMPUTING = (
    training.train,
    training.resume,
    serving.impute,
    serving.generate,
    serving.embed,
    evaluating.evaluate,
    reporting.report,
    exploring.explore,
    exporting.export,
    evaluating.compare,
)

app = typer.Typer(
    name="nbridge",
    help="Multimodal VAEs that impute missing modalities, from a declarative spec.",
    epilog=f"Start with:  {EXAMPLES[training.train]}\n\nor with your own data:  nbridge init rows.csv",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _options(version: bool = typer.Option(False, "--version", help="Show the version and exit.")) -> None:
    if version:
        from nbridge.version import __version__

        typer.echo(f"nbridge {__version__}")
        raise typer.Exit


def _interruptible(verb: Callable[..., None]) -> Callable[..., None]:
    """Wraps a subcommand to print its message and exit with code 130 on Ctrl-C, which typer handles differently."""

    @functools.wraps(verb)
    def run(*args: object, **kwargs: object) -> None:
        try:
            verb(*args, **kwargs)
        except KeyboardInterrupt as stop:
            _exit(str(stop) or "interrupted", 130)

    return run


for _verb, _example in EXAMPLES.items():
    app.command(epilog=f"Example:  {_example}")(_interruptible(_verb))


def main() -> None:
    """Runs a command. Exits with 0 on success, 2 on a user error, 1 on a failure of nbridge, 130 when interrupted."""
    # Appended last, so that a spec can name a class in the current folder without shadowing installed modules.
    sys.path.append("")
    if sys.argv[1:2] and sys.argv[1] in {verb.__name__ for verb in COMPUTING} and "--help" not in sys.argv:
        set_thread_count()
    try:
        app(prog_name="nbridge")
    except NBridgeError as error:
        _exit(str(error), exit_code(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _exit(f"{where}{error.strerror or error}", 2)


def _exit(text: str, code: int) -> NoReturn:
    sys.stderr.write(text + "\n")
    sys.exit(code)
