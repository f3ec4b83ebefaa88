"""All checks of a table: which there are (`checks_of`), and their verdicts (`judge_table`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from atft_pipeline.jquants.checks import balance_rules, event_rules, market_rules
from atft_pipeline.jquants.checks.coverage import Freshness, coverage_of
from atft_pipeline.jquants.checks.publication import publication_of
from atft_pipeline.jquants.checks.rows import Rows
from atft_pipeline.jquants.checks.rule import Rule
from atft_pipeline.jquants.checks.scan import Part, absent, missing_months, scan
from atft_pipeline.jquants.checks.splits import Splits
from atft_pipeline.jquants.checks.statements import Cumulative
from atft_pipeline.jquants.checks.structure import Keys, RowsPerDay, Schema
from atft_pipeline.jquants.table import Table
from atft_pipeline.jquants.tables import CALENDAR
from atft_pipeline.verdict import Verdict

RULES: dict[str, tuple[Rule, ...]] = {
    "calendar": market_rules.CALENDAR_RULES,
    "master": market_rules.MASTER_RULES,
    "bars_daily": market_rules.BARS_RULES,
    "topix": market_rules.INDEX_RULES,
    "indices": market_rules.INDEX_RULES,
    "futures": market_rules.FUTURES_RULES,
    "options_225": market_rules.OPTIONS_225_RULES,
    "investor_types": balance_rules.INVESTOR_TYPES_RULES,
    "margin_interest": balance_rules.MARGIN_INTEREST_RULES,
    "margin_alert": balance_rules.MARGIN_ALERT_RULES,
    "short_ratio": balance_rules.SHORT_RATIO_RULES,
    "short_sale_report": balance_rules.SHORT_SALE_REPORT_RULES,
    "breakdown": balance_rules.BREAKDOWN_RULES,
    "fin_summary": event_rules.FIN_SUMMARY_RULES,
    "fin_details": event_rules.FIN_DETAILS_RULES,
    "dividend": event_rules.DIVIDEND_RULES,
    "earnings_date": event_rules.EARNINGS_DATE_RULES,
}
"""Row rules by table name. A table without an entry has the structural checks only."""


@dataclass(frozen=True)
class Check:
    """A check's name, what it says, and whether it may stop what follows (some only ever warn)."""

    name: str
    description: str
    blocking: bool


def checks_of(table: Table) -> list[Check]:
    """Every check of the table; `judge_table` answers exactly these."""
    checks = [
        Check("keys_unique", "No null key, no repeated key, no row in another month's file.", True),
        Check("schema_as_declared", "Every month holds every declared column with its declared type.", True),
        Check("complete", "What must be there by the calendar and the list of issues is there.", True),
        Check("fresh", "What is published by now is stored. Warns only: the stored rows are right.", False),
    ]
    if _has_band(table):
        checks.append(Check("rows_per_day", "No day has far fewer rows than the days before (more only warns).", True))
    if table.covers and not table.among:
        checks.append(
            Check("codes_match_listing", "Each listed issue has a row each day, and no other issue has. Warns.", False)
        )
    if table.name == "bars_daily":
        checks += [
            Check("splits_match_prices", "A factor other than 1 comes with a move of the price.", True),
            Check("jumps_explained", "No move beyond 40 % between traded days without a factor. Warns.", False),
            Check("adjusted_follow_factors", "AdjC moves as C over the factor, to rounding. Warns.", False),
        ]
    if table.name == "fin_summary":
        checks.append(Check("sales_cumulative", "Sales do not shrink from quarter to quarter of a fiscal year.", True))
    rules = RULES.get(table.name, ())
    return checks + [Check(rule.name, f"{rule.says}. {rule.why}", rule.severity == "error") for rule in rules]


def judge_table(
    lake: Path, table: Table, months: Sequence[str], *, now: datetime, end: date | None = None
) -> dict[str, Verdict]:
    """Check name -> verdict, reading every month once. `now` is aware; `end` is the last date of a market that ends.

    A month that is not stored fails every check with the remedy; a damaged file raises `LakeError`.
    """
    missing = missing_months(lake, table, months)
    if not missing and table is not CALENDAR and not months:
        missing = ["all"]
    if missing:
        return {check.name: absent(table, missing) for check in checks_of(table)}
    parts: list[Part] = [
        Keys(table),
        Schema(table),
        coverage_of(lake, table),
        Freshness(lake, table, now, end),
        Rows(table, RULES.get(table.name, ())),
    ]
    if _has_band(table):
        parts.append(RowsPerDay(table))
    if table.name == "bars_daily":
        parts.append(Splits(table))
    if table.name == "fin_summary":
        parts.append(Cumulative(table))
    return scan(lake, table, months, parts)


def _has_band(table: Table) -> bool:
    """Whether the rows of one day say something about those of another."""
    return table.unit == "day" and publication_of(table).cadence in ("daily", "margin") and table is not CALENDAR
