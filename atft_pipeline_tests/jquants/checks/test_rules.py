"""Every row rule passes on a sound row and fires on its planted fault, with its own severity and no other rule's."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import polars as pl
import pytest

from atft_pipeline.jquants.checks.judge import RULES
from atft_pipeline.jquants.checks.rows import Rows
from atft_pipeline.jquants.checks.rule import Rule
from atft_pipeline.jquants.checks.scan import Month
from atft_pipeline.jquants.table import Table
from atft_pipeline.jquants.tables import TABLES
from atft_pipeline.lake.store import Record
from atft_pipeline.verdict import Verdict
from atft_pipeline_tests.jquants.checks.sound import DAY, SOUND

C = pl.col
LATER = DAY + timedelta(days=300)

FAULTS: list[tuple[str, str, dict[str, Any]]] = [
    ("calendar", "division_known", {"HolDiv": "4"}),
    ("master", "markets_known", {"Mkt": "0199"}),
    ("master", "sectors_known", {"S33": "5"}),
    ("master", "margin_class_known", {"Mrgn": "9"}),
    ("bars_daily", "prices_ordered", {"H": C("C") - 1, "Va": C("L") * C("Vo"), "AdjH": C("AdjC") - 0.5}),
    ("bars_daily", "nulls_together", {"Vo": None, "AdjVo": None}),
    ("bars_daily", "nulls_together", {"Vo": C("Vo") * 0, "Va": C("Va") * 0, "AdjVo": C("AdjVo") * 0}),
    ("bars_daily", "value_within_prices", {"Va": C("Va") / 1000}),
    ("bars_daily", "factor_positive", {"AdjFactor": 0.0}),
    ("bars_daily", "factor_positive", {"AdjFactor": None}),
    ("bars_daily", "adjusted_follow_raw", {"AdjH": C("AdjO")}),
    ("bars_daily", "adjusted_follow_raw", {"AdjVo": C("Vo")}),
    ("bars_daily", "flags_known", {"UL": "2"}),
    ("topix", "prices_ordered", {"L": 2705.0}),
    ("topix", "close_positive", {"O": -3.0, "H": 0.0, "L": -5.0, "C": 0.0}),
    ("indices", "prices_ordered", {"H": 2600.0}),
    ("investor_types", "totals_add_up", {"FrgnTot": C("FrgnTot") + 10}),
    ("investor_types", "balances_add_up", {"IndBal": -C("IndBal") - 1000}),
    ("investor_types", "brokerage_adds_up", {"BankSell": 0.0, "BankTot": C("BankBuy"), "BankBal": C("BankBuy")}),
    ("investor_types", "published_after_the_week", {"EnDate": DAY}),
    ("margin_interest", "volumes_add_up", {"ShrtStdVol": 1400.0}),
    ("margin_interest", "values_add_up", {"LongVal": C("LongVal") * 2}),
    ("margin_interest", "volumes_not_negative", {"LongVol": -1000.0, "LongNegVol": -2300.0}),
    ("margin_interest", "published_later", {"PubDate": C("Date")}),
    ("margin_interest", "issue_type_known", {"IssType": "0"}),
    ("margin_alert", "balances_add_up", {"LongStdOut": "1301"}),
    ("margin_alert", "published_later", {"AppDate": LATER}),
    ("margin_alert", "balances_not_negative", {"ShrtOut": "-100", "ShrtNegOut": "-1400"}),
    ("margin_alert", "regulation_known", {"TSEMrgnRegCls": "7"}),
    ("short_ratio", "amounts_not_negative", {"ShrtNoResVa": -1.0}),
    ("short_ratio", "sellers_exist", {"SellExShortVa": None}),
    ("short_sale_report", "ratio_sane", {"ShrtPosToSO": 1.5}),
    ("short_sale_report", "disclosed_after_calculation", {"CalcDate": LATER}),
    ("short_sale_report", "small_positions_are_exits", {"ShrtPosToSO": 0.002, "PrevRptRatio": None}),
    ("short_sale_report", "previous_is_earlier", {"PrevRptDate": LATER}),
    ("breakdown", "sells_equal_buys", {"LongSellVo": 501.5}),
    ("breakdown", "sells_equal_buys", {"MrgnBuyNewVa": 0.0}),
    ("breakdown", "amounts_not_negative", {"LongBuyVo": -600.0, "MrgnBuyNewVo": 1400.0}),
    ("options_225", "prices_ordered", {"EH": C("EH") - 20}),
    ("options_225", "amounts_not_negative", {"OI": -1.0}),
    ("options_225", "margin_division_known", {"EmMrgnTrgDiv": "003"}),
    ("options_225", "put_or_call", {"PCDiv": "3"}),
    ("options_225", "implied_volatility_sane", {"IV": 1720.0}),
    ("options_225", "implied_volatility_given", {"IV": 0.0}),
    ("options_225", "underlying_positive", {"UnderPx": 0.0}),
    ("futures", "prices_ordered", {"AL": 1000.0}),
    ("futures", "amounts_not_negative", {"Vo": -1.0}),
    ("fin_summary", "period_before_disclosure", {"CurPerEn": LATER}),
    ("fin_summary", "period_in_order", {"CurFYSt": LATER}),
    ("fin_summary", "time_readable", {"DiscTime": "25:00:00"}),
    ("fin_summary", "period_type_known", {"CurPerType": "6Q"}),
    ("fin_summary", "equity_ratio_sane", {"EqAR": 40.0}),
    ("fin_details", "time_readable", {"DiscTime": ""}),
    ("fin_details", "statement_not_empty", {"FS": "{}"}),
    ("dividend", "codes_known", {"FRCode": "3"}),
    ("dividend", "corrections_name_their_notice", {"CARefNo": "-"}),
    ("dividend", "rate_not_negative", {"DivRate": "-5"}),
    ("dividend", "ex_before_record", {"ExDate": "2024-10-01"}),
    ("earnings_date", "quarter_known", {"FQName": "5Q"}),
    ("earnings_date", "scheduled_ahead", {"SchDate": DAY - timedelta(days=1)}),
]


def _table(name: str) -> Table:
    """The declared table, or a stand-in with the keys that the examples are named by."""
    keys = tuple(key for key in ("Date", "PubDate", "DiscDate", "Code", "S33") if key in SOUND[name]().columns)
    known = TABLES.get(name)
    return known or Table(name, f"/{name}", keys, keys[0], {}, "premium", "day", lambda c, a, b: None, "")  # type: ignore[arg-type,return-value]


def judged(name: str, frame: pl.DataFrame) -> dict[str, Verdict]:
    rows = Rows(_table(name), RULES[name])
    rows.add(Month("2024-05", Record(frame.height, {}, (), "", {}), frame))
    return rows.verdicts()


def rule_of(table: str, name: str) -> Rule:
    return next(rule for rule in RULES[table] if rule.name == name)


@pytest.mark.parametrize("name", RULES)
def test_sound_rows_break_no_rule(name: str) -> None:
    for verdict in judged(name, SOUND[name]()).values():
        assert verdict.passed and verdict.got == 0, verdict.message


@pytest.mark.parametrize(("name", "check", "fault"), FAULTS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_planted_fault_fires_its_rule_alone(name: str, check: str, fault: dict[str, Any]) -> None:
    sound = SOUND[name]()
    values = {
        k: v.cast(sound.schema[k]) if isinstance(v, pl.Expr) else pl.lit(v, sound.schema[k]) for k, v in fault.items()
    }
    verdicts = judged(name, sound.with_columns(**values))
    found = verdicts[check]
    assert not found.passed and found.got >= 1
    assert found.severity == rule_of(name, check).severity
    assert "e.g." in found.message and found.details["examples"]
    assert [other for other, verdict in verdicts.items() if not verdict.passed] == [check]


def test_every_rule_has_a_planted_fault() -> None:
    planted = {(name, check) for name, check, _ in FAULTS}
    shared = {("indices", "close_positive"), ("futures", "margin_division_known")}  # tested under topix, options_225
    rules = {(name, rule.name) for name, rules in RULES.items() for rule in rules}
    assert rules - planted == shared | {("investor_types", "amounts_not_negative")}


def test_negative_flows_are_found() -> None:
    flipped = SOUND["investor_types"]().with_columns(PropSell=pl.lit(-500.0))
    assert not judged("investor_types", flipped)["amounts_not_negative"].passed


@pytest.mark.parametrize("name", [name for name in RULES if name in TABLES])
def test_rules_name_columns_that_the_table_declares(name: str) -> None:
    table = TABLES[name]
    declared = {*table.schema, *table.optional}
    assert [c for rule in RULES[name] for c in rule.columns if c not in declared] == []


def test_one_odd_row_among_very_many_only_warns() -> None:
    sound = SOUND["bars_daily"]().drop_nulls("C").sample(120_000, with_replacement=True, seed=1)
    fault = pl.when(pl.int_range(pl.len()) == 0).then(C("L") - 100).otherwise(C("H"))
    verdict = judged("bars_daily", sound.with_columns(H=fault))["prices_ordered"]
    assert (verdict.passed, verdict.severity, verdict.got) == (False, "warn", 1.0)


def test_oddities_pass_up_to_their_usual_share() -> None:
    """Half of the options may lack an implied volatility before that is worth a warning."""
    half = SOUND["options_225"]().with_columns(IV=pl.Series([0.0, 20.0]))
    verdict = judged("options_225", half)["implied_volatility_given"]
    assert verdict.passed and verdict.got == 1


def test_a_rule_whose_column_is_gone_fails() -> None:
    verdict = judged("bars_daily", SOUND["bars_daily"]().drop("Vo"))["nulls_together"]
    assert not verdict.passed and verdict.severity == "error" and "Vo" in verdict.message


def test_rules_hold_on_numbers_as_text() -> None:
    text = SOUND["breakdown"]().with_columns(pl.col(pl.Float64).cast(pl.String))
    assert all(verdict.passed for verdict in judged("breakdown", text).values())
    broken = text.with_columns(LongSellVo=pl.lit("501.5"))
    assert not judged("breakdown", broken)["sells_equal_buys"].passed


def test_periods_are_compared_only_for_results() -> None:
    revision = SOUND["fin_summary"]().with_columns(
        DocType=pl.lit("EarnForecastRevision"), CurPerEn=pl.lit(date(2030, 3, 31))
    )
    assert judged("fin_summary", revision)["period_before_disclosure"].passed
