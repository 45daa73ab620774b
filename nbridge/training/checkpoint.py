"""Models and training states on disk: tensors in safetensors files, everything else in JSON; no code is ever executed.

Loading is strict: a missing or extra tensor, a wrong shape or dtype, NaN, a damaged file or a newer format is an error, and nothing is
loaded. A file holds a digest of its contents, since safetensors has no checksum, and equal contents give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from nbridge.common.atomic_files import scratch_beside, write_atomically, write_json, write_text, writing
from nbridge.common.autograd import gradients
from nbridge.common.hashing import hash_tensor
from nbridge.common.json_text import parse_json
from nbridge.common.messages import clip
from nbridge.data.patterns import Patterns
from nbridge.errors import NBridgeError, RunError, SpecError
from nbridge.models.base import MultimodalVAE
from nbridge.nn.likelihoods import Likelihood
from nbridge.spec import registry
from nbridge.spec.reader import spec_from_dict
from nbridge.spec.spec import Spec
from nbridge.training.build import build_model
from nbridge.version import __version__

FORMAT_VERSION = 1
UNREADABLE = "cannot be read; check its permissions"
TENSORS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
_METADATA = {"format", "format_version", "state", "layout"}
"""The keys of a file's metadata, besides its digest."""
_PACKAGE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")


def save_tensors(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Writes tensors and a JSON state to one file, atomically.

    Raises:
        RunError: if the file cannot be written; an existing file is kept.
    """
    # Clones, because the format refuses tensors that share memory; sorted, because a restored optimiser has another order.
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in sorted(tensors.items())}
    metadata = {
        "format": "nbridge", "format_version": str(FORMAT_VERSION), "state": json.dumps(state), "layout": json.dumps(layout(plain)),
    }  # fmt: skip
    metadata["digest"] = _digest(metadata, plain)

    def write(temporary: Path) -> None:
        # In a folder of our own, because safetensors writes to another file first, which a killed process leaves behind.
        with scratch_beside(path) as folder:
            save_file(plain, folder / path.name, metadata)
            (folder / path.name).replace(temporary)
        _sort_metadata(temporary)

    try:
        write_atomically(path, write)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path}: cannot be written ({error})") from error


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads a file of `save_tensors`.

    Raises:
        RunError: if the file is missing, damaged, not from nbridge or of a newer format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != "nbridge":
                raise RunError(f"{path}: not written by nbridge")
            check_version(path, int(metadata["format_version"]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            check_layout(path, layout(tensors), parse_json(metadata["layout"]))
            # Files of nbridge 0.1.0 have no digest.
            digest = metadata.pop("digest", None)
            if metadata.keys() != _METADATA or digest not in (None, _digest(metadata, tensors)):
                raise RunError(f"{path}: damaged; its contents do not match its digest")
            state = parse_json(metadata["state"])
            if not isinstance(state, dict):
                raise RunError(f"{path}: damaged; its state is no mapping")
            return tensors, state
    except FileNotFoundError as error:
        # safetensors raises it for a file that may not be read, too.
        reason = UNREADABLE if path.exists() else "no such file"
        raise RunError(f"{path}: {reason}") from error
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, NBridgeError):
            raise
        raise RunError(f"{path}: truncated or damaged ({clip(error, 200)})") from error


def _digest(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """A hash of the metadata and of all tensors with their names."""
    digest = hashlib.sha256()
    for key in sorted(_METADATA):
        digest.update(f"{key} {metadata[key]}".encode())
    for name in sorted(tensors):
        hash_tensor(digest, tensors[name], name)
    return digest.hexdigest()


def _sort_metadata(path: Path) -> None:
    """Sorts the metadata of a safetensors file, whose order is random, so that equal contents give equal bytes."""
    with path.open("rb+") as file:
        length = int.from_bytes(file.read(8), "little")
        header = parse_json(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= length, "the same header in another order"
        file.seek(8)
        file.write(text.ljust(length))


def layout(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The dtype and shape of each tensor, stored in the file so that a lost tensor is detected."""
    return {name: f"{tensor.dtype} of shape {tuple(tensor.shape)}" for name, tensor in tensors.items()}


def check_layout(path: Path, found: Mapping[str, str], written: Mapping[str, str]) -> None:
    """Raises a `RunError` that names the first tensor that differs between two layouts."""
    for name in {**written, **found}:
        if found.get(name) != written.get(name):
            here, expected = found.get(name, "missing"), clip(written.get(name, "no tensor of this name"), 100)
            raise RunError(f"{path}: tensor {clip(name, 200)} is {here}, expected {expected}")


def check_version(path: Path, version: object) -> None:
    """Raises a `RunError` for a newer format."""
    if not isinstance(version, int):
        raise RunError(f"{path}: format version {clip(version)!r}, expected a whole number; is the file damaged?")
    if version > FORMAT_VERSION:
        raise RunError(f"{path}: format version {version} is newer than the newest supported ({FORMAT_VERSION}); upgrade nbridge")


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], where: Path) -> None:
    """Copies tensors into a new module; their names, shapes and dtypes must match exactly, and they must be finite.

    An infinite value is accepted where the new module has the same value, such as in masks and in intervals that were never fitted.

    Raises:
        RunError: naming the first tensor that does not match; the module is then unchanged.
    """
    wide = _wide_likelihoods(module, tensors)
    shifts = {f"{name}.shift": likelihood.shift.double() for name, likelihood in wide.items()}
    own, found = layout({**module.state_dict(), **shifts}), layout(tensors)
    for name, kind in own.items():
        if name not in found:
            raise RunError(f"{where}: tensor {name} is missing, so this is not a checkpoint of this model")
        if found[name] != kind:
            raise RunError(f"{where}: tensor {name} is {found[name]}, expected {kind}")
    if extra := [name for name in found if name not in own]:
        raise RunError(f"{where}: tensor {extra[0]} is not in the model ({len(extra)} extra in all)")
    for name, tensor in module.state_dict().items():
        check_finite(f"{where}: tensor {name}", tensors[name], tensor)
    for likelihood in wide.values():
        likelihood.widen()
    module.load_state_dict(dict(tensors))


def check_finite(what: str, tensor: Tensor, initial: Tensor | None = None) -> None:
    """Raises a `RunError` if a tensor has a value that is NaN, or infinite where the initial tensor has another value."""
    if not tensor.is_floating_point() or bool((finite := tensor.isfinite()).all()):
        return
    kept = finite if initial is None else finite | (tensor.isinf() & (tensor == initial.to(tensor)))
    if not bool(kept.all()):
        value = "NaN" if bool(tensor.isnan().any()) else "an infinite value"
        raise RunError(f"{what} has {value}; the file is damaged, or its training diverged")


def _wide_likelihoods(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The likelihoods of a module whose values are float64 in the tensors and not yet in the module."""
    named = {name: part for name, part in module.named_modules() if isinstance(part, Likelihood) and not part.wide}
    shifts = {name: tensors[f"{name}.shift"] for name in named if f"{name}.shift" in tensors}
    return {name: named[name] for name, shift in shifts.items() if shift.dtype == torch.float64}


def save_model(
    directory: str | os.PathLike[str], model: MultimodalVAE, spec: Spec, patterns: Patterns | None = None, card: str = ""
) -> None:
    """Writes a model folder: tensors, a model card, and last ``config.json``, which marks the folder as complete.

    ``config.json`` holds the resolved spec and the missingness patterns of the training rows.

    Raises:
        RunError: if it cannot be written.
    """
    folder = Path(directory)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        save_tensors(folder / TENSORS, model.state_dict(), {})
        write_text(folder / CARD, card)
        seen = {} if patterns is None else {"patterns": patterns.as_dict()}
        packages = {"packages": found} if (found := _packages(spec)) else {}
        config = {"format_version": FORMAT_VERSION, "nbridge": __version__, **packages, "spec": spec.as_dict(), **seen}
        write_json(folder / CONFIG, config)


@gradients()
def load_model(directory: str | os.PathLike[str]) -> tuple[MultimodalVAE, Spec, Patterns | None]:
    """Reads the network, its spec and the missingness patterns of its training rows from a model folder, or the one inside a run folder.

    Only built-in classes, entry points of installed packages, classes already imported and packages allowed by the caller
    (`nbridge.spec.registry.allowing`) are used.

    Raises:
        RunError: if it is incomplete, damaged, of a newer format, names a class that is not installed or not allowed, or its tensors do not
            match its spec.
    """
    spec, patterns = read_config(folder := model_folder(directory))
    path = folder / CONFIG
    try:
        with registry.reading(path):
            model = build_model(spec)
    except SpecError as error:
        raise RunError(f"{path}: {error.problems[0]}") from error
    load_into(model, load_tensors(folder / TENSORS)[0], folder / TENSORS)
    return model.eval(), spec, patterns


def model_folder(directory: str | os.PathLike[str]) -> Path:
    """The model folder at a path, or inside the run folder at that path."""
    folder = Path(directory)
    return folder / "model" if (folder / "model").is_dir() else folder


def read_config(folder: Path) -> tuple[Spec, Patterns | None]:
    """The spec of a model folder, and the missingness patterns of its training rows, or None if they were not saved.

    Raises:
        RunError: if there is no finished model, or it is damaged or of a newer format.
    """
    path = folder / CONFIG
    if not folder.is_dir():
        raise RunError(f"{folder}: no such run folder")
    if not path.is_file():
        unfinished = [run for run in (folder, folder.parent) if (run / "spec.resolved.yaml").is_file()]
        hint = f"Training has not finished; continue with: nbridge resume {unfinished[0]}" if unfinished else f"Expected model/{CONFIG}."
        raise RunError(f"{folder}: no finished model here. {hint}")
    try:
        config = parse_json(path.read_text(encoding="utf-8"))
        check_version(path, config["format_version"])
        _check_packages(path, config.get("packages", {}))
        seen = config.get("patterns")
        with registry.reading(path):
            spec = spec_from_dict(config["spec"])
        return spec, None if seen is None else Patterns.from_dict(seen)
    except RunError:
        raise
    except SpecError as error:
        more = f" (and {len(error.problems) - 1} more)" if len(error.problems) > 1 else ""
        raise RunError(f"{path}: {error.problems[0]}{more}") from error
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise RunError(f"{path}: truncated or damaged ({type(error).__name__})") from error


def _packages(spec: Spec) -> dict[str, dict[str, str]]:
    """The installed package of each name in a spec that is an entry point, by kind."""
    named = [("datasets", spec.data.source.type)]
    for modality in spec.modalities.values():
        named += [("encoders", modality.encoder.type), ("decoders", modality.decoder.type), ("likelihoods", modality.likelihood.type)]
    found: dict[str, dict[str, str]] = {}
    for kind, name in named:
        if (package := registry.package_of(kind, name)) is not None:
            found.setdefault(kind, {})[name] = package
    return found


def _check_packages(path: Path, packages: Mapping[str, Mapping[str, str]]) -> None:
    """Raises a `RunError` that names the package of an entry point that is not installed here."""
    for kind in sorted(registry.EXTENSIBLE & packages.keys()):
        for name, package in packages[kind].items():
            if name not in registry.known(kind) and _PACKAGE.fullmatch(package):
                noun = registry.NOUNS[kind]
                raise RunError(f"{path}: {noun} {clip(name)!r} is in the package {package}, which is not installed: pip install {package}")
