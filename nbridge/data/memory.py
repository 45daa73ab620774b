"""The data source of specs that name none: rows are passed from Python."""

from __future__ import annotations

from collections.abc import Mapping

from nbridge.data.split import Dataset, Source
from nbridge.errors import DataError


class Memory(Source):
    """The source of a spec that names none: arrays are passed from Python."""

    def __init__(self) -> None: ...

    def load(self, shapes: Mapping[str, tuple[int, ...]]) -> Dataset:
        """Always raises: there is nothing to load.

        Raises:
            DataError: always, with the two ways to provide rows.
        """
        raise DataError(
            "the spec names no data source: pass arrays from Python, nbridge.train(spec, data={...}) with "
            f"{', '.join(shapes)}, or add one to the spec, such as `data: {{source: npz, path: rows.npz}}`"
        )
