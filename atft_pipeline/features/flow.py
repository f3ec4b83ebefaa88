"""`flow`: what each type of investor bought and sold in the stock's market section, as published.

Weekly values come from `flow_records`; one as-of join per section brings them to the panel.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.features.flow_records import SECTIONS, VALUES, weekly_events
from atft_pipeline.features.group import Column, Group, Inputs
from atft_pipeline.features.tables import required_table
from atft_pipeline.panel.asof import as_of
from atft_pipeline.panel.availability import next_trading_day
from atft_pipeline.panel.operators import group_column, group_take, where

STALE_AFTER = 15
VALID_WITHIN = 10

SECTION_OF_MARKET = {
    1: "TSE1st",
    2: "TSE2nd",
    3: "TSEMothers",
    4: "TokyoNagoya",  # 0105, the professionals' market
    5: "TSEJASDAQ",
    6: "TSEJASDAQ",
    7: "TokyoNagoya",  # 0109, funds and others
    8: "TSEPrime",
    9: "TSEStandard",
    10: "TSEGrowth",
}
"""Investor-type section by `meta_market_id`: all ten market codes."""


def compute(inputs: Inputs) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Yield the group's columns; see `COLUMNS` for the formulas."""
    panel, records = inputs.panel, required_table(inputs.tables, "investor_types")
    events = weekly_events(records, next_trading_day(records["PubDate"], panel.calendar))
    joined = as_of(events["available"], events["section"], panel.axes, entities=len(SECTIONS) + 1)
    section = stock_sections(panel.market)

    first_row = np.searchsorted(panel.axes.dates, events["newest_on"].to_numpy().astype("datetime64[D]"))
    # of the section to which the stock belongs on the date
    staleness = np.arange(len(panel.axes.dates))[:, None] - group_take(joined.take(first_row), section)
    fresh = np.where(staleness <= STALE_AFTER, section, np.int8(-1))
    for name in VALUES:
        yield name, group_column(joined.take(events[name].to_numpy()), fresh)
    yield "flow_staleness_td", staleness
    yield "flow_valid", where(staleness <= VALID_WITHIN, 1.0, 0.0)


def stock_sections(market: NDArray[np.integer]) -> NDArray[np.int8]:
    """Section ids [T, N] from market ids; -1 where the market is unknown."""
    of_market = np.full(max(SECTION_OF_MARKET) + 2, -1, np.int8)  # the last slot is what id -1 indexes
    for number, section in SECTION_OF_MARKET.items():
        of_market[number] = SECTIONS[section]
    return of_market[market]


_T = "time"
COLUMNS = (
    Column("flow_foreign_net_ratio", "f32", "(P - Q)/(P + Q) of foreigners", "", "null if P + Q = 0", _T),
    Column("flow_individual_net_ratio", "f32", "same, individuals", "", "null if P + Q = 0", _T),
    Column("flow_trustbank_net_ratio", "f32", "same, trust banks", "", "null if P + Q = 0", _T),
    Column("flow_invtrust_net_ratio", "f32", "same, investment trusts", "", "null if P + Q = 0", _T),
    Column("flow_prop_net_ratio", "f32", "same, proprietary", "", "null if P + Q = 0", _T),
    Column("flow_bizco_net_ratio", "f32", "same, business companies", "", "null if P + Q = 0", _T),
    Column("flow_foreign_share", "f32", "foreigners' total / total", "", "", _T),
    Column("flow_individual_share", "f32", "individuals' total / total", "", "", _T),
    Column("flow_foreign_net_z52", "f32", "z of flow_foreign_net_ratio", "52/26 weeks", "null if sd 0", _T),
    Column("flow_individual_net_z52", "f32", "z of flow_individual_net_ratio", "52/26 weeks", "null if sd 0", _T),
    Column("flow_trustbank_net_z52", "f32", "z of flow_trustbank_net_ratio", "52/26 weeks", "null if sd 0", _T),
    Column("flow_activity_z52", "f32", "z of ln(total), within one section era", "52/26 weeks", "null if sd 0", _T),
    Column("flow_foreign_net_sum4", "f32", "sum4(P - Q)/sum4(P + Q) of foreigners", "4/4 weeks", "", _T),
    Column("flow_smart_idx", "f32", "flow_foreign_net_z52 - flow_individual_net_z52", "52/26 weeks", "", _T),
    Column("flow_foreign_streak", "i8", "signed weeks of one sign of foreigners' net, within +-26", "26 weeks", "", _T),
    Column("flow_breadth_pos", "f32", "share of the 8 investor types with P > Q", "", "8 types", _T),
    Column("flow_staleness_td", "i16", "trading days since the newest week became usable", "", "null if never", _T),
    Column("flow_valid", "i8", "flow_staleness_td <= 10", "", "0 if null", "flag"),
)

GROUP = Group(
    name="flow",
    tier="standard",
    tables=("calendar", "master", "bars_daily", "investor_types"),
    availability="the first trading day after PubDate",
    columns=COLUMNS,
    compute=compute,
)
