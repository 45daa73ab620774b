"""What the page may ask, checked before any of it reaches the model: the first thing that is wrong is told in one line."""

from __future__ import annotations

import json
from typing import Annotated, Any, Self, TypeVar

from annotated_types import Ge, Le, Len
from pydantic import Field, ValidationError, model_validator

from nbridge.common.messages import clip
from nbridge.errors import NBridgeError
from nbridge.spec import validation_messages as wording
from nbridge.spec.strict import StrictModel, mistake

SHOWN_AT_ONCE = 64
"""Elements of a vector that may be asked for at once."""

Seed = Annotated[int, Ge(0), Le(2**53)]
Show = dict[str, Annotated[list[Annotated[int, Ge(0)]], Len(0, SHOWN_AT_ONCE)]]


class UnreadableError(NBridgeError):
    """A request that is no JSON."""


class Given(StrictModel):
    """A value of one modality; one of these four."""

    row: Annotated[int, Ge(0)] | None = Field(default=None, description="That of a row of the run.")
    picture: str | None = Field(default=None, description="A PNG as an address that holds it.")
    values: list[float | None] | None = Field(default=None, description="The elements one after the other; null is not observed.")
    label: int | None = Field(default=None, description="A class by its number.")

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if len(kinds := self.kinds) != 1:
            raise mistake(f"expected one of {', '.join(type(self).model_fields)}, got {len(kinds)} of them")
        return self

    @property
    def kinds(self) -> tuple[str, ...]:
        """What is there; one thing, once it is checked."""
        return tuple(name for name in type(self).model_fields if getattr(self, name) is not None)


class _Showing(StrictModel):
    show: Show = Field(default={}, description="The elements of vectors that are looked at, by modality.")
    seed: Seed = Field(default=0, description="Seed of the draws.")


class Impute(_Showing):
    """What is given; the rest is imputed."""

    given: dict[str, Given]


class Prior(_Showing):
    """Rows from nothing."""

    prior: str | None = Field(default=None, description="Where they come from, as `nbridge.Model.generate` has it.")


class Decode(_Showing):
    """A point of the map."""

    point: Annotated[list[float], Len(2, 2)]


Request = TypeVar("Request", Impute, Prior, Decode)


def read(kind: type[Request], body: bytes) -> Request:
    """A request.

    Raises:
        UnreadableError: when it is no JSON.
        NBridgeError: when it is not what was expected, naming the first thing that is not.

    Example:
        >>> read(Impute, b'{"given": {"x": {"label": 3}}}').given["x"].label
        3
    """
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UnreadableError("the request is no JSON") from error
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        first = wording.problems(error, document)[0]
        where = ".".join(clip(step) for step in first.path)
        raise NBridgeError(f"{where}: {first.text}" if where else first.text) from error
