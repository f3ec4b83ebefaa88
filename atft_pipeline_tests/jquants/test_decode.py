"""Decoding: every spelling of a value becomes the declared type or null, and what cannot be decoded is an error."""

from __future__ import annotations

from datetime import date

import pandas as pd
import polars as pl
import pytest

from atft_pipeline.jquants.decode import decode
from atft_pipeline.jquants.errors import SchemaError
from atft_pipeline.jquants.tables import BARS_DAILY, FIN_SUMMARY, MASTER, TABLES, TOPIX
from atft_pipeline.jquants.tables_trading import MARGIN_ALERT
from atft_pipeline_tests.jquants.scripted import rows_of


def _bars(**changes: list[object]) -> pd.DataFrame:
    frame = pd.DataFrame(rows_of("/equities/bars/daily", {"date": "2024-05-14"})[:4])
    return frame.assign(**{name: pd.Series(values, dtype=object) for name, values in changes.items()})


def test_numbers_text_and_every_kind_of_missing_become_float_or_null() -> None:
    frame = decode(BARS_DAILY, _bars(O=[1, "2.5", "", "-"], H=["*", None, float("nan"), " 7 "]), "date=2024-05-14")
    assert frame["O"].to_list() == [1.0, 2.5, None, None]
    assert frame["H"].to_list() == [None, None, None, 7.0]


def test_an_all_null_page_keeps_its_types() -> None:
    frame = decode(BARS_DAILY, _bars(C=[None] * 4, ExRT=[None] * 4), "date=2020-10-01")
    assert frame.schema["C"] == pl.Float64
    assert frame.schema["ExRT"] == pl.String
    assert frame["C"].null_count() == 4


def test_flags_that_arrive_as_numbers_or_booleans_are_text() -> None:
    frame = decode(BARS_DAILY, _bars(UL=[0, 1, 1.0, None], LL=[True, False, "0", "1"]), "date=2024-05-14")
    assert frame["UL"].to_list() == ["0", "1", "1", None]
    assert frame["LL"].to_list() == ["true", "false", "0", "1"]


def test_dates_come_out_as_dates_from_timestamps_and_from_text() -> None:
    frame = pd.DataFrame(rows_of("/fins/summary", {"date": "2024-05-11"}))
    frame["CurPerSt"] = pd.to_datetime(pd.Series(["2023-04-01", None]))
    frame["CurFYSt"] = ["20230401", "2023-04-01 00:00:00"]
    decoded = decode(FIN_SUMMARY, frame, "date=2024-05-11")
    assert decoded["CurPerSt"].to_list() == [date(2023, 4, 1), None]
    assert decoded["CurFYSt"].to_list() == [date(2023, 4, 1)] * 2
    assert decoded["NP"].to_list() == [-1500.0] * 2
    assert decoded["Sales"].to_list() == [None, None]
    assert decoded["MatChgSub"].to_list() == [None, None]  # CSV cannot tell "" from null


def test_why_a_number_is_absent_is_kept_where_it_has_a_meaning() -> None:
    row: dict[str, object] = dict.fromkeys(MARGIN_ALERT.schema, 5)
    row |= {"PubDate": "2024-05-14", "AppDate": "2024-05-13", "Code": "13010", "TSEMrgnRegCls": "002"}
    row["PubReason"] = {"Restricted": "0", "DailyPublication": "1"}
    rows = [
        row | {"ShrtOutChg": chg, "LongOutRatio": ratio} for chg, ratio in (("-", "*"), ("1200", None), (-3.5, "-"))
    ]
    frame = decode(MARGIN_ALERT, pd.DataFrame(rows), "date=2024-05-14")
    assert frame["ShrtOutChg"].to_list() == [None, 1200.0, -3.5]
    assert frame["ShrtOutChgMark"].to_list() == ["-", None, None]
    assert frame["LongOutRatio"].to_list() == [None] * 3
    assert frame["LongOutRatioMark"].to_list() == ["*", None, "-"]
    assert frame["PubReason"][0] == '{"DailyPublication": "1", "Restricted": "0"}'
    assert frame["PubDate"].to_list() == [date(2024, 5, 14)] * 3
    assert set(frame.columns) == {*MARGIN_ALERT.schema, *MARGIN_ALERT.optional}


def test_a_missing_column_is_named_with_table_date_and_remedy() -> None:
    with pytest.raises(SchemaError, match=r"/bars/daily date=2024-05-14: column Va, AdjC missing .have 16 of 18"):
        decode(BARS_DAILY, _bars().drop(columns=["Va", "AdjC"]), "date=2024-05-14")


@pytest.mark.parametrize("value", ["n/a", "1,000", "inf", "NaN"])
def test_a_value_that_is_no_number_is_an_error_with_an_example(value: str) -> None:
    with pytest.raises(SchemaError, match=f"column O: '{value}' is not a number"):
        decode(BARS_DAILY, _bars(O=[1, value, 3, 4]), "date=2024-05-14")


def test_an_undeclared_column_is_kept_as_text() -> None:
    frame = decode(BARS_DAILY, _bars(New=[1, 2.5, None, {"a": 1}]), "date=2024-05-14")
    assert frame["New"].to_list() == ["1", "2.5", None, '{"a": 1}']


def test_premium_columns_are_typed_when_delivered() -> None:
    frame = decode(BARS_DAILY, _bars(MO=[1, 2, 3, None], AUL=["0", "1", "0", None]), "date=2024-05-14")
    assert frame.schema["MO"] == pl.Float64
    assert frame.schema["AUL"] == pl.String


def test_a_null_key_is_an_error() -> None:
    with pytest.raises(SchemaError, match="column Code is null"):
        decode(BARS_DAILY, _bars(Code=["13010", None, "13020", "13030"]), "date=2024-05-14")


def test_a_code_that_lost_its_leading_zeros_is_an_error() -> None:
    frame = pd.DataFrame(rows_of("/equities/master", {"date": "2024-05-14"}))
    frame["S33"] = 50
    with pytest.raises(SchemaError, match=r"column S33: '50' does not have 4 characters"):
        decode(MASTER, frame, "date=2024-05-14")


def test_a_whole_number_code_is_text() -> None:
    frame = decode(BARS_DAILY, _bars(Code=[13010, 13020.0, "130A0", "13050"]), "date=2024-05-14")
    assert frame["Code"].to_list() == ["13010", "13020", "130A0", "13050"]


def test_no_rows_give_the_declared_schema() -> None:
    for table in TABLES.values():
        assert dict(decode(table, pd.DataFrame(), "date=2024-05-12").schema) == dict(table.schema)


def test_declared_column_counts_are_those_of_the_specification() -> None:
    counts = {name: len(table.schema) for name, table in TABLES.items()}
    assert counts == {
        "calendar": 2, "master": 14, "bars_daily": 18, "topix": 5, "indices": 6, "fin_summary": 111,
        "investor_types": 56, "margin_interest": 16, "margin_alert": 20, "short_ratio": 5, "short_sale_report": 14,
        "breakdown": 16, "earnings_date": 7, "options_225": 30, "fin_details": 6, "dividend": 23, "futures": 29,
    }  # fmt: skip
    assert len(BARS_DAILY.optional) == 26
    assert list(TOPIX.schema) == ["Date", "O", "H", "L", "C"]
