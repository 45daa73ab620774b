"""Cache of trained classifiers, in memory and optionally in a folder, so that evaluating the same rows again does not retrain them.

The key is a hash of everything that determines the classifier. A file stores its key and a hash of its tensors; a file that is damaged, or
has another key or network, counts as missing: the classifier is trained again and the file replaced.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from torch import Tensor, nn

from nbridge.common.hashing import hash_tensor
from nbridge.errors import RunError
from nbridge.training.checkpoint import load_into, load_tensors, save_tensors


class ClassifierCache:
    """Tensors of trained networks by key, in files of a folder that is created when needed, or only in memory."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._tensors: dict[str, dict[str, Tensor]] = {}

    def __len__(self) -> int:
        """The number of networks that this object has stored or found."""
        return len(self._tensors)

    def restore(self, name: str, key: str, network: nn.Module) -> bool:
        """Loads cached tensors into a network and returns True; returns False, leaving the network unchanged, when there are none that fit.

        The key is a hash of everything that determines it.
        """
        tensors = self._tensors.get(key) or self._read(name, key)
        if tensors is None:
            return False
        try:
            load_into(network, tensors, self._path(name, key) or Path(name))
        except RunError:
            return False
        self._tensors[key] = tensors
        return True

    def store(self, name: str, key: str, network: nn.Module) -> None:
        """Stores the tensors of a network. A folder that cannot be written to is no error: the network is trained again next time."""
        tensors = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
        self._tensors[key] = tensors
        if path := self._path(name, key):
            with suppress(OSError, RunError):
                path.parent.mkdir(parents=True, exist_ok=True)
                save_tensors(path, tensors, _metadata(key, tensors))

    def _path(self, name: str, key: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{name}-{key[:16]}.safetensors"

    def _read(self, name: str, key: str) -> dict[str, Tensor] | None:
        """The intact tensors stored under a key, or None."""
        if (path := self._path(name, key)) is None:
            return None
        try:
            tensors, metadata = load_tensors(path)
        except RunError:
            return None
        return tensors if metadata == _metadata(key, tensors) else None


def _metadata(key: str, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """A file's metadata: its key and a hash of its tensors, since safetensors has no checksum."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        hash_tensor(digest, tensors[name], name)
    return {"key": key, "tensors": digest.hexdigest()}
