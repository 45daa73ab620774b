"""Turns pydantic's errors into plain English: where, what was expected and what was found.

Pydantic reports an error for each member of a union and adds the member's name to the path. These names are removed, and the errors at one
path are merged into one message.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from nbridge.common.messages import clip, did_you_mean, shown
from nbridge.spec.yaml_positions import Path

_EXPECTED: Mapping[str, str] = {
    **dict.fromkeys(("int_type", "int_from_float"), "an integer"),
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    **dict.fromkeys(("tuple_type", "list_type", "set_type", "frozen_set_type"), "a list"),
    **dict.fromkeys(("dict_type", "mapping_type", "model_type"), "a mapping"),
    "none_required": "null",
    "finite_number": "a finite number",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than": "a number below {lt:g}",
    "less_than_equal": "{le:g} or less",
    "multiple_of": "a multiple of {multiple_of:g}",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "too_short": "{min_length} or more entries",
    "too_long": "{max_length} entries or fewer",
    "string_too_short": "{min_length} or more characters",
    "string_too_long": "{max_length} characters or fewer",
    "expected": "{text}",
}
_LENGTH_ERRORS = frozenset({"too_short", "too_long"})
_TYPE_ERRORS = _LENGTH_ERRORS | {"literal_error", "none_required", *(kind for kind in _EXPECTED if kind.endswith("_type"))}


class Problem(NamedTuple):
    """An error at a path in a document, of the key or of the value; the path of a missing key is that of the mapping that lacks it."""

    path: Path
    text: str
    of_key: bool = False


class _Line(NamedTuple):
    path: Path
    kind: str
    context: Mapping[str, Any]
    message: str
    of_key: bool


def problems(error: ValidationError, document: object) -> list[Problem]:
    """The errors in a document, in pydantic's order."""
    lines = [_line(line, document) for line in error.errors(include_url=False)]
    by_place: dict[tuple[Path, bool], list[_Line]] = {}
    for line in lines:
        if not (line.kind in _TYPE_ERRORS and any(_is_below(other.path, line.path) for other in lines)):
            by_place.setdefault((line.path, line.of_key), []).append(line)
    return [problem for (path, of_key), here in by_place.items() for problem in _merged(path, of_key, here, document)]


def _line(line: Mapping[str, Any], document: object) -> _Line:
    loc, kind, context = line["loc"], line["type"], line.get("ctx", {})
    if kind == "missing":
        return _Line(_existing_path(loc[:-1], document), kind, context, f"missing key '{clip(loc[-1])}'", True)
    of_key = loc[-1:] == ("[key]",) or kind == "unknown_key"
    text = context["text"] if kind in ("mistake", "unknown_key") else line["msg"]
    return _Line(_existing_path(loc, document), kind, context, text, of_key)


def _existing_path(loc: Iterable[str | int], document: Any) -> Path:
    """The part of a path that exists in the document, without the names of union members."""
    path: Path = ()
    for step in loc:
        if _contains(document, step):
            path, document = (*path, step), document[step]
    return path


def _contains(value: object, step: str | int) -> bool:
    if isinstance(value, Mapping):
        return step in value
    return isinstance(value, list | tuple) and isinstance(step, int) and step < len(value)


def _is_below(path: Path, whole: Path) -> bool:
    return len(path) > len(whole) and path[: len(whole)] == whole


def _merged(path: Path, of_key: bool, lines: list[_Line], document: object) -> list[Problem]:
    lines = [line for line in lines if line.kind not in _LENGTH_ERRORS] or lines  # invalid entries must not count as missing
    nouns = list(dict.fromkeys(_EXPECTED[line.kind].format(**line.context) for line in lines if line.kind in _EXPECTED))
    others = dict.fromkeys(_one_line(line.message) for line in lines if line.kind not in _EXPECTED)
    found = [Problem(path, text, of_key) for text in others]
    return [*found, Problem(path, _expected_but_got(nouns, lines, _value(path, document)), of_key)] if nouns else found


def _expected_but_got(nouns: list[str], lines: list[_Line], value: Any) -> str:
    got = str(len(value)) if lines[0].kind in _LENGTH_ERRORS else shown(value)
    words = re.findall(r"'([^']*)'", " ".join(nouns))
    hint = did_you_mean(value, words) if isinstance(value, str) else ""
    return f"expected {_joined(nouns)}, got {got}" + (f".{hint}" if hint else "")


def _joined(nouns: list[str]) -> str:
    *first, last = nouns
    return " or ".join([", ".join(words.replace("' or '", "', '") for words in first), last]) if first else last


def _value(path: Path, document: Any) -> object:
    for step in path:
        document = document[step]
    return document


def _one_line(message: str) -> str:
    return clip(" ".join(message.removeprefix("Value error, ").split()), 500)
