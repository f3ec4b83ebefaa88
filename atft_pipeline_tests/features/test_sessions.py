"""Morning and afternoon columns by hand, with a split between two days."""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from atft_pipeline.features.group import Inputs, compute_group
from atft_pipeline.features.sessions import FIELDS, GROUP
from atft_pipeline.jquants.tables import BARS_DAILY
from atft_pipeline.verdict import ContractBroken
from atft_pipeline_tests.synthetic import one_code_panel
from atft_pipeline_tests.synthetic_events import weekdays

DAYS = weekdays(30, date(2024, 1, 4))
SPLIT = 25
CLOSE = [100.0] * SPLIT + [50.0] * (len(DAYS) - SPLIT)


def bars(**changed: dict[int, float | str | None]) -> pl.DataFrame:
    """Every morning 102 to 104 within 101..105, afternoons 103 to 100 within 99..104; half after the split."""
    plain = {"MO": 102, "MH": 105, "ML": 101, "MC": 104, "MVo": 400, "AO": 103, "AH": 104, "AL": 99, "AC": 100}
    columns: dict[str, list[object]] = {"Date": list(DAYS), "Code": ["13010"] * len(DAYS)}
    for name, value in plain.items():
        unit = 2.0 if name == "MVo" else 0.5
        columns[name] = [float(value) * (unit if at >= SPLIT else 1.0) for at in range(len(DAYS))]
    columns |= {"MUL": ["0"] * len(DAYS), "MLL": ["0"] * len(DAYS)}
    for name, cells in changed.items():
        for at, cell in cells.items():
            columns[name][at] = cell
    types = {name: BARS_DAILY.optional[name] for name in FIELDS}
    return pl.DataFrame(columns, schema_overrides=types)


def columns_of(table: pl.DataFrame) -> dict[str, NDArray[np.float32]]:
    factor = [0.5 if at == SPLIT else 1.0 for at in range(len(DAYS))]
    panel = one_code_panel(DAYS, CLOSE, AdjFactor=factor)
    return {name: v[:, 0] for name, v in compute_group(GROUP, Inputs(panel, {"bars_daily": table})).items()}


def test_each_column_by_hand() -> None:
    value = columns_of(bars())
    at = 24
    expected = {
        "ses_am_gap": 102 / 100 - 1, "ses_am_ret": 104 / 102 - 1, "ses_am_range": np.log(105 / 101),
        "ses_am_close_loc": (2 * 104 - 105 - 101) / 4, "ses_am_vol_share": 0.4, "ses_am_vol_ratio_20": 1.0,
        "ses_lunch_gap": 103 / 104 - 1, "ses_pm_ret": 100 / 103 - 1, "ses_pm_range": np.log(104 / 99),
        "ses_pm_close_loc": (2 * 100 - 104 - 99) / 5, "ses_pm_am_diff": 100 / 103 - 104 / 102,
        "ses_am_ret_sum_20": 20 * (104 / 102 - 1), "ses_pm_ret_sum_20": 20 * (100 / 103 - 1), "ses_am_limit": 0.0,
    }  # fmt: skip
    assert list(value) == list(expected)
    for name, wanted in expected.items():
        assert value[name][at] == pytest.approx(wanted, rel=1e-4), name


def test_the_morning_gap_is_against_yesterday_s_close_in_today_s_shares() -> None:
    gaps = columns_of(bars())["ses_am_gap"]
    assert gaps[SPLIT] == pytest.approx(51 / (100 * 0.5) - 1, rel=1e-4)  # 102 / 100 - 1 again: the split is no move
    raw = 51 / 100 - 1
    assert abs(gaps[SPLIT] - raw) > 0.4  # what the raw close of yesterday would say
    assert columns_of(bars())["ses_am_vol_ratio_20"][SPLIT] == pytest.approx(1.0)


def test_a_missing_session_is_null_and_a_range_of_zero_is_the_middle() -> None:
    none = dict.fromkeys((10,))
    value = columns_of(bars(MO=none, MH=none, ML=none, MC=none, MVo=none))
    missing = [name for name in value if np.isnan(value[name][10])]
    assert missing == ["ses_am_gap", "ses_am_ret", "ses_am_range", "ses_am_close_loc", "ses_am_vol_share",
                       "ses_am_vol_ratio_20", "ses_lunch_gap", "ses_pm_am_diff", "ses_am_ret_sum_20",
                       "ses_pm_ret_sum_20"]  # fmt: skip
    still = columns_of(bars(MO={10: 101.0}, MH={10: 101.0}, ML={10: 101.0}, MC={10: 101.0}))
    assert still["ses_am_close_loc"][10] == 0.0 and still["ses_am_range"][10] == 0.0


def test_limits_of_the_morning() -> None:
    value = columns_of(bars(MUL={3: "1"}, MLL={4: "1", 5: None}))["ses_am_limit"]
    np.testing.assert_array_equal(value[2:6], [0, 1, -1, np.nan])


def test_a_plan_without_the_columns_is_told() -> None:
    with pytest.raises(ContractBroken, match="bars_daily lacks the columns MO"):
        columns_of(bars().drop("MO"))
