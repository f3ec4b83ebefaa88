"""Margin, short-selling and breakdown tables for tests, typed as the lake stores them: rows by hand, and random ones.

The random tables follow the dates and codes of `synthetic.market`; half-way the margin balances turn daily, as they did
in September 2026, so that both ways of publication are covered.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.jquants.tables import TABLES
from atft_pipeline.panel.ids import SECTOR33_IDS

HOUSES = ("Alpha Bank", "Beta Capital", "Gamma Fund")
REASONS = ("Restricted", "DailyPublication", "Monitoring", "RestrictedByJSF", "PrecautionByJSF", "UnclearOrSecOnAlert")
CLASSES = ("001", "002", "003", "102", "101")


def balance(
    code: str, day: date, long: float, short: float, published: date | None = None, **values: object
) -> dict[str, object]:
    """One margin balance, three quarters of the long and half of the short side standardised."""
    row: dict[str, object] = {"PubDate": published, "Date": day, "Code": code, "IssType": "2"}
    row |= {"LongVol": long, "LongStdVol": 0.75 * long, "LongNegVol": 0.25 * long}
    row |= {"ShrtVol": short, "ShrtStdVol": 0.5 * short, "ShrtNegVol": 0.5 * short}
    return {**row, **values}


def alert(code: str, published: date, applied: date, long: float, short: float, **values: object) -> dict[str, object]:
    """One daily published balance; `reasons` names those that are "1"."""
    reasons = values.pop("reasons", ("DailyPublication",))
    text = json.dumps({name: "1" if name in reasons else "0" for name in REASONS})  # type: ignore[operator]
    row: dict[str, object] = {"PubDate": published, "AppDate": applied, "Code": code, "PubReason": text}
    row |= {"LongOut": long, "ShrtOut": short, "TSEMrgnRegCls": "002"}
    return {**row, **values}


def report(
    code: str,
    disclosed: date,
    calculated: date,
    ratio: float,
    house: str = HOUSES[0],
    fund: str = "",
    shares: float = 0.0,
) -> dict[str, object]:
    """One report of a short position."""
    names = {"SSName": house, "DICName": "", "FundName": fund, "SSAddr": "", "DICAddr": "", "Notes": ""}
    days = {"DiscDate": disclosed, "CalcDate": calculated}
    return {**days, "Code": code, "ShrtPosToSO": ratio, "ShrtPosShares": shares, **names}


def sector_selling(day: date, sector: str, others: float, restricted: float, free: float) -> dict[str, object]:
    return {"Date": day, "S33": sector, "SellExShortVa": others, "ShrtWithResVa": restricted, "ShrtNoResVa": free}


def trading_tables(
    names: NDArray[np.str_], dates: Sequence[date], listed: NDArray[np.bool_], traded: NDArray[np.bool_]
) -> dict[str, pl.DataFrame]:
    """All five tables over `dates` [T] and codes `names` [N]; `listed` and `traded` are [T, N]."""
    rng = np.random.default_rng(29)
    return {
        "margin_interest": _balances(rng, names, dates, listed),
        "margin_alert": _alerts(rng, names, dates, listed),
        "short_ratio": _sectors(rng, dates),
        "short_sale_report": _reports(rng, names, dates),
        "breakdown": _breakdown(rng, names, dates, traded),
    }


def _balances(
    rng: np.random.Generator, names: NDArray[np.str_], dates: Sequence[date], listed: NDArray[np.bool_]
) -> pl.DataFrame:
    days = list(dates)
    turn = len(days) // 2
    is_last = [a.isocalendar()[:2] != b.isocalendar()[:2] for a, b in zip(days, [*days[1:], date.max], strict=True)]
    kept = np.array([last or at >= turn for at, last in enumerate(is_last)])
    row, code = np.nonzero(listed & kept[:, None])
    published = [days[t + 1] if t >= turn and t + 1 < len(days) else None for t in range(len(days))]
    whole = {side: np.round(np.exp(rng.normal(level, 0.5, len(row)))) for side, level in (("Long", 12), ("Shrt", 10))}
    standard = {side: np.round(whole[side] * rng.uniform(0.2, 0.9, len(row))) for side in whole}
    columns = {f"{side}Vol": whole[side] for side in whole} | {f"{side}StdVol": standard[side] for side in whole}
    columns |= {f"{side}NegVol": whole[side] - standard[side] for side in whole}
    keys = {"PubDate": [published[t] for t in row], "Date": [days[t] for t in row], "Code": names[code].tolist()}
    # The last daily rows are not published yet.
    frame = _table("margin_interest", {**keys, "IssType": ["2"] * len(row), **columns})
    return frame.filter(pl.col("PubDate").is_not_null() | (pl.col("Date") < days[turn]))


def _alerts(
    rng: np.random.Generator, names: NDArray[np.str_], dates: Sequence[date], listed: NDArray[np.bool_]
) -> pl.DataFrame:
    """Spells of about thirty days in the list, every code twice or more; one row in twenty is corrected later."""
    rows: list[Mapping[str, object]] = []
    for place, code in enumerate(names.tolist()):
        for start in (int(rng.integers(5, 100)), int(rng.integers(165, 250))):
            for t in range(start, min(start + int(rng.integers(10, 60)), len(dates) - 6)):
                if not listed[t, place] or rng.random() < 0.1:
                    continue
                long, short = np.round(np.exp(rng.normal(11, 0.5, 2)))
                values = {"LongOutChg": float(rng.normal(0, 1e4)), "ShrtOutChg": float(rng.normal(0, 1e4))}
                values |= {"LongOutRatio": float(rng.uniform(0, 9)), "ShrtOutRatio": float(rng.uniform(0, 9))}
                reasons = tuple(name for name in REASONS if rng.random() < 0.3)
                regulation = CLASSES[int(rng.integers(len(CLASSES)))]
                row = alert(
                    code, dates[t + 1], dates[t], long, short, reasons=reasons, TSEMrgnRegCls=regulation, **values
                )
                rows.append(row)
                if rng.random() < 0.05:
                    rows.append({**row, "PubDate": dates[t + int(rng.integers(2, 6))], "LongOut": long + 5000})
    return _table("margin_alert", {name: [row.get(name) for row in rows] for name in TABLES["margin_alert"].schema})


def _sectors(rng: np.random.Generator, dates: Sequence[date]) -> pl.DataFrame:
    sectors = list(SECTOR33_IDS)
    size = len(dates) * len(sectors)
    keys = {"Date": [day for day in dates for _ in sectors], "S33": sectors * len(dates)}
    yen = {name: np.round(rng.uniform(1, 5, size) * 1e9) for name in ("SellExShortVa", "ShrtWithResVa", "ShrtNoResVa")}
    return _table("short_ratio", {**keys, **yen})


def _reports(rng: np.random.Generator, names: NDArray[np.str_], dates: Sequence[date]) -> pl.DataFrame:
    rows = []
    for code in names.tolist():
        for house in HOUSES:
            for t in sorted(rng.choice(len(dates) - 2, 12, replace=False).tolist()):
                ratio = round(float(rng.uniform(0.003, 0.012)), 4)
                rows.append(report(code, dates[t + 2], dates[t], ratio, house, shares=round(ratio * 1e7)))
    return _table("short_sale_report", {n: [row.get(n) for row in rows] for n in TABLES["short_sale_report"].schema})


def _breakdown(
    rng: np.random.Generator, names: NDArray[np.str_], dates: Sequence[date], traded: NDArray[np.bool_]
) -> pl.DataFrame:
    row, code = np.nonzero(traded)
    whole = np.round(rng.uniform(1e7, 1e9, len(row)))
    sells, buys = (np.round(whole * rng.dirichlet([2] * legs, len(row)).T) for legs in (4, 3))
    sells[0] += whole - sells.sum(axis=0)
    buys[0] += whole - buys.sum(axis=0)
    legs = dict(zip(("LongSellVa", "ShrtNoMrgnVa", "MrgnSellNewVa", "MrgnSellCloseVa"), sells, strict=True))
    legs |= dict(zip(("LongBuyVa", "MrgnBuyNewVa", "MrgnBuyCloseVa"), buys, strict=True))
    keys = {"Date": [dates[t] for t in row], "Code": names[code].tolist()}
    return _table("breakdown", {**keys, **legs})


def typed_rows(table: str, rows: Sequence[Mapping[str, object]]) -> pl.DataFrame:
    """Rows by hand with the raw table's schema; what a row does not give is null."""
    schema = TABLES[table].schema
    for row in rows:
        assert not set(row) - set(schema), f"{table} has no column {set(row) - set(schema)}"
    return pl.DataFrame([[row.get(name) for name in schema] for row in rows], schema=dict(schema), orient="row")


def _table(table: str, columns: Mapping[str, object]) -> pl.DataFrame:
    frame = pl.DataFrame(columns)
    return frame.select(
        (pl.col(name) if name in frame.columns else pl.lit(None)).cast(dtype).alias(name)
        for name, dtype in TABLES[table].schema.items()
    )
