"""A small seeded market as typed raw frames: about 130 codes by 330 days, with a listing, a delisting, halts, a split.

Fast (vectorised, well under a second) and good for properties. It has no planted signal; `exchange/` simulates one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import date, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.jquants.tables import TABLES
from atft_pipeline.panel.ids import SECTOR33_CODES
from atft_pipeline.panel.panel import Panel, build_panel
from atft_pipeline_tests.synthetic_premium import (
    details_table,
    dividend_table,
    futures_table,
    options_table,
    with_sessions,
)
from atft_pipeline_tests.synthetic_trading import trading_tables

START = date(2022, 1, 4)
_CLOSED = (
    "2022-01-10 2022-02-11 2022-02-23 2022-03-21 2022-04-29 2022-05-03 2022-05-04 2022-05-05 2022-07-18 "
    "2022-08-11 2022-09-19 2022-09-23 2022-10-10 2022-11-03 2022-11-23 2023-01-02 2023-01-03 2023-01-09 "
    "2023-02-23 2023-03-21 2023-05-03 2023-05-04 2023-05-05 2023-07-17 2023-08-11 2023-09-18 2023-10-09 "
    "2023-11-03 2023-11-23"
)
HOLIDAYS = frozenset(date.fromisoformat(day) for day in _CLOSED.split())


DATED = {
    "master": "Date",
    "bars": "Date",
    "topix": "Date",
    "indices": "Date",
    "investor_types": "PubDate",
    "fin_summary": "DiscDate",
    "margin_interest": "Date",
    "margin_alert": "PubDate",
    "short_ratio": "Date",
    "short_sale_report": "DiscDate",
    "breakdown": "Date",
    "options_225": "Date",
    "futures": "Date",
    "dividend": "PubDate",
    "fin_details": "DiscDate",
}
"""Table -> the date by which its rows became known, at the earliest."""


@dataclass(frozen=True)
class Frames:
    """Raw tables, typed as the lake stores them."""

    calendar: pl.DataFrame
    master: pl.DataFrame
    bars: pl.DataFrame
    topix: pl.DataFrame
    indices: pl.DataFrame
    investor_types: pl.DataFrame
    fin_summary: pl.DataFrame
    margin_interest: pl.DataFrame
    margin_alert: pl.DataFrame
    short_ratio: pl.DataFrame
    short_sale_report: pl.DataFrame
    breakdown: pl.DataFrame
    options_225: pl.DataFrame
    futures: pl.DataFrame
    dividend: pl.DataFrame
    fin_details: pl.DataFrame

    @property
    def dates(self) -> list[date]:
        """Trading days that have bars."""
        return self.bars["Date"].unique().sort().to_list()

    @property
    def events(self) -> dict[str, pl.DataFrame]:
        """The tables that groups read beside the panel, by the names of the lake."""
        beside = ("calendar", "master", "bars")
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in beside}
        return own | {"bars_daily": self.bars}

    def until(self, last: date) -> Frames:
        """What was published by the close of `last`; the calendar is known ahead and stays whole."""
        return replace(self, **{name: getattr(self, name).filter(pl.col(key) <= last) for name, key in DATED.items()})


def market(codes: int = 130, days: int = 330, seed: int = 1) -> Frames:
    """The market. By column of the sorted codes: 3 splits 1 to 2, 4 consolidates 5 to 1, 5 lists late (row 200),
    6 delists (row 250), 7 halts for three rows, 8 trades rarely, 9 is a fund, 10 starts at 98,000 yen."""
    if codes < 11 or days < 251:
        raise ValueError("the special columns and rows need at least 11 codes and 251 days")
    rng = np.random.default_rng(seed)
    calendar = calendar_frame(START, START + timedelta(days=int(days * 1.6) + 120))
    dates = trading_days(calendar)[:days]
    names = np.array([f"{1301 + 7 * i:04d}0" for i in range(codes)])
    listed = np.ones((days, codes), np.bool_)
    listed[:200, 5] = False
    listed[250:, 6] = False
    quotes = _quotes(rng, days, codes)
    quiet = rng.random((days, codes)) < np.where(np.arange(codes) == 8, 0.5, 0.005)
    quiet[100:103, 7] = True
    for name in ("O", "H", "L", "C", "Vo", "Va"):
        quotes[name][quiet] = np.nan
    rows, columns = np.nonzero(listed)
    key = {"Date": [dates[t] for t in rows], "Code": names[columns].tolist()}
    bars = pl.DataFrame({**key, **{name: grid[listed] for name, grid in quotes.items()}})
    flags = {name: pl.col(name).cast(pl.Int8).cast(pl.String) for name in ("UL", "LL")}
    bars = bars.with_columns(**flags).with_columns(pl.col(pl.Float64).fill_nan(None))
    more = np.random.default_rng([seed, 2])
    topix, flows = _topix(rng, dates), _investor_types(rng, dates)
    statements = _fin_summary(rng, names, dates)
    return Frames(
        calendar,
        _typed("master", {**key, **_listing(columns, codes)}),
        with_sessions(more, _typed("bars_daily", bars.to_dict(as_series=True))),
        topix,
        _indices(np.random.default_rng([seed, 1]), dates),
        flows,
        statements,
        **trading_tables(names, dates, listed, listed & ~np.isnan(quotes["Vo"])),
        options_225=options_table(more, dates),
        futures=futures_table(more, dates),
        dividend=dividend_table(more, names.tolist(), dates),
        fin_details=details_table(more, statements),
    )


def calendar_frame(first: date, last: date) -> pl.DataFrame:
    """HolDiv 1 on weekdays that are no holiday, 0 otherwise; 31 December to 3 January are closed."""
    all_days = [first + timedelta(days=i) for i in range((last - first).days + 1)]
    closed = [
        d.weekday() > 4 or d in HOLIDAYS or (d.month, d.day) in {(12, 31), (1, 1), (1, 2), (1, 3)} for d in all_days
    ]
    return _typed("calendar", {"Date": all_days, "HolDiv": ["0" if c else "1" for c in closed]})


def one_code_panel(days: Sequence[date], close: Sequence[float | None], **quotes: Sequence[object]) -> Panel:
    """A panel of the single code 13010; quotes that are not given equal the close, volume and turnover 1,000."""
    key = {"Date": list(days), "Code": ["13010"] * len(days)}
    texts = {"Mkt": "0111", "S17": "1", "S33": "0050", "ScaleCat": "-", "Mrgn": "1"}
    plain: dict[str, Sequence[object]] = {name: close for name in "OHLC"}
    plain |= {name: [None if x is None else 1000.0 for x in close] for name in ("Vo", "Va")}
    plain |= {name: ["0"] * len(days) for name in ("UL", "LL")} | {"AdjFactor": [1.0] * len(days)}
    master = _typed("master", {**key, **{name: [text] * len(days) for name, text in texts.items()}})
    calendar = calendar_frame(days[0] - timedelta(days=40), days[-1] + timedelta(days=80))
    return build_panel(calendar, master, _typed("bars_daily", {**key, **plain, **quotes}))


def trading_days(calendar: pl.DataFrame) -> list[date]:
    return calendar.filter(pl.col("HolDiv").is_in(["1", "2"]))["Date"].to_list()


def session_before(day: date, sessions: int) -> date:
    """The trading day of the synthetic calendar that lies `sessions` before `day`, itself a trading day."""
    days = trading_days(calendar_frame(START - timedelta(days=60), day))
    return days[days.index(day) - sessions]


def _quotes(rng: np.random.Generator, days: int, codes: int) -> dict[str, NDArray[np.float64]]:
    """Raw quotes [days, codes]: adjusted walks times the cumulated factor, so the split shows as a jump."""
    ret = rng.standard_t(5, (days, codes)) * 0.012 + rng.normal(0, 0.008, (days, 1))
    start = rng.uniform(300, 5000, codes)
    start[10] = 98_000
    close = start * np.exp(np.cumsum(ret, axis=0))
    open_ = close * np.exp(rng.normal(0, 0.006, close.shape))
    high = np.maximum(open_, close) * np.exp(rng.exponential(0.004, close.shape))
    low = np.minimum(open_, close) * np.exp(-rng.exponential(0.004, close.shape))
    volume = np.round(np.exp(rng.normal(11, 0.6, close.shape) + rng.normal(0, 1.5, codes)))
    factor = np.ones(close.shape)
    factor[150, 3] = 0.5
    factor[180, 4] = 5.0
    scale = np.cumprod(factor, axis=0)
    quotes = {name: np.round(x * scale, 1) for name, x in (("O", open_), ("H", high), ("L", low), ("C", close))}
    quotes["Vo"] = np.round(volume / scale)
    quotes["Va"] = np.round(quotes["Vo"] * (quotes["H"] + quotes["L"]) / 2)
    return quotes | {"UL": (ret > 0.06) * 1.0, "LL": (ret < -0.06) * 1.0, "AdjFactor": factor}


def _listing(columns: NDArray[np.int64], codes: int) -> dict[str, list[str]]:
    """Listing attributes of each row; 21 sectors with six members or more, column 9 is a fund."""
    sector = np.array([SECTOR33_CODES[i % 21] for i in range(codes)])
    sector[9] = "9999"
    place = np.arange(codes)
    attributes = {
        "Mkt": np.where(place == 9, "0109", np.array(["0111", "0112", "0113"])[place % 3]),
        "S17": np.where(place == 9, "99", (place % 12 + 1).astype(str)),
        "S33": sector,
        "ScaleCat": np.array(["TOPIX Large70", "TOPIX Mid400", "TOPIX Small 1", "-"])[place % 4],
        "Mrgn": np.array(["1", "2"])[place % 2],
    }
    return {name: values[columns].tolist() for name, values in attributes.items()}


def _topix(rng: np.random.Generator, dates: list[date]) -> pl.DataFrame:
    close = 2000 * np.exp(np.cumsum(rng.normal(0, 0.01, len(dates))))
    open_ = close * np.exp(rng.normal(0, 0.004, len(dates)))
    high, low = np.maximum(open_, close) * 1.004, np.minimum(open_, close) * 0.996
    return _typed("topix", {"Date": dates, "O": open_, "H": high, "L": low, "C": close})


def _indices(rng: np.random.Generator, dates: list[date]) -> pl.DataFrame:
    """The 33 sector indices, 0040 to 0060, and the six style and size indices that groups read."""
    codes = ("0028", "002D", "0070", "0075", "8100", "8200", *(f"{0x40 + n:04X}" for n in range(33)))
    shape = (len(dates), len(codes))
    ret = rng.normal(0, 0.008, (len(dates), 1)) + rng.normal(0, 0.006, shape)
    close = 1500 * np.exp(np.cumsum(ret, axis=0))
    key = {"Date": np.repeat(np.array(dates), len(codes)).tolist(), "Code": list(codes) * len(dates)}
    return _typed("indices", {**key, **{name: close.ravel() for name in "OHLC"}})


def _investor_types(rng: np.random.Generator, dates: list[date]) -> pl.DataFrame:
    """One record a week per section, published on the Thursday of the next week."""
    mondays = sorted({d - timedelta(days=d.weekday()) for d in dates})
    sections = ("TSEPrime", "TSEStandard", "TSEGrowth", "TokyoNagoya")
    keys = [(m + timedelta(days=10), m, m + timedelta(days=4), s) for m in mondays for s in sections]
    columns: dict[str, object] = dict(
        zip(("PubDate", "StDate", "EnDate", "Section"), zip(*keys, strict=True), strict=True)
    )
    for name in TABLES["investor_types"].schema:
        if name.endswith("Sell"):
            buy, sell = rng.uniform(1e5, 1e6, len(keys)), rng.uniform(1e5, 1e6, len(keys))
            kind = name.removesuffix("Sell")
            columns |= {name: sell, f"{kind}Buy": buy, f"{kind}Tot": buy + sell, f"{kind}Bal": buy - sell}
    return _typed("investor_types", {name: list(values) for name, values in columns.items()})  # type: ignore[call-overload]


def _fin_summary(rng: np.random.Generator, codes: NDArray[np.str_], dates: list[date]) -> pl.DataFrame:
    """Quarterly results of every code for fiscal years that end in March, 30 to 45 days after each quarter."""
    rows = []
    for code in codes.tolist():
        sales = rng.uniform(1e9, 1e11)
        for year in range(dates[0].year - 2, dates[-1].year + 1):
            growth = rng.uniform(0.9, 1.2)
            for kind, quarter, end in (
                ("1Q", 1, date(year, 6, 30)),
                ("2Q", 2, date(year, 9, 30)),
                ("3Q", 3, date(year, 12, 31)),
                ("FY", 4, date(year + 1, 3, 31)),
            ):
                disclosed = end + timedelta(days=int(rng.integers(30, 46)))
                if disclosed > dates[-1]:
                    continue
                level = sales * growth * quarter / 4
                rows.append(
                    {
                        "DiscDate": disclosed,
                        "DiscTime": ("11:30:00", "14:00:00", "15:00:00", "16:30:00")[int(rng.integers(4))],
                        "Code": code,
                        "DiscNo": f"{disclosed:%Y%m%d}{code}",
                        "DocType": f"{kind}FinancialStatements_Consolidated_JP",
                        "CurPerType": kind,
                        "CurPerSt": date(year, 4, 1),
                        "CurPerEn": end,
                        "CurFYSt": date(year, 4, 1),
                        "CurFYEn": date(year + 1, 3, 31),
                        "Sales": level,
                        "OP": level * 0.08,
                        "OdP": level * 0.085,
                        "NP": level * 0.05,
                        "TA": sales * 1.3,
                        "Eq": sales * 0.5,
                        "FOP": sales * growth * 0.08,
                        "FNP": sales * growth * 0.05,
                        "FDivAnn": 30.0,
                        "ShOutFY": 1e7,
                        "TrShFY": 2e5,
                        "CFO": level * 0.06,
                    }
                )
    return _typed("fin_summary", {name: [row.get(name) for row in rows] for name in TABLES["fin_summary"].schema})


def _typed(table: str, columns: dict[str, object]) -> pl.DataFrame:
    """The raw table's full schema; columns that are not given are null."""
    schema = TABLES[table].schema
    height = len(next(iter(columns.values())))  # type: ignore[arg-type]
    unknown = set(columns) - set(schema)
    assert not unknown, f"{table} has no column {unknown}"
    return pl.DataFrame(
        {n: pl.Series(n, columns.get(n, [None] * height), dtype=t, strict=False) for n, t in schema.items()}
    )
