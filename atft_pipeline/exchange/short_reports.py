"""Reports of large short positions: who is short how much of an issue, as far as it must be disclosed.

A holder reports at 0.5 % of the shares issued, on each change of the tenths of a percent, and once when falling below
0.5 %. A report is disclosed two business days after the day it was calculated for and names the report before it. The
positions lean against the hidden slow characteristic, behind more noise than signal.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.exchange.drawing import Market
from atft_pipeline.exchange.margin import business_range

if TYPE_CHECKING:
    from atft_pipeline.exchange.sources import SpanTable

THRESHOLD = 0.005
"""Smallest position that is reported, as a share of the shares issued."""
STEP = 0.001
DISCLOSED_AFTER = 2
"""Business days from the calculation to the disclosure."""

HOLDERS_PER_ISSUE = 4
_HOUSES = 18
_PERSISTENCE = 0.985
_DAILY = 0.040
"""Daily standard deviation of a position's logarithm."""
_BY_LINEAR = -0.0045
"""Daily push on the logarithm per unit of the hidden characteristic."""
_LOT = 100
_GONE = "報告義務消滅"

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Reports:
    """Every report of the history, one entry each, ordered by disclosure, issue and holder."""

    calculated: Ints
    """Number of the business day."""
    issue: Ints
    house: Ints
    ratio: Floats
    shares: Ints
    previous_day: Ints
    """Business day of the holder's previous report on the issue; -1 for none."""
    previous_ratio: Floats


def short_sale_reports(market: Market) -> SpanTable:
    """Source of /markets/short-sale-report."""
    reports = draw_reports(market)
    codes, houses = pl.Series(market.universe.codes), _houses()
    dates = pl.Series([day.isoformat() for day in market.business])

    def rows(first: date, last: date) -> pl.DataFrame:
        days = business_range(market, first, last)
        disclosed = reports.calculated + DISCLOSED_AFTER
        low, high = np.searchsorted(disclosed, [days.start, days.stop])
        at = slice(int(low), int(high))
        held = houses[reports.house[at]]
        previous = reports.previous_day[at]
        never = pl.Series(previous < 0)
        ratio = reports.ratio[at]
        return pl.DataFrame(
            {
                "DiscDate": dates[disclosed[at]],
                "CalcDate": dates[reports.calculated[at]],
                "Code": codes[reports.issue[at]],
                **{name: held[name] for name in held.columns},
                "ShrtPosToSO": ratio,
                "ShrtPosShares": reports.shares[at],
                "ShrtPosUnits": reports.shares[at] // _LOT,
                "PrevRptDate": dates[np.maximum(previous, 0)].set(never, ""),
                "PrevRptRatio": pl.Series(reports.previous_ratio[at]).set(never, None),
                "Notes": pl.Series(np.where(ratio < THRESHOLD, _GONE, "")),
            }
        )

    return rows


def _houses() -> pl.DataFrame:
    """Who reports: most for themselves, some as the manager of a fund. No real firm."""
    rows = []
    for number in range(_HOUSES):
        name = f"Simulated {'Bank' if number < 8 else 'Capital'} {chr(65 + number)} Ltd."
        fund = f"Simulated Master Fund {number}" if number % 4 == 3 else ""
        manager = f"Simulated Managers {number} LLP" if fund else ""
        rows.append(
            (name, f"{number + 1} Sample Street, London", manager, f"{number + 1} Sample Lane" * bool(fund), fund)
        )
    return pl.DataFrame(rows, schema=["SSName", "SSAddr", "DICName", "DICAddr", "FundName"], orient="row")


def draw_reports(market: Market) -> Reports:
    """Let every position of every possible holder wander day by day, and note what has to be reported."""
    rng = np.random.default_rng([market.size.seed, 25])
    universe = market.universe
    days, issues = len(market.business), len(universe.codes)
    popular = np.log(np.linspace(3, 0.4, _HOUSES)) + rng.gumbel(size=(issues, _HOUSES))
    house = np.argsort(-popular, axis=1, kind="stable")[:, :HOLDERS_PER_ISSUE].ravel()
    issue = np.repeat(np.arange(issues), HOLDERS_PER_ISSUE)
    level = np.log(THRESHOLD) + rng.normal(-1.35, 0.85, issue.size) - 4.0 * ~universe.common[issue]
    spread = _DAILY / np.sqrt(1 - _PERSISTENCE**2)
    position = level + spread * rng.standard_normal(issue.size)
    tenths = np.where(np.exp(position) >= THRESHOLD, np.floor(np.exp(position) / STEP), 0)
    last_day, last_ratio = np.full(issue.size, -1), np.full(issue.size, np.nan)
    listed = universe.listed(days)
    row = np.maximum(np.cumsum(market.trading) - 1, 0)
    issued = universe.shares / np.cumprod(market.closes.factor, axis=0)
    found: list[tuple[Ints, ...] | tuple[NDArray[np.generic], ...]] = []
    for day in range(days - DISCLOSED_AFTER):
        shock = _DAILY * rng.standard_normal(issue.size)
        position = level + _PERSISTENCE * (position - level) + shock
        position += _BY_LINEAR * market.hidden.linear[row[day], issue]
        ratio = np.round(np.exp(position), 4)
        now = np.where(ratio >= THRESHOLD, np.floor(ratio / STEP + 1e-9), 0)
        at = np.flatnonzero((now != tenths) & listed[day, issue] & market.trading[day])
        shares = np.round(ratio[at] * issued[row[day], issue[at]] / _LOT).astype(np.int64) * _LOT
        found.append((np.full(len(at), day), issue[at], house[at], ratio[at], shares, last_day[at], last_ratio[at]))
        tenths[at], last_day[at], last_ratio[at] = now[at], day, ratio[at]
    columns = [np.concatenate([part[n] for part in found]) for n in range(7)]
    order = np.lexsort((columns[2], columns[1], columns[0]))
    return Reports(*(column[order] for column in columns))
