"""Normalises texts for comparison: composed accents, no surrounding whitespace."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable


def normal_text(text: str) -> str:
    """Strips a text and composes its accents (Unicode NFC); texts are the same class if these are equal.

    Example:
        >>> normal_text(" Jose\u0301") == normal_text("Jos\u00e9") == "Jos\u00e9"
        True
    """
    return unicodedata.normalize("NFC", text.strip())


def same_text_twice(texts: Iterable[str]) -> str | None:
    """The first text that equals an earlier one after normalisation; None if all differ.

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
