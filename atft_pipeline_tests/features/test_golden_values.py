"""Worked examples: columns whose last value was computed by hand, for a stock that alternates between two prices.

Closes 100, 102, 100, 102, ... for 400 days, each with open 101, high 103, low 99; 1,000 shares on a quiet day and
3,000 on a busy one, at 100 yen of turnover a share. The last day is a busy one. TOPIX does the same at twenty times
the level. On such a path every estimator has a closed form; the comment beside a number gives it (x = ln 1.02).
"""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from atft_pipeline.features import catalog
from atft_pipeline.features.group import Inputs, compute_group
from atft_pipeline_tests.synthetic import calendar_frame, one_code_panel, trading_days

DAYS = trading_days(calendar_frame(date(2022, 1, 4), date(2023, 12, 29)))[:400]
NULL = float("nan")

LAST: dict[str, float] = {
    "meta_history_td": 400,  # every row has a close
    "meta_is_traded": 1,
    "px_close": 102,
    "px_volume": 3000,
    "px_turnover": 300000,
    "ret_1d": 0.02,  # 102/100-1
    "ret_3d": 0.02,  # 102/100-1
    "ret_5d": 0.02,  # 102/100-1
    "ret_10d": 0,  # the same phase
    "ret_20d": 0,
    "ret_60d": 0,
    "ret_120d": 0,
    "ret_240d": 0,
    "logret_1d": 0.019802627,  # ln(1.02)
    "logret_5d": 0.019802627,  # ln(1.02)
    "ret_overnight": 0.01,  # 101/100-1
    "ret_intraday": 0.00990099,  # 102/101-1
    "mom_240_20": 0,
    "ret_max_20": 0.02,  # 102/100-1
    "ret_min_20": -0.019607843,  # 100/102-1
    "ret_skew_60": 0,  # two values, thirty times each
    "vol_cc_5": 0.339544327,  # sqrt(1.2*245)*ln(1.02); three up, two down: var = (3 .8^2 + 2 1.2^2) x^2/4
    "vol_cc_10": 0.326726681,  # sqrt(10/9*245)*ln(1.02)
    "vol_cc_20": 0.318012399,  # sqrt(20/19*245)*ln(1.02)
    "vol_cc_60": 0.312575889,  # sqrt(60/59*245)*ln(1.02)
    "vol_pk_20": 0.372336582,  # ln(103/99)*sqrt(245/(4*ln(2))); Parkinson (1980) of a constant range
    "vol_rs_20": 0.438408942,  # Rogers and Satchell (1991), both phases
    "vol_yz_20": 0.440767706,  # Yang and Zhang (2000): night and day both have half of x
    "vol_yz_60": 0.438860625,
    "vol_down_20": 0.219174921,  # sqrt(245/2)*ln(1.02); half of the days fall
    "vol_of_vol_20": 0,  # the same every day
    "vol_ratio_5_60": 1.086278049,  # sqrt(1.2*59/60)
    "range_hl_1d": 0.039609138,  # ln(103/99)
    "range_z_20": NULL,  # a constant range has no surprise
    "ta_px_to_sma_5": 0.007905138,  # 102/101.2-1
    "ta_px_to_sma_20": 0.00990099,  # 102/101-1
    "ta_px_to_sma_60": 0.00990099,  # 102/101-1
    "ta_px_to_sma_200": 0.00990099,  # 102/101-1
    "ta_ema_gap_5_20": 0.001484414,  # 101.2/101.05-1; an ema of span n swings by 1/n around 101
    "ta_ema_gap_20_60": 0.000329979,  # 101.05/(101+1/60)-1
    "ta_rsi_2": 66.666666667,  # 50*(1+1/3); a Wilder mean of 2, 0, 2, 0 swings by 1/(2n - 1) around 1
    "ta_rsi_14": 51.851851852,  # 50*(1+1/27)
    "ta_macd_pct": 0.00043992,  # (1/12-1/26)/102
    "ta_macd_signal_pct": 4.888e-05,  # (1/12-1/26)/9/102
    "ta_macd_hist_pct": 0.00039104,  # (1/12-1/26)*8/9/102
    "ta_bb_pctb_20": 0.75,  # (102-99)/4; m = 101, s = 1
    "ta_bb_width_20": 0.03960396,  # 4/101
    "ta_natr_14": 0.039215686,  # 4/102; the true range is 4 in both phases
    "ta_adx_14": 0,  # highs and lows stand still
    "ta_di_diff_14": 0,
    "ta_stoch_k_14": 0.75,  # 3/4
    "ta_mfi_14": 0.751235585,  # 3*304/(3*304+302); typical prices 304/3 and 302/3, volumes 3 to 1
    "ta_donchian_pos_20": 0.75,  # 3/4
    "ta_dist_high_240": -0.009708738,  # 102/103-1
    "ta_dist_low_240": 0.03030303,  # 102/99-1
    "ta_close_loc": 0.5,  # 2/4
    "liq_vol_ratio_5": 1.666666667,  # 3000/1800; prior five: three quiet days, two busy ones
    "liq_vol_ratio_20": 1.5,  # 3000/2000
    "liq_vol_z_20": 0.974679434,  # sqrt(19/20); one deviation, ddof 1
    "liq_vol_accel": 0.1,  # 2200/2000-1
    "liq_log_adv_20": 12.206077646,  # ln(200001)
    "liq_log_adv_60": 12.206077646,  # ln(200001)
    "liq_tv_mkt_share_bp": 10000,  # alone in its market
    "liq_amihud_20": 4.885620288,  # ln(1+1e9*(0.02/300000+(2/102)/100000)/2)
    "liq_zero_frac_60": 0,
    "liq_vwap_dev": 0.02,  # 102*3000/300000-1
    "liq_roll_spread_20": 0.040634134,  # 2*sqrt(20/19)*ln(1.02); Roll (1984): every move is a bounce
    "liq_cs_spread_20": 0.03960396,  # 8/202; Corwin and Schultz (2012): a = ln(103/99), so the spread is (103 - 99)/101
    "liq_retvol_corr_20": 1,
    "lim_cnt_20": 0,
    "lim_td_since": 250,  # none seen
    "split_td_since": 250,
    "mkt_ret_1d": 0.02,  # 0.02; the index does the same at twenty times the level
    "mkt_ret_5d": 0.02,  # 0.02
    "mkt_ret_10d": 0,
    "mkt_ret_20d": 0,
    "mkt_ret_60d": 0,
    "mkt_ret_overnight": 0.01,  # 0.01
    "mkt_ret_intraday": 0.00990099,  # 1/101
    "mkt_px_to_sma_20": 0.00990099,  # 1/101
    "mkt_px_to_sma_200": 0.00990099,  # 1/101
    "mkt_ema_gap_5_20": 0.001484414,  # 101.2/101.05-1
    "mkt_vol_cc_20": 0.318012399,  # sqrt(20/19*245)*ln(1.02)
    "mkt_natr_14": 0.039215686,  # 4/102
    "mkt_bb_pctb_20": 0.75,  # 3/4
    "mkt_rsi_14": 51.851851852,  # 50*(1+1/27)
    "mkt_dd_240": 0,
    "mkt_ret_1d_z240": 0.997914492,  # sqrt(239/240)
    "mkt_vol_20_z240": NULL,  # the same every day
    "mkt_flag_bull_200": 1,
    "mkt_flag_trend_up": 1,
    "mkt_flag_big_move": 0,  # .02 is one deviation
    "mb_beta_60": 1,
    "mb_beta_240": 1,
    "mb_corr_60": 1,
    "mb_resid_vol_60": 0,
    "mb_alpha_60": 0,
    "mb_resid_ret_1d": 0,
    "mb_resid_ret_5d": 0,
    "mb_resid_ret_20d": 0,
    "mb_rel_ret_5d": 0,
    "mb_rel_ret_20d": 0,
    "mb_idio_vol_ratio": 0,
    "mb_beta_chg_20": 0,
}
"""Column -> its value on the last day."""


@pytest.fixture(scope="module")
def columns() -> dict[str, NDArray[np.float32]]:
    busy = np.arange(len(DAYS)) % 2 == 1
    shares = np.where(busy, 3000.0, 1000.0)
    quotes = {"O": 101.0, "H": 103.0, "L": 99.0, "C": np.where(busy, 102.0, 100.0)}
    bars = {name: np.broadcast_to(np.asarray(price), busy.shape).tolist() for name, price in quotes.items()}
    panel = one_code_panel(DAYS, bars.pop("C"), **bars, Vo=shares.tolist(), Va=(shares * 100).tolist())
    topix = pl.DataFrame({"Date": DAYS, **{name: 20 * np.broadcast_to(p, busy.shape) for name, p in quotes.items()}})
    inputs = Inputs(panel, {"topix": topix})
    groups = [g for g in catalog.GROUPS if g.name in ("meta", "px", "ret", "vol", "ta", "liq", "evt", "mkt", "mb")]
    return {name: values[:, 0] for group in groups for name, values in compute_group(group, inputs).items()}


@pytest.mark.parametrize("name", LAST)
def test_value_computed_by_hand(columns: dict[str, NDArray[np.float32]], name: str) -> None:
    assert float(columns[name][-1]) == pytest.approx(LAST[name], rel=2e-5, abs=5e-7, nan_ok=True)


def test_the_day_before_has_other_values(columns: dict[str, NDArray[np.float32]]) -> None:
    """The table is sharp: on a quiet day most of it would be wrong."""
    wrong = [
        n for n, value in LAST.items() if float(columns[n][-2]) != pytest.approx(value, rel=1e-3, abs=1e-5, nan_ok=True)
    ]
    assert len(wrong) >= 40
