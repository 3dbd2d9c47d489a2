"""A page's looks, in one sheet within the page, and the policy that allows that sheet and nothing else."""

from __future__ import annotations

import base64
import hashlib
from typing import Final

CSS: Final = """
:root {
  color-scheme: light dark;
  --paper: #faf9f6; --card: #ffffff; --ink: #23221f; --soft: #6a6761; --line: #e3e0d8;
  --kept: #2f7268; --others: #c3bdb0; --passing: #2f72680f; --mark: #b0522d; --track: #eeebe4;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #16171a; --card: #1e2023; --ink: #e8e6e1; --soft: #a09d96; --line: #33353a;
    --kept: #5fb3a5; --others: #5b5d63; --passing: #5fb3a514; --mark: #e08a63; --track: #2a2c30;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  font-variant-numeric: tabular-nums;
}
main { max-width: 1120px; margin: 0 auto; padding: 48px 24px 96px; }
h1 { font-size: 34px; line-height: 1.15; letter-spacing: -.015em; margin: 4px 0 12px; }
h2 { font-size: 22px; line-height: 1.25; letter-spacing: -.01em; margin: 64px 0 6px; }
h3 { font-size: 15px; margin: 0 0 4px; }
h3 small { color: var(--soft); font-size: 13px; font-weight: 400; margin-left: 4px; }
p { margin: 0 0 16px; max-width: 68ch; overflow-wrap: anywhere; }
.eyebrow { color: var(--soft); font-size: 14px; margin: 0; }
.lead { font-size: 19px; line-height: 1.45; }
.note { color: var(--soft); font-size: 14px; max-width: 82ch; }
.card .note { margin: 8px 0 0; }
.warning { border-left: 3px solid var(--mark); padding: 2px 0 2px 14px; }
code, .mono { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .875em; }
nav { margin: 24px 0 0; font-size: 14px; }
nav a { display: inline-block; margin: 0 18px 6px 0; }
a { color: var(--kept); text-underline-offset: 3px; }
.figures {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(148px, 1fr)); gap: 12px; margin: 28px 0 0; padding: 0;
}
.figures div { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; }
.figures dt { color: var(--soft); font-size: 13px; }
.figures dd { margin: 0; font-size: 25px; font-weight: 600; letter-spacing: -.02em; line-height: 1.25; }
.figures dd small { display: block; color: var(--soft); font-size: 13px; font-weight: 400; letter-spacing: 0; }
.card {
  min-width: 0; padding: 16px 18px; background: var(--card); border: 1px solid var(--line); border-radius: 10px;
}
.cards {
  display: grid; gap: 16px; margin-top: 16px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 330px), 1fr));
}
.cards.two { grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); }
.bar { display: block; width: 100%; height: 8px; border-radius: 4px; }
.track { fill: var(--track); } .fill { fill: var(--others); } .fill.kept { fill: var(--kept); }
.chart { display: block; width: 100%; max-width: 410px; height: auto; margin: 4px auto 0; }
.chart .kept { fill: var(--kept); } .chart .others { fill: var(--others); } .chart .passing { fill: var(--passing); }
.chart .grid { stroke: var(--line); } .chart .base { stroke: var(--soft); }
.chart .threshold { stroke: var(--mark); stroke-width: 1.5; stroke-dasharray: 4 3; }
.chart text { font-size: 12px; fill: var(--soft); } .chart .bound { fill: var(--mark); font-weight: 600; }
.chart .bad { fill: var(--mark); }
.chart .roc { fill: none; stroke: var(--kept); stroke-width: 2; } .chart .at { fill: var(--mark); }
.chart .thin { stroke-width: 1; opacity: .35; }
.chart .chance { stroke: var(--soft); stroke-dasharray: 2 4; }
.score.against, .score.against b { color: var(--mark); }
.key { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 6px; }
.key { background: var(--others); } .key.kept { background: var(--kept); } .key.bad { background: var(--mark); }
.legend span { margin-right: 18px; white-space: nowrap; }
table { width: 100%; border-collapse: collapse; font-size: 15px; margin-top: 12px; }
th { text-align: left; font-weight: 600; font-size: 13px; color: var(--soft); }
th, td { padding: 7px 12px 7px 0; vertical-align: top; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
th.n, td.n { text-align: right; white-space: nowrap; overflow-wrap: normal; }
th:last-child, td:last-child { padding-right: 0; }
.funnel .stage th { padding-top: 26px; font-size: 16px; color: var(--ink); letter-spacing: -.005em; }
.funnel .left td { color: var(--soft); font-size: 14px; border-bottom: 0; padding-top: 9px; }
.why { display: grid; grid-template-columns: 205px 1fr; gap: 14px; align-items: baseline; }
table.funnel { margin-top: 32px; } .card table.funnel { margin-top: 8px; }
.funnel .share { width: 150px; } .funnel .share .bar { margin-top: 8px; }
.steps { list-style: none; margin: 16px 0 0; padding: 0; display: grid; gap: 10px; }
.steps li { display: grid; grid-template-columns: 230px 1fr 150px; gap: 16px; align-items: center; font-size: 15px; }
.steps .n { text-align: right; white-space: nowrap; }
.steps .bar { height: 16px; border-radius: 3px; }
.wall { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 18px 14px; margin-top: 16px; }
.wall.pairs { grid-template-columns: repeat(auto-fill, minmax(min(100%, 300px), 1fr)); }
.wall + h3 { margin-top: 36px; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 4px; }
figure { margin: 0; min-width: 0; }
figure img { display: block; width: 100%; height: auto; aspect-ratio: 1; border-radius: 6px; background: var(--track); }
figcaption { font-size: 12.5px; line-height: 1.4; margin-top: 5px; color: var(--soft); overflow-wrap: anywhere; }
figcaption b { color: var(--ink); font-weight: 600; }
.score { white-space: nowrap; margin-right: 4px; } .score b { font-weight: 600; }
details { border-bottom: 1px solid var(--line); padding: 9px 0; }
summary { cursor: pointer; overflow-wrap: anywhere; }
summary .note { float: right; margin-left: 12px; }
.url { overflow: hidden; font-size: 13px; line-height: 1.4; word-break: break-all; }
.rows { table-layout: fixed; } .rows th.n { width: 130px; }
.rows td { font-size: 14px; } .rows th:first-child { width: 46%; } .rows .note { font-size: 13px; }
.settings th:first-child { width: 300px; }
footer { margin-top: 72px; padding-top: 16px; border-top: 1px solid var(--line); }
@media (max-width: 640px) {
  main { padding: 28px 16px 64px; }
  h1 { font-size: 28px; } .lead { font-size: 17px; } h2 { margin-top: 48px; }
  .figures { grid-template-columns: 1fr 1fr; } .figures dd { font-size: 22px; }
  .wall { grid-template-columns: 1fr 1fr; }
  .wall.pairs { grid-template-columns: 1fr; }
  .card { padding: 14px 12px; }
  .funnel .share { display: none; } .why { display: block; } .why > * { display: block; }
  .steps li { grid-template-columns: 1fr auto; gap: 4px 12px; }
  .steps .bar { grid-column: 1 / -1; grid-row: 2; height: 10px; }
  .rows thead { display: none; }
  .rows tr { display: block; padding: 10px 0; border-bottom: 1px solid var(--line); }
  .rows td, .rows td:first-child { display: block; width: auto; border: 0; padding: 2px 0; }
  .rows td.n { text-align: left; white-space: normal; }
  .rows td.n::before { content: attr(data-label) ": "; color: var(--soft); }
  .settings th:first-child { width: 46%; }
  .sources th, .sources td { font-size: 13px; padding-right: 10px; overflow-wrap: normal; }
  .sources th.n { white-space: normal; }
  .sources .wide { display: none; }
  .areas th, .areas td { font-size: 12px; padding-right: 6px; }
}
@media print { details > * { display: block; } nav { display: none; } }
"""


def policy(style: str) -> str:
    """Nothing is loaded from anywhere: one style sheet known by its hash, pictures that are in the page, no script."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
