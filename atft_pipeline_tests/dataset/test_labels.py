"""Labels against a table written out by hand (T51): a split, a suspended day, a delisting, both delays."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from atft_pipeline.dataset.labels import forward_returns, label_columns
from atft_pipeline.panel.panel import Panel, build_panel
from atft_pipeline.settings import DELAYS, HORIZONS
from atft_pipeline_tests.synthetic import calendar_frame, market, one_code_panel, trading_days

NAN = np.nan
CLOSE = [100.0, 110.0, None, 121.0, 66.0, 60.0]
"""Suspended on the third day; splits 1 to 2 on the fifth: 66 is 132 in old shares, 60 is 120."""
FACTOR = [1.0, 1.0, 1.0, 1.0, 0.5, 1.0]


@pytest.fixture(scope="module")
def panel() -> Panel:
    days = trading_days(calendar_frame(date(2022, 6, 1), date(2022, 9, 30)))[:6]
    return one_code_panel(days, CLOSE, AdjFactor=FACTOR)


@pytest.mark.parametrize(
    ("delay", "horizon", "expected"),
    [
        (0, 1, [0.10, NAN, NAN, 132 / 121 - 1, 120 / 132 - 1, NAN]),
        (0, 2, [NAN, 0.10, NAN, 120 / 121 - 1, NAN, NAN]),
        (0, 3, [0.21, 0.20, NAN, NAN, NAN, NAN]),
        (1, 1, [NAN, NAN, 132 / 121 - 1, 120 / 132 - 1, NAN, NAN]),
        (1, 2, [0.10, NAN, 120 / 121 - 1, NAN, NAN, NAN]),
    ],
)
def test_t51_hand_table(panel: Panel, delay: int, horizon: int, expected: list[float]) -> None:
    y = forward_returns(panel, (horizon,), (delay,))
    np.testing.assert_allclose(y[:, 0, 0, 0], expected, rtol=1e-6)


def test_ten_columns_and_direction_is_null_where_the_return_is(panel: Panel) -> None:
    labels = label_columns(panel)
    assert list(labels) == [f"target_ret_{h}d" for h in HORIZONS] + [f"target_up_{h}d" for h in (1, 5, 10, 20)]
    np.testing.assert_array_equal(labels["target_up_1d"][:, 0], [1, NAN, NAN, 1, 0, NAN])


def test_unchanged_price_is_not_up() -> None:
    days = trading_days(calendar_frame(date(2022, 6, 1), date(2022, 9, 30)))[:3]
    assert label_columns(one_code_panel(days, [100.0, 100.0, 100.0]))["target_up_1d"][:2, 0].tolist() == [0, 0]


def test_delisting_has_no_label_and_later_listing_none_before() -> None:
    frames = market(codes=20, days=260)
    panel = build_panel(frames.calendar, frames.master, frames.bars)
    y = forward_returns(panel)
    assert y.shape == (260, 20, len(DELAYS), len(HORIZONS)) and y.dtype == np.float32
    assert np.isnan(y[249, 6]).all() and np.isnan(y[250:, 6]).all()
    assert np.nanmin(y[:250, 6]) > -0.9
    assert np.isnan(y[:200, 5]).all() and np.isfinite(y[200, 5, 0, 0])


def test_label_is_null_only_near_the_end_or_next_to_a_null_close() -> None:
    frames = market(codes=20, days=260)
    panel = build_panel(frames.calendar, frames.master, frames.bars)
    for h in HORIZONS:
        label = label_columns(panel)[f"target_ret_{h}d"]
        known = np.isfinite(panel.c[:-h]) & np.isfinite(panel.c[h:])
        np.testing.assert_array_equal(np.isfinite(label[:-h]), known)
        assert np.isnan(label[-h:]).all()


def test_label_of_a_day_is_the_feature_of_the_day_it_ends() -> None:
    frames = market(codes=20, days=260)
    panel = build_panel(frames.calendar, frames.master, frames.bars)
    np.testing.assert_array_equal(label_columns(panel)["target_ret_5d"][:-5], panel.ret(5)[5:].astype(np.float32))
