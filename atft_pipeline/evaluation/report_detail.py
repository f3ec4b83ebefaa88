"""The report's tables of detail: books, neutral scores, worst days, lineage, siblings, provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from atft_pipeline.evaluation.lineage import Changes
from atft_pipeline.evaluation.page import interval, number, percent, pm, table

PART_NAMES = {"valid": "validation", "test": "test"}


def delay_table(card: Mapping[str, Any]) -> str:
    """RankIC by delay and horizon."""
    rows = []
    for part, name in PART_NAMES.items():
        for delay, cells in card["detail"][part]["delays"].items():
            rows.append([f"{name}, delay {delay}", *(pm(cell) for cell in cells.values())])
    horizons = list(next(iter(card["detail"]["test"]["delays"].values())))
    return table(["", *(f"{h} day{'s' if h != '1' else ''}" for h in horizons)], rows)


def neutral_table(card: Mapping[str, Any]) -> str:
    """RankIC as it is and after plain factors."""
    rows = []
    for name in card["detail"]["valid"]["neutral"]:
        cells = [card["detail"][part]["neutral"][name] for part in PART_NAMES]
        rows.append([name, *(text for cell in cells for text in (pm(cell), interval(cell["ci95"], 4)))])
    for name in card["detail"]["valid"]["exposures"]:
        cells = [card["detail"][part]["exposures"][name] for part in PART_NAMES]
        row = [f"score's correlation with {name}"]
        rows.append([*row, *(text for cell in cells for text in (pm(cell), interval(cell["ci95"], 4)))])
    return table(["", *(text for name in PART_NAMES.values() for text in (name, "95 %"))], rows)


def returns_table(card: Mapping[str, Any]) -> str:
    """What each book and the market earned."""
    rows = []
    for part, title in PART_NAMES.items():
        for name, found in card["detail"][part]["books"]["returns"].items():
            rows.append(
                [
                    f"{name}, {title}",
                    percent(found["annual_return"]),
                    percent(found["annual_volatility"]),
                    number(found["sharpe"], 2),
                    percent(found["max_drawdown"]),
                ]
            )
    return table(["", "a year", "volatility", "Sharpe", "max drawdown"], rows)


def risk_table(card: Mapping[str, Any]) -> str:
    """The dollar-neutral book's Sharpe by cost, its time under water and worst days."""
    rows = []
    for part, title in PART_NAMES.items():
        books = card["detail"][part]["books"]
        worst = ", ".join(f"{day} {percent(value)}" for day, value in books["worst_days"][:3])
        rows.append(
            [
                title,
                *(number(value, 2) for value in books["sharpe_at_cost"]),
                interval(books["gross_ci95"], 2),
                f"{books['days_under_water']} days",
                percent(books["share_under_water"]),
                f'<td class="text">{escape(worst)}</td>',
            ]
        )
    costs = [f"Sharpe at {1e4 * cost:.0f} bp" for cost in card["detail"]["valid"]["books"]["costs"]]
    return table(["", *costs, "gross, 95 %", "longest under water", "share", "worst days (net)"], rows)


def changes_html(changes: Changes | None) -> str:
    """What differs from the champion."""
    if changes is None:
        return "<p>There is no other champion to compare with: this run is it, or none was promoted yet.</p>"
    head = f"<p>{escape(changes.told)}.</p>"
    rows = [[what, f'<td class="text">{escape(old)}</td>', f'<td class="text">{escape(new)}</td>']
            for what, old, new in changes.rows]  # fmt: skip
    return head + (table(["", f"champion {changes.champion}", "this run"], rows) if rows else "")


def siblings_table(cards: Sequence[Mapping[str, Any]], run_id: str) -> str:
    """All runs on this panel: what a seed or a setting is worth."""
    rows = []
    for own in cards:
        cells = [own["models"]["model"][part]["delay_1"]["mean"]["rank_ic"] for part in PART_NAMES]
        training = own.get("training", {})
        name = f"{own['run_id']}{' (this run)' if own['run_id'] == run_id else ''}"
        rows.append([name, str(training.get("preset")), str(training.get("seed")), *(pm(cell) for cell in cells)])
    return table(["run", "preset", "seed", "RankIC, validation", "RankIC, test"], rows)


def provenance_table(card: Mapping[str, Any]) -> str:
    """Of which data, settings and code the numbers are made."""
    facts = {"market": card["market"], "panel_hash": card["panel_hash"], **card.get("provenance", {})}
    facts |= {name: card["training"].get(name) for name in ("preset", "seed", "phase", "epoch", "n_params")}
    facts |= {"ridge penalty": card["ridge"]["penalty"], "ridge rows": card["ridge"]["train_rows"]}
    facts |= {"LightGBM trees": card["lightgbm"]["trees"], "LightGBM rows": card["lightgbm"]["train_rows"]}
    rows = [[name, f'<td class="text">{escape(str(value))}</td>'] for name, value in facts.items() if value is not None]
    return table(["", ""], rows)
