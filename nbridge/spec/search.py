"""The section ``tune`` of a spec: the options that `nbridge tune` searches, and the values that each of them may take.

A key is the path of an option, as in ``--set``; ``*`` in place of a modality is every modality that has the option. Two numbers are the
ends of a range, and any other list is a choice. A range whose upper end is at least `LOG_FROM` times its lower end is searched on a
logarithmic scale.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import InitErrorDetails

from nbridge.common.messages import clip, did_you_mean
from nbridge.spec.overrides import assign
from nbridge.spec.strict import error_at, validation_error
from nbridge.spec.validation_messages import Problem, problems
from nbridge.spec.yaml_positions import ParseError

LOG_FROM = 4
"""The ratio of the ends of a range from which its scale is logarithmic."""
_FIXED = re.compile(
    r"(spec_version|name|data|covariates|tune|modalities|training)|(data|covariates|tune)\..*|modalities\.[^.]+"
    r"|modalities\.[^.]+\.(shape|columns|likelihood)|modalities\.[^.]+\.likelihood\.(?!scale$).*"
    r"|training\.(seed|conformal|calibrate|precision|compile|cache_features|checkpoint_seconds|stages)"
)
"""Keys that cannot be searched: with other rows or likelihoods log-likelihoods cannot be compared, and the rest has no effect on them."""
Validate = Callable[[Mapping[str, Any]], Any]


@dataclass(frozen=True)
class Range:
    """An interval of numbers.

    Arguments:
        key: The key in the section ``tune``.
        paths: The options that it sets, more than one if the key has ``*``.
        low: Lower end.
        high: Upper end.
        whole: Whether the option takes integers only.
    """

    key: str
    paths: tuple[str, ...]
    low: float
    high: float
    whole: bool

    @property
    def log(self) -> bool:
        """Whether the scale is logarithmic."""
        return self.low > 0 and self.high >= LOG_FROM * self.low

    def holds(self, value: object) -> bool:
        """Whether a value is in the range."""
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high

    def as_dict(self) -> dict[str, Any]:
        """The range as JSON values."""
        return {"key": self.key, "range": [self.low, self.high], "whole": self.whole, "log": self.log}


@dataclass(frozen=True)
class Choice:
    """A list of values.

    Arguments:
        key: The key in the section ``tune``.
        paths: The options that it sets, more than one if the key has ``*``.
        values: The values, in YAML's types.
    """

    key: str
    paths: tuple[str, ...]
    values: tuple[Any, ...]

    def holds(self, value: object) -> bool:
        """Whether a value is one of them."""
        return json.dumps(value) in [json.dumps(one) for one in self.values]

    def as_dict(self) -> dict[str, Any]:
        """The choice as JSON values."""
        return {"key": self.key, "choice": list(self.values)}


SearchOption = Range | Choice


def read_options(tune: Mapping[str, Sequence[Any]], document: Mapping[str, Any], validate: Validate) -> tuple[SearchOption, ...]:
    """The options of a section ``tune``; every value is checked in the spec that it belongs to.

    Arguments:
        tune: The section.
        document: The spec, as plain values.
        validate: Validates a spec given as plain values, and gives it.

    Raises:
        ValidationError: with an error for each key that is unknown or cannot be searched, and each value that the option does not take.
    """
    reader = _Reader(document, validate)
    found = [reader.read(key, values) for key, values in tune.items()]
    options = [one for one in found if not isinstance(one, list)]
    errors = [error for one in found if isinstance(one, list) for error in one]
    errors += _set_twice(options)
    if errors:
        raise validation_error(*errors)
    return tuple(options)


class _Reader:
    """Reads one key of the section ``tune``: its option, or the errors in it."""

    def __init__(self, document: Mapping[str, Any], validate: Validate) -> None:
        self.document, self.validate = document, validate
        self.resolved = validate({key: value for key, value in document.items() if key != "tune"}).as_dict()

    def read(self, key: str, values: Sequence[Any]) -> SearchOption | list[InitErrorDetails]:
        """The option of a key, or errors with their paths in the spec."""
        paths = expanded(key, self.resolved)
        if text := self._refused(key, values, paths):
            return [error_at(("tune", key), text, "unknown_key")]
        check = _Check(self.document, paths, self.validate)
        found = [(index, problem) for index, value in enumerate(values) if (problem := check(value)) is not None]
        if unknown := [problem for _, problem in found if problem.of_key]:
            return [error_at(("tune", key), unknown[0].text, "unknown_key")]
        if found:
            return [error_at(("tune", key, index), _with_hint(problem.text)) for index, problem in found]
        if not _is_range(values):
            return Choice(key, paths, tuple(values))
        low, high = values
        if low >= high:
            return [error_at(("tune", key), f"the range must rise: {low:g} is not below {high:g}")]
        return Range(key, paths, low, high, whole=check(_between(low, high)) is not None)

    def _refused(self, key: str, values: Sequence[Any], paths: Sequence[str]) -> str:
        """Why a key cannot be searched; empty if it can."""
        if _FIXED.fullmatch(key):
            return "cannot be searched: values of trials could not be compared, or do not depend on it; change the spec itself"
        if len(values) < 2:
            return f"expected the two ends of a range or a list of at least two values, got {len(values)}"
        steps = key.split(".")
        if steps[0] == "modalities" and len(steps) > 1 and steps[1] not in ("*", *self.resolved["modalities"]):
            return f"no modality '{clip(steps[1])}'.{did_you_mean(steps[1], self.resolved['modalities'])}"
        return "" if paths else "no modality has this option"


def expanded(key: str, resolved: Mapping[str, Any]) -> tuple[str, ...]:
    """The paths of a key: with ``*``, those of the modalities that have the option in the spec with all defaults written out."""
    first, star, last = key.partition("modalities.*.")
    if first or not star:
        return (key,)
    return tuple(f"modalities.{name}.{last}" for name, one in resolved["modalities"].items() if _has(one, last.split(".")))


def with_values(document: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a spec, given as plain values, with other values at some paths, and without the section ``tune``.

    Raises:
        ParseError: if there is no place for one.
    """
    changed = copy.deepcopy({key: value for key, value in document.items() if key != "tune"})
    for path, value in values.items():
        assign(changed, tuple(path.split(".")), copy.deepcopy(value))
    return changed


class _Check:
    """Finds what is wrong with a value of an option; None if it is valid."""

    def __init__(self, document: Mapping[str, Any], paths: Sequence[str], validate: Validate) -> None:
        self.document, self.paths, self.validate = document, paths, validate

    def __call__(self, value: Any) -> Problem | None:
        if not all(self.paths[0].split(".")):
            return Problem((), "expected path.to.key, such as training.learning_rate", of_key=True)
        try:
            changed = with_values(self.document, dict.fromkeys(self.paths, value))
        except ParseError as error:
            return Problem((), error.diagnostic.text, of_key=True)
        try:
            self.validate(changed)
        except ValidationError as error:
            found = problems(error, changed)[0]
            inside = [tuple(path.split(".")) for path in self.paths]
            # An error elsewhere, such as a missing key beside an unknown one, is one of the key too.
            return found._replace(of_key=found.of_key or not any(_as_text(found.path)[: len(path)] == path for path in inside))
        return None


def _with_hint(text: str) -> str:
    return f"{text}; give each value as a list of its own, such as [[64], [128, 128]]" if "expected a list" in text else text


def _as_text(path: Sequence[str | int]) -> tuple[str, ...]:
    return tuple(map(str, path))


def _is_range(values: Sequence[Any]) -> bool:
    return len(values) == 2 and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _between(low: float, high: float) -> float:
    """A number between two others that is not whole, if there is one."""
    middle = low + (high - low) * 0.5
    return middle if middle != int(middle) else low + (high - low) * 0.5 + min(0.5, (high - low) / 4)


def _has(value: Any, steps: Sequence[str]) -> bool:
    for step in steps:
        if not isinstance(value, Mapping) or step not in value:
            return False
        value = value[step]
    return True


def _set_twice(options: Sequence[SearchOption]) -> Iterator[InitErrorDetails]:
    seen: dict[str, str] = {}
    for option in options:
        for path in option.paths:
            if path in seen:
                yield error_at(("tune", option.key), f"'{clip(seen[path])}' sets {clip(path)} too; keep one of them", "unknown_key")
                break
            seen[path] = option.key
