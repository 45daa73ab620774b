"""Components of a spec: a type and its constructor options.

The keyword-only arguments of a constructor are its schema: `Kind` turns them into a strict pydantic model, which validates the spec and
fills in defaults. Built-in classes are not imported for this; classes of other packages are.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from annotated_types import DocInfo
from pydantic import Field, GetCoreSchemaHandler, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticSchemaGenerationError
from pydantic_core import CoreSchema, InitErrorDetails, core_schema, to_jsonable_python

from nbridge.errors import SpecError
from nbridge.spec import registry
from nbridge.spec.signature import REQUIRED, Option, Signature, read_signature
from nbridge.spec.strict import StrictModel, error_at, expected, invalid, validation_error, with_lists


@dataclass(frozen=True)
class Component:
    """A validated component: a short name or ``package.module:Class``, and a value for every keyword-only argument of its constructor."""

    type: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self, tag: str = "type") -> dict[str, Any]:
        """The component in its full spelling, as plain YAML values."""
        return {tag: self.type, **to_jsonable_python(dict(self.kwargs))}


@dataclass(frozen=True)
class Kind:
    """A kind of component and its spelling in a spec; used as metadata in field annotations.

    Arguments:
        name: A kind of `registry.BUILT_IN`.
        tag: The key of the type.
        default: The type if the key is omitted.
        keywords: Types without a class and without options.
        base_model: Keys that nbridge adds to the constructor options of every type.
        build: Called with the component, and the values of the keys of ``base_model`` as keyword arguments.
    """

    name: str
    tag: str = "type"
    default: str | None = None
    excluded: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    base_model: type[StrictModel] = StrictModel
    build: type[Any] = Component

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        dump = core_schema.plain_serializer_function_ser_schema(lambda value: value.as_dict())
        return core_schema.no_info_plain_validator_function(self.parse, serialization=dump)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        return {"$comment": self.name}  # replaced by the definition in `nbridge.spec.json_schema`

    def parse(self, value: Any) -> Any:
        """Validates a component, given as a mapping or by its type alone."""
        if isinstance(value, self.build):
            value = value.as_dict()
        if isinstance(value, str):
            value, where = {self.tag: value}, ()
        elif isinstance(value, Mapping):
            where = (self.tag,)
        else:
            raise expected(f"a type or a mapping with the key '{self.tag}'")
        type_name = value.get(self.tag, self.default)
        if type_name is None and self.tag not in value:
            raise validation_error(InitErrorDetails(type="missing", loc=(self.tag,), input=value))
        if not isinstance(type_name, str):
            raise validation_error(error_at(where, "a type", "expected", type_name))
        try:
            # Not only by way of the model, which is cached: whether a class may be imported depends on the file that is being read.
            self.signature(type_name)
            model = self.model(type_name)
        except SpecError as error:
            raise validation_error(error_at(where, str(error))) from error
        options = model.model_validate({key: option for key, option in value.items() if key != self.tag})
        common = {name: getattr(options, name) for name in self.base_model.model_fields}
        component = Component(type_name, {f.alias: getattr(options, name) for name, f in model.model_fields.items() if f.alias})
        return self.build(component, **common) if self.base_model.model_fields else component

    def signature(self, type_name: str) -> Signature:
        """The constructor signature of a type."""
        if type_name in self.keywords:
            return Signature()
        target = registry.locate(self.name, type_name, self.keywords)
        if not registry.is_built_in(target):
            registry.resolve(self.name, type_name, registry.load(registry.BASES[self.name]))
        return read_signature(target, self.excluded)

    def model(self, type_name: str) -> type[StrictModel]:
        """The options of a type and the keys of ``base_model`` as a pydantic model."""
        return _model(self, type_name)


@functools.cache
def _model(kind: Kind, type_name: str) -> type[StrictModel]:
    signature = kind.signature(type_name)
    fields: dict[str, Any] = {
        f"option_{name}": (with_lists(option.annotation), _field(name, option)) for name, option in signature.options.items()
    }
    try:
        model = create_model(type_name, __base__=kind.base_model, __doc__=signature.summary, **fields)
    except (PydanticSchemaGenerationError, NameError, TypeError) as error:
        text = f"an option of '{type_name}' has a type that YAML cannot express; use the types of nbridge.spec.option_types"
        raise SpecError([text]) from error
    model.other_keys = (kind.tag,)
    return model


def _field(name: str, option: Option) -> Any:
    """A field with an alias, because the name of an option may be a method of pydantic's models."""
    default = ... if option.default is REQUIRED else option.default
    return Field(default=default, alias=name, description=option.description or None)


def check_shape(kind: Kind, type_name: str, shape: tuple[int, ...]) -> None:
    """Raises a validation error if a type does not support a shape, according to the annotation of its argument ``shape``."""
    annotation = kind.signature(type_name).shape
    if annotation is None:
        return
    try:
        TypeAdapter(annotation).validate_python(shape)
    except PydanticSchemaGenerationError:
        return  # an annotation such as torch.Size does not constrain the shape
    except ValidationError:
        described = next((item.documentation for item in getattr(annotation, "__metadata__", ()) if isinstance(item, DocInfo)), None)
        text = f"supports {described}; got {list(shape)}" if described else f"does not support shape {list(shape)}"
        raise invalid(f"{type_name} {text}") from None
