"""Imputation options."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nbridge.errors import DataError, require_positive
from nbridge.inference.intervals import DRAWS, check_levels


@dataclass(frozen=True)
class ImputationOptions:
    """Options of imputation: samples, None for the point estimate, with the spread of the likelihood if there is ``noise``, and a seed.

    Central intervals have these probabilities, and are computed from ``draws`` samples. Decoders are given fixed ``covariates``
    in place of a row's own.
    """

    samples: int | None = None
    noise: bool = True
    seed: int = 0
    intervals: Sequence[float] = ()
    draws: int = DRAWS
    covariates: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Checks that the options are valid and compatible.

        Raises:
            DataError: if a level is invalid or needs more samples, or intervals are combined with samples.
        """
        if self.samples is not None:
            require_positive(samples=self.samples)
        if self.intervals:
            check_levels(self.intervals, self.draws)
            if self.samples is not None:
                raise DataError("intervals and samples cannot be combined; leave out one of them")


@dataclass(frozen=True)
class Shard:
    """A part of all rows.

    Raises:
        DataError: if there is no such shard.
    """

    number: int = 1
    of: int = 1

    def __post_init__(self) -> None:
        if self.of < 1:
            raise DataError(f"shard {self.number}/{self.of}: expected I/N, such as 1/4 for the first of four")
        if not 1 <= self.number <= self.of:
            raise DataError(f"shard {self.number}/{self.of}: expected one from 1/{self.of} to {self.of}/{self.of}")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Parses ``I/N``: the number of a shard, and the number of shards.

        Raises:
            DataError: if there is no such shard.

        Example:
            >>> Shard.parse("2/4")
            Shard(number=2, of=4)
        """
        if not (found := re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)):
            raise DataError(f"shard {text}: expected I/N, such as 1/4 for the first of four")
        return cls(*(int(part) for part in found.groups()))

    def rows(self, total: int, unit: int) -> tuple[int, int]:
        """The first row of the shard and the row after its last. Shards are multiples of ``unit`` rows.

        Example:
            >>> [Shard(i, 3).rows(1000, 300) for i in (1, 2, 3)]
            [(0, 300), (300, 600), (600, 1000)]
        """
        units = -(-total // unit)
        start, stop = (units * part // self.of * unit for part in (self.number - 1, self.number))
        return start, min(total, stop)
