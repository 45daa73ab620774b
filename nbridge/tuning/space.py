"""The search space of a spec: its section ``tune``, or a default one by the options that matter most."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nbridge.spec.search import Choice, SearchOption, expanded, read_options
from nbridge.spec.spec import Spec

if TYPE_CHECKING:
    from optuna.trial import Trial

WIDTHS = ([64], [128], [256], [128, 128], [256, 256])
DROPOUTS, HIDE, DECAYS = (0.0, 0.1, 0.2, 0.3), (0.1, 0.3, 0.5), (0.0, 0.01, 0.1)
FACTOR = 4
"""The default range of the learning rate and of the number of latent dimensions: the spec's own, divided and multiplied by this."""
_PAPER = "paper"


@dataclass(frozen=True)
class Space:
    """A search space.

    Arguments:
        options: What is searched.
        default: The value of each option in the spec as it stands, by key.
        own: Whether it comes from the spec, not from the defaults.
    """

    options: tuple[SearchOption, ...]
    default: Mapping[str, Any]
    own: bool

    @property
    def holds_default(self) -> bool:
        """Whether the spec as it stands is a point of the space."""
        return all(option.holds(self.default[option.key]) for option in self.options)

    @property
    def size(self) -> float:
        """The number of points; infinite if a range is of real numbers."""
        return math.prod(_size(option) for option in self.options)

    def parameters(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters of a trial by values of the options: numbers of a range, and JSON for a choice."""
        return {option.key: _parameter(option, values[option.key]) for option in self.options}

    def values(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The values of the options by the parameters of a trial; empty for one without parameters, the spec as it stands."""
        return {
            option.key: json.loads(parameters[option.key]) if isinstance(option, Choice) else parameters[option.key]
            for option in self.options
            if option.key in parameters
        }

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Draws values of all options for a trial."""
        return self.values({option.key: _suggested(option, trial) for option in self.options})

    def changes(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values by path in the spec, without those that the spec has already."""
        return {
            path: values[option.key]
            for option in self.options
            if option.key in values and json.dumps(values[option.key]) != json.dumps(self.default[option.key])
            for path in option.paths
        }

    def as_dict(self) -> list[dict[str, Any]]:
        """The options as JSON values."""
        return [option.as_dict() for option in self.options]


def space_of(spec: Spec, document: Mapping[str, Any]) -> Space:
    """The search space of a spec, given also as plain values as it is written."""
    options = read_options(spec.tune or default_entries(spec), document, Spec.model_validate)
    resolved = spec.as_dict()
    return Space(options, {option.key: _value(resolved, option.paths[0]) for option in options}, bool(spec.tune))


def default_entries(spec: Spec) -> dict[str, list[Any]]:
    """The section ``tune`` for a spec that has none."""
    return dict(_entries(spec.as_dict()))


def _entries(document: dict[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    training, model = document["training"], document["model"]
    dims = document["latent_dim"]
    yield "latent_dim", [max(1, dims // FACTOR), dims * FACTOR]
    if not all("learning_rate" in stage for stage in training["stages"].values()):
        yield "training.learning_rate", [training["learning_rate"] / FACTOR, training["learning_rate"] * FACTOR]
    if not all("weight_decay" in stage for stage in training["stages"].values()):
        yield "training.weight_decay", _with(training["weight_decay"], DECAYS)
    for name, values in (("hidden", WIDTHS), ("dropout", DROPOUTS), ("hide", HIDE)):
        key = f"modalities.*.encoder.{name}"
        if paths := expanded(key, document):
            yield key, _with(_value(document, paths[0]), values)
    paper = document["bridges"].get("objective") == _PAPER
    for name, values in (("coupling", ("auto", 0.1, 0.3)), ("leave_one_out", ("auto", 0.1, 1.0))):
        if name in model and not paper:
            yield f"model.{name}", _with(model[name], values)


def _with(value: Any, values: tuple[Any, ...]) -> list[Any]:
    """Values of a choice, with that of the spec."""
    found = list(values)
    return found if any(json.dumps(one) == json.dumps(value) for one in found) else [value, *found]


def _value(document: Any, path: str) -> Any:
    """The value at a path; None if the spec has none there."""
    for step in path.split("."):
        if isinstance(document, list) and step.isdecimal():
            document = document[int(step)]
        else:
            document = document.get(step) if isinstance(document, Mapping) else None
    return document


def _size(option: SearchOption) -> float:
    if isinstance(option, Choice):
        return len({json.dumps(value) for value in option.values})
    return option.high - option.low + 1 if option.whole else math.inf


def _parameter(option: SearchOption, value: Any) -> Any:
    return json.dumps(value) if isinstance(option, Choice) else value


def _suggested(option: SearchOption, trial: Trial) -> Any:
    if isinstance(option, Choice):
        return trial.suggest_categorical(option.key, list(dict.fromkeys(json.dumps(value) for value in option.values)))
    if option.whole:
        return trial.suggest_int(option.key, int(option.low), int(option.high), log=option.log)
    return trial.suggest_float(option.key, option.low, option.high, log=option.log)
