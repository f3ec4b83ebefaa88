"""Issues whose margin balances the exchange publishes every day because their trading has overheated.

An issue enters the list after a burst of volatility, is restricted step by step, and leaves it with class 101. A
correction is a further row: the same application date, a later publication date.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.exchange.drawing import Market
from atft_pipeline.exchange.margin import Balances, business_range, draw_balances, trading_row

if TYPE_CHECKING:
    from atft_pipeline.exchange.sources import SpanTable

CLASSES = ("", "001", "002", "003", "004", "005", "006", "102", "101")
"""Regulation classes by state: the securities finance company's caution, daily publication, restrictions 1 to 4 of
the exchange, supervision, and the row that lifts them."""
NONE, CAUTION, PUBLISHED, WORST, SUPERVISED, LIFTED = 0, 1, 2, 6, 7, 8

REASONS = ("Restricted", "DailyPublication", "Monitoring", "RestrictedByJSF", "PrecautionByJSF", "UnclearOrSecOnAlert")
PARTS = ("ShrtNeg", "ShrtStd", "LongNeg", "LongStd")

_ENTRY = 0.0024
"""Chance a day for an issue in quiet times; with _EXIT about one issue in twenty is on the list."""
_EXIT = 0.05
_CORRECTED = 0.01
_LONGEST_DELAY = 5

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Alerts:
    """Who is on the list on which business day, and which rows come again corrected."""

    state: NDArray[np.int8]
    """[business days, issues] of the application date: index into CLASSES."""
    corrected: tuple[Ints, Ints, Ints]
    """(application day, issue, publication day) of each correction, by number of the business day."""


def margin_alert(market: Market) -> SpanTable:
    """Source of /markets/margin-alert: one row per listed name and publication day, and the corrections."""
    balances, alerts = draw_balances(market), draw_alerts(market)
    dates = pl.Series([day.isoformat() for day in market.business])
    row = trading_row(market)

    def rows(first: date, last: date) -> pl.DataFrame:
        days = business_range(market, first, last)
        applied = np.arange(max(days.start - 1, 0), max(days.stop - 1, 0))
        which, issue = np.nonzero(alerts.state[applied] != NONE)
        again = (alerts.corrected[2] >= days.start) & (alerts.corrected[2] < days.stop)
        application = np.concatenate([applied[which], alerts.corrected[0][again]])
        issues = np.concatenate([issue, alerts.corrected[1][again]])
        publication = np.concatenate([applied[which] + 1, alerts.corrected[2][again]])
        late = np.arange(len(issues)) >= len(issue)
        keys = {
            "PubDate": dates[publication],
            "Code": pl.Series(market.universe.codes)[issues],
            "AppDate": dates[application],
        }
        table = pl.DataFrame(keys | _columns(balances, alerts, row, application, issues, late))
        return table.sort("PubDate", "Code", "AppDate")

    return rows


def draw_alerts(market: Market) -> Alerts:
    """Draw the list of the whole history day by day; the chance to enter grows with the issue's volatility."""
    rng = np.random.default_rng([market.size.seed, 22])
    universe, row = market.universe, trading_row(market)
    days, issues = len(market.business), len(universe.codes)
    listed = universe.listed(days)
    eager = np.where(universe.common, universe.total / 0.02, 6.0)
    state = np.zeros((days, issues), np.int8)
    for day in range(1, days):
        before = state[day - 1]
        luck, step = rng.random(issues), rng.random(issues)
        heat = eager * market.noise.volatility[row[day]] ** 2
        now = before.copy()
        now[(before == NONE) | (before == LIFTED)] = NONE
        enters = (now == NONE) & (luck < _ENTRY * heat)
        now[enters] = np.where(step[enters] < 0.15, CAUTION, np.where(step[enters] < 0.18, SUPERVISED, PUBLISHED))
        on = (before != NONE) & (before != LIFTED)
        harder = on & (before >= PUBLISHED) & (before < WORST) & (step < 0.015)
        now[harder] = before[harder] + 1
        now[on & (luck < _EXIT)] = LIFTED
        now[~listed[day]] = NONE
        state[day] = now
    application, issue = np.nonzero(state)
    wrong = rng.random(len(issue)) < _CORRECTED
    delay = rng.integers(1, _LONGEST_DELAY + 1, len(issue))
    publication = application + 1 + delay
    kept = wrong & (publication < days)
    return Alerts(state, (application[kept], issue[kept], publication[kept]))


def _columns(
    balances: Balances, alerts: Alerts, row: Ints, application: Ints, issue: Ints, late: NDArray[np.bool_]
) -> dict[str, pl.Series]:
    """Reasons, balances, their changes and ratios of (application day, issue) pairs; `late` rows are corrections."""
    market = balances.market
    state = alerts.state[application, issue]
    now = _corrected(balances.shares(row[application], issue), late)
    earlier = np.maximum(application - 1, 0)
    before = balances.shares(row[earlier], issue)
    fresh = pl.Series((alerts.state[earlier, issue] == NONE) | (application == 0))
    funds = pl.Series(np.array([kind == "014" for kind in market.universe.product], dtype=bool)[issue])
    issued = market.universe.shares[issue] / balances.split[row[application], issue]

    def change(name: str) -> pl.Series:
        return pl.Series(now[name] - before[name]).cast(pl.String).set(fresh, "-")

    def share(name: str) -> pl.Series:
        return pl.Series(np.round(100 * now[name] / issued, 2)).cast(pl.String).set(funds, "*")

    columns: dict[str, pl.Series] = {"PubReason": _reasons(state)}
    for side in ("Shrt", "Long"):
        columns |= {
            f"{side}Out": pl.Series(now[side]),
            f"{side}OutChg": change(side),
            f"{side}OutRatio": share(side),
        }
    ratio = np.round(100 * now["Shrt"] / np.maximum(now["Long"], 1), 1)
    columns["SLRatio"] = pl.Series(ratio).cast(pl.String).set(pl.Series(now["Long"] == 0), "-")
    for part in PARTS:
        columns |= {f"{part}Out": pl.Series(now[part]), f"{part}OutChg": change(part)}
    columns["TSEMrgnRegCls"] = pl.Series(CLASSES)[state]
    return columns


def _corrected(shares: dict[str, Ints], late: NDArray[np.bool_]) -> dict[str, Ints]:
    """The same balances, with a lot more of negotiable longs in the corrected rows."""
    more = late * np.maximum(shares["LongNeg"] // 5000, 1) * 100
    return shares | {"LongNeg": shares["LongNeg"] + more, "Long": shares["Long"] + more}


def _reasons(state: NDArray[np.int8]) -> pl.Series:
    """The nested PubReason: one "0" or "1" per reason."""
    is_restricted = (state > PUBLISHED) & (state <= WORST)
    flags = {
        "Restricted": is_restricted,
        "DailyPublication": (state >= PUBLISHED) & (state <= WORST),
        "Monitoring": state == SUPERVISED,
        "RestrictedByJSF": state == WORST,
        "PrecautionByJSF": state == CAUTION,
        "UnclearOrSecOnAlert": state == SUPERVISED,
    }
    return pl.DataFrame({name: np.where(flags[name], "1", "0") for name in REASONS}).to_struct("PubReason")
