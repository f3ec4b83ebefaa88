"""Statements on the panel: disclosure time, splits, revisions that age, staleness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from atft_pipeline.features.group import Inputs, compute_group
from atft_pipeline.features.statements import GROUP
from atft_pipeline.jquants.tables import TABLES
from atft_pipeline.panel.panel import Panel, build_panel
from atft_pipeline_tests.synthetic_events import Row, company, document, market_tables, revision, typed, weekdays

DAYS = weekdays(300, date(2022, 1, 3))
A, B = "10010", "10020"
HALF_DAY = DAYS[40]


@pytest.fixture(scope="module")
def panel() -> Panel:
    tables = market_tables([A, B], DAYS, np.random.default_rng(0), sectors=["3650"])
    half = pl.when(pl.col("Date") == HALF_DAY).then(pl.lit("2")).otherwise("HolDiv")
    return build_panel(tables["calendar"].with_columns(HolDiv=half), tables["master"], tables["bars_daily"])


def columns(panel: Panel, rows: Sequence[Row]) -> Mapping[str, NDArray[np.float32]]:
    return compute_group(GROUP, Inputs(panel, {"fin_summary": typed("fin_summary", rows)}))


def result(day: date, time: str = "15:00:00", **values: object) -> Row:
    """A full-year result of 2021 with shares, levels and flows."""
    usual = {"Sales": 100.0, "OP": 10.0, "NP": 5.0, "TA": 200.0, "Eq": 80.0, "ShOutFY": 110.0, "TrShFY": 10.0}
    return document(A, day, "FY", 2021, time, **{**usual, **values})


def first_known(values: NDArray[np.float32]) -> date:
    return DAYS[int(np.flatnonzero(np.isfinite(values[:, 0]))[0])]


TUESDAY = DAYS[11]
SATURDAY = DAYS[14] + timedelta(days=1)


@pytest.mark.parametrize(
    ("day", "time", "usable"),
    [
        (TUESDAY, "14:59:00", TUESDAY),
        (TUESDAY, "14:59:59", TUESDAY),
        (TUESDAY, "15:00:00", DAYS[12]),
        (TUESDAY, "15:30:00", DAYS[12]),
        (TUESDAY, "", DAYS[12]),
        (TUESDAY, None, DAYS[12]),
        (SATURDAY, "09:00:00", DAYS[15]),
        (HALF_DAY, "11:29:00", HALF_DAY),
        (HALF_DAY, "11:30:00", DAYS[41]),
        (HALF_DAY, "11:31:00", DAYS[41]),
    ],
)
def test_document_is_usable_by_the_disclosure_rule(panel: Panel, day: date, time: str | None, usable: date) -> None:
    built = columns(panel, [{**result(day), "DiscTime": time}])
    assert first_known(built["fs_equity_ratio"]) == usable
    assert built["fs_staleness_td"][DAYS.index(usable), 0] == 0
    assert built["fs_staleness_td"][DAYS.index(usable) - 1, 0] == 500


def test_forecast_document_blanks_nothing(panel: Panel) -> None:
    rows = [result(DAYS[10]), revision(A, DAYS[20], 2022, FOP=12.0)]
    alone, both = columns(panel, rows[:1]), columns(panel, rows)
    for name in ("fs_equity_ratio", "fs_roa_ttm", "fs_log_mcap", "fs_staleness_td", "fs_valid"):
        assert np.array_equal(alone[name], both[name], equal_nan=True), name
    assert np.isnan(alone["fs_fc_op_growth"][30, 0])
    assert np.isfinite(both["fs_fc_op_growth"][30, 0])


def split_stock(panel: Panel, row: int, factor: float) -> Panel:
    """The same stock after a split on `row`: price, volume and factor change together."""
    close, volume, factors = panel.close.copy(), panel.volume.copy(), panel.factor.copy()
    close[row:, 0] *= factor
    volume[row:, 0] /= factor
    factors[row, 0] = factor
    return replace(panel, close=close, volume=volume, factor=factors)


def test_split_moves_neither_share_turnover_nor_market_value(panel: Panel) -> None:
    rows = [result(DAYS[10])]
    plain, split = columns(panel, rows), columns(split_stock(panel, 60, 0.2), rows)
    for name in ("fs_share_turnover_20", "fs_log_mcap", "fs_book_to_price", "fs_earnings_yield_ttm"):
        assert split[name][30:90, 0] == pytest.approx(plain[name][30:90, 0]), name
        assert np.array_equal(split[name][:60], plain[name][:60], equal_nan=True), name


def test_shares_counted_after_a_split_are_taken_in_their_own_units(panel: Panel) -> None:
    later = document(A, date(2022, 8, 10), "2Q", 2022, ShOutFY=550.0, TrShFY=50.0)
    value = columns(split_stock(panel, 60, 0.2), [result(DAYS[10]), later])["fs_log_mcap"][:, 0]
    expected = np.log(split_stock(panel, 60, 0.2).close[-1, 0] * 500)
    assert value[-1] == pytest.approx(expected), "period end after the split: no second scaling"


def test_valuation_moves_with_the_price_and_results_do_not(panel: Panel) -> None:
    built = columns(panel, [result(DAYS[10], NxFNp=6.0, NxFDivAnn=0.5)])
    close = panel.close[:, 0]
    for day in (30, 90):
        assert built["fs_log_mcap"][day, 0] == pytest.approx(np.log(close[day] * 100))
        assert built["fs_earnings_yield_ttm"][day, 0] == pytest.approx(5 / (close[day] * 100))
        assert built["fs_book_to_price"][day, 0] == pytest.approx(80 / (close[day] * 100))
        assert built["fs_fc_earnings_yield"][day, 0] == pytest.approx(6 / (close[day] * 100))
        assert built["fs_fc_div_yield"][day, 0] == pytest.approx(0.5 / close[day])
    assert built["fs_equity_ratio"][30, 0] == built["fs_equity_ratio"][90, 0] == pytest.approx(0.4)


def test_dividend_yield_is_null_from_a_split_until_the_next_document(panel: Panel) -> None:
    rows = [
        result(DAYS[10], NxFDivAnn=50.0),
        revision(A, DAYS[80], 2022, "DividendForecastRevision", FDivAnn=10.0, DiscTime="15:30:00"),
    ]
    built = columns(split_stock(panel, 60, 0.2), rows)
    known = np.isfinite(built["fs_fc_div_yield"][:, 0])
    assert known[11:60].all()
    assert not known[60:81].any()
    assert known[81:172].all()
    assert np.isnan(built["fs_fc_dps_rev"][81:142, 0]).all(), "50 before and 10 after a 1:5 split is no revision"
    assert built["fs_fc_dps_rev"][142, 0] == 0.0


def test_revision_is_news_for_sixty_days_and_counts_for_240(panel: Panel) -> None:
    rows = [
        result(DAYS[5], NxFOP=10.0),
        revision(A, DAYS[20], 2022, FOP=12.0, DiscTime="15:30:00"),
        document(A, DAYS[90], "1Q", 2022, "15:30:00", OP=3.0, Sales=20.0, FOP=12.0),
        document(A, DAYS[155], "2Q", 2022, "15:30:00", OP=6.0, Sales=50.0, FOP=9.0),
        document(A, DAYS[220], "3Q", 2022, "15:30:00", OP=6.0, Sales=70.0, FOP=9.0),
    ]
    built = columns(panel, rows)
    change, count = built["fs_fc_rev_op"][:, 0], built["fs_fc_rev_net_cnt_240"][:, 0]
    assert change[20] == 0.0
    assert change[21:82] == pytest.approx(2 * 2 / 22)
    assert change[82:156] == pytest.approx(0.0)
    assert change[156:217] == pytest.approx(-2 * 3 / 21)
    assert [count[d] for d in (20, 21, 155, 156, 260, 261)] == [0, 1, 1, 0, 0, -1]
    assert np.isnan(built["fs_fc_rev_np"][100, 0]), "without a profit forecast there is nothing to revise"


def test_company_that_stops_reporting_goes_null_but_keeps_its_flags(panel: Panel) -> None:
    built = columns(panel, [result(DAYS[10])])
    usable = 11
    assert np.isfinite(built["fs_log_mcap"][usable + 160, 0])
    for name in set(built) - {"fs_staleness_td", "fs_valid"}:
        assert np.isnan(built[name][usable + 161 :, 0]).all(), name
    assert built["fs_staleness_td"][usable + 161, 0] == 161
    assert built["fs_valid"][usable : usable + 102, 0].tolist() == [1.0] * 101 + [0.0]
    assert (built["fs_staleness_td"][:, 1] == 500).all(), "a company that never reported"
    assert (built["fs_valid"][:, 1] == 0).all()


def test_restatement_after_ninety_days_leaves_earlier_growth_alone(panel: Panel) -> None:
    rows = company(A, (2020, 2021, 2022), np.random.default_rng(1))
    rows = [row for row in rows if row["DiscDate"] < DAYS[200]]  # type: ignore[operator]
    late = document(A, DAYS[200], "1Q", 2021, "15:30:00", Sales=1.0, OP=1.0, NP=1.0, TA=2.0, Eq=1.0)
    before, after = columns(panel, rows), columns(panel, [*rows, late])
    for name in before:
        assert before[name].shape == after[name].shape
        assert np.array_equal(before[name][:201], after[name][:201], equal_nan=True), name
    assert after["fs_sales_q_yoy"][201, 0] != before["fs_sales_q_yoy"][201, 0]


def test_issue_that_is_not_on_the_panel_is_ignored(panel: Panel) -> None:
    stranger = {**result(DAYS[10]), "Code": "99990"}
    alone, both = columns(panel, [result(DAYS[10])]), columns(panel, [stranger, result(DAYS[10])])
    assert all(np.array_equal(alone[name], both[name], equal_nan=True) for name in alone)


def test_no_documents_at_all_is_null_not_an_error(panel: Panel) -> None:
    empty = pl.DataFrame(schema=dict(TABLES["fin_summary"].schema))
    built = compute_group(GROUP, Inputs(panel, {"fin_summary": empty}))
    assert np.isnan(built["fs_log_mcap"]).all()
    assert (built["fs_staleness_td"] == 500).all()
