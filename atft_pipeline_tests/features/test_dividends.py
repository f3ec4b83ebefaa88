"""Dividends as announced: vintages of one dividend, ex-dates ahead and behind, deletions, splits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import numpy as np
import pytest
from numpy.typing import NDArray

from atft_pipeline.features.dividends import GROUP
from atft_pipeline.features.group import Inputs, compute_group
from atft_pipeline.panel.panel import Panel
from atft_pipeline_tests.synthetic import calendar_frame, one_code_panel, trading_days
from atft_pipeline_tests.synthetic_events import Row, typed

DAYS = trading_days(calendar_frame(date(2023, 1, 4), date(2024, 6, 28)))[:320]
CODE = "13010"
EX = DAYS[50]
PRICE = 1000.0


@pytest.fixture(scope="module")
def panel() -> Panel:
    return one_code_panel(DAYS, [PRICE] * len(DAYS))


def notice(day: date, rate: str, number: str = "N1", time: str = "12:00", ex: date = EX, **more: object) -> Row:
    row = {"PubDate": day, "PubTime": time, "Code": CODE, "RefNo": number, "CARefNo": number, "StatCode": "1"}
    row |= {"DivRate": rate, "ExDate": ex.isoformat(), "CommSpecCode": "0"}
    return row | more


def columns(panel: Panel, rows: Sequence[Row]) -> dict[str, NDArray[np.float32]]:
    built = compute_group(GROUP, Inputs(panel, {"dividend": typed("dividend", rows)}))
    return {name: values[:, 0] for name, values in built.items()}


def revised() -> list[Row]:
    """50 yen announced on day 10, 60 on day 20 after the close, 55 decided on day 70 under the reference of the 60."""
    return [
        notice(DAYS[10], "50.0"),
        notice(DAYS[20], "60.0", "N2", "16:00", CARefNo="N1", StatCode="2"),
        notice(DAYS[70], "55.0", "N3", CARefNo="N2", StatCode="2"),
    ]


def test_the_amount_known_is_the_one_then_published(panel: Panel) -> None:
    ahead = columns(panel, revised())["div_yield_fwd"]
    assert np.isnan(ahead[:10]).all()
    np.testing.assert_allclose(ahead[10:21], 0.05, rtol=1e-6)  # 16:00 of day 20 is after the close
    np.testing.assert_allclose(ahead[21:50], 0.06, rtol=1e-6)
    assert np.isnan(ahead[50:]).all()  # the ex-date itself lies in (T - 365, T]
    only_the_last = columns(panel, revised()[-1:])["div_yield_fwd"]
    assert np.isnan(only_the_last).all()  # what keeping one notice per dividend would know


def test_a_dividend_announced_later_is_not_known_earlier(panel: Panel) -> None:
    both = columns(panel, [*revised(), notice(DAYS[30], "80.0", "M1", ex=DAYS[45])])
    alone = columns(panel, revised())
    for name, values in both.items():
        np.testing.assert_array_equal(values[:30], alone[name][:30], err_msg=name)
    assert alone["div_td_to_ex"][29] == 21 and both["div_td_to_ex"][30] == 15
    assert both["div_next_yield"][30] == pytest.approx(0.08) and both["div_yield_fwd"][30] == pytest.approx(0.14)


@pytest.mark.parametrize(("time", "row"), [("14:59", 10), ("15:00", 11), ("16:00", 11), ("", 11), (None, 11)])
def test_the_minute_decides_the_day(panel: Panel, time: str | None, row: int) -> None:
    value = columns(panel, [notice(DAYS[10], "50.0", PubTime=time)])
    assert np.flatnonzero(np.isfinite(value["div_next_yield"]))[0] == row
    assert value["div_staleness_td"][row] == 0 and value["div_staleness_td"][row - 1] == 500


def test_a_time_that_does_not_parse_is_refused(panel: Panel) -> None:
    with pytest.raises(ValueError, match="'4 pm' is not HH:MM"):
        columns(panel, [notice(DAYS[10], "50.0", PubTime="4 pm")])


def test_days_around_the_ex_date(panel: Panel) -> None:
    value = columns(panel, revised())
    np.testing.assert_array_equal(value["div_td_to_ex"][[9, 10, 44, 45, 49, 50]], [250, 40, 6, 5, 1, 250])
    np.testing.assert_array_equal(value["div_td_since_ex"][[49, 50, 51, 55, 56]], [250, 0, 1, 5, 6])
    assert np.flatnonzero(value["div_pre_ex_5"]).tolist() == [45, 46, 47, 48, 49]
    assert np.flatnonzero(value["div_is_ex"]).tolist() == [50]
    assert np.flatnonzero(value["div_post_ex_5"]).tolist() == [51, 52, 53, 54, 55]


def test_an_ex_date_beyond_the_calendar_is_as_far_as_its_weekdays(panel: Panel) -> None:
    """The calendar's end lies a few months ahead; on the newest rows a half-yearly dividend may lie beyond it."""
    end = panel.calendar.days[-1].astype(object)
    weekdays = [day for n in range(1, 15) if (day := end + timedelta(days=n)).weekday() < 5]
    inside, beyond = (columns(panel, [notice(DAYS[300], "50.0", ex=ex)])["div_td_to_ex"] for ex in (end, weekdays[4]))
    np.testing.assert_array_equal(beyond[300:], inside[300:] + 5)
    assert inside[300] < 100 and (beyond[:300] == 250).all()  # 250 is what a code without dividends has


def test_values_persist_between_notices(panel: Panel) -> None:
    value = columns(panel, revised())
    assert np.isfinite(value["div_next_yield"][10:50]).all()  # a join by equality knows it on two days only
    trailing = value["div_yield_ttm"]
    np.testing.assert_allclose(trailing[50:70], 0.06, rtol=1e-6)
    np.testing.assert_allclose(trailing[70:297], 0.055, rtol=1e-6)
    assert np.isnan(trailing[:50]).all() and trailing[-1] == 0.0  # more than a year after the ex-date
    assert (EX + timedelta(days=365)) <= DAYS[-1]


def test_revisions_have_a_sign_and_an_age(panel: Panel) -> None:
    value = columns(panel, revised())
    up, down = 2 * 10 / 110, 2 * -5 / 115
    assert np.isnan(value["div_rev"][:10]).all()
    np.testing.assert_allclose(
        value["div_rev"][[10, 20, 21, 69, 70, 130, 131]], [0, 0, up, up, down, down, 0], rtol=1e-5
    )
    np.testing.assert_array_equal(value["div_rev_net_cnt_240"][[20, 21, 70, 260, 261]], [0, 1, 0, 0, -1])
    same = columns(panel, [notice(DAYS[10], "50.0"), notice(DAYS[20], "50.0", "N2", CARefNo="N1", StatCode="2")])
    assert set(same["div_rev"][10:]) == {0.0}  # a decision that repeats the forecast is no revision


def test_a_deleted_dividend_is_gone_and_an_undetermined_one_has_a_date_only(panel: Panel) -> None:
    gone = columns(panel, [notice(DAYS[10], "50.0"), notice(DAYS[12], "50.0", "N2", CARefNo="N1", StatCode="3")])
    assert np.flatnonzero(np.isfinite(gone["div_next_yield"])).tolist() == [10, 11]
    assert (gone["div_td_to_ex"][12:] == 250).all() and (gone["div_is_ex"] == 0).all()
    vague = columns(panel, [notice(DAYS[10], "-", CommSpecCode="2")])
    assert np.isnan(vague["div_next_yield"]).all() and vague["div_td_to_ex"][10] == 40
    assert (vague["div_is_special"][10:50] == 1).all() and vague["div_is_special"][50] == 0


def test_a_split_moves_no_yield() -> None:
    close = [1000.0] * 30 + [500.0] * 290
    factor = [0.5 if at == 30 else 1.0 for at in range(320)]
    panel = one_code_panel(DAYS, close, AdjFactor=factor)
    value = columns(panel, [notice(DAYS[10], "50.0")])
    np.testing.assert_allclose(value["div_yield_fwd"][10:50], 0.05, rtol=1e-6)
    np.testing.assert_allclose(value["div_yield_ttm"][50:200], 0.05, rtol=1e-6)
    after = columns(panel, [notice(DAYS[40], "25.0")])
    np.testing.assert_allclose(after["div_yield_fwd"][40:50], 0.05, rtol=1e-6)


def test_growth_needs_two_years_of_history(panel: Panel) -> None:
    old = [
        notice(date(2020, 6, 1), "40.0", "A", ex=date(2021, 9, 28)),
        notice(date(2021, 6, 1), "60.0", "B", ex=date(2022, 9, 28)),
    ]
    growth = columns(panel, old)["div_growth_yoy"]
    np.testing.assert_allclose(growth[0], 2 * 20 / 100, rtol=1e-5)
    assert np.isnan(columns(panel, old[1:])["div_growth_yoy"][0])  # known for a year and a half only
    assert columns(panel, old)["div_valid"][[0, 250, 251]].tolist() == [1, 1, 0]
