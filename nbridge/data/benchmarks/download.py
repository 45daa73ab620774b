"""Finds public files locally, or downloads them once into a cache, with checksums."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from nbridge.common.process_state import log_level
from nbridge.data.folders import VARIABLE, data_folder, find_folder
from nbridge.errors import DataError

if TYPE_CHECKING:
    from rich.progress import Progress

_TIMEOUT = 30
"""Timeout in seconds after which a server counts as unreachable."""


@dataclass(frozen=True)
class Collection:
    """A collection of published files.

    Arguments:
        name: The folder of the files under $NBRIDGE_DATA and in the cache; also the name of the source.
        url: The URL that they are published at.
        md5: The checksum of each file, by name.
    """

    name: str
    url: str
    md5: Mapping[str, str]


def locate(collection: Collection, names: Iterable[str], *, download: bool) -> dict[str, Path]:
    """The paths of these files: in $NBRIDGE_DATA, else in the cache, else downloaded to the cache.

    Raises:
        DataError: when files are missing and can't be downloaded, with all their names and where to put them.
    """
    cache = cache_folder() / collection.name
    own = None if (data := data_folder()) is None else data / collection.name
    folders = [cache] if own is None else [own, cache]
    found = {name: next((folder / name for folder in folders if (folder / name).is_file()), None) for name in names}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        reason = _download(collection, missing, cache) if download else "`download` is false"
        if reason is not None:
            raise DataError(_nowhere(collection, [name for name in missing if not (cache / name).is_file()], own, cache, reason))
    return {name: path or cache / name for name, path in found.items()}


def locate_folder(source: str, path: str | None, name: str, hint: str) -> Path:
    """A folder that cannot be downloaded: the one that the spec names, else the default one in $NBRIDGE_DATA or in the cache.

    The path in the spec is absolute, or relative to the current folder, or else to $NBRIDGE_DATA.

    Raises:
        DataError: when there is none, with the places searched and the hint.
    """
    if path is not None:
        try:
            return find_folder(path)
        except DataError as error:
            raise DataError(f"{source}: {error}; {hint}") from error
    homes = [home for home in (data_folder(), cache_folder()) if home is not None]
    if found := next((home / name for home in homes if (home / name).is_dir()), None):
        return found
    places = " or ".join(str(home / name) for home in homes)
    raise DataError(f"{source}: no folder {places}; {hint}, or name its folder with `path`")


def _nowhere(collection: Collection, missing: list[str], own: Path | None, cache: Path, reason: str) -> str:
    place = f"{own} or {cache}" if own else cache
    hint = f"put them in {place}" if own else f"put them in {place}, or set {VARIABLE} to a folder that has them in {collection.name}/"
    return f"{collection.name}: {', '.join(missing)} not found, and not downloaded from {collection.url} ({reason}); {hint}"


def cache_folder() -> Path:
    """The package's folder in the user cache."""
    import pooch

    return Path(pooch.os_cache("nbridge"))


def _download(collection: Collection, names: list[str], folder: Path) -> str | None:
    """Downloads files, checking each before renaming it into place; returns the error, if any."""
    import pooch

    with _quiet(), _progress() as progress:
        for name in names:
            # pooch's annotations don't cover its own progress bars and downloaders.
            fetch: Any = pooch.HTTPDownloader(progressbar=cast("Any", Bar(progress, f"{collection.name}/{name}")), timeout=_TIMEOUT)
            try:
                pooch.retrieve(collection.url + name, f"md5:{collection.md5[name]}", fname=name, path=folder, downloader=fetch)
            # requests raises only OSErrors, some of them ValueErrors as well; a checksum mismatch is a ValueError.
            except OSError as error:
                return _reason(error)
            except ValueError as error:
                if "known hash" not in str(error):
                    raise
                return f"the checksum of {name} is not the published one"
    return None


def _reason(error: OSError) -> str:
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answered {error.response.status_code}"
    if isinstance(error, requests.RequestException):
        return "no connection to the server"
    return error.strerror or str(error)


@contextmanager
def _quiet() -> Iterator[None]:
    import pooch

    with log_level(pooch.get_logger().name, logging.ERROR):
        yield


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


class Bar:
    """One download in a rich progress display, with the four attributes that pooch expects."""

    def __init__(self, progress: Progress, description: str) -> None:
        self._progress = progress
        self._task = progress.add_task(description, total=None)
        self._total = 0

    @property
    def total(self) -> int:
        """Total bytes, 0 if the server doesn't say."""
        return self._total

    @total.setter
    def total(self, size: int) -> None:
        self._total = size
        self._progress.update(self._task, total=size or None)

    def update(self, size: int) -> None:
        """Adds received bytes."""
        self._progress.update(self._task, advance=size)

    def reset(self) -> None:
        """Restarts the count at 0."""
        self._progress.update(self._task, completed=0)

    def close(self) -> None:
        """Does nothing: the display closes once, for all files."""
