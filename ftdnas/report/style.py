"""The style and the script of a report's page, and the policy under which a browser runs nothing else."""

from __future__ import annotations

import base64
import hashlib

STYLE = """
:root { color-scheme: light dark; --paper: #fdfdfc; --ink: #1d2125; --soft: #5c646c; --line: #d9dde1; --card: #f3f4f5;
  --blue: #3b6fb6; --orange: #c8501e; --grey: #8b939b; --red: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181b; --ink: #e6e9ec; --soft: #a2abb4; --line: #343a40;
  --card: #1e2226; --blue: #7fb0f0; --orange: #ff9462; --grey: #808992; --red: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 74rem; padding: 1rem 1rem 3rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.35rem; margin: 0.5rem 0 1rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 0.4rem; }
p { max-width: 62rem; margin: 0.4rem 0; }
.verdict { font-size: 1.15rem; line-height: 1.45; padding: 0.9rem 1.1rem; border-left: 5px solid var(--orange);
  background: var(--card); border-radius: 4px; margin: 0 0 0.8rem; }
.soft, figcaption, .note { color: var(--soft); font-size: 0.9rem; }
nav { margin: 1rem 0; font-size: 0.95rem; } nav a { margin-right: 0.9rem; display: inline-block; padding: 0.15rem 0; }
a { color: var(--blue); }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 0.5rem 2rem; }
figure { margin: 0.6rem 0; max-width: 36rem; min-width: 0; } figure h3 { font-size: 1rem; margin: 0.5rem 0 0.2rem; }
svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--ink); font: 13px system-ui, sans-serif; }
svg .tick, svg .axis, svg .zero-label { fill: var(--soft); text-anchor: middle; } svg .side, svg .name {
  text-anchor: end; } svg .group { font-weight: 600; } svg .mark-label { font-size: 11px; fill: var(--soft); }
.grid { stroke: var(--line); stroke-width: 1; } .zero { stroke: var(--soft); stroke-width: 1.5; }
.curve { fill: none; stroke: var(--blue); stroke-width: 2; } .dashed { stroke-dasharray: 5 4; }
.curve.faint { stroke: var(--grey); stroke-width: 1.3; } .curve.marked { stroke: var(--orange); }
.band { fill: var(--orange); opacity: 0.16; } .bar { stroke: var(--blue); stroke-width: 1.6; }
.bar.marked { stroke: var(--orange); } .bar.faint { stroke: var(--grey); }
.mark { fill: var(--blue); stroke: var(--paper); stroke-width: 1; } .mark.marked { fill: var(--orange); }
.mark.faint { fill: var(--grey); } .mark.open { fill: var(--paper); stroke: var(--blue); stroke-width: 1.8; }
.mark.marked.open { stroke: var(--orange); } .mark.faint.open { stroke: var(--grey); }
path.mark.failed { fill: none; stroke: var(--red); stroke-width: 2; } .mark:hover { stroke: var(--ink); }
.scroll { overflow-x: auto; margin: 0.5rem 0; border: 1px solid var(--line); border-radius: 4px; max-height: 36rem; }
.scroll:focus-visible, button:focus-visible { outline: 2px solid var(--blue); outline-offset: 1px; }
table { border-collapse: collapse; width: 100%; font-size: 0.88rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.6rem; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }
td.long { white-space: normal; min-width: 16rem; overflow-wrap: anywhere; }
thead th { position: sticky; top: 0; background: var(--card); z-index: 1; }
tbody th { position: sticky; left: 0; background: var(--paper); white-space: normal; min-width: 15rem; }
@media (max-width: 40rem) { tbody th { min-width: 8rem; max-width: 11rem; } body { padding: 0.6rem 0.7rem 2rem; } }
tbody tr:last-child > * { border-bottom: 0; } tbody th { font-weight: 400; } tr.own > * { font-weight: 600; }
td.number, th.number { text-align: right; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button::after { content: " \\2195"; color: var(--grey); }
th[aria-sort=ascending] button::after { content: " \\2191"; } th[aria-sort=descending] button::after {
  content: " \\2193"; }
.images { max-width: 100%; height: auto; background: #fff; border: 1px solid var(--line); }
.tip { position: fixed; pointer-events: none; background: var(--ink); color: var(--paper); padding: 0.35rem 0.55rem;
  border-radius: 4px; font-size: 0.82rem; white-space: pre-line; max-width: 20rem; overflow-wrap: anywhere;
  z-index: 9; } .tip[hidden] { display: none; }
ol.legend { align-self: center; font-size: 0.85rem; color: var(--soft); margin: 0.3rem 0; padding-left: 1.6rem; }
@media print { .scroll { max-height: none; overflow: visible; } nav { display: none; } }
"""

SCRIPT = """
"use strict";
const tip = document.querySelector(".tip");
function show(event) {
  const mark = event.target.closest("[data-t]");
  tip.hidden = !mark;
  if (!mark) return;
  tip.textContent = mark.dataset.t;
  const box = tip.getBoundingClientRect();
  const left = Math.min(event.clientX + 14, innerWidth - box.width - 8);
  const below = event.clientY + 16 + box.height < innerHeight;
  tip.style.left = Math.max(4, left) + "px";
  tip.style.top = (below ? event.clientY + 16 : event.clientY - box.height - 10) + "px";
}
for (const title of document.querySelectorAll(".mark title")) title.remove();
document.addEventListener("pointermove", show);
document.addEventListener("pointerdown", show);
document.addEventListener("scroll", () => { tip.hidden = true; }, true);
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") === "descending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = row => {
        const cell = row.cells[column];
        const text = cell.dataset.v ?? cell.textContent;
        const value = text === "" ? -Infinity : Number(text);
        return Number.isNaN(value) ? text : value;
      };
      const order = (a, b) => {
        const [x, y] = [key(a), key(b)];
        return typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
      };
      const rows = [...table.tBodies[0].rows].sort((a, b) => (up ? order(a, b) : order(b, a)));
      table.tBodies[0].append(...rows);
    });
  });
}
"""


def policy() -> str:
    """The Content-Security-Policy of the page: its own style and script by their hashes, images inside it, no more.

    A server that shows a report sends the same.
    """
    style, script = (_hash(text) for text in (STYLE, SCRIPT))
    return f"default-src 'none'; img-src data:; style-src '{style}'; script-src '{script}'; base-uri 'none'"


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
