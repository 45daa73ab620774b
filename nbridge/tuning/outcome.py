"""What a search has found: its trials, the best one, and whether that is better than the spec as it stands by more than chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nbridge.common.messages import clip, noun
from nbridge.tuning.objective import Difference
from nbridge.tuning.space import Space
from nbridge.tuning.study import Attempt

FIGURE = "predictive log-likelihood of hidden modalities, nats over the free baseline"


@dataclass(frozen=True)
class Outcome:
    """The outcome of a search.

    Arguments:
        trials: All trials, by number.
        space: The search space.
        stopped: The exit code of the signal that ended the search early; None if its budget did.
    """

    trials: tuple[Attempt, ...]
    space: Space
    stopped: int | None = None

    @property
    def default(self) -> Attempt | None:
        """The spec as it stands; None if it is not done."""
        return next((one for one in self.trials if one.is_default and one.state == "done"), None)

    @property
    def winner(self) -> Attempt | None:
        """The finished trial with the highest value; None if there is none."""
        return max((one for one in self.trials if one.value is not None), key=lambda one: (one.value, -one.number), default=None)

    @property
    def gain(self) -> Difference | None:
        """The winner minus the spec as it stands, over validation rows."""
        default, winner = self.default, self.winner
        return None if default is None or winner is None or winner is default else Difference.of(winner.rows, default.rows)

    @property
    def best(self) -> Attempt | None:
        """The winner if it is clearly better than the spec as it stands, which otherwise stands; None if nothing is done."""
        return self.winner if self.gain is not None and self.gain.is_clear else self.default

    @property
    def default_stands(self) -> bool:
        """Whether nothing is clearly better than the spec as it stands."""
        return self.best is None or self.best.is_default

    @property
    def changes(self) -> dict[str, Any]:
        """The options of the best trial by path in the spec, without those that the spec has already."""
        return {} if self.best is None else self.space.changes(self.best.values)

    def as_dict(self) -> dict[str, Any]:
        """The outcome as JSON values, without figures of single rows."""
        gain = self.gain
        return {
            "figure": FIGURE, "space": self.space.as_dict(), "best": None if self.best is None else self.best.number,
            "default_stands": self.default_stands, "changes": self.changes, "text": self.text(), "stopped": self.stopped is not None,
            "gain": None if gain is None else {"mean": gain.mean, "standard_error": gain.error},
            "trials": [self._trial(one) for one in self.trials],
        }  # fmt: skip

    def _trial(self, one: Attempt) -> dict[str, Any]:
        rest = {"reason": one.reason} if one.reason else {}
        return {
            "number": one.number, "state": one.state, "value": one.value, "default": one.is_default, "seconds": one.seconds,
            "changes": changed(one, self.space), **rest,
        }  # fmt: skip

    def text(self) -> str:
        """The outcome in one sentence."""
        default, winner, gain = self.default, self.winner, self.gain
        if default is None:
            return "The spec as it stands has not been trained to the end yet, so there is nothing to compare with."
        assert winner is not None
        value = default.value or 0.0
        if gain is None:
            return f"The default stands: no trial is better than the spec as it stands ({value:+.3f} nats)."
        found = f"trial {winner.number} is {gain.mean:.3f} nats better, with a standard error of {gain.error:.3f}"
        if not gain.is_clear:
            return f"The default stands: {found}, so less than two standard errors."
        return f"Better than the spec as it stands ({value:+.3f} nats): {found}."


def changed(one: Attempt, space: Space) -> dict[str, Any]:
    """The values of a trial by key of the search space, without those of the spec."""
    return {key: value for key, value in one.values.items() if value != space.default[key]}


def table(outcome: Outcome) -> list[tuple[str, str, str, str, str]]:
    """The trials as texts: number, value in nats, what differs from the spec, seconds, state."""
    rows = []
    for one in outcome.trials:
        value = "" if one.value is None else f"{one.value:+.3f}"
        seconds = "" if one.seconds is None else f"{one.seconds:.0f}"
        state = f"{one.state}: {clip(one.reason, 120)}" if one.reason else one.state
        state += " (best)" if one is outcome.best else ""
        rows.append((str(one.number), value, _changes(one, outcome.space), seconds, state))
    return rows


def markdown(outcome: Outcome) -> str:
    """The table as Markdown, with the sentence above it."""
    rows = [("trial", "nats", "changes", "seconds", "state"), *table(outcome)]
    lines = [" | ".join(text.replace("|", "\\|") for text in row) for row in rows]
    body = [f"| {lines[0]} |", "|---:|---:|---|---:|---|", *(f"| {line} |" for line in lines[1:])]
    return "\n".join([outcome.text(), "", f"Value: {FIGURE}.", "", *body, ""])


def _changes(one: Attempt, space: Space) -> str:
    if one.is_default:
        return "none (the spec as it stands)"
    return shown_changes(changed(one, space)) or "none"


def shown_changes(changes: Mapping[str, Any]) -> str:
    """Changes as text, numbers to three digits."""
    return ", ".join(f"{key}={_shown(value)}" for key, value in changes.items())


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_shown, value)) + "]"
    return noun(value) if isinstance(value, Mapping) else str(value)
