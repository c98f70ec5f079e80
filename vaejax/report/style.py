"""The style sheet of the page: light and dark, for a wide window, a phone and paper."""

STYLE = """
:root { color-scheme: light dark; --back: #fff; --ink: #1a1b1c; --soft: #5a5e62; --rule: #dcdfe2;
  --panel: #f5f6f7; --s1: #0069a8; --s2: #c24e00; --s3: #00805c; --s4: #a3488a; --s5: #7d6400; }
@media screen and (prefers-color-scheme: dark) {
  :root { --back: #15171a; --ink: #eceded; --soft: #a3a8ad; --rule: #363b40; --panel: #1e2125;
    --s1: #5ab4ec; --s2: #ff9350; --s3: #3cc79d; --s4: #e79dcd; --s5: #dfc04a; }
}
* { box-sizing: border-box; }
html { text-size-adjust: 100%; -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 72rem; background: var(--back);
  color: var(--ink); font: 1rem/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { margin: 0; font-size: 2rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 3rem 0 .75rem; font-size: 1.35rem; line-height: 1.3; }
h3 { margin: 2rem 0 .5rem; font-size: 1.05rem; line-height: 1.3; }
p, li, dd { max-width: 44rem; }
a { color: inherit; text-decoration-color: var(--rule); text-underline-offset: .2em; }
a:hover, a:focus-visible { text-decoration-color: currentColor; }
.soft, caption, figcaption p, footer { color: var(--soft); }
.soft, footer { font-size: .875rem; }
.subtitle { margin: .35rem 0 0; color: var(--soft); }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: 1rem 0 0; padding: .6rem 0 0;
  border-top: 1px solid var(--rule); list-style: none; font-size: .875rem; }
.findings { padding-left: 1.4rem; font-size: 1.15rem; }
.findings li { margin: .35rem 0; }
.findings li::marker { color: var(--s2); }
table { width: 100%; border-collapse: collapse; font-size: .8125rem; line-height: 1.4; }
caption { padding: 0 0 .6rem; max-width: 44rem; font-size: .875rem; text-align: left; }
th, td { padding: .4rem .9rem .4rem 0; border-bottom: 1px solid var(--rule); text-align: left;
  vertical-align: top; font-weight: 400; overflow-wrap: break-word; }
th:last-child, td:last-child { padding-right: 0; }
thead th { color: var(--soft); vertical-align: bottom; border-bottom-color: var(--soft); }
th[scope=rowgroup] { padding-top: 1.4rem; font-weight: 600; }
td { font-variant-numeric: tabular-nums; }
.pairs { width: auto; min-width: min(100%, 30rem); }
.pairs td { overflow-wrap: anywhere; }
.short { white-space: nowrap; }
code { font: .92em ui-monospace, "DejaVu Sans Mono", monospace; }
.figures code { display: block; margin-top: .1rem; color: var(--soft); font-size: .85em; }
.verdict { color: var(--soft); }
.verdict.worse, .verdict.below, .verdict.above { color: var(--s2); }
.verdict.better { color: var(--s1); }
:target th { background: var(--panel); }
svg { display: block; width: 100%; overflow: visible; }
svg.strip { width: 7.5rem; height: 1.2rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 27rem), 1fr));
  gap: 2rem 3rem; align-items: start; }
figure { margin: 0; }
figcaption h3 { margin-top: 0; }
figcaption p { margin: .2rem 0 .8rem; font-size: .875rem; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; margin: 0 0 .4rem; padding: 0;
  list-style: none; font-size: .8125rem; }
.legend li { display: flex; align-items: center; gap: .3rem; }
.legend svg { width: .9rem; height: .9rem; }
svg text { fill: var(--soft); font-size: 12px; }
svg .name, svg .label { fill: var(--ink); }
.grid { stroke: var(--rule); }
.axis { stroke: var(--soft); }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.leader { opacity: .5; }
.whisker { stroke-width: 1.5; }
.line, .leader, .whisker { stroke: var(--series); }
.mark, .bar { fill: var(--series); }
.real { --series: var(--ink); }
.s1 { --series: var(--s1); }
.s2 { --series: var(--s2); }
.s3 { --series: var(--s3); }
.s4 { --series: var(--s4); }
.s5 { --series: var(--s5); }
.line.s2 { stroke-dasharray: 7 4; }
.line.s3 { stroke-dasharray: 1 4; }
.line.s4 { stroke-dasharray: 9 4 1 4; }
.line.s5 { stroke-dasharray: 3 4; }
.strip .unknown, .strip .same { --series: var(--soft); fill: var(--soft); }
.strip .worse, .strip .below, .strip .above { --series: var(--s2); fill: var(--s2); }
.strip .better { --series: var(--s1); fill: var(--s1); }
.strip .same { fill: var(--back); stroke: var(--soft); stroke-width: 1.5; }
.sheet { margin: 1.5rem 0 2.5rem; }
.sheet img { display: block; max-width: 100%; height: auto; border: 1px solid var(--rule); }
.sheet .pixels { image-rendering: pixelated; }
footer { margin-top: 4rem; padding-top: .75rem; border-top: 1px solid var(--rule); }
@media screen and (max-width: 46rem) {
  body { padding: 1.25rem 1rem 3rem; }
  h1 { font-size: 1.5rem; }
  .findings { font-size: 1.05rem; }
  .figures thead { display: none; }
  .figures, .figures caption, .figures tbody { display: block; }
  .figures tr { display: grid; grid-template-columns: repeat(3, 1fr); gap: .3rem .75rem;
    padding: .6rem 0; border-bottom: 1px solid var(--rule); }
  .figures th, .figures td { padding: 0; border: 0; }
  .figures tr > :first-child, .figures .wide { grid-column: 1 / -1; }
  .figures .short { white-space: normal; }
  .figures td::before { content: attr(data-label); display: block; color: var(--soft);
    font-size: .75rem; }
  .figures th[scope=rowgroup] { padding-top: 1rem; }
  .figures td[data-label=Pictures] { grid-column: span 2; }
  .figures .strips { display: none; }
}
@page { margin: 15mm; }
@media print {
  :root { color-scheme: light; font-size: 11px; }
  body { max-width: none; padding: 0; }
  nav { display: none; }
  tr, figure { break-inside: avoid; }
  h2, h3, th[scope=rowgroup] { break-after: avoid; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
