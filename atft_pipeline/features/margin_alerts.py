"""`dm`: margin balances of the issues that the exchange publishes every day, and how strictly they are regulated.

A record is one application day of a code; a correction is a new version of it. What counts is the newest application
day known, in the newest version known: a late correction of an older day makes nothing fresher.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.features.group import Column, Group, Inputs
from atft_pipeline.features.records import Ints, days_of, in_first_row_units, listed_records, numbers_of
from atft_pipeline.features.statement_events import Vintages, pick
from atft_pipeline.features.tables import require_columns, required_table
from atft_pipeline.panel.asof import AsOf, as_of
from atft_pipeline.panel.availability import next_trading_day
from atft_pipeline.panel.operators import Array, divide, elementwise, log, ts_streak, where
from atft_pipeline.panel.panel import Panel
from atft_pipeline.verdict import ContractBroken

CARRIED = 5
"""Trading days after its last record for which a code still counts as being in the list."""
VALID_WITHIN = 1
CAP = 250
LOT = 100.0

LEVELS = {"101": 0, "102": 1, "001": 2, "002": 3, "003": 4, "004": 5, "005": 6, "006": 7}
"""TSE classification by severity; anything else, and a lifted regulation, is 0."""
RESTRICTED = ("Restricted", "RestrictedByJSF")
CAUTION = ("PrecautionByJSF", "Monitoring", "UnclearOrSecOnAlert")
SHARES = ("LongOut", "ShrtOut", "LongOutChg", "ShrtOutChg")
FIELDS = ("Code", "PubDate", "AppDate", "PubReason", *SHARES, "LongOutRatio", "ShrtOutRatio", "TSEMrgnRegCls")


@dataclass(frozen=True)
class Events:
    """One event per delivered row, in the order in which they became known; arrays are [E]."""

    stock: Ints
    available: NDArray[np.datetime64]
    newest: Ints
    """Row of the newest application day known at the event, in its newest version."""
    five_before: Ints
    """Row of the record of five trading days earlier, as known at the event; -1 where there is none."""
    since: NDArray[np.datetime64]
    """When the newest application day first became usable."""
    rows: pl.DataFrame


def compute(inputs: Inputs) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Yield the group's columns; see `COLUMNS` for the formulas."""
    panel = inputs.panel
    events = alert_events(panel, required_table(inputs.tables, "margin_alert"))
    joined = as_of(events.available, events.stock, panel.axes, order=[np.arange(len(events.stock))])
    staleness = _staleness(panel, events, joined)
    in_list = staleness <= CARRIED
    listed = joined.only(in_list)
    adv = panel.volume_20
    long, short, long_chg, short_chg = (
        in_first_row_units(events.rows[name], panel, events.stock, events.rows["AppDate"]) for name in SHARES
    )

    def known(values: Array, rows: Ints = events.newest) -> Array:
        return listed.take(pick(values, rows))

    def flag(values: Array) -> Array:
        return elementwise(np.nan_to_num, known(values))

    net = long - short
    yield "dm_long_to_adv20", divide(known(long), adv)
    yield "dm_short_to_adv20", divide(known(short), adv)
    yield "dm_net_to_adv20", divide(known(net), adv)
    yield "dm_short_long_log", known(log(divide(short + LOT, long + LOT)))
    yield "dm_imbalance", known(divide(net, long + short))
    yield "dm_long_chg_1d", divide(known(long_chg), adv)
    yield "dm_short_chg_1d", divide(known(short_chg), adv)
    yield "dm_net_chg_5d", divide(known(net) - known(net, events.five_before), adv)
    yield "dm_long_to_listed", known(numbers_of(events.rows["LongOutRatio"])) / 100
    yield "dm_short_to_listed", known(numbers_of(events.rows["ShrtOutRatio"])) / 100
    level = events.rows["TSEMrgnRegCls"].replace_strict(LEVELS, default=0, return_dtype=pl.Float64).fill_null(0)
    yield "dm_reg_level", flag(level.to_numpy())
    yield "dm_is_restricted", flag(_has_reason(events.rows, RESTRICTED))
    yield "dm_is_caution", flag(_has_reason(events.rows, CAUTION))
    yield "dm_spell_td", ts_streak(where(in_list, 1.0, 0.0), CAP)
    yield "dm_staleness_td", elementwise(lambda days: np.fmin(days, CAP), staleness)
    yield "dm_valid", where(staleness <= VALID_WITHIN, 1.0, 0.0)


def alert_events(panel: Panel, table: pl.DataFrame) -> Events:
    """The table's rows as events. Raises ContractBroken when a column is missing or no PubReason can be read."""
    require_columns("margin_alert", table, FIELDS)
    rows, stock = listed_records("margin_alert", table, panel.axes)
    rows = rows.with_columns(
        stock=pl.Series(stock, dtype=pl.Int64),
        available=pl.Series(next_trading_day(rows["PubDate"], panel.calendar), dtype=pl.Date),
        applied=pl.Series(np.searchsorted(panel.calendar.days, days_of(rows["AppDate"])), dtype=pl.Int64),
    ).sort("available", "PubDate", "AppDate", "stock")
    rows = rows.with_columns(
        newest=pl.col("applied").cum_max().over("stock"),
        since=pl.col("available").min().over("stock", "applied"),
    )
    entity, seq = rows["stock"].to_numpy() * (len(panel.calendar.days) + 1), np.arange(rows.height)
    versions = Vintages(entity + rows["applied"].to_numpy(), seq, rows.height + 1)
    newest_day = rows["newest"].to_numpy()
    newest = versions.at(entity + newest_day, seq)
    earlier = np.where(newest_day >= CARRIED, entity + newest_day - CARRIED, -1)
    since = days_of(rows["since"])[newest]
    return Events(rows["stock"].to_numpy(), days_of(rows["available"]), newest, versions.at(earlier, seq), since, rows)


def _staleness(panel: Panel, events: Events, joined: AsOf) -> Array:
    """Trading days since the newest record became usable, [T, N]; null where there is none."""
    first_row = np.searchsorted(panel.axes.dates, events.since).astype(np.float64)
    rows = np.arange(len(panel.axes.dates), dtype=np.float64)[:, None]
    return elementwise(np.subtract, rows, joined.take(first_row))


def _has_reason(rows: pl.DataFrame, names: tuple[str, ...]) -> Array:
    """1 where PubReason, a JSON object of "0" and "1", has one of the names at "1", else 0."""
    reasons = rows["PubReason"].unique()  # few texts, on many rows
    found = reasons.to_frame().select(
        pl.col("PubReason").str.json_path_match(f"$.{name}").alias(name) for name in names
    )
    if rows.height and found.select(pl.all_horizontal(pl.all().is_null().all())).item():
        raise ContractBroken(f"margin_alert: no PubReason has {' or '.join(names)}; check the API's field names")
    given = found.select(pl.any_horizontal((pl.all() == "1").fill_null(value=False))).to_series()
    return numbers_of(rows["PubReason"].replace_strict(reasons, given, return_dtype=pl.Boolean))


_CS, _LISTED, _ZERO = "cross_section", "null if not in the list", "0 if not in the list"
COLUMNS = (
    Column("dm_long_to_adv20", "f32", "long balance/mean20(v)", "20/10", _LISTED, _CS),
    Column("dm_short_to_adv20", "f32", "short balance/mean20(v)", "20/10", _LISTED, _CS),
    Column("dm_net_to_adv20", "f32", "(long - short)/mean20(v)", "20/10", _LISTED, _CS),
    Column("dm_short_long_log", "f32", "ln((short + 100)/(long + 100))", "", _LISTED, _CS),
    Column("dm_imbalance", "f32", "(long - short)/(long + short)", "", "null if the sum is 0", _CS),
    Column("dm_long_chg_1d", "f32", "daily change of long/mean20(v)", "20/10", 'null if "-"', _CS),
    Column("dm_short_chg_1d", "f32", "daily change of short/mean20(v)", "20/10", 'null if "-"', _CS),
    Column("dm_net_chg_5d", "f32", "(net - net 5 application days ago)/mean20(v)", "20/10", "null if no such day", _CS),
    Column("dm_long_to_listed", "f32", "long balance/listed shares", "", 'null if "*"', _CS),
    Column("dm_short_to_listed", "f32", "short balance/listed shares", "", 'null if "*"', _CS),
    Column("dm_reg_level", "i8", "class: 101 0, 102 1, 001 2, 002 3, 003 to 006 4 to 7", "", _ZERO, "time"),
    Column("dm_is_restricted", "i8", "restricted by the exchange or JSF", "", _ZERO, "flag"),
    Column("dm_is_caution", "i8", "precaution, monitoring or security on alert", "", _ZERO, "flag"),
    Column("dm_spell_td", "i16", "trading days in the list, bridging gaps up to 5, cap 250", "", _ZERO, "time"),
    Column("dm_staleness_td", "i16", "trading days since the last record, cap 250", "", "250 if none", "time"),
    Column("dm_valid", "i8", "dm_staleness_td <= 1", "", "0", "flag"),
)

GROUP = Group(
    name="dm",
    tier="standard",
    tables=("calendar", "master", "bars_daily", "margin_alert"),
    availability="the trading day after PubDate; values carry 5 trading days",
    columns=COLUMNS,
    compute=compute,
)
