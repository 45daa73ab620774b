"""Seeds derived from the progress of training, so that resumed training uses the same noise."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, stage: str, number: int, *part: int) -> int:
    """A seed for a stage and an epoch, round or other number; different arguments give unrelated seeds.

    The stage has a suffix if the number does not count epochs; ``part`` is the chunk of rows or the process, if each has its own seed.
    """
    digest = hashlib.sha256("/".join(map(str, (seed, stage, number, *part))).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
