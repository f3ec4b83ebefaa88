"""Where each known leak and quality fault is tested: docs/leaks.md is this table. After a change of it:

    python -m atft_pipeline_tests.leak.cases > docs/leaks.md

A case is tested by `tests` today, and each feature group of `groups` owes tests of its own from the day on which it is
in the catalogue. `faults` are the tests that plant the fault and see the guard fire. Names are
`<module below atft_pipeline_tests>::<test>`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from atft_pipeline.features import catalog

COMMAND = "python -m atft_pipeline_tests.leak.cases > docs/leaks.md"

PROOF = "leak/test_everything::test_the_proof_covers_every_column_of_the_contract"
INVARIANCE = "leak/test_everything::test_no_feature_row_changes_with_what_comes_after_it"
PLANTED = "leak/test_everything::test_a_planted_column_that_sees_the_future_is_named"
FORMULA = "features/test_golden_formulas::test_column_is_its_formula"
WRONG_FORMULA = "features/test_golden_formulas::test_a_wrong_operator_is_noticed"
ALERTS, SHORTS = "features/test_margin_alerts", "features/test_short_selling"
RERUN = "leak/test_planted_faults::test_planted_fault_fails_the_test_of_its_case"


@dataclass(frozen=True)
class Case:
    """One fault that must not come back."""

    id: str
    fault: str
    tests: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Feature group -> its own tests of the case, faults included; () while the group is not in the catalogue."""


CASES = (
    Case("L1", "a return with a negative shift among the features",
         ("leak/test_base_source::test_module_reads_no_later_row", "features/test_base_values::test_returns_look_back",
          INVARIANCE),
         ("leak/test_base_source::test_the_lint_fires_on_each_planted_fault", PLANTED)),
    Case("L2", "labels inside the feature list under other names",
         ("features/test_catalog::test_selection_keeps_contract_order",
          "dataset/test_training_panel::test_selected_inputs_keep_their_names_and_unknown_ones_are_refused"),
         ("features/test_catalog::test_t46_bad_selection_is_refused_by_group",
          "dataset/test_assemble::test_labels_and_leftovers_of_joins_are_no_inputs")),
    Case("L3", "labels made before the features are frozen",
         ("leak/test_base_source::test_module_reads_no_later_row",),
         ("leak/test_base_source::test_the_lint_fires_on_each_planted_fault",)),
    Case("L4", "a result too good to be true is taken for a success",
         ("dataset/test_quality::test_a_sound_dataset_passes_every_check",
          "evaluation/test_judge::test_a_sound_run_passes_every_rule"),
         ("dataset/test_quality::test_a_leaked_column_under_an_innocent_name_is_caught",
          "evaluation/test_judge::test_a_result_too_good_to_be_true_fails")),
    Case("L5", "days to the next split", (INVARIANCE,), (PLANTED,)),
    Case("L6", "local extremes that compare with later days", (INVARIANCE,), (PLANTED,)),
    Case("L7a", "a statement of 15:00 or without a time counts for the same day",
         ("panel/test_availability::test_disclosure_time_rule",),
         ("leak/test_late_groups::test_ignoring_the_disclosure_time_is_caught", PLANTED)),
    Case("L7b", "a time that does not parse becomes midnight",
         ("panel/test_availability::test_disclosure_time_rule",),
         ("panel/test_availability::test_malformed_time_is_refused_not_read_as_midnight",),
         {"div": ("features/test_dividends::test_the_minute_decides_the_day",
                  "features/test_dividends::test_a_time_that_does_not_parse_is_refused")}),
    Case("L8", "a weekly balance is used before its publication",
         ("panel/test_availability::test_third_trading_day_after_a_week_end",), (PLANTED, RERUN),
         {"wm": ("features/test_margin::test_a_week_is_known_three_trading_days_after_its_friday",)}),
    Case("L9", "a short position counts from its calculation, not its disclosure", (INVARIANCE,), (PLANTED, RERUN),
         {"ss": (f"{SHORTS}::test_a_position_is_known_the_day_after_its_disclosure_not_its_calculation",)}),
    Case("L10", "a sector's mean label lagged by one day",
         ("features/test_sector::test_target_encoding_ignores_prices_from_today_on",), (RERUN,)),
    Case("L11", "a missing prerequisite is filled in from the future",
         ("features/test_catalog::test_a_group_exists_exactly_when_the_plan_delivers_its_tables",),
         ("features/test_market::test_group_without_its_table_is_refused",
          "features/test_breadth::test_missing_index_is_named",
          "features/test_flow_records::test_missing_source_field_is_named")),
    Case("L12", "a percentile over the whole history", (INVARIANCE,),
         ("leak/test_late_groups::test_planted_leak_is_caught",),
         {"ss": (f"{SHORTS}::test_windows_count_the_sector_s_records",)}),
    Case("L13", "thresholds of the whole frame; jumps where a part of the history begins",
         (INVARIANCE, "leak/test_warm_up::test_a_history_that_starts_later_gives_the_same_rows_after_the_warm_up"),
         (PLANTED, "leak/test_warm_up::test_a_window_longer_than_the_warm_up_would_be_noticed"),
         {"dm": (f"{ALERTS}::test_classes_are_ordered_by_severity",),
          "ss": (f"{SHORTS}::test_windows_count_the_sector_s_records",)}),
    Case("L14", "staleness against the last publication of the data",
         ("features/test_flow::test_later_publications_do_not_change_earlier_staleness",),
         ("leak/test_planted_faults::test_staleness_against_the_last_publication_is_caught",)),
    Case("L15", "the next dividend is looked up in later notices", (), (),
         {"div": ("features/test_dividends::test_a_dividend_announced_later_is_not_known_earlier",
                  INVARIANCE, PLANTED)}),
    Case("L16", "only the last correction is kept",
         ("features/test_flow::test_amount_known_is_the_one_then_published",
          "features/test_statement_events::test_earlier_vintage_of_the_same_period_stays_what_it_was"),
         (RERUN,),
         {"div": ("features/test_dividends::test_the_amount_known_is_the_one_then_published",),
          "dm": (f"{ALERTS}::test_a_correction_counts_from_its_own_publication",)}),
    Case("L17", "statements in the order of their periods: a late restatement reaches earlier rows",
         ("features/test_statement_events::test_restatement_changes_growth_from_its_own_day_only_and_adds_no_rows",
          "features/test_statements::test_restatement_after_ninety_days_leaves_earlier_growth_alone"), (PLANTED,)),
    Case("L18", "today's listing for all history",
         ("panel/test_panel::test_ids_come_from_constants_and_the_date_itself",
          "features/test_sector::test_code_that_changes_sector_keeps_the_old_one_before"), (PLANTED,)),
    Case("L19", "a leak detector that looks at nothing",
         ("panel/test_asof::test_audit_counts_what_was_seen",),
         ("panel/test_asof::test_row_that_uses_the_future_is_refused",
          "dataset/test_quality::test_an_audit_that_saw_nothing_or_a_violation_fails")),
    Case("L20", "adjusted levels that a later split rewrites",
         ("leak/test_base_invariance::test_split_ahead_leaves_earlier_rows_alone",
          "leak/test_base_invariance::test_split_on_the_day_moves_only_what_is_raw"), (PLANTED,)),
    Case("L21", "series from elsewhere, exempt from the availability rules",
         ("leak/test_cases::test_every_source_is_a_j_quants_table",),
         ("leak/test_cases::test_a_foreign_source_would_be_noticed",)),
    Case("L22", "reference dates filled forward and kept as inputs",
         ("leak/test_cases::test_inputs_are_numbers_not_dates",),
         ("dataset/test_assemble::test_labels_and_leftovers_of_joins_are_no_inputs",)),
    Case("L23", "training rows after validation, or whose labels reach into it",
         ("dataset/test_splits::test_t44_no_label_of_one_part_reaches_the_next",
          "dataset/test_folds::test_folds_are_purged_expand_and_test_every_date_once"),
         ("dataset/test_splits::test_t44_a_label_across_the_boundary_is_found",
          "walk_forward/test_walk::test_a_training_label_that_reaches_the_validation_is_refused_and_seen")),
    Case("Q1", "windows that run from one code into the next",
         ("leak/test_everything::test_a_code_alone_has_the_same_columns_as_among_others",
          "panel/test_ts_operators::test_first_valid_row_is_the_minimum_and_codes_do_not_touch"), (RERUN,)),
    Case("Q2", "sector windows over stock rows",
         ("features/test_sector::test_constant_sector_return_compounds_over_dates_whatever_the_member_count",),
         (RERUN,)),
    Case("Q3", "weekdays off by one, holidays ignored",
         ("features/test_base_calendar::test_golden_values", "panel/test_availability::test_next_trading_day"),
         (RERUN,)),
    Case("Q4", "an equality join that meets nothing and reports success",
         ("dataset/test_quality::test_a_sound_dataset_passes_every_check",),
         ("panel/test_asof::test_broken_key_join_is_refused",
          "dataset/test_quality::test_an_audit_that_saw_nothing_or_a_violation_fails")),
    Case("Q5", "a filter that removes every record", ("panel/test_asof::test_audit_counts_what_was_seen",),
         ("dataset/test_quality::test_an_audit_that_saw_nothing_or_a_violation_fails",)),
    Case("Q6", "sector codes joined to stock codes; a fraction divided by 100", (),
         ("panel/test_asof::test_broken_key_join_is_refused",
          "dataset/test_quality::test_a_value_outside_its_range_is_found"),
         {"ss": (f"{SHORTS}::test_sector_and_market_shares_of_a_day",
                 f"{SHORTS}::test_unknown_sector_codes_are_a_broken_join")}),
    Case("Q7", "many reporters of a code reduced to the last row", (), (RERUN,),
         {"ss": (f"{SHORTS}::test_two_holders_add_up",)}),
    Case("Q8", "wrong endpoint or field names: columns null for weeks",
         ("jquants/test_decode::test_declared_column_counts_are_those_of_the_specification",),
         ("jquants/test_ingest::test_a_dropped_column_is_named_and_nothing_is_stored",
          "jquants/test_decode::test_a_missing_column_is_named_with_table_date_and_remedy")),
    Case("Q9", "missing source columns replaced by 0",
         ("features/test_golden_flow::test_cells_are_what_the_records_of_the_day_say",),
         ("features/test_flow_records::test_missing_source_field_is_named",
          "features/test_statement_events::test_missing_source_field_is_named")),
    Case("Q10", "wrong market codes; unmapped stocks filled with 0",
         ("features/test_base_values::test_dictionary_of_listing_attributes",
          "features/test_flow::test_every_market_code_has_a_section"),
         ("features/test_flow::test_unknown_market_has_no_section_and_is_not_filled",)),
    Case("Q11", "weekly windows counted in rows",
         ("features/test_flow_records::test_yearly_score_is_known_after_26_weeks_and_not_before",
          "features/test_flow_records::test_yearly_score_is_taken_over_the_last_52_weekly_records"), (RERUN,),
         {"wm": ("features/test_margin::test_z52_counts_weekly_records_and_needs_twenty_six",
                 "features/test_margin::test_daily_balances_are_read_once_a_week_and_a_day_earlier")}),
    Case("Q12", "lagged twice, or not at all", (FORMULA, "features/test_base_values::test_returns_look_back"),
         (WRONG_FORMULA,)),
    Case("Q13", "a trailing year as the sum of the last four documents",
         ("features/test_statement_events::test_trailing_year_is_the_sum_of_four_single_quarters_around_a_mid_year_forecast",
          "features/test_golden_statements::test_cells_are_what_the_documents_of_the_day_say"), (RERUN,)),
    Case("Q14", "document types matched by the wrong words",
         ("features/test_statement_events::test_every_document_type_feeds_its_streams",), (RERUN,)),
    Case("Q15", "buys minus sells of a breakdown, identically 0", (), (RERUN,),
         {"bd": ("features/test_breakdown::test_shares_of_a_day",
                 "features/test_breakdown::test_the_two_sides_of_every_trade_cancel")}),
    Case("Q16", "a forecast revision across fiscal years; forecasts that blank results",
         ("features/test_statement_events::test_revision_compares_the_same_target_year_across_the_roll_over",
          "features/test_statements::test_forecast_document_blanks_nothing"), (RERUN,)),
    Case("Q17", "settlement distance on settlement days only; month-ends that never come",
         ("features/test_base_calendar::test_golden_values",
          "features/test_base_calendar::test_settlement_days_are_where_the_distance_is_zero"), (RERUN,)),
    Case("Q18", "loanable issues dropped from margin eligibility",
         ("features/test_base_values::test_dictionary_of_listing_attributes",), (RERUN,)),
    Case("Q19", "ordinal ranks; nulls counted; constants ranked",
         ("panel/test_cs_operators::test_rank_gives_ties_their_average_and_skips_nulls",
          "panel/test_cs_operators::test_constants_share_the_middle_rank"), (RERUN,)),
    Case("Q20", "beta on yesterday's market return; one window passed off as another",
         ("features/test_exposure::test_beta_is_that_of_the_same_day", FORMULA),
         ("features/test_exposure::test_yesterdays_market_would_be_noticed",)),
    Case("Q21", "volatility estimators summed, without their terms or not annualised",
         ("features/test_base_volatility::test_whole_day_estimators_find_the_true_volatility",
          "features/test_base_volatility::test_range_estimators_find_the_session_volatility"), (WRONG_FORMULA,),
         {"fut": ("features/test_futures::test_values_of_a_day_are_known_on_the_next_trading_day",)}),
    Case("Q22", "RSI, ATR and ADX with another smoothing than Wilder's",
         ("features/test_base_indicators::test_smoothing_reproduces_the_published_rsi_from_the_published_seed",
          "features/test_base_indicators::test_atr_and_adx_follow_wilder"), (WRONG_FORMULA,)),
    Case("Q23", "futures returns across a contract roll", (), (),
         {"fut": ("features/test_futures::test_a_roll_is_no_return",
                  "features/test_futures::test_a_contract_is_compared_with_its_own_previous_date_only")}),
    Case("Q24", "implied volatility interpolated on the wrong axis; margin-trigger rows kept", (), (),
         {"opt": ("features/test_options::test_a_flat_surface_has_the_same_volatility_at_all_maturities",
                  "features/test_options::test_total_variance_is_linear_between_expiries",
                  "features/test_options::test_rows_of_an_emergency_and_series_that_nobody_holds_do_not_count")}),
    Case("Q25", "ids from the sorted codes of the data at hand",
         ("features/test_base_values::test_dictionary_of_listing_attributes",
          "panel/test_panel::test_ids_come_from_constants_and_the_date_itself"), (RERUN,)),
    Case("Q26", "the morning bar compared with the wrong close", (), (),
         {"ses": ("features/test_sessions::test_the_morning_gap_is_against_yesterday_s_close_in_today_s_shares",)}),
    Case("Q27", "dividends joined by equality: a value on one day only",
         ("panel/test_asof::test_newest_available_event_holds_until_the_next",), (),
         {"div": ("features/test_dividends::test_values_persist_between_notices",)}),
    Case("Q28", "a warm-up shorter than the longest window",
         ("features/test_catalog::test_warm_up_covers_the_longest_declared_window",), (RERUN,)),
    Case("Q29", "a missing dependency or a failing group makes columns vanish",
         ("whole/test_whole_run::test_the_dataset_has_exactly_the_catalogues_columns",),
         ("dataset/test_assemble::test_a_missing_group_is_named_and_nothing_is_written",
          "whole/test_gates::test_a_missing_feature_group_stops_the_dataset_and_training")),
    Case("Q30", "ids that become nulls or other columns' values",
         ("lake/test_store::test_what_was_written_is_read_back_with_its_record",),
         ("dataset/test_assemble::test_an_integer_column_that_cannot_hold_its_values_is_refused",
          "dataset/test_quality::test_all_null_and_constant_columns_are_found")),
    Case("Q31", "the frame in memory is checked, another one is written",
         ("dataset/test_assemble::test_the_files_hold_exactly_the_contract_in_spine_order",),
         ("dataset/test_assemble::test_a_file_exchanged_behind_the_metadata_is_refused",)),
    Case("Q32", "a date column of another type fails a join",
         ("jquants/test_decode::test_dates_come_out_as_dates_from_timestamps_and_from_text",),
         ("jquants/test_decode::test_a_value_that_is_no_number_is_an_error_with_an_example",
          "dataset/test_assemble::test_groups_of_different_panels_are_not_joined")),
    Case("Q33", "codes crossed with days; an empty dataset saved as success",
         ("dataset/test_quality::test_rows_per_date_compares_with_the_listing_not_with_itself",),
         ("dataset/test_quality::test_rows_that_vanished_from_a_date_are_found",)),
    Case("Q34", "leftovers of joins, duplicated columns",
         ("dataset/test_assemble::test_the_files_hold_exactly_the_contract_in_spine_order",),
         ("dataset/test_assemble::test_labels_and_leftovers_of_joins_are_no_inputs",
          "features/test_catalog::test_t47_bad_names_are_refused")),
    Case("Q35", "null filled with 0 or 999", (FORMULA,), (WRONG_FORMULA,)),
    Case("Q36", "a label check that is meaningless or always red",
         ("dataset/test_labels::test_label_is_null_only_near_the_end_or_next_to_a_null_close",),
         ("leak/test_everything::test_the_same_comparison_catches_every_label",
          "features/test_catalog::test_unknown_plan_is_refused_with_the_known_ones")),
    Case("Q37", "share counts not in the units of the volume they are divided by",
         ("features/test_statements::test_split_moves_neither_share_turnover_nor_market_value",
          "features/test_statements::test_shares_counted_after_a_split_are_taken_in_their_own_units"), (RERUN,),
         {"wm": ("features/test_margin::test_a_split_in_the_middle_of_a_week_changes_no_ratio",),
          "dm": (f"{ALERTS}::test_a_split_changes_no_ratio",)}),
    Case("Q38", "results that depend on the order of rows",
         ("panel/test_asof::test_result_does_not_depend_on_the_input_order",
          "leak/test_late_groups::test_order_of_the_delivered_rows_changes_nothing"), (RERUN,)),
)  # fmt: skip


def proof(proven: int) -> str:
    """How many columns of the largest plan are proven; the test of that name counts them and looks for this line."""
    columns = len(catalog.expected_columns("premium"))
    return f"Columns proven bit-equal under poison and truncation: {proven} of {columns}."


def render() -> str:
    """docs/leaks.md, with a newline at its end."""
    whole = catalog.columns("premium")
    roles = {role: sum(entry.role == role for entry in whole) for role in ("feature", "key", "label")}
    lines = [
        "# Leaks and faults that must not come back",
        "",
        f"Generated: `{COMMAND}`. Each fault happened once in a pipeline like this one. The third column is what holds",
        "it off; the fourth plants the fault and sees the guard fire. Tests are below `atft_pipeline_tests/`; a group",
        "in brackets owes its own tests when it joins the catalogue.",
        "",
        proof(len(whole)),
        f"The {roles['feature']} inputs and {roles['key']} keys on every row up to the cut, "
        f"the {roles['label']} labels up to their horizon before it,",
        f"at two cuts: {_code(INVARIANCE)}; counted by {_code(PROOF)};",
        f"the same comparison names each column that is planted to see the future: {_code(PLANTED)}.",
        "",
        "| case | fault | tests | planted faults |",
        "|---|---|---|---|",
    ]
    for case in CASES:
        own = [f"{group}: {_names(tests)}" if tests else f"[{group}]" for group, tests in case.groups.items()]
        tests = "<br>".join([*map(_code, case.tests), *own])
        lines.append(f"| {case.id} | {case.fault} | {tests} | {'<br>'.join(map(_code, case.faults))} |")
    return "\n".join(lines) + "\n"


def _names(tests: tuple[str, ...]) -> str:
    return ", ".join(map(_code, tests))


def _code(test: str) -> str:
    return f"`{test}`"


if __name__ == "__main__":
    print(render(), end="")
