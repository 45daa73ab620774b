"""What the site has besides its pages: generated references, files of the repository, notebooks as pages, and formulas as MathML.

A link in a page names a file of the repository, so that it works where the repository is read as well; here it becomes a link to the page
that is made of this file. Nothing needs a network, and the pages that come out load nothing from elsewhere.
"""

from __future__ import annotations

import base64
import html
import json
import posixpath
import re
from pathlib import Path
from typing import Any

from generated import commands_page, spec_page
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
INCLUDED = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md", "benchmarks/tables.md": "benchmarks/README.md"}
"""Pages that are files of the repository, by their place in the site."""
PAGE_OF = {source: page for page, source in INCLUDED.items()} | {"README.md": "index.md"}
LINK = re.compile(r"(\]\()([^)\s:#]+)(#[^)\s]*)?(\))")
MERMAID = re.compile(r"```mermaid\n(.*?)```", re.DOTALL)
SCALE = 72 / 110
"""Points by pixel of pictures in notebooks, whose figures have 110 dots per inch."""

_sources: dict[str, str] = {}
"""The file in the repository that a page is made of, by the page's place in the site."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made of something else."""
    _sources.clear()
    made = {page: (source, (ROOT / source).read_text()) for page, source in INCLUDED.items()}
    for name, text in (("spec", spec_page()), ("commands", commands_page())):
        made[f"reference/{name}.md"] = (f"docs/reference/{name}.md", text)
    for path in sorted((ROOT / "examples").glob("*.py")):
        made[f"examples/{path.stem}.md"] = (f"examples/{path.name}", _example(path))
    for path in sorted((ROOT / "docs" / "tutorials").glob("*.ipynb")):
        made[f"tutorials/{path.stem}.md"] = (f"docs/tutorials/{path.name}", _notebook(json.loads(path.read_text())))
    for page, (source, text) in made.items():
        files.append(File.generated(config, page, content=text))
        _sources[page] = source
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Links lead to pages, and diagrams that are chains become lists of boxes."""
    source = _sources.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    text = MERMAID.sub(lambda found: _chain(found[1]), markdown)
    return LINK.sub(lambda found: found[1] + _target(found[2], source, page.file.src_uri) + (found[3] or "") + found[4], text)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Formulas become MathML, and code can be scrolled by the keyboard where it is wider than the page."""
    text = re.sub(r'<(span|div) class="arithmatex">(.*?)</\1>', lambda found: _formula(found[1], found[2]), html, flags=re.DOTALL)
    return re.sub(r"(<pre[^>]*>(?:<span></span>)?)<code", r'\1<code tabindex="0"', text)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:  # noqa: ARG001
    """Gives the theme's search a name."""
    return output.replace('data-md-component="search" role="dialog"', 'data-md-component="search" role="dialog" aria-label="Search"')


def _target(link: str, source: str, page: str) -> str:
    """A link of a file in the repository as the link of a page in the site."""
    named = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    if named in PAGE_OF:
        target = PAGE_OF[named]
    elif re.fullmatch(r"examples/\w+\.py|docs/tutorials/\w+\.ipynb", named):
        target = posixpath.splitext(named.removeprefix("docs/"))[0] + ".md"
    elif named.startswith("docs/"):
        target = named.removeprefix("docs/")
    else:
        return link
    return posixpath.relpath(target, posixpath.dirname(page) or ".")


def _example(path: Path) -> str:
    """A page of an example: the first line of its docstring, and its code."""
    text = path.read_text()
    title = text.split('"""')[1].strip().split(":")[0].split(".")[0].split("\n")[0]
    return f"# {title}\n\nThis is `examples/{path.name}`.\n\n```python\n{text.rstrip()}\n```\n"


def _notebook(notebook: dict[str, Any]) -> str:
    """A notebook with its outputs as Markdown."""
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        parts += [_output(output) for output in cell.get("outputs", [])]
    return "\n\n".join(parts) + "\n"


def _output(output: dict[str, Any]) -> str:
    """An output of a cell: a picture, a table, or text."""
    data = output.get("data", {})
    if "image/png" in data:
        encoded = "".join(data["image/png"]).strip()
        width = int.from_bytes(base64.b64decode(encoded[:64])[16:20], "big")
        text = html.escape("".join(data.get("text/plain", "a figure"))).replace('"', "&quot;")
        return f'<img class="output" alt="{text}" width="{round(width * SCALE)}" src="data:image/png;base64,{encoded}">'
    if "text/html" in data:
        return "".join(data["text/html"]).replace("<style", "<style hidden").replace("<table", '<table tabindex="0"')
    shown = output.get("text") or data.get("text/plain", "")
    return '```text title="Output"\n' + "".join(shown).rstrip() + "\n```"


def _chain(text: str) -> str:
    """A diagram whose boxes follow each other in one chain, as a list of boxes."""
    boxes = re.findall(r'\["([^"]+)"\]', text)
    items = []
    for box in boxes:
        name, _, rest = box.partition(":")
        items.append(f"<li><strong>{html.escape(name)}</strong>{':' + html.escape(rest) if rest else ''}</li>")
    return '<ol class="chain">\n' + "\n".join(items) + "\n</ol>"


def _formula(tag: str, text: str) -> str:
    r"""MathML of a formula that stands between \( and \) or \[ and \]."""
    latex = html.unescape(text.strip())[2:-2].strip()
    display = "block" if tag == "div" else "inline"
    drawn = convert(latex, display=display)
    return f'<div class="formula" tabindex="0">{drawn}</div>' if tag == "div" else drawn
