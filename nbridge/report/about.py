"""What was trained, on what and where: the spec in a few figures, patterns of presence, parameters, the machine, the spec itself."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from xml.etree.ElementTree import Element

from nbridge.common.messages import clip
from nbridge.errors import NBridgeError
from nbridge.evaluation.parameter_counts import ParameterTable, count_parameters
from nbridge.report.subject import LeftOut, Served, Subject
from nbridge.report.tree import element, paragraph, table

PATTERNS = 12
"""Patterns of presence that are shown."""
LONGEST = 100_000
"""Characters of a spec that are shown."""
LABELS = {"bridged": "bridged", "retrofit": "retrofit (JMVAE, TELBO)", "mvae": "MVAE"}
"""Models as they are called."""


def trained(subject: Subject) -> Iterator[Element]:
    """The spec in a few figures, and its modalities."""
    spec = subject.spec
    facts = {
        "name": spec.name or subject.folder.name,
        "model": f"{spec.model.type}, {spec.latent_dim} latent dimensions",
        "data": spec.data.source.type,
        "rows": _rows(subject),
        "training": _training(subject),
    }
    yield element("dl", *(part for name, fact in facts.items() if fact for part in (element("dt", name), element("dd", fact))))
    headings = ("modality", "encoder", "likelihood", "shape", "weight")
    weights = subject.served.model.weights if isinstance(subject.served, Served) else {}
    rows = [
        (name, one.encoder.type, one.likelihood.type, " × ".join(map(str, one.shape)), _weight(one.weight, weights.get(name)))
        for name, one in spec.modalities.items()
    ]
    yield table("Modalities", headings, rows, words=3)


def _weight(asked: float | str, used: float | None) -> str:
    """A weight, and whether it follows from the data."""
    if not isinstance(asked, str):
        return f"{asked:g}"
    return asked if used is None else f"{used:.3g} ({asked})"


def parameters(subject: Subject) -> Iterator[Element]:
    """Parameters of the bridged model beside the retrofits'."""
    try:
        counts = count_parameters(subject.spec, build=False)
    except NBridgeError as error:
        raise LeftOut(str(error)) from error
    rows = [(LABELS[one.name], f"{one.networks:,}", f"{one.formula:,}") for one in counts.models]
    yield table("Models on the same parts", ("model", "inference networks", "parameters"), rows)
    yield table("Parts of the bridged model", ("part", "number", "parameters"), _parts(counts))
    saved = f"{abs(counts.reduction):.1%} {'fewer' if counts.reduction >= 0 else 'more'}"
    of_this = "" if subject.spec.model.type == "bridged" else f" This run trained {subject.spec.model.type}."
    yield paragraph(f"Bridges have {saved} parameters than the retrofits; they grow as n(n − 1), retrofits as 2ⁿ.{of_this}", quiet=True)


def patterns(subject: Subject) -> Iterator[Element]:
    """Which modalities training rows had together."""
    seen = subject.patterns
    if seen is None:
        raise LeftOut("a model keeps them once training is over" if not subject.over else "the model was made by an older nbridge")
    total = sum(seen.rows.values()) + seen.other_rows
    rows = [
        (f"{number:,}", f"{number / total:.1%}", *(_mark(bit) for bit in pattern))
        for pattern, number in islice(seen.rows.items(), PATTERNS)
    ]
    yield table(f"{total:,} training rows, by the modalities that they have", ("rows", "share", *seen.names), rows, words=0)
    if more := len(seen.rows) - PATTERNS + seen.others if len(seen.rows) > PATTERNS else seen.others:
        others = total - sum(islice(seen.rows.values(), PATTERNS))
        yield paragraph(f"and {more:,} rarer patterns of {others:,} rows", quiet=True)


def environment(subject: Subject) -> Iterator[Element]:
    """What decides the last bits, beside spec and rows."""
    if not subject.environment:
        raise LeftOut("env.json is missing or damaged")
    facts = [(name, _plain(value)) for name, value in subject.environment.items() if name != "rows"]
    yield element("dl", *(part for name, value in facts for part in (element("dt", clip(name)), element("dd", clip(value, 200)))))


def _plain(value: object) -> object:
    """A mapping as words."""
    return ", ".join(f"{name} {one}" for name, one in value.items()) if isinstance(value, dict) else value


def written_spec(subject: Subject) -> Iterator[Element]:
    """The spec as it was written."""
    if not subject.text:
        raise LeftOut("spec.yaml is missing")
    yield element("pre", element("code", subject.text[:LONGEST]), tabindex=0)
    if len(subject.text) > LONGEST:
        yield paragraph("cut here; spec.yaml has all of it", quiet=True)


def _rows(subject: Subject) -> str:
    counts = subject.environment.get("rows")
    if not isinstance(counts, dict):
        return ""
    return ", ".join(f"{number:,} {part}" for part, number in counts.items() if isinstance(number, int) and number)


def _training(subject: Subject) -> str:
    done = sum(epochs[-1].update for epochs in subject.epochs.values())
    seconds = sum(record.seconds for epochs in subject.epochs.values() for record in epochs)
    device = subject.environment.get("device", "an unknown device")
    unfinished = "" if subject.over else "; not over yet"
    return f"{done:,} updates in {duration(seconds)} on {clip(device)}{unfinished}"


def duration(seconds: float) -> str:
    """A time as it is said.

    Example:
        >>> duration(4.21), duration(75), duration(7260)
        ('4.2 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds) // 60
    return f"{minutes} min {round(seconds) % 60} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _parts(counts: ParameterTable) -> Iterator[tuple[str, str, str]]:
    """Parts of a kind together, since bridges alone are n(n - 1)."""
    kinds: dict[str, list[int]] = {}
    for name, count in counts.parts.items():
        kinds.setdefault(name.split()[0], []).append(count)
    for kind, sizes in kinds.items():
        yield f"{kind}s" if len(sizes) > 1 else kind, f"{len(sizes):,}", f"{sum(sizes):,}"


def _mark(bit: str) -> Element:
    sign, word = ("●", "present") if bit == "1" else ("·", "absent")
    return element("span", element("span", sign, aria_hidden="true"), element("span", word, class_="hidden"))
