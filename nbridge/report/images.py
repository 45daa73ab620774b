"""Images of rows not seen: as they are, from everything, and as they are imputed from others, one line of a picture each."""

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
from nbridge.report.subject import LeftOut, Served, Subject
from nbridge.report.tree import element, paragraph, scrolling
from nbridge.visual.modality_kinds import brightness, class_names, is_image, labelled
from nbridge.visual.png import scaled, strip

COLUMNS, FEWEST = 10, 4
"""Rows that are shown, fewer where pictures are large."""
TARGETS, SOURCES = 4, 5
"""Image modalities that are shown, and others that each of them is imputed from by itself."""
SIDE = 64
"""Pixels of a tile's longer side."""
BYTES = 1_500_000
"""What all tiles together hold at most, before they are packed."""

Tiles = list[np.ndarray | None]


def section(subject: Subject) -> Iterator[Element]:
    """A picture for each image modality."""
    served = subject.model_and_rows
    model = served.model
    targets = [name for name in model.names if is_image(model, name)]
    if not targets:
        raise LeftOut("no modality is an image of shape [1 or 3, height, width]")
    shown = targets[:TARGETS]
    yield paragraph(
        f"Rows of the {served.split} split, reconstructed from all that they have, and imputed from others. What is imputed is the best "
        f"estimate, as from nbridge impute: the mean over {POINT_DRAWS} draws of z, smoother than any image; the last line is a single "
        "draw, from all others.",
        quiet=True,
    )
    for target in shown:
        yield from _picture(subject, served, target, _columns(model, shown))
    if more := targets[TARGETS:]:
        yield paragraph(f"and {len(more)} more: {', '.join(more)}", quiet=True)


def chosen(model: MultimodalVAE, batch: Batch, target: str, most: int) -> Batch:
    """Rows to show: those that have the target and most others, of one class after the other where there are classes."""
    number = torch.stack([batch.present[name] for name in batch.names]).sum(0)
    having = batch.present[target].nonzero()[:, 0]
    having = having[(-number[having]).argsort(stable=True)]
    if (label := labelled(model)) is not None:
        classes = torch.where(batch.present[label], model.prepare(batch).values[label], -1)
        turns = _turns(classes[having].tolist())
        first = torch.tensor(sorted(range(len(turns)), key=turns.__getitem__)[:most], dtype=torch.long)
        having = having[first]
        having = having[classes[having].argsort(stable=True)]
    return batch.index(having[:most])


def _caption(subject: Subject, served: Served, batch: Batch) -> str:
    """The rows, and their classes where there are any."""
    told = f"{len(batch)} row{'s' if len(batch) != 1 else ''} side by side"
    if (label := labelled(served.model)) is None:
        return told
    names, of = class_names(subject.spec, label), served.model.prepare(batch).values[label].tolist()
    classes = (names[one] if there else "–" for one, there in zip(of, batch.present[label].tolist(), strict=True))
    return f"{told}; {label}: {', '.join(classes)}"


def _turns(classes: Sequence[int]) -> list[int]:
    """How many rows of the same class stand before each row; of rows without a class, as if they came last."""
    before: dict[int, int] = {}
    turns = []
    for one in classes:
        turns.append(before.get(one, 0) + (len(classes) if one < 0 else 0))
        before[one] = before.get(one, 0) + 1
    return turns


def _columns(model: MultimodalVAE, targets: Sequence[str]) -> int:
    """How many rows fit."""
    lines = 4 + min(SOURCES, len(model.names) - 1)
    each = sum(math.prod(model.likelihoods[name].shape) * _zoom(model.likelihoods[name].shape) ** 2 for name in targets)
    return max(FEWEST, min(COLUMNS, int(BYTES / (lines * each))))


def _zoom(shape: Sequence[int]) -> float:
    return min(1.0, SIDE / max(shape[1:]))


def _picture(subject: Subject, served: Served, target: str, columns: int) -> Iterator[Element]:
    """The heading and the picture of one modality; a word where no row has it."""
    model, batch = served.model, chosen(served.model, served.many, target, columns)
    yield element("h3", target)
    if not len(batch):
        yield paragraph("absent from all of these rows", quiet=True)
        return
    low, high = brightness(model.likelihoods[target], model.prepare(batch).values[target])
    lines = list(_lines(served, batch, target))
    rows = []
    for heading, images, rows_with in lines:
        tiles: Tiles = [scaled(image, low, high) if there else None for image, there in zip(images, rows_with.tolist(), strict=True)]
        picture: Element | str = "absent"
        if rows_with.any():
            text = f"{int(rows_with.sum())} images of {target}, {heading}"
            picture = element("img", src=strip(tiles, SIDE), alt=text)
        rows.append(element("tr", element("th", heading, scope="row"), element("td", picture)))
    whole = element("table", element("caption", _caption(subject, served, batch)), element("tbody", *rows), class_="strips")
    yield scrolling(whole, target)
    others = len(model.names) - 1
    if others > SOURCES:
        yield paragraph(f"and from {others - SOURCES} more modalities, each by itself", quiet=True)


def _lines(served: Served, batch: Batch, target: str) -> Iterator[tuple[str, Tensor, Tensor]]:
    """A heading, images (B, C, H, W), and which rows have what they are made from."""
    model, everything = served.model, torch.ones(len(batch), dtype=torch.bool)
    others = [name for name in model.names if name != target]
    yield "real", model.prepare(batch).values[target], everything
    yield "reconstructed", _estimate(served, batch, target), everything
    if not others:
        return
    some = torch.stack([batch.present[name] for name in others]).any(0)
    if len(others) > 1:
        yield "from all others", _estimate(served, batch.only(*others), target), some
    for name in others[:SOURCES]:
        yield f"from {name}", _estimate(served, batch.only(name), target), batch.present[name]
    yield "a draw", _estimate(served, batch.only(*others), target, draws=1), some


def _estimate(served: Served, batch: Batch, target: str, draws: int = POINT_DRAWS) -> Tensor:
    """The mean image over draws of z given what is present."""
    model = served.model
    with serving(model, served.seed):
        z = model.posterior(batch.to(model.device), draws).sample()
        return decode(model, target, z, model.given(target, batch).to(z.device), point=True)
