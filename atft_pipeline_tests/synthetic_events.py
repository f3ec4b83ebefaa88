"""Small event tables for tests, typed as the lake stores them: company documents, investor flows, TOPIX bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta

import numpy as np
import polars as pl

from atft_pipeline.jquants.tables import TABLES

QUARTER_END_MONTHS = {"1Q": 3, "2Q": 6, "3Q": 9, "FY": 12}
MONEY = 1e9

Row = Mapping[str, object]


def typed(table: str, rows: Sequence[Row]) -> pl.DataFrame:
    """Rows with the raw table's schema; what a row does not give is null."""
    schema = TABLES[table].schema
    for row in rows:
        assert not set(row) - set(schema), f"{table} has no column {set(row) - set(schema)}"
    return pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=schema, orient="row")


def document(code: str, disclosed: date, kind: str, year: int, time: str = "15:00:00", **values: object) -> Row:
    """A result for `kind` (1Q, 2Q, 3Q, FY) of the calendar year `year`; `values` fill or replace any field."""
    month = QUARTER_END_MONTHS[kind]
    end = date(year + month // 12, month % 12 + 1, 1) - timedelta(days=1)
    return {
        "DiscDate": disclosed,
        "DiscTime": time,
        "Code": code,
        "DiscNo": f"{disclosed:%Y%m%d}{time[:2]}{time[3:5]}",
        "DocType": f"{kind}FinancialStatements_Consolidated_JP",
        "CurPerType": kind,
        "CurPerSt": date(year, 1, 1),
        "CurPerEn": end,
        "CurFYSt": date(year, 1, 1),
        "CurFYEn": date(year, 12, 31),
        "NxtFYEn": date(year + 1, 12, 31),
        **values,
    }


def revision(code: str, disclosed: date, year: int, doc_type: str = "EarnForecastRevision", **values: object) -> Row:
    """A forecast document for the calendar year `year`; the API marks it with the period FY."""
    return {**document(code, disclosed, "FY", year, **values), "DocType": doc_type}


def company(code: str, years: Sequence[int], rng: np.random.Generator | None = None, shares: float = 1e7) -> list[Row]:
    """Quarterly results 40 days after each quarter, with forecasts, over calendar years."""
    rng = rng or np.random.default_rng(0)
    rows: list[Row] = []
    for year in years:
        totals = {"Sales": 0.0, "OP": 0.0, "OdP": 0.0, "NP": 0.0}
        forecast = {"FOP": 8 * MONEY * rng.uniform(0.5, 1.5), "FNP": 5 * MONEY * rng.uniform(0.5, 1.5)}
        for kind, month in QUARTER_END_MONTHS.items():
            sales = MONEY * rng.uniform(20, 30)
            for name, share in (("Sales", 1.0), ("OP", 0.08), ("OdP", 0.085), ("NP", 0.05)):
                totals[name] += sales * share * rng.uniform(0.5, 1.5)
            levels = {"TA": 100 * MONEY * rng.uniform(0.9, 1.1), "Eq": 40 * MONEY * rng.uniform(0.9, 1.1)}
            day = date(year + month // 12, month % 12 + 1, 1) + timedelta(days=39 + int(rng.integers(0, 5)))
            time = ("11:30:00", "14:00:00", "15:00:00", "16:30:00")[int(rng.integers(0, 4))]
            ahead = (
                {"NxFOP": 8 * MONEY * rng.uniform(0.5, 1.5), "NxFNp": 5 * MONEY, "NxFDivAnn": 30.0, "CFO": 6 * MONEY}
                if kind == "FY"
                else {**forecast, "FDivAnn": 30.0 + month}
            )
            values = {**totals, **levels, **ahead, "ShOutFY": shares, "TrShFY": shares / 20}
            rows.append(document(code, day, kind, year, time, **values))
    return rows


def investor_week(
    published: date, section: str, monday: date, buy: float = 60.0, sell: float = 40.0
) -> dict[str, object]:
    """A weekly record in which every investor type buys `buy` and sells `sell`."""
    row: dict[str, object] = {
        "PubDate": published,
        "StDate": monday,
        "EnDate": monday + timedelta(days=4),
        "Section": section,
    }
    for name in TABLES["investor_types"].schema:
        for suffix, value in (("Sell", sell), ("Buy", buy), ("Tot", buy + sell), ("Bal", buy - sell)):
            if name.endswith(suffix) and name not in row:
                row[name] = value
    return row


def investor_weeks(
    sections: Sequence[str], first_monday: date, weeks: int, rng: np.random.Generator
) -> list[dict[str, object]]:
    """Random weekly records, published on the Thursday of the next week."""
    rows = []
    for week in range(weeks):
        monday = first_monday + timedelta(weeks=week)
        for section in sections:
            row = investor_week(monday + timedelta(days=10), section, monday)
            for name in row:
                if name.endswith(("Buy", "Sell", "Tot")):
                    row[name] = float(rng.uniform(1e5, 1e6))
            rows.append(row)
    return rows


def topix_bars(dates: Sequence[date], rng: np.random.Generator) -> pl.DataFrame:
    """A random walk with consistent open, high, low and close."""
    close = 2000 * np.exp(np.cumsum(rng.normal(0, 0.01, len(dates))))
    open_ = close * np.exp(rng.normal(0, 0.004, len(dates)))
    high = np.maximum(open_, close) * np.exp(rng.uniform(0, 0.005, len(dates)))
    low = np.minimum(open_, close) * np.exp(-rng.uniform(0, 0.005, len(dates)))
    frame = pl.DataFrame({"Date": list(dates), "O": open_, "H": high, "L": low, "C": close})
    return frame.cast(dict(TABLES["topix"].schema))


SECTOR33_CODES = ("0050", "3650", "5250", "6050", "7050", "9050")


def weekdays(count: int, start: date) -> list[date]:
    """The first `count` weekdays from `start`: a market without holidays."""
    days = (start + timedelta(days=d) for d in range(count * 2))
    return [day for day in days if day.weekday() < 5][:count]


def market_tables(
    codes: Sequence[str],
    days: Sequence[date],
    rng: np.random.Generator,
    sectors: Sequence[str] = SECTOR33_CODES,
    markets: Sequence[str] = ("0111", "0112", "0113"),
) -> dict[str, pl.DataFrame]:
    """`calendar`, `master` and `bars_daily` of stocks dealt to the sectors and markets in turn; all listed throughout.

    The calendar runs on for 30 weekdays after the last bar.
    """
    steps, stocks = len(days), len(codes)
    close = 1000 * np.exp(np.cumsum(rng.normal(0, 0.02, (steps, stocks)), axis=0))
    open_ = close * np.exp(rng.normal(0, 0.005, (steps, stocks)))
    volume = np.round(rng.uniform(1e4, 1e6, (steps, stocks)))
    bars = {
        "Date": np.repeat(np.array(days, "datetime64[D]"), stocks),
        "Code": np.tile(np.array(codes), steps),
        "O": open_,
        "H": np.maximum(open_, close) * 1.005,
        "L": np.minimum(open_, close) * 0.995,
        "C": close,
        "Vo": volume,
        "Va": volume * close,
        "AdjFactor": np.ones((steps, stocks)),
    }
    bars_frame = pl.DataFrame({name: np.ravel(values) for name, values in bars.items()})
    master = bars_frame.select("Date", "Code").with_columns(
        S33=pl.Series(np.tile([sectors[i % len(sectors)] for i in range(stocks)], steps)),
        Mkt=pl.Series(np.tile([markets[i // len(sectors) % len(markets)] for i in range(stocks)], steps)),
        S17=pl.lit("10"),
        ScaleCat=pl.lit("-"),
        Mrgn=pl.lit("2"),
    )
    ahead = [*days, *weekdays(30, days[-1] + timedelta(days=1))]
    return {
        "calendar": pl.DataFrame({"Date": ahead, "HolDiv": ["1"] * len(ahead)}, schema=TABLES["calendar"].schema),
        "master": _complete("master", master),
        "bars_daily": _complete("bars_daily", bars_frame.with_columns(UL=pl.lit("0"), LL=pl.lit("0"))),
    }


def _complete(table: str, frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with the table's columns in order; absent ones are null."""
    return frame.select(
        (pl.col(name) if name in frame.columns else pl.lit(None)).cast(dtype).alias(name)
        for name, dtype in TABLES[table].schema.items()
    )
