"""Reads covariates, columns beside the modalities, from the labels of rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from nbridge.common.messages import clip
from nbridge.data.batch import Batch
from nbridge.data.split_labels import NoColumnError, RowLabels
from nbridge.errors import DataError
from nbridge.nn.covariates import Covariates

Labels = Callable[[str], RowLabels]
"""Reads a column of labels by its name."""


def read_covariates(covariates: Covariates, labels: Labels, fixed: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The value of each covariate in each row, shape (N,): class indices, or numbers.

    Arguments:
        covariates: The covariates of a model.
        labels: Reads a column by its name.
        fixed: Values for rows that have none, and for columns that the rows lack.

    Raises:
        DataError: for the first row without a value, or with one that the model does not know, by its file, row and column.
    """
    fixed, found, lacking = fixed or {}, {}, []
    for name in covariates.names:
        try:
            texts = labels(name)
        except NoColumnError as error:
            if name not in fixed:
                raise DataError(f"covariates: {error}") from error
            lacking.append(name)
            continue
        if texts.modality:
            raise _error(name, texts, f"modality {texts.modality!r} uses this column as well; remove it from one of them")
        found[name] = covariates.tensor(name, _numbers(covariates, name, texts, fixed.get(name)))
    rows = len(next(iter(found.values()))) if found else None
    if rows is not None:
        found |= {name: fixed[name].repeat(rows) for name in lacking}
    return found


def classes_of(name: str, texts: RowLabels) -> tuple[str, ...]:
    """The sorted classes of a categorical covariate; whole numbers are sorted as numbers.

    Raises:
        DataError: if no row has a value.
    """
    known = {*texts.texts} - {""}
    if not known:
        raise _error(name, texts, "no row has a value; remove the covariate, or fill it in")
    return tuple(sorted(known, key=lambda text: (0, int(text), text) if text.lstrip("-").isdecimal() else (1, 0, text)))


def check_batch(covariates: Covariates, batch: Batch) -> Batch:
    """A batch passed from Python with its covariates in the types of the model.

    Raises:
        DataError: if a covariate is missing, or has an index without a class.
    """
    values = {}
    for name in covariates.names:
        if name not in batch.covariates:
            raise DataError(f"covariate {name!r}: not in this batch; give it, Batch(..., covariates={{{name!r}: ...}})")
        x, classes = batch.covariates[name], covariates.classes.get(name)
        if classes:
            wrong = (x != x.round()) | (x < 0) | (x >= len(classes))
        elif name in covariates.sizes:
            # NaN where a row has no counts.
            wrong = (x <= 0) | x.isinf() | (x.isnan() & (name in covariates.classes))
        else:
            wrong = ~x.isfinite()
        if wrong.any():
            row = int(wrong.nonzero()[0])
            number = "a positive number" if name in covariates.sizes else "a finite number"
            expected = f"an index from 0 to {len(classes) - 1}" if classes else number
            raise DataError(f"covariate {name!r}, row {row}: {x[row].item():g}, expected {expected}")
        values[name] = x.long() if classes else x.float()
    return batch.with_covariates(values)


def _numbers(covariates: Covariates, name: str, texts: RowLabels, fixed: Tensor | None) -> list[float]:
    """The value of each row as a number; a text is looked up once."""
    known: dict[str, float] = {}
    empty = None if fixed is None else fixed.item()
    # The depth of a row may be empty where its counts are; `check_sizes` decides.
    if empty is None and name in covariates.sizes and name not in covariates.classes:
        empty = float("nan")
    for row, text in enumerate(texts.texts):
        if text in known:
            continue
        if not text:
            if empty is None:
                more = sum(not other for other in texts.texts) - 1
                others = f" ({more:,} more such row{'s' if more > 1 else ''})" if more else ""
                raise _error(name, texts, f"{texts.where(row)} has no value{others}; fill it in, or leave such rows out")
            known[text] = empty
            continue
        try:
            known[text] = covariates.number_of(name, text)
        except DataError as error:
            raise _error(name, texts, f"{texts.where(row)}: {error}") from error
    return [known[text] for text in texts.texts]


def check_sizes(columns: Mapping[str, str], batch: Batch, where: Callable[[int], str] = "row {}".format) -> None:
    """Checks that each row with counts has the size factor that their column holds.

    Arguments:
        columns: The column of the size factors of each modality that has one.
        batch: The rows.
        where: Formats the location of a row by its index.

    Raises:
        DataError: for the first row without one.
    """
    for name, column in columns.items():
        if name in batch.present and (without := batch.present[name] & batch.covariates[column].isnan()).any():
            row = int(without.nonzero()[0])
            raise DataError(f"column {clip(column)!r}: {where(row)} has no size factor, but counts of modality {name!r}; fill it in")


def same_rows(found: Mapping[str, Tensor], rows: int) -> None:
    """Checks that each covariate has one value for each row.

    Raises:
        DataError: when one has another number of values.
    """
    for name, x in found.items():
        if len(x) != rows:
            raise DataError(f"covariate {name!r}: {len(x):,} values for {rows:,} rows; expected one for each row")


def _error(name: str, texts: RowLabels, text: str) -> DataError:
    return DataError(f"{texts.origin}{': ' if texts.origin else ''}{texts.what} (covariate {clip(name)!r}): {text}")
