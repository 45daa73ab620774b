"""An extension of griffe: formulas and names in docstrings, which are written as Sphinx does, become those of Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Formulas(griffe.Extension):
    """Rewrites ``.. math::`` and ``:math:`` of every docstring that is shown."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:  # noqa: ARG002
        """Rewrites the docstring of a class, a function or an attribute."""
        if obj.docstring is not None:
            obj.docstring.value = rewritten(obj.docstring.value)


def rewritten(text: str) -> str:
    """A docstring with the formulas of Markdown.

    Example:
        >>> rewritten("The posterior :math:`q(z)`.")
        'The posterior $q(z)$.'
    """
    text = re.sub(r"^( *)\.\. math:: ?(.*(?:\n\1 +\S.*)*)", _block, text, flags=re.MULTILINE)
    text = re.sub(r"^( *)Example:$", r"\1Examples:", text, flags=re.MULTILINE)  # the section whose code is shown as code
    return re.sub(r":math:`([^`]+)`", r"$\1$", text)


def _block(found: re.Match[str]) -> str:
    formula = " ".join(found[2].split())
    return f"{found[1]}$$\n{found[1]}{formula}\n{found[1]}$$"
