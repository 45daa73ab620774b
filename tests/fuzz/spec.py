"""Damaged specs, in text and as trees, are read and their models built without memory for parameters."""

from __future__ import annotations

import functools
from pathlib import Path
from random import Random
from typing import Any

import torch
from ruamel.yaml import YAML

from nbridge.spec.reader import parse_spec, read_spec, spec_from_dict, write_spec
from nbridge.training.build import build_model

from .mutations import as_json, changed, damaged

SPECS = Path(__file__).parents[2] / "modality_specs"
OWN = """\
name: all parts
latent_dim: 3
model: {type: bridged}
data: {source: npz, path: data.npz, id: id, validation: 0.1, test: 0.2}
modalities:
  image: {shape: [1, 8, 8], features: 4, encoder: {type: conv, channels: [2, 3]}, likelihood: bernoulli}
  x: {shape: 3, features: 4, encoder: {type: mlp, hidden: [4], batch_norm: true}, likelihood: {type: normal, scale: predicted}}
  label: {shape: 3, features: 2, encoder: {type: embedding, embedding_dim: 2, hidden: []}, likelihood: categorical}
fusion: {hidden: [4]}
bridges: {hidden: [4], combine: poe, objective: {distill: 0.5}}
prior: {type: mixture, components: 2}
training: {seed: 1, batch_size: 8, optimizer: {lr: 0.001}, stages: {joint: {epochs: 2}, bridges: {epochs: 1}}}
"""


@functools.cache
def texts() -> list[str]:
    """Valid specs: those of the repository and one of all parts."""
    return [OWN, *(path.read_text(encoding="utf-8") for path in sorted(SPECS.glob("*.yaml")))]


@functools.cache
def trees() -> list[Any]:
    """The same as trees."""
    yaml = YAML(typ="safe", pure=True)
    return [yaml.load(text) for text in texts()]


def prepare(folder: Path) -> None:
    """Nothing is needed."""
    trees()


def case(rng: Random, folder: Path) -> None:
    """Reads a damaged spec, builds its model, and reads what it writes."""
    place = rng.randrange(len(texts()))
    path = folder / "spec.yaml"
    match rng.randrange(3):
        case 0:
            path.write_bytes(damaged(rng, texts()[place].encode()))
            spec = read_spec(path)
        case 1:
            # JSON is YAML.
            path.write_bytes(as_json(changed(rng, trees()[place])))
            spec = parse_spec(path.read_text(encoding="utf-8"))
        case _:
            tree = changed(rng, trees()[place])
            path.write_bytes(as_json(tree))
            spec = spec_from_dict(tree)
    with torch.device("meta"):
        build_model(spec)
    assert parse_spec(write_spec(spec)) == spec, "what is written is another spec"
