"""Options, futures, dividends, statement details and session bars for the market of `synthetic.py`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.jquants.tables import BARS_DAILY, TABLES

Array = NDArray[np.float64]

TEXTS = ("options_225", "futures", "dividend", "fin_details")
"""Tables that say more than their numbers; see `scale_texts`."""

EMERGENCY_EVERY = 50
"""Every so many days the derivatives have a second, emergency row per contract with other numbers."""


def typed(table: str, columns: dict[str, object]) -> pl.DataFrame:
    """The declared columns in declared order; what is not given is null."""
    frame = pl.DataFrame(columns)
    return frame.select(
        (pl.col(name) if name in frame.columns else pl.lit(None)).cast(dtype).alias(name)
        for name, dtype in TABLES[table].schema.items()
    )


def second_friday(year: int, month: int) -> date:
    first = date(year, month, 1)
    return first + timedelta(days=(4 - first.weekday()) % 7 + 7)


def expiries(day: date, count: int, months: int = 1) -> list[date]:
    """The next special quotations after `day`, one every `months` months."""
    found = []
    month = day.year * 12 + day.month - 1
    while len(found) < count:
        if (month + 1) % months == 0 and second_friday(month // 12, month % 12 + 1) > day:
            found.append(second_friday(month // 12, month % 12 + 1))
        month += 1
    return found


def options_table(rng: np.random.Generator, dates: Sequence[date]) -> pl.DataFrame:
    """Four expiries of puts and calls at 21 strikes a day, with a skewed smile that wanders."""
    level = 28_000 * np.exp(np.cumsum(rng.normal(0, 0.01, len(dates))))
    base = 0.2 * np.exp(np.cumsum(rng.normal(0, 0.03, len(dates))))
    rows: list[pl.DataFrame] = []
    for day, underlying, sigma in zip(dates, level, base, strict=True):
        sqs = expiries(day, 4)
        strike = np.tile(np.repeat(np.round(underlying * np.arange(0.9, 1.101, 0.01)), 2), len(sqs))
        count = len(strike)
        side = np.tile(["1", "2"], count // 2)
        money = np.log(strike / underlying)
        implied = 100 * sigma * (1 - 0.8 * money + 3 * money**2) * np.exp(rng.normal(0, 0.01, count))
        frame = pl.DataFrame(
            {
                "Date": [day] * count,
                "Code": [f"1{int(s) + 2}{n:07d}" for n, s in enumerate(side)],
                "SQD": np.repeat(np.array(sqs, "datetime64[D]"), count // len(sqs)),
                "PCDiv": side,
                "Strike": strike,
                "UnderPx": np.full(count, underlying),
                "IV": implied,
                "Vo": np.round(rng.uniform(0, 50, count)),
                "OI": np.round(rng.uniform(1, 500, count)),
                "EmMrgnTrgDiv": ["002"] * count,
            }
        )
        rows.append(frame)
        if len(rows) % EMERGENCY_EVERY == 0:
            rows.append(frame.with_columns(EmMrgnTrgDiv=pl.lit("001"), IV=3 * pl.col("IV"), UnderPx=pl.lit(1.0)))
    return typed("options_225", pl.concat(rows).to_dict(as_series=True))


def futures_table(rng: np.random.Generator, dates: Sequence[date]) -> pl.DataFrame:
    """Three contracts a day of each product that the features read; the nearest is central until its last day."""
    starts = {"TOPIXF": 2000.0, "NK225F": 28_000.0, "NKVIF": 20.0, "JGBLF": 150.0}
    paths = {name: start * np.exp(np.cumsum(rng.normal(0, 0.008, len(dates)))) for name, start in starts.items()}
    rows: list[dict[str, object]] = []
    for at, day in enumerate(dates):
        for name, path in paths.items():
            for place, sq in enumerate(expiries(day, 3, 3)):
                settle = path[at] * (1 - 0.005 * place) * float(np.exp(rng.normal(0, 0.001)))
                low, high = settle * 0.99, settle * 1.01
                row: dict[str, object] = {
                    "Date": day, "ProdCat": name, "Code": f"{name}{sq:%y%m}", "CM": f"{sq:%Y-%m}", "SQD": sq,
                    "LTD": sq - timedelta(days=1), "Settle": settle, "C": settle, "H": high, "L": low,
                    "EC": None if at == 0 else settle * float(np.exp(rng.normal(0, 0.002))),
                    "AO": settle * float(np.exp(rng.normal(0, 0.004))), "AC": settle,
                    "OI": float(rng.uniform(1e4, 2e4)), "Vo": float(rng.uniform(1e4, 9e4)),
                    "EmMrgnTrgDiv": "002", "CCMFlag": "1" if place == 0 else "0",
                }  # fmt: skip
                rows.append(row)
                if at % EMERGENCY_EVERY == EMERGENCY_EVERY - 1:
                    rows.append(row | {"EmMrgnTrgDiv": "001", "Settle": 1.0})
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return typed("futures", columns)


def dividend_table(rng: np.random.Generator, codes: Sequence[str], dates: Sequence[date]) -> pl.DataFrame:
    """Two dividends a year from three years before: a forecast, its revision, the decision; a few are deleted.

    The first code says nothing from row 20 to row 200.
    """
    rows: list[dict[str, object]] = []
    for code in codes:
        rate = float(np.round(rng.uniform(5, 60)))
        for year in range(dates[0].year - 3, dates[-1].year + 2):
            for month in (3, 9):
                rate = float(np.round(rate * rng.uniform(0.9, 1.2), 1))
                ex = date(year, month, 28) - timedelta(days=int(rng.integers(0, 3)))
                root = ""
                steps = [(-200, "1", rate * 0.9), (-90, "2", rate), (45, "2", rate)]
                if rng.random() < 0.1:
                    steps = [(-200, "1", rate * 2), (-198, "3", rate * 2), (-197, "1", rate)]
                for wait, status, amount in steps:
                    told = ex + timedelta(days=wait + int(rng.integers(0, 20)) * (status != "3"))
                    number = f"{told:%Y%m%d}{len(rows):06d}"
                    root = number if status == "1" else root
                    unknown = rng.random() < 0.05
                    rows.append(
                        {
                            "PubDate": told, "PubTime": ("11:30", "15:00", "16:00")[int(rng.integers(3))], "Code": code,
                            "RefNo": number, "CARefNo": root, "StatCode": status, "ExDate": ex.isoformat(),
                            "DivRate": "-" if unknown else f"{amount:.1f}",
                            "CommSpecCode": "2" if rng.random() < 0.1 else "0",
                        }
                    )  # fmt: skip
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    quiet = (pl.col("Code") == codes[0]) & pl.col("PubDate").is_between(dates[20], dates[200])
    return typed("dividend", columns).filter((pl.col("PubDate") <= dates[-1]) & ~quiet)


def details_table(rng: np.random.Generator, fin_summary: pl.DataFrame) -> pl.DataFrame:
    """A statement for every document, of assets, debt, flows and, at half years, spending; numbers are text."""
    texts = []
    for assets, sales in fin_summary.select("TA", "Sales").iter_rows():
        share = rng.uniform(0.01, 0.1, 13)
        texts.append(
            json.dumps(
                {
                    label: f"{value:.1f}"
                    for label, value in {
                        "Assets": assets * float(rng.uniform(0.8, 1.2)),
                        "Cash and deposits": assets * share[0],
                        "Current assets": assets * (0.4 + share[1]),
                        "Current liabilities": assets * (0.2 + share[2]),
                        "Notes and accounts receivable - trade": assets * share[3],
                        "Inventories": assets * share[4],
                        "Short-term borrowings": assets * share[5],
                        "Long-term borrowings": assets * share[6],
                        "Goodwill": assets * share[7],
                        "Property, plant and equipment": assets * share[8],
                        "Intangible assets": assets * share[9],
                        "Gross profit": sales * (0.2 + share[10]),
                        "Selling, general and administrative expenses": sales * share[11],
                        "Interest expenses - NOE": sales * share[12] / 10,
                        "Purchase of property, plant and equipment": -assets * float(rng.uniform(0.01, 0.05)),
                    }.items()
                }
            )
        )
    keys = fin_summary.select("DiscDate", "DiscTime", "Code", "DiscNo", "DocType")
    return typed("fin_details", {**keys.to_dict(as_series=True), "FS": texts})


def with_sessions(rng: np.random.Generator, bars: pl.DataFrame) -> pl.DataFrame:
    """The bars with morning and afternoon columns, inside the range of the day."""
    low, high = bars["L"].to_numpy(), bars["H"].to_numpy()

    def price() -> Array:
        return np.asarray(low + rng.uniform(0.1, 0.9, len(low)) * (high - low), dtype=np.float64)

    noon, again = price(), price()
    share = rng.uniform(0.2, 0.8, len(low))
    numbers: dict[str, Array | pl.Series] = {
        "MO": bars["O"], "MH": high, "ML": low, "MC": noon, "MVo": bars["Vo"].to_numpy() * share,
        "AO": again, "AH": high, "AL": low, "AC": bars["C"],
    }  # fmt: skip
    flags = {"MUL": bars["UL"], "MLL": bars["LL"]}
    frame = bars.with_columns(**{name: pl.Series(values) for name, values in (numbers | flags).items()})
    given = [*numbers, *flags]
    return frame.with_columns(pl.col(name).cast(BARS_DAILY.optional[name]).fill_nan(None) if name in numbers
                              else pl.col(name) for name in given)  # fmt: skip


def scale_texts(table: str, frame: pl.DataFrame, known: pl.Expr, rng: np.random.Generator) -> pl.DataFrame:
    """What is no number, changed in the rows that are not known yet: rates in text, dates, rows that never come."""
    if table == "options_225":
        return frame.filter(known | (pl.col("Date").dt.ordinal_day() % 4 != 0))
    if table == "futures":
        return frame.with_columns(LTD=pl.when(known).then("LTD").otherwise(pl.col("LTD").dt.offset_by("9d")))
    if table == "dividend":
        frame = frame.with_columns(factor=np.exp(rng.normal(0, 0.7, frame.height)))
        factor = pl.col("factor")
        later = pl.col("ExDate").str.to_date().dt.offset_by("30d").cast(pl.String)
        rate = pl.coalesce((pl.col("DivRate").cast(pl.Float64, strict=False) * factor).cast(pl.String), "DivRate")
        silent = pl.col("Code") == frame["Code"].min()
        return (
            frame.filter(known | ~silent)
            .with_columns(
                DivRate=pl.when(known).then("DivRate").otherwise(rate),
                ExDate=pl.when(known).then("ExDate").otherwise(later),
                CommSpecCode=pl.when(known).then("CommSpecCode").otherwise(pl.lit("3")),
            )
            .drop("factor")
        )
    if table == "fin_details":
        texts = [
            json.dumps({label: f"{float(value) * float(np.exp(rng.normal(0, 0.7))):.1f}" for label, value in s.items()})
            for s in map(json.loads, frame["FS"])
        ]
        return frame.with_columns(FS=pl.when(known).then("FS").otherwise(pl.Series(texts)))
    return frame
