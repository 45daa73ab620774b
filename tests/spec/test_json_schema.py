"""The JSON Schema for editors: it is the committed one, it takes what the reader takes, and it marks common mistakes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from drawn_specs import SPECS
from hypothesis import given
from ruamel.yaml import YAML

from nbridge.spec.json_schema import json_schema, schema_text
from nbridge.spec.reader import spec_from_dict

REPOSITORY = Path(__file__).parents[2]
SCHEMA = json_schema()

TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda x: isinstance(x, dict),
    "array": lambda x: isinstance(x, list),
    "string": lambda x: isinstance(x, str),
    "boolean": lambda x: isinstance(x, bool),
    "integer": lambda x: isinstance(x, int) and not isinstance(x, bool),
    "number": lambda x: isinstance(x, int | float) and not isinstance(x, bool),
    "null": lambda x: x is None,
}


def _additional(schema: dict[str, Any], x: Any) -> bool:
    others = [value for key, value in x.items() if key not in schema.get("properties", {})] if isinstance(x, dict) else []
    rule = schema["additionalProperties"]
    return not others if rule is False else rule is True or all(holds(rule, value) for value in others)


KEYWORDS: dict[str, Callable[[dict[str, Any], Any], bool]] = {
    "$ref": lambda s, x: holds(SCHEMA["$defs"][s["$ref"].removeprefix("#/$defs/")], x),
    "type": lambda s, x: TYPES[s["type"]](x),
    "const": lambda s, x: x == s["const"],
    "enum": lambda s, x: x in s["enum"],
    "anyOf": lambda s, x: any(holds(option, x) for option in s["anyOf"]),
    "pattern": lambda s, x: not isinstance(x, str) or re.search(s["pattern"], x) is not None,
    "properties": lambda s, x: not isinstance(x, dict) or all(holds(s["properties"][key], x[key]) for key in x if key in s["properties"]),
    "additionalProperties": _additional,
    "required": lambda s, x: not isinstance(x, dict) or set(s["required"]) <= set(x),
    "minProperties": lambda s, x: not isinstance(x, dict) or len(x) >= s["minProperties"],
    "maxProperties": lambda s, x: not isinstance(x, dict) or len(x) <= s["maxProperties"],
    "items": lambda s, x: not isinstance(x, list) or all(holds(s["items"], item) for item in x),
    "minItems": lambda s, x: not isinstance(x, list) or len(x) >= s["minItems"],
    "maxItems": lambda s, x: not isinstance(x, list) or len(x) <= s["maxItems"],
    "minimum": lambda s, x: not TYPES["number"](x) or x >= s["minimum"],
    "maximum": lambda s, x: not TYPES["number"](x) or x <= s["maximum"],
    "exclusiveMinimum": lambda s, x: not TYPES["number"](x) or x > s["exclusiveMinimum"],
    "exclusiveMaximum": lambda s, x: not TYPES["number"](x) or x < s["exclusiveMaximum"],
}
REMARKS = {"$schema", "$defs", "description", "default", "title"}


def holds(schema: dict[str, Any], x: Any) -> bool:
    """Whether a value meets a schema; a keyword that is not known here is a KeyError, so that none is passed over."""
    return all(KEYWORDS[keyword](schema, x) for keyword in schema if keyword not in REMARKS)


def test_the_committed_schema_is_the_present_one() -> None:
    committed = (REPOSITORY / "nbridge.schema.json").read_text("utf-8")
    assert committed == schema_text(), "nbridge.schema.json has drifted: run `nbridge schema > nbridge.schema.json`"


@pytest.mark.parametrize("path", sorted((REPOSITORY / "modality_specs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_spec_meets_the_schema(path: Path) -> None:
    assert holds(SCHEMA, YAML(typ="safe", pure=True).load(path.read_text("utf-8")))


@given(SPECS)
def test_what_the_reader_takes_and_what_it_writes_meet_the_schema(document: dict[str, Any]) -> None:
    assert holds(SCHEMA, document)
    assert holds(SCHEMA, spec_from_dict(document).as_dict())


LABEL = {"shape": 10, "encoder": "mlp", "likelihood": "categorical"}


@pytest.mark.parametrize(
    "keys",
    [
        {"modle": "bridged"},
        {"modalities": {}},
        {"latent_dim": "16"},
        {"latent_dim": 0},
        {"latent_dim": True},
        {"model": "brigded"},
        {"modalities": {"a": {**LABEL, "shape": 3.7}}},
        {"modalities": {"a": {**LABEL, "shape": []}}},
        {"modalities": {"a": {**LABEL, "encoder": "mpl"}}},
        {"modalities": {"a": {**LABEL, "encoder": {"type": "mpl"}}}},
        {"modalities": {"a": {**LABEL, "encoder": {"type": "mlp", "hiden": [1]}}}},
        {"modalities": {"a": {**LABEL, "encoder": {"hidden": [1]}}}},
        {"modalities": {"a": {**LABEL, "encoder": {"type": "mlp", "batch_norm": 1}}}},
        {"modalities": {"a": {"shape": 3, "encoder": "mlp"}}},
        {"data": {"source": "npz"}},
        {"data": {"validation": 1}},
        {"bridges": {"objective": "papr"}},
        {"bridges": {"objective": {"elbo": -1}}},
        {"training": {"precision": "fp16"}},
        {"training": {"stages": {"joint": {"epochs": 0}}}},
        {"training": {"stages": {"joint": {"epoch": 1}}}},
    ],
)
def test_an_editor_marks_what_the_reader_refuses(keys: dict[str, Any]) -> None:
    assert not holds(SCHEMA, {"modalities": {"a": LABEL}, **keys})


def test_a_class_of_ones_own_meets_the_schema() -> None:
    own = {"type": "my_package.module:Class", "anything": [1]}
    assert holds(
        SCHEMA, {"modalities": {"a": {**LABEL, "encoder": own, "likelihood": "my_package.module:Class"}}, "data": {"source": "m:C", "x": 1}}
    )


def test_every_key_of_a_spec_is_described() -> None:
    parts = [SCHEMA, *(definition for definition in SCHEMA["$defs"].values() if "properties" in definition)]
    options = [option for definition in SCHEMA["$defs"].values() for option in definition.get("anyOf", []) if "properties" in option]
    described = {
        key: "description" in entry or "const" in entry
        for part in parts + options
        for key, entry in part["properties"].items()
        if "$ref" not in entry
    }
    assert [key for key, there in described.items() if not there] == []
