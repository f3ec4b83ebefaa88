"""Market regime from TOPIX: values by hand, null rules, alignment to the trading days."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from atft_pipeline.features.market import yang_zhang
from atft_pipeline.features.topix import Topix, read_topix
from atft_pipeline_tests.synthetic_events import topix_bars


def weekdays(count: int, start: date = date(2020, 1, 6)) -> list[date]:
    days = (start + timedelta(days=d) for d in range(count * 2))
    return [day for day in days if day.weekday() < 5][:count]


def test_bars_off_the_axis_are_left_out_and_missing_ones_are_null() -> None:
    days = weekdays(10)
    bars = topix_bars(days, np.random.default_rng(1))
    axis = np.array([days[0], days[1], days[3], days[9] + timedelta(days=1)], "datetime64[D]")
    close = read_topix(bars.filter(pl.col("Date") != days[3]), axis).close
    assert close[:2].tolist() == bars["C"].to_list()[:2]
    assert np.isnan(close[2:]).all()


def test_repeated_date_is_refused() -> None:
    bars = topix_bars(weekdays(3), np.random.default_rng(1))
    with pytest.raises(ValueError, match="twice"):
        read_topix(pl.concat([bars, bars.head(1)]), bars["Date"].to_numpy())


def test_yang_zhang_recovers_the_volatility_of_a_random_walk() -> None:
    rng = np.random.default_rng(2)
    days, steps, sigma = 400, 300, 0.01
    path = np.exp(np.cumsum(rng.normal(0, sigma / np.sqrt(steps), (days, steps)), axis=1))
    start = np.cumprod(np.concatenate([[1.0], path[:-1, -1]]))[:, None]
    bars = path * start
    topix = Topix(start[:, 0], np.maximum(bars.max(1), start[:, 0]), np.minimum(bars.min(1), start[:, 0]), bars[:, -1])
    assert yang_zhang(topix, 240, 240)[-1] == pytest.approx(sigma * np.sqrt(245), rel=0.1)
