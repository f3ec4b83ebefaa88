"""Weekly margin columns: golden values, publication days, windows over weeks, splits, nulls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from atft_pipeline.features.group import Inputs, compute_group
from atft_pipeline.features.margin import GROUP
from atft_pipeline.panel.panel import Panel
from atft_pipeline.verdict import ContractBroken
from atft_pipeline_tests.synthetic import START, calendar_frame, one_code_panel, trading_days
from atft_pipeline_tests.synthetic_events import document, typed
from atft_pipeline_tests.synthetic_trading import balance, typed_rows

CODE = "13010"
DAYS = trading_days(calendar_frame(START, date(2023, 12, 1)))
FILING = document(CODE, date(2022, 1, 4), "FY", 2021, "09:00:00", ShOutFY=1e6, TrShFY=1e5, Sales=1.0)
FRIDAYS = [a for a, b in pairwise(DAYS) if a.isocalendar()[:2] != b.isocalendar()[:2]]
"""The last session of each week."""


def columns(rows: Sequence[Mapping[str, object]], panel: Panel | None = None) -> dict[str, NDArray[np.float32]]:
    panel = panel or one_code_panel(DAYS, [100.0] * len(DAYS))
    tables = {"margin_interest": typed_rows("margin_interest", rows), "fin_summary": typed("fin_summary", [FILING])}
    return {name: values[:, 0] for name, values in compute_group(GROUP, Inputs(panel, tables)).items()}


def at(day: date) -> int:
    return DAYS.index(day)


def test_values_of_a_week_with_its_predecessors() -> None:
    long = [16_000.0, 18_000.0, 19_000.0, 20_000.0, 30_000.0]
    weeks = FRIDAYS[9:14]
    found = columns([balance(CODE, day, x, 5_000.0) for day, x in zip(weeks, long, strict=True)])
    row = at(weeks[-1]) + 3
    wanted = {
        "wm_long_to_adv20": 30.0,  # 1,000 shares trade a day
        "wm_short_to_adv20": 5.0,
        "wm_net_to_adv20": 25.0,
        "wm_long_to_shares": 30_000 / 900_000,
        "wm_short_to_shares": 5_000 / 900_000,
        "wm_ratio_log": np.log(30_100 / 5_100),
        "wm_imbalance": 25 / 35,
        "wm_long_chg_1w": 10_000 / 5_000,
        "wm_short_chg_1w": 0.0,
        "wm_long_chg_4w": np.log(30_100 / 16_100),
        "wm_std_share_long": 0.75,
        "wm_std_share_short": 0.5,
        "wm_staleness_td": 0.0,
        "wm_valid": 1.0,
    }
    assert {name: found[name][row] for name in wanted} == pytest.approx(wanted, rel=1e-6)
    assert np.isnan(found["wm_long_z52"]).all()  # five weeks are not 26
    assert np.isnan(found["wm_long_chg_4w"][row - 1])  # the week before has three predecessors


def test_a_week_is_known_three_trading_days_after_its_friday() -> None:
    friday = date(2022, 7, 15)  # Monday the 18th is a holiday
    found = columns([balance(CODE, friday, 9_000.0, 1_000.0)])
    first = int(np.flatnonzero(np.isfinite(found["wm_imbalance"]))[0])
    assert DAYS[first] == date(2022, 7, 21)
    assert found["wm_staleness_td"][first] == 0 and np.isnan(found["wm_staleness_td"][first - 1])


def test_values_end_after_fifteen_trading_days_and_validity_after_ten() -> None:
    found = columns([balance(CODE, FRIDAYS[20], 9_000.0, 1_000.0)])
    first = at(FRIDAYS[20]) + 3
    assert np.isfinite(found["wm_imbalance"][first : first + 16]).all()
    assert np.isnan(found["wm_imbalance"][first + 16 :]).all()
    assert found["wm_valid"][first - 1 : first + 12].tolist() == [0.0] + [1.0] * 11 + [0.0]
    assert found["wm_staleness_td"][first + 40] == 40


@pytest.mark.parametrize(("weeks_between", "known"), [(1, True), (2, True), (3, False)])
def test_a_change_needs_a_record_of_the_week_or_two_before(weeks_between: int, known: bool) -> None:
    rows = [balance(CODE, FRIDAYS[30 - weeks_between], 8_000.0, 1_000.0), balance(CODE, FRIDAYS[30], 9_000.0, 1_500.0)]
    found = columns(rows)
    row = at(FRIDAYS[30]) + 3
    assert np.isfinite(found["wm_long_chg_1w"][row]) == np.isfinite(found["wm_short_chg_1w"][row]) == known


def test_z52_counts_weekly_records_and_needs_twenty_six() -> None:
    rng = np.random.default_rng(2)
    long = np.round(rng.uniform(1e4, 5e4, 70))
    found = columns([balance(CODE, day, x, 2 * x) for day, x in zip(FRIDAYS[4:74], long, strict=True)])
    for week in (25, 40, 69):
        window = np.log1p(long[max(0, week - 51) : week + 1])
        z = (window[-1] - window.mean()) / window.std(ddof=1)
        assert found["wm_long_z52"][at(FRIDAYS[4 + week]) + 3] == pytest.approx(z, rel=1e-5)
    assert np.isnan(found["wm_long_z52"][at(FRIDAYS[4 + 24]) + 3])
    constant = columns([balance(CODE, day, 7e3, 7e3) for day in FRIDAYS[4:74]])
    assert np.isnan(constant["wm_short_z52"]).all()


def test_daily_balances_are_read_once_a_week_and_a_day_earlier() -> None:
    weekly = [balance(CODE, day, 10_000.0 + n, 1_000.0) for n, day in enumerate(FRIDAYS[:60])]
    later = DAYS[at(FRIDAYS[59]) + 1 : at(FRIDAYS[70]) + 1]
    daily = [balance(CODE, day, 50_000.0 + 100 * n, 1_000.0, DAYS[at(day) + 1]) for n, day in enumerate(later)]
    found = columns([*weekly, *daily])
    row = at(FRIDAYS[66]) + 2  # published the day after the Friday, known the day after that
    level = {day: 50_000.0 + 100 * n for n, day in enumerate(later)}
    assert found["wm_long_to_adv20"][row] == pytest.approx(level[FRIDAYS[66]] / 1000)
    assert found["wm_long_to_adv20"][row - 1] == pytest.approx(level[FRIDAYS[65]] / 1000)
    gain = level[FRIDAYS[66]] - level[FRIDAYS[65]]
    assert found["wm_long_chg_1w"][row] == pytest.approx(gain / 5_000, rel=1e-5)
    assert found["wm_staleness_td"][row] == 0


def test_a_split_in_the_middle_of_a_week_changes_no_ratio() -> None:
    ex = at(FRIDAYS[40]) + 4
    factor = [1.0] * len(DAYS)
    factor[ex] = 0.2
    volume = [1000.0 if t < ex else 5000.0 for t in range(len(DAYS))]
    close = [100.0 if t < ex else 20.0 for t in range(len(DAYS))]
    panel = one_code_panel(DAYS, close, Vo=volume, AdjFactor=factor)
    rows = [balance(CODE, day, 30_000.0, 5_000.0) for day in FRIDAYS[30:41]]
    rows += [balance(CODE, day, 150_000.0, 25_000.0) for day in FRIDAYS[41:50]]
    found = columns(rows, panel)
    span = slice(at(FRIDAYS[34]) + 3, at(FRIDAYS[49]))
    for name, value in (("wm_long_to_adv20", 30.0), ("wm_long_chg_1w", 0.0), ("wm_long_chg_4w", 0.0)):
        np.testing.assert_allclose(found[name][span], value, rtol=1e-6, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(found["wm_long_to_shares"][span], 30_000 / 900_000, rtol=1e-6)


def test_empty_balances_are_null_where_a_share_of_them_is_asked() -> None:
    found = columns([balance(CODE, FRIDAYS[20], 0.0, 0.0)])
    row = at(FRIDAYS[20]) + 3
    assert found["wm_ratio_log"][row] == 0.0
    for name in ("wm_imbalance", "wm_std_share_long", "wm_std_share_short"):
        assert np.isnan(found[name][row])


def test_rows_of_other_codes_only_are_a_broken_join() -> None:
    with pytest.raises(ContractBroken, match="margin_interest: none of 1 rows belongs to a code of the panel"):
        columns([balance("99990", FRIDAYS[20], 1.0, 1.0)])
