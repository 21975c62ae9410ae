"""The page's style sheet."""

from __future__ import annotations

STYLE = """
:root { --paper: #fbfbf8; --ink: #22261f; --quiet: #6a7066; --grid: #dfe2da; --line: #cfd4c8;
  --locmem: #8b8fa3; --celeriac: #2f8f4e; --redis: #cc5a2b; --good: #2f8f4e; --bad: #c0352b; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #171a16; --ink: #e6e9e1; --quiet: #9aa294; --grid: #2c312a; --line: #3a4037;
    --locmem: #8f94ab; --celeriac: #5cc27d; --redis: #e8834f; --good: #5cc27d; --bad: #ef7a6d; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 760px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { margin: 0 0 4px; font-size: 28px; }
h2 { margin: 40px 0 8px; font-size: 20px; }
.quiet { color: var(--quiet); font-size: 14px; overflow-wrap: anywhere; }
.goals { list-style: none; padding: 0; margin: 20px 0; }
.goals li { padding: 3px 0; }
.goals b { display: inline-block; width: 1.2em; }
.met b { color: var(--good); } .missed b { color: var(--bad); } .unknown b { color: var(--quiet); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px;
  font-variant-numeric: tabular-nums; }
th, td { padding: 5px 8px; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
tbody th { text-align: left; font-weight: 400; white-space: pre; }
.legend { display: flex; flex-wrap: wrap; gap: 6px 20px; margin: 28px 0 0; font-size: 14px; }
.swatch { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 6px; }
.swatch.locmem { background: var(--locmem); } .swatch.celeriac { background: var(--celeriac); }
.swatch.redis { background: var(--redis); }
figure { margin: 28px 0 0; }
figcaption { margin-bottom: 8px; color: var(--quiet); font-size: 14px; }
figcaption b { display: block; color: var(--ink); font-size: 16px; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--ink); font-size: 13px; font-family: inherit; }
svg .tick { fill: var(--quiet); font-size: 11px; } svg .value { font-weight: 600; }
.grid { stroke: var(--grid); stroke-width: 1; }
.fill.locmem { fill: var(--locmem); } .fill.celeriac { fill: var(--celeriac); }
.fill.redis { fill: var(--redis); } .light { opacity: .45; }
.range { stroke-width: 2; } .curve { fill: none; stroke-width: 2.2; stroke-linejoin: round; }
.range.locmem, .curve.locmem { stroke: var(--locmem); }
.range.celeriac, .curve.celeriac { stroke: var(--celeriac); }
.range.redis, .curve.redis { stroke: var(--redis); }
@media print { main { max-width: none; } figure { break-inside: avoid; } }
"""
