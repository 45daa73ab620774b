"""The report's style sheet, for light and dark mode, wide screens, phones and print."""

from __future__ import annotations

from nbridge.visual.palette import PALETTE

STYLE = (
    PALETTE
    + """* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 100rem; padding: 2rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; overflow-wrap: break-word;
}
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .25rem; font-weight: 650; }
h2 { font-size: 1.2rem; margin: 3rem 0 .75rem; padding-top: .75rem; border-top: 1px solid var(--line); font-weight: 650; }
h3 { font-size: 1rem; margin: 1.75rem 0 .5rem; font-weight: 650; }
p { margin: .5rem 0; max-width: 46rem; }
a { color: var(--c0); text-underline-offset: .15em; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; list-style: none; margin: 1.25rem 0 0; padding: 0; font-size: .9rem; }
.quiet, caption, figcaption, footer { color: var(--quiet); font-size: .9rem; }
footer { margin-top: 3rem; padding-top: .75rem; border-top: 1px solid var(--line); }
.scroll { position: relative; overflow-x: auto; margin: .75rem 0; max-width: 100%; }
table { border-collapse: collapse; font-size: .9rem; }
caption { text-align: left; padding-bottom: .35rem; white-space: nowrap; }
th, td { padding: .25rem .75rem .25rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); font-weight: 400; }
th, td { overflow-wrap: normal; }
thead th { color: var(--quiet); }
.figure { text-align: right; font-variant-numeric: tabular-nums; padding-left: .5rem; white-space: nowrap; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.25rem; margin: .75rem 0; }
dt { color: var(--quiet); }
dd { margin: 0; min-width: 0; }
pre { background: var(--fill); padding: .9rem 1rem; overflow: auto; max-height: 34rem; font-size: .82rem; border-radius: 4px; }
.worse { color: var(--bad); font-weight: 650; } .better { color: var(--good); }
p.headline { font-size: 1.1rem; max-width: none; }
ul.warnings { padding-left: 1.1rem; } ul.warnings li { margin: .4rem 0; max-width: 46rem; }
.card { border: 1px solid var(--line); border-radius: 8px; background: var(--fill); padding: .75rem 1.25rem 1rem; margin: 1rem 0; }
.card dl { grid-template-columns: repeat(auto-fit, minmax(min(15rem, 100%), 1fr)); gap: .75rem 1.5rem; margin: .5rem 0 0; }
.card dt { font-weight: 650; color: var(--ink); } .card dd { font-size: .9rem; }
.sortable { border: 0; padding: 0; margin: 1rem 0; min-width: 0; }
.sortable legend { float: left; color: var(--quiet); font-size: .85rem; padding: .15rem .6rem .15rem 0; }
.sortable input { position: absolute; opacity: 0; width: 1px; height: 1px; }
.sortable label {
  display: inline-block; font-size: .8rem; border: 1px solid var(--line); border-radius: 1rem; padding: .1rem .6rem;
  margin: 0 .25rem .3rem 0;
  cursor: pointer;
}
.sortable input:checked + label { background: var(--ink); color: var(--paper); }
.sortable input:focus-visible + label { outline: 2px solid var(--c0); outline-offset: 2px; }
.sortable .scroll { clear: both; max-height: 32rem; overflow: auto; }
.sortable table { display: grid; grid-template-columns: repeat(var(--columns), auto); justify-content: start; }
.sortable caption { display: block; grid-column: 1 / -1; width: 0; min-width: 100%; white-space: normal; }
.sortable thead, .sortable tbody, .sortable tr { display: grid; grid-column: 1 / -1; grid-template-columns: subgrid; }
.sortable input:nth-of-type(1):checked ~ .scroll tbody tr { order: var(--o1); }
.sortable input:nth-of-type(2):checked ~ .scroll tbody tr { order: var(--o2); }
.sortable input:nth-of-type(3):checked ~ .scroll tbody tr { order: var(--o3); }
.sortable input:nth-of-type(4):checked ~ .scroll tbody tr { order: var(--o4); }
.sortable input:nth-of-type(5):checked ~ .scroll tbody tr { order: var(--o5); }
.sortable input:nth-of-type(6):checked ~ .scroll tbody tr { order: var(--o6); }
.sortable input:nth-of-type(7):checked ~ .scroll tbody tr { order: var(--o7); }
.sortable input:nth-of-type(8):checked ~ .scroll tbody tr { order: var(--o8); }
.sortable input:nth-of-type(9):checked ~ .scroll tbody tr { order: var(--o9); }
.sortable input:nth-of-type(10):checked ~ .scroll tbody tr { order: var(--o10); }
.sortable input:nth-of-type(11):checked ~ .scroll tbody tr { order: var(--o11); }
.sortable input:nth-of-type(12):checked ~ .scroll tbody tr { order: var(--o12); }
.shares td { min-width: 7rem; text-align: right; font-variant-numeric: tabular-nums; padding-right: .4rem; }
.shares td {
  background: linear-gradient(to right, color-mix(in srgb, var(--c0) 30%, transparent) calc(var(--share) * 100%), transparent 0);
}
.shares td:last-child { --c0: var(--c1); }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(17.5rem, 100%), 1fr)); gap: 1rem 1.25rem; margin: .75rem 0; }
figure { margin: 0; min-width: 0; }
figcaption { margin-bottom: .2rem; }
figcaption b { color: var(--ink); font-weight: 650; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--quiet); font-size: 11px; font-variant-numeric: tabular-nums; }
.left { text-anchor: end; dominant-baseline: central; }
.below { text-anchor: middle; }
.axis { stroke: var(--quiet); fill: none; stroke-width: 1; }
.grid { stroke: var(--line); fill: none; stroke-width: 1; }
.equal { stroke: var(--quiet); fill: none; stroke-width: 1; stroke-dasharray: 3 3; }
.line { fill: none; stroke-width: 1.75; stroke-linejoin: round; }
.first { stroke: var(--c0); }
.second { stroke: var(--c1); stroke-dasharray: 5 2.5; }
.mark { fill: var(--paper); stroke: var(--c1); stroke-width: 2; }
.point { fill: var(--c0); }
.dots { fill: none; stroke-width: 3; stroke-opacity: .75; }
.cloud, .round { stroke-linecap: round; }
.cloud { stroke: var(--c0); stroke-opacity: var(--dots); }
.square { stroke-linecap: square; stroke-width: 2.6; }
.other { stroke: var(--quiet); stroke-opacity: .3; stroke-linecap: round; }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); } .c2 { stroke: var(--c2); } .c3 { stroke: var(--c3); }
.c4 { stroke: var(--c4); } .c5 { stroke: var(--c5); } .c6 { stroke: var(--c6); } .c7 { stroke: var(--c7); }
svg .name {
  fill: var(--ink); font-size: 14px; font-weight: 650; text-anchor: middle; dominant-baseline: central;
  paint-order: stroke; stroke: var(--paper); stroke-width: 4px; stroke-linejoin: round;
}
.map { max-width: 44rem; } .map .dots { stroke-width: 3.6; } .map .square { stroke-width: 3.2; }
.bar { fill: none; stroke-width: 1.5; } .dots.large { stroke-width: 7; stroke-opacity: 1; }
.f0 { color: var(--c0); } .f1 { color: var(--c1); } .f2 { color: var(--c2); } .f3 { color: var(--c3); }
.f4 { color: var(--c4); } .f5 { color: var(--c5); } .f6 { color: var(--c6); } .f7 { color: var(--c7); }
.swatch { font-size: 1.2em; }
.runs { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); gap: 0 1.5rem; }
.band { fill: var(--c0); opacity: .16; }
.area { fill: var(--c0); opacity: .35; } .solid { stroke-dasharray: none; }
.key { display: inline-block; width: 1.6rem; height: .65em; }
.strips { border-collapse: collapse; width: 100%; max-width: 46rem; }
.strips th, .strips td { border: 0; padding: .15rem 0; vertical-align: middle; }
.strips th { padding-right: .75rem; width: 1%; white-space: nowrap; color: var(--quiet); }
.strips img { display: block; width: 100%; height: auto; image-rendering: pixelated; }
.matrices { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)); gap: .25rem 1.25rem; }
.matrix { font-size: .8rem; font-variant-numeric: tabular-nums; }
.matrix th, .matrix td { border: 1px solid var(--paper); padding: .15rem .05rem; text-align: center; min-width: 1.65rem; }
.matrix th { color: var(--quiet); }
.matrix th[scope=row] { padding-right: .4rem; text-align: right; } .matrix caption { white-space: normal; }
.matrix td { background: color-mix(in srgb, var(--c0) calc(var(--share) * var(--heat)), var(--fill)); }
.matrix td.n { background: none; color: var(--quiet); padding: .15rem .4rem; text-align: right; }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
@media (max-width: 30rem) {
  body { padding: 1.25rem .9rem 3rem; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .4rem; }
  .strips tr, .strips th, .strips td { display: block; width: 100%; } caption { white-space: normal; }
}
@media (min-width: 70rem) {
  main { display: grid; grid-template-columns: 1fr 1fr; column-gap: 3rem; }
  .pictures { display: grid; grid-template-columns: 1fr 1fr; gap: 0 3rem; }
  section { grid-column: 1 / -1; min-width: 0; }
  #latent, #patterns, #trained, #parameters, #environment { grid-column: auto; }
}
@media print {
  :root { color-scheme: light; } nav, .sortable legend, .sortable label { display: none; }
  .sortable .scroll { max-height: none; overflow: visible; } section { break-inside: auto; } h2, h3 { break-after: avoid; }
  body { max-width: none; } figure, table { break-inside: avoid; } .scroll { overflow: visible; } pre { max-height: none; }
}
"""
)
"""The style sheet, without external references."""
