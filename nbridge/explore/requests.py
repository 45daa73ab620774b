"""Request schemas of the API; validation reports the first error in one line."""

from __future__ import annotations

import json
from typing import Annotated, Any, Self, TypeVar

from annotated_types import Ge, Le, Len
from pydantic import Field, ValidationError, model_validator

from nbridge.common.messages import clip
from nbridge.errors import NBridgeError
from nbridge.spec.strict import StrictModel, invalid
from nbridge.spec.validation_messages import problems

MAX_SHOWN = 64
"""Maximum number of vector elements per request."""

Seed = Annotated[int, Ge(0), Le(2**53)]
Show = dict[str, Annotated[list[Annotated[int, Ge(0)]], Len(0, MAX_SHOWN)]]


class UnreadableError(NBridgeError):
    """A request that is not valid JSON."""


class Given(StrictModel):
    """The value of one modality; exactly one field is set."""

    row: Annotated[int, Ge(0)] | None = Field(default=None, description="The number of a row to take the value from.")
    picture: str | None = Field(default=None, description="A PNG image as a data URI.")
    values: list[float | None] | None = Field(default=None, description="The flattened elements; null is not observed.")
    label: int | None = Field(default=None, description="A class number.")

    @model_validator(mode="after")
    def _check_one_field(self) -> Self:
        if len(kinds := self.kinds) != 1:
            raise invalid(f"expected exactly one of {', '.join(type(self).model_fields)}, got {len(kinds)}")
        return self

    @property
    def kinds(self) -> tuple[str, ...]:
        """The names of the fields that are set; exactly one after validation."""
        return tuple(name for name in type(self).model_fields if getattr(self, name) is not None)


class _ShowRequest(StrictModel):
    show: Show = Field(default={}, description="The vector elements to return, by modality.")
    seed: Seed = Field(default=0, description="Seed of the draws.")


class Impute(_ShowRequest):
    """Imputes the rest from the given modalities."""

    given: dict[str, Given]


class Prior(_ShowRequest):
    """Draws rows from the prior."""

    prior: str | None = Field(default=None, description="The prior, as for `nbridge.Model.generate`.")


class Decode(_ShowRequest):
    """Decodes a point of the latent map."""

    point: Annotated[list[float], Len(2, 2)]


Request = TypeVar("Request", Impute, Prior, Decode)


def read(kind: type[Request], body: bytes) -> Request:
    """Parses and validates a request.

    Raises:
        UnreadableError: when it is not valid JSON.
        NBridgeError: when it does not match the schema, naming the first error.

    Example:
        >>> read(Impute, b'{"given": {"x": {"label": 3}}}').given["x"].label
        3
    """
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UnreadableError("the request is not valid JSON") from error
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        first = problems(error, document)[0]
        where = ".".join(clip(step) for step in first.path)
        raise NBridgeError(f"{where}: {first.text}" if where else first.text) from error
