"""Line, scatter and calibration charts in SVG, coloured by the page's style sheet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from nbridge.report.axes import Axis, Frame, framed
from nbridge.report.tree import element

MOST = 300
"""Maximum number of points of a line; more would overlap."""
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """A series of points, drawn as a line or as a cloud.

    Arguments:
        points: The points; for a line, from left to right.
        style: Its CSS class.
    """

    points: Points
    style: str


def lines(title: str, x: Axis, y: Axis, drawn: Iterable[Line], *, mark: tuple[float, float] | None = None) -> Element:
    """A line chart.

    Arguments:
        title: Text alternative for screen readers.
        x: The horizontal axis.
        y: The vertical axis.
        drawn: The lines, the last one on top.
        mark: A point to mark.
    """
    frame = framed(title, x, y)
    for line in drawn:
        frame.svg.append(element("path", d=_through(frame, thinned(line.points)), class_=f"line {line.style}"))
        if len(line.points) == 1:
            # A path of one point has no length and is invisible.
            frame.svg.append(_circle(frame, line.points[0], 2.5, "point"))
    if mark is not None:
        frame.svg.append(_circle(frame, mark, 3.5, "mark"))
    return frame.svg


def scatter(title: str, x: Axis, y: Axis, clouds: Iterable[Line], *, diagonal: bool = False) -> Element:
    """A scatter plot.

    Arguments:
        title: Text alternative for screen readers.
        x: The horizontal axis.
        y: The vertical axis.
        clouds: The clouds of points.
        diagonal: Whether to draw the line x = y.
    """
    frame = framed(title, x, y)
    if diagonal:
        frame.svg.append(_diagonal(frame))
    for cloud in clouds:
        frame.svg.append(element("path", d=_dots(frame, cloud.points), class_=f"dots {cloud.style}"))
    return frame.svg


def agreement(title: str, x: Axis, y: Axis, points: Points) -> Element:
    """A calibration curve: observed against predicted shares, with the diagonal."""
    frame = framed(title, x, y)
    frame.svg.append(_diagonal(frame))
    frame.svg.append(element("path", d=_through(frame, points), class_="line first"))
    for point in points:
        frame.svg.append(_circle(frame, point, 2.5, "point"))
    return frame.svg


def map_of(title: str, x: Axis, y: Axis, clouds: Iterable[Line], names: Iterable[tuple[float, float, str]]) -> Element:
    """A larger scatter plot with text labels and without ticks."""
    frame = framed(title, x, y, width=440, height=360, numbers=False)
    for cloud in clouds:
        frame.svg.append(element("path", d=_dots(frame, cloud.points), class_=f"dots {cloud.style}"))
    for across, up, name in names:
        frame.svg.append(element("text", name, x=f"{frame.across(across):.1f}", y=f"{frame.down(up):.1f}", class_="name"))
    return frame.svg


def thinned(points: Points, most: int = MOST) -> Points:
    """Thins points evenly to about ``most``, keeping the last one.

    Example:
        >>> thinned([(x, 0) for x in range(10)], 4)
        [(0, 0), (3, 0), (6, 0), (9, 0)]
    """
    step = -(-len(points) // most)
    if step <= 1:
        return points
    kept = list(points[::step])
    return kept if (len(points) - 1) % step == 0 else [*kept, points[-1]]


def _through(frame: Frame, points: Points) -> str:
    return "M" + "L".join(f"{frame.across(x):.1f} {frame.down(y):.1f}" for x, y in points)


def _circle(frame: Frame, point: tuple[float, float], radius: float, style: str) -> Element:
    across, down = frame.across(point[0]), frame.down(point[1])
    return element("circle", cx=f"{across:.1f}", cy=f"{down:.1f}", r=radius, class_=style)


def _dots(frame: Frame, points: Points) -> str:
    """A zero-length line per point, made visible by its round or square caps; this takes few bytes."""
    return "".join(f"M{frame.across(x):.1f} {frame.down(y):.1f}h0" for x, y in points)


def _diagonal(frame: Frame) -> Element:
    low, high = max(frame.x.low, frame.y.low), min(frame.x.high, frame.y.high)
    ends = f"M{frame.across(low):.1f} {frame.down(low):.1f}L{frame.across(high):.1f} {frame.down(high):.1f}"
    return element("path", d=ends, class_="equal")
