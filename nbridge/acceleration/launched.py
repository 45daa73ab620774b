"""What the environment says of the processes that train together; read without torch, which `--help` must not import."""

from __future__ import annotations

import os

from nbridge.errors import NBridgeError

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def several_processes() -> bool:
    """Whether this process is one of several, as torchrun says it."""
    return all(os.environ.get(name) for name in _VARIABLES) and os.environ["WORLD_SIZE"] != "1"


def place() -> tuple[int, int, int]:
    """Rank of this process, number of processes, and its rank in its machine.

    Raises:
        NBridgeError: when a variable holds no number.
    """
    rank, size = _number("RANK"), _number("WORLD_SIZE")
    return rank, size, _number("LOCAL_RANK") if "LOCAL_RANK" in os.environ else rank


def address() -> str:
    """Where the processes meet."""
    return f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"


def _number(name: str) -> int:
    text = os.environ[name]
    if not text.isdecimal():
        raise NBridgeError(f"environment variable {name} is {text!r}, expected a number; start several processes with torchrun")
    return int(text)
