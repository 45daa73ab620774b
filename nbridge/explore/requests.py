"""Request schemas of the API; validation reports the first error in one line."""

from __future__ import annotations

import math
from typing import Annotated, Any, Self, TypeVar

from annotated_types import Ge, Le, Len
from pydantic import FailFast, Field, ValidationError, model_validator

from nbridge.common.json_text import parse_json
from nbridge.common.messages import clip
from nbridge.errors import NBridgeError
from nbridge.models.base import MultimodalVAE
from nbridge.spec.strict import StrictModel, invalid
from nbridge.spec.validation_messages import problems

MAX_SHOWN = 64
"""Maximum number of vector elements per modality."""
KEYS, VALUES = 1000, 10_000
"""Maximum numbers of keys and of values in a request, in addition to those of the model."""

Seed = Annotated[int, Ge(0), Le(2**53)]
Show = dict[str, Annotated[list[Annotated[int, Ge(0)]], Len(0, MAX_SHOWN), FailFast()]]


class UnreadableError(NBridgeError):
    """A request that is not valid JSON."""


class Given(StrictModel):
    """The value of one modality; exactly one field is set."""

    row: Annotated[int, Ge(0)] | None = Field(default=None, description="The number of a row to take the value from.")
    picture: str | None = Field(default=None, description="A PNG image as a data URI.")
    values: Annotated[list[float | None] | None, FailFast()] = Field(
        default=None,
        description="The flattened elements, or a number or the place of a class for each column of a table; null is not observed.",
    )
    label: int | None = Field(default=None, description="A class number.")
    text: str | None = Field(default=None, description="A text.")

    @model_validator(mode="after")
    def _check_one_field(self) -> Self:
        if len(kinds := self.kinds) != 1:
            raise invalid(f"expected exactly one of {', '.join(type(self).model_fields)}, got {len(kinds)}")
        return self

    @property
    def kinds(self) -> tuple[str, ...]:
        """The names of the fields that are set; exactly one after validation."""
        return tuple(name for name in type(self).model_fields if getattr(self, name) is not None)


Levels = dict[str, str | float]


class _ShowRequest(StrictModel):
    show: Show = Field(default={}, description="The vector elements to return, by modality.")
    seed: Seed = Field(default=0, description="Seed of the draws.")
    covariates: Levels = Field(default={}, description="Values of covariates; others are the row's own, or else the usual ones.")
    fixed: Levels = Field(default={}, description="Values of covariates for decoders only, as `nbridge.Model.impute` takes them.")


class Impute(_ShowRequest):
    """Imputes the rest from the given modalities."""

    given: dict[str, Given]


class Prior(_ShowRequest):
    """Draws rows from the prior."""

    prior: str | None = Field(default=None, description="The prior, as for `nbridge.Model.generate`.")


class Script(Impute):
    """Returns the Python code of `Impute`, or of `Prior` when nothing is given."""

    given: dict[str, Given] = Field(default={}, description="The given modalities; draws from the prior if there are none.")
    prior: str | None = Field(default=None, description="The prior, if nothing is given.")


class Decode(_ShowRequest):
    """Decodes a point of the latent map."""

    point: Annotated[list[float], Len(2, 2), FailFast()]


Request = TypeVar("Request", Impute, Prior, Decode, Script)


def read(kind: type[Request], body: bytes, model: MultimodalVAE) -> Request:
    """Parses and validates a request to a model.

    Raises:
        UnreadableError: when it is not valid JSON.
        NBridgeError: when it does not match the schema, naming the first error, or has many more entries than the model has elements.
    """
    # Millions of entries that cannot be part of a valid request would take gigabytes to parse and to validate.
    size = sum(math.prod(likelihood.shape) for likelihood in model.likelihoods.values())
    if body.count(b":") > KEYS + 10 * len(model.names) or body.count(b",") > VALUES + size + MAX_SHOWN * len(model.names):
        raise NBridgeError(f"the request has too many entries for this model of {size:,} elements in {len(model.names)} modalities")
    try:
        document: Any = parse_json(body)
    except ValueError as error:
        raise UnreadableError("the request is not valid JSON") from error
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        first = problems(error, document)[0]
        where = ".".join(clip(step) for step in first.path)
        raise NBridgeError(f"{where}: {first.text}" if where else first.text) from error
