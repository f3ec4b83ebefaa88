"""A worked example of every statement column: one company, ten results, each number computed by hand.

Single quarters in thousand yen:

    year   sales             OP                NP                  total assets, equity
    2020   10  20  30  40    1    2    3  4    1  1    1    2      180, 60
    2021   12  22  33  43    1.5  2.5  3  5    1  1.5  1.5  2      200, 80   cash flow of the year 7.5
    2022   15  25            2    3            1  2                240, 100

With the year 2021 it expects an OP of 14 for 2022, and 16 with the second quarter. It has 110 shares, 10 of its own,
at 500 yen: a market value of 50 thousand. Two shares change hands a day.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from itertools import accumulate

import numpy as np
import pytest
from numpy.typing import NDArray

from atft_pipeline.features.group import Inputs, compute_group
from atft_pipeline.features.statements import GROUP
from atft_pipeline.jquants.tables import OUTAGE_DAYS
from atft_pipeline_tests.synthetic import calendar_frame, one_code_panel, trading_days
from atft_pipeline_tests.synthetic_events import Row, document, typed

DAYS = [day for day in trading_days(calendar_frame(date(2020, 4, 1), date(2022, 9, 30))) if day not in OUTAGE_DAYS]
RESULT_DAY = date(2022, 8, 10)
RESULTS: dict[int, tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...], float, float]] = {
    2020: ((10, 20, 30, 40), (1, 2, 3, 4), (1, 1, 1, 2), 180, 60),
    2021: ((12, 22, 33, 43), (1.5, 2.5, 3, 5), (1, 1.5, 1.5, 2), 200, 80),
    2022: ((15, 25), (2, 3), (1, 2), 240, 100),
}
AHEAD: dict[tuple[int, str], dict[str, float]] = {
    (2021, "FY"): {"CFO": 7500, "NxFOP": 14_000, "NxFNp": 7000, "NxFDivAnn": 10},
    (2022, "1Q"): {"FOP": 14_000, "FNP": 7000, "FDivAnn": 10},
    (2022, "2Q"): {"FOP": 16_000, "FNP": 8000, "FDivAnn": 12},
}

TEN_DAYS_LATER = {
    "fs_sales_q_yoy": 0.127659574,  # 2 (25 - 22)/(25 + 22)
    "fs_op_q_yoy": 0.181818182,  # 2 (3 - 2.5)/5.5
    "fs_np_q_yoy": 0.285714286,  # 2 (2 - 1.5)/3.5
    "fs_sales_ttm_yoy": 0.109090909,  # 40 + 110 - 34 = 116 against 34 + 100 - 30 = 104
    "fs_op_ttm_yoy": 0.166666667,  # 5 + 12 - 4 = 13 against 4 + 10 - 3 = 11
    "fs_op_margin_ttm": 0.112068966,  # 13/116
    "fs_op_margin_ttm_chg": 0.006299735,  # 13/116 - 11/104
    "fs_roe_ttm": 0.072222222,  # 3 + 6 - 2.5 = 6.5 over (100 + 80)/2
    "fs_roa_ttm": 0.029545455,  # 6.5 over (240 + 200)/2
    "fs_equity_ratio": 0.416666667,  # 100/240
    "fs_share_turnover_20": 0.02,  # 2/100
    "fs_accruals_fy": -0.0075,  # (6 - 7.5)/200
    "fs_fc_op_progress": 0.3125,  # 5/16
    "fs_fc_op_progress_gap": -0.020833333,  # 5/16 - 4/12
    "fs_fc_op_growth": 0.285714286,  # 2 (16 - 12)/28
    "fs_fc_rev_op": 0.133333333,  # 2 (16 - 14)/30
    "fs_fc_rev_np": 0.133333333,  # 2 (8 - 7)/15
    "fs_fc_rev_net_cnt_240": 1,
    "fs_fc_dps_rev": 0.181818182,  # 2 (12 - 10)/22
    "fs_log_mcap": 10.819778284,  # ln 50,000
    "fs_earnings_yield_ttm": 0.13,  # 6.5/50
    "fs_book_to_price": 2,  # 100/50
    "fs_fc_earnings_yield": 0.16,  # 8/50
    "fs_fc_div_yield": 0.024,  # 12/500
    "fs_staleness_td": 10,
    "fs_valid": 1,
}
"""Column -> its value on the tenth trading day after the second quarter of 2022 was disclosed."""


def results() -> Iterator[Row]:
    """Each result 40 days after its quarter, at 14:00; values accumulate within the year."""
    for year, (sales, op, np_, assets, equity) in RESULTS.items():
        days = (date(year, 5, 10), RESULT_DAY.replace(year=year), date(year, 11, 10), date(year + 1, 2, 10))
        for n, values in enumerate(zip(*map(accumulate, (sales, op, np_)), strict=True)):
            kind = ("1Q", "2Q", "3Q", "FY")[n]
            flows = {name: 1000 * value for name, value in zip(("Sales", "OP", "NP"), values, strict=True)}
            levels = {"TA": 1000 * assets, "Eq": 1000 * equity, "ShOutFY": 110.0, "TrShFY": 10.0}
            ahead = AHEAD.get((year, kind), {})
            yield document("13010", days[n], kind, year, "14:00:00", **flows, **levels, **ahead)


@pytest.fixture(scope="module")
def columns() -> dict[str, NDArray[np.float32]]:
    panel = one_code_panel(DAYS, [500.0] * len(DAYS), Vo=[2.0] * len(DAYS))
    built = compute_group(GROUP, Inputs(panel, {"fin_summary": typed("fin_summary", list(results()))}))
    return {name: values[:, 0] for name, values in built.items()}


def test_the_table_has_every_statement_column(columns: dict[str, NDArray[np.float32]]) -> None:
    assert list(TEN_DAYS_LATER) == list(columns)


@pytest.mark.parametrize("name", TEN_DAYS_LATER)
def test_value_computed_by_hand(columns: dict[str, NDArray[np.float32]], name: str) -> None:
    row = DAYS.index(RESULT_DAY) + 10
    assert float(columns[name][row]) == pytest.approx(TEN_DAYS_LATER[name], rel=1e-5, abs=1e-7)


def test_the_day_before_the_result_knows_the_quarter_before(columns: dict[str, NDArray[np.float32]]) -> None:
    row = DAYS.index(RESULT_DAY) - 1
    assert columns["fs_sales_q_yoy"][row] == pytest.approx(2 * (15 - 12) / 27)
    assert columns["fs_op_margin_ttm"][row] == pytest.approx((2 + 12 - 1.5) / (15 + 110 - 12))
    assert columns["fs_fc_rev_op"][row] == 0 and columns["fs_fc_div_yield"][row] == pytest.approx(10 / 500)
