"""Classifiers that were trained once, kept in memory and in a folder, so that the next evaluation of the same rows need not train them.

A file is found by a key, the hash of all that made the classifier, and holds the key and a hash of its tensors. What is damaged, of another
key or of other networks is taken for missing: the classifier is trained again and the file replaced.
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
    """Tensors of trained networks by their key.

    Arguments:
        folder: Where they lie, made when it is needed; they are kept in memory alone when it is left out.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._known: dict[str, dict[str, Tensor]] = {}

    def __len__(self) -> int:
        """How many networks were kept or found by this object."""
        return len(self._known)

    def restore(self, name: str, key: str, network: nn.Module) -> bool:
        """Puts kept tensors into a network of their shapes; whether there were any, else it is as before.

        Arguments:
            name: What the file is called, besides its key.
            key: The hash of all that made the network.
            network: The network.
        """
        tensors = self._known.get(key) or self._read(name, key)
        if tensors is None:
            return False
        try:
            load_into(network, tensors, self._path(name, key) or Path(name))
        except RunError:
            return False
        self._known[key] = tensors
        return True

    def keep(self, name: str, key: str, network: nn.Module) -> None:
        """Keeps the tensors of a network; a folder that takes no files costs nothing but the next training.

        Arguments:
            name: What the file is called, besides its key.
            key: The hash of all that made the network.
            network: The network, trained.
        """
        tensors = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
        self._known[key] = tensors
        if path := self._path(name, key):
            with suppress(OSError, RunError):
                path.parent.mkdir(parents=True, exist_ok=True)
                save_tensors(path, tensors, _seal(key, tensors))

    def _path(self, name: str, key: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{name}-{key[:16]}.safetensors"

    def _read(self, name: str, key: str) -> dict[str, Tensor] | None:
        """The tensors that lie under a key, as they were written; None where there are no such."""
        if (path := self._path(name, key)) is None:
            return None
        try:
            tensors, seal = load_tensors(path)
        except RunError:
            return None
        return tensors if seal == _seal(key, tensors) else None


def _seal(key: str, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """What a file says of itself: its key, and a hash of its tensors, for their format has none."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        hash_tensor(digest, tensors[name], name)
    return {"key": key, "tensors": digest.hexdigest()}
