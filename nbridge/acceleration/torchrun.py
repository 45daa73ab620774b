"""Reads the environment variables of torchrun, without importing torch, which `--help` must not do."""

from __future__ import annotations

import os

from nbridge.errors import NBridgeError

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def is_distributed() -> bool:
    """Whether torchrun started this process as one of several."""
    return all(os.environ.get(name) for name in _VARIABLES) and os.environ["WORLD_SIZE"] != "1"


def rank_and_size() -> tuple[int, int, int]:
    """The rank of this process, the number of processes, and its rank on its machine.

    Raises:
        NBridgeError: if a variable is not a number.
    """
    rank, size = _number("RANK"), _number("WORLD_SIZE")
    return rank, size, _number("LOCAL_RANK") if "LOCAL_RANK" in os.environ else rank


def address() -> str:
    """The rendezvous address, ``host:port``."""
    return f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"


def _number(name: str) -> int:
    text = os.environ[name]
    if not text.isdecimal():
        raise NBridgeError(f"environment variable {name} is {text!r}, expected a number; start several processes with torchrun")
    return int(text)
