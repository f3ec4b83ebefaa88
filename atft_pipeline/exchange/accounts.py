"""What the simulated companies earn and plan: quarterly figures per issue, before anything is disclosed.

The characteristic `linear` shows in the margins of past quarters and in what a company expects at a date; nothing here
looks past the day on which it is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.exchange.sectors import BANKS
from atft_pipeline.exchange.universe import Universe

HISTORY_MONTHS = 15
"""Months of figures before the first day, so that the first disclosures have their whole fiscal year."""
FUTURE_QUARTERS = 9
"""Quarters planned beyond the last day: a forecast reaches to the end of the next fiscal year."""

_YEAR_ENDS = ((3, 0.63), (12, 0.13), (2, 0.06), (9, 0.06), (6, 0.06), (5, 0.03), (1, 0.03))
_IFRS_SHARE = 0.12
_UNCONSOLIDATED_SHARE = 0.05

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Dates = NDArray[np.datetime64]


@dataclass(frozen=True)
class Accounts:
    """Figures in yen; arrays are [issues, quarters] unless they say otherwise."""

    quarter_end: Dates
    fiscal_quarter: Ints
    """1 to 4; 4 ends the fiscal year. The first column of every issue is a first quarter."""
    sales: Floats
    operating: Floats
    ordinary: Floats
    profit: Floats
    equity: Floats
    assets: Floats
    planned_sales: Floats
    planned_operating: Floats
    dividend: Floats
    """Yearly dividend per share as first planned, in shares of the first day."""
    treasury: Floats
    """[issues] share of the issue held in treasury."""
    bank: NDArray[np.bool_]
    """[issues] no operating profit is reported."""
    ifrs: NDArray[np.bool_]
    """[issues] no ordinary profit is reported."""
    unconsolidated: NDArray[np.bool_]

    def year_to_date(self, flow: Floats) -> Floats:
        """Cumulative since the start of the fiscal year."""
        total = np.cumsum(flow, axis=1)
        year = np.arange(flow.shape[1]) // 4 * 4
        before = np.where(year > 0, total[:, np.maximum(year - 1, 0)], 0.0)
        return total - before


def draw_accounts(universe: Universe, linear: Floats, trading: list[date], seed: int) -> Accounts:
    """Draw the figures of every issue. `linear` [trading days, issues] is the characteristic that they show."""
    rng = np.random.default_rng([seed, 10])
    issues = len(universe.codes)
    quarter_end, number = _quarters(rng, issues, trading)
    quarters = quarter_end.shape[1]
    shape = (issues, quarters)
    shown = _mean_by_quarter(linear, trading, quarter_end)

    yearly = universe.price * universe.shares / np.exp(rng.normal(0.0, 0.5, issues))
    season = 1 + rng.uniform(-0.12, 0.12, (issues, 4))
    growth = rng.normal(0.03, 0.04, issues)[:, None] * np.arange(quarters) / 4
    planned = yearly[:, None] / 4 * season[:, number[0] - 1] * np.exp(growth)
    margin = np.clip(rng.normal(0.08, 0.05, issues), -0.05, 0.35)[:, None]
    swing = 0.02 + 0.2 * np.abs(margin)
    sales = planned * np.exp(0.03 * shown + 0.05 * rng.standard_normal(shape))
    operating = sales * (margin + swing * (0.6 * shown + 0.5 * rng.standard_normal(shape)))
    ordinary = operating * 1.02 + sales * 0.004 * rng.standard_normal(shape)
    profit = 0.69 * ordinary + sales * 0.006 * rng.standard_normal(shape)
    paid = 0.3 * np.maximum(planned * margin * 0.7, 0.0)
    start = universe.price * universe.shares / np.exp(rng.normal(0.15, 0.5, issues))
    equity = np.maximum(start[:, None] + np.cumsum(profit - paid, axis=1), 0.1 * start[:, None])
    banks = universe.sector == BANKS
    ratio = np.where(banks, 0.05, np.clip(rng.normal(0.52, 0.16, issues), 0.1, 0.9))
    dividend = 4 * paid.mean(axis=1, keepdims=True) / universe.shares[:, None] * np.exp(growth)
    return Accounts(
        quarter_end=quarter_end,
        fiscal_quarter=number,
        sales=sales,
        operating=operating,
        ordinary=ordinary,
        profit=profit,
        equity=equity,
        assets=equity / ratio[:, None] * (1 + 0.01 * rng.standard_normal(shape)),
        planned_sales=planned,
        planned_operating=planned * margin,
        dividend=dividend,
        treasury=rng.uniform(0.0, 0.06, issues),
        bank=banks & (rng.random(issues) < 0.9),
        ifrs=(rng.random(issues) < _IFRS_SHARE) & ~banks,
        unconsolidated=rng.random(issues) < _UNCONSOLIDATED_SHARE,
    )


def month_end(month: Ints) -> Dates:
    """Last day of a month counted from January of year 0."""
    following = (month - 1970 * 12 + 1).astype("datetime64[M]").astype("datetime64[D]")
    return np.asarray(following - np.timedelta64(1, "D"), dtype="datetime64[D]")


def _quarters(rng: np.random.Generator, issues: int, trading: list[date]) -> tuple[Dates, Ints]:
    months, odds = zip(*_YEAR_ENDS, strict=True)
    closing = rng.choice(np.array(months), size=issues, p=np.array(odds) / sum(odds))
    closing[: len(months)] = months  # every fiscal year-end occurs, however small the market
    closing = rng.permutation(closing)[:issues]
    earliest = trading[0].year * 12 + trading[0].month - 1 - HISTORY_MONTHS
    latest = trading[-1].year * 12 + trading[-1].month - 1
    first = earliest + (closing - 1 + 3 - earliest) % 12  # month that ends a first quarter
    count = -(-((latest - earliest) // 3 + FUTURE_QUARTERS) // 4) * 4
    month = first[:, None] + 3 * np.arange(count)
    number = np.broadcast_to(np.arange(count) % 4 + 1, month.shape)
    return month_end(month.astype(np.int64)), number


def _mean_by_quarter(linear: Floats, trading: list[date], quarter_end: Dates) -> Floats:
    """Mean of the characteristic over each quarter's days that lie in the history; 0 where there are none."""
    days = np.array(trading, dtype="datetime64[D]")
    total = np.vstack([np.zeros((1, linear.shape[1])), np.cumsum(linear, axis=0)])
    before = month_end(quarter_end.astype("datetime64[M]").astype(np.int64) + 1970 * 12 - 3)
    lo, hi = np.searchsorted(days, before, side="right"), np.searchsorted(days, quarter_end, side="right")
    issue = np.arange(linear.shape[1])[:, None]
    mean = (total[hi, issue] - total[lo, issue]) / np.maximum(hi - lo, 1)
    return 1.5 * mean
