"""Writes a draft spec as commented YAML: inferred modalities with reasons, and networks of suitable size.

The text is validated like any spec before it is returned.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nbridge.draft.columns import Guesses
from nbridge.draft.splits import SHARES, SMALL
from nbridge.spec import yaml_positions as yaml_tree
from nbridge.spec.columns import ColumnKind
from nbridge.spec.mixed import MIXED
from nbridge.spec.reader import parse_spec

SCHEMA = "nbridge.schema.json"
WIDTH = 120
"""Maximum line length."""
WORDS = frozenset({"yes", "no", "on", "off", "y", "n"})
"""Strings in YAML 1.2, but booleans for older parsers."""


@dataclass(frozen=True)
class Part:
    """A modality of a draft spec, with likelihood and encoder as YAML; an empty encoder is an mlp.

    A mixed modality has columns; the numbers of their classes follow from ``data.classes``.
    """

    name: str
    shape: tuple[int, ...]
    likelihood: str
    why: str = ""
    encoder: str = ""
    columns: Mapping[str, ColumnKind] = field(default_factory=dict)


@dataclass(frozen=True)
class Outline:
    """The contents of a draft spec; ``remarks`` are comments on the data, ``reasons`` comments by option of the source."""

    name: str
    source: Mapping[str, Any]
    rows: int
    parts: Sequence[Part]
    remarks: Sequence[str] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)


def parts_of(guesses: Guesses) -> list[Part]:
    """The modalities of a table."""
    options = {"bernoulli": "{type: bernoulli, attributes: true}"}
    return [
        Part(
            guess.name, (guess.size,), options.get(guess.likelihood, guess.likelihood), guess.why,
            columns=guess.kinds if guess.likelihood == MIXED else {},
        )
        for guess in guesses.modalities
    ]  # fmt: skip


def conv_encoder(sides: Sequence[int]) -> str:
    """The encoder of images, as YAML: up to three convolutions, which leave at least four pixels of the shortest side if possible.

    Example:
        >>> conv_encoder((8, 8)), conv_encoder((64, 48))
        ('{type: conv, channels: [16]}', '{type: conv, channels: [16, 32, 64]}')
    """
    layers = max(1, min(3, int(math.log2(min(sides))) - 2))
    return f"{{type: conv, channels: {[16, 32, 64][:layers]}}}"


@dataclass(frozen=True)
class Sizes:
    """Network sizes of a draft spec."""

    latent_dim: int
    hidden: int
    features: int


TABLE = Sizes(latent_dim=16, hidden=128, features=128)
"""Smallest sizes of a model of one table."""


def sizes_of(numbers: int) -> Sizes:
    """Chooses network sizes by the number of values per row. A categorical modality counts its classes.

    Example:
        >>> sizes_of(12)
        Sizes(latent_dim=4, hidden=64, features=32)
        >>> sizes_of(794)
        Sizes(latent_dim=32, hidden=128, features=128)
    """
    hidden = 64 if numbers <= 50 else 128 if numbers <= 1000 else 256
    return Sizes(min(32, max(4, numbers // 4)), hidden, 32 if hidden == 64 else 128)


def spec_text(outline: Outline) -> str:
    """Formats the spec as YAML with comments.

    Raises:
        SpecError: if it is invalid.
    """
    sizes = sizes_of(sum(math.prod(part.shape) for part in outline.parts))
    alone = len(outline.parts) == 1 and bool(outline.parts[0].columns)
    if alone:
        # Chosen by `benchmarks/tables`. The divergence from the prior switches off what a small table does not need.
        sizes = Sizes(max(TABLE.latent_dim, sizes.latent_dim), max(TABLE.hidden, sizes.hidden), max(TABLE.features, sizes.features))
    lines = [
        f"# yaml-language-server: $schema={SCHEMA}",
        f"# An editor checks and completes this file once there is the schema: nbridge schema --out {SCHEMA}",
        *(f"# {line}" for line in outline.remarks),
        "spec_version: 1",
        f"name: {scalar(outline.name)}",
        f"latent_dim: {sizes.latent_dim}",
        "data:",
        *_source(outline),
        "modalities:",
        *(line for part in outline.parts for line in _modality(part, sizes)),
        # The encoder of a single table is all that its posterior needs.
        *(["fusion: {hidden: []}"] if alone else [f"fusion: {{hidden: [{sizes.hidden}]}}", f"bridges: {{hidden: [{sizes.hidden}]}}"]),
    ]
    text = "\n".join(lines) + "\n"
    parse_spec(text)
    return text


def scalar(value: object) -> str:
    """Formats a value as YAML on one line, with quotes if necessary.

    Example:
        >>> scalar("lab 1"), scalar("1.0"), scalar("a: b"), scalar("yes"), scalar(3)
        ('lab 1', '"1.0"', '"a: b"', '"yes"', '3')
    """
    if not isinstance(value, str):
        return json.dumps(value)
    if re.fullmatch(r"[^\W\d](?:[\w ./*-]*[\w*])?", value) and value.lower() not in WORDS:
        try:
            if yaml_tree.parse(f"[{value}]").value == [value]:
                return value
        except yaml_tree.ParseError:
            pass
    return json.dumps(value, ensure_ascii=not value.isprintable())


def _source(outline: Outline) -> list[str]:
    lines: list[str] = []
    for option, value in outline.source.items():
        lines += _comment(outline.reasons.get(option, ""), 2)
        if isinstance(value, Mapping):
            lines += [f"  {option}:", *(line for key, items in value.items() for line in _listed(f"    {scalar(key)}: ", items))]
        elif isinstance(value, list | tuple):
            lines += _listed(f"  {option}: ", value)
        else:
            lines.append(f"  {option}: {scalar(value)}")
    share = SHARES if outline.rows >= SMALL else 0.0
    shares = f"validation: {share}, test: {share}"
    lines += _comment("shares of the rows that are held out, to keep the best weights by and to measure on", 2)
    return [*lines, *(f"  {share}" for share in shares.split(", "))]


def _listed(start: str, items: Any) -> list[str]:
    """Formats a list in brackets, wrapped over lines; a single value has no brackets."""
    if not isinstance(items, list | tuple):
        return [f"{start}{scalar(items)}"]
    lines, line = [], start + "["
    for place, item in enumerate(items):
        word = scalar(item) + ("," if place < len(items) - 1 else "]")
        if len(line) + len(word) + 1 > WIDTH and line.strip() != "[":
            lines.append(line)
            line = " " * (len(start) - len(start.lstrip()) + 2) + word
        else:
            line += word if line.endswith("[") else f" {word}"
    return [*lines, line]


def _mixed(part: Part, sizes: Sizes) -> list[str]:
    """A mixed modality, with a line for each column."""
    return [
        *_comment(part.why, 2),
        f"  {part.name}:",
        f"    encoder: {{type: table, hidden: [{sizes.hidden}]}}",
        f"    features: {sizes.features}",
        "    columns:",
        *(f"      {scalar(name)}: {_column(kind)}" for name, kind in part.columns.items()),
    ]


def _column(kind: ColumnKind) -> str:
    """Formats the likelihood of a column, without the number of classes."""
    options = kind.model_copy(update={"classes": None}).model_dump()
    if isinstance(options, str):
        return options
    return f"{{{', '.join(f'{key}: {_option(value)}' for key, value in options.items())}}}"


def _option(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else scalar(value)


def _modality(part: Part, sizes: Sizes) -> list[str]:
    if part.columns:
        return _mixed(part, sizes)
    shape = str(part.shape[0]) if len(part.shape) == 1 else json.dumps(list(part.shape))
    encoder = part.encoder or f"{{type: mlp, hidden: [{sizes.hidden}]}}"
    body = f"{{shape: {shape}, encoder: {encoder}, likelihood: {part.likelihood}, features: {sizes.features}}}"
    return [*_comment(part.why, 2), f"  {part.name}: {body}"]


def _comment(text: str, indent: int) -> list[str]:
    """Formats a comment, wrapped over lines."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        if line and len(line) + len(word) + 1 > WIDTH - indent - 2:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return [" " * indent + f"# {line}" for line in (*lines, line) if line]


def wrapped(remarks: Iterable[str]) -> list[str]:
    """Wraps remarks into comment lines."""
    return [line.removeprefix("# ") for remark in remarks for line in _comment(remark, 0)]
