"""Hand-made rows of the event and derivative tables, for the market of `wire.py`."""

from __future__ import annotations

import json

import polars as pl
from jquantsapi import constants

from atft_pipeline.exchange.options import COLUMNS as OPTION_COLUMNS

FIRST_NOTICE, CORRECTION = "20240510000001", "20240513000004"


def event_tables(days: list[str]) -> dict[str, pl.DataFrame]:
    """Schedules with a change and an open date; two option series and two futures a day; details; notices."""
    return {
        "earnings_date": _schedules(),
        "options_225": _options(days),
        "fin_details": _details(),
        "dividend": _notices(),
        "futures": _futures(days),
    }


def _schedules() -> pl.DataFrame:
    names = ("PubDate", "Code", "SchDate", "FQName")
    rows = [
        ("2024-04-26", "13010", "2024-05-13", "FY"),
        ("2024-05-07", "13010", "2024-05-10", "FY"),
        ("2024-05-07", "72030", "", "FY"),
        ("2024-05-09", "72030", "2024-05-10", "FY"),
    ]
    more = {"FYE": "0331", "CoName": "極洋", "CoNameEn": "KYOKUYO"}
    frame = pl.DataFrame([dict(zip(names, row, strict=True)) | more for row in rows])
    return frame.select(constants.FIN_EARNINGS_DATE_COLUMNS_V2)


def _options(days: list[str]) -> pl.DataFrame:
    texts = {"EmMrgnTrgDiv": "002", "CM": "2024-07", "LTD": "2024-07-11", "SQD": "2024-07-12"}
    texts |= {"EO": "", "EH": "", "EL": "", "EC": ""}
    row = dict.fromkeys(OPTION_COLUMNS, 0.0) | texts | {"Strike": 38_000.0, "UnderPx": 38_500.25, "IV": 18.25}
    put, call = {"Code": "134071A18", "PCDiv": "1"}, {"Code": "144071A18", "PCDiv": "2"}
    return pl.DataFrame([row | series | {"Date": day} for day in days for series in (put, call)])


def _futures(days: list[str]) -> pl.DataFrame:
    texts = {"EmMrgnTrgDiv": "002", "CM": "2024-09", "LTD": "2024-09-12", "SQD": "2024-09-13", "CCMFlag": "1"}
    texts |= dict.fromkeys(("MO", "MH", "ML", "MC"), "") | dict.fromkeys(("EO", "EH", "EL", "EC"), "2745.5")
    row = dict.fromkeys(constants.DERIVATIVES_FUTURES_COLUMNS_V2, 2750.0) | texts
    topix = {"Code": "164090005", "ProdCat": "TOPIXF"}
    later = {"Code": "164120018", "ProdCat": "NK225F", "CCMFlag": "0"}
    return pl.DataFrame([row | contract | {"Date": day} for day in days for contract in (topix, later)])


def _details() -> pl.DataFrame:
    sheet = {"Assets": "1200000000", "Net sales": "900000000.0", "Document type, DEI": "第３号参考様式"}
    names = ("DiscDate", "DiscTime", "Code", "DiscNo", "FS")
    rows = [
        ("2024-05-10", "15:00:00", "13010", "20240510500001", json.dumps(sheet, ensure_ascii=False)),
        ("2024-05-10", "15:30:00", "72030", "20240510500003", json.dumps({"Assets (IFRS)": "5"})),
    ]
    more = {"DocType": "FYFinancialStatements_Consolidated_JP"}
    frame = pl.DataFrame([dict(zip(names, row, strict=True)) | more for row in rows])
    return frame.select(constants.FINS_FS_DETAILS_COLUMNS_V2)


def _notices() -> pl.DataFrame:
    blank = dict.fromkeys(constants.FINS_DIVIDEND_COLUMNS_V2, "") | {"Code": "13010", "RecDate": "2024-09-30"}
    names = ("PubDate", "PubTime", "RefNo", "StatCode", "CARefNo", "DivRate")
    rows = [
        ("2024-05-10", "15:00", FIRST_NOTICE, "1", FIRST_NOTICE, "-"),
        ("2024-05-13", "16:00", CORRECTION, "2", FIRST_NOTICE, "50.0"),
    ]
    return pl.DataFrame([blank | dict(zip(names, row, strict=True)) for row in rows])
