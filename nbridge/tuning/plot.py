"""A picture of a search: the value of each trial, and by each option."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbridge.common.atomic_files import replacing
from nbridge.spec.search import Range, SearchOption
from nbridge.tuning.outcome import Outcome
from nbridge.tuning.study import Attempt

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT, COLUMNS = 4.2, 3.0, 3
"""Size of a panel in inches, and panels in a row."""
LONGEST = 34
_DONE, _DEFAULT, _BEST = "#8a8f98", "#1f6fb2", "#c2410c"


def write_plot(path: Path, outcome: Outcome) -> None:
    """Writes the picture as a PNG."""
    # Without pyplot, which keeps every figure and a backend for the whole process.
    from matplotlib.figure import Figure

    options = outcome.space.options
    count = 1 + len(options)
    rows = -(-count // COLUMNS)
    figure = Figure(figsize=(WIDTH * min(COLUMNS, count), HEIGHT * rows), layout="constrained")
    panels = figure.subplots(rows, min(COLUMNS, count), squeeze=False).flatten().tolist()
    _values(panels[0], outcome)
    for panel, option in zip(panels[1:count], options, strict=True):
        _by_option(panel, outcome, option)
    for panel in panels[count:]:
        panel.set_axis_off()
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _values(panel: Axes, outcome: Outcome) -> None:
    from matplotlib.ticker import MaxNLocator

    done = [one for one in outcome.trials if one.value is not None]
    best: list[float] = []
    for one in done:
        best.append(max(one.value or 0.0, best[-1] if best else -float("inf")))
    panel.step([one.number for one in done], best, where="post", color=_DONE, linewidth=1, label="highest so far")
    _points(panel, outcome, [(one.number, one) for one in done])
    panel.set_xlabel("trial")
    panel.set_ylabel("nats over the free baseline")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.legend(fontsize="x-small")


def _by_option(panel: Axes, outcome: Outcome, option: SearchOption) -> None:
    done = [one for one in outcome.trials if one.value is not None]
    values = [(outcome.space.default if one.is_default else one.values)[option.key] for one in done]
    if isinstance(option, Range):
        numbers = [(value, one) for value, one in zip(values, done, strict=True) if isinstance(value, int | float)]
        _points(panel, outcome, numbers)
        panel.set_xscale("log" if option.log else "linear")
    else:
        names = list(dict.fromkeys(map(json.dumps, (*option.values, *values))))
        _points(panel, outcome, [(names.index(json.dumps(value)), one) for value, one in zip(values, done, strict=True)])
        panel.set_xticks(range(len(names)), [name.strip('"') for name in names], fontsize="x-small")
    panel.set_xlabel(option.key if len(option.key) <= LONGEST else "..." + option.key[-LONGEST:], fontsize="small")


def _points(panel: Axes, outcome: Outcome, points: list[tuple[Any, Attempt]]) -> None:
    default, best = outcome.default, outcome.best
    groups = {
        "trial": (_DONE, [point for point in points if point[1] is not default and point[1] is not best]),
        "the spec as it stands": (_DEFAULT, [point for point in points if point[1] is default]),
        "best": (_BEST, [point for point in points if point[1] is best and best is not default]),
    }
    for label, (colour, group) in groups.items():
        if group:
            panel.scatter([x for x, _ in group], [one.value or 0.0 for _, one in group], color=colour, s=24, label=label, zorder=3)
