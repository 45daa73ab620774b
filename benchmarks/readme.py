"""Writes tables between markers in README.md, docs and benchmarks/README.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
PAGES = (README, HERE / "README.md", *sorted((HERE.parent / "docs").rglob("*.md")))


def spread(values: Sequence[float], form: str = ".3f") -> str:
    """Mean ± standard deviation of a score over seeds; for one seed, only the score.

    Example:
        >>> spread([0.5, 0.7]), spread([0.5], "+.2f")
        ('0.600 ± 0.141', '+0.50')
    """
    return f"{mean(values):{form}}" + (f" ± {stdev(values):{form.lstrip('+')}}" if len(values) > 1 else "")


def replace_section(name: str, text: str) -> None:
    """Replaces the text between the markers of this name, in the page that has them."""
    opening, closing = f"<!-- {name} -->", f"<!-- /{name} -->"
    (page,) = (page for page in PAGES if opening in page.read_text())
    before, _, rest = page.read_text().partition(opening)
    _, found, after = rest.partition(closing)
    assert found, f"{page.name} has no marker {closing}"
    page.write_text(f"{before}{opening}\n{text}\n{closing}{after}")
