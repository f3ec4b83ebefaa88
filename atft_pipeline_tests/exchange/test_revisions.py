"""Changes of the past: each kind acts from its time on, on JSON pages and adjusted prices alike, and bad texts fail."""

from __future__ import annotations

import json
from datetime import date, datetime
from pathlib import Path

import pytest
from jquantsapi import ClientV2
from starlette.applications import Starlette

from atft_pipeline.exchange.process import ExchangeStartError, move_clock, running_exchange
from atft_pipeline.exchange.revisions import RevisionError, parse_revision, read_revisions
from atft_pipeline.exchange.server import Exchange, create_app
from atft_pipeline.exchange.tables import Query
from atft_pipeline_tests.exchange import wire

BAR = "correct:bars_daily:since=2024-05-20T16:30:date=2024-05-10:code=72030:column=C:factor=1.1"
WEEK = "append:investor_types:since=2024-05-20:date=2024-05-16:Section=TSEPrime:factor=2"
FILING = "append:fin_summary:since=2024-05-13T15:00:date=2024-05-10:DiscNo=20240510500001:column=Sales:factor=0.5"
SPLIT = "split:bars_daily:since=2024-06-03T16:30:date=2024-05-16:code=13010:factor=0.25"
NAME = "correct:master:since=2024-05-20:date=2024-05-10:code=13010:column=CoName:value=改名"
TEXTS = (BAR, WEEK, FILING, SPLIT, NAME)


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wire.write_market(tmp_path_factory.mktemp("revisions") / "market")


@pytest.fixture(scope="module")
def app(market: Path) -> Starlette:
    revisions = [parse_revision(text) for text in TEXTS]
    return create_app(
        market, plan="premium", api_keys={wire.KEY}, requests_per_minute=100_000, page_rows=7, revisions=revisions
    )


def test_a_corrected_bar_carries_its_adjusted_price(client: ClientV2, exchange: Exchange) -> None:
    seen = {}
    for minute in (29, 30):
        exchange.clock.set(datetime(2024, 5, 20, 16, minute))
        by_day = client.get_eq_bars_daily(date_yyyymmdd="20240510").set_index("Code")
        by_code = client.get_eq_bars_daily(code="72030").set_index("Date")
        assert by_code["C"]["2024-05-10"] == by_day["C"]["72030"], "both ways of asking agree"
        seen[minute] = by_day.loc["72030", ["O", "C", "AdjC"]].tolist()
    was = seen[29]
    assert was[0] == was[1] == was[2]
    assert seen[30] == [was[0], round(was[1] * 1.1, 1), round(was[1] * 1.1, 1)]


def test_a_corrected_week_is_a_further_row_and_sums_stay_sums(client: ClientV2, exchange: Exchange) -> None:
    exchange.clock.set(datetime(2024, 5, 20, 16))
    assert len(client.get_eq_investor_types()) == 4
    exchange.clock.set(datetime(2024, 5, 20, 23, 59, 59))
    frame = client.get_eq_investor_types(section="TSEPrime")
    assert frame["PubDate"].astype(str).tolist() == ["2024-05-09", "2024-05-16", "2024-05-20"]
    old, new = frame.iloc[1], frame.iloc[2]
    assert (new["StDate"], new["EnDate"]) == (old["StDate"], old["EnDate"])
    assert (new[4:] == 2 * old[4:]).all() and (old[4:] == 1000).all()
    assert len(client.get_eq_investor_types(section="TSEGrowth")) == 2
    assert len(client.get_eq_investor_types(from_yyyymmdd="20240517")) == 1
    assert len(client.get_eq_investor_types(to_yyyymmdd="20240517")) == 4


def test_a_restated_filing_is_a_new_document_that_a_cursor_finds(client: ClientV2, exchange: Exchange) -> None:
    exchange.clock.set(datetime(2024, 5, 13, 14))
    assert client.get_fin_summary_cursor(date_yyyymmdd="20240513")[0].empty
    old, cursor = client.get_fin_summary_cursor(code="13010")
    exchange.clock.set(datetime(2024, 5, 13, 18))
    new, _ = client.get_fin_summary_cursor(code="13010", cursor=cursor)
    assert len(old) == 2 and len(new) == 1
    assert new.loc[0, ["DiscTime", "Code", "Sales"]].tolist() == ["15:00:00", "13010", "600"]
    assert new["DiscNo"][0].startswith("202405139") and str(new["DiscDate"][0])[:10] == "2024-05-13"
    assert client.get_fin_summary_cursor(date_yyyymmdd="20240513")[0]["DiscNo"].tolist() == new["DiscNo"].tolist()
    assert old["Sales"].tolist() == ["1200", ""], "the old document stays"


def test_filings_restated_together_get_numbers_of_their_own(market: Path) -> None:
    text = FILING.replace("DiscNo=20240510500001", "code=13010").replace("column=Sales:factor=0.5", "column=NP:value=7")
    app = create_app(market, plan="standard", api_keys={wire.KEY}, revisions=[parse_revision(text)])
    rows = app.state.exchange.view.rows("fin_summary", Query(day=date(2024, 5, 13)))
    assert rows.height == 2 and rows["DiscNo"].n_unique() == 2 and rows["NP"].to_list() == ["7", "7"]
    assert rows["Sales"].to_list() == ["1200", ""]


def test_a_late_split_rewrites_what_came_before_it(client: ClientV2, exchange: Exchange) -> None:
    exchange.clock.set(datetime(2024, 6, 3, 16, 29))
    before = client.get_eq_bars_daily(code="13010").set_index("Date")
    assert (before["AdjFactor"] == 1).all() and (before["AdjC"] == before["C"]).all()
    exchange.clock.set(datetime(2024, 6, 3, 16, 30))
    after = client.get_eq_bars_daily(code="13010").set_index("Date")
    early = after.index < "2024-05-16"
    assert after["AdjFactor"]["2024-05-16"] == 0.25 and after["ExRT"]["2024-05-16"] == "1"
    assert abs(after["AdjC"][early] - after["C"][early] / 4).max() <= 0.0501
    assert (after["AdjVo"][early] == after["Vo"][early] * 4).all()
    assert (after["AdjC"][~early] == after["C"][~early]).all()


def test_a_text_is_replaced(client: ClientV2) -> None:
    names = client.get_eq_master(date="20240510").set_index("Code")["CoName"]
    assert names["13010"] == "改名" and names["72030"] == "極洋"
    assert set(client.get_eq_master(date="20240513")["CoName"]) == {"極洋"}


def test_a_month_s_last_change_is_the_newest_revision_that_touches_it(exchange: Exchange) -> None:
    may, june = (date(2024, 5, 1), date(2024, 5, 31)), (date(2024, 6, 1), date(2024, 6, 30))
    april = (date(2024, 4, 1), date(2024, 4, 30))
    view = exchange.view
    exchange.clock.set(datetime(2024, 5, 21))
    assert view.last_change("bars_daily", *may) == datetime(2024, 5, 20, 16, 30)
    assert view.last_change("bars_daily", *april) is None
    exchange.clock.set(None)
    assert (
        view.last_change("bars_daily", *may) == view.last_change("bars_daily", *april) == datetime(2024, 6, 3, 16, 30)
    )
    assert view.last_change("bars_daily", *june) is None
    assert view.last_change("investor_types", *may) == datetime(2024, 5, 20, 23, 59, 59)


def test_revisions_reach_a_running_exchange(market: Path) -> None:
    with running_exchange(market, today=date(2024, 5, 17), revisions=[BAR]) as exchange:
        client = wire.official_client(exchange.base_url, exchange.api_key)
        before = client.get_eq_bars_daily(date_yyyymmdd="20240510")["C"].iloc[-1]
        move_clock(exchange, None)
        assert client.get_eq_bars_daily(date_yyyymmdd="20240510")["C"].iloc[-1] == round(before * 1.1, 1)
    wrong = [BAR.replace("72030", "99990")]
    with pytest.raises(ExchangeStartError, match="concerns no row"), running_exchange(market, revisions=wrong):
        pass


def test_a_text_and_an_object_in_a_file_read_the_same(tmp_path: Path) -> None:
    for text in TEXTS:
        assert str(parse_revision(str(parse_revision(text)))) == str(parse_revision(text))
    entry = {"kind": "append", "table": "investor_types", "since": "2024-05-20", "date": "2024-05-16"}
    (tmp_path / "r.json").write_text(json.dumps([BAR, entry | {"Section": "TSEPrime", "factor": 2}]))
    assert read_revisions(tmp_path / "r.json") == [parse_revision(BAR), parse_revision(WEEK)]
    (tmp_path / "r.json").write_text('[{"table": "master"}]')
    with pytest.raises(RevisionError, match="neither a text nor an object"):
        read_revisions(tmp_path / "r.json")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("forget:bars_daily:since=2024-05-20:date=2024-05-10:factor=2", "unknown revision 'forget'"),
        ("correct:bars:since=2024-05-20:date=2024-05-10:factor=2", "unknown table 'bars'"),
        ("correct:bars_daily:date=2024-05-10:factor=2", "needs since="),
        ("correct:bars_daily:since=soon:date=2024-05-10:factor=2", "'soon' is no time"),
        ("correct:bars_daily:since=2024-05-20:date=2024-05-10", "give factor=NUMBER"),
        ("correct:bars_daily:since=2024-05-20:date=2024-05-10:value=2", "give factor=NUMBER"),
        ("correct:bars_daily:since=2024-05-20:date=2024-05-10:colour=C", "'colour=C' is not an option"),
        ("append:bars_daily:since=2024-05-20:date=2024-05-10:factor=2", "no date of publication"),
        ("split:bars_daily:since=2024-05-20:date=2024-05-10:factor=2", "split needs"),
    ],
)
def test_a_bad_text_is_refused_with_what_is_allowed(text: str, words: str) -> None:
    with pytest.raises(RevisionError, match=words):
        parse_revision(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BAR.replace("2024-05-10", "2024-05-11"), "concerns no row"),
        (BAR.replace("column=C", "column=Close"), "has no column Close"),
        (FILING.replace(":column=Sales", ""), "numbers as text"),
    ],
)
def test_a_revision_of_nothing_is_refused_at_the_start(market: Path, text: str, words: str) -> None:
    with pytest.raises(RevisionError, match=words):
        create_app(market, plan="premium", api_keys={wire.KEY}, revisions=[parse_revision(text)])
