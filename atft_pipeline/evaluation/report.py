"""One self-contained HTML page per evaluated run: what was measured, on what, with which error, and what it means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from atft_pipeline.evaluation import report_detail as detail
from atft_pipeline.evaluation.lineage import Changes, changes_since_champion, sibling_cards
from atft_pipeline.evaluation.page import (
    STYLE,
    grid,
    interval,
    number,
    percent,
    pm,
    scaled,
    section,
    state,
    table,
    tiles,
)
from atft_pipeline.evaluation.rivals import RIVALS
from atft_pipeline.evaluation.scorecard import BOOK_HORIZON, HEADLINE_DELAY, HEADLINE_HORIZON, scorecard_dir
from atft_pipeline.evaluation.walk_record import told_of_walk_forward
from atft_pipeline.lake.store import replacing
from atft_pipeline.verdict import Verdict

PART_NAMES = detail.PART_NAMES
DELAY_NAMES = {1: "delay 1 (tradable)", 0: "delay 0 (research)"}


def write_report(
    lake: Path, card: Mapping[str, Any], verdicts: Mapping[str, Verdict], pictures: Mapping[str, bytes]
) -> Path:
    """Store <lake>/evaluation/<run_id>/report.html and return its path."""
    path = scorecard_dir(lake, str(card["run_id"])) / "report.html"
    changes, siblings = changes_since_champion(lake, card), sibling_cards(lake, card)
    text = render(card, verdicts, pictures, changes, siblings, told_of_walk_forward(lake, str(card["run_id"])))
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def render(
    card: Mapping[str, Any],
    verdicts: Mapping[str, Verdict],
    pictures: Mapping[str, bytes],
    changes: Changes | None = None,
    siblings: Sequence[Mapping[str, Any]] = (),
    walk_forward: str = "",
) -> str:
    """The whole page as text. Sections in reading order: decision, signal, where it lives, books, rivals, origin."""

    def drawn(*titles: str) -> str:
        return grid(pictures, titles)

    sections = {
        "Verdict": (_verdict_table(verdicts), _JUDGED),
        "Signal": (
            _rank_ic_table(card, str(HEADLINE_HORIZON))
            + drawn("Cumulative RankIC, validation", "Cumulative RankIC, test")
            + drawn("RankIC by horizon and delay, validation", "RankIC by horizon and delay, test"),
            _RANK_IC,
        ),
        "All horizons": (_rank_ic_table(card, "mean") + _horizon_table(card), _RANK_IC_MEAN),
        "Delay": (drawn("RankIC by delay") + detail.delay_table(card), _DELAY),
        "Where and when": (
            drawn("RankIC by month", "RankIC by slice", "RankIC by sector", "Decile returns, test"),
            _slice_note(card),
        ),
        "Plain factors": (drawn("RankIC after plain factors, and exposures") + detail.neutral_table(card), _NEUTRAL),
        "Books": (
            drawn("Books, validation", "Books, test", "Sharpe by cost") + detail.risk_table(card)
            + detail.returns_table(card) + _book_table(card),
            _book_note(card),
        ),
        "Rivals": (_difference_table(card), _DIFFERENCE),
        "Walk-forward": (f"<p>{escape(walk_forward)}.</p>", _WALK) if walk_forward else ("", ""),
        "Oracle": _oracle(card),
        "Since the champion": (detail.changes_html(changes), "Settings, code and data that differ, and the result."),
        "Runs on this panel": (detail.siblings_table(siblings, str(card["run_id"])), _SIBLINGS),
        "Training": (drawn("Learning curve") + _phase_table(card) + _score_table(card), _TRAINING),
        "Provenance": (detail.provenance_table(card), "Of which data, settings and code these numbers are made."),
    }  # fmt: skip
    parts = {title: section(title, *content) for title, content in sections.items()}
    anchors = "".join(
        f'<a href="#{title.lower().replace(" ", "-")}">{escape(title)}</a>' for title, text in parts.items() if text
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Run {escape(str(card["run_id"]))}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>'
        f"{_head(card, verdicts)}<nav><div>{anchors}</div></nav><main>{_summary(card)}{''.join(parts.values())}"
        f"<footer class='soft'>panel {escape(str(card['panel_hash'])[:16])} · run {escape(str(card['run_id']))} · "
        f"costs {card['cost_one_way'] * 1e4:.0f} bp one-way</footer></main></body></html>\n"
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
_WALK = "The same evaluation on several folds of this dataset; its own page is walk_forward/last/page.html."
_DELAY = (
    "Delay d buys d days after the score was known. An honest signal fades with delay; one that does not is a leak "
    "until proven otherwise. Delays beyond 1 lack the part's last days, so that no label of another part is read."
)
_NEUTRAL = (
    "Sector-neutral: the score minus its sector's mean. Neutral to factors: what a regression of the score's ranks on "
    "the factors' ranks leaves, against the label's ranks. Below: the score's own rank correlation with each factor."
)
_SIBLINGS = "Mean over horizons, delay 1. The spread between seeds is the error that no single run can show."
_TRAINING = (
    "Best validation RankIC per phase (mean over horizons by 1/sqrt(h)); then spread, distinct values and rank "
    "autocorrelation of the 1-day score."
)


def _slice_note(card: Mapping[str, Any]) -> str:
    missing = sorted({"size", "liquidity", "volatility"} - set(card["detail"]["factors"]))
    note = (
        f"Horizon {card['detail']['horizon']}, delay {card['detail']['delay']}. Thirds of the stocks of each date by "
        "size, liquidity and volatility; sectors by the exchange's 33."
    )
    return note + (f" Not among the inputs, hence not shown: {', '.join(missing)}." if missing else "")


def _head(card: Mapping[str, Any], verdicts: Mapping[str, Verdict]) -> str:
    passed = all(v.passed for v in verdicts.values())
    told = '<span class="pass">passed</span>' if passed else '<span class="fail">not passed: no predictions</span>'
    spans = {part: span for part, span in card["split"].items() if isinstance(span, list)}
    split = "; ".join(f"{PART_NAMES.get(part, part)} {first} to {last}" for part, (first, last) in spans.items())
    return (
        f'<header><div class="in"><h1>Evaluation of run {escape(str(card["run_id"]))}</h1>'
        f"<p>{escape(str(card['market']))} · {card['n_features']} inputs · checks: {told}</p>"
        f"<p>{escape(split)}; embargo {card['split']['embargo_days']} trading days</p></div></header>"
    )


def _summary(card: Mapping[str, Any]) -> str:
    """The numbers that people look for first, each with its error."""
    note = ""
    if card["simulated"]:
        note = (
            f'<div class="note"><b>This is a simulated market</b> ({escape(card["market"])}). Its signal was planted, '
            "so that learning can be measured; the numbers say nothing about real returns.</div>"
        )
    cards = []
    for part, title in PART_NAMES.items():
        for delay in (1, 0):
            cell = _cell(card, "model", part, delay)["rank_ic"]
            told = f"t {number(cell['t'], 1)}, {cell['n_dates']} dates, 1 day"
            cards.append((f"RankIC, {title}, {DELAY_NAMES[delay]}", pm(cell), told))
    for part, title in PART_NAMES.items():
        book = card["models"]["model"][part]["delay_1"][str(BOOK_HORIZON)]["book"]
        told = f"95 % {interval(book['ci95'], 1)}"
        cards.append((f"Net Sharpe, {title}, {BOOK_HORIZON}-day book", number(book["sharpe_net_ann"], 2), told))
        told = f"turnover {number(book['turnover'], 2)} a day"
        cards.append((f"Break-even cost, {title}", f"{number(scaled(book['break_even_cost'], 1e4), 1)} bp", told))
    return note + tiles(cards)


def _verdict_table(verdicts: Mapping[str, Verdict]) -> str:
    rows = [
        [name, state(v.passed), number(v.got, 4), number(v.want, 4), f'<td class="text">{escape(v.message)}</td>']
        for name, v in verdicts.items()
    ]
    return table(["rule", "", "got", "want", "in words"], rows)


def _rank_ic_table(card: Mapping[str, Any], horizon: str) -> str:
    names = _models(card)
    rows = []
    for part in PART_NAMES:
        for delay in (1, 0):
            cells = [card["models"][name][part][f"delay_{delay}"][horizon]["rank_ic"] for name in names]
            rows.append([f"{PART_NAMES[part]}, {DELAY_NAMES[delay]}", str(cells[0]["n_dates"]), *map(pm, cells)])
    return table(["", "dates", *names], rows)


def _difference_table(card: Mapping[str, Any]) -> str:
    rows = []
    for part in PART_NAMES:
        for delay in (1, 0):
            row = [f"{PART_NAMES[part]}, {DELAY_NAMES[delay]}"]
            for rival in RIVALS:
                cell = card["differences"][rival][part][f"delay_{delay}"][str(HEADLINE_HORIZON)]
                row += [pm(cell), interval(cell["ci95"], 4)]
            rows.append(row)
    return table(["", *(text for rival in RIVALS for text in (f"model − {rival}", "95 %"))], rows)


def _oracle(card: Mapping[str, Any]) -> tuple[str, str]:
    """Table and note of the correlation with the oracle."""
    if "oracle_correlation" not in card:
        return "", "A real market has no oracle; only realised returns can judge a score here."
    rows = []
    for part in PART_NAMES:
        for delay in (1, 0):
            cells = card["oracle_correlation"]
            found = [cells[name][part][f"delay_{delay}"][str(HEADLINE_HORIZON)] for name in cells]
            rows.append([f"{PART_NAMES[part]}, {DELAY_NAMES[delay]}", *map(pm, found)])
    note = (
        "Correlation with the oracle: the expected return that generated the prices, which only the evaluation reads. "
        f"Per date ± standard error ({HEADLINE_HORIZON}-day horizon); without return noise, 1 would be perfect."
    )
    return table(["", *card["oracle_correlation"]], rows), note


def _book_table(card: Mapping[str, Any]) -> str:
    rows = []
    for name in _models(card):
        for part in PART_NAMES:
            for delay in (1, 0):
                book = card["models"][name][part][f"delay_{delay}"][str(BOOK_HORIZON)]["book"]
                rows.append(
                    [
                        f"{name}, {PART_NAMES[part]}, delay {delay}",
                        number(book["sharpe_net_ann"], 2),
                        interval(book["ci95"], 2),
                        number(book["sharpe_gross_ann"], 2),
                        number(book["turnover"], 2),
                        percent(book["max_dd"]),
                        f"{number(scaled(book['break_even_cost'], 1e4), 1)} bp",
                    ]
                )
    return table(["", "Sharpe, net", "95 %", "Sharpe, gross", "turnover a day", "max drawdown", "break-even"], rows)


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
                        pm(rank),
                        interval(cell["rank_ic_ci95"], 4),
                        number(rank["icir"], 2),
                        pm(cell["ic"]),
                        percent(cell["hit_rate"]["mean"]),
                        number(scaled(cell["spread"]["mean"], 1e4), 1),
                        number(cell["monotonicity"], 2),
                        str(rank["n_dates"]),
                    ]
                )
    head = ["", "RankIC", "95 %", "ICIR", "IC", "hit rate", "decile spread, bp", "monotonicity", "dates"]
    return table(head, rows)


def _phase_table(card: Mapping[str, Any]) -> str:
    rows = [
        [
            f"{row['phase']} {row['name']}",
            number(row.get("start_rank_ic"), 4),
            number(row.get("best_rank_ic"), 4),
            str(row.get("best_epoch") or "start kept"),
            str(row.get("epochs")),
            number(row.get("seconds"), 0),
        ]
        for row in card["training"].get("phases") or []
    ]
    return table(["phase", "start", "best", "best epoch", "epochs", "seconds"], rows) if rows else ""


def _score_table(card: Mapping[str, Any]) -> str:
    rows = []
    for part, seen in card["scores"].items():
        lags = seen["rank_autocorrelation"]
        rows.append(
            [
                PART_NAMES[part],
                number(seen["score_std_median"], 4),
                percent(seen["unique_ratio"]),
                *(number(lags[lag], 2) for lag in ("1", "5", "20")),
                percent(card["coverage"][part]),
            ]
        )
    head = ["", "spread", "distinct", "rank autocorr. 1 day", "5 days", "20 days", "tradable stocks scored"]
    return table(head, rows)


def _cell(card: Mapping[str, Any], name: str, part: str, delay: int) -> Any:
    return card["models"][name][part][f"delay_{delay}"][str(HEADLINE_HORIZON)]


def _models(card: Mapping[str, Any]) -> list[str]:
    return [name for name in ("model", *RIVALS, "oracle") if name in card["models"]]
