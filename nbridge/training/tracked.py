"""Which rounds the trackers of a run have: the file ``trackers.json`` in its folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from nbridge.common.atomic_files import write_json
from nbridge.common.messages import clip
from nbridge.errors import RunError

STATE = "trackers.json"
"""The name of the file."""


@dataclass
class Tracked:
    """What a tracker has of a run.

    Arguments:
        id: The tracker's own identifier of the run; None if there is none.
        logged: The last update of each stage that it has.
    """

    id: str | None = None
    logged: dict[str, int] = field(default_factory=dict)


def read_tracked(folder: Path, tracker: str) -> Tracked:
    """What a tracker has of the run in a folder; nothing if it was never used.

    Raises:
        RunError: when the file is damaged.
    """
    return _read(folder).get(tracker, Tracked())


def write_tracked(folder: Path, tracker: str, tracked: Tracked) -> None:
    """Writes what a tracker has, beside what the file says of others.

    Raises:
        RunError: when the file is damaged.
    """
    _write(folder, _read(folder) | {tracker: tracked})


def _read(folder: Path) -> dict[str, Tracked]:
    path = folder / STATE
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(name): Tracked(one["id"] and str(one["id"]), {str(stage): int(update) for stage, update in one["logged"].items()})
            for name, one in content.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunError(f"{path}: damaged ({clip(error)}); remove it, and trackers begin new runs") from error


def _write(folder: Path, tracked: dict[str, Tracked]) -> None:
    write_json(folder / STATE, {name: asdict(one) for name, one in tracked.items()})
