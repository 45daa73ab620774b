"""Files at a URL, such as ``s3://bucket/rows.parquet``, through fsspec: a complete local copy is read, and a complete local file is put.

Readers and writers see local files only. A URL is fetched once into a temporary folder of this process, which is removed at its end, and
fetched again where a later call names it and it has changed. Nothing is read over a network until a file is needed.
"""

from __future__ import annotations

import atexit
import os
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePath, PurePosixPath
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

from nbridge.common.messages import clip
from nbridge.errors import ADDRESSES, DataError

INSTALL = 'pip install "nbridge[remote]"'
READ_ONLY = frozenset({"http", "https", "zip", "tar", "libarchive", "github", "gitlab", "git", "data", "reference"})
"""Protocols that are read, never written."""
STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "hf", "memory"})
"""Protocols where a file is visible only once it is complete."""
CONNECT, SILENCE = 30, 60
"""Seconds to connect over HTTP, and without any data; there is no limit on the time of a whole file."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")


@dataclass
class _Copy:
    """A local copy, and what identifies the remote version; ``fresh`` until the next call that names files."""

    path: Path
    version: object
    fresh: bool = True


_copies: dict[str, _Copy] = {}
_lock = threading.RLock()
_folders: dict[int, Path] = {}


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a URL rather than a local path.

    Example:
        >>> is_url("s3://bucket/rows.csv"), is_url("rows.csv"), is_url("C:/rows.csv")
        (True, False, False)
    """
    return _SCHEME.match(os.fspath(path)) is not None


def as_url(path: str | os.PathLike[str]) -> str:
    """A URL with both slashes, which `pathlib` drops.

    Example:
        >>> as_url("s3:/bucket/rows.csv")
        's3://bucket/rows.csv'
    """
    return _SCHEME.sub(r"\1://", os.fspath(path))


def local_copy(path: str | os.PathLike[str]) -> Path:
    """The local copy of a remote file or folder, fetched where there is none yet.

    Raises:
        DataError: when it cannot be read, or the URL contains credentials.
    """
    url = checked(path)
    with _lock:
        known = _copies.get(url)
        if known is not None and known.fresh:
            return known.path
        with _translated(url, "read"):
            files, place = _filesystem(url)
            version = _version(files, place)
            if known is not None and version is not None and known.version == version:
                known.fresh = True
                return known.path
            found = _fetch(files, place, url)
        _copies[url] = _Copy(found, version)
        ADDRESSES[str(found)] = url
        return found


def refresh() -> None:
    """Has every remote file compared with its copy when it is next needed."""
    with _lock:
        for copy in _copies.values():
            copy.fresh = False


def check_writable(path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
    """Checks that a URL names a file that may be written; needs a network only where existing files are not to be replaced.

    Raises:
        DataError: when it does not.
    """
    url = checked(path)
    protocol = _protocol(url)
    if "::" in url or protocol in READ_ONLY:
        raise DataError(f"{url}: {protocol} can be read, not written; write to a local file, s3:// or gs://")
    if not PurePosixPath(url).suffix:
        raise DataError(f"{url}: a folder, which cannot be replaced as a whole at a URL; write a local folder, then copy it")
    with _translated(url, "written"):
        files, place = _filesystem(url)
        if not overwrite and files.exists(place):
            raise DataError(f"{url}: exists already. Use --overwrite to replace it.")


@contextmanager
def delivered(out: str | os.PathLike[str] | None) -> Iterator[Path | None]:
    """Yields the path to write: a local path unchanged, for a URL a temporary file, which is put there when the block succeeds.

    Raises:
        DataError: when the URL cannot be written.
    """
    if out is None or not is_url(out):
        yield None if out is None else Path(out)
        return
    check_writable(out)
    url = checked(out)
    with TemporaryDirectory(prefix="nbridge-") as folder:
        local = Path(folder) / PurePosixPath(url).name
        ADDRESSES[str(local)] = url
        try:
            yield local
            with _translated(url, "written"):
                _put(*_filesystem(url), local, url)
        finally:
            ADDRESSES.pop(str(local), None)


def _put(files: Any, place: str, local: Path, url: str) -> None:
    if _protocol(url) in STORES:
        files.put_file(str(local), place)
        return
    temporary = f"{place}.{secrets.token_hex(4)}.tmp"
    try:
        files.put_file(str(local), temporary)
        files.mv(temporary, place)
    except BaseException:
        with suppress(Exception):
            files.rm_file(temporary)
        raise


def _fetch(files: Any, place: str, url: str) -> Path:
    """Downloads a file, or all files of a folder, completely; nothing is left of a download that fails."""
    folder = Path(mkdtemp(dir=_folder()))
    target = folder / (file_name(url) or "rows")
    try:
        if _protocol(url) in ("http", "https") or files.isfile(place):
            files.get_file(place, str(target))
            return target
        names = files.find(place)
        if not names:
            raise FileNotFoundError(place)
        target.mkdir()
        root = files._strip_protocol(place).rstrip("/")
        for name in names:
            file = target / name.removeprefix(root).lstrip("/")
            # Names in an archive may lead elsewhere.
            if not file.resolve().is_relative_to(target.resolve()):
                raise ValueError(f"unsafe name {clip(name)!r}")
            file.parent.mkdir(parents=True, exist_ok=True)
            files.get_file(name, str(file))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return target


def _version(files: Any, place: str) -> object:
    """What changes with the contents of a remote file; None where nothing is known of it, or for a folder."""
    try:
        info = files.info(place)
    except (FileNotFoundError, PermissionError):
        raise
    except Exception:
        return None
    marks = [str(info[key]) for key in ("ETag", "etag", "mtime", "LastModified", "created", "updated", "md5Hash") if info.get(key)]
    return (info.get("size"), *marks) if marks and info.get("type") == "file" else None


def _folder() -> Path:
    """The temporary folder of this process; a forked process makes its own."""
    if (own := os.getpid()) not in _folders:
        _folders[own] = Path(mkdtemp(prefix="nbridge-"))
        atexit.register(_remove, own)
    return _folders[own]


def _remove(process: int) -> None:
    if process == os.getpid():
        shutil.rmtree(_folders[process], ignore_errors=True)


def _filesystem(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    member, _, archive = url.partition("::")
    if archive:
        # An archive is fetched as a whole, since not every server can send parts of it.
        return url_to_fs(f"{member}::{local_copy(archive) if is_url(archive) else archive}")
    if _protocol(url) not in ("http", "https"):
        return url_to_fs(url)
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=SILENCE)
    return url_to_fs(url, client_kwargs={"timeout": timeout, "trust_env": True})


def checked(path: str | os.PathLike[str]) -> str:
    """A URL that may be used; nothing is fetched.

    Raises:
        DataError: when fsspec is missing, the URL is of a local file, or it contains credentials.
    """
    url = as_url(path)
    found = f"a URL ({_protocol(url)}://...), expected a file"
    if _protocol(url) in ("file", "local"):
        raise DataError(f"{path}: {found}; download it first, or name a local file by its plain path")
    if re.search(r"//[^/@]*:[^/@]*@", url) or re.search(r"https?://[^/@]*@", url) or "?" in url:
        shown = re.sub(r"\?.*", "?...", re.sub(r"//[^/@]*@", "//...@", url))
        reason = "a user, a password or a query in a URL may be secret, and would be stored with the model"
        raise DataError(f"{shown}: {reason}; set credentials in the environment of the service, or download the file first")
    if find_spec("fsspec") is None:
        raise DataError(f"{url}: {found}; download it first, or {INSTALL}")
    return url


def _protocol(url: str) -> str:
    return url.split(":", 1)[0].lower()


def file_name(path: str | PurePath) -> str:
    """The name of a file, whose ending is that of its format; of the member where a URL is of one in an archive.

    Example:
        >>> file_name("zip://inner/rows.csv::s3://bucket/all.zip"), file_name("data/rows.csv")
        ('rows.csv', 'rows.csv')
    """
    return PurePath(str(path).split("::")[0] if is_url(path) else path).name


@contextmanager
def _translated(url: str, verb: str) -> Iterator[None]:
    """Turns errors of fsspec and of the packages it uses into one line with the URL."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{url}: cannot be {verb} ({_reason(error, url)})") from error


def _reason(error: Exception, url: str) -> str:
    if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
        # fsspec reports all failures of HTTP in this way.
        error = error.__cause__
    status = getattr(error, "status", None)
    text = clip(" ".join(str(error).split()), 150) or type(error).__name__
    reasons: list[tuple[Callable[[], bool], str]] = [
        (lambda: isinstance(error, ImportError), f"a package is missing: {text}; {INSTALL}, and the package of {_protocol(url)}"),
        (lambda: isinstance(error, FileNotFoundError) or status == 404, "no such file"),
        (lambda: isinstance(error, PermissionError) or status in (401, 403), "access denied; set credentials in the environment"),
        (lambda: "redentials" in f"{type(error).__name__} {text}", "no credentials; set them in the environment of the service"),
        (lambda: isinstance(error, TimeoutError), "no answer in time; check the network, or try again"),
        (lambda: text.startswith("Protocol not known"), f"unknown protocol {_protocol(url)}"),
        (lambda: status is not None, f"the server answered {status}"),
    ]
    return next((reason for holds, reason in reasons if holds()), text)
