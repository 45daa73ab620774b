"""Every command and snippet of the site runs, page by page, as it is written."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from snippets import ROOT, run, snippets

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
RUN = ("python", "sh", "yaml")
NOT_RUN = 5
"""Blocks that cannot run, such as those that need an account or a second machine."""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


sys.path.append(str(DOCS))  # docs/generated.py


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_the_snippets_of_a_page_run_from_top_to_bottom(path: Path, here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(here)
    names: dict[str, Any] = {"__name__": "page"}
    for drafted in re.findall(r"nbridge init (\w+)|```yaml title=\"(\w+)\.yaml\"", path.read_text()):
        # The page makes its own spec and run of these data.
        Path(f"{''.join(drafted)}.yaml").unlink(missing_ok=True)
        shutil.rmtree(Path("runs") / "".join(drafted), ignore_errors=True)
    for number, snippet in enumerate(snippets(path.read_text()), 1):
        if snippet.reason is None and snippet.language in RUN:
            try:
                run(snippet, names)
            except BaseException as error:
                error.add_note(f"{name_of(path)}, block {number}:\n{snippet.text}")
                raise


def test_few_blocks_are_not_run_and_each_says_why():
    left_out = [snippet for path in PAGES for snippet in snippets(path.read_text()) if snippet.reason is not None]
    assert len(left_out) == NOT_RUN
    assert all(len(str(snippet.reason).split()) >= 3 for snippet in left_out)
    assert sum(path.read_text().count("<!-- not run") for path in PAGES) == NOT_RUN


def test_languages_of_blocks_are_known():
    known = {*RUN, "text", "csv", "json", "mermaid", "bibtex"}
    for path in PAGES:
        assert {snippet.language for snippet in snippets(path.read_text())} <= known, name_of(path)
        fences = path.read_text().count("```")
        assert fences == 2 * sum(1 for _ in snippets(path.read_text())), f"{name_of(path)}: a block without a language"


def test_commands_within_sentences_exist_with_their_options():
    from generated import commands

    known = commands()
    for path in PAGES:
        for text in re.findall(r"`nbridge ([a-z]+[^`\n]*)`", path.read_text()):
            verb, *rest = shlex.split(text)
            assert verb in known, f"{name_of(path)}: nbridge {text}"
            options = {name for parameter in known[verb].params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
            used = {word.split("=")[0].strip("[]") for word in rest if word.strip("[]").startswith("--")}
            assert used <= options, f"{name_of(path)}: nbridge {text}"
