"""Options and futures of the simulated market: contracts, expiries, smile, sessions, rolls and emergency rows."""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl
import pytest
from jquantsapi import constants

from atft_pipeline.exchange.drawing import Market, draw_market
from atft_pipeline.exchange.futures import futures
from atft_pipeline.exchange.options import COLUMNS, black, options_225
from atft_pipeline.exchange.tokyo_calendar import business_day_before, sq_day
from atft_pipeline.jquants.tables_events import OPTIONS_225
from atft_pipeline.settings import MarketSize

SIZE = MarketSize(stocks=40, start=date(2022, 7, 1), end=date(2023, 9, 29), seed=5, plant="null")


@pytest.fixture(scope="module")
def market() -> Market:
    return draw_market(SIZE)


@pytest.fixture(scope="module")
def options(market: Market) -> pl.DataFrame:
    return options_225(market)(SIZE.start, SIZE.end)


@pytest.fixture(scope="module")
def contracts(market: Market) -> pl.DataFrame:
    return futures(market)(SIZE.start, SIZE.end)


def number(name: str) -> pl.Expr:
    return pl.col(name).replace("", None).cast(pl.Float64)


def test_the_special_quotation_is_the_second_friday_or_the_business_day_before() -> None:
    assert sq_day(2024, 3) == date(2024, 3, 8)
    assert sq_day(2023, 8) == date(2023, 8, 10)  # Friday the 11th is Mountain Day
    assert business_day_before(date(2024, 1, 4)) == date(2023, 12, 29)


def test_options_have_the_columns_and_keys_of_the_api(options: pl.DataFrame, market: Market) -> None:
    assert options.columns == list(COLUMNS) == list(OPTIONS_225.schema)
    assert set(COLUMNS) <= set(constants.DERIVATIVES_OPTIONS_COLUMNS_V2)
    assert options.select("Date", "Code", "EmMrgnTrgDiv").is_unique().all()
    assert options["Date"].unique().sort().to_list() == [day.isoformat() for day in market.business]
    assert (options["Code"].str.len_chars() == 9).all()


def test_series_end_on_the_day_before_the_special_quotation(options: pl.DataFrame) -> None:
    for month, last, sq in options.select("CM", "LTD", "SQD").unique().iter_rows():
        assert sq == sq_day(int(month[:4]), int(month[5:])).isoformat()
        assert last == business_day_before(date.fromisoformat(sq)).isoformat()
    assert (options["Date"] <= options["LTD"]).all()
    # a listed series stays until it expires
    spans = options.group_by("CM", "Strike", "PCDiv").agg(
        pl.col("Date").min().alias("first"),
        pl.col("Date").max().alias("end"),
        pl.col("Date").n_unique(),
        pl.col("LTD").first(),
    )
    days = options["Date"].unique().sort().to_list()
    place = {day: n for n, day in enumerate(days)}
    for first, end, count, last in spans.select("first", "end", "Date", "LTD").iter_rows():
        assert end == min(last, days[-1])
        assert count == place[end] - place[first] + 1


def test_strikes_lie_around_the_index_and_bracket_a_month(options: pl.DataFrame) -> None:
    normal = options.filter(pl.col("EmMrgnTrgDiv") == "002")
    money = normal.with_columns(away=(pl.col("Strike") / pl.col("UnderPx") - 1))
    reach = money.group_by("Date").agg(
        pl.col("away").abs().min().alias("nearest"), low=pl.min("away"), high=pl.max("away")
    )
    assert reach["nearest"].max() < 0.01 and reach["low"].max() < -0.12 and reach["high"].min() > 0.12
    days = normal.with_columns(
        (pl.col("SQD").str.to_date() - pl.col("Date").str.to_date()).dt.total_days().alias("left")
    )
    listed = days.group_by("Date").agg(
        (pl.col("left").filter(pl.col("left") >= 7).min()).alias("near"), pl.col("left").max().alias("far")
    )
    assert listed["near"].max() <= 42 and listed["far"].min() > 250


def test_implied_volatility_smiles_and_prices_follow_it(options: pl.DataFrame) -> None:
    normal = options.filter(
        (pl.col("EmMrgnTrgDiv") == "002") & (pl.col("CM") == "2023-03") & (pl.col("Date") == "2023-02-10")
    )
    level = normal["UnderPx"][0]
    near = normal.filter((pl.col("Strike") / level - 1).abs() < 0.08).sort("Strike")
    puts, calls = (near.filter(pl.col("PCDiv") == side) for side in "12")
    assert puts["IV"][0] > puts["IV"][puts.height // 2]  # low strikes are dearer
    years = np.full(calls.height, (date(2023, 3, 10) - date(2023, 2, 10)).days / 365)
    priced = black(level, calls["Strike"].to_numpy(), years, calls["IV"].to_numpy() / 100, np.ones(calls.height, bool))
    assert np.allclose(priced, calls["Theo"].to_numpy(), atol=1e-3)
    assert (calls["Theo"].diff().drop_nulls() < 0).all() and (puts["Theo"].diff().drop_nulls() > 0).all()
    term = options.filter(pl.col("EmMrgnTrgDiv") == "002").group_by("Date", "CM").agg(pl.col("BaseVol").first())
    assert term.group_by("Date").agg(pl.col("BaseVol").n_unique())["BaseVol"].min() > 1


def test_no_trade_is_a_price_of_zero_and_no_session_is_blank(options: pl.DataFrame) -> None:
    quiet = options.filter(pl.col("Vo") == 0)
    assert 0.1 < quiet.height / options.height < 0.9
    assert quiet.select(pl.col("O", "H", "L", "C", "AC", "Va").abs().sum()).sum_horizontal().item() == 0
    assert set(quiet["EC"]) <= {"0.0", ""}
    traded = options.filter(pl.col("Vo") > 0)
    assert (traded["L"] > 0).all() and (traded["H"] >= traded["C"]).all() and (traded["L"] <= traded["O"]).all()
    blank = options.filter((pl.col("EO") == "") & (pl.col("EmMrgnTrgDiv") == "002"))
    first = options.group_by("CM", "Strike", "PCDiv").agg(pl.col("Date").min())
    joined = blank.join(first, on=["CM", "Strike", "PCDiv", "Date"], how="anti")
    assert blank.height > 0 and joined.height == 0


def test_an_emergency_call_doubles_the_rows_of_its_day(options: pl.DataFrame, contracts: pl.DataFrame) -> None:
    called = options.filter(pl.col("EmMrgnTrgDiv") == "001")
    days = called["Date"].unique().to_list()
    assert 1 <= len(days) <= 20
    normal = options.filter((pl.col("EmMrgnTrgDiv") == "002") & pl.col("Date").is_in(days))
    assert called.height == normal.height and (called["IV"] != normal["IV"]).all()
    assert set(contracts.filter(pl.col("EmMrgnTrgDiv") == "001")["Date"]) == set(days)


def test_every_product_has_one_central_contract_a_day(contracts: pl.DataFrame, market: Market) -> None:
    assert contracts.columns == list(constants.DERIVATIVES_FUTURES_COLUMNS_V2)
    assert contracts.select("Date", "Code", "EmMrgnTrgDiv").is_unique().all()
    central = contracts.filter((pl.col("CCMFlag") == "1") & (pl.col("EmMrgnTrgDiv") == "002"))
    sizes = central.group_by("ProdCat", "Date").len()
    assert sizes["len"].max() == 1
    assert sizes.height == 6 * len(market.business)
    assert (central["Date"] < central["LTD"]).all()
    rolled = central.sort("ProdCat", "Date").with_columns(pl.col("CM").shift(1).over("ProdCat").alias("before"))
    changes = rolled.filter(pl.col("before").is_not_null() & (pl.col("CM") != pl.col("before")))
    assert (changes["CM"] > changes["before"]).all()
    assert dict(changes.group_by("ProdCat").len().iter_rows())["NK225F"] == 5  # September 2022 to September 2023
    assert dict(changes.group_by("ProdCat").len().iter_rows())["NK225MF"] == 15


def test_futures_hang_on_their_spot_and_sessions_agree(contracts: pl.DataFrame, options: pl.DataFrame) -> None:
    normal = contracts.filter(pl.col("EmMrgnTrgDiv") == "002")
    level = options.group_by("Date").agg(pl.col("UnderPx").filter(pl.col("EmMrgnTrgDiv") == "002").first())
    nikkei = normal.filter((pl.col("ProdCat") == "NK225F") & (pl.col("CCMFlag") == "1")).join(level, on="Date")
    basis = (nikkei["Settle"] / nikkei["UnderPx"] - 1).abs()
    assert basis.max() < 0.02
    traded = normal.filter(pl.col("Vo") > 0)
    for high, low, inside in (("H", "L", ("O", "C", "AO", "AC")), ("AH", "AL", ("AO", "AC"))):
        assert (traded[high] >= traded.select(pl.max_horizontal(inside)).to_series()).all()
        assert (traded[low] <= traded.select(pl.min_horizontal(inside)).to_series()).all()
    night = traded.filter(pl.col("EO") != "")
    assert (night["O"] == night.select(number("EO")).to_series()).all()
    assert (night["H"] >= night.select(number("EH")).to_series()).all()
    assert set(normal["MO"]) == {""}
    idle = normal.filter(pl.col("Vo") == 0)
    assert idle.height and idle.select(pl.col("O", "H", "L", "C").sum()).sum_horizontal().item() == 0
    assert (idle["Settle"] > 0).all()


def test_only_the_first_day_of_a_contract_has_no_night(contracts: pl.DataFrame) -> None:
    blank = contracts.filter((pl.col("EO") == "") & (pl.col("EmMrgnTrgDiv") == "002"))
    first = contracts.group_by("ProdCat", "CM").agg(pl.col("Date").min())
    born = first.filter(pl.col("Date") > SIZE.start.isoformat())
    assert sorted(blank.select("ProdCat", "CM", "Date").rows()) == sorted(born.rows())
