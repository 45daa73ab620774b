"""The colours of nbridge's pages, in light and dark mode.

Classes have the colours of Okabe and Ito, which colour-blind readers can distinguish; beyond eight classes, point shapes also differ, and
the map shows names.

References:
    Color Universal Design (Okabe & Ito, 2008), https://jfly.uni-koeln.de/color
"""

from __future__ import annotations

COLOURS = 8
"""Number of class colours."""
SHAPES = 2
"""Number of point shapes, that is, of classes per colour."""

PALETTE = """
:root {
  color-scheme: light dark;
  --paper: #fff; --ink: #1d2126; --quiet: #59636e; --line: #d5dae0; --fill: #f5f7f9; --heat: 62%; --dots: .4;
  --bad: #b3261e; --good: #00664d;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #cc79a7; --c4: #e69f00; --c5: #56b4e9; --c6: #8c7a00; --c7: #4d4d4d;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171b; --ink: #e3e6ea; --quiet: #9aa4ae; --line: #363d45; --fill: #1d2228; --heat: 48%; --dots: .6;
    --bad: #ff8a80; --good: #1fbf92;
    --c0: #56b4e9; --c1: #f08a3c; --c2: #1fbf92; --c3: #e09cc3; --c4: #e69f00; --c5: #2f8fd0; --c6: #f0e442; --c7: #b8b8b8;
  }
}
"""
"""CSS variables: ``c0`` to ``c7`` for classes, ``c0`` for a single series, ``bad`` and ``good`` for verdicts."""
