"""Tables that README shows, between markers, written by the benchmarks alone."""

from __future__ import annotations

from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def replace_section(name: str, text: str) -> None:
    """Puts a text between the markers of that name."""
    before, opening, rest = README.read_text().partition(f"<!-- {name} -->")
    _, closing, after = rest.partition(f"<!-- /{name} -->")
    assert opening, f"README.md has no marker <!-- {name} -->"
    assert closing, f"README.md has no marker <!-- /{name} -->"
    README.write_text(f"{before}{opening}\n{text}\n{closing}{after}")
