"""Covariates in a spec: columns that encoders and decoders are given, beside the modalities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from annotated_types import Len
from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, Strict, field_validator, model_serializer, model_validator

from nbridge.spec.strict import StrictModel, expected, invalid

CovariateKind = Literal["categorical", "normal"]
_KINDS = ", ".join(get_args(CovariateKind))


class CovariateSpec(StrictModel):
    """A covariate: its kind, and the ordered classes of a categorical one."""

    type: CovariateKind = Field(description="categorical, one-hot for the networks; or normal, a number, standardised.")
    classes: Annotated[tuple[str | int | float, ...], Len(1, 10_000), Strict(False)] | None = Field(
        default=None, description="The ordered classes of a categorical covariate; those of the data by default, stored with the model."
    )

    @field_validator("classes")
    @classmethod
    def _check_distinct(cls, classes: tuple[str | int | float, ...] | None) -> tuple[str | int | float, ...] | None:
        if classes is not None and len({*map(str, classes)}) < len(classes):
            raise invalid("the classes of a covariate must differ")
        return classes

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        if self.classes is not None and self.type != "categorical":
            raise invalid("a covariate of type normal has no classes; remove them, or write categorical")
        return self

    @model_serializer(mode="wrap")
    def _without_none(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if value is not None}


def _spelt_out(value: Any) -> Any:
    if isinstance(value, str):
        return {"type": value}
    if isinstance(value, Mapping | CovariateSpec):
        return value
    raise expected(f"a kind ({_KINDS}) or a mapping of type and classes")


Covariate = Annotated[CovariateSpec, BeforeValidator(_spelt_out, json_schema_input_type=CovariateKind | CovariateSpec)]
"""A covariate by its kind alone, or as a mapping."""
