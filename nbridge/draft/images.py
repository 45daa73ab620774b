"""Infers modalities from image folders and from columns of image paths."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nbridge.common.messages import clip
from nbridge.data.ids import identifier_of
from nbridge.data.images.files import ImageTarget, Size, by, file_at, is_image, size_of
from nbridge.data.images.sets import ImageSet
from nbridge.data.tables.columns import TableFile
from nbridge.data.tables.profiles import Profile, Profiles
from nbridge.draft.writer import Part, conv_encoder
from nbridge.spec.names import free_name

SIDE = 64
"""Longer side, in pixels, that larger images are resized to in the draft."""
LOOKED_AT = 64
"""Number of images decoded to infer the likelihood."""
MOSTLY = 0.8
"""Minimum share of image names in a column of paths, and of nearly black or white pixels in binary images."""
NEAR = 0.1
"""Tolerance of nearly black or white, of 1."""


@dataclass(frozen=True)
class ImageGuesses:
    """Inferred image modalities and data source."""

    parts: list[Part]
    source: Mapping[str, object]
    reasons: Mapping[str, str]
    remarks: list[str]


def guess_images(found: Sequence[ImageSet], source: Mapping[str, object], taken: Collection[str], root: str | None = None) -> ImageGuesses:
    """Infers the image modalities, and the data source for them and the tables.

    Without images, the source is unchanged. Paths in columns are relative to ``root``, or else to the folder of their table.

    Raises:
        DataError: if an image cannot be read.
    """
    if not found:
        return ImageGuesses([], source, {}, [])
    parts: list[Part] = []
    resized = False
    places: dict[str, dict[str, str]] = {}
    for one in found:
        others = [name for name in taken if name != one.called or one.option == "folders"]
        name = free_name(one.called, {*others, *(part.name for part in parts)})
        part, anew = _part(name, one.images, "paths of " if one.option == "files" else "")
        parts, resized = [*parts, part], resized or anew
        places.setdefault(one.option, {})[name] = one.where
    options: dict[str, object] = {"source": "images", **places}
    options |= {"table": source["path"]} if source.get("path") else {}
    options |= {"root": root} if root is not None and "files" in places else {}
    options |= {"missing_files": "absent"} if any(one.incomplete for one in found) else {}
    options |= {"resize": "crop"} if resized else {}
    reasons = {"folders": "the folder of each modality, with files named by row identifier", "files": "columns of paths"}
    return ImageGuesses(parts, options, reasons, [remark for one in found for remark in one.remarks])


def paths_of(profile: Profile, root: Path) -> ImageSet | None:
    """Finds the images that a column refers to; None if it does not contain paths, or none of the files exists."""
    if not names_images(profile):
        return None
    there = [path for text in profile.texts if (path := file_at(root, text)) is not None]
    missing = len(profile.texts) - len(there)
    remark = (
        f"{clip(profile.name)}: {missing:,} of the {len(profile.texts):,} files that it names are not in {root}; taken for absent, "
        "data.missing_files"
    )
    return ImageSet("files", profile.name, profile.name, there, (remark,) if missing else (), bool(missing)) if there else None


def names_images(profile: Profile) -> bool:
    """Whether a column holds names of images, whether they are there or not."""
    return bool(profile.texts) and not profile.numeric and sum(map(is_image, profile.texts)) >= MOSTLY * len(profile.texts)


def all_paths(profiles: Sequence[Profile], files: Sequence[TableFile], root: ImageSet | None) -> dict[str, ImageSet]:
    """The images of each column that names files. Paths are relative to ``root``, an image folder, or else to the folder of their table."""
    found: dict[str, ImageSet] = {}
    for profile in profiles:
        file = next(file for file in files if profile.name in file.columns)
        if images := paths_of(profile, Path(file.path).parent if root is None else root.images[0].parent):
            found[profile.name] = images
    return found


def lost_images(profiles: Sequence[Profile]) -> list[str]:
    """Remarks on columns of image paths whose files do not exist."""
    return [
        f"{clip(profile.name)}: names images, none of which is beside the table ({clip(profile.texts[0])}); name their folder as well"
        for profile in profiles
        if names_images(profile)
    ]


def presence_of(folders: Sequence[ImageSet], named: Mapping[str, ImageSet], found: Profiles) -> list[np.ndarray]:
    """The observed mask of each image modality, (N,)."""
    ids = np.array([]) if found.ids is None else found.ids
    columns = {profile.name: profile.present for profile in found.columns}
    return [*(np.isin(ids, list(one.stems)) for one in folders), *(columns[name] for name in named)]


def id_of(profiles: Sequence[Profile], stems: Collection[str]) -> str | None:
    """Finds the column that contains most of the images' identifiers; None if there is none."""
    shared = {profile.name: len(set(stems).intersection(map(identifier_of, profile.texts))) for profile in profiles}
    telling = [profile for profile in profiles if profile.present.all() and len(profile.texts) == len(profile.codes)]
    # A column with half of the identifiers that is not unique has an error, which is reported when it is read.
    meant = [profile for profile in profiles if profile not in telling and shared[profile.name] > len(stems) / 2]
    best = max((profile.name for profile in telling), key=shared.__getitem__, default="")
    if meant and not shared.get(best):
        return meant[0].name
    return best if shared.get(best) else None


def _part(name: str, paths: Sequence[Path], what: str) -> tuple[Part, bool]:
    """Infers the modality of images, and whether they must be resized."""
    sizes = [size_of(path) for path in paths]
    height, width, resized, why = _shape(sizes)
    some = [paths[place] for place in np.unique(np.linspace(0, len(paths) - 1, LOOKED_AT).astype(int))]
    colour = ImageTarget(name, (3, height, width), "crop")
    pixels = np.stack([colour.decode(path) for path in some])
    grey = all(size.channels == 1 for size in sizes) or bool((pixels == pixels[:, :1]).all())
    likelihood, reason = _likelihood(pixels / 255, grey=grey)
    encoder = conv_encoder((height, width))
    count = f"{what}{len(paths):,} image{'s' if len(paths) != 1 else ''}"
    return Part(name, (1 if grey else 3, height, width), likelihood, f"{count} {why}; {reason}", encoder=encoder), resized


def _shape(sizes: Sequence[Size]) -> tuple[int, int, bool, str]:
    """The proposed height and width, whether images must be resized, and the reason."""
    widths, heights = np.array([size.width for size in sizes]), np.array([size.height for size in sizes])
    width, height = float(np.median(widths)), float(np.median(heights))
    mixed = len({size[:2] for size in sizes}) > 1
    factor = min(1.0, SIDE / max(width, height))
    chosen = max(1, round(height * factor)), max(1, round(width * factor))
    if not mixed:
        there = f"of {by(*sizes[0][:2])} pixels"
        if factor == 1:
            return *chosen, False, there
        return *chosen, True, f"{there}, made {by(chosen[1], chosen[0])}, a size that trains in minutes, by data.resize"
    ends = f"from {by(int(widths.min()), int(heights.min()))} to {by(int(widths.max()), int(heights.max()))} pixels"
    return *chosen, True, f"of several sizes, {ends}, made {by(chosen[1], chosen[0])} by data.resize: crop (or pad, or stretch)"


def _likelihood(pixels: np.ndarray, *, grey: bool) -> tuple[str, str]:
    """The likelihood of pixels, (N, 3, H, W), and the reason for it."""
    ends = float(((pixels < NEAR) | (pixels > 1 - NEAR)).mean())
    if grey and ends >= MOSTLY:
        return "bernoulli", f"grey, {ends:.0%} of its pixels nearly black or white"
    return "discretized_logistic", f"{'grey' if grey else 'colour'}, 256 levels"
