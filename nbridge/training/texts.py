"""Texts in a spec: the modalities that hold any, and their vocabularies, which are made from the data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from nbridge.common.vocabulary import learned_tokens, make_vocabulary, tokenizer_content
from nbridge.data.batch import Batch
from nbridge.data.column import as_array
from nbridge.data.text_values import TextForm, longest_of, numbered_texts, texts_in_array, too_long
from nbridge.errors import DataError, SpecError
from nbridge.nn.likelihoods import Likelihood
from nbridge.nn.text_likelihood import Text
from nbridge.spec.registry import resolve
from nbridge.spec.spec import ModalitySpec, Spec


def text_options(modality: ModalitySpec) -> Mapping[str, Any] | None:
    """The options of the likelihood of a modality of texts; None for any other modality."""
    own = modality.likelihood
    return own.kwargs if issubclass(resolve("likelihoods", own.type, Likelihood), Text) else None


def text_forms(spec: Spec, *, training: bool = False) -> dict[str, TextForm]:
    """How the texts of a spec are read and written, by modality; in training, texts without a known token are no mistake."""
    found = {name: text_options(modality) for name, modality in spec.modalities.items()}
    forms = {name: _form(name, spec.modalities[name].shape[0], options) for name, options in found.items() if options is not None}
    return {name: replace(form, lenient=training) for name, form in forms.items()}


def with_token_count(modality: ModalitySpec) -> dict[str, Any]:
    """The options of a modality's encoder, with the number of tokens of its likelihood where the encoder takes and lacks it."""
    options, text = dict(modality.encoder.kwargs), text_options(modality)
    if text is not None and "tokens" in options and options["tokens"] is None:
        options["tokens"] = len(_form("", modality.shape[0], text).vocabulary)
    return options


def _row_of(name: str, row: int) -> str:
    return f"modality {name!r}: row {row}"


def with_vocabularies(spec: Spec, texts: Callable[[str], Iterable[str]], where: Callable[[str, int], str] = _row_of) -> Spec:
    """A spec with the vocabularies that it leaves to the data, and with the contents of tokenizer files.

    Arguments:
        spec: The spec.
        texts: The texts of a modality, empty where absent.
        where: Formats the position of a row of a modality, for messages.

    Raises:
        DataError: if the texts cannot be read, there is none, or one has too many tokens.
    """
    changed = {name: own for name, modality in spec.modalities.items() if (own := _settled(name, modality, texts, where)) is not None}
    return spec.model_copy(update={"modalities": {**spec.modalities, **changed}}) if changed else spec


def settle_arrays(spec: Spec, data: Mapping[str, ArrayLike | Tensor] | Batch | object) -> Spec:
    """A spec with the vocabularies of texts passed from Python, arrays by modality."""
    if isinstance(data, Batch) or not isinstance(data, Mapping):
        return spec

    def texts(name: str) -> list[str]:
        if name not in data:
            raise DataError(f"modality {name!r}: no array of this name")
        array = _as_texts(name, data[name])
        if array.dtype.kind in "buif":
            raise DataError(f"modality {name!r}: numbers, expected texts; for token numbers list the tokens in likelihood.vocabulary")
        return texts_in_array(array, f"modality {name!r}")

    return with_vocabularies(spec, texts)


def numbered_arrays(spec: Spec, data: Mapping[str, ArrayLike | Tensor]) -> dict[str, ArrayLike | Tensor]:
    """Arrays by modality, with texts as token numbers."""
    found = dict(data)
    for name, form in text_forms(spec, training=True).items():
        if name in found and not isinstance(found[name], Tensor):
            found[name] = numbered_texts(form, _as_texts(name, found[name]), f"modality {name!r}")
    return found


def _as_texts(name: str, array: ArrayLike | Tensor) -> np.ndarray:
    # A list of texts and None would otherwise become an array of objects with other rules for NaN.
    return np.array(array, dtype=object) if isinstance(array, list | tuple) else as_array(f"modality {name!r}", array)


def _settled(
    name: str, modality: ModalitySpec, texts: Callable[[str], Iterable[str]], where: Callable[[str, int], str]
) -> ModalitySpec | None:
    """A modality with its vocabulary; None if nothing is left to the data."""
    options = text_options(modality)
    if options is None:
        return None
    if options["tokenizer"] is not None:
        content = tokenizer_content(options["tokenizer"])
        return None if content == options["tokenizer"] else _with(modality, {**options, "tokenizer": content})
    if options["vocabulary"] is not None or options["tokens"] == "bytes":
        return None
    every = list(texts(name))
    vocabulary = learned_tokens(options["tokens"], every, options["most_tokens"])
    if not vocabulary:
        raise DataError(f"modality {name!r}: no text in any row, from which its vocabulary could be made")
    settled = _with(modality, {**options, "vocabulary": vocabulary})
    form = _form(name, modality.shape[0], settled.likelihood.kwargs)
    row, most = longest_of(form.vocabulary, every)
    if most >= form.length and not form.cut:
        raise DataError(f"{where(name, row)} holds the longest text, of {too_long(most, form.length, form.vocabulary.unit)}")
    return settled


def _with(modality: ModalitySpec, options: Mapping[str, Any]) -> ModalitySpec:
    return modality.model_copy(update={"likelihood": replace(modality.likelihood, kwargs=dict(options))})


def _form(name: str, length: int, options: Mapping[str, Any]) -> TextForm:
    try:
        vocabulary = make_vocabulary(options["tokens"], options["vocabulary"], options["tokenizer"])
    except SpecError as error:
        raise SpecError([f"modalities.{name}.{line}" for line in error.problems]) from error
    return TextForm(vocabulary, length, options["longer"] == "cut")
