"""``python -m nbridge``, and the command ``nbridge``."""

from __future__ import annotations

import signal
import sys
from types import FrameType

from nbridge.errors import StoppedError, exit_code


def main() -> None:
    """Runs a command; Ctrl-C, SIGTERM and SIGHUP end it in one line from its first moment on."""
    try:
        for name in ("SIGTERM", "SIGHUP"):
            # Windows has no SIGHUP; who ignores a signal (nohup) wants it ignored.
            if (number := getattr(signal, name, None)) is not None and signal.getsignal(number) == signal.SIG_DFL:
                signal.signal(number, _stop)
        from nbridge.cli.main import main as run

        run()
    except KeyboardInterrupt as stop:
        sys.stderr.write((str(stop) or "interrupted") + "\n")
        sys.exit(exit_code(stop))


def _stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (the interface of handlers)
    raise StoppedError("", 128 + number)


if __name__ == "__main__":
    main()
