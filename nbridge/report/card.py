"""The summary card of a run: how good, against what, how sure, how long."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from nbridge.errors import NBridgeError
from nbridge.evaluation.parameter_counts import count_parameters
from nbridge.evaluation.verdict import ERRORS, FIGURES, BaselineComparison, Outcome, Verdict, digits
from nbridge.report.about import duration
from nbridge.report.run_data import RunData
from nbridge.report.tree import element

OUTCOMES: tuple[tuple[Outcome, str], ...] = (("worse", "worse"), ("as good", "as good"), ("better", "better"), ("not tested", "not tested"))
"""Outcomes in the order of their display, with their words."""
NAMED = 6
"""Maximum number of modalities named in a line."""


def card(data: RunData, verdict: Verdict) -> Element:
    """The headline and four short answers."""
    headline = verdict.headline[:1].upper() + verdict.headline[1:] + "."
    facts = (("How good", how_good(verdict)), ("Against what", against_what(verdict)), ("How sure", how_sure(verdict)))
    tiles = [*facts, ("How long", how_long(data))]
    return element(
        "div",
        element("p", headline, class_="headline worse" if verdict.of("worse") else "headline"),
        element("dl", *(element("div", element("dt", name), *(element("dd", line) for line in lines)) for name, lines in tiles if lines)),
        class_="card",
    )


def how_good(verdict: Verdict) -> list[str]:
    """The number of modalities by outcome, and the lead on each, furthest behind first."""
    counts = [f"{number} {words}" for outcome, words in OUTCOMES if (number := len(verdict.of(outcome)))]
    tested = sorted(_tested(verdict), key=lambda one: one.lead)
    lines = [f"{one.title}: {FIGURES[one.figure]} {digits(one.model)} against {digits(one.baseline)}" for one in tested[:NAMED]]
    more = [f"and {len(tested) - NAMED} more below"] if len(tested) > NAMED else []
    return [", ".join(counts), *lines, *more] if counts else [verdict.headline]


def against_what(verdict: Verdict) -> list[str]:
    """The baselines, and the rows that they were fitted on."""
    baselines: dict[str, list[str]] = {}
    for one in _tested(verdict):
        baselines.setdefault(one.predictor, []).append(one.title)
    lines = [f"{name}: {_some(list(dict.fromkeys(titles)))}" for name, titles in baselines.items()]
    most = max((one.train_rows for one in _tested(verdict)), default=0)
    return [*lines, f"fitted on up to {most:,} training rows"] if lines else []


def how_sure(verdict: Verdict) -> list[str]:
    """The scored rows, and the lead on each modality with its standard error."""
    tested = _tested(verdict)
    if not tested:
        return ["nothing was tested"]
    leads = sorted(tested, key=lambda one: one.lead)[:NAMED]
    lines = [
        f"{one.title}: {'ahead' if one.lead >= 0 else 'behind'} by {digits(abs(one.lead))} ± {digits(one.standard_error)}" for one in leads
    ]
    rule = f"better or worse is by more than {ERRORS:g} standard errors"
    return [f"{max(one.rows for one in tested):,} {verdict.split} rows; {rule}", *lines]


def how_long(data: RunData) -> list[str]:
    """The training time, the updates, the device and the number of parameters."""
    records = [record for epochs in data.epochs.values() for record in epochs]
    updates = sum(epochs[-1].update for epochs in data.epochs.values())
    lines = [f"{duration(sum(record.seconds for record in records))} of training", f"{updates:,} updates"] if records else []
    if device := data.environment.get("device"):
        lines.append(f"on {str(device)[:60]}")
    if (number := parameters_of(data)) is not None:
        lines.append(f"{number:,} parameters")
    return lines


def parameters_of(data: RunData) -> int | None:
    """The number of parameters of the model; None if it is not known."""
    if not isinstance(data.loaded, str):
        return sum(parameter.numel() for parameter in data.loaded.model.parameters())
    try:
        return sum(count_parameters(data.spec, build=False).parts.values()) if data.spec.model.type == "bridged" else None
    except NBridgeError:
        return None


def _tested(verdict: Verdict) -> list[BaselineComparison]:
    return [one for one in verdict.modalities if one.outcome != "not tested"]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
