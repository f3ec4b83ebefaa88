"""The test of a case fails when its fault is planted: each runs again on code that makes the old mistake."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from atft_pipeline.features import (
    breakdown,
    calendar,
    catalog,
    flow_records,
    liquidity,
    margin,
    margin_alerts,
    records,
    sector,
    short_positions,
    statement_documents,
)
from atft_pipeline.features.group import Inputs, compute_group
from atft_pipeline.features.statement_events import Actuals
from atft_pipeline.panel import asof, operators
from atft_pipeline.panel.axes import Axes
from atft_pipeline.panel.operators import Array, ts_lag, ts_mean, ts_product
from atft_pipeline.panel.panel import build_panel
from atft_pipeline_tests.features import (
    test_base_calendar,
    test_base_values,
    test_breakdown,
    test_catalog,
    test_flow,
    test_flow_records,
    test_margin,
    test_margin_alerts,
    test_sector,
    test_short_selling,
    test_statement_events,
)
from atft_pipeline_tests.leak import test_everything
from atft_pipeline_tests.leak.cases import CASES, RERUN
from atft_pipeline_tests.leak.invariance import SeesTheFuture, assert_prefix_equal
from atft_pipeline_tests.panel import test_asof, test_cs_operators
from atft_pipeline_tests.synthetic import Frames, market
from atft_pipeline_tests.synthetic_events import market_tables, typed

Run = Callable[[], None]


def year_2024() -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    panel = test_base_calendar.bare_panel(test_base_calendar.divisions())
    built = compute_group(calendar.GROUP, Inputs(panel, {}))
    return panel.axes.dates, {name: values[:, 0] for name, values in built.items()}


def flows_know_the_amount_then_published() -> None:
    codes, days = ["10010", "10020", "10030"], test_flow.DAYS
    tables = market_tables(codes, days, np.random.default_rng(0), sectors=["3650"], markets=["0111"])
    panel = build_panel(tables["calendar"], tables["master"], tables["bars_daily"])
    test_flow.test_amount_known_is_the_one_then_published(panel)


def golden_weekday_and_settlement(day: str, column: str, value: int) -> Run:
    return lambda: test_base_calendar.test_golden_values(year_2024(), day, column, value)


def order_of_events_does_not_matter() -> None:
    listed = np.ones((5, 2), np.bool_)
    test_asof.test_result_does_not_depend_on_the_input_order(Axes(test_asof.DATES, np.array(["1", "2"]), listed))


def codes_do_not_touch() -> None:
    test_everything.test_a_code_alone_has_the_same_columns_as_among_others(market(codes=40, days=260))


def listing_dictionary() -> None:
    test_base_values.test_dictionary_of_listing_attributes({"meta_margin_id": np.array([1.0, 2.0], np.float32)})


def japanese_results_are_results() -> None:
    streams = (True, True, True)
    test_statement_events.test_every_document_type_feeds_its_streams("FYFinancialStatements_Consolidated_JP", streams)


def over_the_whole_frame(x: Array, n: int, min_obs: int) -> Array:
    """A window over the rows of a long table: the first rows of a code hold the code before it."""
    return ts_mean(np.ascontiguousarray(x.T).ravel(), n, min_obs).reshape(x.T.shape).T


def last_correction_only(table: str, rows: Any) -> pl.DataFrame:
    return typed(table, rows).unique(["Section", "StDate"], keep="last", maintain_order=True)


def last_four_documents(self: Actuals, name: str, years_ago: int = 0) -> Array:
    """Cumulative values of the last four results added up, whatever they accumulate."""
    q = self._now.quarter
    return sum(self.cumulative(name, years_ago + (q - k < 1), (q - k - 1) % 4 + 1) for k in range(4))


def ordinal_rank(x: Array, where: NDArray[np.bool_] | None = None, min_obs: int = 2) -> Array:
    return np.argsort(np.argsort(x, axis=1), axis=1) / (x.shape[1] - 1.0)


def calculated_is_disclosed(name: str, table: pl.DataFrame, axes: Axes) -> tuple[pl.DataFrame, NDArray[np.int64]]:
    return records.listed_records(name, table.with_columns(DiscDate="CalcDate"), axes)


def last_reporter_only(name: str, table: pl.DataFrame, axes: Axes) -> tuple[pl.DataFrame, NDArray[np.int64]]:
    return records.listed_records(name, table.unique(["Code", "DiscDate"], keep="last", maintain_order=True), axes)


def as_delivered(shares: pl.Series, *_: object) -> Array:
    """Share counts that know nothing of splits."""
    return records.numbers_of(shares)


CLOSING_SALES_LEFT_OUT = ("LongSellVa", "ShrtNoMrgnVa", "MrgnSellNewVa", "MrgnSellNewVa", *breakdown.LEGS[4:])


right_order = asof._latest_rows


def as_they_come(days: Any, ids: Any, first: Any, used: Any, order: Any, shape: Any) -> NDArray[np.int32]:
    return right_order(days, ids, first, used, (), shape)


PLANTS: dict[str, tuple[object, str, object, Run]] = {
    "L8": (margin, "PUBLISHED_AFTER", 0, test_margin.test_a_week_is_known_three_trading_days_after_its_friday),
    "L9": (short_positions, "listed_records", calculated_is_disclosed,
           test_short_selling.test_a_position_is_known_the_day_after_its_disclosure_not_its_calculation),
    "L10": (sector, "ts_lag", lambda x, k: ts_lag(x, 0 if k == 1 else k),
            test_sector.test_target_encoding_ignores_prices_from_today_on),
    "L16": (test_flow, "typed", last_correction_only, flows_know_the_amount_then_published),
    "Q1": (liquidity, "ts_mean", over_the_whole_frame, codes_do_not_touch),
    "Q2": (sector, "ts_product", lambda x, n, least: ts_product(x, max(1, n // 20), 1),
           lambda: test_sector.test_constant_sector_return_compounds_over_dates_whatever_the_member_count(36)),
    "Q37": (margin, "in_first_row_units", as_delivered,
            test_margin.test_a_split_in_the_middle_of_a_week_changes_no_ratio),
    "Q37 daily": (margin_alerts, "in_first_row_units", as_delivered,
                  test_margin_alerts.test_a_split_changes_no_ratio),
    "Q7": (short_positions, "listed_records", last_reporter_only, test_short_selling.test_two_holders_add_up),
    "Q3": (calendar, "_EPOCH_WEEKDAY", 4, golden_weekday_and_settlement("2024-05-07", "dow", 1)),
    "Q11": (flow_records, "WEEKS", 260, test_flow_records.test_yearly_score_is_taken_over_the_last_52_weekly_records),
    "Q11 minimum": (flow_records, "MIN_WEEKS", 52,
                    test_flow_records.test_yearly_score_is_known_after_26_weeks_and_not_before),
    "Q11 daily": (margin, "is_weekly", lambda rows, days: np.ones(rows.height, np.bool_),
                  test_margin.test_daily_balances_are_read_once_a_week_and_a_day_earlier),
    "Q13": (Actuals, "trailing_year", last_four_documents,
            test_statement_events.test_trailing_year_is_the_sum_of_four_single_quarters_around_a_mid_year_forecast),
    "Q14": (statement_documents, "RESULT", "JGAAP", japanese_results_are_results),
    "Q15": (breakdown, "LEGS", CLOSING_SALES_LEFT_OUT, test_breakdown.test_shares_of_a_day),
    "Q16": (statement_documents, "months", lambda day: pl.lit(24000),
            test_statement_events.test_revision_compares_the_same_target_year_across_the_roll_over),
    "Q17": (calendar, "next_sq", lambda dates, trading: trading[np.searchsorted(trading, dates) + 1],
            golden_weekday_and_settlement("2024-05-13", "td_to_sq", 24)),
    "Q18": (test_base_values, "MARGIN_IDS", {"1": 1, "2": 0}, listing_dictionary),
    "Q19": (operators, "cs_rank", ordinal_rank,
            test_cs_operators.test_rank_gives_ties_their_average_and_skips_nulls),
    "Q25": (test_base_values, "SECTOR33_IDS", {code: n for n, code in enumerate(("0050", "3650", "9999"), 1)},
            listing_dictionary),
    "Q28": (catalog, "WARM_UP_DAYS", 85, test_catalog.test_warm_up_covers_the_longest_declared_window),
    "Q38": (asof, "_latest_rows", as_they_come, order_of_events_does_not_matter),
}  # fmt: skip
"""Case -> what is replaced by what, and the test that must fail on it."""


@pytest.mark.parametrize("case", PLANTS)
def test_planted_fault_fails_the_test_of_its_case(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target, name, fault, run = PLANTS[case]
    run()
    monkeypatch.setattr(target, name, fault)
    with pytest.raises(AssertionError):
        run()


def test_every_case_that_counts_on_this_file_has_its_plant() -> None:
    """The table may not point here without a plant."""
    here = {case.id for case in CASES if RERUN in case.faults}
    assert here == {name.split()[0] for name in PLANTS}


def test_staleness_against_the_last_publication_is_caught() -> None:
    """L14: days until the newest record of the data, which a row cannot know."""
    frames = market(codes=12, days=251)

    def build(given: Frames) -> dict[str, NDArray[Any]]:
        dates = np.array(frames.dates, "datetime64[D]")
        newest = given.investor_types["PubDate"].max()
        return {"staleness": (np.datetime64(newest) - dates).astype(int)}

    with pytest.raises(SeesTheFuture, match="staleness"):
        assert_prefix_equal(build, frames, frames.until(frames.dates[200]), 201)
