"""Elements of a page as a tree: what is put into one is escaped when it is written, so that no name or text can become markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.etree.ElementTree import Element, tostring

Content = Element | str | None


def element(tag: str, *content: Content, **attributes: object) -> Element:
    """An element of HTML or of SVG.

    Arguments:
        tag: Its name.
        content: Elements and texts, in order; None is nothing.
        attributes: By name; a hyphen is spelt as an underscore, and one at the end of a name is dropped (``class_``). None is left out.

    Example:
        >>> written(element("p", "a < ", element("b", "b"), class_="sum", aria_label=None))
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


def written(node: Element) -> str:
    """HTML of an element."""
    return tostring(node, encoding="unicode", method="html")


def table(caption: str, headings: Sequence[str], rows: Iterable[Sequence[Content]], *, words: int = 1) -> Element:
    """A table in a frame that scrolls by itself, so that a narrow screen need not.

    Arguments:
        caption: What it shows.
        headings: Of the columns.
        rows: Their cells, the first of which is the row's heading.
        words: How many columns hold words; the others hold figures, which stand to the right.
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
    """A frame that scrolls sideways where its content is wider, with the keyboard as well."""
    return element("div", content, class_="scroll", tabindex=0, role="region", aria_label=name)


def paragraph(*content: Content, quiet: bool = False) -> Element:
    """A paragraph; a quiet one explains."""
    return element("p", *content, class_="quiet" if quiet else None)
