"""Faults of the bulk service: expired addresses, cut files, files written anew, and failing lists."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest
from jquantsapi import ClientV2
from requests.exceptions import ChunkedEncodingError, HTTPError, JSONDecodeError
from starlette.applications import Starlette

from atft_pipeline.exchange.faults import FaultSyntaxError, parse_fault
from atft_pipeline.exchange.revisions import parse_revision
from atft_pipeline.exchange.server import Exchange, create_app
from atft_pipeline_tests.exchange import wire

BARS = "/equities/bars/daily"
MAY = "equities/bars/daily/historical/2024/equities_bars_daily_202405.csv.gz"
APRIL = MAY.replace("202405", "202404")


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wire.write_market(tmp_path_factory.mktemp("bulk_faults") / "market")


@pytest.fixture(scope="module")
def app(market: Path) -> Starlette:
    return create_app(market, plan="standard", api_keys={wire.KEY}, requests_per_minute=100_000)


@pytest.fixture(scope="module")
def client(app: Starlette) -> Iterator[ClientV2]:
    with wire.serving(app) as url:
        yield wire.official_client(url)


def inject(exchange: Exchange, *texts: str) -> None:
    exchange.set_faults([parse_fault(text) for text in texts])


def content(client: ClientV2, key: str, folder: Path) -> pl.DataFrame:
    client.download_bulk(key, str(folder / "file.csv.gz"))
    raw = (folder / "file.csv.gz").read_bytes()
    return pl.read_csv(gzip.decompress(raw), schema_overrides={"Code": pl.String})


def listed(client: ClientV2) -> dict[str, tuple[str, int]]:
    rows = client.get_bulk_list(endpoint=BARS)
    return {row.Key: (str(row.LastModified), row.Size) for row in rows.itertuples()}


def test_an_expired_address_is_403_with_xml_and_the_next_one_is_good(
    client: ClientV2, exchange: Exchange, tmp_path: Path
) -> None:
    inject(exchange, "expired:bars_daily:date=2024-05-10:times=1")
    april = content(client, APRIL, tmp_path)
    with pytest.raises(HTTPError) as caught:
        content(client, MAY, tmp_path)
    assert caught.value.response is not None and caught.value.response.status_code == 403
    assert "has expired" in caught.value.response.text and april.height > 0
    assert content(client, MAY, tmp_path).height == 5 * 21


def test_a_cut_file_breaks_off(
    client: ClientV2, exchange: Exchange, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    inject(exchange, "cut_file:bars_daily:after=1:times=1")
    assert content(client, MAY, tmp_path).height == 5 * 21
    with pytest.raises(ChunkedEncodingError, match="IncompleteRead"):
        content(client, MAY, tmp_path)
    assert content(client, MAY, tmp_path).height == 5 * 21
    assert capfd.readouterr().err == ""


def test_a_file_written_anew_has_other_content_and_a_newer_date_under_the_same_key(
    client: ClientV2, exchange: Exchange, tmp_path: Path
) -> None:
    before, old = listed(client), content(client, MAY, tmp_path)
    inject(exchange, "rewrite:bars_daily:date=2024-05-10:code=72030:column=C:factor=1.5:after=1")
    assert listed(client) == before
    after = listed(client)
    assert {key for key in before if before[key] != after[key]} == {MAY} and after[MAY][0] > before[MAY][0]
    new = content(client, MAY, tmp_path)
    changed = new.filter(new["C"].ne_missing(old["C"]))
    assert changed["Date", "Code"].rows() == [("2024-05-10", "72030")]
    wanted = old.filter((pl.col("Date") == "2024-05-10") & (pl.col("Code") == "72030"))["C"].item() * 1.5
    assert changed["C"].item() == changed["AdjC"].item() == wanted
    page = client.get_eq_bars_daily(date_yyyymmdd="20240510").set_index("Code")
    assert page["C"]["72030"] == wanted / 1.5, "the pages stay"
    assert (tmp_path / "file.csv.gz").stat().st_size == after[MAY][1]


def test_what_is_late_or_has_other_columns_is_so_in_the_days_files_too(market: Path, tmp_path: Path) -> None:
    """Until the clock says otherwise; other days' files and past months stay as they are."""
    app = create_app(market, plan="standard", api_keys={wire.KEY}, now=datetime(2024, 5, 10, 19))
    live = "equities/bars/daily/live/equities_bars_daily_202405{:02d}.csv.gz".format
    exchange: Exchange = app.state.exchange
    inject(
        exchange, "late:bars_daily:date=2024-05-10:until=2024-05-10T22:00",
        "drop_column:bars_daily:column=C:until=2024-05-10T23:00", "extra_column:bars_daily:column=Novel",
    )  # fmt: skip
    with wire.serving(app) as url:
        client = wire.official_client(url)
        early = listed(client)
        assert live(9) in early and live(10) not in early
        with pytest.raises(HTTPError, match="does not exist"):
            content(client, live(10), tmp_path)
        columns = content(client, live(9), tmp_path).columns
        assert "C" not in columns and "Novel" in columns
        assert "C" in content(client, APRIL, tmp_path).columns
        exchange.clock.set(datetime(2024, 5, 10, 23))
        later = listed(client)
        assert content(client, live(10), tmp_path).height == 5 and later[live(9)] != early[live(9)]
        assert "C" in content(client, live(9), tmp_path).columns


def test_the_list_itself_can_fail(client: ClientV2, exchange: Exchange) -> None:
    inject(exchange, "503:bulk:times=1", "truncate:bulk:after=1:times=1", "malformed:bulk:after=2:times=1")
    for error in (HTTPError, ChunkedEncodingError, JSONDecodeError):
        with pytest.raises(error):
            listed(client)
    assert MAY in listed(client)
    assert len(client.get_eq_bars_daily(date_yyyymmdd="20240510")) == 5, "pages are no bulk requests"


def test_a_rewrite_of_nothing_is_refused(exchange: Exchange) -> None:
    for text, words in (
        ("rewrite:bars_daily:date=2024-05-11", "concerns no row"),
        ("rewrite:fin_summary:date=2024-05-10", "numbers as text"),
        ("rewrite:bars_daily", "needs a table and date"),
        ("rewrite:*:date=2024-05-10", "needs a table and date"),
    ):
        with pytest.raises(FaultSyntaxError, match=words):
            inject(exchange, text)


def test_revisions_and_pages_and_files_agree(market: Path, tmp_path: Path) -> None:
    text = "correct:bars_daily:since=2024-06-20T16:30:date=2024-05-10:code=72030:column=C:factor=1.5"
    app = create_app(
        market, plan="standard", api_keys={wire.KEY}, now=datetime(2024, 6, 20, 16), revisions=[parse_revision(text)]
    )
    with wire.serving(app) as url:
        client = wire.official_client(url)
        seen = []
        for hour in (16, 17):
            app.state.exchange.clock.set(datetime(2024, 6, 20, hour))
            rows = content(client, MAY, tmp_path).filter(pl.col("Code") == "72030")
            page = client.get_eq_bars_daily(code="72030", from_yyyymmdd="20240501", to_yyyymmdd="20240531")
            assert rows["C"].to_list() == page["C"].to_list() and rows["AdjC"].to_list() == page["AdjC"].to_list()
            seen.append((rows["C"].to_list(), listed(client)[MAY]))
    (old, dated), (new, later) = seen
    assert [a == b for a, b in zip(old, new, strict=True)].count(False) == 1
    assert later[0].startswith("2024-06-20 07:30:00") and later[0] > dated[0], "LastModified is UTC"
