"""Accessibility of pages, by axe-core in Chromium: serious and critical violations, wide and narrow, light and dark.

axe-core is read from the file named by ``NBRIDGE_AXE``, or else from ``.venv/node_modules/axe-core/axe.min.js``; tests that need it, or a
browser, are skipped where it is absent.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest

AXE = "NBRIDGE_AXE"
"""Environment variable with the path of ``axe.min.js``."""
WIDTHS = (1400, 420)
"""Widths of the window, in pixels."""
SCHEMES = ("light", "dark")
"""Colour schemes."""
IMPACTS = ("serious", "critical")
"""Impacts that count as violations."""
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--window-size=1200,1000",
)  # fmt: skip
RUN = """
const done = arguments[arguments.length - 1];
axe.run(document, {resultTypes: ["violations"]}).then(
  (result) => done(result.violations.flatMap(({id, impact, help, nodes}) =>
    nodes.map((node) => [impact, `${id}: ${help}: ${node.html.slice(0, 200)} (${node.target.join(" ")})`]))),
  (error) => done([["critical", `axe-core failed: ${error}`]]));
"""


def axe_source() -> str:
    """The source of axe-core; skips the test where it is absent."""
    named = os.environ.get(AXE)
    path = Path(named) if named else Path(__file__).parents[1] / ".venv" / "node_modules" / "axe-core" / "axe.min.js"
    if not path.is_file():
        pytest.skip(f"no axe-core: {path} is missing; install it with: npm install --prefix .venv axe-core, or set {AXE}")
    return path.read_text(encoding="utf-8")


@contextmanager
def browser(profile: Path) -> Iterator[Any]:
    """Chromium with an empty profile folder, driven by selenium, with its log; skips the test where it is absent."""
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("no chromium with chromedriver on PATH")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options, webdriver.ChromeService(chromedriver)) as opened:
        yield opened


def show(opened: Any, url: str, width: int, scheme: str) -> None:
    """Opens a page at a window width and in a colour scheme."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme_of = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme_of)
    opened.get(url)


def violations_here(opened: Any) -> list[str]:
    """Serious and critical violations of the page as it is now, one line for each element."""
    # Through the debugger, which the page's Content-Security-Policy does not concern.
    opened.execute_cdp_cmd("Runtime.evaluate", {"expression": axe_source()})
    found = opened.execute_async_script(RUN)
    return [line for impact, line in found if impact in IMPACTS]


def violations(opened: Any, url: str) -> list[str]:
    """Serious and critical violations of the page at a URL, at both widths and in both colour schemes."""
    found = []
    for width, scheme in product(WIDTHS, SCHEMES):
        show(opened, url, width, scheme)
        found += [f"{width} px, {scheme}: {line}" for line in violations_here(opened)]
    return found
