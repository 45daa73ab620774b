"""Uploaded rows: reads a csv file of rows within limits, with the columns of the model's tables."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nbridge.common.messages import clip
from nbridge.errors import DataError, NBridgeError
from nbridge.explore.inputs import shown
from nbridge.explore.session import Session
from nbridge.inference.reading import read_batch
from nbridge.model import Model

ROWS = 200
"""Maximum number of rows."""
FIELDS = 200_000
"""Maximum number of cells."""


def upload_rows(session: Session, content: bytes) -> dict[str, Any]:
    """The rows of a csv file, as the page shows them.

    Raises:
        DataError: when it is not csv, has too many rows or no row, lacks the columns of the model, or has values of other types.
    """
    _check(content)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        path.write_bytes(content)
        try:
            usual = {} if session.model.covariates is None else {name: x[0] for name, x in session.model.covariates.usual(1).items()}
            batch = read_batch(Model(session.model, session.spec), path, usual or None).batch
            session.model.check(batch)
        except NBridgeError as error:
            raise DataError(str(error).replace(str(path), "the file").splitlines()[0]) from error
    rows = [shown(session, session.model.prepare(batch.slice(row, row + 1))) for row in range(len(batch))]
    return {"rows": rows}


def _check(content: bytes) -> None:
    """Checks that a file is csv of few enough rows, without much work."""
    try:
        text = content.decode("utf-8-sig")
        if "\0" in text:
            raise DataError("the file is not csv: it has zero bytes")
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except UnicodeDecodeError as error:
        raise DataError("the file is not csv in UTF-8") from error
    except csv.Error as error:
        raise DataError(f"the file is not csv: {clip(str(error))}") from error
    filled = [row for row in rows if row]
    if len(filled) < 2:
        raise DataError("the file has no rows; expected a line with the names of the columns, and one line for each row")
    if len(filled) - 1 > ROWS:
        raise DataError(f"the file has {len(filled) - 1:,} rows; at most {ROWS} can be explored at a time, so choose some of them")
    if sum(map(len, filled)) > FIELDS:
        raise DataError(f"the file has more than {FIELDS:,} cells; choose fewer rows")
