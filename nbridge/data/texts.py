"""Texts as they are compared: spelt alike whichever way their accents are composed, and whatever blanks stand around them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable


def normal_text(text: str) -> str:
    """A text without blanks around it, its accents composed (Unicode NFC); two texts are one class where these are equal.

    Example:
        >>> normal_text(" Jose\u0301") == normal_text("Jos\u00e9") == "Jos\u00e9"
        True
    """
    return unicodedata.normalize("NFC", text.strip())


def same_text_twice(texts: Iterable[str]) -> str | None:
    """The first of some texts that came before, whichever way it was spelt; None where all differ.

    Example:
        >>> same_text_twice(["a", "b", " a"]), same_text_twice(["a", "b"])
        (' a', None)
    """
    seen: set[str] = set()
    for text in texts:
        if (normal := normal_text(text)) in seen:
            return text
        seen.add(normal)
    return None
