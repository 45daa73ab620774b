"""The compared systems: the library's default, the paper's model, other models, and ablations given on the command line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.suite.tasks import Task, encoder_of
from nbridge.draft.writer import sizes_of
from nbridge.errors import NBridgeError
from nbridge.spec.overrides import apply
from nbridge.spec.reader import spec_from_dict
from nbridge.spec.registry import STAGES
from nbridge.spec.spec import Spec
from nbridge.spec.training import StageSettings

BUILT_IN: Mapping[str, tuple[str, ...]] = {
    "default": (),
    "paper": ("bridges.objective=paper",),
    "jmvae": ("model=jmvae",),
    "telbo": ("model=telbo",),
    "mvae": ("model=mvae",),
    "joint": ("model=joint",),
}
"""Systems by name, each as overrides of a task's spec."""
RIVALS = ("jnf", "mmvaeplus", "mmvaeplus_authors")
"""Systems of multivae, which have no spec."""
BATCH_SIZE = StageSettings.model_fields["batch_size"].default


@dataclass(frozen=True)
class System:
    """A system of the table.

    Arguments:
        name: What the table calls it.
        overrides: Assignments ``path.to.key=value`` to the task's spec.
    """

    name: str
    overrides: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The key of results; an ablation's key includes its overrides."""
        if BUILT_IN.get(self.name, ()) == self.overrides:
            return self.name
        return f"{self.name}:{','.join(self.overrides)}"


def parse_systems(text: str) -> list[System]:
    """Systems of a list such as ``default,own:bridges.encoders=own,model.coupling=1,jmvae``.

    An ablation is ``name:key=value,key=value,...``; values are YAML, and commas inside brackets do not separate.

    Raises:
        NBridgeError: when a name is unknown, or an assignment belongs to no ablation.

    Example:
        >>> [system.key for system in parse_systems("default,own:bridges.encoders=own,model.coupling=1,jmvae")]
        ['default', 'own:bridges.encoders=own,model.coupling=1', 'jmvae']
    """
    found: list[System] = []
    for token in _tokens(text):
        key, equals, _ = token.partition("=")
        name, colon, first = key.partition(":")
        if equals and colon:
            found.append(System(name.strip(), (first.strip() + token[len(key) :],)))
        elif equals and found and found[-1].overrides and found[-1].name not in BUILT_IN:
            found[-1] = System(found[-1].name, (*found[-1].overrides, token))
        elif token in BUILT_IN:
            found.append(System(token, BUILT_IN[token]))
        elif token in RIVALS:
            found.append(System(token))
        else:
            raise NBridgeError(f"--systems: '{token}' is none of {', '.join((*BUILT_IN, *RIVALS))}, nor an ablation name:key=value,...")
    return found


def _tokens(text: str) -> list[str]:
    """Splits at commas outside brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "[{") - (character in "]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def spec_of(task: Task, system: System, seed: int, budget: int) -> Spec:
    """The spec of a run: names, shapes, likelihoods and rows of the task, what the system overrides, and the budget.

    Networks are as large as ``nbridge init`` makes them, but for the channels of convolutions, which are the library's default.

    Arguments:
        task: The task.
        system: The system.
        seed: The seed of the split and of training.
        budget: Updates of each of two stages; a model of one stage has twice as many, so that all systems have equally many.

    Raises:
        NBridgeError: when an assignment cannot be made.
        SpecError: when the spec does not hold.
    """
    sizes = sizes_of(sum(math.prod(shape) for shape in task.shapes.values()))

    def network(kind: str = "mlp") -> dict[str, Any]:
        return {"type": kind, "hidden": [sizes.hidden]} if kind == "mlp" else {"type": kind}

    document: dict[str, Any] = {
        "name": f"{task.name}, {system.name}",
        "data": {"source": "benchmarks.suite.source:TaskRows", "task": task.name, "seed": seed},
        "latent_dim": sizes.latent_dim,
        "modalities": {
            name: {
                "shape": list(shape),
                "encoder": network(encoder_of(shape)),
                "likelihood": likelihood,
                "features": sizes.features,
            }
            for name, (shape, likelihood) in task.modalities.items()
        },
        "fusion": network(),
        "bridges": network(),
        "training": {"seed": seed},
    }
    for assignment in system.overrides:
        if flaws := apply(assignment, document).diagnostics:
            raise NBridgeError(f"--systems {system.name}: {assignment}: {flaws[0].text}")
    give_budget(document, budget)
    return spec_from_dict(document)


def give_budget(document: dict[str, Any], budget: int) -> None:
    """Sets the updates of each stage of a spec, unless the spec says how long it trains; stages still stop early.

    Arguments:
        document: The spec as a mapping, changed in place.
        budget: Updates of each of two stages.
    """
    model = document.get("model", "bridged")
    stages = STAGES[model if isinstance(model, str) else model.get("type", "bridged")]
    settings: dict[str, Any] = document["training"].setdefault("stages", {})
    for stage in stages:
        own = settings.setdefault(stage, {})
        if "epochs" not in own:
            own.setdefault("updates", math.ceil(2 * budget / len(stages)))


def names_of(systems: Sequence[System]) -> dict[str, str]:
    """The name of each system by its key; where two share one, their keys."""
    names = [system.name for system in systems]
    return {system.key: system.name if names.count(system.name) == 1 else system.key for system in systems}
