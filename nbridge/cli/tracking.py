"""The ``--log`` option: also writes training metrics for external tools."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

from nbridge.cli.options import split_names
from nbridge.cli.parameters import option
from nbridge.common.messages import clip, did_you_mean, listing
from nbridge.errors import RunError

if TYPE_CHECKING:
    from nbridge.trackers.tracker import Tracker

LOGGERS = ("tensorboard", "mlflow", "wandb")

Log = Annotated[
    list[str] | None,
    # torchrun mistakes --log for an abbreviation of one of its own options; --logger works there.
    option(
        "NAME", "Also write metrics, pictures and the verdict to tensorboard (DIR/tensorboard), mlflow or wandb; several: --log A,B.",
        "--log", "--logger",
    ),
]  # fmt: skip


def check_loggers(asked: Sequence[str] | None) -> tuple[str, ...]:
    """The names of loggers, each of which is installed and can be reached.

    Raises:
        RunError: when one is unknown, not installed, or its server does not answer.
    """
    names = tuple(dict.fromkeys(name for text in asked or () for name in split_names(text)))
    for name in names:
        if name not in LOGGERS:
            raise RunError(f"--log {clip(name)}: unknown logger '{clip(name)}'.{did_you_mean(name, LOGGERS)} Known: {listing(LOGGERS)}")
    if names:
        from nbridge.trackers import TRACKERS

        for name in names:
            TRACKERS[name].check()
    return names


@contextmanager
def tracking(names: Sequence[str], folder: str) -> Iterator[list[Tracker]]:
    """Yields callbacks that write a run's metrics to loggers, and closes them at the end."""
    from nbridge.trackers import TRACKERS

    trackers = [TRACKERS[name](folder) for name in names]
    try:
        yield trackers
    finally:
        for tracker in trackers:
            tracker.close()
