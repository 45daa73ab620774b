"""Runs the notebooks of the tutorials and writes their outputs into them.

python docs/build_notebooks.py [NAME...]

Each runs in an empty folder with `penguins.csv` beside it, with one thread, so that the same machine gives the same outputs.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

TUTORIALS = Path(__file__).resolve().parent / "tutorials"
ROOT = TUTORIALS.parent.parent
LARGEST = 150_000
"""Bytes that a notebook may have."""


def executed(path: Path) -> dict[str, Any]:
    """A notebook with the outputs that its code has now."""
    os.environ |= {
        "JUPYTER_PLATFORM_DIRS": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(TUTORIALS / "penguins.csv", folder)
        NotebookClient(notebook, timeout=120, resources={"metadata": {"path": folder}}, record_timing=False).execute()
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            output.pop("execution_count", None)
            output.get("metadata", {}).clear()
        if cell["cell_type"] == "code":
            cell["execution_count"] = None
            cell["outputs"] = _joined([one for one in cell["outputs"] if one.get("name") != "stderr"])
            for output in cell["outputs"]:
                if output["output_type"] == "execute_result":
                    output["execution_count"] = None
    notebook["metadata"] = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return notebook


def _joined(outputs: list[Any]) -> list[Any]:
    """Outputs in which texts that were printed one after another are one."""
    joined: list[Any] = []
    for one in outputs:
        if joined and one["output_type"] == joined[-1]["output_type"] == "stream":
            joined[-1]["text"] += one["text"]
        else:
            joined.append(one)
    return joined


def main(names: list[str]) -> None:
    """Writes the outputs of the named notebooks, or of all."""
    for path in sorted(TUTORIALS.glob("*.ipynb")):
        if not names or path.stem in names:
            text = nbformat.writes(nbformat.from_dict(executed(path))) + "\n"
            if len(text.encode()) > LARGEST:
                raise SystemExit(f"{path.name}: {len(text.encode()):,} bytes, more than {LARGEST:,}; show less")
            path.write_text(json.dumps(json.loads(text), indent=1, ensure_ascii=False) + "\n")
            sys.stdout.write(f"{path.name}: {path.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main(sys.argv[1:])
