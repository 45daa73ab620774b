"""Files about the project agree with the package and with each other."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from ruamel.yaml import YAML

import nbridge

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=\[]", one)[0] for one in requirements} - {"nbridge"}


def test_the_citation_file_has_what_its_format_requires_and_names_the_paper():
    cited = YAML(typ="safe").load(ROOT / "CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    assert (cited["cff-version"], cited["type"], cited["license"]) == ("1.2.0", "software", PROJECT["license"])
    (paper,) = cited["references"]
    assert {"type", "title", "authors"} <= paper.keys()
    assert [author["family-names"] for author in paper["authors"]] == ["Yadav", "Sardana", "Namboodiri", "Hegde"]
    assert all(author["family-names"] in (ROOT / "README.md").read_text() for author in paper["authors"])
    assert f"  title     = {{{paper['title']}}}" in (ROOT / "README.md").read_text()


def test_the_changelog_dates_the_version_that_is_cited():
    cited = YAML(typ="safe").load(ROOT / "CITATION.cff")
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert f"{cited['version']} ({cited['date-released']})" in headings
    assert nbridge.__version__ in {heading.split()[0] for heading in headings}


def test_the_changelog_says_of_every_dependency_why_this_one():
    lines = [line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("- ")]
    asked = names(PROJECT["dependencies"]).union(*(names(extra) for extra in PROJECT["optional-dependencies"].values()))
    heads = {
        word
        for line in lines
        for word in re.split(r"[\s,]+", line.removeprefix("- Dependency: ").removeprefix("- ").split("(")[0].split(":")[0])
    }
    assert asked <= heads


def test_links_and_files_that_the_guides_name_exist():
    for guide in ("CONTRIBUTING.md", "docs/explanation/architecture.md", "README.md"):
        text = (ROOT / guide).read_text()
        links = [link.split("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("http")]
        for link in filter(None, links):
            assert ((ROOT / guide).parent / link).exists(), f"{guide}: {link}"
    for guide in ("CONTRIBUTING.md", "docs/explanation/architecture.md"):
        for path in re.findall(
            r"`((?:nbridge|tests|common|spec|data|training|inference|runs)/[a-z_/0-9]+\.py)", (ROOT / guide).read_text()
        ):
            assert (ROOT / path).is_file() or (ROOT / "nbridge" / path).is_file(), f"{guide}: {path}"


def test_the_diagram_has_every_package_in_the_order_of_imports():
    from test_house import PACKAGES

    text = (ROOT / "docs" / "explanation" / "architecture.md").read_text().split("```")[1]
    lines = [line for line in text.splitlines() if "-->" in line]
    order = [lines[0].split('"')[1], *(re.split(r'[\["]', line.split("-->")[1])[2] for line in lines)]
    shown = [name for box in order for name in box.split(":")[0].split(", ")]
    assert shown == [name for name in PACKAGES if name != "__main__"]
