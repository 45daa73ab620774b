"""Seeds that follow from where training stands, so that a training that was cut off goes on with the same noise."""

from __future__ import annotations

import hashlib


def seed_of(seed: int, stage: str, number: int, *part: int) -> int:
    """A seed for a stage and an epoch, a round or whatever else is numbered; different arguments give unrelated seeds.

    Arguments:
        seed: The seed of the training.
        stage: The stage, and what the number counts where it is no epoch.
        number: The number.
        part: A chunk of rows or a process, where each has its own.
    """
    digest = hashlib.sha256("/".join(map(str, (seed, stage, number, *part))).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
