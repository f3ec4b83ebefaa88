"""A small dataset with a signal of known strength, built with the real writers: for tests of dataset and evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.dataset.assemble import assemble_dataset
from atft_pipeline.dataset.contract import Contract, DatasetColumn
from atft_pipeline.dataset.feature_files import write_features
from atft_pipeline.dataset.scaling import Statistics, fit_statistics
from atft_pipeline.dataset.splits import Split, calendar_split
from atft_pipeline.dataset.training_panel import PanelArrays, write_training_panel
from atft_pipeline.panel.axes import Axes
from atft_pipeline.settings import DELAYS, HORIZONS, Thresholds

KEYS = (
    DatasetColumn("code", "N", "key", "str"),
    DatasetColumn("date", "N", "key", "date"),
    DatasetColumn("asof_ts", "N", "key", "datetime"),
    DatasetColumn("target_ret_1d", "N", "label", "f32"),
    DatasetColumn("target_up_1d", "N", "label", "i8"),
)
FEATURES = (
    DatasetColumn("meta_sector33_id", "meta", "feature", "i8", "category"),
    DatasetColumn("meta_history_td", "meta", "feature", "i32", "log"),
    DatasetColumn("meta_is_traded", "meta", "feature", "i8", "flag"),
    DatasetColumn("px_volume", "px", "feature", "f32", "log"),
    DatasetColumn("ret_1d", "ret", "feature", "f32", "cross_section", spectral=True),
    DatasetColumn("ret_5d", "ret", "feature", "f32", "cross_section", spectral=True),
    DatasetColumn("ta_signal", "ta", "feature", "f32", "cross_section"),
    DatasetColumn("mkt_ret_1d", "mkt", "feature", "f32", "market", market_wide=True),
    DatasetColumn("fs_staleness_td", "fs", "feature", "i16", "time"),
)
CONTRACT = Contract("test", (*KEYS, *FEATURES))


@dataclass(frozen=True)
class Market:
    """Dense arrays of a made-up market; `signal` moves the return two days later."""

    axes: Axes
    values: dict[str, NDArray[np.float64]]
    returns: NDArray[np.float64]
    signal: NDArray[np.float64]

    @property
    def labels(self) -> dict[str, NDArray[np.float64]]:
        ahead = forward(self.returns, 0, 1)
        return {"target_ret_1d": ahead, "target_up_1d": np.where(np.isnan(ahead), np.nan, ahead > 0)}

    @property
    def y(self) -> NDArray[np.float64]:
        return np.stack([np.stack([forward(self.returns, d, h) for h in HORIZONS], axis=2) for d in DELAYS], axis=2)


def forward(returns: NDArray[np.float64], delay: int, horizon: int) -> NDArray[np.float64]:
    """Compound return over (T+delay, T+delay+horizon], NaN beyond the end."""
    level = np.cumprod(1 + np.nan_to_num(returns), axis=0)
    found = np.full_like(returns, np.nan)
    end = len(returns) - delay - horizon
    found[:end] = level[delay + horizon :] / level[delay : delay + end] - 1
    return found


def make_market(dates: int = 260, stocks: int = 40, seed: int = 3, strength: float = 0.5) -> Market:
    """Business days across two years; one stock lists late, one delists early."""
    rng = np.random.default_rng(seed)
    first = np.datetime64("2024-03-01", "D")
    days = np.busday_offset(first, np.arange(dates), roll="forward").astype("datetime64[D]")
    codes = np.array([f"{1301 + 7 * i}0" for i in range(stocks)], dtype="<U5")
    listed = np.ones((dates, stocks), dtype=bool)
    listed[:30, 1] = False
    listed[-20:, 2] = False
    signal = rng.normal(size=(dates, stocks))
    noise = rng.normal(size=(dates, stocks))
    returns = 0.01 * noise + 0.002 * rng.normal(size=(dates, 1))
    returns[2:] += 0.01 * strength * signal[:-2]
    returns[~listed] = np.nan
    volume = np.exp(rng.normal(12, 1.5, size=(dates, stocks)))
    sector = np.broadcast_to(1 + np.arange(stocks) % 5, (dates, stocks)).astype(float)
    history = np.cumsum(listed, axis=0).astype(float)
    five = np.full_like(returns, np.nan)
    level = np.cumprod(1 + np.nan_to_num(returns), axis=0)
    five[5:] = level[5:] / level[:-5] - 1
    values = {
        "meta_sector33_id": sector,
        "meta_history_td": history,
        "meta_is_traded": listed.astype(float),
        "px_volume": volume,
        "ret_1d": returns,
        "ret_5d": five,
        "ta_signal": signal,
        "mkt_ret_1d": np.broadcast_to(rng.normal(0, 0.01, size=(dates, 1)), (dates, stocks)),
        "fs_staleness_td": np.floor(rng.uniform(0, 60, size=(dates, stocks))),
    }
    return Market(Axes(dates=days, codes=codes, listed=listed), values, returns, signal)


def store_features(lake: Path, market: Market, contract: Contract = CONTRACT) -> None:
    for group in contract.groups[1:]:
        dtypes = {c.name: c.dtype for c in contract.group(group)}
        audit = {"joins": 1, "rows_inspected": 100, "hit_rate": 0.9} if group == "fs" else {}
        columns = {name: market.values[name] for name in dtypes}
        write_features(group, dtypes, columns, market.axes, lake, source={"panel": "p1"}, audit=audit)


def store_dataset(lake: Path, market: Market, contract: Contract = CONTRACT) -> None:
    store_features(lake, market, contract)
    assemble_dataset(lake, contract, market.axes, market.labels)


def fit(lake: Path, market: Market, contract: Contract = CONTRACT) -> tuple[Split, Statistics]:
    split = calendar_split(market.axes.dates)
    return split, fit_statistics(lake, contract, market.axes, market.axes.listed, split)


def panel_arrays(market: Market) -> PanelArrays:
    usable = market.axes.listed & np.isfinite(market.returns)
    return PanelArrays(
        axes=market.axes,
        row_ok=usable,
        tradable=usable,
        y=market.y,
        returns=market.returns,
        sector=market.values["meta_sector33_id"].astype(np.int8),
        market=np.ones(market.returns.shape, dtype=np.int8),
    )


def store_panel(lake: Path, market: Market, contract: Contract = CONTRACT) -> dict[str, object]:
    """Features, dataset, statistics and training panel; returns the panel's manifest."""
    store_dataset(lake, market, contract)
    split, statistics = fit(lake, market, contract)
    return write_panel(lake, market, split, statistics, contract)


def write_panel(
    lake: Path,
    market: Market,
    split: Split,
    statistics: Statistics,
    contract: Contract = CONTRACT,
    selected: Sequence[str] | None = None,
) -> dict[str, object]:
    """The training panel of a stored dataset; its small contract is named, as a user would."""
    return write_training_panel(
        lake,
        contract,
        panel_arrays(market),
        split,
        statistics,
        thresholds=Thresholds(),
        selected=selected,
        smaller_contract=contract.name,
    )


def with_values(market: Market, **changed: NDArray[np.float64]) -> Market:
    return replace(market, values={**market.values, **changed})
