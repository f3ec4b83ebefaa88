"""A tiny hand-made market and a server in a thread: what the tests of the wire stand on, here and in `jquants/`."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

import polars as pl
from jquantsapi import ClientV2, constants
from starlette.applications import Starlette

from atft_pipeline.exchange.server import bind, make_server
from atft_pipeline_tests.exchange.wire_events import event_tables

KEY = "test-key-5f1c"
START = date(2024, 4, 25)
END = date(2024, 6, 28)
HOLIDAYS = {date(2024, 4, 29), date(2024, 5, 3), date(2024, 5, 6)}
CODES = ["13010", "130A0", "25930", "25935", "72030"]
"""25935 is the preferred share of 25930."""
INDEX_CODES = ["0000", "002A", "0500"]
BAR_NUMBERS = ["O", "H", "L", "C", "Vo", "Va", "AdjO", "AdjH", "AdjL", "AdjC", "AdjVo", "MktCap"]
SESSION_COLUMNS = ["MO", "MAdjC", "AO", "AAdjVo"]


def all_days(first: date, last: date) -> list[date]:
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def trading_days() -> list[date]:
    return [day for day in all_days(START, END) if day.weekday() < 5 and day not in HOLIDAYS]


def write_market(folder: Path, *, session_columns: bool = False) -> Path:
    """Write every served table in the API's own column names and types, and return `folder`."""
    days = [day.isoformat() for day in trading_days()]
    tables = {
        "calendar": _calendar(),
        "master": _master(days),
        "bars_daily": _bars(days, session_columns),
        "topix": pl.DataFrame({"Date": days, **{c: [2700.5] * len(days) for c in "OHLC"}}),
        "indices": pl.DataFrame(
            [{"Date": d, "Code": c, "O": None, "H": None, "L": None, "C": 100.25} for d in days for c in INDEX_CODES],
            schema_overrides=dict.fromkeys("OHLC", pl.Float64),
        ),
        "fin_summary": _statements(),
        "investor_types": _investor_types(),
        **_trading_tables(days),
        **event_tables(days),
    }
    (folder / "tables").mkdir(parents=True)
    for name, frame in tables.items():
        frame.write_parquet(folder / "tables" / f"{name}.parquet")
    about = {"version": 1, "stocks": len(CODES), "start": START, "end": END, "seed": 1, "plant": "hand"}
    about["tables"] = {name: {"rows": frame.height, "sha256": ""} for name, frame in tables.items()}
    (folder / "market.json").write_text(json.dumps(about, default=str))
    return folder


def _calendar() -> pl.DataFrame:
    days = all_days(START, date(2024, 12, 31))
    closed = [day.weekday() >= 5 or day in HOLIDAYS for day in days]
    return pl.DataFrame({"Date": [d.isoformat() for d in days], "HolDiv": ["0" if c else "1" for c in closed]})


def _master(days: list[str]) -> pl.DataFrame:
    row = dict.fromkeys(constants.EQ_MASTER_COLUMNS_V2, "1") | {"S33": "0050", "Mkt": "0111", "CoName": "極洋"}
    return pl.DataFrame([row | {"Date": day, "Code": code} for day in days for code in CODES])


def _bars(days: list[str], session_columns: bool) -> pl.DataFrame:
    rows = []
    for at, day in enumerate(days):
        for n, code in enumerate(CODES):
            number = None if code == "25935" else 1000.0 + 10 * n + at
            row = {"Date": day, "Code": code, "UL": "0", "LL": "0", "AdjFactor": 1.0, "ExRT": None}
            rows.append(row | dict.fromkeys(BAR_NUMBERS, number) | (dict.fromkeys(SESSION_COLUMNS, number)))
    frame = pl.DataFrame(rows, schema_overrides={"ExRT": pl.String, **dict.fromkeys(BAR_NUMBERS, pl.Float64)})
    return frame if session_columns else frame.drop(SESSION_COLUMNS)


def _statements() -> pl.DataFrame:
    empty = dict.fromkeys(constants.FIN_SUMMARY_COLUMNS_V2, "")
    filings = [
        ("2024-05-10", "15:00:00", "13010", "20240510500001", "1200"),
        ("2024-05-10", "12:00:00", "72030", "20240510500002", "45095325"),
        ("2024-05-10", "15:30:00", "13010", "20240510500003", ""),
        ("2024-05-11", "09:00:00", "25930", "20240509500009", "-5"),
    ]
    names = ("DiscDate", "DiscTime", "Code", "DiscNo", "Sales")
    return pl.DataFrame([empty | dict(zip(names, filing, strict=True)) for filing in filings])


def _investor_types() -> pl.DataFrame:
    row = dict.fromkeys(constants.EQ_INVESTOR_TYPES_COLUMNS_V2, 1000.0)
    weeks = [("2024-05-09", "2024-04-30", "2024-05-02"), ("2024-05-16", "2024-05-07", "2024-05-10")]
    return pl.DataFrame(
        [
            row | {"PubDate": published, "StDate": start, "EnDate": end, "Section": section}
            for published, start, end in weeks
            for section in ("TSEGrowth", "TSEPrime")
        ]
    )


def _trading_tables(days: list[str]) -> dict[str, pl.DataFrame]:
    """Weekly balances, one of them with a publication date; listed names; short sales; reports; the breakdown."""
    stock = [{"Date": day, "Code": code} for day in days for code in CODES[:2]]
    margin = dict.fromkeys(constants.MKT_MARGIN_INTEREST_COLUMNS_V2, 700.0) | {"IssType": "2", "PubDate": None}
    alert = dict.fromkeys(constants.DAILY_MARGIN_INTEREST_COLUMNS_V2, "12.5") | {"ShrtOutChg": "-", "LongOutRatio": "*"}
    alert["PubReason"] = {"Restricted": "0", "DailyPublication": "1"}
    fridays = [row for row in stock if date.fromisoformat(row["Date"]).weekday() == 4]
    names = ("DiscDate", "CalcDate", "Code", "SSName")
    reports = [
        (days[4], days[2], "13010", "House A"),
        (days[5], days[2], "13010", "House B"),
        (days[5], days[3], "72030", "House A"),
    ]
    more = {"SSAddr": "", "DICName": "", "DICAddr": "", "FundName": "", "ShrtPosToSO": 0.0061, "ShrtPosShares": 61_000}
    more |= {"ShrtPosUnits": 610, "PrevRptDate": "", "PrevRptRatio": None, "Notes": ""}
    breakdown = dict.fromkeys(constants.MKT_BREAKDOWN_COLUMNS_V2, 100.0)
    yen = {"SellExShortVa": 600.0, "ShrtWithResVa": 300.0, "ShrtNoResVa": 100.0}
    return {
        "margin_interest": pl.DataFrame(
            [margin | row | ({"PubDate": days[-1]} if row["Date"] == fridays[-1]["Date"] else {}) for row in fridays],
            schema_overrides={"PubDate": pl.String},
        ),
        "margin_alert": pl.DataFrame(
            [alert | {"PubDate": after, "AppDate": day, "Code": CODES[0]} for day, after in pairwise(days)]
        ),
        "short_ratio": pl.DataFrame(
            [{"Date": day, "S33": sector} | yen for day in days for sector in ("0050", "9999")]
        ),
        "short_sale_report": pl.DataFrame(
            [dict(zip(names, report, strict=True)) | more for report in reports],
            schema_overrides={"PrevRptRatio": pl.Float64},
        ),
        "breakdown": pl.DataFrame([breakdown | row for row in stock]),
    }


@contextmanager
def serving(app: Starlette) -> Iterator[str]:
    """Run `app` in a thread; yields the base URL."""
    listener = bind()
    server = make_server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v2"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


def official_client(base_url: str, key: str = KEY) -> ClientV2:
    """The unmodified client, pointed at `base_url`."""
    client = ClientV2(api_key=key)
    client.JQUANTS_API_BASE = base_url
    client._request_session().trust_env = False  # a proxy in the environment must not swallow loopback
    return client
