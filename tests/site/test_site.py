"""What the site is made of: references that describe everything, links that lead somewhere, and messages that exist."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

import nbridge

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"
sys.path.append(str(DOCS))
PAGES = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md"]
GENERATED = {DOCS / "reference" / "spec.md", DOCS / "reference" / "commands.md", DOCS / "changelog.md"}


def test_every_key_command_and_option_is_described():
    from generated import without_description

    assert without_description() == []


def test_the_reference_has_every_command_with_its_options():
    from generated import commands, commands_page

    page = commands_page()
    for name, command in commands().items():
        section = page.split(f"## nbridge {name} ")[1].split("\n## ")[0]
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert f"`{parameter.opts[0]}`" in section, f"nbridge {name} {parameter.opts[0]}"


def test_the_reference_has_every_key_of_a_spec():
    from generated import spec_page

    page = spec_page()
    schema = json.loads((ROOT / "nbridge.schema.json").read_text())
    keys = {*schema["properties"]}
    for definition in schema["$defs"].values():
        for kind in (definition, *definition.get("anyOf", ())):
            keys |= {key for key, entry in kind.get("properties", {}).items() if "const" not in entry}
    assert {key for key in keys if f"| `{key}` |" not in page} <= {"type", "source"}


def test_the_api_page_has_every_public_name():
    listed = set(re.findall(r"^::: nbridge\.(\w+)$", (DOCS / "reference" / "api.md").read_text(), re.MULTILINE))
    assert listed >= {*nbridge.__all__} - {"__version__"}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_of_a_page_lead_to_files(path: Path):
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)):
        if not re.match(r"https?:|#|mailto:", link):
            target = (path.parent / link.split("#")[0]).resolve()
            assert target.exists() or target in GENERATED, link


def test_messages_of_the_questions_are_messages_of_nbridge():
    source = "\n".join(path.read_text() for path in (ROOT / "nbridge").rglob("*.py"))
    for line in (DOCS / "faq.md").read_text().splitlines():
        for message in re.findall(r"^\| `([^`]+)`", line):
            # Names and numbers of a message are filled in: its words are compared, up to the first of them.
            words = re.split(r" '|\. Did", message)[0].removeprefix("unknown encoder")
            assert words in source, message


def test_pages_load_nothing_from_elsewhere_and_pictures_have_descriptions():
    for path in PAGES:
        for description, target in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", path.read_text()):
            assert len(description) > 20, f"{path.name}: {target}"
            assert not target.startswith("http"), f"{path.name}: {target}"


def test_readme_is_two_screens_with_one_picture():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 110
    assert sum(line.startswith("![") for line in lines) == 1
