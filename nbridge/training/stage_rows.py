"""The rows that a stage learns from, with their frozen features."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from nbridge.acceleration.features import cache_features
from nbridge.data.batch import Batch
from nbridge.data.rows import Rows
from nbridge.models.base import Features, Stage

CHUNK = 2048
"""Rows per chunk where no gradient is needed."""


@dataclass(frozen=True)
class FeatureBatch:
    """Some rows in memory with their frozen features; empty features are computed on the fly."""

    batch: Batch
    features: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.batch)


@dataclass(frozen=True)
class StageRows:
    """All rows that a stage learns from, with their frozen features; empty features are computed on the fly."""

    stage: Stage
    batch: Rows
    features: dict[str, Tensor]

    @classmethod
    @torch.no_grad()
    def of(cls, stage: Stage, rows: Rows, *, cache: bool) -> Self:
        """Selects the rows that a stage can learn from. If asked, it computes and caches their frozen features."""
        batch = rows.subset(stage.rows(rows.presence()))
        # Evaluated once here; subsets of these rows inherit it.
        _ = batch.whole
        given = cls(stage, batch, {})
        if stage.features is None or not cache or not len(batch):
            return given
        features = cache_features((stage.features(given.chunk(number).batch) for number in range(given.chunks)), len(batch))
        unread = [] if stage.values is None else [name for name in batch.names if name not in stage.values]
        return cls(stage, batch.without_values(*unread), features)

    def __len__(self) -> int:
        return len(self.batch)

    def batches(self, parts: Sequence[Tensor]) -> Iterator[FeatureBatch]:
        """The rows of each tensor of indices, in order."""
        for part, batch in zip(parts, self.batch.batches(parts), strict=True):
            # Features may be cached on another device than the batch.
            features = {name: x.index_select(0, part.to(x.device)).to(batch.device) for name, x in self.features.items()}
            yield FeatureBatch(batch, features)

    @property
    def chunks(self) -> int:
        """The number of chunks."""
        return math.ceil(len(self) / CHUNK)

    def chunk(self, number: int) -> FeatureBatch:
        """A chunk of consecutive rows."""
        start, stop = number * CHUNK, (number + 1) * CHUNK
        batch = self.batch.slice(start, stop)
        return FeatureBatch(batch, {name: x[start:stop].to(batch.device) for name, x in self.features.items()})

    def features_of(self, part: FeatureBatch) -> Features:
        """The features of some rows, cached or computed now."""
        if self.stage.features is None or part.features:
            return part.features
        with torch.no_grad():
            return self.stage.features(part.batch)
