"""Writes ``report.html``, a single self-contained page.

It loads nothing external and runs no scripts; its Content-Security-Policy blocks both. The same run gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

from nbridge.common.atomic_files import write_text, writing
from nbridge.common.warnings import Finding
from nbridge.errors import RunError, require_positive
from nbridge.report import about, columns, curves, images, labels, latent, measurements, skill, texts, values, verdict
from nbridge.report.run_data import RunData, SectionSkipped, read_run_data, run_data_of
from nbridge.report.style import STYLE
from nbridge.report.tree import element, to_html
from nbridge.runs.run import Run
from nbridge.training.run_folder import REPORT
from nbridge.version import __version__

ROWS = 200
"""Number of rows for charts that take many draws per row."""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Content-Security-Policy: allows only images and styles inside the page."""


@dataclass(frozen=True)
class Section:
    """A section of the page; ``content`` yields its content for a run, or raises `SectionSkipped` if there is nothing to show."""

    id: str
    heading: str
    content: Callable[[RunData], Iterator[Element]]


SECTIONS = (
    Section("verdict", "Verdict", verdict.section),
    Section("warnings", "Warnings", measurements.warnings),
    Section("skill", "Skill by number given", skill.section),
    Section("images", "Images", images.section),
    Section("columns", "Columns", columns.section),
    Section("values", "Values", values.section),
    Section("labels", "Classes", labels.section),
    Section("texts", "Texts", texts.section),
    Section("curves", "Loss curves", curves.section),
    Section("latent", "Latent map", latent.section),
    Section("evaluation", "Evaluation", measurements.evaluation),
    Section("patterns", "Patterns of presence", about.patterns),
    Section("trained", "What was trained", about.trained),
    Section("parameters", "Parameters", about.parameters),
    Section("environment", "Environment", about.environment),
    Section("spec", "Spec", about.spec_file),
)
"""The sections in order."""


def write_report(
    run: Run | str | Path, *, rows: int = ROWS, seed: int = 0, findings: tuple[Finding, ...] | None = None, out: str | Path | None = None
) -> Path:
    """Writes ``report.html`` into a run folder, or a page at ``out``, atomically, and returns its path.

    If the training of the run is not finished or its rows cannot be read, only the contents of the folder are shown.

    Raises:
        RunError: when there is no run folder, or it cannot be written.
        DataError: when ``rows`` is not positive.
    """
    require_positive(rows=rows)
    folder = run.folder if isinstance(run, Run) else Path(run)
    if folder is None:
        raise RunError("this run has no folder to write its report to; train with out=FOLDER")
    data = run_data_of(run, folder, rows, seed, findings) if isinstance(run, Run) else read_run_data(folder, rows, seed)
    with writing(target := folder / REPORT if out is None else Path(out)):
        write_text(target, page(data))
    return target


def page(data: RunData) -> str:
    """The HTML page of a run."""
    shown, missing = [], {}
    for section in SECTIONS:
        try:
            # Consumed at once, so that a section is either complete or left out.
            shown.append((section, list(section.content(data))))
        except SectionSkipped as reason:
            missing.setdefault(str(reason), []).append(section)
    name = data.spec.name or data.folder.name
    links = [*((section.id, section.heading) for section, _ in shown), *([("left-out", "Left out")] if missing else [])]
    names = list(data.spec.modalities)
    of = "one modality" if len(names) == 1 else f"{len(names)} modalities"
    subtitle = f"A {data.spec.model.type} model of {of}: {', '.join(names)}"
    sections = (element("section", element("h2", section.heading), *content, id=section.id) for section, content in shown)
    header = element("header", element("h1", name), element("p", subtitle, class_="quiet"), _contents(links))
    main = element("main", *sections, _left_out(missing))
    return document(f"{name}: report of a run", header, main, f"Made by nbridge {__version__} from the run folder {data.folder.name}.")


def document(title: str, header: Element, main: Element, footer: str) -> str:
    """A page with the style sheet of reports."""
    body = element("body", header, main, element("footer", footer))
    return "<!doctype html>\n" + to_html(element("html", _head(title), body, lang="en")) + "\n"


def _head(title: str) -> Element:
    return element(
        "head", element("meta", charset="utf-8"), element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"), element("title", title),
        element("link", rel="icon", href="data:,"), element("style", STYLE),
    )  # fmt: skip


def _contents(links: list[tuple[str, str]]) -> Element:
    items = (element("li", element("a", heading, href=f"#{name}")) for name, heading in links)
    return element("nav", element("ul", *items), aria_label="Contents")


def _left_out(missing: dict[str, list[Section]]) -> Element | None:
    """The sections left out, one line per reason, with their ids so that links still work."""
    if not missing:
        return None
    lines = []
    for reason, sections in missing.items():
        names = [element("b", section.heading, id=section.id) for section in sections]
        apart = [part for name in names for part in (", ", name)][1:]
        lines.append(element("li", *apart, f": {reason}"))
    return element("section", element("h2", "Left out"), element("ul", *lines), id="left-out")
