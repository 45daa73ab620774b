"""The built site: nothing comes from elsewhere, and pages can be read by everyone. ``mkdocs build && pytest tests/site/built.py``.

It looks at `site/`, and therefore is no part of the suite; `.ci/run` runs it after the site is built.
"""

from __future__ import annotations

import re
from pathlib import Path

from accessibility import browser, violations

SITE = Path(__file__).resolve().parent.parent.parent / "site"
PAGES = sorted(SITE.rglob("*.html"))
LOOKED_AT = (
    "index", "start", "howto/data", "explanation/maths", "explanation/architecture", "reference/spec", "reference/commands",
    "reference/api", "tutorials/mixed_table", "tutorials/sensors", "examples/omics", "benchmarks/claims", "comparison",
    "faq", "glossary",
)  # fmt: skip
"""A page of each kind."""


def test_the_site_is_built():
    assert len(PAGES) > 50


def test_pages_load_nothing_from_elsewhere():
    for path in PAGES:
        text = path.read_text()
        loaded = re.findall(r'<(?:script|img|iframe|source)[^>]+src="([^"]+)"', text)
        loaded += re.findall(r'<link[^>]+rel="(?:stylesheet|icon|preload|preconnect)"[^>]*href="([^"]+)"', text)
        loaded += re.findall(r'<link[^>]+href="([^"]+)"[^>]*rel="(?:stylesheet|icon|preload|preconnect)"', text)
        assert not [one for one in loaded if one.startswith(("http", "//"))], path


def test_formulas_are_drawn():
    assert not [path.name for path in PAGES if "arithmatex" in path.read_text() or ":math:" in path.read_text()]


def test_pages_have_no_serious_barrier(tmp_path: Path):
    with browser(tmp_path) as opened:
        assert [f"{name}: {one}" for name in LOOKED_AT for one in violations(opened, (SITE / f"{name}.html").as_uri())] == []
