"""One page that shows several runs side by side: their verdicts, figures by modality, skill, and the differences of their specs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from nbridge.common.atomic_files import write_text, writing
from nbridge.common.messages import clip
from nbridge.errors import RunError, require_positive
from nbridge.evaluation.verdict import FIGURES, BaselineComparison, Verdict, digits
from nbridge.report.axes import Axis
from nbridge.report.card import card, how_long
from nbridge.report.charts import error_bars
from nbridge.report.page import ROWS, document
from nbridge.report.run_data import RunData, SectionSkipped, read_run_data
from nbridge.report.skill import ERRORS, Skill, skills
from nbridge.report.tree import Content, element, paragraph, table
from nbridge.spec.differences import differences
from nbridge.version import __version__

FILE = "reports.html"
"""The name of the page, beside the first run."""
MOST_RUNS = 8
"""Maximum number of runs, one for each colour."""
DIFFERENCES = 60
"""Maximum number of differing keys shown."""


def write_comparison(folders: Sequence[str | Path], *, rows: int = ROWS, seed: int = 0, out: str | Path | None = None) -> Path:
    """Writes a page that shows runs side by side, and returns its path, by default beside the first run.

    Arguments:
        folders: Two to eight run folders.
        rows: Number of held-out rows for the charts.
        seed: Random seed.
        out: The path of the page.

    Raises:
        RunError: when there is no run in a folder, one is given twice, there are too many, or the page cannot be written.
        DataError: when ``rows`` is not positive.
    """
    require_positive(rows=rows)
    paths = [Path(folder) for folder in folders]
    if len(paths) > MOST_RUNS:
        raise RunError(f"{len(paths)} runs: expected {MOST_RUNS} or fewer on one page")
    for place, path in enumerate(paths):
        if path.resolve() in [other.resolve() for other in paths[:place]]:
            raise RunError(f"{path}: given twice; name each run once")
    runs = [read_run_data(path, rows, seed) for path in paths]
    with writing(target := paths[0].resolve().parent / FILE if out is None else Path(out)):
        write_text(target, comparison_page(runs))
    return target


def comparison_page(runs: Sequence[RunData]) -> str:
    """The HTML page of several runs."""
    names = run_names([run.folder for run in runs])
    verdicts = [_verdict(run) for run in runs]
    sections = (
        ("Verdicts", _cards(runs, names, verdicts)), ("Figures by modality", _figures(names, verdicts)),
        ("Skill by number given", _skill(runs, names)), ("Differences of the specs", _differences(runs, names)),
    )  # fmt: skip
    main = element("main", *(element("section", element("h2", heading), *content) for heading, content in sections))
    header = element("header", element("h1", f"{len(runs)} runs side by side"), element("p", ", ".join(names), class_="quiet"))
    return document(f"{len(runs)} runs side by side", header, main, f"Made by nbridge {__version__}.")


def run_names(folders: Sequence[Path]) -> list[str]:
    """The name of each folder, with its parents where names are alike.

    Example:
        >>> run_names([Path("a/seed-0"), Path("b/seed-0")]), run_names([Path("runs/a"), Path("runs/b")])
        (['a/seed-0', 'b/seed-0'], ['a', 'b'])
    """
    names: list[str] = []
    parts = [folder.resolve().parts for folder in folders]
    for number in range(1, max(map(len, parts)) + 1):
        names = ["/".join(one[-number:]) for one in parts]
        if len({*names}) == len(names):
            break
    return names


def _verdict(run: RunData) -> Verdict | str:
    """The verdict on a run, or why there is none."""
    try:
        return run.verdict
    except SectionSkipped as reason:
        return str(reason)


def _cards(runs: Sequence[RunData], names: Sequence[str], verdicts: Sequence[Verdict | str]) -> Iterator[Element]:
    cards = []
    for run, name, verdict in zip(runs, names, verdicts, strict=True):
        if isinstance(verdict, Verdict):
            shown = [card(run, verdict)]
        else:
            shown = [paragraph(f"No verdict: {verdict}"), paragraph("; ".join(how_long(run)), quiet=True)]
        cards.append(element("div", element("h3", name), *shown))
    yield element("div", *cards, class_="runs")


def _figures(names: Sequence[str], verdicts: Sequence[Verdict | str]) -> Iterator[Element]:
    """A table with a line for each modality and figure and a column for each run, the best in bold."""
    found = [
        {(one.title, FIGURES[one.figure]): one for one in verdict.modalities} if isinstance(verdict, Verdict) else {}
        for verdict in verdicts
    ]
    keys = list(dict.fromkeys(key for one in found for key in one))
    if not keys:
        yield paragraph("No run has a verdict.")
        return
    lines = []
    for title, figure in keys:
        scores = [one.get((title, figure)) for one in found]
        tested = [one.model for one in scores if one is not None and one.outcome != "not tested"]
        best = (max if figure == FIGURES["accuracy"] else min)(tested) if tested else None
        lines.append((title, figure, *(_cell(one, best) for one in scores)))
    yield table(
        "Figure of each run, and its lead over the run's own baseline; the best is bold", ("modality", "figure", *names), lines, words=2
    )
    splits = {
        (verdict.split, max((one.rows for one in verdict.modalities), default=0)) for verdict in verdicts if isinstance(verdict, Verdict)
    }
    if len(splits) > 1:
        yield paragraph("The runs were scored on different rows, so that their figures are not strictly comparable.")


def _cell(one: BaselineComparison | None, best: float | None) -> Content:
    if one is None or one.outcome == "not tested":
        return "–"
    figure = element("b", digits(one.model)) if one.model == best else digits(one.model)
    lead = f" ({'+' if one.lead >= 0 else '−'}{digits(abs(one.lead))} ± {digits(one.standard_error)})"
    return element("span", figure, lead)


def _skill(runs: Sequence[RunData], names: Sequence[str]) -> Iterator[Element]:
    """A chart for each modality with a line for each run."""
    found = [[] if isinstance(run.loaded, str) else skills(run.loaded) for run in runs]
    modalities = list(dict.fromkeys(one.name for points in found for one in points))
    if not modalities:
        yield paragraph("No run has a modality with others to impute it from, and rows.")
        return
    key = (
        element("span", element("span", "●", class_=f"swatch f{place}", aria_hidden="true"), f" {name} ")
        for place, name in enumerate(names)
    )
    yield element("p", *key)
    yield paragraph(
        "Nats above the marginal distribution, by the number of other modalities given; bars are two standard errors.", quiet=True
    )
    yield element("div", *(_skill_chart(name, found, names) for name in modalities), class_="charts")


def _skill_chart(name: str, found: Sequence[Sequence[Skill]], names: Sequence[str]) -> Element:
    shift = 0.06
    own = [[one for one in points if one.name == name] for points in found]
    series = [
        [(one.given + shift * (place - (len(own) - 1) / 2), one.nats, ERRORS * one.error) for one in points]
        for place, points in enumerate(own)
    ]
    reach = [0.0, *(value + side * bar for points in series for _, value, bar in points for side in (-1, 1))]
    most = max(one.given for points in own for one in points)
    text = "; ".join(
        f"{run}: " + ", ".join(f"{one.nats:.3g} with {one.given} given" for one in points)
        for run, points in zip(names, own, strict=True)
        if points
    )
    x, y = Axis(0.5, most + 0.5, "number of modalities given", whole=True), Axis.fit(reach, "nats over the marginal")
    return element("figure", element("figcaption", element("b", name)), error_bars(f"{name}: {text}", x, y, series))


def _differences(runs: Sequence[RunData], names: Sequence[str]) -> Iterator[Element]:
    """The keys of the specs that differ from the first run's."""
    specs = [run.spec.as_dict() for run in runs]
    keys = list(dict.fromkeys(one.key for other in specs[1:] for one in differences(specs[0], other)))
    if not keys:
        yield paragraph("None.")
        return
    lines = [(key, *(clip(_at(spec, key), 60) for spec in specs)) for key in keys[:DIFFERENCES]]
    yield table("Keys that differ from those of the first run", ("key", *names), lines, words=1 + len(names))
    if more := len(keys) - DIFFERENCES if len(keys) > DIFFERENCES else 0:
        yield paragraph(f"and {more} more keys", quiet=True)


def _at(spec: object, key: str) -> str:
    """The value of a dotted key; a dash if the spec has none."""
    for part in key.split("."):
        if not isinstance(spec, dict) or part not in spec:
            return "–"
        spec = spec[part]
    return str(spec)
