"""The JSON Schema of a spec, for completion, hints and validation in editors.

Editors with the YAML language server find it by a comment in the first line of a spec::

    # yaml-language-server: $schema=../nbridge.schema.json
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from nbridge.spec import registry, spec
from nbridge.spec.components import Kind

_KINDS: Mapping[str, Kind] = {
    kind.name: kind for kind in (spec.MODEL, spec.DATA, spec.ENCODER, spec.DECODER, spec.LIKELIHOOD, spec.FUSION, spec.BRIDGES, spec.PRIOR)
}
_OWN_CLASS = {"type": "string", "pattern": r"^[^\W\d][\w.]*:[^\W\d][\w.]*$", "description": "Your own class, as package.module:Class."}


class _WithoutTitles(GenerateJsonSchema):
    """Omits titles, which would only repeat the keys."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a spec, with the options of every built-in component."""
    schema = spec.Spec.model_json_schema(schema_generator=_WithoutTitles)
    definitions: dict[str, Any] = schema["$defs"]
    stages = sorted({stage for names in registry.STAGES.values() for stage in names})
    definitions["TrainingSpec"]["properties"]["stages"]["properties"] = {name: {"$ref": "#/$defs/StageOptions"} for name in stages}
    definitions["TrainingSpec"]["properties"]["stages"]["additionalProperties"] = {"$ref": "#/$defs/StageOptions"}
    definitions["StageOptions"] = _optional(definitions.pop("StageSpec"))
    for kind in _KINDS.values():
        definitions[kind.name] = _component(kind, definitions)
    return _resolved({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "nbridge spec"})


def schema_text() -> str:
    """The contents of ``nbridge.schema.json``."""
    return json.dumps(json_schema(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _component(kind: Kind, definitions: dict[str, Any]) -> dict[str, Any]:
    """The spellings of a component: a name or a custom class, alone or with options."""
    names = sorted({*registry.BUILT_IN[kind.name], *kind.keywords})
    full = [_full_spelling(kind, name, definitions) for name in names]
    own = {
        "type": "object",
        "properties": {**_properties(kind.base_model, definitions), kind.tag: _OWN_CLASS},
        "required": [kind.tag],
        "description": "Your own class; its keyword-only arguments are the options.",
    }
    return {"anyOf": [{"type": "string", "enum": names}, _OWN_CLASS, *full, own]}


def _full_spelling(kind: Kind, name: str, definitions: dict[str, Any]) -> dict[str, Any]:
    model = kind.model(name)
    required = [field.alias for field in model.model_fields.values() if field.alias and field.is_required()]
    return {
        "type": "object",
        "description": kind.signature(name).summary or f"The {registry.NOUNS[kind.name]} {name}.",
        "properties": {kind.tag: {"const": name}, **_properties(model, definitions)},
        "required": required if name == kind.default else [kind.tag, *required],
        "additionalProperties": False,
    }


def _properties(model: type[Any], definitions: dict[str, Any]) -> dict[str, Any]:
    schema = model.model_json_schema(schema_generator=_WithoutTitles)
    definitions.update(schema.get("$defs", {}))
    return schema.get("properties", {})


def _optional(schema: dict[str, Any]) -> dict[str, Any]:
    """Makes settings optional and drops their defaults: an omitted setting of a stage is taken from those for all stages."""
    properties = {name: {key: value for key, value in entry.items() if key != "default"} for name, entry in schema["properties"].items()}
    return {key: value for key, value in {**schema, "properties": properties}.items() if key != "required"}


def _resolved(schema: Any) -> Any:
    """Replaces the names that `Kind` left by references to the definitions of components."""
    if isinstance(schema, list):
        return [_resolved(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kind = schema.get("$comment")
    linked = {key: _resolved(value) for key, value in schema.items() if key not in ("$comment", "title") or not isinstance(value, str)}
    return {"$ref": f"#/$defs/{kind}", **linked} if kind in _KINDS else linked
