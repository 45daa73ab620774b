"""Pages of the site that are written from the package: every key of a spec, and every command.

`mkdocs build` calls this through ``docs/hooks.py``; it needs nothing but nbridge.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import typer.main

from nbridge.cli.main import app
from nbridge.spec.json_schema import json_schema

Schema = Mapping[str, Any]

COMPONENTS = {
    "datasets": ("data", "Where the rows come from. The kind of source is named by `source`; the other keys depend on it."),
    "models": ("model", "The model. `model: jmvae` is short for `model: {type: jmvae}`."),
    "encoders": ("encoder", "The network that turns the values of a modality into features."),
    "decoders": ("decoder", "The network that turns z into the parameters of the likelihood. By default, it mirrors the encoder."),
    "likelihoods": ("likelihood", "The distribution of the values of a modality, given z."),
    "fusions": ("fusion", "The network that turns the features of all modalities into q(z)."),
    "bridges": ("bridges", "The networks that replace the features of missing modalities. Only `model: bridged` has them."),
    "priors": ("prior", "The distribution that new rows are drawn from."),
}
"""The parts of a spec that have kinds, in the order of the page: their key, and what they are."""
OBJECTS = {
    "ModalitySpec": ("A modality", "The keys of each entry of `modalities`."),
    "ColumnKind": (
        "A column of a mixed modality",
        "The keys of each entry of `columns`. `age: normal` is short for `age: {type: normal}`.",
    ),
    "CovariateSpec": (
        "A covariate",
        "The keys of each entry of `covariates`. `batch: categorical` is short for `batch: {type: categorical}`.",
    ),
    "Objective": ("The objective of bridges", "The keys of `bridges.objective`, if it is not `paper`."),
    "TrainingSpec": ("Training", "The keys of `training`. They are for all stages."),
    "StageOptions": ("A stage", "The keys of each entry of `training.stages`. They replace those of `training` for one stage."),
}
"""The other parts: their title, and what they are."""
LARGE = 2**53
"""A bound from here on is one of numbers in a computer, and is not shown."""


def spec_page() -> str:
    """The reference of a spec, in Markdown."""
    schema = json_schema()
    definitions = schema["$defs"]
    parts = [
        "# Every key of a spec",
        "This page is generated from the JSON Schema of a spec (`nbridge schema`). An unknown key is an error, and the message names the "
        "closest known one. [Your own data](../howto/data.md) shows whole specs.",
        "## Top level",
        _table(schema),
    ]
    for name, (title, text) in OBJECTS.items():
        parts += [f"## {title} {{#{name}}}", text, _table(definitions[name])]
        if name == "ModalitySpec":
            parts += [part for kind in COMPONENTS for part in _component(kind, definitions[kind])]
    return "\n\n".join(parts) + "\n"


def commands_page() -> str:
    """The reference of the command line, in Markdown."""
    parts = [
        "# Every command",
        "This page is generated from the commands themselves; `nbridge COMMAND --help` prints the same. A command ends with 0 if it has "
        "succeeded, 2 if there is a mistake in what you gave it, 1 if nbridge itself fails, and 128 plus the number of the signal that "
        "stopped it. Errors are one line on standard error.",
    ]
    for name, command in commands().items():
        context = command.make_context(f"nbridge {name}", [], resilient_parsing=True)
        usage = " ".join(command.get_usage(context).removeprefix("Usage: ").split())
        parts += [f"## nbridge {name} {{#{name}}}", _paragraphs(command.help or ""), f"```text\n{usage}\n```"]
        rows = [(_names(parameter, context), _meaning(parameter, context)) for parameter in command.params]
        parts += [_rows(("argument or option", "meaning"), rows)]
        if command.epilog:
            parts += [f"Example: `{command.epilog.removeprefix('Example:').strip()}`"]
    return "\n\n".join(parts) + "\n"


def commands() -> dict[str, Any]:
    """The commands by name, in the order of `nbridge --help`; their class is click's, or typer's own copy of it."""
    group: Any = typer.main.get_command(app)
    return dict(group.commands)


def without_description() -> list[str]:
    """The keys of a spec, the commands and their options that have no description."""
    missing = [f"{place}.{key}" for place, key, entry in _keys(json_schema()) if not _described(entry)]
    for name, command in commands().items():
        missing += [] if command.help else [name]
        missing += [f"{name} {parameter.name}" for parameter in command.params if not getattr(parameter, "help", None)]
    return missing


def _keys(schema: Schema) -> Iterator[tuple[str, str, Schema]]:
    """All keys of a spec: where they are, their names, and what they take."""
    yield from (("spec", key, entry) for key, entry in schema["properties"].items())
    for name, definition in schema["$defs"].items():
        for kind in definition.get("anyOf", [definition]) if name in COMPONENTS else [definition]:
            own = {key: entry for key, entry in kind.get("properties", {}).items() if "const" not in entry}
            yield from ((f"{name} {_kind(kind)}", key, entry) for key, entry in own.items())


def _described(entry: Schema) -> bool:
    return bool(entry.get("description")) or "pattern" in entry


def _component(name: str, definition: Schema) -> Iterator[str]:
    key, text = COMPONENTS[name]
    yield f"## `{key}` {{#{name}}}"
    yield text
    for kind in definition["anyOf"]:
        title = _kind(kind)
        if kind.get("type") == "object" and title:
            yield f"### `{key}: {title}` {{#{name}-{title}}}"
            yield _paragraphs(kind.get("description", ""))
            yield _table(kind)
    yield "A class of your own is named `package.module:Class`; see [Extend](../howto/extend.md). Its keyword-only arguments are keys here."


def _kind(kind: Schema) -> str:
    """The name of a kind of component, which is the constant among its keys."""
    return next((entry["const"] for entry in kind.get("properties", {}).values() if "const" in entry), "")


def _table(schema: Schema) -> str:
    required = {*schema.get("required", ())}
    rows = []
    for key, entry in schema.get("properties", {}).items():
        if "const" not in entry:
            default = "required" if key in required else (f"`{_json(entry['default'])}`" if "default" in entry else "")
            rows.append((f"`{key}`", _values(entry), default, _inline(entry.get("description", ""))))
    return _rows(("key", "value", "default", "meaning"), rows) if rows else "It has no options."


def _values(entry: Schema) -> str:
    """What a key takes, in words."""
    if "$ref" in entry:
        name = entry["$ref"].rsplit("/", 1)[1]
        title = f"`{COMPONENTS[name][0]}`" if name in COMPONENTS else OBJECTS[name][0].lower()
        return f"[{title}](#{name})"
    for several in ("anyOf", "oneOf"):
        if several in entry:
            return ", or ".join(dict.fromkeys(_values(one) for one in entry[several]))
    if "const" in entry:
        return f"`{_json(entry['const'])}`"
    if "enum" in entry:
        return ", ".join(f"`{_json(one)}`" for one in entry["enum"])
    return _plain(entry)


def _plain(entry: Schema) -> str:
    kind = entry.get("type", "any value")
    if kind == "array":
        inner = _values(entry["items"]) if entry.get("items") else "values"
        return f"list of {inner}"
    if kind == "object":
        inner = entry.get("additionalProperties")
        return f"names, each with {_values(inner)}" if isinstance(inner, Mapping) and inner else "keys"
    words = {"boolean": "`true` or `false`", "string": "text", "integer": "whole number", "null": "`null`"}
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = " and ".join(f"{sign} {entry[bound]:g}" for bound, sign in bounds.items() if abs(entry.get(bound, LARGE)) < LARGE)
    return f"{words.get(kind, kind)} {limits}".strip()


def _names(parameter: Any, context: Any) -> str:
    """The names of an argument or an option, with what it takes."""
    record = parameter.get_help_record(context)
    text = record[0] if record else parameter.name
    words = [f"`{word}`" for word in re.split(r",? +", text.replace(" / ", " ")) if not word.startswith("<")]
    return " ".join(words)


def _meaning(parameter: Any, context: Any) -> str:
    text = _inline(getattr(parameter, "help", None) or "")
    record = parameter.get_help_record(context)
    shown = re.search(r"default: ([^;\]]+)", record[1]) if record else None
    return f"{text} Default: `{shown[1].strip('()')}`." if shown and parameter.param_type_name == "option" else text


def _rows(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)])


def _json(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _inline(text: str) -> str:
    """A docstring's sentence as one line of Markdown."""
    return _paragraphs(text).replace("\n", " ")


def _paragraphs(text: str) -> str:
    """A docstring as Markdown: its formulas, and one line for each paragraph."""
    text = re.sub(r":math:`([^`]+)`", r"$\1$", text.replace("\f", "").replace("\b", ""))
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    return "\n\n".join(part.replace("<", "&lt;") if "`" not in part else part for part in paragraphs)
