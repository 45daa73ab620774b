"""Reads specs from YAML, with all errors and their positions, applies overrides, and writes specs."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML

from nbridge.common.messages import clip, noun
from nbridge.errors import SpecError
from nbridge.spec.overrides import Override, apply
from nbridge.spec.spec import Spec
from nbridge.spec.validation_messages import Problem, problems
from nbridge.spec.yaml_positions import Diagnostic, ParseError, Path, Position, Tree, parse

_EMPTY = "empty spec; at least the key 'modalities' is required"


def read_spec(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Spec:
    """Reads a spec from a file.

    Arguments:
        path: The file.
        overrides: Assignments such as ``training.seed=1``, applied in order before validation; values are YAML.

    Raises:
        SpecError: with one line per error, ``FILE:LINE:COLUMN: path.to.key: message``, in the order of the file.
    """
    name = os.fspath(path)
    return parse_spec(_text(FilePath(name), name), name, overrides)


def parse_spec(text: str, name: str = "<spec>", overrides: Sequence[str] = ()) -> Spec:
    """Reads a spec from a string; see `read_spec`.

    Raises:
        SpecError: with one line per error.
    """
    try:
        tree = parse(text)
    except ParseError as error:
        raise SpecError([_located(name, *error.diagnostic)]) from error
    if not isinstance(tree.value, Mapping):
        text = _EMPTY if tree.value is None else f"a spec must be a mapping, this is {noun(tree.value)}"
        raise SpecError([_located(name, tree.values.get((), (1, 1)), (), text)])
    return _checked(tree, name, overrides)


def spec_from_dict(document: Mapping[str, Any]) -> Spec:
    """Validates a spec given as plain values.

    Raises:
        SpecError: with one line per error, ``path.to.key: message``.
    """
    try:
        return Spec.model_validate(document)
    except ValidationError as error:
        raise SpecError([_line("", problem.path, problem.text) for problem in problems(error, document)]) from error


def write_spec(spec: Spec) -> str:
    """The spec as YAML, with all defaults written out; reading it gives an equal spec."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None  # innermost lists and mappings on one line
    yaml.sort_base_mapping_type_on_output = False  # pyright: ignore[reportAttributeAccessIssue]
    yaml.width = 140
    stream = io.StringIO()
    yaml.dump(spec.as_dict(), stream)
    return stream.getvalue()


def _checked(tree: Tree, name: str, assignments: Sequence[str]) -> Spec:
    changes = [apply(assignment, tree.value) for assignment in assignments]
    in_file = list(tree.diagnostics)
    in_changes = [_line(change.label, found.path, found.text) for change in changes for found in change.diagnostics]
    unread = {found.path for found in chain(tree.diagnostics, *(change.diagnostics for change in changes))}
    spec = None
    try:
        spec = Spec.model_validate(tree.value)
    except ValidationError as error:
        for problem in problems(error, tree.value):
            if problem.path in unread and not problem.of_key:
                continue  # a placeholder for a value that could not be read
            if change := _origin(problem.path, changes):
                in_changes.append(_line(change.label, problem.path, problem.text))
            else:
                in_file.append(Diagnostic(_position(tree, problem), problem.path, problem.text))
    lines = [_located(name, *found) for found in sorted(in_file, key=lambda found: found.position)] + in_changes
    if spec is None or lines:
        raise SpecError(lines)
    return spec


def _origin(path: Path, changes: Sequence[Override]) -> Override | None:
    """The last assignment that set the value at ``path``."""
    return next((change for change in reversed(changes) if change.paths & {path[:length] for length in range(1, len(path) + 1)}), None)


def _position(tree: Tree, problem: Problem) -> Position:
    if problem.of_key and problem.path in tree.keys:
        return tree.keys[problem.path]
    if problem.path in tree.values:
        return tree.values[problem.path]
    lengths = range(len(problem.path), 0, -1)
    return next((tree.keys[problem.path[:length]] for length in lengths if problem.path[:length] in tree.keys), (1, 1))


def _located(name: str, position: Position, path: Path, text: str) -> str:
    return _line(f"{name}:{position[0]}:{position[1]}", path, text)


def _line(label: str, path: Path, text: str) -> str:
    return ": ".join(part for part in (label, ".".join(clip(step) for step in path), text) if part)


def _text(path: FilePath, name: str) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError([f"{name}: not UTF-8 text (byte {error.start + 1} is 0x{error.object[error.start]:02x})"]) from error
    except FileNotFoundError as error:
        raise SpecError([f"{name}: no such file"]) from error
    except IsADirectoryError as error:
        raise SpecError([f"{name}: is a directory, expected a YAML file"]) from error
    except (OSError, ValueError) as error:
        raise SpecError([f"{clip(name)}: cannot be read ({getattr(error, 'strerror', None) or error})"]) from error
