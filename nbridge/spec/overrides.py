"""Spec overrides from the command line: ``--set modalities.image.encoder.hidden=[64]``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nbridge.common.messages import clip, noun
from nbridge.spec.yaml_positions import MAX_DEPTH, Diagnostic, ParseError, Path, parse

_TAGS: Mapping[str, str] = dict.fromkeys(("encoder", "decoder", "likelihood", "model", "fusion", "bridges"), "type") | {"data": "source"}
"""Keys of components that can be given by type alone, and the key of the type in their full spelling."""


@dataclass(frozen=True)
class Override:
    """An applied assignment: the paths of the values that it set in the document, and the errors in the assignment itself."""

    label: str
    paths: frozenset[Path] = frozenset()
    diagnostics: list[Diagnostic] = field(default_factory=list)


def apply(assignment: str, document: dict[str, Any]) -> Override:
    """Applies an assignment ``path.to.key=value`` to a document, in place.

    Missing mappings along the path are created; a component given by its type alone is expanded to a mapping.
    """
    target, equals, text = assignment.partition("=")
    label = f"--set {clip(assignment, 100)}"
    path = tuple(target.strip().split("."))
    if not equals or not all(path):
        return Override(label, diagnostics=[Diagnostic((0, 0), (), "expected path.to.key=value, such as training.seed=1")])
    if len(path) > MAX_DEPTH:
        return Override(label, diagnostics=[Diagnostic((0, 0), (), f"nested more than {MAX_DEPTH} levels deep")])
    try:
        tree = parse(text)
        made = assign(document, path, tree.value)
    except ParseError as error:
        return Override(label, diagnostics=[error.diagnostic._replace(position=(0, 0))])
    return Override(label, frozenset(made), [Diagnostic((0, 0), (*path, *found.path), found.text) for found in tree.diagnostics])


def assign(document: dict[str, Any], path: tuple[str, ...], value: Any) -> list[Path]:
    """Sets the value at a path and returns the paths of all values that are new.

    Raises:
        ParseError: if something on the path is neither a mapping nor a list.
    """
    here: Any = document
    done: Path = ()
    made: list[Path] = []
    for key, following in zip(path, (*path[1:], None), strict=True):
        step = _step(here, key, done)
        done = (*done, step)
        if following is None:
            here[step] = value
            return [*made, done]
        if isinstance(here, dict) and step not in here:
            here[step] = {}
            made.append(done)
        elif isinstance(here[step], str) and step in _TAGS:
            here[step] = {_TAGS[str(step)]: here[step]}
        here = here[step]
    return made


def _step(here: Any, key: str, done: Path) -> str | int:
    if isinstance(here, dict):
        return key
    if not isinstance(here, list):
        raise ParseError((0, 0), f"this is {noun(here)}; it has no key '{clip(key)}'", done)
    if key.isdecimal() and int(key) < len(here):
        return int(key)
    raise ParseError((0, 0), f"'{clip(key)}' is not an index of this list of {len(here)} entries (the first is 0)", done)
