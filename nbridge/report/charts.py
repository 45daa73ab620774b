"""Line, scatter and calibration charts in SVG, coloured by the page's style sheet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from xml.etree.ElementTree import Element

from nbridge.report.axes import Axis, Chart, empty_chart
from nbridge.report.tree import element

MOST = 300
"""Maximum number of points of a line; more would overlap."""
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """A series of points, drawn as a line or as a cloud."""

    points: Points
    style: str


def lines(title: str, x: Axis, y: Axis, drawn: Iterable[Line], *, mark: tuple[float, float] | None = None) -> Element:
    """A line chart. The title is its text alternative for screen readers; the last line is on top."""
    chart = empty_chart(title, x, y)
    for line in drawn:
        chart.svg.append(element("path", d=_through(chart, thin(line.points)), class_=f"line {line.style}"))
        if len(line.points) == 1:
            # A path of one point has no length and is invisible.
            chart.svg.append(_circle(chart, line.points[0], 2.5, "point"))
    if mark is not None:
        chart.svg.append(_circle(chart, mark, 3.5, "mark"))
    return chart.svg


def scatter(title: str, x: Axis, y: Axis, clouds: Iterable[Line], *, diagonal: bool = False) -> Element:
    """A scatter plot. The title is its text alternative for screen readers; ``diagonal`` draws the line x = y."""
    chart = empty_chart(title, x, y)
    if diagonal:
        chart.svg.append(_diagonal(chart))
    for cloud in clouds:
        chart.svg.append(element("path", d=_dots(chart, cloud.points), class_=f"dots {cloud.style}"))
    return chart.svg


def calibration_curve(title: str, x: Axis, y: Axis, points: Points, band: Sequence[tuple[float, float, float]] = ()) -> Element:
    """A calibration curve: observed against predicted shares, with the diagonal.

    ``band`` has the ends of the range in which the points of a calibrated model are, (x, low, high), which is filled.
    """
    chart = empty_chart(title, x, y)
    if band:
        around = [(at, high) for at, _, high in band] + [(at, low) for at, low, _ in reversed(band)]
        chart.svg.append(element("path", d=_through(chart, around) + "Z", class_="band"))
    chart.svg.append(_diagonal(chart))
    chart.svg.append(element("path", d=_through(chart, points), class_="line first"))
    for point in points:
        chart.svg.append(_circle(chart, point, 2.5, "point"))
    return chart.svg


def error_bars(title: str, x: Axis, y: Axis, series: Iterable[Sequence[tuple[float, float, float]]]) -> Element:
    """Lines through points (x, y, half length of the bar) with error bars, one colour for each series, and a line at y = 0."""
    chart = empty_chart(title, x, y)
    zero = f"{chart.y_coordinate(0):.1f}"
    chart.svg.append(element("path", d=f"M{chart.x_coordinate(x.low):.1f} {zero}H{chart.x_coordinate(x.high):.1f}", class_="equal"))
    for place, points in enumerate(series):
        style = f"c{place % 8}"
        if not points:
            continue
        chart.svg.append(element("path", d=_through(chart, [(at, value) for at, value, _ in points]), class_=f"line {style}"))
        bars = (
            f"M{chart.x_coordinate(at):.1f} {chart.y_coordinate(value - bar):.1f}V{chart.y_coordinate(value + bar):.1f}"
            for at, value, bar in points
        )
        chart.svg.append(element("path", d="".join(bars), class_=f"bar {style}"))
        chart.svg.append(element("path", d=_dots(chart, [(at, value) for at, value, _ in points]), class_=f"dots large round {style}"))
    return chart.svg


def histograms(title: str, x: Axis, y: Axis, edges: Sequence[float], filled: Sequence[float], line: Sequence[float]) -> Element:
    """Two histograms over the same bins: one as a filled area, the other as a line."""
    chart = empty_chart(title, x, y)
    for heights, style in ((filled, "area"), (line, "line second solid")):
        steps = [(edge, height) for height, pair in zip(heights, pairwise(edges), strict=True) for edge in pair]
        chart.svg.append(element("path", d=_through(chart, [(edges[0], 0.0), *steps, (edges[-1], 0.0)]), class_=style))
    return chart.svg


def labelled_scatter(title: str, x: Axis, y: Axis, clouds: Iterable[Line], names: Iterable[tuple[float, float, str]]) -> Element:
    """A larger scatter plot with text labels and without ticks."""
    chart = empty_chart(title, x, y, width=440, height=360, numbers=False)
    for cloud in clouds:
        chart.svg.append(element("path", d=_dots(chart, cloud.points), class_=f"dots {cloud.style}"))
    for across, up, name in names:
        chart.svg.append(element("text", name, x=f"{chart.x_coordinate(across):.1f}", y=f"{chart.y_coordinate(up):.1f}", class_="name"))
    return chart.svg


def thin(points: Points, most: int = MOST) -> Points:
    """Thins points evenly to about ``most``, keeping the last one.

    Example:
        >>> thin([(x, 0) for x in range(10)], 4)
        [(0, 0), (3, 0), (6, 0), (9, 0)]
    """
    step = -(-len(points) // most)
    if step <= 1:
        return points
    kept = list(points[::step])
    return kept if (len(points) - 1) % step == 0 else [*kept, points[-1]]


def _through(chart: Chart, points: Points) -> str:
    return "M" + "L".join(f"{chart.x_coordinate(x):.1f} {chart.y_coordinate(y):.1f}" for x, y in points)


def _circle(chart: Chart, point: tuple[float, float], radius: float, style: str) -> Element:
    across, down = chart.x_coordinate(point[0]), chart.y_coordinate(point[1])
    return element("circle", cx=f"{across:.1f}", cy=f"{down:.1f}", r=radius, class_=style)


def _dots(chart: Chart, points: Points) -> str:
    """A zero-length line per point, made visible by its round or square caps; this takes few bytes."""
    return "".join(f"M{chart.x_coordinate(x):.1f} {chart.y_coordinate(y):.1f}h0" for x, y in points)


def _diagonal(chart: Chart) -> Element:
    low, high = max(chart.x.low, chart.y.low), min(chart.x.high, chart.y.high)
    ends = f"M{chart.x_coordinate(low):.1f} {chart.y_coordinate(low):.1f}L{chart.x_coordinate(high):.1f} {chart.y_coordinate(high):.1f}"
    return element("path", d=ends, class_="equal")
