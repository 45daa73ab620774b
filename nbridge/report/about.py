"""Report sections on the run itself: summary of the spec, patterns of presence, parameters, environment, and the spec file."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from xml.etree.ElementTree import Element

from nbridge.common.messages import clip
from nbridge.errors import NBridgeError
from nbridge.evaluation.parameter_counts import LABELS, ParameterTable, count_parameters
from nbridge.nn.mixed import Mixed
from nbridge.report.run_data import ModelAndRows, RunData, SectionSkipped
from nbridge.report.tree import element, paragraph, table
from nbridge.spec.components import Component
from nbridge.spec.covariates import Covariate
from nbridge.visual.mixed_columns import column_views

PATTERNS = 12
"""Maximum number of patterns of presence shown."""
MAX_COLUMNS = 200
"""Maximum number of columns of a modality listed."""
MAX_CHARACTERS = 100_000
"""Maximum number of characters of a spec shown."""


def trained(data: RunData) -> Iterator[Element]:
    """Summary of the spec, and its modalities."""
    spec = data.spec
    facts = {
        "name": spec.name or data.folder.name, "model": f"{spec.model.type}, {spec.latent_dim} latent dimensions",
        "data": spec.data.source.type, "rows": _rows(data), "training": _training(data),
    }  # fmt: skip
    yield element("dl", *(part for name, fact in facts.items() if fact for part in (element("dt", name), element("dd", fact))))
    headings = ("modality", "encoder", "likelihood", "shape", "weight")
    weights = data.loaded.model.weights if isinstance(data.loaded, ModelAndRows) else {}
    rows = [
        (name, one.encoder.type, _likelihood(one.likelihood), " × ".join(map(str, one.shape)), _weight(one.weight, weights.get(name)))
        for name, one in spec.modalities.items()
    ]
    yield table("Modalities", headings, rows, words=3)
    if spec.covariates:
        yield table(
            "Covariates", ("covariate", "kind"), [(clip(name, 60), _covariate(one)) for name, one in spec.covariates.items()], words=2
        )
    yield from _mixed(data)


def _covariate(one: Covariate) -> str:
    """The kind of a covariate, with its number of classes where the spec lists them."""
    return f"{one.type}, {len(one.classes):,} classes" if one.classes else one.type


def _mixed(data: RunData) -> Iterator[Element]:
    """The columns of mixed modalities by name and kind."""
    if isinstance(data.loaded, str):
        return
    for name, likelihood in data.loaded.model.likelihoods.items():
        if isinstance(likelihood, Mixed):
            views = column_views(data.spec, name, likelihood)
            more = f", the first {MAX_COLUMNS} of {len(views):,}" if len(views) > MAX_COLUMNS else ""
            rows = [(view.name, view.described, clip(", ".join(view.classes), 120)) for view in views[:MAX_COLUMNS]]
            yield table(f"Columns of {name}{more}", ("column", "kind", "classes"), rows, words=3)


def _weight(asked: float | str, used: float | None) -> str:
    """A weight as text; one chosen automatically is followed by its setting."""
    if not isinstance(asked, str):
        return f"{asked:g}"
    return asked if used is None else f"{used:.3g} ({asked})"


def parameters(data: RunData) -> Iterator[Element]:
    """Parameter counts of the bridged model, the retrofit and MVAE."""
    try:
        counts = count_parameters(data.spec, build=False)
    except NBridgeError as error:
        raise SectionSkipped(str(error)) from error
    rows = [(LABELS[one.name], f"{one.networks:,}", f"{one.formula:,}") for one in counts.models]
    yield table("Models built from the same parts", ("model", "inference networks", "parameters"), rows)
    yield table("Parts of the bridged model", ("part", "number", "parameters"), _parts(counts))
    of_this = "" if data.spec.model.type == "bridged" else f" This run trained {data.spec.model.type}."
    yield paragraph(f"{counts.comparison} Bridges grow as n(n − 1), retrofits as 2ⁿ.{of_this}", quiet=True)


def patterns(data: RunData) -> Iterator[Element]:
    """Patterns of presence in the training rows."""
    seen = data.patterns
    if seen is None:
        raise SectionSkipped("they are saved when training ends" if not data.finished else "the model was saved by an older nbridge")
    total = sum(seen.rows.values()) + seen.other_rows
    rows = [
        (f"{number:,}", f"{number / total:.1%}", *(_mark(bit) for bit in pattern))
        for pattern, number in islice(seen.rows.items(), PATTERNS)
    ]
    yield table(f"{total:,} training rows, by pattern of presence", ("rows", "share", *seen.names), rows, words=0)
    if more := len(seen.rows) - PATTERNS + seen.others if len(seen.rows) > PATTERNS else seen.others:
        others = total - sum(islice(seen.rows.values(), PATTERNS))
        yield paragraph(f"and {more:,} rarer patterns with {others:,} rows in all", quiet=True)


def environment(data: RunData) -> Iterator[Element]:
    """The software and hardware that results can depend on."""
    if not data.environment:
        raise SectionSkipped("env.json is missing or damaged")
    facts = [
        (name, ", ".join(f"{key} {one}" for key, one in value.items()) if isinstance(value, dict) else value)
        for name, value in data.environment.items()
        if name != "rows"
    ]
    yield element("dl", *(part for name, value in facts for part in (element("dt", clip(name)), element("dd", clip(value, 200)))))


def spec_file(data: RunData) -> Iterator[Element]:
    """The spec file."""
    if not data.text:
        raise SectionSkipped("spec.yaml is missing")
    yield element("pre", element("code", data.text[:MAX_CHARACTERS]), tabindex=0)
    if len(data.text) > MAX_CHARACTERS:
        yield paragraph("truncated; see spec.yaml for the rest", quiet=True)


def _likelihood(likelihood: Component) -> str:
    """The type of a likelihood, with the number of columns of a mixed one."""
    columns = likelihood.kwargs.get("columns")
    return f"{likelihood.type}, {len(columns):,} columns" if columns else likelihood.type


def _rows(data: RunData) -> str:
    counts = data.environment.get("rows")
    if not isinstance(counts, dict):
        return ""
    return ", ".join(f"{number:,} {part}" for part, number in counts.items() if isinstance(number, int) and number)


def _training(data: RunData) -> str:
    done = sum(epochs[-1].update for epochs in data.epochs.values())
    seconds = sum(record.seconds for epochs in data.epochs.values() for record in epochs)
    device = data.environment.get("device", "an unknown device")
    unfinished = "" if data.finished else "; not finished"
    return f"{done:,} updates in {duration(seconds)} on {clip(device)}{unfinished}"


def duration(seconds: float) -> str:
    """Formats a duration.

    Example:
        >>> duration(4.21), duration(75), duration(7260)
        ('4.2 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds) // 60
    return f"{minutes} min {round(seconds) % 60} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _parts(counts: ParameterTable) -> Iterator[tuple[str, str, str]]:
    """Parameter counts summed by kind of part, because there are n(n - 1) bridges."""
    kinds: dict[str, list[int]] = {}
    for name, count in counts.parts.items():
        kinds.setdefault(name.split()[0], []).append(count)
    for kind, sizes in kinds.items():
        yield f"{kind}s" if len(sizes) > 1 else kind, f"{len(sizes):,}", f"{sum(sizes):,}"


def _mark(bit: str) -> Element:
    sign, word = ("●", "present") if bit == "1" else ("·", "absent")
    return element("span", element("span", sign, aria_hidden="true"), element("span", word, class_="hidden"))
