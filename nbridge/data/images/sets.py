"""Sets of images that are a modality each: a folder, the folders in a folder, or the files that a column names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nbridge.common.messages import clip, listing
from nbridge.data.ids import identifier_of
from nbridge.data.images.files import ENDINGS, Found, images_in
from nbridge.data.images.tables import ImageFolder
from nbridge.errors import DataError


@dataclass(frozen=True)
class ImageSet:
    """Images that form a modality.

    Arguments:
        option: The option of the source `images` for their location, ``folders`` or ``files``.
        where: The folder as written in the spec, or the column of paths.
        called: The name of the folder or the column.
        images: The files.
        remarks: Remarks for the user to review.
        incomplete: Whether a column refers to files that do not exist.
    """

    option: str
    where: str
    called: str
    images: Sequence[Path]
    remarks: tuple[str, ...] = ()
    incomplete: bool = False

    @property
    def stems(self) -> set[str]:
        """The identifiers of images in a folder."""
        return {identifier_of(path.stem) for path in self.images}

    def table(self, id_column: str) -> ImageFolder:
        """A folder as a table of identifiers."""
        return ImageFolder(self.images[0].parent, id_column)


def images_of(typed: str, folder: Path) -> list[ImageSet]:
    """Finds the images of a folder: of one modality, or of one per subfolder.

    Arguments:
        typed: The folder as given by the user, for the spec.
        folder: The folder.

    Raises:
        DataError: if it contains no images, or its subfolders have no rows in common.
    """
    found = images_in(folder)
    if found.images:
        return [_of_folder(typed, folder.resolve().name, found)]
    inside = [_of_folder(str(Path(typed, path.name)), path.name, images_in(path)) for path in found.others if path.is_dir()]
    inside = [one for one in inside if one.images]
    if not inside:
        raise DataError(f"{folder}: no image in this folder ({listing(ENDINGS)}), nor in folders in it")
    if len(inside) > 1 and len(set().union(*(one.stems for one in inside))) == sum(len(one.images) for one in inside):
        names = clip(listing(one.called for one in inside), 100)
        raise DataError(
            f"{folder}: no name of an image is in two of its folders ({names}), so that no row has two modalities; if they are classes, "
            "write a table with a column of paths and one of classes"
        )
    loose = [path.name for path in found.others if not path.is_dir()]
    remarks = (f"{typed}: passed over, not in a folder of images: {clip(listing(loose), 100)}",) if loose else ()
    return [replace(inside[0], remarks=(*remarks, *inside[0].remarks)), *inside[1:]]


def _of_folder(typed: str, called: str, found: Found) -> ImageSet:
    others = clip(listing(path.name for path in found.others), 100)
    remark = f"{typed}: passed over, no images by their names: {others}"
    return ImageSet("folders", typed, called, found.images, (remark,) if found.others else ())
