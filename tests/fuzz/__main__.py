"""``python -m tests.fuzz``: many cases by hand; exits with 1 if there was a traceback."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from .campaign import KINDS, main


def kinds(text: str) -> list[str]:
    """Kinds from a list with commas."""
    found = text.split(",")
    if unknown := [kind for kind in found if kind not in KINDS]:
        raise argparse.ArgumentTypeError(f"no kind {unknown[0]!r}; kinds: {', '.join(KINDS)}")
    return found


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Damages valid inputs at random and gives them to nbridge.")
    parser.add_argument("--cases", type=int, default=1000, help="number of cases of all kinds")
    parser.add_argument("--kinds", type=kinds, default=list(KINDS), help=f"by default {','.join(KINDS)}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case of each kind")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="time for all cases")
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"), help="folder for work and for the inputs that failed")
    return parser.parse_args()


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main(parse()))
