"""SVG chart axes: scaling from data to picture coordinates, and ticks at round numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from nbridge.report.tree import element

WIDTH, HEIGHT = 320, 210
"""Size of a chart in SVG units, about its size in pixels on the page."""
LEFT, RIGHT, TOP, BOTTOM = 60, 10, 10, 38
"""Margins around the frame, for ticks and labels."""


@dataclass(frozen=True)
class Axis:
    """One axis."""

    low: float
    high: float
    label: str
    whole: bool = False
    """Whether ticks are whole numbers only."""

    @classmethod
    def fit(cls, values: Sequence[float], label: str, margin: float = 0.04) -> Axis:
        """An axis over finite values, with a margin around them."""
        low, high = min(values), max(values)
        room = (high - low) * margin or max(abs(low), 1.0) * margin
        return cls(low - room, high + room, label)

    def ticks(self, about: int = 4) -> list[float]:
        """Round numbers along the axis.

        Example:
            >>> Axis(0, 97, "").ticks(), Axis(-0.013, 0.034, "").ticks()
            ([0.0, 20.0, 40.0, 60.0, 80.0], [-0.01, 0.0, 0.01, 0.02, 0.03])
        """
        rough = (self.high - self.low) / about
        rough = max(1.0, rough) if self.whole else rough
        size = 10.0 ** math.floor(math.log10(rough))
        step = size * min((1, 2, 5, 10), key=lambda multiple: abs(math.log(multiple * size / rough)))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        digits = max(0, -math.floor(math.log10(step)))
        return [round(number * step, digits) + 0.0 for number in range(first, last + 1)]


@dataclass(frozen=True)
class Chart:
    """An SVG picture with two axes. Its size is in SVG units."""

    svg: Element
    x: Axis
    y: Axis
    width: int
    height: int

    def x_coordinate(self, value: float) -> float:
        """The horizontal SVG coordinate of a value."""
        return LEFT + (self.width - LEFT - RIGHT) * (value - self.x.low) / (self.x.high - self.x.low)

    def y_coordinate(self, value: float) -> float:
        """The vertical SVG coordinate of a value, from the top."""
        return self.height - BOTTOM - (self.height - TOP - BOTTOM) * (value - self.y.low) / (self.y.high - self.y.low)


def empty_chart(title: str, x: Axis, y: Axis, *, width: int = WIDTH, height: int = HEIGHT, numbers: bool = True) -> Chart:
    """An empty chart: axes, ticks and grid lines.

    The title is the text alternative for screen readers; ``numbers`` draws ticks and grid lines.
    """
    chart = Chart(element("svg", element("title", title), viewBox=f"0 0 {width} {height}", role="img"), x, y, width, height)
    right, bottom = width - RIGHT, height - BOTTOM
    for value in y.ticks() if numbers else ():
        at = _short(chart.y_coordinate(value))
        chart.svg.append(element("path", d=f"M{LEFT} {at}H{right}", class_="grid"))
        chart.svg.append(element("text", _named(value, y), x=LEFT - 6, y=at, class_="left"))
    for value in x.ticks(5) if numbers else ():
        at = _short(chart.x_coordinate(value))
        chart.svg.append(element("path", d=f"M{at} {bottom}v4", class_="axis"))
        chart.svg.append(element("text", _named(value, x), x=at, y=bottom + 15, class_="below"))
    chart.svg.append(element("path", d=f"M{LEFT} {TOP}V{bottom}H{right}", class_="axis"))
    chart.svg.append(element("text", x.label, x=_short((LEFT + right) / 2), y=bottom + (33 if numbers else 17), class_="below"))
    middle = _short((TOP + bottom) / 2)
    chart.svg.append(element("text", y.label, transform=f"translate({10 if numbers else LEFT - 9} {middle}) rotate(-90)", class_="below"))
    return chart


def _short(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")


def _named(value: float, axis: Axis) -> str:
    """A tick label; on axes with large numbers, in thousands, to fit the margin."""
    return f"{value / 1000:,g}k" if max(abs(axis.low), abs(axis.high)) >= 1e5 else f"{value:,g}"
