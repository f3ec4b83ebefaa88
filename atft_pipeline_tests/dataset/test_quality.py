"""Each check of the dataset's values fires on the fault it is for, and stays quiet on a sound dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from atft_pipeline.dataset import quality
from atft_pipeline.dataset.contract import Contract, DatasetColumn
from atft_pipeline.dataset.feature_files import write_features
from atft_pipeline.dataset.leak_scan import check_too_good, find_too_good
from atft_pipeline.evaluation import plots
from atft_pipeline.evaluation.drawing import MAX_BYTES
from atft_pipeline.lake.store import read_json, read_table, write_json, write_table
from atft_pipeline.panel.axes import Axes
from atft_pipeline.settings import Thresholds
from atft_pipeline_tests.small_lake import CONTRACT, Market, forward, make_market, store_dataset, with_values

LIMITS = Thresholds()


def contract_with(*columns: DatasetColumn) -> Contract:
    return Contract("test", (*CONTRACT.columns, *columns))


@pytest.fixture
def market() -> Market:
    return make_market()


def test_a_sound_dataset_passes_every_check(tmp_path: Path, market: Market) -> None:
    store_dataset(tmp_path, market)
    verdicts = quality.check_quality(tmp_path, CONTRACT, market.axes, LIMITS)
    assert {name: v.message for name, v in verdicts.items() if not v.passed} == {}
    scan = check_too_good(tmp_path, CONTRACT, market.axes, LIMITS)
    assert scan.passed, scan.message


def test_rows_that_vanished_from_a_date_are_found(tmp_path: Path, market: Market) -> None:
    store_dataset(tmp_path, market)
    path = tmp_path / "dataset" / "2024.parquet"
    frame = read_table(path)
    day = frame["date"][500]
    lost = frame.filter(~((pl.col("date") == day) & (pl.int_range(pl.len()) % 2 == 0)))
    record = write_table(path, lost, keys=("code", "date"))
    metadata = read_json(tmp_path / "dataset" / "metadata.json")
    metadata["years"]["2024"] = {"rows": record.rows, "content_hash": record.content_hash}
    write_json(tmp_path / "dataset" / "metadata.json", metadata)
    verdict = quality.check_rows_per_date(tmp_path, CONTRACT, market.axes, LIMITS)
    assert not verdict.passed
    assert str(day) in verdict.message


def test_a_group_below_its_null_budget_is_named(tmp_path: Path) -> None:
    market = make_market(dates=340)
    holes = {name: market.values[name].copy() for name in ("ret_1d", "ret_5d")}
    for values in holes.values():
        values[::3] = np.nan
    store_dataset(tmp_path, with_values(market, **holes))
    verdict = quality.check_nulls(tmp_path, CONTRACT)
    assert not verdict.passed
    assert "ret 6" in verdict.message
    assert verdict.details["rows"]


def test_one_broken_column_does_not_hide_behind_its_group(tmp_path: Path) -> None:
    market = make_market(dates=340)
    names = ("fs_roe_ttm", "fs_roa_ttm", "fs_book_to_price")
    contract = contract_with(*(DatasetColumn(name, "fs", "feature", "f32", "cross_section") for name in names))
    mostly_null = market.values["ret_1d"].copy()
    mostly_null[np.arange(len(mostly_null)) % 10 != 0] = np.nan
    values = {name: market.values["ret_1d"] for name in names} | {"fs_roa_ttm": mostly_null}
    store_dataset(tmp_path, with_values(market, **values), contract)
    verdict = quality.check_nulls(tmp_path, contract)
    assert not verdict.passed
    assert "budget: column fs_roa_ttm 10" in verdict.message


@pytest.mark.parametrize(("sectors", "seen"), [(5, False), (20, True)])
def test_a_rank_of_sectors_is_judged_where_enough_sectors_can_be_ranked(
    tmp_path: Path, sectors: int, seen: bool
) -> None:
    market = make_market(dates=340)
    shape = market.returns.shape
    contract = contract_with(
        DatasetColumn("sec33_member_cnt", "sec", "feature", "i16", "cross_section"),
        DatasetColumn("sec33_ret_1d", "sec", "feature", "f32", "cross_section"),
        DatasetColumn("sec33_rank_ret_5d", "sec", "feature", "f32", "cross_section"),
    )
    values = {
        "meta_sector33_id": np.broadcast_to(1.0 + np.arange(shape[1]) % sectors, shape),
        "sec33_member_cnt": np.full(shape, 9.0),
        "sec33_ret_1d": market.returns,
        "sec33_rank_ret_5d": np.where(np.arange(shape[0])[:, None] % 10 == 0, market.returns, np.nan),
    }
    store_dataset(tmp_path, with_values(market, **values), contract)
    verdict = quality.check_nulls(tmp_path, contract)
    assert ("column sec33_rank_ret_5d 10" in verdict.message) is seen, verdict.message
    assert verdict.passed is not seen


def test_all_null_and_constant_columns_are_found(tmp_path: Path, market: Market) -> None:
    shape = market.returns.shape
    dead = with_values(market, px_volume=np.full(shape, np.nan), ta_signal=np.full(shape, 3.0))
    store_dataset(tmp_path, dead)
    verdict = quality.check_dead_columns(tmp_path, CONTRACT)
    assert (verdict.passed, verdict.got) == (False, 2)
    assert "all null: px_volume" in verdict.message
    assert "constant: ta_signal" in verdict.message


def test_a_value_outside_its_range_is_found(tmp_path: Path, market: Market) -> None:
    wrong = market.values["ret_1d"].copy()
    wrong[100, 5] = -1.5
    store_dataset(tmp_path, with_values(market, ret_1d=wrong))
    verdict = quality.check_ranges(tmp_path, CONTRACT)
    assert not verdict.passed
    assert "ret_1d -1.5" in verdict.message


def test_a_broken_identity_is_found(tmp_path: Path, market: Market) -> None:
    contract = contract_with(
        DatasetColumn("ret_overnight", "gap", "feature", "f32", "cross_section"),
        DatasetColumn("ret_intraday", "gap", "feature", "f32", "cross_section"),
    )
    overnight = 0.4 * market.returns
    intraday = (1 + market.returns) / (1 + overnight) - 1
    store_dataset(tmp_path, with_values(market, ret_overnight=overnight, ret_intraday=intraday), contract)
    assert quality.check_identities(tmp_path, contract).passed
    store_dataset(tmp_path, with_values(market, ret_overnight=overnight, ret_intraday=overnight), contract)
    verdict = quality.check_identities(tmp_path, contract)
    assert not verdict.passed
    assert "1 + ret_1d" in verdict.message


@pytest.mark.parametrize(
    ("audit", "word"),
    [
        ({"rows_inspected": 0, "violations": 0}, "nothing inspected"),
        ({"rows_inspected": 9, "violations": 2}, "too early"),
    ],
)
def test_an_audit_that_saw_nothing_or_a_violation_fails(
    tmp_path: Path, market: Market, audit: dict[str, int], word: str
) -> None:
    store_dataset(tmp_path, market)
    good = {"rows_inspected": 100, "violations": 0}
    for found, passed in ((good, True), (audit, False)):
        columns = {"fs_staleness_td": market.values["fs_staleness_td"]}
        write_features("fs", {"fs_staleness_td": "i16"}, columns, market.axes, tmp_path, audit=found)
        verdict = quality.check_availability(tmp_path, CONTRACT)
        assert verdict.passed is passed
    assert word in verdict.message


def test_a_dataset_without_any_audited_join_fails(tmp_path: Path, market: Market) -> None:
    store_dataset(tmp_path, market)
    columns = {"fs_staleness_td": market.values["fs_staleness_td"]}
    write_features("fs", {"fs_staleness_td": "i16"}, columns, market.axes, tmp_path)
    verdict = quality.check_availability(tmp_path, CONTRACT)
    assert not verdict.passed and "no group stored the account" in verdict.message


@pytest.mark.parametrize("blend", [1.0, 0.4])
def test_a_leaked_column_under_an_innocent_name_is_caught(tmp_path: Path, market: Market, blend: float) -> None:
    rng = np.random.default_rng(9)
    tomorrow = forward(market.returns, 0, 1)
    noise = rng.normal(0, np.nanstd(tomorrow), size=tomorrow.shape)
    leaked = blend * tomorrow + (1 - blend) * noise
    store_dataset(tmp_path, with_values(market, ta_signal=leaked))
    verdict = check_too_good(tmp_path, CONTRACT, market.axes, LIMITS)
    assert not verdict.passed
    assert "ta_signal" in verdict.message
    assert "ret_5d" not in verdict.message


def test_noise_in_a_tiny_market_is_not_called_a_leak() -> None:
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(40, 22, 2))
    features = [(f"f{i}", rng.normal(size=(40, 22))) for i in range(300)]
    found, largest = find_too_good(features, targets, (1, 20), LIMITS)
    assert found == {}
    assert largest > 0.02


def test_one_day_of_perfect_foresight_is_caught() -> None:
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(60, 30, 1))
    values = rng.normal(size=(60, 30))
    values[7] = targets[7, :, 0]
    found, _ = find_too_good([("once", values)], targets, (1,), LIMITS)
    assert found == {"once": pytest.approx(1.0)}


def test_rows_per_date_compares_with_the_listing_not_with_itself(tmp_path: Path, market: Market) -> None:
    store_dataset(tmp_path, market)
    doubled = Axes(
        dates=market.axes.dates,
        codes=np.concatenate([market.axes.codes, np.array([f"9{i:03d}0" for i in range(40)])]),
        listed=np.hstack([market.axes.listed, market.axes.listed]),
    )
    assert not quality.check_rows_per_date(tmp_path, CONTRACT, doubled, LIMITS).passed


def test_a_group_that_is_missing_for_one_year_is_named_with_the_year(tmp_path: Path) -> None:
    """Over all years the group stays within its budget: only the year by itself shows the hole."""
    market = make_market(dates=560, stocks=60)
    year = market.axes.dates.astype("datetime64[Y]").astype(int) + 1970
    assert (year == 2026).sum() > 40
    holes = {name: market.values[name].copy() for name in ("ret_1d", "ret_5d")}
    rows = np.flatnonzero(year == 2026)[::12]
    for values in holes.values():
        values[rows] = np.nan
    store_dataset(tmp_path, market)
    assert quality.check_nulls(tmp_path, CONTRACT).passed
    store_dataset(tmp_path, with_values(market, **holes))
    verdict = quality.check_nulls(tmp_path, CONTRACT)
    assert not verdict.passed
    assert "ret in 2026 9" in verdict.message and "2025" not in verdict.message


def test_null_shares_come_from_the_footers(tmp_path: Path, market: Market) -> None:
    holes = market.values["px_volume"].copy()
    holes[market.axes.dates < np.datetime64("2025-01-01")] = np.nan
    store_dataset(tmp_path, with_values(market, px_volume=holes))
    years, shares = quality.null_shares(tmp_path, CONTRACT)
    assert years == ["2024", "2025"]
    assert shares["px"] == [1.0, 0.0]
    assert shares["meta"] == [0.0, 0.0]
    assert 0 < len(plots.null_shares(years, shares)) < MAX_BYTES
