"""The ``--log`` option: also writes training metrics for an external tool."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

from nbridge.cli.parameters import option
from nbridge.common.messages import clip, did_you_mean, listing
from nbridge.errors import RunError

if TYPE_CHECKING:
    from nbridge.training.progress import Reporter

LOGGERS = ("tensorboard",)

Log = Annotated[
    str | None,
    # torchrun mistakes --log for an abbreviation of one of its own options; --logger works there.
    option("NAME", "Also write metrics to DIR/tensorboard: tensorboard.", "--log", "--logger"),
]


def check_logger(name: str | None) -> None:
    """Checks that a logger exists and is installed.

    Raises:
        RunError: when it is unknown or not installed.
    """
    if name is None:
        return
    if name not in LOGGERS:
        raise RunError(f"--log {clip(name)}: unknown logger '{clip(name)}'.{did_you_mean(name, LOGGERS)} Known: {listing(LOGGERS)}")
    if find_spec("tensorboard") is None:
        raise RunError('--log tensorboard needs tensorboard, which is not installed: pip install "nbridge[tracking]"')


@contextmanager
def tracking(name: str | None, folder: str) -> Iterator[Reporter]:
    """Yields a reporter that writes a run's metrics to a logger; one that does nothing if ``name`` is None."""
    from nbridge.runs.tracking import TensorBoard
    from nbridge.training.progress import Reporter

    reporter = Reporter() if name is None else TensorBoard(folder)
    try:
        yield reporter
    finally:
        reporter.close()
