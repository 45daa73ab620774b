"""Texts of a modality as token numbers, and back, where rows are read and written.

A row without a text is absent; an empty text is none, and so is one of blanks alone in a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from nbridge.common.messages import quoted
from nbridge.common.vocabulary import LONGEST_TEXT, UNKNOWN, Vocabulary, padded
from nbridge.data.numpy.class_texts import are_texts, texts_in
from nbridge.errors import DataError


@dataclass(frozen=True)
class TextForm:
    """How the texts of a modality are read and written.

    Arguments:
        vocabulary: The vocabulary.
        length: The most tokens of a text, its end included.
        cut: Whether longer texts are cut; otherwise they are an error.
        lenient: Whether a text may have no known token, as where only the most frequent tokens of the same texts are known.

    Example:
        >>> from nbridge.common.vocabulary import TokenList
        >>> form = TextForm(TokenList("characters", "abc"), 4)
        >>> form.numbers(["ab", ""], "row {}".format).tolist()
        [[3.0, 4.0, 1.0, 0.0], [nan, nan, nan, nan]]
        >>> form.texts(np.array([[3, 4, 1, 0]])).tolist()
        ['ab']
    """

    vocabulary: Vocabulary
    length: int
    cut: bool = False
    lenient: bool = False

    def numbers(self, texts: Sequence[str], where: Callable[[int], str]) -> np.ndarray:
        """The token numbers of texts, (N, L), NaN for empty ones.

        Arguments:
            texts: The texts.
            where: Formats the position of a text, for messages.

        Raises:
            DataError: for the first text that has too many tokens, or none that is known.
        """
        found = np.full((len(texts), self.length), np.nan)
        known: dict[str, list[int]] = {}
        for row, text in enumerate(texts):
            if text:
                if text not in known:
                    known[text] = self._row(text, lambda row=row: where(row))
                found[row] = known[text]
        return found

    def texts(self, numbers: np.ndarray) -> np.ndarray:
        r"""The texts of token numbers, shape :math:`(*, L)`, as objects of shape :math:`(*)`; empty for NaN."""
        flat = np.nan_to_num(numbers.reshape(-1, numbers.shape[-1])).astype(np.int64)
        different, codes = np.unique(flat, axis=0, return_inverse=True)
        spelt = np.array([*(self.vocabulary.text(row) for row in different.tolist()), None], dtype=object)
        return spelt[codes.reshape(-1)].reshape(numbers.shape[:-1])

    @property
    def widest(self) -> int:
        """The most characters of a text."""
        return max(1, (self.length - 1) * self.vocabulary.widest)

    def _row(self, text: str, where: Callable[[], str]) -> list[int]:
        numbers = self.vocabulary.numbers(text) or [UNKNOWN]
        unit = self.vocabulary.unit
        if not self.lenient and not any(number != UNKNOWN for number in numbers):
            raise DataError(
                f"{where()} holds {quoted(text)}, in which no {unit.removesuffix('s')} is in the vocabulary of the model; leave it "
                "empty to impute it"
            )
        if len(numbers) >= self.length and not self.cut:
            raise DataError(f"{where()} holds a text of {too_long(len(numbers), self.length, unit)}")
        return padded(numbers, self.length)


def too_long(count: int, length: int, unit: str) -> str:
    """The message for a text of too many tokens, after "a text of "."""
    longer = f"train with shape: {count + 1}, or " if count < LONGEST_TEXT else ""
    return (
        f"{count:,} {unit}, expected at most {length - 1:,}, one less than the shape of the modality; shorten it, or {longer}"
        "with likelihood: {type: text, longer: cut}"
    )


def holds_texts(array: np.ndarray) -> bool:
    """Whether an array has one text for each row: of dtype U or S, or objects that are texts, None or NaN."""
    if array.dtype.kind != "O":
        return are_texts(array.dtype, array.shape)
    flat = array.reshape(-1)
    return array.shape[1:] in ((), (1,)) and all(isinstance(value, str) or _is_absent(value) for value in flat)


def texts_of_array(array: np.ndarray, what: str) -> list[str]:
    """The texts of an array that `holds_texts`; empty where absent.

    Raises:
        DataError: if its bytes are not text.
    """
    if array.dtype.kind != "O":
        return texts_in(array, what).tolist()
    return [value if isinstance(value, str) else "" for value in array.reshape(-1).tolist()]


def texts_in_array(array: np.ndarray, what: str) -> list[str]:
    """The texts of an array, empty where absent.

    Raises:
        DataError: if it has not one text for each row.
    """
    if not holds_texts(array):
        found = f"{what}: array of dtype {array.dtype} and shape {array.shape}"
        raise DataError(f"{found}, expected one text for each row, an empty one or None where absent")
    return texts_of_array(array, what)


def numbered_texts(form: TextForm, array: np.ndarray, what: str, first: int = 0) -> np.ndarray:
    """The token numbers of an array of texts, (N, L), NaN where absent; an array of numbers is unchanged.

    Arguments:
        form: How texts are read.
        array: The array.
        what: Its name, for messages.
        first: The index of the first row, for messages.

    Raises:
        DataError: as for `TextForm.numbers`, or if it has not one text for each row.
    """
    if array.dtype.kind in "buif":
        return array
    return form.numbers(texts_in_array(array, what), lambda row: f"{what}: row {first + row}")


def written_texts(form: TextForm, given: np.ndarray | None, numbers: np.ndarray, imputed: np.ndarray, kind: str) -> np.ndarray:
    """Texts in place of token numbers; observed rows keep theirs unchanged.

    Arguments:
        form: How texts are written.
        given: The original rows, (N,) or (N, 1); None if there were none.
        numbers: Token numbers, (N, L), or draws of them, (K, N, L).
        imputed: Which rows were imputed, (N,).
        kind: The kind of the dtype: U, S or O.

    Returns:
        Texts in the layout of the rows, after the axis of draws if there is one; fixed-width ones can hold any text of the form.
    """
    spelt, rows = form.texts(numbers), numbers.shape[-2]
    if kind == "S":
        spelt = np.array([text.encode() for text in spelt.reshape(-1)] or [b""], dtype=object)[: spelt.size].reshape(spelt.shape)
    found = spelt if given is None else np.where(imputed, spelt, given.reshape(rows).astype(object))
    if kind != "O":
        width = max(form.widest * (4 if kind == "S" else 1), 0 if given is None else given.dtype.itemsize // (4 if kind == "U" else 1))
        found = found.astype(f"{kind}{width}")
    return found.reshape(*numbers.shape[:-2], *((rows,) if given is None else given.shape))


def longest_of(vocabulary: Vocabulary, texts: Iterable[str]) -> tuple[int, int]:
    """The row with the most tokens, and how many it has; -1 and 0 if there is no text."""
    row, most = -1, 0
    for number, text in enumerate(texts):
        if (count := len(vocabulary.numbers(text))) > most:
            row, most = number, count
    return row, most


def _is_absent(value: object) -> bool:
    return value is None or type(value).__name__ == "NAType" or (isinstance(value, float) and np.isnan(value))
