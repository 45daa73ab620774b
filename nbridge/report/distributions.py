"""Distributions of imputed values beside those of observed ones: densities of numbers, frequencies of counts, shares of classes."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

import torch
from torch import Tensor

from nbridge.report.axes import Axis
from nbridge.report.charts import histograms
from nbridge.report.tree import element, scrolling

BINS, TAIL = 24, 0.005
"""Number of bins of a density, and the share of values beyond each end of its axis."""
CLASSES = 12
"""Maximum number of classes in a table of shares; the rest are summed."""
MOST = 50_000
"""Maximum number of values of a density."""
KEY = "The filled area is observed, the line imputed."
"""How to read a density."""


def density(name: str, described: str, observed: Tensor, imputed: Tensor, *, whole: bool = False, label: str = "value") -> Element:
    """The densities of observed values and of draws of imputed ones, on the same cells.

    Arguments:
        name: The modality or column.
        described: Its kind in words.
        observed: True values, any shape.
        imputed: Draws, any shape.
        whole: Whether values are whole numbers, which then have a bin each if there are few.
        label: The label of the horizontal axis.
    """
    true, drawn = (_thinned(values.flatten().double()) for values in (observed, imputed))
    edges = _edges(true, drawn, whole=whole)
    heights = [_shares(values, edges) for values in (true, drawn)]
    middle = f"median {true.median().item():.3g} observed, {drawn.median().item():.3g} imputed"
    x = Axis(edges[0].item(), edges[-1].item(), label)
    y = Axis(0.0, 105 * max(*heights[0], *heights[1], 1e-9), "share, %")
    bars = [[100 * one for one in shares] for shares in heights]
    chart = histograms(f"{name}: distribution of observed and of imputed values; {middle}", x, y, edges.tolist(), bars[0], bars[1])
    return element("figure", element("figcaption", element("b", name), f" {described}"), chart)


def shares(name: str, classes: Sequence[str], observed: Tensor, imputed: Tensor) -> Element:
    """A table of the shares of classes, as bars.

    Arguments:
        name: The modality or column.
        classes: The names of its classes.
        observed: Numbers of cells by class, shape (C,).
        imputed: Mean predicted probabilities, shape (C,).
    """
    true = (observed.double() / observed.sum().clamp(min=1)).tolist()
    rows = list(zip(classes, true, imputed.double().tolist(), strict=True))
    rows.sort(key=lambda row: -row[1])
    if len(rows) > CLASSES:
        rest = rows[CLASSES - 1 :]
        rows = [*rows[: CLASSES - 1], (f"{len(rest)} others", sum(row[1] for row in rest), sum(row[2] for row in rest))]
    caption = f"{name}: shares of {len(classes)} classes in {int(observed.sum()):,} cells"
    head = element("tr", *(element("th", text, scope="col") for text in ("class", "observed", "imputed")))
    body = (element("tr", element("th", text, scope="row"), _bar(one), _bar(other)) for text, one, other in rows)
    whole = element("table", element("caption", caption), element("thead", head), element("tbody", *body), class_="shares")
    return scrolling(whole, caption)


def _bar(share: float) -> Element:
    return element("td", f"{share:.1%}", style=f"--share:{share:.3f}")


def _thinned(values: Tensor) -> Tensor:
    values = values[values.isfinite()]
    return values[:: -(-len(values) // MOST)] if len(values) > MOST else values


def _edges(true: Tensor, drawn: Tensor, *, whole: bool) -> Tensor:
    ends = [torch.quantile(values, torch.tensor((TAIL, 1 - TAIL), dtype=values.dtype)).tolist() for values in (true, drawn)]
    low, high = min(pair[0] for pair in ends), max(pair[1] for pair in ends)
    if whole and round(high) - round(low) < BINS:
        return torch.arange(round(low), round(high) + 2).double() - 0.5
    return torch.linspace(low, high if high > low else low + 1, BINS + 1).double()


def _shares(values: Tensor, edges: Tensor) -> list[float]:
    """The share of values in each bin."""
    places = torch.bucketize(values, edges, right=True) - 1
    inside = places[(places >= 0) & (places < len(edges) - 1)]
    return (torch.bincount(inside, minlength=len(edges) - 1).double() / max(1, len(values))).tolist()
