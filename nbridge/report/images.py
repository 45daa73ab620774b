"""Image strips of held-out rows: real, reconstructed from all modalities, and imputed from other modalities."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from xml.etree.ElementTree import Element

import numpy as np
import torch
from torch import Tensor

from nbridge.data.batch import Batch
from nbridge.inference.impute import POINT_DRAWS, decode, serving
from nbridge.models.base import MultimodalVAE
from nbridge.report.run_data import ModelAndRows, RunData, SectionSkipped
from nbridge.report.tree import element, paragraph, scrolling
from nbridge.visual.modality_kinds import class_names, first_categorical, is_image, value_range
from nbridge.visual.png import image_strip, png_of_lines, to_uint8

COLUMNS, FEWEST = 10, 4
"""Number of rows shown, and the minimum for large images."""
TARGETS, SOURCES = 4, 5
"""Maximum number of image modalities shown, and of single modalities that each is imputed from."""
SIDE = 64
"""Longer side of a tile, in pixels."""
BYTES = 1_500_000
"""Maximum total size of all tiles before compression."""

Tiles = list[np.ndarray | None]


def section(data: RunData) -> Iterator[Element]:
    """Image strips for each image modality."""
    loaded = data.model_and_rows
    model = loaded.model
    targets = [name for name in model.names if is_image(model, name)]
    if not targets:
        raise SectionSkipped("no modality is an image of shape [1 or 3, height, width]")
    shown = targets[:TARGETS]
    yield paragraph(
        f"Rows of the {loaded.split} split, reconstructed from all their modalities, and imputed from others. Imputed images are the mean "
        f"over {POINT_DRAWS} draws of z, as from nbridge impute, and smoother than real images. The last line is a single draw from all "
        "others.",
        quiet=True,
    )
    for target in shown:
        yield from _picture(data, loaded, target, _columns(model, shown))
    if more := targets[TARGETS:]:
        yield paragraph(f"and {len(more)} more: {', '.join(more)}", quiet=True)


def chosen(model: MultimodalVAE, batch: Batch, target: str, most: int) -> Batch:
    """Rows to show: those with the target and the most other modalities, balanced over classes and sorted by class if there are classes."""
    number = torch.stack([batch.present[name] for name in batch.names]).sum(0)
    having = batch.present[target].nonzero()[:, 0]
    having = having[(-number[having]).argsort(stable=True)]
    if (label := first_categorical(model)) is not None:
        classes = torch.where(batch.present[label], model.prepare(batch).values[label], -1)
        turns = _ranks_within_class(classes[having].tolist())
        first = torch.tensor(sorted(range(len(turns)), key=turns.__getitem__)[:most], dtype=torch.long)
        having = having[first]
        having = having[classes[having].argsort(stable=True)]
    return batch.index(having[:most])


def _caption(data: RunData, loaded: ModelAndRows, batch: Batch) -> str:
    """The number of rows, and their classes if there are any."""
    text = f"{len(batch)} row{'s' if len(batch) != 1 else ''}"
    if (label := first_categorical(loaded.model)) is None:
        return text
    names, of = class_names(data.spec, label), loaded.model.prepare(batch).values[label].tolist()
    classes = (names[one] if there else "–" for one, there in zip(of, batch.present[label].tolist(), strict=True))
    return f"{text}; {label}: {', '.join(classes)}"


def _ranks_within_class(classes: Sequence[int]) -> list[int]:
    """The number of earlier rows of the same class, for each row; rows without a class sort last."""
    before: dict[int, int] = {}
    turns = []
    for one in classes:
        turns.append(before.get(one, 0) + (len(classes) if one < 0 else 0))
        before[one] = before.get(one, 0) + 1
    return turns


def _columns(model: MultimodalVAE, targets: Sequence[str]) -> int:
    """The number of rows that fit the size limit."""
    lines = 4 + min(SOURCES, len(model.names) - 1)
    shapes = [model.likelihoods[name].shape for name in targets]
    each = sum(math.prod(shape) * min(1.0, SIDE / max(shape[1:])) ** 2 for shape in shapes)
    return max(FEWEST, min(COLUMNS, int(BYTES / (lines * each))))


def _picture(data: RunData, loaded: ModelAndRows, target: str, columns: int) -> Iterator[Element]:
    """The heading and image strips of one modality, or a note if no row has it."""
    model, batch = loaded.model, chosen(loaded.model, loaded.many, target, columns)
    yield element("h3", target)
    if not len(batch):
        yield paragraph("absent from all held-out rows", quiet=True)
        return
    rows = []
    for heading, tiles, rows_with in _tiles(loaded, batch, target):
        picture: Element | str = "absent"
        if rows_with.any():
            text = f"{int(rows_with.sum())} images of {target}, {heading}"
            picture = element("img", src=image_strip(tiles, SIDE), alt=text)
        rows.append(element("tr", element("th", heading, scope="row"), element("td", picture)))
    whole = element("table", element("caption", _caption(data, loaded, batch)), element("tbody", *rows), class_="strips")
    yield scrolling(whole, target)
    others = len(model.names) - 1
    if others > SOURCES:
        yield paragraph(f"and {others - SOURCES} more single modalities to impute from", quiet=True)


def strips(loaded: ModelAndRows, target: str, columns: int) -> bytes | None:
    """The lines of one modality as one PNG file: real images, reconstructed ones, and imputed ones; None if no row has it."""
    batch = chosen(loaded.model, loaded.many, target, columns)
    found = [tiles for _, tiles, rows_with in _tiles(loaded, batch, target) if rows_with.any()] if len(batch) else []
    return png_of_lines(found, SIDE) if found else None


def _tiles(loaded: ModelAndRows, batch: Batch, target: str) -> Iterator[tuple[str, Tiles, Tensor]]:
    """Yields headings, tiles, and masks of the rows that have the required inputs."""
    low, high = value_range(loaded.model.likelihoods[target], loaded.model.prepare(batch).values[target])
    for heading, images, rows_with in _lines(loaded, batch, target):
        there = zip(images, rows_with.tolist(), strict=True)
        yield heading, [to_uint8(image, low, high) if here else None for image, here in there], rows_with


def _lines(loaded: ModelAndRows, batch: Batch, target: str) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yields headings, images (B, C, H, W), and masks of the rows that have the required inputs."""
    model, everything = loaded.model, torch.ones(len(batch), dtype=torch.bool)
    others = [name for name in model.names if name != target]
    yield "real", model.prepare(batch).values[target], everything
    yield "reconstructed", _estimate(loaded, batch, target), everything
    if not others:
        return
    some = torch.stack([batch.present[name] for name in others]).any(0)
    if len(others) > 1:
        yield "from all others", _estimate(loaded, batch.only(*others), target), some
    for name in others[:SOURCES]:
        yield f"from {name}", _estimate(loaded, batch.only(name), target), batch.present[name]
    yield "a draw", _estimate(loaded, batch.only(*others), target, draws=1), some


def _estimate(loaded: ModelAndRows, batch: Batch, target: str, draws: int = POINT_DRAWS) -> Tensor:
    """The mean image over draws of z given the observed modalities."""
    model = loaded.model
    with serving(model, loaded.seed):
        rows = batch.to(model.device)
        z = model.posterior(rows, draws).sample()
        return decode(model, target, z, model.given(target, rows), decoder=model.decoder_of(target, rows), point=True)
