"""A small scripted stand-in for the API: a few stocks, three months, and whatever misbehaviour a test plants."""

from __future__ import annotations

import csv
import gzip
import io
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlparse

from jquantsapi import constants

from atft_pipeline.exchange.options import COLUMNS as OPTION_COLUMNS
from atft_pipeline.panel.ids import SECTOR33_CODES

API_KEY = "secret-key-4f1c9e"
CODES = [f"{number}0" for number in range(1301, 1341)]
FIRST, LAST = date(2024, 4, 1), date(2024, 7, 31)

Row = dict[str, Any]


@dataclass
class Reply:
    """What the server sends instead of the honest answer. `body` None: the honest body under this status."""

    status: int = 200
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = 0
    """Bytes missing at the end, against Content-Length."""


Script = Callable[[str, dict[str, str], int], Reply | None]
"""(path, parameters, number of this request to the same path and parameters, from 1) -> a reply, or None: honest."""


def message(text: str, status: int, **headers: str) -> Reply:
    return Reply(status, json.dumps({"message": text}).encode(), headers)


def is_business(day: date) -> bool:
    return day.weekday() < 5


def rows_of(path: str, params: dict[str, str]) -> list[Row]:
    """The honest rows of a request."""
    day = params.get("date") or params.get("disc_date")
    if day:
        first = last = date.fromisoformat(day)
    else:
        first, last = date.fromisoformat(params["from"]), date.fromisoformat(params["to"])
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    days = [day for day in days if FIRST <= day <= LAST]
    rows = [row for day in days for row in DAILY[path](day)]
    return [row for row in rows if row["S33"] == params["s33"]] if "s33" in params else rows


def _calendar(day: date) -> list[Row]:
    return [{"Date": f"{day}", "HolDiv": "1" if is_business(day) else "0"}]


def _master(day: date) -> list[Row]:
    texts = dict.fromkeys(constants.EQ_MASTER_COLUMNS_V2, "x") | {"S33": "0050", "Mkt": "0111", "ScaleCat": "-"}
    return [texts | {"Date": f"{day}", "Code": code} for code in CODES] if is_business(day) else []


def _bar(day: date, code: str) -> Row:
    price = 1000.0 + int(code) % 97 + day.toordinal() % 13
    return {
        "Date": f"{day}", "Code": code, "O": price, "H": price + 2, "L": price - 2, "C": price + 1, "UL": "0",
        "LL": "0", "Vo": 1200, "Va": price * 1200, "AdjFactor": 1.0, "AdjO": price, "AdjH": price + 2,
        "AdjL": price - 2, "AdjC": price + 1, "AdjVo": 1200, "MktCap": None, "ExRT": None,
    }  # fmt: skip


def _bars(day: date) -> list[Row]:
    return [_bar(day, code) for code in CODES] if is_business(day) else []


def _topix(day: date) -> list[Row]:
    return [{"Date": f"{day}", "O": 2700.0, "H": 2710.0, "L": 2690.5, "C": 2701.25}] if is_business(day) else []


def _indices(day: date) -> list[Row]:
    return [row | {"Code": code} for code in ("0000", "002A", "0040") for row in _topix(day)]


def _statements(day: date) -> list[Row]:
    if day.day != 11:  # 2024-05-11 is a Saturday
        return []
    texts = dict.fromkeys(constants.FIN_SUMMARY_COLUMNS_V2, "") | {"DocType": "1QFinancialStatements_Consolidated_JP"}
    known = {"DiscDate": f"{day}", "DiscTime": "15:30:00", "CurPerType": "FY", "CurPerEn": "2024-03-31", "NP": "-1500"}
    return [texts | known | {"Code": CODES[n], "DiscNo": f"2024{day:%m%d}00{n}"} for n in range(2)]


def _flows(day: date) -> list[Row]:
    if day.weekday() != 3:  # published on Thursdays
        return []
    numbers = dict.fromkeys(constants.EQ_INVESTOR_TYPES_COLUMNS_V2[4:], 1000.0)
    week = {"PubDate": f"{day}", "StDate": f"{day - timedelta(days=10)}", "EnDate": f"{day - timedelta(days=6)}"}
    return [week | {"Section": section} | numbers for section in ("TSEPrime", "TSEGrowth")]


def _margin(day: date) -> list[Row]:
    if day.weekday() != 4:
        return []
    numbers = dict.fromkeys(constants.MKT_MARGIN_INTEREST_COLUMNS_V2[4:10], 1200) | dict.fromkeys(
        constants.MKT_MARGIN_INTEREST_COLUMNS_V2[10:]
    )
    return [{"PubDate": None, "Date": f"{day}", "Code": code, "IssType": "2"} | numbers for code in CODES]


def _alerts(day: date) -> list[Row]:
    if not is_business(day):
        return []
    marks = dict.fromkeys(constants.DAILY_MARGIN_INTEREST_COLUMNS_V2, 100) | {"ShrtOutChg": "-", "LongOutRatio": "*"}
    texts = {"PubReason": {"Restricted": "0", "DailyPublication": "1"}, "TSEMrgnRegCls": "002"}
    return [marks | texts | {"PubDate": f"{day}", "AppDate": f"{day - timedelta(days=1)}", "Code": CODES[3]}]


def _short_ratio(day: date) -> list[Row]:
    yen = {"SellExShortVa": 600.0, "ShrtWithResVa": 300.0, "ShrtNoResVa": 100.0}
    sectors = [*SECTOR33_CODES, "9999"]
    return [{"Date": f"{day}", "S33": sector} | yen for sector in sectors] if is_business(day) else []


def _short_reports(day: date) -> list[Row]:
    if day.weekday() != 2:
        return []
    texts = dict.fromkeys(("SSName", "SSAddr", "DICName", "DICAddr", "FundName", "Notes", "PrevRptDate"), "")
    numbers = {"ShrtPosToSO": 0.0061, "ShrtPosShares": 61000, "ShrtPosUnits": 610, "PrevRptRatio": None}
    return [texts | numbers | {"DiscDate": f"{day}", "CalcDate": f"{day - timedelta(days=2)}", "Code": CODES[1]}]


def _breakdown(day: date) -> list[Row]:
    if not is_business(day):
        return []
    sells = dict(zip(constants.MKT_BREAKDOWN_COLUMNS_V2[2:6], (400.0, 300.0, 200.0, 100.0), strict=True))
    buys = dict(zip(constants.MKT_BREAKDOWN_COLUMNS_V2[6:9], (600.0, 300.0, 100.0), strict=True))
    yen = sells | buys
    shares = {name.replace("Va", "Vo"): value / 10 for name, value in yen.items()}
    return [{"Date": f"{day}", "Code": code} | yen | shares for code in CODES]


def _schedules(day: date) -> list[Row]:
    row = {"FQName": "FY", "FYE": "0331", "CoName": "極洋", "CoNameEn": "KYOKUYO"}
    return [row | {"PubDate": f"{day}", "SchDate": "", "Code": code} for code in CODES[: day.day % 3]]


def _options(day: date) -> list[Row]:
    if not is_business(day):
        return []
    row: Row = dict.fromkeys(OPTION_COLUMNS, 0.0)
    row |= {"CM": "2024-09", "Strike": 38000, "LTD": "2024-09-12", "SQD": "2024-09-13", "EmMrgnTrgDiv": "002"}
    row |= {"EO": "", "EH": "", "EL": "", "EC": "", "Date": f"{day}"}
    count = 3 if day.day < 10 else 40  # series are listed on the 10th and expire with the month: days differ
    ends = f"{(day.replace(day=1) + timedelta(days=31)).replace(day=1) - timedelta(days=1)}"
    last = {n: {"LTD": ends} for n in range(3, count)}
    return [row | {"Code": f"1340900{n:02d}", "PCDiv": "1"} | last.get(n, {}) for n in range(count)]


def _details(day: date) -> list[Row]:
    row = {"DiscTime": "15:00:00", "DocType": "FYFinancialStatements_Consolidated_JP", "FS": {"Assets": "12"}}
    return [row | {"DiscDate": f"{day}", "Code": CODES[1], "DiscNo": f"{day:%Y%m%d}000001"}] if day.day % 2 else []


def _dividends(day: date) -> list[Row]:
    row: Row = dict.fromkeys(constants.FINS_DIVIDEND_COLUMNS_V2, "") | {"DivRate": "-", "Code": CODES[2]}
    number = f"{day:%Y%m%d}000002"
    return [row | {"PubDate": f"{day}", "RefNo": number, "CARefNo": number}] if day.day % 2 else []


def _futures(day: date) -> list[Row]:
    row: Row = dict.fromkeys(constants.DERIVATIVES_FUTURES_COLUMNS_V2, 2750.0)
    row |= {"EmMrgnTrgDiv": "002", "CM": "2024-09", "LTD": "2024-09-12", "SQD": "", "CCMFlag": "1", "MO": "", "MH": ""}
    row |= {"ML": "", "MC": "", "Code": "164090005", "ProdCat": "TOPIXF", "Date": f"{day}"}
    return [row] if is_business(day) else []


DAILY: dict[str, Callable[[date], list[Row]]] = {
    "/markets/calendar": _calendar,
    "/equities/master": _master,
    "/equities/bars/daily": _bars,
    "/indices/bars/daily/topix": _topix,
    "/indices/bars/daily": _indices,
    "/fins/summary": _statements,
    "/equities/investor-types": _flows,
    "/markets/margin-interest": _margin,
    "/markets/margin-alert": _alerts,
    "/markets/short-ratio": _short_ratio,
    "/markets/short-sale-report": _short_reports,
    "/markets/breakdown": _breakdown,
    "/fins/earnings-date": _schedules,
    "/derivatives/bars/daily/options/225": _options,
    "/fins/details": _details,
    "/fins/dividend": _dividends,
    "/derivatives/bars/daily/futures": _futures,
}


@dataclass
class Bulk:
    """Bulk files of the honest rows: month files before the month of `today`, day files in it.

    `modified`: LastModified by key, where a test says that a file was written anew.
    """

    today: date = LAST
    modified: dict[str, str] = field(default_factory=dict)
    hidden: tuple[str, ...] = ()
    """Months ("YYYYMM") whose files are not listed."""

    def listed(self, endpoint: str, edit: Callable[[str, list[Row]], list[Row]]) -> list[Row]:
        return [
            {
                "Key": key,
                "LastModified": self.modified.get(key, f"{last + timedelta(days=1)}T01:02:03.000004+00:00"),
                "Size": len(self._file(endpoint, first, last, edit)),
            }
            for key, first, last in self._keys(endpoint)
            if f"{first:%Y%m}" not in self.hidden
        ]

    def content(self, key: str, edit: Callable[[str, list[Row]], list[Row]]) -> bytes:
        endpoint, first, last = next((e, f, t) for e in DAILY for k, f, t in self._keys(e) if k == key)
        return self._file(endpoint, first, last, edit)

    def _keys(self, endpoint: str) -> list[tuple[str, date, date]]:
        name, running = endpoint.strip("/"), self.today.replace(day=1)
        stem = name.replace("/", "_")
        months = [date(FIRST.year, number, 1) for number in range(FIRST.month, self.today.month)]
        past = [
            (f"{name}/historical/{m.year}/{stem}_{m:%Y%m}.csv.gz", m, m.replace(month=m.month + 1) - timedelta(days=1))
            for m in months
        ]
        days = [running + timedelta(days=n) for n in range((self.today - running).days + 1)]
        return past + [(f"{name}/live/{stem}_{d:%Y%m%d}.csv.gz", d, d) for d in days if DAILY[endpoint](d)]

    @staticmethod
    def _file(endpoint: str, first: date, last: date, edit: Callable[[str, list[Row]], list[Row]]) -> bytes:
        rows = edit(endpoint, rows_of(endpoint, {"from": f"{first}", "to": f"{last}"}))
        text = io.StringIO()
        if rows:
            writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            flat = ({k: json.dumps(v) if isinstance(v, dict) else v for k, v in row.items()} for row in rows)
            writer.writerows(flat)  # None and "" are both empty
        return gzip.compress(text.getvalue().encode(), mtime=0)


class ScriptedExchange:
    """Serves `rows_of` in pages of `page_rows`; `script` and `edit` plant faults, `log` holds every request."""

    def __init__(self) -> None:
        self.script: Script = lambda path, params, number: None
        self.edit: Callable[[str, list[Row]], list[Row]] = lambda path, rows: rows
        self.page_rows = 100
        self.bulk: Bulk | None = None
        """Set it to serve bulk files too; without it they are refused, as on plan Free."""
        self.log: list[tuple[str, dict[str, str]]] = []
        self.keys_seen: set[str] = set()
        self.keys_of_files: set[str] = set()
        self._lock = threading.Lock()
        exchange = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                url = urlparse(self.path)
                reply = exchange.answer(url.path.removeprefix("/v2"), dict(parse_qsl(url.query)))
                key = self.headers.get("x-api-key", "")
                (exchange.keys_of_files if "/files/" in url.path else exchange.keys_seen).add(key)
                assert reply.body is not None
                self.send_response(reply.status)
                self.send_header("Content-Length", str(len(reply.body)))
                for name, value in reply.headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(reply.body[: len(reply.body) - reply.cut])
                self.close_connection = bool(reply.cut)

            def log_message(self, *args: object) -> None:
                """Tests read `log` instead."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self._server.server_address[1]}/v2"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def forget(self) -> None:
        self.log.clear()

    def answer(self, path: str, params: dict[str, str]) -> Reply:
        with self._lock:
            self.log.append((path, params))
            number = self.log.count((path, params))
        planned = self.script(path, params, number)
        if planned is None and path.startswith(("/bulk/", "/files/")):
            planned = self._bulk(path, params)
        planned = planned or Reply()
        if planned.body is None:
            planned.body = json.dumps(self._page(path, params)).encode()
        return planned

    def _bulk(self, path: str, params: dict[str, str]) -> Reply:
        if self.bulk is None:
            return message("This API is not available on your subscription.", 403)
        if path == "/bulk/list":
            listed = self.bulk.listed(params["endpoint"], self.edit)
            return Reply(body=json.dumps({"data": listed}).encode())
        if path == "/bulk/get":
            return Reply(body=json.dumps({"url": f"{self.base_url}/files/{params['key']}"}).encode())
        return Reply(body=self.bulk.content(path.removeprefix("/files/"), self.edit))

    def _page(self, path: str, params: dict[str, str]) -> dict[str, Any]:
        rows = self.edit(path, rows_of(path, params))
        begin = int(params.get("pagination_key", "0"))
        if path == "/markets/calendar":
            return {"data": rows}
        end = begin + self.page_rows
        more = {"pagination_key": str(end)} if end < len(rows) else {}
        return {"data": rows[begin:end], **more}
