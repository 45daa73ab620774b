"""Pushes, pulls and loads models on the Hugging Face Hub, or a server with the same API.

A repository gets only the files of a model folder: ``config.json``, ``model.safetensors``, and ``README.md`` with the hub's metadata
header. Downloads are validated like any model folder; no downloaded code is executed, and only what
`nbridge.load` may import is imported.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from nbridge.common.atomic_files import replace_folder, scratch_beside, writing
from nbridge.common.json_text import parse_json
from nbridge.common.messages import clip, some_of
from nbridge.data.patterns import Patterns
from nbridge.errors import NBridgeError, RunError
from nbridge.models.base import MultimodalVAE
from nbridge.sharing.card import hub_card
from nbridge.spec.registry import allowing
from nbridge.spec.spec import Spec
from nbridge.training.checkpoint import CARD, CONFIG, TENSORS, load_model, model_folder
from nbridge.version import __version__

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.hf_api import ModelInfo

FILES = (CARD, TENSORS, CONFIG)
MAX_NAMES = 4
"""Number of foreign files named in a message."""


def push(
    directory: str | os.PathLike[str],
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    license: str | None = None,  # noqa: A002 (the field's name)
    allow: Iterable[str] = (),
    token: str | None = None,
    endpoint: str | None = None,
) -> str:
    """Pushes the model of a run to a repository in one commit, creating the repository if needed.

    Arguments:
        directory: A run folder, or the model folder inside it. The spec is included, with its file and column names; data are not.
        repo: ``user/name``.
        private: Whether a newly created repository is private.
        revision: The branch, created if needed; ``main`` when omitted.
        license: The licence in the model card, such as ``apache-2.0``; the card's own when omitted.
        allow: Packages whose classes the model's spec may import, as in `nbridge.load`.
        token: A token with write access; when omitted, the one logged in with, or ``HF_TOKEN``.
        endpoint: The hub's URL; when omitted, ``HF_ENDPOINT`` or huggingface.co.

    Returns:
        The URL of the repository.

    Raises:
        RunError: when the model is incomplete, the repository holds something else or is not writable, or the hub cannot be reached.
    """
    folder = model_folder(directory)
    with allowing(allow):
        load_model(folder)
    api = _api(token, endpoint)
    from huggingface_hub import CommitOperationAdd, get_token
    from huggingface_hub.errors import RepositoryNotFoundError

    with _translated_errors(repo, revision, api):
        if not (token or get_token()):
            raise RunError(f"{repo}: pushing needs a token; log in with: hf auth login, or set HF_TOKEN")
        try:
            info = api.model_info(repo)
        except RepositoryNotFoundError:
            api.create_repo(repo, private=private or None, exist_ok=True)
        else:
            _check_push(repo, info, api, private=private)
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        contents = {CARD: hub_card(folder, license), TENSORS: folder / TENSORS, CONFIG: folder / CONFIG}
        added = [CommitOperationAdd(name, content) for name, content in contents.items()]
        api.create_commit(repo, added, commit_message=f"Upload model (nbridge {__version__})", revision=revision)
    return f"{api.endpoint}/{repo}"


def pull(
    repo: str, out: str | os.PathLike[str],
    *, revision: str | None = None, overwrite: bool = False, allow: Iterable[str] = (),
    token: str | None = None, endpoint: str | None = None,
) -> Path:  # fmt: skip
    """Downloads a model into a folder that `nbridge.load` and all commands accept.

    The folder is created only after the model has been loaded, which imports only what `nbridge.load` would.

    Arguments:
        repo: ``user/name``.
        out: The folder to create.
        revision: A branch, a tag or a commit; ``main`` when omitted.
        overwrite: Whether an existing model folder may be replaced; nothing else ever is.
        allow: Packages whose classes the model's spec may import, as in `nbridge.load`.
        token: A token, for a private repository; when omitted, the one logged in with, or ``HF_TOKEN``.
        endpoint: The hub's URL; when omitted, ``HF_ENDPOINT`` or huggingface.co.

    Returns:
        The folder.

    Raises:
        RunError: when the folder cannot be created, the repository does not exist or holds no nbridge model, a file is damaged, or the hub
            cannot be reached.
    """
    target = Path(out)
    _check_target(target, overwrite)
    api = _api(token, endpoint)
    with writing(target), scratch_beside(target.absolute()) as scratch:
        with _translated_errors(repo, revision, api):
            found = _download(api, repo, revision, scratch / "downloaded")
        place = scratch / "model"
        place.mkdir()
        for name in FILES:
            if (found / name).is_file():
                (found / name).replace(place / name)
        with allowing(allow):
            _read(place, repo)
        replace_folder(target.absolute(), place)
    return target


def load(
    repo: str, *, revision: str | None = None, token: str | None = None, endpoint: str | None = None
) -> tuple[MultimodalVAE, Spec, Patterns | None]:
    """Loads the network of a repository, its spec and the missingness patterns of its training rows; files stay in the hub's cache.

    If ``HF_HUB_OFFLINE`` is set, only cached models can be loaded. The other arguments are those of `nbridge.load`.

    Raises:
        RunError: as for `pull`.
    """
    api = _api(token, endpoint)
    from huggingface_hub import constants

    with _translated_errors(repo, revision, api):
        if constants.HF_HUB_OFFLINE:
            found = Path(api.snapshot_download(repo, revision=revision, allow_patterns=list(FILES)))
        else:
            found = _download(api, repo, revision)
    return _read(found, repo)


def _api(token: str | None, endpoint: str | None) -> HfApi:
    if find_spec("huggingface_hub") is None:
        raise RunError('the hub needs huggingface_hub, which is not installed: pip install "nbridge[hub]"')
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint, token=token, library_name="nbridge", library_version=__version__)


def _check_target(target: Path, overwrite: bool) -> None:
    if not target.absolute().parent.is_dir():
        raise RunError(f"{target}: folder {target.parent} does not exist")
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not target.is_dir() or {file.name for file in target.iterdir()} - set(FILES):
        raise RunError(f"{target}: exists and is not an nbridge model folder; choose another")
    if not overwrite:
        raise RunError(f"{target}: model folder exists already. Use --overwrite to replace it.")


def _names(info: ModelInfo) -> list[str]:
    return [file.rfilename for file in info.siblings or ()]


def _check_push(repo: str, info: ModelInfo, api: HfApi, *, private: bool) -> None:
    """Refuses to push a private model to a public repository, or to a repository with other contents."""
    if private and not info.private:
        raise RunError(f"{repo}: exists already and is public; make it private on its page, or choose another name")
    names = _names(info)
    others = [name for name in names if name not in (*FILES, ".gitattributes")]
    ours = CONFIG in names and _is_nbridge_config(Path(api.hf_hub_download(repo, CONFIG)))
    if not ours and (others or CONFIG in names):
        held = some_of([clip(name) for name in others or [CONFIG]], MAX_NAMES)
        raise RunError(f"{repo}: holds other files ({held}) and no nbridge model; choose another name")


def _download(api: HfApi, repo: str, revision: str | None, place: Path | None = None) -> Path:
    """Downloads only the files of a model, to a folder or to the hub's cache."""
    names = _names(info := api.model_info(repo, revision=revision))
    if not {CONFIG, TENSORS} <= set(names):
        holds = f"it holds {some_of([clip(name) for name in names], MAX_NAMES)}" if names else "it is empty"
        raise RunError(f"{repo}: not an nbridge model, expected {CONFIG} and {TENSORS}; {holds}")
    # The cache records the branch for offline use; a folder gets exactly the commit that was checked.
    exactly = revision if place is None else info.sha
    return Path(api.snapshot_download(repo, revision=exactly, allow_patterns=list(FILES), local_dir=place))


def _read(place: Path, repo: str) -> tuple[MultimodalVAE, Spec, Patterns | None]:
    """Loads a downloaded model; error messages name the repository instead of the folder."""
    if not _is_nbridge_config(place / CONFIG):
        raise RunError(f"{repo}: not an nbridge model; {CONFIG} is from another library")
    try:
        return load_model(place)
    except NBridgeError as error:
        raise RunError(str(error).replace(str(place), repo)) from error


def _is_nbridge_config(config: Path) -> bool:
    try:
        return {"nbridge", "format_version", "spec"} <= set(parse_json(config.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        return False


@contextmanager
def _translated_errors(repo: str, revision: str | None, api: HfApi) -> Iterator[None]:
    """Turns errors of the hub or the connection into one-line messages."""
    try:
        yield
    except NBridgeError:
        raise
    except Exception as error:
        if (reason := _reason(error, revision, api)) is None:
            raise
        raise RunError(f"{clip(repo, 100)}: {reason}") from error


def _reason(error: Exception, revision: str | None, api: HfApi) -> str | None:
    """The reason for an error of the hub's client; None for unexpected errors."""
    from huggingface_hub import errors

    # The first base of HfHubHTTPError is the error of its HTTP library, which differs between versions.
    unreachable = (*errors.HfHubHTTPError.__bases__[:1], ConnectionError, TimeoutError)
    log_in = "log in with: hf auth login, or set HF_TOKEN"
    reasons: list[tuple[type[Exception] | tuple[type[Exception], ...], str]] = [
        (errors.HFValidationError, "invalid repository name, expected user/name"),
        (errors.GatedRepoError, f"access must be requested first, on {api.endpoint}"),
        (errors.RepositoryNotFoundError, f"no such repository on {api.endpoint}, or it is private and this token has no access; {log_in}"),
        (errors.RevisionNotFoundError, f"no branch, tag or commit {clip(revision)!r}"),
        (errors.HfHubHTTPError, _answer(error, api, log_in) if isinstance(error, errors.HfHubHTTPError) else ""),
        (errors.LocalTokenNotFoundError, f"a token is needed; {log_in}"),
        (errors.OfflineModeIsEnabled, f"{api.endpoint} cannot be used, because HF_HUB_OFFLINE is set"),
        (errors.LocalEntryNotFoundError, f"not in the hub's cache, and {api.endpoint} cannot be reached or HF_HUB_OFFLINE is set"),
        (unreachable, f"{api.endpoint} cannot be reached ({clip(error, 100) or type(error).__name__})"),
        # Invalid metadata in the card, such as an unknown licence.
        (ValueError, clip(" ".join(str(error).split()), 200)),
    ]
    return next((text for kind, text in reasons if isinstance(error, kind)), None)


def _answer(error: HfHubHTTPError, api: HfApi, log_in: str) -> str:
    status = error.response.status_code
    if status == 401:
        return f"{api.endpoint} rejected this token; {log_in}"
    if status == 403:
        return f"{api.endpoint} denied access: this token lacks permission"
    return f"{api.endpoint} answered {status}{f' ({clip(error.server_message, 100)})' if error.server_message else ''}; try again later"
