"""HTML and SVG elements as a tree; text is escaped on output, so that no name or value can become markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.etree.ElementTree import Element, tostring

Content = Element | str | None


def element(tag: str, *content: Content, **attributes: object) -> Element:
    """Creates an HTML or SVG element.

    None is skipped in content and attributes. Names of attributes have underscores for hyphens; a trailing underscore is dropped
    (``class_``).

    Example:
        >>> to_html(element("p", "a < ", element("b", "b"), class_="sum", aria_label=None))
        '<p class="sum">a &lt; <b>b</b></p>'
    """
    given = {name.rstrip("_").replace("_", "-"): str(value) for name, value in attributes.items() if value is not None}
    node = Element(tag, given)
    for part in content:
        if isinstance(part, Element):
            node.append(part)
        elif part is not None and len(node):
            node[-1].tail = (node[-1].tail or "") + part
        elif part is not None:
            node.text = (node.text or "") + part
    return node


def to_html(node: Element) -> str:
    """Serialises an element as HTML."""
    return tostring(node, encoding="unicode", method="html")


def table(caption: str, headings: Sequence[str], rows: Iterable[Sequence[Content]], *, words: int = 1) -> Element:
    """A table in a horizontally scrolling frame, for narrow screens.

    The first cell of a row is its heading. The leading ``words`` columns are text; the others are numeric and right-aligned.
    """

    def cell(tag: str, place: int, content: Content, **more: str) -> Element:
        return element(tag, content, class_=None if place < words else "figure", **more)

    head = element("tr", *(cell("th", place, heading, scope="col") for place, heading in enumerate(headings)))
    body = [
        element("tr", *(cell("td", place, part) if place else cell("th", place, part, scope="row") for place, part in enumerate(row)))
        for row in rows
    ]
    whole = element("table", element("caption", caption), element("thead", head), element("tbody", *body))
    return scrolling(whole, caption)


def scrolling(content: Element, name: str) -> Element:
    """A frame that scrolls horizontally if its content is wider, also with the keyboard."""
    return element("div", content, class_="scroll", tabindex=0, role="region", aria_label=name)


def paragraph(*content: Content, quiet: bool = False) -> Element:
    """A paragraph, in a muted style if ``quiet``."""
    return element("p", *content, class_="quiet" if quiet else None)
