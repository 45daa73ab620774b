"""The notebooks of the tutorials run, and their outputs are those of their code: ``pytest tests/site/notebooks.py``.

It needs the extra `docs`, takes about a minute and a half, and therefore is no part of the suite; `.ci/run` runs it after the site is built.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
sys.path.append(str(DOCS))


def outputs(notebook: dict[str, Any]) -> list[list[str]]:
    """The kinds of outputs of each cell, and their text without numbers: another machine gives other last digits."""
    found = []
    for cell in notebook["cells"]:
        texts = ["".join(one.get("text") or one["data"].get("text/plain", "")) for one in cell.get("outputs", [])]
        kinds = [",".join(sorted(one.get("data", ["text"]))) for one in cell.get("outputs", [])]
        found.append([f"{kind}: {re.sub(r'[\d.,e+-]+|\s+', ' ', text)[:200]}" for kind, text in zip(kinds, texts, strict=True)])
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", sorted((DOCS / "tutorials").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs_and_has_the_outputs_of_its_code(path: Path):
    from build_notebooks import LARGEST, executed

    kept = json.loads(path.read_text())
    assert path.stat().st_size <= LARGEST
    assert any(cell.get("outputs") for cell in kept["cells"])
    shapes = [[re.sub(r": .*", "", one) for one in cell] for cell in outputs(kept)]
    again = outputs(executed(path))
    assert [[re.sub(r": .*", "", one) for one in cell] for cell in again] == shapes
