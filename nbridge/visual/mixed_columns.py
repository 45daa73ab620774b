"""The columns of a mixed modality as users know them: by name and kind, with the classes of questions by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nbridge.common.messages import clip
from nbridge.nn.mixed import Mixed
from nbridge.spec.columns import COUNTS, ColumnKind
from nbridge.spec.spec import Spec

NAME = 60
"""Maximum number of characters of a column's name."""
CLASS_NAME = 24
"""Maximum number of characters of a class's name."""


@dataclass(frozen=True)
class ColumnView:
    """A column of a mixed modality.

    Arguments:
        name: Its name.
        kind: Its kind.
        start: Its first element.
        stop: The element after its last.
        classes: The names of its classes, in order; empty for numbers.
    """

    name: str
    kind: ColumnKind
    start: int
    stop: int
    classes: tuple[str, ...] = ()

    @property
    def count(self) -> bool:
        """Whether the column has counts."""
        return self.kind.type in COUNTS

    @property
    def whole(self) -> bool:
        """Whether the column has whole numbers only."""
        return self.count or self.kind.whole

    @property
    def described(self) -> str:
        """The kind in words.

        Example:
            >>> ColumnView("stage", ColumnKind(type="ordinal", classes=3), 0, 3, ("I", "II", "III")).described
            'ordinal, 3 classes'
        """
        if self.kind.classes is not None:
            return f"{self.kind.type}, {self.kind.classes} classes"
        inflated = ", zero-inflated" if self.kind.zero_inflated else ""
        return self.kind.type.replace("_", " ") + inflated + (", whole" if self.kind.whole else "")


def column_views(spec: Spec, name: str, likelihood: Mixed) -> tuple[ColumnView, ...]:
    """The columns of a mixed modality, with the names of classes that the data list, or else their numbers.

    Arguments:
        spec: The spec.
        name: The modality.
        likelihood: Its likelihood.
    """
    listed = spec.data.source.kwargs.get("classes")
    known = listed if isinstance(listed, dict) else {}
    columns = zip(likelihood.kinds.items(), likelihood.spans, strict=True)
    return tuple(
        ColumnView(clip(column, NAME), kind, start, stop, _classes(kind, known.get(column, known.get(name, ()))))
        for (column, kind), (start, stop) in columns
    )


def _classes(kind: ColumnKind, texts: Sequence[object]) -> tuple[str, ...]:
    number = 2 if kind.binary else kind.classes or 0
    return tuple(clip(str(text), CLASS_NAME) for text in texts) if len(texts) == number else tuple(map(str, range(number)))
