"""``nbridge tune``."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nbridge.cli.options import AsJson, Device, Overrides, SpecPath, console_of, default_folder
from nbridge.cli.parameters import option
from nbridge.errors import RunError, StoppedError

if TYPE_CHECKING:
    from rich.console import Console

    from nbridge.tuning.outcome import Outcome
    from nbridge.tuning.study import Attempt

PRUNERS = ("median", "hyperband", "none")


def tune(
    spec: SpecPath,
    out: Annotated[str | None, option("DIR", "The folder of the study.", shown="runs/tune-NAME-OF-THE-SPEC")] = None,
    trials: Annotated[int | None, typer.Option(metavar="N", min=1, help="Trials in all, over all processes.", show_default="20")] = None,
    minutes: Annotated[float | None, option("M", "Begin no trial after this time.")] = None,
    pruner: Annotated[str, typer.Option(metavar="NAME", help="Stop poor trials early: median, hyperband or none.")] = "median",
    seed: Annotated[int, typer.Option(metavar="N", min=0, max=2**31 - 1, help="Seed of the search.")] = 0,
    set_: Overrides = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Search for better options of a spec. Writes best.yaml; run the same command again, or on other machines, to add trials.

    The section `tune` of the spec says what is searched.
    """
    if pruner not in PRUNERS:
        raise RunError(f"--pruner {pruner}: expected {', '.join(PRUNERS)}")
    if minutes is not None and not minutes > 0:
        raise RunError(f"--minutes {minutes:g}: expected a number above 0")
    from nbridge.spec.reader import read_spec

    name = read_spec(spec, set_ or ()).name
    folder = out or default_folder(spec, name, "tune-")
    from nbridge.tuning import search

    console = console_of(stderr=as_json)
    outcome = search.tune(
        spec, out=folder, trials=trials, minutes=minutes, pruner=pruner, seed=seed, overrides=set_ or (), device=device,
        after_trial=_Lines(console),
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps({"folder": folder, **outcome.as_dict()}, indent=2))
    else:
        _print(outcome, Path(folder), console)
    if outcome.stopped is not None:
        raise StoppedError("interrupted; run the same command to continue", outcome.stopped)


class _Lines:
    """Prints a line after each trial of this process."""

    def __init__(self, console: Console) -> None:
        self.console, self.begun = console, time.monotonic()

    def __call__(self, trial: Attempt, outcome: Outcome) -> None:
        from nbridge.tuning.outcome import changed, shown_changes

        value = f"{trial.value:+.3f} nats" if trial.value is not None else f"{trial.state}{': ' if trial.reason else ''}{trial.reason}"
        what = "the spec as it stands" if trial.is_default else shown_changes(changed(trial, outcome.space)) or "no change"
        self.console.print(f"trial {trial.number}: {value}, {trial.seconds or 0:.0f} s, {what}", soft_wrap=True)


def _print(outcome: Outcome, folder: Path, console: Console) -> None:
    from rich.table import Table

    from nbridge.tuning.outcome import FIGURE, table
    from nbridge.tuning.search import BEST, PLOT

    shown = Table()
    for heading in ("trial", "nats", "changes", "seconds", "state"):
        shown.add_column(heading, justify="left" if heading in ("changes", "state") else "right")
    for row in table(outcome):
        shown.add_row(*row)
    console.print()
    console.print(shown)
    console.print(f"nats: {FIGURE}", soft_wrap=True)
    console.print(outcome.text(), soft_wrap=True)
    if outcome.best is None:
        return
    console.print(f"\nbest spec: {folder / BEST}\nplot: {folder / PLOT}", soft_wrap=True)
    console.print(f"next:  nbridge train {shlex.quote(str(folder / BEST))}", soft_wrap=True)
