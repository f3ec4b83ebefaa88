"""Option surface: hand-made days with known volatilities, what counts, and when a value is known."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from atft_pipeline.features.group import Inputs, compute_group
from atft_pipeline.features.option_surface import daily_surface
from atft_pipeline.features.options import GROUP
from atft_pipeline.panel.panel import Panel, build_panel
from atft_pipeline_tests.synthetic_events import Row, market_tables, typed, weekdays

DAYS = weekdays(40, date(2024, 1, 1))
TODAY = DAYS[0]
LEVEL = 40_000.0


@pytest.fixture(scope="module")
def panel() -> Panel:
    tables = market_tables(["10010"], DAYS, np.random.default_rng(0), sectors=["3650"])
    return build_panel(tables["calendar"], tables["master"], tables["bars_daily"])


def option(left: int, strike: float, iv: float, side: str = "", day: date = TODAY, **more: object) -> Row:
    """One series that expires in `left` days; out of the money unless a side (1 put, 2 call) is given."""
    row = {
        "Date": day,
        "Code": f"1{left:03d}{int(strike) % 100_000:05d}{side}"[:9],
        "SQD": day + timedelta(days=left),
        "Strike": strike,
        "PCDiv": side or ("1" if strike < LEVEL else "2"),
        "IV": iv,
        "UnderPx": LEVEL,
        "Vo": 10.0,
        "OI": 100.0,
        "EmMrgnTrgDiv": "002",
    }
    return row | more


def flat(left: int, iv: float, day: date = TODAY) -> list[Row]:
    return [option(left, LEVEL * share, iv, day=day) for share in (0.94, 0.95, 0.96, 0.99, 1.01, 1.04, 1.05, 1.06)]


def surface(rows: Sequence[Row]) -> dict[str, float]:
    (found,) = daily_surface(typed("options_225", rows)).to_dicts()
    return found


def test_a_flat_surface_has_the_same_volatility_at_all_maturities() -> None:
    found = surface([*flat(10, 20.0), *flat(40, 20.0), *flat(75, 20.0)])
    assert found["iv_30"] == pytest.approx(0.2) and found["iv_60"] == pytest.approx(0.2)
    assert found["put_30"] == pytest.approx(0.2) and found["call_30"] == pytest.approx(0.2)


def test_total_variance_is_linear_between_expiries() -> None:
    found = surface([*flat(20, 20.0), *flat(48, 25.0)])
    near, far = 0.2**2 * 20, 0.25**2 * 48
    assert found["iv_30"] == pytest.approx(np.sqrt((near + (far - near) * 10 / 28) / 30))
    on_sigma = 0.2 + 0.05 * 10 / 28
    assert abs(found["iv_30"] - on_sigma) > 1e-3  # what interpolating sigma itself would give
    on_root_time = (0.2 * 20**0.5 + (0.25 * 48**0.5 - 0.2 * 20**0.5) * 10 / 28) / 30**0.5
    assert abs(found["iv_30"] - on_root_time) > 1e-3  # what sigma x sqrt(time) would give
    assert found["iv_60"] is None  # not bracketed


def test_below_the_first_expiry_its_volatility_counts_while_a_month_s_gap_explains_the_distance() -> None:
    nearest = flat(5, 90.0)  # left out: within a week of its end
    found = surface([*nearest, *flat(40, 21.0), *flat(68, 25.0)])
    assert found["iv_30"] == pytest.approx(0.21) and found["put_30"] == pytest.approx(0.21)
    assert found["iv_60"] == pytest.approx(np.sqrt((0.21**2 * 40 + (0.25**2 * 68 - 0.21**2 * 40) * 20 / 28) / 60))
    missing_month = surface([*nearest, *flat(46, 21.0), *flat(75, 25.0)])
    assert missing_month["iv_30"] is None and missing_month["iv_60"] is not None


def test_an_expiry_at_the_maturity_itself_is_enough() -> None:
    assert surface(flat(30, 17.0))["iv_30"] == pytest.approx(0.17)


def test_at_the_money_is_interpolated_between_the_nearest_out_of_the_money_strikes() -> None:
    rows = [option(30, 39_600, 22.0), option(30, 40_800, 19.0), option(30, 39_000, 40.0), option(30, 42_000, 50.0)]
    below, above = np.log(0.99), np.log(1.02)
    assert surface(rows)["iv_30"] == pytest.approx((22 + (19 - 22) * -below / (above - below)) / 100)
    inside = [option(30, 40_100, 99.0, side="1"), option(30, 39_900, 99.0, side="2")]  # in the money: not read
    assert surface([*rows, *inside])["iv_30"] == pytest.approx(surface(rows)["iv_30"])
    assert surface([*rows, option(30, LEVEL, 21.0, side="2")])["iv_30"] == pytest.approx(0.21)


def test_rows_of_an_emergency_and_series_that_nobody_holds_do_not_count() -> None:
    rows = [*flat(20, 20.0), *flat(48, 20.0)]
    called = [row | {"EmMrgnTrgDiv": "001", "IV": 90.0, "UnderPx": 20_000.0, "OI": 1e6} for row in rows]
    idle = [option(30, 39_990, 90.0, Vo=0.0, OI=0.0), option(30, 40_010, 90.0, Vo=0.0, OI=0.0)]
    short = [*flat(6, 90.0)]
    assert surface([*rows, *called, *idle, *short]) == surface(rows)
    with_them = [row | {"EmMrgnTrgDiv": "002"} for row in called]
    assert surface([*rows, *with_them]) != surface(rows)  # the fault that the filter prevents


def test_wings_take_strikes_within_reach_only() -> None:
    near = [option(30, LEVEL * 0.96, 24.0), option(30, LEVEL * 1.04, 18.0)]
    far = [option(30, LEVEL * 0.92, 30.0), option(30, LEVEL * 1.09, 15.0)]
    middle = [option(30, LEVEL * 0.99, 20.0), option(30, LEVEL * 1.01, 20.0)]
    found = surface([*near, *middle])
    assert found["put_30"] == pytest.approx(0.24) and found["call_30"] == pytest.approx(0.18)
    lost = surface([*far, *middle])
    assert lost["put_30"] is None and lost["call_30"] is None and lost["iv_30"] is not None
    between = surface([*near, *middle, option(30, LEVEL * 0.945, 26.0)])
    low, high, target = np.log(0.945), np.log(0.96), np.log(0.95)
    assert between["put_30"] == pytest.approx((26 + (24 - 26) * (target - low) / (high - low)) / 100)


def test_columns_are_known_from_the_next_trading_day(panel: Panel) -> None:
    rows = [row for day, iv in zip(DAYS[2:5], (20.0, 21.0, 24.0), strict=True) for row in flat(30, iv, day)]
    rows += [row | {"OI": 50.0, "Vo": 4.0} for row in flat(90, 20.0, DAYS[2]) if row["PCDiv"] == "1"]
    built = compute_group(GROUP, Inputs(panel, {"options_225": typed("options_225", rows)}))
    value: dict[str, NDArray[np.float32]] = {name: values[:, 0] for name, values in built.items()}
    assert np.isnan(value["opt_iv_atm_30d"][:3]).all()
    np.testing.assert_allclose(value["opt_iv_atm_30d"][3:7], [0.20, 0.21, 0.24, 0.24], rtol=1e-6)
    np.testing.assert_allclose(value["opt_iv_chg_1d"][4:6], [0.01, 0.03], rtol=1e-4)
    np.testing.assert_allclose(value["opt_valid"][2:8], [0, 1, 1, 1, 0, 0])
    np.testing.assert_allclose(value["opt_skew_5pct"][3], 0.0, atol=1e-7)
    np.testing.assert_allclose(value["opt_pc_oi_log"][3], np.log((4 * 100 + 4 * 50) / 400), rtol=1e-6)
    np.testing.assert_allclose(value["opt_pc_vol_log"][3], np.log((40 + 16 + 1) / (40 + 1)), rtol=1e-6)
    assert np.isnan(value["opt_vrp_20"]).all() and np.isnan(value["opt_iv_z240"]).all()


def test_variance_premium_subtracts_the_realised_variance(panel: Panel) -> None:
    levels = LEVEL * np.exp(0.01 * np.arange(len(DAYS)) % 0.03)
    rows = []
    for day, level in zip(DAYS[:-1], levels, strict=False):
        rows += [row | {"UnderPx": level, "Strike": row["Strike"] / LEVEL * level} for row in flat(30, 20.0, day)]
    built = compute_group(GROUP, Inputs(panel, {"options_225": typed("options_225", rows)}))
    moves = np.diff(np.log(levels))
    expected = 0.2**2 - 245 * np.var(moves[10:30], ddof=1)
    assert built["opt_vrp_20"][31, 0] == pytest.approx(expected, rel=1e-4)
    assert pl.Series(built["opt_vrp_20"][:16, 0]).is_nan().all()  # 15 moves are known from the 16th date on
