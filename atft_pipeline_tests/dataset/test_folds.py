"""Walk-forward folds: purged, never overlapping, each with statistics and a panel that know nothing later."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from atft_pipeline.dataset.scaling import Statistics, fit_statistics, stats_path
from atft_pipeline.dataset.splits import Split, calendar_split, check_label_overlap, walk_forward_splits
from atft_pipeline.dataset.training_panel import panel_dir, verify_training_panel, write_training_panel
from atft_pipeline.lake.store import read_array
from atft_pipeline.settings import DELAYS, HORIZONS, SettingError, Settings, Thresholds, WalkForward
from atft_pipeline.training.panel_data import PanelError, load_panel
from atft_pipeline.verdict import ContractBroken
from atft_pipeline_tests.dataset.test_splits import trading_days
from atft_pipeline_tests.small_lake import (
    CONTRACT,
    Market,
    make_market,
    panel_arrays,
    store_dataset,
    store_panel,
    with_values,
)  # fmt: skip

REACH = max(HORIZONS) + max(DELAYS)
SMALL = WalkForward(folds=3, test_days=30, valid_days=30, min_train_days=60)


@pytest.mark.parametrize(
    "plan", [WalkForward(), WalkForward(folds=9, test_days=126), WalkForward(refit="year", folds=4)]
)
def test_folds_are_purged_expand_and_test_every_date_once(plan: WalkForward) -> None:
    dates = trading_days(2300)
    folds = walk_forward_splits(dates, plan)
    assert len(folds) == plan.folds
    for fold in folds:
        for earlier, later in ((fold.train, fold.valid), (fold.valid, fold.test)):
            assert later[0] - (earlier[1] - 1 + REACH) >= 1
        assert fold.embargo_days >= REACH
        assert fold.train[1] - fold.train[0] >= plan.min_train_days
        assert fold.valid[1] - fold.valid[0] == plan.valid_days
        assert len(fold.dates) == fold.test[1]
    assert folds[-1].test[1] == len(dates)
    assert all(a.test[1] == b.test[0] and a.train[0] == b.train[0] and a.train[1] < b.train[1]
               for a, b in pairwise(folds))  # fmt: skip


def test_yearly_refits_test_calendar_years_and_a_young_year_joins_the_one_before() -> None:
    dates = np.arange("2017-01-02", "2024-02-10", dtype="datetime64[D]")
    dates = dates[np.is_busday(dates)]
    folds = walk_forward_splits(dates, WalkForward(refit="year", folds=20))
    starts = [fold.span("test")[0] for fold in folds]
    assert starts == ["2020-01-01", "2021-01-01", "2022-01-03", "2023-01-02"]
    assert folds[-1].span("test")[1] == "2024-02-09"


def test_a_history_that_is_too_short_names_the_remedy() -> None:
    with pytest.raises(ContractBroken, match="800 sessions are too few.*at least 504 to train.*so 1046 sessions"):
        walk_forward_splits(trading_days(800), WalkForward())
    assert len(walk_forward_splits(trading_days(1046), WalkForward())) == 5
    with pytest.raises(ContractBroken, match="so 1046 sessions are needed"):
        walk_forward_splits(trading_days(1045), WalkForward())
    with pytest.raises(ContractBroken, match="to test one calendar year"):
        walk_forward_splits(trading_days(500), WalkForward(refit="year"))


def test_the_embargo_counts_sessions_even_in_golden_week() -> None:
    golden_week = ("2024-04-29", "2024-04-30", "2024-05-01", "2024-05-02", "2024-05-03", "2024-05-06")
    dates = trading_days(500, "2023-04-03", golden_week)
    folds = walk_forward_splits(dates, replace(SMALL, folds=8))
    over = [f for f in folds if dates[f.train[1]] < np.datetime64("2024-05-01") < dates[f.valid[0]]]
    assert over  # a fold whose embargo holds the holidays
    for fold in over:
        assert fold.valid[0] - fold.train[1] == REACH
        assert dates[fold.valid[0]] - dates[fold.train[1]] > np.timedelta64(REACH // 5 * 7 + 6)


def test_settings_of_the_walk_forward_come_from_the_environment() -> None:
    real = Settings.from_env({"JQUANTS_API_KEY": "k", "ATFT_WALK_REFIT": "year", "ATFT_WALK_FOLDS": "7"}).walk_forward
    assert (real.refit, real.folds, real.seeds) == ("year", 7, (7, 8, 9))
    assert Settings.from_env({"ATFT_WALK_SEEDS": "1,2"}).walk_forward.seeds == (1, 2)
    for name, text in (("ATFT_WALK_REFIT", "weekly"), ("ATFT_WALK_SEEDS", "one"), ("ATFT_WALK_FOLDS", "0"),
                       ("ATFT_WALK_FOLD", "3"), ("ATFT_WALK_SEEDS", "7,7")):  # fmt: skip
        with pytest.raises(SettingError, match="ATFT_WALK_"):
            Settings.from_env({name: text})


@pytest.fixture(scope="module")
def market() -> Market:
    return make_market(dates=320, stocks=25)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, market: Market) -> Path:
    root = tmp_path_factory.mktemp("lake")
    store_panel(root, market)
    return root


def fit(lake: Path, market: Market, split: Split, home: Path) -> Statistics:
    return fit_statistics(lake, CONTRACT, market.axes, market.axes.listed, split, home=home)


def write(lake: Path, market: Market, split: Split, statistics: Statistics, home: Path) -> dict[str, object]:
    return write_training_panel(
        lake, CONTRACT, panel_arrays(market), split, statistics,
        thresholds=Thresholds(), smaller_contract=CONTRACT.name, home=home,
    )  # fmt: skip


def test_each_fold_has_its_own_statistics_tied_to_its_split_and_the_lakes_stay(
    lake: Path, market: Market, tmp_path: Path
) -> None:
    before = stats_path(lake).read_bytes()
    folds = walk_forward_splits(market.axes.dates, SMALL)
    found = [fit(lake, market, split, tmp_path / str(k)) for k, split in enumerate(folds)]
    assert len({statistics.hash for statistics in found}) == len(folds)
    for k, (split, statistics) in enumerate(zip(folds, found, strict=True)):
        assert Statistics.load(tmp_path / str(k)) == statistics
        assert dict(statistics.split) == split.as_json()
        assert statistics.coverage.train_last == split.span("train")[1]
    assert stats_path(lake).read_bytes() == before
    with pytest.raises(ContractBroken, match="the statistics were fitted for"):
        write(lake, market, folds[0], found[1], tmp_path / "0")
    assert not panel_dir(tmp_path / "0").exists()


def test_a_folds_statistics_and_inputs_see_nothing_after_its_training_span(
    lake: Path, market: Market, tmp_path: Path
) -> None:
    """Everything after the first fold's training dates becomes garbage; statistics and earlier inputs stay equal."""
    fold = walk_forward_splits(market.axes.dates, SMALL)[0]
    end = fold.train[1]
    rng = np.random.default_rng(1)
    garbage = {
        name: np.concatenate([values[:end], rng.permuted(values[end:], axis=1) * 3 + (values[end:].max() - 1)])
        for name, values in market.values.items()
        if name in ("px_volume", "mkt_ret_1d", "fs_staleness_td", "ta_signal", "ret_5d")
    }
    later = with_values(market, **garbage)
    store_dataset(tmp_path / "poisoned", later)
    plain = fit(lake, market, fold, tmp_path / "plain")
    moved = fit(tmp_path / "poisoned", later, fold, tmp_path / "moved")
    assert plain.features == moved.features
    write(lake, market, fold, plain, tmp_path / "plain")
    write(tmp_path / "poisoned", later, fold, moved, tmp_path / "moved")
    x, y = (read_array(panel_dir(tmp_path / name) / "x.npy") for name in ("plain", "moved"))
    assert len(x) == fold.test[1] < len(market.axes.dates)
    assert np.array_equal(x[:end], y[:end]) and not np.array_equal(x[end:], y[end:])
    # The fault that this must be able to see: a training span that takes in what belongs to validation.
    longer = replace(fold, train=(fold.train[0], fold.valid[1]))
    assert fit(lake, market, longer, tmp_path / "f").features != fit(tmp_path / "poisoned", later, longer,
                                                                     tmp_path / "g").features  # fmt: skip


def test_a_fold_without_its_embargo_is_refused_before_any_training(lake: Path, market: Market, tmp_path: Path) -> None:
    fold = walk_forward_splits(market.axes.dates, SMALL)[1]
    planted = replace(fold, train=(fold.train[0], fold.train[1] + 1))
    verdict = check_label_overlap(planted)
    assert not verdict.passed and "train to valid" in verdict.message
    write(lake, market, planted, fit(lake, market, planted, tmp_path), tmp_path)
    with pytest.raises(PanelError, match="the embargo must be at least 21"):
        load_panel(panel_dir(tmp_path))


def test_a_folds_panel_is_the_lakes_where_the_split_is_the_lakes(lake: Path, market: Market, tmp_path: Path) -> None:
    split = calendar_split(market.axes.dates)
    manifest = write(lake, market, split, fit(lake, market, split, tmp_path), tmp_path)
    assert manifest["hash"] == verify_training_panel(lake)["hash"]
