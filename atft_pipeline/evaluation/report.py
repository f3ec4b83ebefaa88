"""One self-contained HTML page per evaluated run: what was measured, on what, with which error, and what it means."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from atft_pipeline.evaluation.scorecard import (
    BOOK_HORIZON,
    HEADLINE_DELAY,
    HEADLINE_HORIZON,
    RIVALS,
    scorecard_dir,
)
from atft_pipeline.lake.store import replacing
from atft_pipeline.verdict import Verdict

PART_NAMES = {"valid": "validation", "test": "test"}
DELAY_NAMES = {1: "delay 1 (tradable)", 0: "delay 0 (research)"}

STYLE = """
:root { --ink: #1f2933; --soft: #5b6875; --line: #e1e6eb; --paper: #ffffff; --tint: #f5f7f9; --blue: #1f5fa8;
  --good: #1d7a46; --bad: #b3261e; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--tint); color: var(--ink); font: 15px/1.55 system-ui, "Segoe UI", sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 36px 28px 60px; background: var(--paper); }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 38px 0 8px; }
p { margin: 6px 0 12px; max-width: 78ch; } .soft { color: var(--soft); }
.note { border-left: 4px solid var(--blue); background: var(--tint); padding: 10px 16px; margin: 18px 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); gap: 14px; margin: 20px 0; }
.card { border: 1px solid var(--line); border-radius: 8px; padding: 12px 16px; }
.card b { display: block; font-size: 22px; font-variant-numeric: tabular-nums; }
.card span { color: var(--soft); font-size: 13px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 9px; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child, .text { text-align: left; } th { color: var(--soft); font-weight: 600; }
td.text { white-space: normal; }
.pass { color: var(--good); font-weight: 600; } .fail { color: var(--bad); font-weight: 600; }
figure { margin: 14px 0 22px; } img { max-width: 100%; height: auto; } footer { margin-top: 40px; font-size: 13px; }
"""


def write_report(
    lake: Path, card: Mapping[str, Any], verdicts: Mapping[str, Verdict], pictures: Mapping[str, bytes]
) -> Path:
    """Store <lake>/evaluation/<run_id>/report.html and return its path."""
    path = scorecard_dir(lake, str(card["run_id"])) / "report.html"
    with replacing(path) as part:
        part.write_text(render(card, verdicts, pictures), encoding="utf-8")
    return path


def render(card: Mapping[str, Any], verdicts: Mapping[str, Verdict], pictures: Mapping[str, bytes]) -> str:
    """The whole page as text."""
    sections = [
        _head(card, verdicts),
        _section("May this run give predictions?", _verdict_table(verdicts), _JUDGED),
        _section("RankIC against the baselines", _rank_ic_table(card, str(HEADLINE_HORIZON)), _RANK_IC),
        _section("RankIC over all horizons", _rank_ic_table(card, "mean"), _RANK_IC_MEAN),
        _section("Model minus baseline, day by day", _difference_table(card), _DIFFERENCE),
        _oracle_section(card),
        _section("Decile book", _book_table(card), _book_note(card)),
        _section("All horizons, model", _horizon_table(card), "RankIC and IC per horizon; SE is Newey-West, lag h-1."),
        _section("Pictures", "".join(_picture(title, png) for title, png in pictures.items()), ""),
        _section("Training", _phase_table(card), "Best validation RankIC per phase (mean over horizons by 1/sqrt(h))."),
        _section("Scores", _score_table(card), "Spread, distinct values and rank autocorrelation of the 1-day score."),
    ]
    body = "".join(section for section in sections if section)
    title = escape(f"Run {card['run_id']}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>'
        f"<body><main>{body}<footer class='soft'>panel {escape(str(card['panel_hash'])[:16])} · "
        f"run {escape(str(card['run_id']))} · costs {card['cost_one_way'] * 1e4:.0f} bp one-way</footer>"
        "</main></body></html>\n"
    )


_JUDGED = (
    f"Judged on validation at delay {HEADLINE_DELAY}: RankIC and IC as their means over all horizons, Sharpe on the "
    f"{BOOK_HORIZON}-day book. The test part is reported below and never used for a decision."
)
_RANK_IC = (
    f"Mean daily Spearman correlation of score and {HEADLINE_HORIZON}-day return ± standard error (Newey-West). All "
    "scores are measured on the same stocks and dates."
)
_RANK_IC_MEAN = (
    "Weighted by 1/sqrt(h): what early stopping goes by. Labels of 20 days overlap, so half a year holds few "
    "independent ones, and these errors (Newey-West, lag 19) are rather too small."
)
_DIFFERENCE = "Mean of the daily differences of RankIC ± standard error, with a 95 % block-bootstrap interval."


def _head(card: Mapping[str, Any], verdicts: Mapping[str, Verdict]) -> str:
    passed = all(v.passed for v in verdicts.values())
    note = ""
    if card["simulated"]:
        note = (
            f'<div class="note"><b>This is a simulated market</b> ({escape(card["market"])}). Its signal was planted, '
            "so that learning can be measured; the numbers say nothing about real returns.</div>"
        )
    cards = []
    for part in PART_NAMES:
        for delay in (1, 0):
            cell = _cell(card, "model", part, delay)["rank_ic"]
            cards.append((f"RankIC, {PART_NAMES[part]}, {DELAY_NAMES[delay]}", _pm(cell)))
    state = '<span class="pass">passed</span>' if passed else '<span class="fail">not passed: no predictions</span>'
    spans = {part: span for part, span in card["split"].items() if isinstance(span, list)}
    split = "; ".join(f"{PART_NAMES.get(part, part)} {first} to {last}" for part, (first, last) in spans.items())
    tiles = "".join(f"<div class=card><span>{escape(name)}</span><b>{value}</b></div>" for name, value in cards)
    return (
        f"<h1>Evaluation of run {escape(str(card['run_id']))}</h1>"
        f'<p class="soft">{escape(split)}; embargo {card["split"]["embargo_days"]} trading days; '
        f"{card['n_features']} inputs. Checks: {state}</p>{note}"
        f'<div class="cards">{tiles}</div>'
    )


def _verdict_table(verdicts: Mapping[str, Verdict]) -> str:
    rows = [
        [name, _state(v.passed), _number(v.got, 4), _number(v.want, 4), f'<td class="text">{escape(v.message)}</td>']
        for name, v in verdicts.items()
    ]
    return _table(["rule", "", "got", "want", "in words"], rows)


def _rank_ic_table(card: Mapping[str, Any], horizon: str) -> str:
    names = _models(card)
    rows = []
    for part in PART_NAMES:
        for delay in (1, 0):
            cells = [card["models"][name][part][f"delay_{delay}"][horizon]["rank_ic"] for name in names]
            rows.append([f"{PART_NAMES[part]}, {DELAY_NAMES[delay]}", str(cells[0]["n_dates"]), *map(_pm, cells)])
    return _table(["", "dates", *names], rows)


def _difference_table(card: Mapping[str, Any]) -> str:
    rows = []
    for part in PART_NAMES:
        for delay in (1, 0):
            row = [f"{PART_NAMES[part]}, {DELAY_NAMES[delay]}"]
            for rival in RIVALS:
                cell = card["differences"][rival][part][f"delay_{delay}"][str(HEADLINE_HORIZON)]
                row += [_pm(cell), _interval(cell["ci95"], 4)]
            rows.append(row)
    return _table(["", *(text for rival in RIVALS for text in (f"model − {rival}", "95 %"))], rows)


def _oracle_section(card: Mapping[str, Any]) -> str:
    if "oracle_correlation" not in card:
        return _section("Oracle", "", "A real market has no oracle; only realised returns can judge a score here.")
    rows = []
    for part in PART_NAMES:
        for delay in (1, 0):
            cells = card["oracle_correlation"]
            found = [cells[name][part][f"delay_{delay}"][str(HEADLINE_HORIZON)] for name in cells]
            rows.append([f"{PART_NAMES[part]}, {DELAY_NAMES[delay]}", *map(_pm, found)])
    note = (
        "The oracle is the expected return that generated the prices; only the evaluation reads it. The correlation "
        f"of a score with it ({HEADLINE_HORIZON}-day horizon, per date ± standard error) carries no return noise: 1 "
        "would be perfect knowledge."
    )
    return _section("Correlation with the oracle", _table(["", *card["oracle_correlation"]], rows), note)


def _book_table(card: Mapping[str, Any]) -> str:
    rows = []
    for name in _models(card):
        for part in PART_NAMES:
            for delay in (1, 0):
                book = card["models"][name][part][f"delay_{delay}"][str(BOOK_HORIZON)]["book"]
                rows.append(
                    [
                        f"{name}, {PART_NAMES[part]}, delay {delay}",
                        _number(book["sharpe_net_ann"], 2),
                        _interval(book["ci95"], 2),
                        _number(book["sharpe_gross_ann"], 2),
                        _number(book["turnover"], 2),
                        _percent(book["max_dd"]),
                        f"{_number(_scaled(book['break_even_cost'], 1e4), 1)} bp",
                    ]
                )
    return _table(["", "Sharpe, net", "95 %", "Sharpe, gross", "turnover a day", "max drawdown", "break-even"], rows)


def _book_note(card: Mapping[str, Any]) -> str:
    return (
        f"Dollar-neutral: long the top decile, short the bottom one, {BOOK_HORIZON} overlapping sleeves, annualised "
        f"over 252 days, {card['cost_one_way'] * 1e4:.0f} bp one-way. Delay 1 buys a day after the score; delay 0 at "
        "the same close."
    )


def _horizon_table(card: Mapping[str, Any]) -> str:
    rows = []
    for part in PART_NAMES:
        for delay in (1, 0):
            for horizon, cell in card["models"]["model"][part][f"delay_{delay}"].items():
                if horizon == "mean":
                    continue
                rank = cell["rank_ic"]
                rows.append(
                    [
                        f"{PART_NAMES[part]}, delay {delay}, horizon {horizon}",
                        _pm(rank),
                        _interval(cell["rank_ic_ci95"], 4),
                        _number(rank["icir"], 2),
                        _pm(cell["ic"]),
                        _percent(cell["hit_rate"]["mean"]),
                        _number(_scaled(cell["spread"]["mean"], 1e4), 1),
                        _number(cell["monotonicity"], 2),
                        str(rank["n_dates"]),
                    ]
                )
    head = ["", "RankIC", "95 %", "ICIR", "IC", "hit rate", "decile spread, bp", "monotonicity", "dates"]
    return _table(head, rows)


def _phase_table(card: Mapping[str, Any]) -> str:
    rows = [
        [
            f"{row['phase']} {row['name']}",
            _number(row.get("start_rank_ic"), 4),
            _number(row.get("best_rank_ic"), 4),
            str(row.get("best_epoch") or "start kept"),
            str(row.get("epochs")),
            _number(row.get("seconds"), 0),
        ]
        for row in card["training"].get("phases") or []
    ]
    return _table(["phase", "start", "best", "best epoch", "epochs", "seconds"], rows) if rows else ""


def _score_table(card: Mapping[str, Any]) -> str:
    rows = []
    for part, state in card["scores"].items():
        lags = state["rank_autocorrelation"]
        rows.append(
            [
                PART_NAMES[part],
                _number(state["score_std_median"], 4),
                _percent(state["unique_ratio"]),
                *(_number(lags[lag], 2) for lag in ("1", "5", "20")),
                _percent(card["coverage"][part]),
            ]
        )
    head = ["", "spread", "distinct", "rank autocorr. 1 day", "5 days", "20 days", "tradable stocks scored"]
    return _table(head, rows)


def _cell(card: Mapping[str, Any], name: str, part: str, delay: int) -> Any:
    return card["models"][name][part][f"delay_{delay}"][str(HEADLINE_HORIZON)]


def _models(card: Mapping[str, Any]) -> list[str]:
    return [name for name in ("model", *RIVALS, "oracle") if name in card["models"]]


def _section(title: str, content: str, note: str) -> str:
    return f"<h2>{escape(title)}</h2><p class='soft'>{escape(note)}</p>{content}" if content or note else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are escaped, except those that already are a whole `<td>` or a `<span>`."""
    top = "".join(f"<th>{escape(text)}</th>" for text in head)
    body = "".join("<tr>" + "".join(map(_cell_html, row)) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell_html(text: str) -> str:
    if text.startswith("<td"):
        return text
    return f"<td>{text if text.startswith('<span') else escape(text)}</td>"


def _picture(title: str, png: bytes) -> str:
    data = base64.b64encode(png).decode()
    return f'<figure><img alt="{escape(title)}" src="data:image/png;base64,{data}"></figure>'


def _state(passed: bool) -> str:
    return '<span class="pass">pass</span>' if passed else '<span class="fail">fail</span>'


def _pm(cell: Mapping[str, Any]) -> str:
    return f"{_number(cell['mean'], 4, sign=True)} ± {_number(cell['se'], 4)}"


def _interval(bounds: Sequence[float | None], digits: int) -> str:
    return f"{_number(bounds[0], digits, sign=True)} to {_number(bounds[1], digits, sign=True)}"


def _number(value: float | None, digits: int, *, sign: bool = False) -> str:
    if value is None or not np.isfinite(value):
        return "–"
    return f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{value:.1%}"


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
