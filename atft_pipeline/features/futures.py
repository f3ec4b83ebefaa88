"""`fut`: index, volatility and bond futures; one value per date, the same for every stock.

A return always compares a contract with itself, so a roll is no return. Windows count the product's own dates.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.features.future_contracts import Central, central_contracts, nearest_settlement, regular
from atft_pipeline.features.group import Column, Group, Inputs
from atft_pipeline.features.tables import require_columns, required_table
from atft_pipeline.panel.asof import AsOf, as_of
from atft_pipeline.panel.availability import next_trading_day
from atft_pipeline.panel.operators import Array, divide, log, ts_lag, ts_sum, ts_zscore
from atft_pipeline.panel.panel import Panel

PRODUCTS = {"topix": "TOPIXF", "nk225": "NK225F"}
VOLATILITY, BOND = "NKVIF", "JGBLF"


def compute(inputs: Inputs) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Yield the group's columns, each [T]; see `COLUMNS` for the formulas."""
    panel = inputs.panel
    contracts = regular(required_table(inputs.tables, "futures"))
    spots = {"topix": _topix_close(inputs), "nk225": _nikkei_level(inputs)}
    centrals = {name: central_contracts(contracts, product) for name, product in PRODUCTS.items()}
    for name, central in centrals.items():
        joined = _join(panel, central.dates)
        for column, series in _index_values(central, spots[name]).items():
            yield f"fut_{name}_{column}", joined.take(series)[:, 0]
    yield "fut_nt_ratio_z60", _ratio(panel, centrals["nk225"], centrals["topix"])
    dates, front = nearest_settlement(contracts, VOLATILITY)
    yield "fut_nkvi_front", _join(panel, dates).take(front / 100)[:, 0]
    bond = central_contracts(contracts, BOND)
    yield "fut_jgb_ret_5d", _join(panel, bond.dates).take(ts_sum(bond.ret, 5, 5))[:, 0]
    yield "fut_td_to_roll", _days_to_roll(panel, centrals["topix"])


def _join(panel: Panel, dates: pl.Series) -> AsOf:
    """A series by date, each value known from the next trading day on."""
    return as_of(next_trading_day(dates, panel.calendar), np.zeros(dates.len(), np.int64), panel.axes, entities=1)


def _topix_close(inputs: Inputs) -> pl.DataFrame:
    topix = required_table(inputs.tables, "topix")
    require_columns("topix", topix, ("Date", "C"))
    return topix.select("Date", spot="C")


def _nikkei_level(inputs: Inputs) -> pl.DataFrame:
    options = required_table(inputs.tables, "options_225")
    require_columns("options_225", options, ("Date", "UnderPx", "EmMrgnTrgDiv"))
    quoted = options.filter((pl.col("EmMrgnTrgDiv") == "002") & (pl.col("UnderPx") > 0))
    return quoted.group_by("Date").agg(spot=pl.col("UnderPx").median())


def _index_values(central: Central, spot: pl.DataFrame) -> dict[str, Array]:
    """The ten series of an index future on its own dates."""
    level = central.dates.to_frame("Date").join(spot, on="Date", how="left", maintain_order="left")["spot"]
    basis = divide(central.settle, level.to_numpy().astype(np.float64)) - 1
    interest, volume = log(central.interest), log(central.volume)
    return {
        "ret_1d": central.ret,
        "night_ret": divide(central.night_close, central.previous) - 1,
        "day_ret": divide(central.day_close, central.day_open) - 1,
        "range": log(divide(central.high, central.low)),
        "basis": basis,
        "basis_z240": ts_zscore(basis, 240, 120),
        "term_slope": log(divide(central.next_settle, central.settle)) * divide(np.float64(365), central.next_gap),
        "oi_chg_1d": interest - ts_lag(interest, 1),
        "oi_z240": ts_zscore(interest, 240, 120),
        "vol_z60": ts_zscore(volume, 60, 40),
    }


def _ratio(panel: Panel, over: Central, under: Central) -> Array:
    """z of the log ratio of two settlements on the dates that both have."""
    left = pl.DataFrame({"Date": over.dates, "over": over.settle})
    both = left.join(pl.DataFrame({"Date": under.dates, "under": under.settle}), on="Date").sort("Date")
    ratio = log(divide(both["over"].to_numpy(), both["under"].to_numpy()))
    return _join(panel, both["Date"]).take(ts_zscore(ratio, 60, 40))[:, 0]


def _days_to_roll(panel: Panel, central: Central) -> Array:
    """Trading days from each panel date to the last trading day of the central contract known then."""
    days, last = panel.calendar.days, central.last_trading
    place = np.where(np.isnat(last), np.nan, np.searchsorted(days, last))
    wait = _join(panel, central.dates).take(place)[:, 0] - np.searchsorted(days, panel.axes.dates)
    return np.where(wait >= 0, wait, np.nan)


_M = "market"


def _index_columns(name: str, spot: str) -> tuple[Column, ...]:
    p = f"fut_{name}"
    return (
        Column(f"{p}_ret_1d", "f32", "Settle / the same code's previous Settle - 1", "1 lag", "null on its first", _M),
        Column(f"{p}_night_ret", "f32", "EC / the same code's previous Settle - 1", "1 lag", "null if no night", _M),
        Column(f"{p}_day_ret", "f32", "AC/AO - 1", "", "null without a trade", _M),
        Column(f"{p}_range", "f32", "ln(H/L)", "", "null without a trade", _M),
        Column(f"{p}_basis", "f32", f"Settle / {spot} - 1", "", "", _M),
        Column(f"{p}_basis_z240", "f32", f"z of {p}_basis", "240/120", "null if sd 0", _M),
        Column(f"{p}_term_slope", "f32", "ln(next/central Settle) 365/(days between LTDs)", "", "null if no next", _M),
        Column(f"{p}_oi_chg_1d", "f32", "change of ln(sum of OI)", "1 lag", "", _M),
        Column(f"{p}_oi_z240", "f32", "z of ln(sum of OI)", "240/120", "null if sd 0", _M),
        Column(f"{p}_vol_z60", "f32", "z of ln(sum of Vo)", "60/40", "null if sd 0", _M),
    )


COLUMNS = (
    *_index_columns("topix", "TOPIX close"),
    *_index_columns("nk225", "UnderPx of the options"),
    Column("fut_nt_ratio_z60", "f32", "z of ln(NK225F Settle / TOPIXF Settle)", "60/40", "null if sd 0", _M),
    Column("fut_nkvi_front", "f32", "Settle of the nearest NKVIF contract / 100", "", "", _M),
    Column("fut_jgb_ret_5d", "f32", "sum of 5 same-contract returns of the central JGBLF", "5/5", "", _M),
    Column("fut_td_to_roll", "i16", "trading days to the central TOPIXF's last", "", "null if past", _M),
)

GROUP = Group(
    name="fut",
    tier="premium",
    tables=("calendar", "master", "bars_daily", "topix", "options_225", "futures"),
    availability="the first trading day after Date (published about 03:00)",
    columns=COLUMNS,
    compute=compute,
)
