"""Company events of the simulated market: schedules, notices and statements agree with summary and calendar."""

from __future__ import annotations

import json
from datetime import date
from functools import lru_cache

import polars as pl
import pytest
from jquantsapi import constants

from atft_pipeline.exchange.details import LABELS
from atft_pipeline.exchange.drawing import Market, draw_market
from atft_pipeline.exchange.sources import SOURCES
from atft_pipeline.exchange.tokyo_calendar import is_business_day
from atft_pipeline.settings import MarketSize

SIZE = MarketSize(stocks=60, start=date(2021, 7, 1), end=date(2023, 6, 30), seed=11, plant="linear")
MIDDLE = (date(2022, 7, 17), date(2022, 7, 18))
EVENTS = ("earnings_date", "fin_details", "dividend", "options_225", "futures")


@pytest.fixture(scope="module")
def market() -> Market:
    return draw_market(SIZE)


@pytest.fixture(scope="module")
def tables(market: Market) -> dict[str, pl.DataFrame]:
    wanted = (*EVENTS[:3], "fin_summary", "bars_daily")
    return {name: SOURCES[name](market)(SIZE.start, SIZE.end) for name in wanted}


@pytest.mark.parametrize("name", EVENTS)
def test_two_halves_are_the_whole(market: Market, name: str) -> None:
    rows = SOURCES[name](market)
    first, last = date(2022, 6, 1), date(2022, 8, 31)
    whole = rows(first, last)
    assert whole.height > 0
    assert whole.equals(pl.concat([rows(first, MIDDLE[0]), rows(MIDDLE[1], last)]))
    assert rows(MIDDLE[1], MIDDLE[1]).columns == whole.columns  # a day without rows
    assert SOURCES[name](market)(MIDDLE[1], last).equals(rows(MIDDLE[1], last))  # and of a fresh draw


def results(tables: dict[str, pl.DataFrame]) -> pl.DataFrame:
    return tables["fin_summary"].filter(pl.col("DocType").str.contains("FinancialStatements"))


def test_the_last_announced_date_is_the_date_of_the_result(tables: dict[str, pl.DataFrame]) -> None:
    schedule = tables["earnings_date"]
    told = results(tables).filter(pl.col("RetroRst") == "false")
    told = told.select("Code", "DiscDate", FQName="CurPerType", FYE=pl.col("CurFYEn").str.slice(5).str.replace("-", ""))
    keyed = schedule.with_columns(PubDate=pl.col("PubDate").str.to_date())
    joined = (
        told.with_columns(pl.col("DiscDate").str.to_date())
        .sort("DiscDate")
        .join_asof(
            keyed.sort("PubDate"),
            left_on="DiscDate",
            right_on="PubDate",
            by=["Code", "FQName", "FYE"],
            tolerance="60d",
            coalesce=False,
            check_sortedness=False,
        )
    )
    known = joined.filter(pl.col("PubDate").is_not_null())
    assert known.height > 0.85 * told.height  # those of the first weeks were announced before the history begins
    assert (known["SchDate"] == known["DiscDate"].cast(pl.String)).all()
    assert (known["PubDate"] < known["DiscDate"]).all()


def test_some_dates_are_left_open_and_some_are_moved(tables: dict[str, pl.DataFrame]) -> None:
    schedule = tables["earnings_date"].sort("Code", "FQName", "FYE", "PubDate")
    assert schedule.columns == list(constants.FIN_EARNINGS_DATE_COLUMNS_V2)
    assert 0.005 < (schedule["SchDate"] == "").mean() < 0.08
    days = schedule.with_columns(pl.col("PubDate").str.to_date())
    wait = pl.col("PubDate").diff().over("Code", "FQName", "FYE").dt.total_days()
    changed = days.with_columns(wait=wait).filter(pl.col("wait") < 100)
    assert 0.02 < changed.height / schedule.height < 0.2
    assert all(is_business_day(date.fromisoformat(day)) for day in schedule["PubDate"].unique())


def test_details_have_the_documents_and_the_totals_of_the_summary(tables: dict[str, pl.DataFrame]) -> None:
    details, summary = tables["fin_details"], results(tables)
    assert details.columns == list(constants.FINS_FS_DETAILS_COLUMNS_V2)
    key = ["DiscNo", "DiscDate", "DiscTime", "Code", "DocType"]
    assert sorted(details.select(key).rows()) == sorted(summary.select(key).rows())
    stated = {
        number: (assets, equity, sales, operating, cash)
        for number, assets, equity, sales, operating, cash in summary.select(
            "DiscNo",
            *(pl.when(pl.col(name) == "").then(f"NC{name}").otherwise(name) for name in ("TA", "Eq", "Sales", "OP")),
            "CFO",
        ).iter_rows()
    }
    seen = set()
    for number, doc_type, text in details.select("DiscNo", "DocType", "FS").iter_rows():
        sheet = json.loads(text)
        assert all(isinstance(value, str) for value in sheet.values())
        ifrs = doc_type.endswith("IFRS")
        names = {LABELS[item][2 if ifrs else 1]: item for item in LABELS} | (
            {} if ifrs else {LABELS[item][0]: item for item in LABELS}
        )
        items = {names[label]: float(value) for label, value in sheet.items() if label in names}
        seen |= set(items)
        for item, figure in zip(("assets", "equity", "sales", "operating", "operations"), stated[number], strict=True):
            if item in items:
                assert items[item] == float(figure), (number, item)
            else:
                assert item != "assets"
        assert items["liabilities"] + items["equity"] == items["assets"] == items["both_sides"]
        if "current_assets" in items:
            assert items["current_assets"] + items["fixed_assets"] == items["assets"]
            assert items["current_liabilities"] + items["fixed_liabilities"] == items["liabilities"]
            assert items["sales"] - items["cost"] == items["gross"] == items["operating"] + items["expenses"]
            current = sum(items.get(name, 0) for name in ("cash", "receivables", "inventories", "other_current"))
            assert current == items["current_assets"]
    assert seen == set(LABELS)
    texts = details["FS"].str.contains
    assert 0.2 < texts('"Goodwill', literal=True).mean() < 0.7  # what a company does not have, it does not state


@lru_cache
def _day(text: str) -> date:
    return date.fromisoformat(text)


def test_notices_of_a_dividend_form_a_chain(tables: dict[str, pl.DataFrame]) -> None:
    notices = tables["dividend"]
    assert notices.columns == list(constants.FINS_DIVIDEND_COLUMNS_V2)
    assert notices["RefNo"].is_unique().all()
    assert set(notices["StatCode"]) == {"1", "2", "3"}
    for _, chain in notices.sort("PubDate", "PubTime", "RefNo").group_by("CARefNo", maintain_order=True):
        first = chain.row(0, named=True)
        assert first["StatCode"] == "1" and first["RefNo"] == first["CARefNo"]
        assert set(chain["StatCode"][1:]) <= {"2", "3"}
        assert (chain["StatCode"][:-1] != "3").all()  # nothing follows a deletion
        assert chain.select("Code", "RecDate", "ExDate", "IFCode").n_unique() == 1
        assert chain["FRCode"].to_list() == sorted(chain["FRCode"], reverse=True)  # forecasts, then the decision
    assert notices.filter(pl.col("StatCode") == "3").height > 3


def test_dates_and_amounts_of_notices(tables: dict[str, pl.DataFrame]) -> None:
    notices = tables["dividend"]
    assert set(notices["DivRate"].filter(~notices["DivRate"].str.contains(r"^\d+\.\d$"))) == {"-"}
    assert set(notices.filter(pl.col("FRCode") == "2")["PayDate"]) == {"-"}
    for record, counted, ex in notices.select("RecDate", "ActRecDate", "ExDate").unique().iter_rows():
        assert _day(ex) < _day(counted) <= _day(record)
        assert is_business_day(_day(ex)) and is_business_day(_day(counted))
        between = [date.fromordinal(n) for n in range(_day(ex).toordinal() + 1, _day(record).toordinal() + 1)]
        assert [day for day in between if is_business_day(day)] == [_day(counted)]
    special = notices.filter(pl.col("CommSpecCode") != "0")
    assert special.height and (special["CommDivRate"] + special["SpecDivRate"] != "").all()


def test_decided_amounts_are_those_of_the_results(tables: dict[str, pl.DataFrame]) -> None:
    decided = tables["dividend"].filter((pl.col("FRCode") == "1") & (pl.col("StatCode") != "3"))
    joined = decided.with_columns(DiscDate="PubDate").join(results(tables), on=["DiscDate", "Code"], how="inner")
    assert joined.height > 0.9 * decided.height
    paid = pl.when(pl.col("IFCode") == "1").then("Div2Q").otherwise("DivFY").cast(pl.Float64)
    amounts = joined.filter(pl.col("DivRate") != "-").select(pl.col("DivRate").cast(pl.Float64), paid=paid)
    mistaken = (amounts["DivRate"] == 2 * amounts["paid"]).sum()
    assert (amounts["DivRate"] == amounts["paid"]).sum() + mistaken == amounts.height
    assert mistaken < 0.05 * amounts.height


def test_sessions_make_up_the_day(market: Market) -> None:
    bars = SOURCES["bars_daily"](market)(SIZE.start, SIZE.end)
    traded = bars.filter(pl.col("C").is_not_null())
    both = traded.filter(pl.col("MO").is_not_null() & pl.col("AO").is_not_null())
    assert both.height > 0.8 * traded.height
    assert (both["MO"] == both["O"]).all() and (both["AC"] == both["C"]).all()
    assert (both.select(pl.max_horizontal("MH", "AH"))["MH"] == both["H"]).all()
    assert (both.select(pl.min_horizontal("ML", "AL"))["ML"] == both["L"]).all()
    for name in ("Vo", "Va"):
        assert (both[f"M{name}"] + both[f"A{name}"] == both[name]).all()
    for half in "MA":
        part = traded.filter(pl.col(f"{half}O").is_not_null())
        assert (part[f"{half}H"] >= part.select(pl.max_horizontal(f"{half}O", f"{half}C")).to_series()).all()
        assert (part[f"{half}L"] <= part.select(pl.min_horizontal(f"{half}O", f"{half}C")).to_series()).all()
        assert (part[f"{half}Vo"] > 0).all()
        scale = (part[f"{half}AdjC"] / part[f"{half}C"]) / (part["AdjC"] / part["C"])
        assert ((scale - 1).abs() < 1e-3).all()
    single = traded.filter(pl.col("MO").is_null() != pl.col("AO").is_null())
    assert single.height > 0 and (single["Vo"] < 500).all()
    assert traded.filter(pl.col("MO").is_null() & pl.col("AO").is_null()).height == 0
    quiet = bars.filter(pl.col("C").is_null())
    assert quiet.select("MO", "MVo", "AC", "AVa").null_count().sum_horizontal().item() == 4 * quiet.height
    assert (
        (traded.filter(pl.col("UL") == "1").select((pl.col("MUL") == "1") | (pl.col("AUL") == "1"))).to_series().all()
    )
