"""The disclosures of a simulated market: strings, cumulative figures, kinds of documents, and when they come out."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import polars as pl
import pytest

from atft_pipeline.exchange.market import generate
from atft_pipeline.exchange.summary_fields import COLUMNS, FLAGS
from atft_pipeline.exchange.tokyo_calendar import business_days
from atft_pipeline.settings import MarketSize

SIZE = MarketSize(stocks=80, start=date(2021, 7, 1), end=date(2023, 6, 30), seed=11, plant="linear")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exchange") / "market"
    generate(SIZE, folder)
    return folder


@pytest.fixture(scope="module")
def documents(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "tables" / "fin_summary.parquet")


def results(documents: pl.DataFrame) -> pl.DataFrame:
    return documents.filter(pl.col("DocType").str.contains("FinancialStatements") & (pl.col("RetroRst") == "false"))


def number(name: str) -> pl.Expr:
    return pl.col(name).replace("", None).cast(pl.Float64)


def test_every_field_is_a_string_and_missing_is_empty(documents: pl.DataFrame) -> None:
    assert documents.columns == list(COLUMNS)
    assert len(COLUMNS) == 111
    assert set(documents.dtypes) == {pl.String}
    assert documents.null_count().sum_horizontal().item() == 0
    assert not any(documents.select(pl.all().str.contains("(?i)^-?(nan|inf|none)$").any()).row(0))


def test_sales_grow_through_the_fiscal_year_and_start_again(documents: pl.DataFrame) -> None:
    sales = pl.coalesce(number("Sales"), number("NCSales")).alias("sales")
    table = results(documents).select("Code", "CurFYEn", "CurPerType", "CurPerEn", sales).sort("Code", "CurPerEn")
    table = table.with_columns(
        pl.col("sales").shift(1).over("Code", "CurFYEn").alias("before"),
        pl.col("CurPerType").shift(1).over("Code").alias("previous"),
    )
    assert (table.filter(pl.col("before").is_not_null()).select(pl.col("sales") > pl.col("before"))).to_series().all()
    order = {"1Q": "2Q", "2Q": "3Q", "3Q": "FY", "FY": "1Q"}
    known = table.filter(pl.col("previous").is_not_null())
    assert (known["previous"].replace_strict(order) == known["CurPerType"]).all()


def test_results_come_after_their_period_within_45_days_while_the_stock_is_listed(
    documents: pl.DataFrame, folder: Path
) -> None:
    table = results(documents).with_columns(pl.col("DiscDate", "CurPerEn").str.to_date())
    lag = (table["DiscDate"] - table["CurPerEn"]).dt.total_days()
    assert lag.min() > 0
    assert lag.max() <= 45
    assert set(table["DiscDate"]) <= set(business_days(SIZE.start, SIZE.end))
    master = pl.read_parquet(folder / "tables" / "master.parquet")
    weekdays = documents.filter(pl.col("DiscDate").str.to_date().dt.weekday() < 6)
    listed = weekdays.join(master, left_on=["DiscDate", "Code"], right_on=["Date", "Code"], how="anti")
    assert listed.height == 0


def test_disclosures_cluster_after_the_close_and_in_the_reporting_months(documents: pl.DataFrame) -> None:
    month = documents.group_by(pl.col("DiscDate").str.slice(5, 2).alias("month")).len()
    count = dict(month.iter_rows())
    assert min(count[m] for m in ("02", "05", "08", "11")) > 2 * max(count[m] for m in ("03", "06", "09", "12"))
    at_close = (documents["DiscTime"] == "15:00:00").mean()
    assert 0.25 < at_close < 0.5
    assert 0.3 < (documents["DiscTime"] >= "15:00:00").mean() < 0.8


def test_every_kind_of_document_occurs(documents: pl.DataFrame) -> None:
    kinds = set(documents["DocType"])
    assert {"EarnForecastRevision", "DividendForecastRevision"} <= kinds
    for part in ("FYFinancialStatements_Consolidated_JP", "1QFinancialStatements_Consolidated_IFRS"):
        assert part in kinds
    assert any("NonConsolidated" in kind for kind in kinds)
    assert (documents["RetroRst"] == "true").any()
    assert documents.group_by("DiscDate", "Code").len()["len"].max() > 1


def test_a_restated_filing_repeats_its_period_with_other_figures(documents: pl.DataFrame) -> None:
    restated = documents.filter(pl.col("RetroRst") == "true")
    pair = restated.join(results(documents), on=["Code", "CurPerEn"], suffix="_first")
    assert pair.height == restated.height
    assert (pair["DiscDate"] > pair["DiscDate_first"]).all()
    assert (pair["Sales"] + pair["NCSales"] != pair["Sales_first"] + pair["NCSales_first"]).all()


def test_revisions_carry_forecasts_only_and_flags_belong_to_results(documents: pl.DataFrame) -> None:
    earnings = documents.filter(pl.col("DocType") == "EarnForecastRevision")
    assert (earnings["NP"] == "").all()
    assert (earnings["CurPerType"] == "FY").all()
    assert ((earnings["FNP"] != "") | (earnings["FNCNP"] != "")).all()
    dividends = documents.filter(pl.col("DocType") == "DividendForecastRevision")
    assert (dividends["FDivAnn"] != "").all()
    assert (dividends["FNP"] == "").all()
    for flag in FLAGS:
        assert set(results(documents)[flag]) == {"false"}


def test_a_forecast_stands_until_it_is_revised(documents: pl.DataFrame) -> None:
    forecast = documents.filter((pl.col("FNP") != "") & (pl.col("CurPerType") != "FY")).sort(
        "Code", "CurFYEn", "DiscDate"
    )
    same = forecast.with_columns(pl.col("FNP").shift(1).over("Code", "CurFYEn").alias("before")).drop_nulls("before")
    share = (same["FNP"] == same["before"]).mean()
    assert 0.2 < share < 0.9


def test_some_banks_report_no_operating_profit_and_ifrs_no_ordinary_profit(
    documents: pl.DataFrame, folder: Path
) -> None:
    master = pl.read_parquet(folder / "tables" / "master.parquet").unique("Code").select("Code", "S33")
    table = results(documents).join(master, on="Code")
    banks = table.filter(pl.col("S33") == "7050")
    assert banks.height > 0
    assert (banks["OP"] == "").any()
    assert (
        (table.filter(pl.col("S33") != "7050").select((pl.col("OP") != "") | (pl.col("NCOP") != ""))).to_series().all()
    )
    assert (table.filter(pl.col("DocType").str.ends_with("IFRS"))["OdP"] == "").all()


def test_document_numbers_may_carry_an_earlier_date_than_the_disclosure(documents: pl.DataFrame) -> None:
    stamp = documents["DiscNo"].str.slice(0, 8)
    told = documents["DiscDate"].str.replace_all("-", "")
    assert documents["DiscNo"].str.len_chars().unique().to_list() == [14]
    assert (stamp <= told).all()
    assert (stamp < told).any()


def test_a_quarters_forecast_follows_the_characteristic_known_before_it(documents: pl.DataFrame, folder: Path) -> None:
    oracle = pl.read_parquet(folder / "oracle" / "oracle.parquet", columns=["date", "code", "part_linear"])
    revised = documents.filter(pl.col("DocType") == "EarnForecastRevision").select(
        pl.col("DiscDate").str.to_date(),
        "Code",
        "CurFYEn",
        pl.coalesce(number("FNP"), number("FNCNP")).alias("forecast"),
    )
    joined = revised.sort("DiscDate").join_asof(
        oracle.sort("date"), left_on="DiscDate", right_on="date", by_left="Code", by_right="code",
        strategy="backward", allow_exact_matches=False, check_sortedness=False,
    ).sort("Code", "CurFYEn", "DiscDate")  # fmt: skip
    change = joined.with_columns(
        (pl.col("forecast") - pl.col("forecast").shift(1).over("Code", "CurFYEn")).sign().alias("up"),
        (pl.col("part_linear") - pl.col("part_linear").shift(1).over("Code", "CurFYEn")).alias("better"),
    ).drop_nulls(["up", "better"])
    assert change.height > 50
    assert change.select(pl.corr("up", "better")).item() > 0.4
