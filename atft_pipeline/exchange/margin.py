"""Margin balances: what is bought and sold on credit per issue, and the weekly (later daily) table of it.

Shares as counted on the day: a split is not worked into earlier rows. Volume = negotiable + standardised, always; an
issue that is not loanable has no standardised short. The long balance follows losses of the past month and, like the
short balance, the hidden slow characteristic, each behind more noise than signal.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.exchange.drawing import Market
from atft_pipeline.exchange.publication import MARGIN_DAILY
from atft_pipeline.exchange.tokyo_calendar import business_days

if TYPE_CHECKING:
    from atft_pipeline.exchange.sources import SpanTable

FEWEST_SESSIONS = 3
"""Weeks with fewer business days have no weekly row."""

PUBLISHED_AFTER = 2
"""A weekly row is published on the 2nd business day after its date; a daily one on the next."""

LOT = 100
LOANABLE = "2"

_MEMORY = 0.9 ** (1 / 5)
"""A balance keeps nine tenths of its deviation over a week."""
_WANDER = 0.45
_BY_LINEAR = np.array([[-0.28], [0.30]])
"""What one unit of the hidden characteristic does to the logarithm of the long and of the short balance."""
_BY_LOSS = 1.5
"""Rise of the log long balance per unit of log loss over LOSS_DAYS: private investors buy what has fallen."""
_LOSS_DAYS = 20

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Balances:
    """Outstanding margin trades of every issue on every trading day."""

    market: Market
    log_long: NDArray[np.float32]
    """[days, issues]: logarithm of the long balance in shares, before splits."""
    log_short: NDArray[np.float32]
    long_standard: NDArray[np.float32]
    """[days, issues]: share of the long balance under standardised terms."""
    short_standard: NDArray[np.float32]
    split: NDArray[np.float32]
    """[days, issues]: product of the adjustment factors up to the day."""

    def shares(self, row: Ints, issue: Ints) -> dict[str, Ints]:
        """Balances of (trading day, issue) pairs in shares as counted on that day, in whole lots."""
        split = self.split[row, issue].astype(np.float64)
        parts: dict[str, Ints] = {}
        for side, level, standard in (
            ("Shrt", self.log_short, self.short_standard),
            ("Long", self.log_long, self.long_standard),
        ):
            whole = np.round(np.exp(level[row, issue].astype(np.float64)) / split / LOT)
            parts[f"{side}Std"] = (np.round(whole * standard[row, issue]) * LOT).astype(np.int64)
            parts[f"{side}Neg"] = (whole * LOT).astype(np.int64) - parts[f"{side}Std"]
            parts[side] = parts[f"{side}Std"] + parts[f"{side}Neg"]
        return parts


def draw_balances(market: Market) -> Balances:
    """Draw the balances of the whole history, from their stationary distribution."""
    rng = np.random.default_rng([market.size.seed, 21])
    universe, hidden = market.universe, market.hidden.linear
    issues = len(universe.codes)
    traded_shares = universe.turnover / universe.price
    small = np.clip(np.log(2e9 / universe.turnover) / 4, 0, 1.6)
    long_level = np.log(traded_shares) + 0.1 + small + rng.normal(0, 0.5, issues)
    short_level = long_level - np.log(5.0) + rng.normal(0, 0.9, issues)
    loanable = np.array([kind == LOANABLE for kind in universe.margin])
    short_level = np.where(loanable, short_level, short_level - 0.9)
    longs, shorts = (_wandering(rng, hidden.shape, _WANDER) for _ in range(2))
    longs += long_level + _BY_LINEAR[0] * hidden + _BY_LOSS * _recent_loss(market)
    shorts += short_level + _BY_LINEAR[1] * hidden
    terms = [_wandering(rng, hidden.shape, 0.25) + rng.normal(centre, 0.5, issues) for centre in (0.2, 0.9)]
    long_terms, short_terms = ((1 / (1 + np.exp(-term))).astype(np.float32) for term in terms)
    split = np.cumprod(market.closes.factor, axis=0).astype(np.float32)
    return Balances(
        market, longs.astype(np.float32), shorts.astype(np.float32), long_terms, short_terms * loanable, split
    )


def _wandering(rng: np.random.Generator, shape: tuple[int, ...], deviation: float) -> Floats:
    """A stationary series per issue that forgets a tenth of itself every week."""
    series = deviation * rng.standard_normal(shape)
    series[1:] *= np.sqrt(1 - _MEMORY**2)
    for t in range(1, len(series)):
        series[t] += _MEMORY * series[t - 1]
    return series


def _recent_loss(market: Market) -> Floats:
    """Minus the log return over the past LOSS_DAYS, 0 while there is no such past."""
    adjusted = np.log(market.closes.close / np.cumprod(market.closes.factor, axis=0))
    loss = np.zeros_like(adjusted)
    loss[_LOSS_DAYS:] = adjusted[:-_LOSS_DAYS] - adjusted[_LOSS_DAYS:]
    return np.clip(np.nan_to_num(loss), -0.4, 0.4)


def reference_dates(start: date, end: date) -> list[date]:
    """The dates of margin rows in [start, end]: the last business day of a week, and from MARGIN_DAILY on every one."""
    around = business_days(start - timedelta(days=7), end + timedelta(days=7))
    weeks: dict[date, list[date]] = {}
    for day in around:
        weeks.setdefault(day - timedelta(days=day.weekday()), []).append(day)
    weekly = [week[-1] for week in weeks.values() if len(week) >= FEWEST_SESSIONS and week[-1] < MARGIN_DAILY]
    daily = [day for day in around if day >= MARGIN_DAILY]
    return [day for day in (*weekly, *daily) if start <= day <= end]


def published_on(days: list[date]) -> list[date]:
    """When the rows of each reference date are published."""
    if not days:
        return []
    after = business_days(days[0], days[-1] + timedelta(days=30))
    return [after[bisect_left(after, day) + (1 if day >= MARGIN_DAILY else PUBLISHED_AFTER)] for day in days]


def margin_interest(market: Market) -> SpanTable:
    """Source of /markets/margin-interest: one row per reference date and listed issue, once it is published."""
    balances = draw_balances(market)
    start, end = market.business[0], market.business[-1]
    pairs = [pair for pair in _dated(reference_dates(start, end)) if pair[1] <= end]

    def rows(first: date, last: date) -> pl.DataFrame:
        wanted = [pair for pair in pairs if first <= pair[0] <= last]
        day = [bisect_left(market.business, dated) for dated, _ in wanted]
        listed = market.universe.listed(len(market.business))[day]
        which, issue = np.nonzero(listed)
        row = trading_row(market)[day][which] if wanted else np.empty(0, np.int64)
        return _table(balances, wanted, which, row, issue)

    return rows


def _dated(days: list[date]) -> list[tuple[date, date]]:
    return list(zip(days, published_on(days), strict=True))


def trading_row(market: Market) -> Ints:
    """Row of the trading arrays for each business day: the last trading day up to it."""
    return market.trading_row


def business_range(market: Market, first: date, last: date) -> range:
    """Business days of the market in [first, last], by their number."""
    return market.business_range(first, last)


def _table(balances: Balances, dated: list[tuple[date, date]], which: Ints, row: Ints, issue: Ints) -> pl.DataFrame:
    universe = balances.market.universe
    shares = balances.shares(row, issue)
    daily = np.array([day >= MARGIN_DAILY for day, _ in dated], dtype=bool)[which]
    close = np.where(daily, balances.market.closes.close[row, issue], 0.0)
    columns: dict[str, pl.Series] = {
        "PubDate": pl.Series([p.isoformat() if d >= MARGIN_DAILY else None for d, p in dated], dtype=pl.String)[which],
        "Date": pl.Series([d.isoformat() for d, _ in dated], dtype=pl.String)[which],
        "Code": pl.Series(universe.codes)[issue],
        "IssType": pl.Series(universe.margin)[issue],
    }
    for kind in ("", "Neg", "Std"):
        for side in ("Shrt", "Long"):
            columns[f"{side}{kind}Vol"] = pl.Series(shares[f"{side}{kind}"])
    for kind in ("", "Neg", "Std"):
        for side in ("Shrt", "Long"):
            # Yen at the close: integers, so that the two kinds add up as the shares do.
            parts = [np.round(shares[f"{side}{part}"] * close) for part in (("Neg", "Std") if not kind else (kind,))]
            amount = np.sum(parts, axis=0).astype(np.int64)
            columns[f"{side}{kind}Val"] = pl.Series(amount).set(pl.Series(~daily), None)
    return pl.DataFrame(columns)
