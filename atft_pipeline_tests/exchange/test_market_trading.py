"""Margin balances, short selling and the breakdown of a simulated market: identities, publication, quirks, spans."""

from __future__ import annotations

from bisect import bisect_left
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from jquantsapi import constants

from atft_pipeline.exchange.drawing import Market, draw_market
from atft_pipeline.exchange.margin import draw_balances, published_on, reference_dates
from atft_pipeline.exchange.publication import MARGIN_DAILY
from atft_pipeline.exchange.sources import SOURCES
from atft_pipeline.exchange.tokyo_calendar import business_days
from atft_pipeline.settings import MarketSize

SIZE = MarketSize(stocks=60, start=date(2020, 6, 1), end=date(2021, 2, 26), seed=3, plant="demo")
DAILY = MarketSize(stocks=20, start=date(2026, 7, 1), end=date(2026, 10, 16), seed=4, plant="null")
NAMES = ("margin_interest", "margin_alert", "short_ratio", "short_sale_report", "breakdown")
DATED = {"margin_alert": "PubDate", "short_sale_report": "DiscDate"}
SELLS = ("LongSell", "ShrtNoMrgn", "MrgnSellNew", "MrgnSellClose")
BUYS = ("LongBuy", "MrgnBuyNew", "MrgnBuyClose")


@pytest.fixture(scope="module")
def market() -> Market:
    return draw_market(SIZE)


@pytest.fixture(scope="module")
def tables(market: Market) -> dict[str, pl.DataFrame]:
    return {name: SOURCES[name](market)(SIZE.start, SIZE.end) for name in NAMES}


@pytest.fixture(scope="module")
def daily() -> pl.DataFrame:
    return SOURCES["margin_interest"](draw_market(DAILY))(DAILY.start, DAILY.end)


def short_share(ratio: pl.DataFrame) -> pl.Expr:
    short = pl.col("ShrtWithResVa") + pl.col("ShrtNoResVa")
    return short / (short + pl.col("SellExShortVa"))


def test_the_fields_are_those_of_the_client_in_its_order(tables: dict[str, pl.DataFrame]) -> None:
    assert tables["margin_interest"].columns == constants.MKT_MARGIN_INTEREST_COLUMNS_V2
    assert tables["margin_alert"].columns == constants.DAILY_MARGIN_INTEREST_COLUMNS_V2
    assert tables["short_ratio"].columns == constants.MKT_SHORT_RATIO_COLUMNS_V2
    assert tables["breakdown"].columns == constants.MKT_BREAKDOWN_COLUMNS_V2
    assert tables["short_sale_report"].columns == constants.SHORT_SELLING_POSITIONS_COLUMNS_V2


@pytest.mark.parametrize("name", NAMES)
def test_two_half_spans_are_the_whole(market: Market, tables: dict[str, pl.DataFrame], name: str) -> None:
    source, middle = SOURCES[name](market), date(2020, 10, 1)
    halves = [source(SIZE.start, middle), source(middle + timedelta(days=1), SIZE.end)]
    assert all(half.height for half in halves)
    assert pl.concat(halves).equals(tables[name])
    assert source(date(2020, 6, 6), date(2020, 6, 7)).height == 0  # a weekend
    column = DATED.get(name, "Date")
    assert tables[name][column].is_sorted()


def test_drawing_these_tables_moves_no_quote(market: Market, tables: dict[str, pl.DataFrame]) -> None:
    again = draw_market(SIZE)
    assert np.array_equal(again.quotes.turnover, market.quotes.turnover)
    assert np.array_equal(again.closes.close, market.closes.close)


def test_margin_volumes_are_negotiable_plus_standardised(tables: dict[str, pl.DataFrame]) -> None:
    margin = tables["margin_interest"]
    for side in ("Shrt", "Long"):
        assert (margin[f"{side}Vol"] == margin[f"{side}NegVol"] + margin[f"{side}StdVol"]).all()
        assert (margin[f"{side}NegVol"] >= 0).all() and (margin[f"{side}StdVol"] >= 0).all()
    assert margin.filter(pl.col("IssType") == "1")["ShrtStdVol"].max() == 0
    assert margin.filter(pl.col("IssType") == "2")["ShrtStdVol"].max() > 0
    assert 3 < (margin["LongVol"] / margin["ShrtVol"]).median() < 10


def test_weekly_margin_dates_are_the_last_session_of_weeks_with_three_sessions(
    tables: dict[str, pl.DataFrame],
) -> None:
    margin = tables["margin_interest"]
    assert margin["PubDate"].is_null().all() and margin["LongVal"].is_null().all()
    dates = margin["Date"].unique().sort().to_list()
    assert {"2020-06-05", "2020-10-02", "2020-12-30"} <= set(dates)
    assert "2020-07-22" in dates  # the 23rd and 24th were holidays: three sessions
    assert "2021-02-19" in dates and "2021-02-26" not in dates  # not yet published at the end
    years = reference_dates(date(2018, 12, 1), date(2020, 1, 31))
    assert date(2019, 1, 4) not in years and date(2018, 12, 28) in years  # one session in the first week of 2019
    assert date(2019, 5, 10) in years and date(2019, 5, 3) not in years  # the ten-day closure of 2019


def test_margin_balances_turn_daily_with_publication_dates_and_yen(daily: pl.DataFrame) -> None:
    weekly, after = daily.filter(pl.col("Date") < "2026-09-25"), daily.filter(pl.col("Date") >= "2026-09-25")
    assert weekly["PubDate"].is_null().all() and weekly["ShrtStdVal"].is_null().all()
    assert after["PubDate"].null_count() == 0
    days = business_days(MARGIN_DAILY, DAILY.end)
    assert after["Date"].unique().sort().to_list() == [f"{day}" for day in days[:-1]]  # the last is published later
    first = after.filter(pl.col("Date") == "2026-09-25")
    assert first["PubDate"].unique().to_list() == ["2026-09-28"]
    for side in ("Shrt", "Long"):
        assert (after[f"{side}Val"] == after[f"{side}NegVal"] + after[f"{side}StdVal"]).all()
    assert (after["LongVal"] > 0).all()


def test_weekly_balances_come_out_on_the_second_business_day() -> None:
    assert published_on([date(2024, 5, 2), date(2024, 5, 10)]) == [date(2024, 5, 8), date(2024, 5, 14)]


def test_a_split_shows_as_a_jump_of_the_share_count(market: Market) -> None:
    balances = draw_balances(market)
    row, issue = (int(x[0]) for x in np.nonzero(market.closes.factor == 0.5))
    before, after = (balances.shares(np.array([r]), np.array([issue]))["Long"][0] for r in (row - 1, row))
    assert 1.5 < after / before < 2.7


def test_margin_alerts_carry_marks_reasons_and_the_day_before(market: Market, tables: dict[str, pl.DataFrame]) -> None:
    alerts = tables["margin_alert"]
    days = [f"{day}" for day in market.business]
    originals = alerts.filter(pl.col("PubDate") == pl.col("PubDate").min().over("Code", "AppDate"))
    assert all(days.index(p) == days.index(a) + 1 for p, a in originals.select("PubDate", "AppDate").iter_rows())
    fresh = alerts["ShrtOutChg"] == "-"
    assert fresh.any() and not fresh.all()
    funds = alerts["Code"].is_in(["13060", "13210"])
    assert funds.any() and (alerts["LongOutRatio"] == "*").equals(funds)
    reasons = alerts["PubReason"].struct.unnest()
    assert set(reasons.columns) == {
        "Restricted", "DailyPublication", "Monitoring", "RestrictedByJSF", "PrecautionByJSF", "UnclearOrSecOnAlert"
    }  # fmt: skip
    assert ((reasons["Restricted"] == "1") == alerts["TSEMrgnRegCls"].is_in(["003", "004", "005", "006"])).all()
    for side in ("Shrt", "Long"):
        assert (alerts[f"{side}Out"] == alerts[f"{side}NegOut"] + alerts[f"{side}StdOut"]).all()
    chained = originals.sort("Code", "AppDate").with_columns(
        before=pl.col("LongStdOut").shift(1).over("Code"), chg=pl.col("LongStdOutChg").replace("-", None).cast(pl.Int64)
    )
    known = chained.drop_nulls(["before", "chg"])
    assert known.height > 50 and (known["LongStdOut"] - known["before"] == known["chg"]).all()


def test_corrected_margin_alerts_are_further_rows(tables: dict[str, pl.DataFrame]) -> None:
    alerts = tables["margin_alert"].sort("PubDate")
    twice = alerts.filter(pl.len().over("Code", "AppDate") > 1)
    assert twice.height > 0
    pairs = twice.group_by("Code", "AppDate").agg("PubDate", "LongOut")
    assert all(p[0] < p[1] and v[0] != v[1] for p, v in pairs.select("PubDate", "LongOut").iter_rows())


def test_alerts_agree_with_the_weekly_balances(tables: dict[str, pl.DataFrame]) -> None:
    first = pl.col("PubDate") == pl.col("PubDate").min().over("Code", "AppDate")
    both = (
        tables["margin_alert"]
        .filter(first)
        .join(tables["margin_interest"].drop("PubDate"), left_on=["AppDate", "Code"], right_on=["Date", "Code"])
    )
    assert both.height > 20
    assert (both["LongOut"] == both["LongVol"]).all() and (both["ShrtStdOut"] == both["ShrtStdVol"]).all()


def test_sell_legs_and_buy_legs_are_the_turnover_of_the_bar(market: Market, tables: dict[str, pl.DataFrame]) -> None:
    table = tables["breakdown"]
    assert "2020-10-01" not in table["Date"]
    assert set(table["Date"]) == {f"{day}" for day in market.trading_days}
    for end in ("Va", "Vo"):
        sold, bought = (table.select(pl.sum_horizontal(f"{leg}{end}" for leg in legs)) for legs in (SELLS, BUYS))
        assert sold.equals(bought.rename({bought.columns[0]: sold.columns[0]}))
        assert table.select(pl.min_horizontal(f"{leg}{end}" for leg in (*SELLS, *BUYS))).min().item() >= 0
    value = market.quotes.turnover[market.quotes.traded]
    assert np.array_equal(table.select(pl.sum_horizontal(f"{leg}Va" for leg in SELLS)).to_series(), value)
    volume = market.quotes.volume[market.quotes.traded]
    assert np.array_equal(table.select(pl.sum_horizontal(f"{leg}Vo" for leg in BUYS)).to_series(), volume)


def test_short_selling_by_sector_is_the_breakdown_added_up(market: Market, tables: dict[str, pl.DataFrame]) -> None:
    ratio = tables["short_ratio"]
    assert ratio.group_by("Date").len()["len"].unique().to_list() == [34]
    assert "2020-10-01" not in ratio["Date"]
    sectors = dict(zip(market.universe.codes, market.universe.sector, strict=True))
    legs = tables["breakdown"].with_columns(sector=pl.col("Code").replace_strict(sectors))
    short = legs.group_by("Date", "sector").agg((pl.col("ShrtNoMrgnVa") + pl.col("MrgnSellNewVa")).sum())
    wanted = short.sort("Date", "sector").to_series(2).to_numpy()
    got = ratio.select(pl.col("ShrtWithResVa") + pl.col("ShrtNoResVa")).to_series().to_numpy()
    assert np.array_equal(got[got > 0], wanted[wanted > 0])


def test_the_market_sells_short_two_fifths_and_more_on_falling_days(
    market: Market, tables: dict[str, pl.DataFrame]
) -> None:
    daily = tables["short_ratio"].group_by("Date", maintain_order=True).agg(pl.all().exclude("S33").sum())
    level = daily.select(short_share(daily)).to_series()
    assert 0.36 < level.mean() < 0.46
    assert np.corrcoef(level, market.noise.market)[0, 1] < -0.3
    restricted = daily["ShrtWithResVa"].sum() / (daily["ShrtWithResVa"] + daily["ShrtNoResVa"]).sum()
    assert 0.78 < restricted < 0.87


def test_short_reports_chain_and_come_out_two_business_days_later(
    market: Market, tables: dict[str, pl.DataFrame]
) -> None:
    reports = tables["short_sale_report"]
    key = ["DiscDate", "CalcDate", "Code", "SSName", "FundName", "DICName"]
    assert reports.select(key).is_unique().all()
    days = [f"{day}" for day in market.business]
    assert all(
        bisect_left(days, d) - bisect_left(days, c) == 2 for d, c in reports.select("DiscDate", "CalcDate").iter_rows()
    )
    holder = ["Code", "SSName", "FundName"]
    chained = reports.sort("CalcDate").with_columns(
        day=pl.col("CalcDate").shift(1).over(holder), was=pl.col("ShrtPosToSO").shift(1).over(holder)
    )
    later = chained.filter(pl.col("day").is_not_null())
    assert later.height > 100
    assert (later["day"] == later["PrevRptDate"]).all() and (later["was"] == later["PrevRptRatio"]).all()
    first = chained.filter(pl.col("day").is_null())
    assert (first["PrevRptDate"] == "").all() and first["PrevRptRatio"].is_null().all()
    # A report below the threshold closes a position; two of them in a row would report nothing.
    below = later.filter(pl.col("ShrtPosToSO") < 0.005)
    assert below.height > 0 and (below["PrevRptRatio"] >= 0.005).all() and (below["Notes"] != "").all()


def test_margin_and_shorts_show_the_hidden_characteristic_noisily(
    market: Market, tables: dict[str, pl.DataFrame]
) -> None:
    """Within each stock, so that what differs between stocks for good plays no part."""
    margin = tables["margin_interest"].select("Date", "Code", pl.col("LongVol").log() - pl.col("ShrtVol").log())
    bought = pl.sum_horizontal(f"{leg}Va" for leg in BUYS)
    trades = tables["breakdown"].select("Date", "Code", (pl.col("MrgnBuyNewVa") - pl.col("MrgnSellCloseVa")) / bought)
    reports = tables["short_sale_report"].select("CalcDate", "Code", pl.col("ShrtPosToSO"))
    seen = [_seen(market, table) for table in (margin, trades, reports)]
    assert -0.75 < seen[0] < -0.3
    assert -0.5 < seen[1] < -0.1
    assert -0.5 < seen[2] < -0.05


def _seen(market: Market, table: pl.DataFrame) -> float:
    """Correlation of a value (third column, by date and code) with the hidden characteristic of the day."""
    hidden = pl.DataFrame(market.hidden.linear, schema=market.universe.codes).with_columns(
        day=pl.Series([f"{day}" for day in market.trading_days])
    )
    long = hidden.unpivot(index="day", variable_name="code", value_name="linear")
    named = table.rename(dict(zip(table.columns, ("day", "code", "value"), strict=True)))
    both = named.join(long, on=["day", "code"]).filter(
        pl.col("value").is_finite() & pl.col("code").is_in(_common(market))
    )
    return float(both.select(pl.corr(pl.col("value") - pl.col("value").mean().over("code"), "linear")).item())


def _common(market: Market) -> list[str]:
    return [code for code, common in zip(market.universe.codes, market.universe.common, strict=True) if common]
