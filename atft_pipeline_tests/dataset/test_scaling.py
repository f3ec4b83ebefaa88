"""Statistics rest on the whole training part and on nothing later; scaling keeps what it should."""

from __future__ import annotations

import statistics as stdlib_statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from atft_pipeline.dataset.contract import contract_of
from atft_pipeline.dataset.sampled_columns import sampled_columns, side_by_side
from atft_pipeline.dataset.scaling import (
    Coverage,
    Statistics,
    check_coverage,
    check_saturation,
    fit_feature,
    fit_statistics,
    histograms_path,
    require_statistics,
    scaled,
    stats_path,
    training_sample,
    worst_features,
)
from atft_pipeline.dataset.splits import calendar_split
from atft_pipeline.dataset.treatments import normal_quantile, rank_normal
from atft_pipeline.evaluation.drawing import MAX_BYTES
from atft_pipeline.evaluation.plots import input_histograms
from atft_pipeline.lake.store import read_json
from atft_pipeline.settings import Thresholds
from atft_pipeline.verdict import ContractBroken
from atft_pipeline_tests.small_lake import CONTRACT, fit, make_market, store_dataset, with_values

LIMITS = Thresholds()


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Statistics:
    lake = tmp_path_factory.mktemp("lake")
    market = make_market()
    store_dataset(lake, market)
    return fit(lake, market)[1]


def test_t43_every_training_row_stands_behind_the_statistics(fitted: Statistics) -> None:
    market = make_market()
    first, end = calendar_split(market.axes.dates).part("train")
    assert fitted.coverage.rows == market.axes.listed[first:end].sum()
    assert fitted.coverage.dates == fitted.coverage.train_dates == end - first
    assert fitted.coverage.codes == len(market.axes.codes)
    assert check_coverage(fitted, LIMITS).passed
    assert check_saturation(fitted, LIMITS).passed


def test_t43_statistics_do_not_move_when_later_rows_are_replaced(fitted: Statistics, tmp_path: Path) -> None:
    market = make_market()
    end = calendar_split(market.axes.dates).train[1]
    poisoned = {name: values.copy() for name, values in market.values.items()}
    for name in ("px_volume", "ret_1d", "mkt_ret_1d", "fs_staleness_td"):
        poisoned[name][end:] *= 17
    changed = with_values(market, **poisoned)
    store_dataset(tmp_path, changed)
    again = fit(tmp_path, changed)[1]
    assert again.features == fitted.features
    assert again.coverage == fitted.coverage
    assert again.dataset_hash != fitted.dataset_hash


def test_t43_five_rows_are_not_statistics(tmp_path: Path) -> None:
    market = make_market()
    store_dataset(tmp_path, market)
    split = calendar_split(market.axes.dates)
    five = np.zeros_like(market.axes.listed)
    five[split.train[0], 3:8] = True
    planted = fit_statistics(tmp_path, CONTRACT, market.axes, market.axes.listed, split, sample=five)
    verdict = check_coverage(planted, LIMITS)
    assert not verdict.passed
    assert (verdict.got, verdict.want) == (5, planted.coverage.train_rows)
    assert "5 rows" in verdict.message
    with pytest.raises(ContractBroken, match="rest on too little"):
        require_statistics(planted, planted.dataset_hash, split, LIMITS)


def test_t43_statistics_of_the_first_month_only_do_not_cover_the_training_part(fitted: Statistics) -> None:
    start = replace(fitted.coverage, dates=20, last="2024-06-21")
    verdict = check_coverage(replace(fitted, coverage=start), LIMITS)
    assert not verdict.passed
    assert "training dates" in verdict.message


def test_a_large_training_part_is_sampled_from_every_date_alike() -> None:
    market = make_market()
    split = calendar_split(market.axes.dates)
    chosen = training_sample(market.axes.listed, split, max_rows=1000)
    first, end = split.part("train")
    per_date = chosen[first:end].sum(axis=1)
    assert per_date.min() == per_date.max() == np.ceil(1000 / market.axes.listed[first:end].sum() * 40)
    assert not chosen[end:].any()
    longer = training_sample(np.vstack([market.axes.listed, market.axes.listed]), split, max_rows=1000)
    assert np.array_equal(longer[: len(chosen)], chosen)


def test_statistics_of_another_dataset_or_split_are_refused(fitted: Statistics) -> None:
    dates = make_market().axes.dates
    with pytest.raises(ContractBroken, match="another dataset"):
        require_statistics(fitted, "0" * 64, calendar_split(dates), LIMITS)
    with pytest.raises(ContractBroken, match="the split is"):
        require_statistics(fitted, fitted.dataset_hash, calendar_split(dates, fractions=(0.5, 0.25, 0.25)), LIMITS)


def test_edited_statistics_are_refused(tmp_path: Path) -> None:
    market = make_market()
    store_dataset(tmp_path, market)
    saved = fit(tmp_path, market)[1]
    assert Statistics.load(tmp_path) == saved
    path = stats_path(tmp_path)
    path.write_text(path.read_text().replace('"saturation": 0.0', '"saturation": 0.001', 1))
    with pytest.raises(ContractBroken, match="own hash"):
        Statistics.load(tmp_path)


def test_t43_a_saturated_feature_is_found() -> None:
    rng = np.random.default_rng(0)
    x = np.where(rng.random((100, 30)) < 0.08, 1e6, rng.normal(size=(100, 30)))
    feature = fit_feature("heavy", "time", x, np.ones(x.shape, bool))
    assert feature.saturation == pytest.approx(0.08, abs=0.01)
    verdict = check_saturation(Statistics((feature,), _no_coverage(), "", {}), LIMITS)
    assert not verdict.passed
    assert "heavy" in verdict.message


def test_t48_a_market_wide_column_keeps_its_time_scale_even_if_declared_cross_sectional() -> None:
    rng = np.random.default_rng(1)
    x = np.repeat(rng.normal(size=(200, 1)), 25, axis=1)
    where = np.ones(x.shape, bool)
    feature = fit_feature("mkt_ret_1d", "cross_section", x, where)
    value = scaled(feature, x, where)
    assert np.isfinite(value).all()
    assert value[:, 0].std() > 0.5
    assert np.array_equal(value, np.repeat(value[:, :1], 25, axis=1))


def test_a_market_wide_column_is_fitted_on_dates_not_on_rows() -> None:
    rng = np.random.default_rng(2)
    series = rng.normal(size=300)
    where = np.zeros((300, 50), bool)
    where[:, :2] = True
    where[series > 0] = True  # many more stocks on dates with a positive value
    feature = fit_feature("mkt", "market", np.repeat(series[:, None], 50, axis=1), where)
    assert feature.centre == pytest.approx(np.median(series))


def test_a_mostly_constant_count_is_scaled_by_its_deviation() -> None:
    x = np.full((100, 40), 250.0)
    x[:, :4] = np.linspace(0, 240, 100)[:, None]
    feature = fit_feature("lim_td_since", "time", x, np.ones(x.shape, bool))
    assert feature.scale == pytest.approx(x.std(ddof=1))
    assert feature.saturation < LIMITS.max_saturation


def test_a_dead_number_becomes_zero_and_is_named() -> None:
    where = np.ones((50, 30), bool)
    feature = fit_feature("dead", "time", np.full(where.shape, 7.0), where)
    assert feature.constant
    assert not scaled(feature, np.full(where.shape, 9.0), where).any()


def test_ranks_become_normal_scores_with_average_ties_and_missing_as_zero() -> None:
    x = np.array([[3.0, 1.0, 1.0, np.nan, 2.0, 10.0, 99.0]])
    where = np.array([[True, True, True, True, True, True, False]])
    value = rank_normal(x, where)[0]
    quantile = stdlib_statistics.NormalDist().inv_cdf
    wanted = [quantile(0.7), quantile(0.2), quantile(0.2), 0.0, quantile(0.5), quantile(0.9), 0.0]
    assert np.allclose(value, wanted, atol=1e-8)


def test_the_normal_quantile_is_accurate() -> None:
    p = np.concatenate([np.linspace(1e-6, 0.03, 50), np.linspace(0.03, 0.97, 50), 1 - np.linspace(1e-6, 0.03, 50)])
    exact = [stdlib_statistics.NormalDist().inv_cdf(v) for v in p]
    assert np.allclose(normal_quantile(p), exact, rtol=2e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["cross_section", "market", "time"])
def test_inputs_do_not_depend_on_the_unit_of_a_feature(kind: str) -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(120, 30)) if kind != "market" else np.repeat(rng.normal(size=(120, 1)), 30, axis=1)
    where = np.ones(x.shape, bool)
    plain = scaled(fit_feature("f", kind, x, where), x, where)
    larger = scaled(fit_feature("f", kind, 1000 * x, where), 1000 * x, where)
    assert np.allclose(plain, larger, atol=1e-9)


def test_scaled_rows_do_not_see_other_dates() -> None:
    rng = np.random.default_rng(5)
    x = np.exp(rng.normal(size=(100, 30)))
    where = np.ones(x.shape, bool)
    poisoned = x.copy()
    poisoned[60:] = 1e9
    for kind in ("cross_section", "log", "time"):
        feature = fit_feature("f", kind, x[:50], where[:50])
        assert np.array_equal(scaled(feature, x, where)[:60], scaled(feature, poisoned, where)[:60])


def _no_coverage() -> Coverage:
    return Coverage(0, 0, 0, "", "", 0, 0, 0, "", "")


def test_the_sample_holds_the_chosen_rows_of_every_year(tmp_path: Path) -> None:
    market = make_market(dates=420)
    store_dataset(tmp_path, market)
    split = calendar_split(market.axes.dates)
    first, end = split.part("train")
    assert len(set(market.axes.dates[first:end].astype("datetime64[Y]").tolist())) == 2
    chosen = training_sample(market.axes.listed, split, max_rows=3000)
    rows = side_by_side(chosen[first:end])
    values = dict(sampled_columns(tmp_path, ["ta_signal", "meta_sector33_id"], market.axes, chosen, split))
    for name, grid in values.items():
        assert np.array_equal(grid[rows], market.values[name].astype(np.float32)[first:end][chosen[first:end]])
        assert np.isnan(grid[~rows]).all()


def test_histograms_count_every_known_value_and_the_worst_come_first(fitted: Statistics, tmp_path: Path) -> None:
    market = make_market()
    store_dataset(tmp_path, market)
    statistics = fit(tmp_path, market)[1]
    stored = read_json(histograms_path(tmp_path))
    assert stored["statistics"] == statistics.hash
    by_name = {f.name: f for f in statistics.features}
    assert stored["counts"]["ret_1d"] == []
    wanted = round(statistics.coverage.rows * (1 - by_name["px_volume"].null_share))
    assert sum(stored["counts"]["px_volume"]) == wanted
    heavy = replace(by_name["fs_staleness_td"], saturation=0.04)
    worst = worst_features(replace(statistics, features=(*statistics.features[:-1], heavy)))
    assert worst[0] == heavy and all(f.treatment != "rank_normal" for f in worst)
    picture = input_histograms(stored["edges"], {f.name: stored["counts"][f.name] for f in worst}, {})
    assert 0 < len(picture) < MAX_BYTES


def test_a_market_of_one_age_with_a_few_newcomers_is_not_clipped() -> None:
    """In a whole market nearly everyone's history is the panel's own length: a spread of levels would be zero."""
    length = np.full((60, 200), 900.0) + np.arange(60)[:, None]
    length[:, :20] -= np.linspace(100, 800, 20)
    length[:, 20:90] -= np.arange(70) % 3  # days without a close
    everyone = np.ones(length.shape, bool)
    declared = next(column for column in contract_of("premium").features if column.name == "meta_history_td")
    assert fit_feature(declared.name, declared.kind, length, everyone).saturation == 0.0
    assert fit_feature(declared.name, "log", length, everyone).saturation > Thresholds().max_saturation
