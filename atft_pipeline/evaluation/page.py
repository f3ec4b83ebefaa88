"""The pieces of the report's page: style, tables, pictures, and numbers as text. No results are read here."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

STYLE = """
:root { --ink: #1b2530; --soft: #5d6a78; --line: #e3e8ed; --paper: #ffffff; --tint: #f4f6f8; --blue: #1f5fa8;
  --good: #1d7a46; --bad: #b3261e; }
* { box-sizing: border-box; } html { scroll-behavior: smooth; }
body { margin: 0; background: var(--tint); color: var(--ink); font: 14.5px/1.5 system-ui, "Segoe UI", sans-serif; }
header { background: #14304f; color: #fff; padding: 26px 28px 22px; }
header .in, main { max-width: 1180px; margin: 0 auto; } header h1 { font-size: 24px; margin: 0 0 4px; }
header p { margin: 2px 0; color: #c6d3e1; max-width: none; }
nav { position: sticky; top: 0; z-index: 1; background: #fffffff2; border-bottom: 1px solid var(--line); }
nav div { max-width: 1180px; margin: 0 auto; padding: 9px 28px; display: flex; flex-wrap: wrap; gap: 4px 18px; }
nav a { color: var(--blue); text-decoration: none; font-size: 13px; } nav a:hover { text-decoration: underline; }
main { padding: 10px 28px 60px; background: var(--paper); }
section { scroll-margin-top: 46px; } h2 { font-size: 18px; margin: 34px 0 4px; }
p { margin: 4px 0 10px; max-width: 96ch; } .soft { color: var(--soft); }
.note { border-left: 4px solid var(--blue); background: var(--tint); padding: 10px 16px; margin: 18px 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(248px, 1fr)); gap: 12px; margin: 18px 0; }
.card { border: 1px solid var(--line); border-radius: 8px; padding: 11px 14px; }
.card b { display: block; font-size: 21px; white-space: nowrap; font-variant-numeric: tabular-nums; }
.card span { color: var(--soft); font-size: 12.5px; }
.card i { font-style: normal; color: var(--soft); font-size: 12px; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(480px, 1fr)); gap: 14px 22px; }
.grid { align-items: start; }
.scroll { overflow-x: auto; margin-bottom: 10px; }
table { border-collapse: collapse; width: 100%; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 9px; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
tbody tr:hover { background: var(--tint); }
th:first-child, td:first-child, .text { text-align: left; } th { color: var(--soft); font-weight: 600; }
td.text { white-space: normal; } td .pass, td .fail { font-size: 12px; }
.pass { color: var(--good); font-weight: 600; } .fail { color: var(--bad); font-weight: 600; }
header .pass { color: #8fe0b0; } header .fail { color: #ffb4ab; }
figure { margin: 6px 0; } img { max-width: 100%; height: auto; display: block; }
footer { margin-top: 40px; font-size: 12.5px; }
@media print { nav { position: static; } }
"""


def section(title: str, content: str, note: str) -> str:
    """A heading with a note and content; nothing where there is neither."""
    anchor = title.lower().replace(" ", "-")
    if not content and not note:
        return ""
    return (
        f"<section id='{escape(anchor)}'><h2>{escape(title)}</h2><p class='soft'>{escape(note)}</p>{content}</section>"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are escaped, except those that already are a whole `<td>` or a `<span>`. Text is left, numbers right."""
    body = [list(map(_cell_html, row)) for row in rows]
    left = [cell.startswith('<td class="text"') for cell in (body[0] if body else [])] or [False] * len(head)
    top = "".join(
        f"<th{' class=text' if text else ''}>{escape(name)}</th>" for name, text in zip(head, left, strict=True)
    )
    lines = "".join("<tr>" + "".join(row) + "</tr>" for row in body)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>'


def _cell_html(text: str) -> str:
    if text.startswith("<td"):
        return text
    return f"<td>{text if text.startswith('<span') else escape(text)}</td>"


def picture(title: str, png: bytes) -> str:
    """A PNG inside the page."""
    data = base64.b64encode(png).decode()
    image = f'<img alt="{escape(title)}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}</figure>"


def state(passed: bool) -> str:
    """pass or fail, coloured."""
    return '<span class="pass">pass</span>' if passed else '<span class="fail">fail</span>'


def pm(cell: Mapping[str, Any]) -> str:
    """mean ± standard error."""
    return f"{number(cell['mean'], 4, sign=True)} ± {number(cell['se'], 4)}"


def interval(bounds: Sequence[float | None], digits: int) -> str:
    """low to high."""
    return f"{number(bounds[0], digits, sign=True)} to {number(bounds[1], digits, sign=True)}"


def number(value: float | None, digits: int, *, sign: bool = False) -> str:
    """A dash for what is undefined."""
    if value is None or not np.isfinite(value):
        return "–"
    return f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """A share as per cent."""
    return "–" if value is None or not np.isfinite(value) else f"{value:.1%}"


def scaled(value: float | None, factor: float) -> float | None:
    """value x factor, None stays."""
    return None if value is None else value * factor


def grid(pictures: Mapping[str, bytes], titles: Sequence[str]) -> str:
    """The named pictures side by side; one that was not drawn is left out."""
    found = "".join(picture(title, pictures[title]) for title in titles if title in pictures)
    return f'<div class="grid">{found}</div>' if found else ""


def tiles(cards: Sequence[tuple[str, str, str]]) -> str:
    """Cards of (what, value, note)."""
    body = "".join(
        f"<div class=card><span>{escape(what)}</span><b>{escape(value)}</b><i>{escape(note)}</i></div>"
        for what, value, note in cards
    )
    return f'<div class="cards">{body}</div>'
