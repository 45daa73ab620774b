"""The notebooks of the tutorials run, and their outputs are those of their code: ``pytest tests/site/notebooks.py``.

It needs the extra `docs` and takes a minute and a half, so that it is no part of the suite; `.ci/run` runs it after the site is built.
"""

from __future__ import annotations

import difflib
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
sys.path.append(str(DOCS))


NUMBERS = re.compile(r"[\d.,e+-]+|\s+")
ALIKE = 0.8
"""How much of the words has to be the same: another machine may give another last digit, and so another verdict."""


def outputs(notebook: dict[str, Any]) -> list[str]:
    """The outputs of each cell: their kinds, and their text without numbers."""
    found = []
    for cell in notebook["cells"]:
        for one in cell.get("outputs", []):
            text = "".join(one.get("text") or one["data"].get("text/plain", ""))
            found.append(f"{','.join(sorted(one.get('data', ['text'])))}: {NUMBERS.sub(' ', text)}")
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", sorted((DOCS / "tutorials").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs_and_has_the_outputs_of_its_code(path: Path):
    from build_notebooks import LARGEST, executed

    assert path.stat().st_size <= LARGEST
    kept = outputs(json.loads(path.read_text()))
    again = outputs(executed(path))
    assert kept
    assert [one.split(":")[0] for one in again] == [one.split(":")[0] for one in kept]
    for one, other in zip(again, kept, strict=True):
        assert difflib.SequenceMatcher(None, one.split(), other.split()).ratio() >= ALIKE, f"{one}\n{other}"
