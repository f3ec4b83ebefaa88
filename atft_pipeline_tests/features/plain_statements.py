"""Every column of `fs` once more, one cell at a time: take the documents known on the day, forget all others, compute.

Point in time by construction: nothing is joined, carried forward or looked up by vintage. See `plain_formulas`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

NAN = float("nan")
Document = Mapping[str, Any]
Year = tuple[int, int]
"""Year and month of a fiscal year's end."""
Version = tuple[int, int, float]
"""Place of the document among those known, row from which it was usable, and the forecast."""
Revision = tuple[int, int, float]
"""The same with g(new, previous) of a forecast that changed."""


@dataclass(frozen=True)
class Stock:
    """One code's documents and daily series on the trading days."""

    days: Sequence[date]
    documents: Sequence[Document]
    close: NDArray[np.float64]
    volume: NDArray[np.float64]
    factor: NDArray[np.float64]

    def usable_from(self, document: Document) -> int:
        """Row of the first day that may use the document."""
        day, time = document["DiscDate"], document["DiscTime"]
        row = bisect_left(self.days, day)
        on_the_day = row < len(self.days) and self.days[row] == day and time is not None and time < "15:00"
        return row if on_the_day or (row < len(self.days) and self.days[row] != day) else row + 1

    def split_index(self, row: int) -> float:
        return float(np.prod(self.factor[: row + 1])) if row >= 0 else 1.0


def g(a: float, b: float) -> float:
    size = abs(a) + abs(b)
    return 2 * (a - b) / size if size > 1e-12 else NAN


def number(document: Document, field: str) -> float:
    value = document.get(field)
    return NAN if value is None else float(value)


def ratio(a: float, b: float, limit: float = np.inf) -> float:
    """a / b within +-limit; null unless b is positive."""
    return float(np.clip(a / b, -limit, limit)) if b > 0 else NAN


class Known:
    """What one row knows of one stock."""

    def __init__(self, stock: Stock, row: int) -> None:
        self.stock, self.row = stock, row
        dated = [(stock.usable_from(d), d) for d in stock.documents]
        order = sorted(
            (x for x in dated if x[0] <= row),
            key=lambda x: (x[0], x[1]["DiscDate"], x[1]["DiscTime"] or "99", x[1]["DiscNo"]),
        )
        self.documents = order
        self.results = [(on, d) for on, d in order if "FinancialStatements" in d["DocType"]]
        self.periods: Mapping[Any, Document] = {self.period(d): d for _, d in self.results}  # the newest version wins
        self.now: tuple[int, int, int] | None = max(self.periods, default=None)

    @staticmethod
    def period(document: Document) -> tuple[int, int, int]:
        end = document["CurFYEn"]
        return end.year, end.month, {"1Q": 1, "2Q": 2, "3Q": 3, "FY": 4}[document["CurPerType"]]

    def y(self, field: str, years_ago: int = 0, quarter: int | None = None) -> float:
        """Y(fy - years_ago, quarter), the newest quarter unless given."""
        if self.now is None:
            return NAN
        key = (self.now[0] - years_ago, self.now[1], self.now[2] if quarter is None else quarter)
        return number(self.periods.get(key, {}), field)

    @property
    def quarter(self) -> int:
        return 0 if self.now is None else self.now[2]

    def single(self, field: str, years_ago: int = 0) -> float:
        before = 0.0 if self.quarter == 1 else self.y(field, years_ago, self.quarter - 1)
        return self.y(field, years_ago) - before

    def ttm(self, field: str, years_ago: int = 0) -> float:
        if self.quarter == 4:
            return self.y(field, years_ago)
        return self.y(field, years_ago) + self.y(field, years_ago + 1, 4) - self.y(field, years_ago + 1)

    def forecasts(self, this_year: str, next_year: str, stream: str) -> dict[Year, list[Version]]:
        """Versions of a forecast by the year it speaks of, oldest first."""
        found: dict[Year, list[Version]] = {}
        for place, (on, d) in enumerate(self.documents):
            if not any(kind in d["DocType"] for kind in ("FinancialStatements", stream)):
                continue
            for field, end in ((this_year, d["CurFYEn"]), (next_year, d["NxtFYEn"])):
                if d.get(field) is not None:
                    found.setdefault((end.year, end.month), []).append((place, on, float(d[field])))
        return found

    def target(self) -> Year | None:
        """The running year, or the next one after full-year results."""
        if self.now is None:
            return None
        if self.quarter < 4:
            return self.now[:2]
        end = self.periods[self.now]["NxtFYEn"]
        return end.year, end.month

    def newest(self, versions: dict[Year, list[Version]]) -> Version:
        return versions.get(self.target() or (0, 0), [(-1, -1, NAN)])[-1]

    def shares(self) -> float:
        """Issued less treasury shares of the newest period end, in the units of the first row."""
        counted = [d for _, d in self.results if d.get("ShOutFY") is not None]
        if not counted:
            return NAN
        end = max(d["CurPerEn"] for d in counted)
        last = [d for d in counted if d["CurPerEn"] == end][-1]
        at_end = self.stock.split_index(bisect_right(self.stock.days, end) - 1)
        return (float(last["ShOutFY"]) - float(last["TrShFY"])) * at_end


def changes(versions: dict[Year, list[Version]], differ: Callable[[int, int], bool]) -> list[Revision]:
    """Revisions of all years in the order in which they became known; null where the two are not comparable."""
    found = [
        (place, on, NAN if differ(before, on) else g(new, old))
        for chain in versions.values()
        for (_, before, old), (place, on, new) in pairwise(chain)
        if new != old or differ(before, on)
    ]
    return sorted(found, key=lambda revision: revision[:2])


def recent(revisions: list[Revision], forecast: float, row: int) -> float:
    if np.isnan(forecast):
        return NAN
    return revisions[-1][2] if revisions and row - revisions[-1][1] <= 60 else 0.0


def statement_columns(stock: Stock, row: int) -> dict[str, float]:
    """Every column of one stock on one day."""
    k, split = Known(stock, row), stock.split_index
    op, np_ = k.forecasts("FOP", "NxFOP", "EarnForecast"), k.forecasts("FNP", "NxFNp", "EarnForecast")
    dps = k.forecasts("FDivAnn", "NxFDivAnn", "DividendForecast")
    (_, _, f_op), (_, _, f_np), (_, dps_on, f_dps) = (k.newest(versions) for versions in (op, np_, dps))
    shares, price = k.shares(), float(stock.close[row])
    mcap = price / split(row) * shares
    full_years = [key for key in k.periods if key[2] == 4]
    profit, cash, assets = (number(k.periods.get(max(full_years, default=None), {}), f) for f in ("NP", "CFO", "TA"))
    volume = stock.volume[max(0, row - 19) : row + 1] * [split(t) for t in range(max(0, row - 19), row + 1)]
    progress = ratio(k.y("OP"), f_op, 3) if k.quarter < 4 else NAN
    revised = changes(op, lambda a, b: False)
    margins = [float(np.clip(ratio(k.ttm("OP", ago), k.ttm("Sales", ago)), -2, 2)) for ago in (0, 1)]
    values = {
        "fs_sales_q_yoy": g(k.single("Sales"), k.single("Sales", 1)),
        "fs_op_q_yoy": g(k.single("OP"), k.single("OP", 1)),
        "fs_np_q_yoy": g(k.single("NP"), k.single("NP", 1)),
        "fs_sales_ttm_yoy": g(k.ttm("Sales"), k.ttm("Sales", 1)),
        "fs_op_ttm_yoy": g(k.ttm("OP"), k.ttm("OP", 1)),
        "fs_op_margin_ttm": margins[0],
        "fs_op_margin_ttm_chg": margins[0] - margins[1],
        "fs_roe_ttm": ratio(k.ttm("NP"), (k.y("Eq") + k.y("Eq", 1)) / 2, 3),
        "fs_roa_ttm": ratio(k.ttm("NP"), (k.y("TA") + k.y("TA", 1)) / 2),
        "fs_equity_ratio": ratio(k.y("Eq"), k.y("TA")),
        "fs_share_turnover_20": volume.mean() / shares if len(volume) >= 10 else NAN,
        "fs_accruals_fy": ratio(profit - cash, assets),
        "fs_fc_op_progress": progress,
        "fs_fc_op_progress_gap": progress - ratio(k.y("OP", 1), k.y("OP", 1, 4)),
        "fs_fc_op_growth": g(f_op, k.y("OP", 0 if k.quarter == 4 else 1, 4)),
        "fs_fc_rev_op": recent(revised, f_op, row),
        "fs_fc_rev_np": recent(changes(np_, lambda a, b: False), f_np, row),
        "fs_fc_rev_net_cnt_240": float(sum(np.sign(change) for _, on, change in revised if on > row - 240)),
        "fs_fc_dps_rev": recent(changes(dps, lambda a, b: split(a) != split(b)), f_dps, row),
        "fs_log_mcap": float(np.log(mcap)),
        "fs_earnings_yield_ttm": k.ttm("NP") / mcap,
        "fs_book_to_price": k.y("Eq") / mcap,
        "fs_fc_earnings_yield": f_np / mcap,
        "fs_fc_div_yield": f_dps / price if dps_on >= 0 and split(dps_on) == split(row) else NAN,
    }
    age = min(row - k.results[-1][0], 500) if k.results else 500
    fresh = values if age <= 160 else dict.fromkeys(values, NAN)
    valid = age <= 100 and np.isfinite(k.ttm("Sales"))
    return {**fresh, "fs_staleness_td": float(age), "fs_valid": float(valid)}
