"""Every base, market and sector column against a second, plain writing of its formula, on an awkward market."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from atft_pipeline.features import catalog, liquidity, technical, volatility
from atft_pipeline.features.group import Inputs, compute_group
from atft_pipeline.panel.operators import divide, ts_cov, ts_ema, ts_lag, ts_sum, ts_var
from atft_pipeline.panel.panel import build_panel
from atft_pipeline_tests.features.plain_exposure import breadth_columns, exposure_columns
from atft_pipeline_tests.features.plain_formulas import Columns, Market, base_columns
from atft_pipeline_tests.features.plain_market import market_columns, sector_columns
from atft_pipeline_tests.synthetic import Frames, market

GROUPS = [group for group in catalog.GROUPS if group.tier == "base" or group.name in ("mkt", "mb", "idx", "sec")]
NAMES = [column.name for group in GROUPS for column in group.columns]
Both = tuple[dict[str, NDArray[np.float32]], Columns]
Fault = Callable[..., NDArray[np.float64]]
FLAT, ODD, EXTREME, MOVER = 11, 12, 13, 14


def awkward_market() -> Frames:
    """Beside splits, listings and halts: a code that stands still for half a year, one with holes of every kind, one
    that falls by nine tenths and comes back, and one that moves to another sector and segment."""
    frames = market()
    codes, dates = frames.master["Code"].unique().sort(), frames.dates
    still = (pl.col("Code") == codes[FLAT]) & pl.col("Date").is_between(dates[60], dates[200])
    crash = (pl.col("Code") == codes[EXTREME]) & pl.col("Date").is_between(dates[140], dates[150])
    odd = pl.col("Code") == codes[ODD]
    untraded, no_flags, no_open = (odd & (pl.col("Date") == dates[row]) for row in (90, 120, 130))
    fixed = {"O": 500.0, "H": 500.0, "L": 500.0, "C": 500.0, "Vo": 1000.0, "Va": 5e5}
    bars = frames.bars.with_columns(pl.when(still).then(v).otherwise(c).alias(c) for c, v in fixed.items())
    bars = bars.with_columns(
        # no trade, stated as a volume of 0 and not as null
        *(pl.when(untraded).then(None).when(crash).then(pl.col(c) / 10).otherwise(c).alias(c) for c in ("H", "L", "C")),
        *(pl.when(untraded).then(0.0).otherwise(c).alias(c) for c in ("Vo", "Va")),
        *(pl.when(no_flags).then(None).otherwise(c).alias(c) for c in ("UL", "LL")),
        O=pl.when(untraded | no_open).then(None).when(crash).then(pl.col("O") / 10).otherwise("O"),
    )
    moved = (pl.col("Code") == codes[MOVER]) & (pl.col("Date") >= dates[180])
    master = frames.master.with_columns(
        pl.when(moved).then(pl.lit(text)).otherwise(c).alias(c)
        for c, text in {"S33": "2050", "S17": "3", "Mkt": "0113"}.items()
    )
    return replace(frames, bars=bars, master=master)


@pytest.fixture(scope="module")
def both() -> Both:
    """Every column as the project computes it, and as plain formulas give it."""
    frames = awkward_market()
    inputs = Inputs(build_panel(frames.calendar, frames.master, frames.bars), frames.events)
    ours = {name: values for group in GROUPS for name, values in compute_group(group, inputs).items()}
    plain_market = Market(frames)
    plain, index = base_columns(plain_market), market_columns(frames)
    with np.errstate(all="ignore"):
        exposure, sector = (columns(plain_market, plain, index) for columns in (exposure_columns, sector_columns))
        plain |= index | exposure | breadth_columns(plain_market, frames, index) | sector
    return ours, {name: np.where(plain_market.listed, values, np.nan) for name, values in plain.items()}


def test_the_second_writing_covers_the_contract(both: Both) -> None:
    ours, plain = both
    assert list(plain) == list(ours) == NAMES
    assert len(NAMES) == 99 + 22 + 12 + 14 + 26


def assert_same(ours: NDArray[np.float32], plain: NDArray[np.float64]) -> None:
    null = np.isnan(ours)
    wrong = np.argwhere(null != np.isnan(plain))
    assert not len(wrong), f"null on one side only in {len(wrong)} cells, first {wrong[0]}"
    assert not null.all()
    np.testing.assert_allclose(ours, plain, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", NAMES)
def test_column_is_its_formula(both: Both, name: str) -> None:
    assert_same(both[0][name], both[1][name])


MEANS = {"vol_pk_20", "vol_rs_20", "vol_yz_20", "vol_yz_60", "vol_down_20", "vol_of_vol_20", "range_z_20"}
LAGGED = {"liq_vol_ratio_5", "liq_vol_z_20", "liq_roll_spread_20", "liq_cs_spread_20"}


@pytest.mark.parametrize(
    ("module", "operator", "fault", "broken"),
    [
        (technical, "ts_rma", ts_ema, {"ta_rsi_2", "ta_rsi_14", "ta_natr_14", "ta_adx_14", "ta_di_diff_14"}),
        (volatility, "ts_var", lambda x, n, least: ts_var(x, n, least, ddof=0), {"vol_yz_20", "vol_yz_60"}),
        (volatility, "ts_mean", ts_sum, MEANS),
        (
            volatility,
            "divide",
            lambda x, y: np.nan_to_num(divide(x, y)),
            {"vol_ratio_5_60", "vol_of_vol_20", "range_z_20"},
        ),
        (liquidity, "ts_lag", lambda x, k: ts_lag(x, k + 1), LAGGED),
        (liquidity, "ts_cov", lambda x, y, n, least: ts_cov(x, y, n, least - 1), {"liq_roll_spread_20"}),
    ],
)
def test_a_wrong_operator_is_noticed(
    both: Both, monkeypatch: pytest.MonkeyPatch, module: ModuleType, operator: str, fault: Fault, broken: set[str]
) -> None:
    monkeypatch.setattr(module, operator, fault)
    frames = awkward_market()
    inputs = Inputs(build_panel(frames.calendar, frames.master, frames.bars), frames.events)
    differing = set()
    for name, values in compute_group(module.GROUP, inputs).items():
        try:
            assert_same(values, both[1][name])
        except AssertionError:
            differing.add(name)
    assert differing == broken
