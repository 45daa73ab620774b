"""Base class of all mappings in a spec: unknown keys are errors, and nothing is converted silently.

Errors are raised as pydantic errors, so that one pass finds all of them, each with its path.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Strict, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError
from pydantic_core.core_schema import ErrorType

from nbridge.common.messages import clip, did_you_mean

ErrorKind = Literal["mistake", "expected", "unknown_key"]
"""The type of an error raised by nbridge: a message, the noun after "expected", or a message about a key."""

_KNOWN = frozenset(typing.get_args(ErrorType))
_CONTAINERS = (tuple, set, frozenset)


class StrictModel(BaseModel):
    """A mapping of a spec."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=True)

    noun: ClassVar[str] = "key"
    """The word for a key in error messages."""
    other_keys: ClassVar[tuple[str, ...]] = ()
    """Keys that are allowed but removed before validation."""

    @model_validator(mode="wrap")
    @classmethod
    def _suggest_keys(cls, value: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            raise ValidationError.from_exception_data(cls.__name__, [cls._line(line) for line in error.errors(include_url=False)]) from None

    @classmethod
    def _line(cls, line: Mapping[str, Any]) -> InitErrorDetails:
        loc, kind, context = line["loc"], line["type"], line.get("ctx", {})
        if kind == "extra_forbidden" and len(loc) == 1:
            names = [*cls.other_keys, *(item.alias or name for name, item in cls.model_fields.items())]
            hint = f"{did_you_mean(loc[0], names)} Known: {', '.join(names) or 'none'}"
            return error_at(loc, f"unknown {cls.noun} '{clip(loc[0])}'.{hint}", "unknown_key")
        if kind in ("mistake", "expected", "unknown_key"):
            return error_at(loc, context["text"], kind, line["input"])
        if kind not in _KNOWN:  # a custom check in the annotation of a plug-in's option
            return error_at(loc, line["msg"], "mistake", line["input"])
        return InitErrorDetails(type=kind, loc=loc, input=line["input"], ctx=dict(context))


def error_at(loc: Iterable[str | int], text: str, kind: ErrorKind = "mistake", value: object = None) -> InitErrorDetails:
    """An error at a path below the value that is being validated. For the kind ``expected``, the text is the noun after "expected"."""
    return InitErrorDetails(type=_error(kind, text), loc=tuple(loc), input=value)


def validation_error(*lines: InitErrorDetails) -> ValidationError:
    """The exception for errors below the value that is being validated."""
    return ValidationError.from_exception_data("spec", list(lines))


def invalid(text: str) -> PydanticCustomError:
    """The exception for an error in the value that is being validated."""
    return _error("mistake", text)


def expected(noun: str) -> PydanticCustomError:
    """The exception for a value of the wrong type or range; the reader adds the value found."""
    return _error("expected", noun)


def _error(kind: ErrorKind, text: str) -> PydanticCustomError:
    return PydanticCustomError(kind, "expected {text}" if kind == "expected" else "{text}", {"text": text})


def with_lists(annotation: Any) -> Any:
    """The annotation with tuples and sets also accepting the lists of YAML, and otherwise as strict as before."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return Annotated[(with_lists(arguments[0]), *arguments[1:])]
    if origin is typing.Literal or not arguments or origin is None:
        return Annotated[annotation, Strict(False)] if annotation in _CONTAINERS else annotation
    inner = tuple(argument if argument is ... or isinstance(argument, list) else with_lists(argument) for argument in arguments)
    rebuilt = typing.Union[inner] if origin in (typing.Union, types.UnionType) else origin[inner]  # noqa: UP007 (built from a tuple)
    return Annotated[rebuilt, Strict(False)] if origin in _CONTAINERS else rebuilt
