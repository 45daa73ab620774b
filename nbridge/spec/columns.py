"""The columns of a mixed modality: the kind of each, as in ``columns: {age: normal, stage: {type: categorical, classes: 4}}``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Le, Len
from pydantic import BeforeValidator, Field, model_serializer, model_validator

from nbridge.spec.strict import StrictModel, expected, invalid

ColumnType = Literal["normal", "lognormal", "bernoulli", "categorical", "ordinal", "poisson", "negative_binomial"]
REAL, CLASSES, COUNTS = ("normal", "lognormal"), ("categorical", "ordinal"), ("poisson", "negative_binomial")
"""Types of real columns, of columns with several classes, and of counts."""
MOST_CLASSES = 1000
"""Maximum number of classes in a column."""


class ColumnKind(StrictModel):
    """The likelihood of one column of a mixed modality."""

    type: ColumnType = Field(description="The distribution of the column.")
    classes: Annotated[int, Ge(2), Le(MOST_CLASSES)] | None = Field(
        default=None, description="Number of classes of a categorical or ordinal column; by default those that data.classes lists."
    )
    whole: bool = Field(default=False, description="Whether imputed values of a real column are whole numbers.")
    low: float | None = Field(default=None, description="Lower bound of a real column's imputed values.")
    high: float | None = Field(default=None, description="Upper bound of a real column's imputed values.")
    zero_inflated: bool = Field(default=False, description="Whether a count has an additional probability of 0.")

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        for option, types in (("classes", CLASSES), ("whole", REAL), ("low", REAL), ("high", REAL), ("zero_inflated", COUNTS)):
            if getattr(self, option) is not None and getattr(self, option) is not False and self.type not in types:
                raise invalid(f"'{option}' does not apply to a column of type {self.type}, only to {' and '.join(types)}")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise invalid(f"low ({self.low:g}) must be below high ({self.high:g})")
        return self

    @model_serializer
    def _shortest(self) -> str | dict[str, Any]:
        options = {key: value for key in type(self).model_fields if (value := getattr(self, key)) is not None and value is not False}
        return self.type if len(options) == 1 else options

    @property
    def width(self) -> int:
        """The number of elements of the column: one for each class if there are more than two, else 1."""
        return self.classes if self.classes is not None and self.classes > 2 else 1

    @property
    def binary(self) -> bool:
        """Whether the column has two classes, as 0 and 1."""
        return self.type == "bernoulli" or self.classes == 2


def _as_mapping(value: Any) -> Any:
    if isinstance(value, str):
        return {"type": value}
    if isinstance(value, Mapping | ColumnKind):
        return value
    raise expected("a type or a mapping with the key 'type'")


Column = Annotated[ColumnKind, BeforeValidator(_as_mapping, json_schema_input_type=ColumnType | ColumnKind)]
Columns = Annotated[dict[str, Column], Len(1)]
"""The kind of each column, by name, in order."""


def width_of(columns: Mapping[str, ColumnKind]) -> int:
    """The number of elements of all columns."""
    return sum(column.width for column in columns.values())
