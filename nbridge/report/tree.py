"""HTML and SVG elements as a tree; text is escaped on output, so that no name or value can become markup."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from xml.etree.ElementTree import Element, tostring
from zlib import crc32

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


def sortable(
    caption: str, headings: Sequence[str], rows: Sequence[Sequence[Content]], keys: Sequence[Sequence[float | str]], *, words: int = 1
) -> Element:
    """A table that radio buttons sort by any column, without a script: each row has its place in every order, which CSS picks.

    Text is sorted from A to Z, numbers from high to low, with NaN last; at first, rows are in the given order.

    Arguments:
        caption: The caption, unique on the page.
        headings: The headings of the columns.
        rows: The cells.
        keys: What rows are sorted by: a sequence for each row, one entry for each column.
        words: The number of leading columns that are text.
    """
    orders = [list(range(len(rows))), *(_places([key[column] for key in keys]) for column in range(len(headings)))]
    group = f"sort-{crc32(caption.encode()):x}"
    buttons = []
    for place, text in enumerate(("given order", *headings)):
        name = f"{group}-{place}"
        buttons += [
            element("input", type="radio", name=group, id=name, checked="checked" if place == 0 else None),
            element("label", text, for_=name),
        ]

    def cell(place: int, text: Content) -> Element:
        style = None if place < words else "figure"
        return element("td", text, class_=style, role="cell") if place else element("th", text, scope="row", role="rowheader")

    head = (
        element("th", text, scope="col", role="columnheader", class_=None if place < words else "figure")
        for place, text in enumerate(headings)
    )
    body = (
        element(
            "tr", *(cell(place, text) for place, text in enumerate(row)), role="row",
            style=";".join(f"--o{which}:{order[number]}" for which, order in enumerate(orders, 1)),
        )
        for number, row in enumerate(rows)
    )  # fmt: skip
    whole = element(
        "table", element("caption", caption), element("thead", element("tr", *head, role="row"), role="rowgroup"),
        element("tbody", *body, role="rowgroup"), role="table", style=f"--columns:{len(headings)}",
    )  # fmt: skip
    return element("fieldset", element("legend", "Sort by"), *buttons, scrolling(whole, caption), class_="sortable")


def _places(keys: Sequence[float | str]) -> list[int]:
    """The place of each row in the order of its key."""

    def rank(number: int) -> tuple[bool, float, str]:
        key = keys[number]
        return (False, 0.0, key.casefold()) if isinstance(key, str) else (math.isnan(key), 0.0 if math.isnan(key) else -key, "")

    places = [0] * len(keys)
    for place, number in enumerate(sorted(range(len(keys)), key=rank)):
        places[number] = place
    return places


def scrolling(content: Element, name: str) -> Element:
    """A frame that scrolls horizontally if its content is wider, also with the keyboard."""
    return element("div", content, class_="scroll", tabindex=0, role="region", aria_label=name)


def paragraph(*content: Content, quiet: bool = False) -> Element:
    """A paragraph, in a muted style if ``quiet``."""
    return element("p", *content, class_="quiet" if quiet else None)
