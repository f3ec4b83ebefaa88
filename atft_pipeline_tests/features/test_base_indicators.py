"""Technical indicators against published worked examples and plain reference loops."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest
from numpy.typing import NDArray

from atft_pipeline.features import technical
from atft_pipeline.features.group import Inputs, compute_group
from atft_pipeline.panel.operators import ts_rma
from atft_pipeline.panel.panel import Panel, build_panel
from atft_pipeline_tests.synthetic import calendar_frame, market, one_code_panel, trading_days

Array = NDArray[np.float64]

# The 14-day RSI example of StockCharts' ChartSchool (QQQQ, 14 December 2009 on): closes, and the RSI from day 15 on.
CLOSES = (
    "44.3389 44.0902 44.1497 43.6124 44.3278 44.8264 45.0955 45.4245 45.8433 46.0826 45.8931 46.0328 45.6140 46.2820 "
    "46.2820 46.0028 46.0328 46.4116 46.2222 45.6439 46.2122 46.2521 45.7137 46.4515 45.7835 45.3548 44.0288 44.1783 "
    "44.2181 44.5672 43.4205 42.6628 43.1314"
)
RSI_14 = (
    "70.53 66.32 66.55 69.41 66.36 57.97 62.93 63.26 56.06 62.38 54.71 50.42 39.99 41.46 41.87 45.46 37.30 33.08 37.77"
)


def numbers(text: str) -> Array:
    return np.array(text.split(), np.float64)


def days(n: int) -> list[date]:
    return trading_days(calendar_frame(date(2022, 1, 4), date(2023, 12, 29)))[:n]


def wilder(x: Array, n: int) -> Array:
    """Wilder's smoothing in its plainest form: seeded by the first value, null until n values."""
    out, state, seen = np.full(len(x), np.nan), 0.0, 0
    for t, value in enumerate(x):
        if np.isnan(value):
            continue
        state = value if seen == 0 else (state * (n - 1) + value) / n
        seen += 1
        if seen >= n:
            out[t] = state
    return out


def random_panel() -> Panel:
    frames = market(codes=12, days=260, seed=5)
    return build_panel(frames.calendar, frames.master, frames.bars)


def columns(panel: Panel) -> dict[str, NDArray[np.float32]]:
    return compute_group(technical.GROUP, Inputs(panel, {}))


def test_smoothing_reproduces_the_published_rsi_from_the_published_seed() -> None:
    """Wilder seeds with a plain mean of 14, we with the first value; from the same seed the two run alike."""
    change = np.diff(numbers(CLOSES))
    gains, losses = np.maximum(change, 0), np.maximum(-change, 0)
    up = ts_rma(np.append(gains[:14].mean(), gains[14:]), 14)
    down = ts_rma(np.append(losses[:14].mean(), losses[14:]), 14)
    ours = 100 * up / (up + down)
    known = np.isfinite(ours)
    assert known.sum() == 6
    np.testing.assert_allclose(ours[known], numbers(RSI_14)[known], atol=0.05)


def test_rsi_follows_wilder_not_an_exponential_span() -> None:
    """Q22: alpha is 1/14, not 2/15."""
    close = numbers(CLOSES)
    ours = columns(one_code_panel(days(33), close.tolist()))["ta_rsi_14"][:, 0]
    change = np.append(np.nan, np.diff(close))
    up, down = wilder(np.maximum(change, 0), 14), wilder(np.maximum(-change, 0), 14)
    np.testing.assert_allclose(ours, 100 * up / (up + down), rtol=1e-6)
    assert np.isnan(ours[:14]).all() and np.isfinite(ours[14:]).all()


def test_rsi_of_a_ramp_is_full_and_of_a_flat_line_the_middle() -> None:
    assert columns(one_code_panel(days(20), list(range(100, 120))))["ta_rsi_14"][-1, 0] == 100
    flat = columns(one_code_panel(days(20), [100.0] * 20))
    assert flat["ta_rsi_2"][-1, 0] == 50 and flat["ta_rsi_14"][-1, 0] == 50


def test_atr_and_adx_follow_wilder() -> None:
    panel = random_panel()
    ours = columns(panel)
    for j in (0, 3, 7):  # plain, with a split, with a halt
        h, low, c = panel.h[:, j], panel.l[:, j], panel.c[:, j]
        tr, plus, minus = (np.full(len(c), np.nan) for _ in range(3))
        for t in range(1, len(c)):
            if np.isnan([h[t], h[t - 1]]).any():
                continue
            tr[t] = max(h[t] - low[t], abs(h[t] - c[t - 1]), abs(low[t] - c[t - 1]))
            up, down = h[t] - h[t - 1], low[t - 1] - low[t]
            plus[t], minus[t] = (up if up > max(down, 0) else 0), (down if down > max(up, 0) else 0)
        atr, p, m = wilder(tr, 14), wilder(plus, 14), wilder(minus, 14)
        p, m = p / atr, m / atr
        np.testing.assert_allclose(ours["ta_natr_14"][:, j], atr / c, rtol=1e-5)
        np.testing.assert_allclose(ours["ta_di_diff_14"][:, j], p - m, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(ours["ta_adx_14"][:, j], wilder(abs(p - m) / (p + m), 14), rtol=1e-5)


def test_adx_needs_28_rows_and_is_one_in_a_steady_trend() -> None:
    close = np.arange(100.0, 140.0)
    ours = columns(one_code_panel(days(40), close.tolist(), H=(close + 1).tolist(), L=(close - 1).tolist()))
    adx = ours["ta_adx_14"][:, 0]
    assert np.isnan(adx[:27]).all() and np.isfinite(adx[27:]).all()
    np.testing.assert_allclose(adx[27:], 1.0)
    assert (ours["ta_di_diff_14"][14:, 0] > 0).all()


def test_adx_of_a_flat_line_is_zero() -> None:
    assert columns(one_code_panel(days(30), [100.0] * 30))["ta_adx_14"][-1, 0] == 0


def test_bollinger_bands_use_the_population_deviation() -> None:
    close = np.random.default_rng(1).normal(1000, 10, 40)
    ours = columns(one_code_panel(days(40), close.tolist()))
    m, s = close[-20:].mean(), close[-20:].std(ddof=0)
    assert ours["ta_bb_pctb_20"][-1, 0] == pytest.approx((close[-1] - (m - 2 * s)) / (4 * s), rel=1e-5)
    assert ours["ta_bb_width_20"][-1, 0] == pytest.approx(4 * s / m, rel=1e-5)


def test_bands_of_a_constant_price_have_no_position() -> None:
    ours = columns(one_code_panel(days(30), [1234.5] * 30))
    assert np.isnan(ours["ta_bb_pctb_20"][-1, 0]) and ours["ta_bb_width_20"][-1, 0] == 0
    assert np.isnan(ours["ta_stoch_k_14"][-1, 0]) and np.isnan(ours["ta_donchian_pos_20"][-1, 0])
    assert ours["ta_close_loc"][-1, 0] == 0 and ours["ta_mfi_14"][-1, 0] == 0.5


def test_macd_from_exponential_means() -> None:
    close = np.exp(np.random.default_rng(2).normal(0, 0.01, 60).cumsum()) * 500

    def ema(x: Array, span: int) -> Array:
        out, state = np.full(len(x), np.nan), 0.0
        for seen, t in enumerate(np.flatnonzero(np.isfinite(x)), 1):
            state = x[t] if seen == 1 else state + 2 / (span + 1) * (x[t] - state)
            out[t] = state if seen >= span else np.nan
        return out

    ours = columns(one_code_panel(days(60), close.tolist()))
    macd = ema(close, 12) - ema(close, 26)
    np.testing.assert_allclose(ours["ta_macd_pct"][:, 0], macd / close, rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(ours["ta_macd_signal_pct"][:, 0], ema(macd, 9) / close, rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(
        ours["ta_macd_hist_pct"][:, 0], ours["ta_macd_pct"][:, 0] - ours["ta_macd_signal_pct"][:, 0], atol=1e-8
    )
    assert np.isnan(ours["ta_macd_signal_pct"][:33, 0]).all() and np.isfinite(ours["ta_macd_signal_pct"][33, 0])


def test_money_flow_leaves_out_unchanged_days() -> None:
    close = [10.0, 11.0, 11.0, 10.0, 12.0, 12.0, 13.0, 12.0, 12.5, 12.0, 11.0, 12.0, 13.0, 13.0, 14.0]
    volume = [100.0 + 10 * i for i in range(15)]
    ours = columns(one_code_panel(days(15), close, Vo=volume))["ta_mfi_14"][-1, 0]
    up = sum(c * v for b, c, v in zip(close, close[1:], volume[1:], strict=False) if c > b)
    moved = sum(c * v for b, c, v in zip(close, close[1:], volume[1:], strict=False) if c != b)
    assert ours == pytest.approx(up / moved, rel=1e-6)


def test_channels_and_close_location() -> None:
    panel = random_panel()
    ours = columns(panel)
    h, low, c = panel.h[90:110, 0], panel.l[90:110, 0], panel.c[109, 0]
    assert np.isfinite(h).sum() >= 18
    span = np.nanmax(h) - np.nanmin(low)
    assert ours["ta_donchian_pos_20"][109, 0] == pytest.approx((c - np.nanmin(low)) / span, rel=1e-5)
    loc = (2 * panel.c - panel.h - panel.l) / (panel.h - panel.l)
    np.testing.assert_allclose(ours["ta_close_loc"][:, 0], loc[:, 0], rtol=1e-4, atol=1e-5)
    bounded = ours["ta_stoch_k_14"][np.isfinite(ours["ta_stoch_k_14"])]
    assert bounded.min() >= 0 and bounded.max() <= 1


@pytest.mark.parametrize(("name", "first"), [("5", 4), ("20", 17), ("60", 53)])
def test_moving_average_needs_its_minimum_and_no_more(name: str, first: int) -> None:
    ours = columns(one_code_panel(days(70), [100.0] * 70))[f"ta_px_to_sma_{name}"][:, 0]
    assert np.isnan(ours[:first]).all() and (ours[first:] == 0).all()
