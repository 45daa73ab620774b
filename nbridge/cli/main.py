"""The ``nbridge`` command: registers one function per subcommand, and turns errors into a message and an exit code."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import NoReturn

import typer

from nbridge.acceleration.threads import set_thread_count
from nbridge.cli import doctor, evaluating, exploring, exporting, hub, init, inspecting, reporting, serving, training, tuning
from nbridge.cli.options import QUIET, AllowCode, Quiet
from nbridge.errors import NBridgeError, RunError, exit_code
from nbridge.spec.registry import allowing

EXAMPLES: dict[Callable[..., None], str] = {
    init.init: "nbridge init rows.csv --out rows.yaml",
    training.train: "nbridge train modality_specs/digits.yaml --out runs/digits",
    training.resume: "nbridge resume runs/digits",
    tuning.tune: "nbridge tune modality_specs/digits.yaml --trials 20",
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
    doctor.doctor: "nbridge doctor runs/digits",
    inspecting.schema: "nbridge schema --out nbridge.schema.json",
}
"""The subcommands in the order of the help text, each with an example."""
COMPUTING = (
    training.train, training.resume, serving.impute, serving.generate, serving.embed, evaluating.evaluate, reporting.report,
    exploring.explore, exporting.export, evaluating.compare, tuning.tune,
)  # fmt: skip
LONG = (*COMPUTING, init.init, inspecting.validate)
"""The subcommands that may take more than two seconds and show progress; they have the option `--quiet`."""
OWN_SPEC = (init.init, training.train, tuning.tune, evaluating.compare, inspecting.validate, inspecting.params)
"""The subcommands that read a spec or a class of the user's own, and therefore may import modules in the current folder."""
LOADING = (
    training.resume, serving.impute, serving.generate, serving.embed, evaluating.evaluate, reporting.report, exploring.explore,
    exporting.export, hub.push, hub.pull, doctor.doctor,
)  # fmt: skip
"""The subcommands that load a model or a run, which may come from elsewhere; they have the option `--allow-code`."""

app = typer.Typer(
    name="nbridge", help="Multimodal VAEs that impute missing modalities, from a declarative spec.",
    epilog=f"Start with:  {EXAMPLES[training.train]}\n\nor with your own data:  nbridge init rows.csv", no_args_is_help=True,
    pretty_exceptions_enable=False, rich_markup_mode=None,
)  # fmt: skip


@app.callback(invoke_without_command=True)
def _options(version: bool = typer.Option(False, "--version", help="Show the version and exit.")) -> None:
    if version:
        from nbridge.version import __version__

        typer.echo(f"nbridge {__version__}")
        raise typer.Exit


def _with_exit_codes(verb: Callable[..., None]) -> Callable[..., None]:
    """Wraps a subcommand to print its message on Ctrl-C, SIGTERM and SIGHUP, which typer handles differently; none ends early with 0."""

    @functools.wraps(verb)
    def run(*args: object, **kwargs: object) -> None:
        try:
            verb(*args, **kwargs)
        except KeyboardInterrupt as stop:
            _exit(str(stop) or "interrupted", exit_code(stop))
        except SystemExit as stop:
            if stop.code in (None, 0):
                raise RunError("the code of a class outside nbridge ended the program before the command was done (SystemExit)") from stop
            raise

    return run


def _with_allow_code(verb: Callable[..., None]) -> Callable[..., None]:
    """Adds the option `--allow-code` to a subcommand."""

    @functools.wraps(verb)
    def run(*args: object, allow_code: list[str] | None = None, **kwargs: object) -> None:
        with allowing(allow_code or ()):
            verb(*args, **kwargs)

    return _with_option(run, verb, "allow_code", None, AllowCode)


def _with_quiet(verb: Callable[..., None]) -> Callable[..., None]:
    """Adds the option `--quiet` to a subcommand."""

    @functools.wraps(verb)
    def run(*args: object, quiet: bool = False, **kwargs: object) -> None:
        token = QUIET.set(quiet)
        try:
            verb(*args, **kwargs)
        finally:
            QUIET.reset(token)

    return _with_option(run, verb, "quiet", False, Quiet)


def _with_option(
    run: Callable[..., None], verb: Callable[..., None], name: str, default: object, annotation: object
) -> Callable[..., None]:
    """A function with the arguments of a subcommand and one more."""
    option = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
    signature = inspect.signature(verb, eval_str=True)
    run.__annotations__ = {**verb.__annotations__, name: annotation}
    vars(run)["__signature__"] = signature.replace(parameters=[*signature.parameters.values(), option])
    return run


for _verb, _example in EXAMPLES.items():
    _command = _with_allow_code(_verb) if _verb in LOADING else _verb
    _command = _with_quiet(_command) if _verb in LONG else _command
    app.command(epilog=f"Example:  {_example}")(_with_exit_codes(_command))


def main() -> None:
    """Runs a command. Exits with 0 on success, 2 on a user error, 1 on a failure of nbridge, 128 and its number when a signal stops it."""
    if sys.argv[1:2] and sys.argv[1] in {verb.__name__ for verb in OWN_SPEC}:
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
