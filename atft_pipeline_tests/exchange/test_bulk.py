"""Bulk files against the JSON pages of the same exchange: content, list, addresses, plans and rates."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest
import requests
from starlette.applications import Starlette

from atft_pipeline.exchange.bulk_files import csv_gz, listed
from atft_pipeline.exchange.pagination import Page
from atft_pipeline.exchange.plans import PLANS
from atft_pipeline.exchange.process import ensure_market
from atft_pipeline.exchange.revisions import parse_revision
from atft_pipeline.exchange.server import create_app
from atft_pipeline.exchange.tables import Query
from atft_pipeline.settings import MarketSize
from atft_pipeline_tests.exchange import wire

BARS = "/equities/bars/daily"


class Http:
    """Requests to one running exchange; paths are from its root."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._session = requests.Session()
        self._session.trust_env = False

    def get(self, path: str, params: dict[str, str] | None = None, key: str | None = wire.KEY) -> requests.Response:
        address = path if path.startswith("http") else self.root + path
        headers = {} if key is None else {"x-api-key": key}
        return self._session.get(address, params=params, headers=headers, timeout=30)


@contextmanager
def opened(app: Starlette) -> Iterator[Http]:
    with wire.serving(app) as base_url:
        yield Http(base_url.removesuffix("/v2"))


class Seconds:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The market's end is 28 June 2024: May is a month file, June in day files."""
    folder = tmp_path_factory.mktemp("bulk") / "market"
    ensure_market(MarketSize(stocks=30, start=date(2024, 3, 1), end=date(2024, 6, 28), seed=3, plant="null"), folder)
    return folder


@pytest.fixture(scope="module")
def app(folder: Path) -> Starlette:
    return create_app(folder, plan="premium", api_keys={wire.KEY}, requests_per_minute=10_000)


@pytest.fixture(scope="module")
def client(app: Starlette) -> Iterator[Http]:
    with opened(app) as client:
        yield client


def asked(client: Http, path: str, **params: str) -> dict[str, object]:
    reply = client.get(f"/v2{path}", params=params)
    assert reply.status_code == 200, reply.text
    return json.loads(reply.content)


def files(client: Http, **params: str) -> list[dict[str, object]]:
    return asked(client, "/bulk/list", **params)["data"]  # type: ignore[return-value]


def download(client: Http, key: str) -> bytes:
    address = str(asked(client, "/bulk/get", key=key)["url"])
    reply = client.get(address, key=None)
    assert reply.status_code == 200 and reply.headers["content-type"] == "application/octet-stream"
    assert "content-encoding" not in reply.headers
    return reply.content


def rows(content: bytes) -> pl.DataFrame:
    return pl.read_csv(io.BytesIO(gzip.decompress(content)), infer_schema=False)


def refused(app: Starlette, path: str, **params: str) -> tuple[int, str]:
    with opened(app) as client:
        reply = client.get(f"/v2{path}", params=params)
    return reply.status_code, json.loads(reply.content).get("message", "")


def as_text(value: object) -> str:
    """A JSON value as a CSV field holds it."""
    if isinstance(value, dict):
        return json.dumps(value)
    return "" if value is None else str(value)


@pytest.mark.parametrize("table", sorted(PLANS["premium"].tables))
def test_files_hold_what_the_pages_show(client: Http, app: Starlette, table: str) -> None:
    exchange = app.state.exchange
    endpoint = exchange.tables[table].endpoint
    entries = files(client, endpoint=endpoint.path)
    parts = [rows(download(client, str(entry["Key"]))) for entry in entries[:1] + entries[-1:]]
    for entry, part in zip(entries[:1] + entries[-1:], parts, strict=True):
        days = part[endpoint.date_column]
        query = Query(first=date.fromisoformat(str(days.min())), last=date.fromisoformat(str(days.max())))
        served = exchange._body(exchange.tables[table], query, {}, Page(), ())
        shown = []
        page: dict[str, object] = json.loads(served)
        shown += page["data"]  # type: ignore[operator]
        fields = list(shown[0])
        if "FS" in fields:  # JSON text in the file, an object on the page
            for row in shown:
                row["FS"] = json.dumps(row["FS"], ensure_ascii=False)
            part = part.with_columns(
                pl.Series("FS", [json.dumps(json.loads(text), ensure_ascii=False) for text in part["FS"]])
            )
        assert part.columns == fields
        assert sorted(part.fill_null("").rows()) == sorted(tuple(map(as_text, row.values())) for row in shown), entry
    assert all(entry["Size"] == len(download(client, str(entry["Key"]))) for entry in entries[:1])


@pytest.fixture(autouse=True)
def one_page(app: Starlette) -> None:
    app.state.exchange.page_rows = 1_000_000


def test_past_months_are_one_file_and_the_running_month_one_a_day(client: Http) -> None:
    entries = files(client, endpoint=BARS)
    keys = [str(entry["Key"]) for entry in entries]
    assert keys[:3] == [
        f"equities/bars/daily/historical/2024/equities_bars_daily_2024{month}.csv.gz" for month in ("03", "04", "05")
    ]
    assert keys[3] == "equities/bars/daily/live/equities_bars_daily_20240603.csv.gz" and len(keys) == 3 + 20
    stamps = [datetime.fromisoformat(str(entry["LastModified"])) for entry in entries]
    assert all(str(stamp.tzinfo) == "UTC" for stamp in stamps) and sorted(stamps[3:]) == stamps[3:]
    assert [entry["Key"] for entry in files(client, endpoint="/markets/calendar")] == [
        "markets/calendar/markets_calendar.csv.gz"
    ]


def test_early_in_a_month_the_days_of_the_month_before_are_still_apart(app: Starlette, client: Http) -> None:
    app.state.exchange.clock.set(datetime(2024, 6, 4, 23))
    try:
        keys = [str(entry["Key"]) for entry in files(client, endpoint=BARS)]
        assert "equities/bars/daily/live/equities_bars_daily_20240531.csv.gz" in keys
        assert not any("202405.csv.gz" in key for key in keys) and not any("20240605" in key for key in keys)
        app.state.exchange.clock.set(datetime(2024, 6, 6, 23))
        assert any("202405.csv.gz" in str(entry["Key"]) for entry in files(client, endpoint=BARS))
    finally:
        app.state.exchange.clock.set(None)


def test_a_date_lists_the_files_of_every_endpoint_but_the_calendar(client: Http) -> None:
    keys = [str(entry["Key"]) for entry in files(client, date="2024-05")]
    assert any(key.startswith("markets/breakdown/") for key in keys) and not any("calendar" in key for key in keys)
    assert all("202405" in key for key in keys)
    day = [str(entry["Key"]) for entry in files(client, date="20240605")]
    assert "indices/bars/daily/topix/live/indices_bars_daily_topix_20240605.csv.gz" in day
    between = files(client, endpoint=BARS, **{"from": "2024-04-10", "to": "2024-05"})
    assert [str(entry["Key"])[-13:-7] for entry in between] == ["202404", "202405"]


@pytest.mark.parametrize(
    ("path", "params", "status", "words"),
    [
        ("/bulk/list", {}, 400, "Exactly one"),
        ("/bulk/list", {"endpoint": BARS, "date": "2024-05"}, 400, "Exactly one"),
        ("/bulk/list", {"endpoint": "/no/such"}, 400, "'endpoint' is invalid"),
        ("/bulk/list", {"date": "20240230"}, 400, "existing date"),
        ("/bulk/list", {"endpoint": BARS, "from": "2024-05", "to": "2024-04"}, 400, "later than"),
        ("/bulk/get", {}, 400, "Exactly one"),
        ("/bulk/get", {"key": "equities/bars/daily/historical/2020/equities_bars_daily_202001.csv.gz"}, 400, "'key'"),
        ("/bulk/get", {"endpoint": BARS}, 400, "needs 'date'"),
        ("/bulk/get", {"endpoint": BARS, "date": "2020-01"}, 400, "does not exist"),
    ],
)
def test_bad_bulk_requests_are_400(app: Starlette, path: str, params: dict[str, str], status: int, words: str) -> None:
    found, message = refused(app, path, **params)
    assert found == status and words in message


def test_a_file_can_be_asked_for_by_endpoint_and_date(client: Http) -> None:
    address = str(asked(client, "/bulk/get", endpoint=BARS, date="2024-04")["url"])
    assert "/equities_bars_daily_202404.csv.gz?" in address and address.startswith(f"{client.root}/_bulk/")


def test_free_has_the_calendar_only_and_other_plans_their_own_columns(folder: Path) -> None:
    free = create_app(folder, plan="free", api_keys={wire.KEY}, requests_per_minute=100)
    with opened(free) as client:
        (entry,) = files(client, endpoint="/markets/calendar")
        assert rows(download(client, str(entry["Key"])))["HolDiv"].is_in(["0", "1"]).all()
    assert refused(free, "/bulk/list", endpoint=BARS)[0] == 403
    assert refused(free, "/bulk/list", date="2024-03")[0] == 403
    light = create_app(folder, plan="light", api_keys={wire.KEY}, requests_per_minute=100)
    assert refused(light, "/bulk/list", endpoint="/markets/breakdown")[0] == 403
    key = "markets/breakdown/historical/2024/markets_breakdown_202405.csv.gz"
    assert refused(light, "/bulk/get", key=key)[0] == 403
    assert refused(light, "/bulk/list", endpoint=BARS, **{"from": "2010-01"}) == (
        400,
        "Your subscription covers the following dates: 2019-06-28 ~ . "
        "If you want more data, please check other plans:https://jpx-jquants.com/#dataset",
    )
    with opened(light) as client:
        assert "MO" not in rows(download(client, str(files(client, endpoint=BARS)[0]["Key"]))).columns


def test_an_address_is_for_one_file_and_five_minutes(folder: Path) -> None:
    seconds = Seconds()
    app = create_app(folder, plan="light", api_keys={wire.KEY}, clock=seconds)
    with opened(app) as client:
        keys = [str(entry["Key"]) for entry in files(client, endpoint=BARS)]
        address = str(asked(client, "/bulk/get", key=keys[0])["url"])
        seconds.now = 299.0
        assert client.get(address).status_code == 200
        for wrong in (address.replace("_202403", "_202404"), address[:-1], address.replace("expires=3", "expires=9")):
            assert client.get(wrong).status_code == 403
        seconds.now = 301.0
        late = client.get(address)
        assert late.status_code == 403 and late.headers["content-type"].startswith("application/xml")
        assert "expired" in late.text
        app.state.exchange.bulk.lifetime = 1.0
        address = str(asked(client, "/bulk/get", key=keys[0])["url"])
        seconds.now = 303.0
        assert client.get(address).status_code == 403


def test_lists_and_addresses_count_against_the_limit_and_files_do_not(folder: Path) -> None:
    app = create_app(folder, plan="light", api_keys={wire.KEY}, requests_per_minute=2, clock=Seconds())
    with opened(app) as client:
        key = str(files(client, endpoint=BARS)[0]["Key"])
        address = str(asked(client, "/bulk/get", key=key)["url"])
        assert [client.get(address).status_code for _ in range(5)] == [200] * 5
        assert client.get("/v2/bulk/list", params={"endpoint": BARS}).status_code == 429
        assert client.get("/v2/bulk/list", key="wrong").status_code == 403
    assert [(record.table, record.status) for record in app.state.exchange.requests] == [
        ("bulk", 200), ("bulk", 200), ("bulk", 429), ("bulk", 403),
    ]  # fmt: skip


def test_a_revision_changes_the_file_and_its_age_and_no_other(folder: Path) -> None:
    plain = create_app(folder, plan="light", api_keys={wire.KEY}, requests_per_minute=100)
    with opened(plain) as client:
        before = {str(entry["Key"]): entry for entry in files(client, endpoint=BARS)}
        key = next(key for key in before if "202404" in key)
        old = download(client, key)
    row = rows(old).filter(pl.col("C").is_not_null()).row(0, named=True)
    revision = parse_revision(
        f"correct:bars_daily:since=2024-06-20T12:00:00:date={row['Date']}:code={row['Code']}:column=Va:factor=2"
    )
    revised = create_app(folder, plan="light", api_keys={wire.KEY}, requests_per_minute=100, revisions=[revision])
    with opened(revised) as client:
        after = {str(entry["Key"]): entry for entry in files(client, endpoint=BARS)}
        new = download(client, key)
    assert {name for name in before if before[name] != after[name]} == {key}
    assert str(after[key]["LastModified"]) > str(before[key]["LastModified"])
    changed = rows(new).filter((pl.col("Code") == row["Code"]) & (pl.col("Date") == row["Date"]))
    assert float(changed["Va"][0]) == 2 * float(row["Va"])


def test_final_files_are_kept_beside_the_market_and_the_same_anew(folder: Path, client: Http) -> None:
    key = "markets/short-ratio/historical/2024/markets_short-ratio_202405.csv.gz"
    first = download(client, key)
    kept = folder / "bulk" / "premium" / key
    assert kept.read_bytes() == first and first[4:8] == bytes(4)
    entry = next(entry for entry in files(client, endpoint="/markets/short-ratio") if entry["Key"] == key)
    kept.unlink()
    assert download(client, key) == first and kept.read_bytes() == first
    again = next(entry for entry in files(client, endpoint="/markets/short-ratio") if entry["Key"] == key)
    assert again == entry
    assert not list((folder / "bulk").rglob("*live*"))


def test_another_content_is_another_age_and_codes_stay_as_they_are() -> None:
    frame = pl.DataFrame({"Code": ["0050", "002A", "13010"], "C": [1.0, None, 2.5], "Note": ["", "a,b", None]})
    content = csv_gz(frame)
    assert gzip.decompress(content).decode() == 'Code,C,Note\n0050,1.0,\n002A,,"a,b"\n13010,2.5,\n'
    day = date(2024, 5, 31)
    assert listed("k", content, day) == listed("k", csv_gz(frame), day)
    assert listed("k", content, day).modified != listed("k", csv_gz(frame.reverse()), day).modified
    assert listed("k", content, day, datetime(2024, 7, 1, 9)).row()["LastModified"] > "2024-07-01T00:00:00"  # type: ignore[operator]


def test_the_official_client_lists_and_downloads(folder: Path, tmp_path: Path) -> None:
    app = create_app(folder, plan="light", api_keys={wire.KEY}, requests_per_minute=100)
    with wire.serving(app) as base_url:
        client = wire.official_client(base_url)
        table = client.get_bulk_list(endpoint=BARS)
        target = tmp_path / "file.csv.gz"
        client.download_bulk(table["Key"][0], str(target))
        assert target.stat().st_size == table["Size"][0]
        assert rows(target.read_bytes())["Code"].str.len_chars().unique().to_list() == [5]
        url = client.get_bulk(key=table["Key"][0])
        assert requests.get(url, timeout=10).status_code == 200
