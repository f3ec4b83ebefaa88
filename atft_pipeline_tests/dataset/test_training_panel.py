"""The training panel: what the trainer reads, whole or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from atft_pipeline.dataset import contract as contracts
from atft_pipeline.dataset.contract import Contract, DatasetColumn, check_training_width
from atft_pipeline.dataset.training_panel import (
    check_training_panel,
    panel_dir,
    read_manifest,
    require_trainable,
    verify_training_panel,
    write_training_panel,
)
from atft_pipeline.settings import DELAYS, HORIZONS, Thresholds
from atft_pipeline.training.panel_data import load_panel
from atft_pipeline.verdict import ContractBroken
from atft_pipeline_tests.small_lake import (
    CONTRACT,
    FEATURES,
    KEYS,
    fit,
    make_market,
    panel_arrays,
    store_dataset,
    store_panel,
    write_panel,
)

LIMITS = Thresholds()


def test_the_trainer_accepts_the_panel_and_finds_every_array(tmp_path: Path) -> None:
    market = make_market()
    manifest = store_panel(tmp_path, market)
    panel = load_panel(panel_dir(tmp_path))
    assert panel.hash == manifest["hash"]
    assert panel.feature_names == tuple(c.name for c in CONTRACT.features)
    assert panel.feature_names[panel.return_channel] == "ret_1d"
    assert panel.x.shape == (*market.returns.shape, len(CONTRACT.features))
    assert panel.x.dtype == np.float16
    assert panel.y.shape == (*market.returns.shape, len(DELAYS), len(HORIZONS))
    assert np.isfinite(panel.x).all()
    assert not panel.x[~market.axes.listed].any()


def test_t51_the_label_of_delay_one_starts_a_day_later(tmp_path: Path) -> None:
    market = make_market()
    store_panel(tmp_path, market)
    y = load_panel(panel_dir(tmp_path)).y
    assert np.allclose(y[:-2, 0, 0, 0], market.returns[1:-1, 0], atol=1e-6)
    assert np.allclose(y[:-2, 0, 1, 0], market.returns[2:, 0], atol=1e-6)


def test_inputs_keep_the_order_of_stocks_within_a_date(tmp_path: Path) -> None:
    market = make_market()
    manifest = store_panel(tmp_path, market)
    x = load_panel(panel_dir(tmp_path)).x
    at = [f["name"] for f in manifest["features"]].index("ta_signal")
    day = 100
    stocks = np.flatnonzero(market.axes.listed[day] & np.isfinite(market.returns[day]))
    raw, value = market.signal[day, stocks], x[day, stocks, at].astype(float)
    assert np.array_equal(np.argsort(raw), np.argsort(value))
    assert abs(value.mean()) < 0.01
    assert value.std() == pytest.approx(1, abs=0.1)


def test_inputs_up_to_a_day_are_bit_equal_when_everything_later_is_replaced(tmp_path: Path) -> None:
    market = make_market()
    day = 230
    garbage = {name: values.copy() for name, values in market.values.items()}
    for name in ("px_volume", "ret_1d", "ret_5d", "ta_signal", "mkt_ret_1d", "fs_staleness_td"):
        garbage[name][day + 1 :] = np.floor(garbage[name][day + 1 :] * -3) + 5
    stored = {}
    for name, values in (("true", market.values), ("poisoned", garbage)):
        lake = tmp_path / name
        store_panel(lake, replace(market, values=values))
        stored[name] = np.array(load_panel(panel_dir(lake)).x[: day + 1])
    assert stored["true"].tobytes() == stored["poisoned"].tobytes()


def test_a_damaged_array_is_named(tmp_path: Path) -> None:
    store_panel(tmp_path, make_market())
    verify_training_panel(tmp_path)
    path = panel_dir(tmp_path) / "y.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ContractBroken, match=r"y\.npy is missing or does not match"):
        verify_training_panel(tmp_path)
    assert not check_training_panel(tmp_path).passed
    path.unlink()
    assert "y.npy" in check_training_panel(tmp_path).message


def test_a_failed_build_leaves_the_old_panel_in_place(tmp_path: Path) -> None:
    market = make_market()
    before = store_panel(tmp_path, market)
    split, statistics = fit(tmp_path, market)
    thin = replace(statistics, coverage=replace(statistics.coverage, rows=5, codes=5, dates=1))
    with pytest.raises(ContractBroken, match="rest on too little"):
        write_panel(tmp_path, market, split, thin)
    assert read_manifest(tmp_path) == before
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".training_panel")] == []


def test_t49_a_changed_dataset_needs_new_statistics_and_gives_another_hash(tmp_path: Path) -> None:
    market = make_market()
    before = store_panel(tmp_path, market)
    split, statistics = fit(tmp_path, market)
    other = make_market(seed=4)
    store_dataset(tmp_path, other)
    with pytest.raises(ContractBroken, match="another dataset"):
        write_panel(tmp_path, other, split, statistics)
    assert store_panel(tmp_path, other)["hash"] != before["hash"]


def test_the_same_inputs_give_the_same_hash(tmp_path: Path) -> None:
    first = store_panel(tmp_path / "a", make_market())
    assert store_panel(tmp_path / "b", make_market())["hash"] == first["hash"]


def test_a_dataset_without_a_group_never_becomes_a_panel(tmp_path: Path) -> None:
    market = make_market()
    short = Contract("test", tuple(c for c in CONTRACT.columns if c.group != "fs"))
    store_dataset(tmp_path, market, short)
    split, statistics = fit(tmp_path, market, short)
    with pytest.raises(ContractBroken, match="missing groups: fs"):
        write_panel(tmp_path, market, split, statistics)


def test_selected_inputs_keep_their_names_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    market = make_market()
    store_dataset(tmp_path, market)
    split, statistics = fit(tmp_path, market)

    def build(*names: str) -> dict[str, object]:
        return write_panel(tmp_path, market, split, statistics, selected=names)

    assert [f["name"] for f in build("ret_1d", "mkt_ret_1d")["features"]] == ["ret_1d", "mkt_ret_1d"]  # type: ignore[attr-defined]
    for names, reason in (
        (("ret_1d", "target_ret_1d"), "target_ret_1d"),
        (("ret_1d", "nonsense"), "nonsense"),
        (("mkt_ret_1d",), "lack ret_1d"),
    ):
        with pytest.raises(ContractBroken, match=reason):
            build(*names)


def full_contract() -> Contract:
    """A Standard catalogue of 306 columns, of which the small contract is the beginning."""
    more = tuple(DatasetColumn(f"opt_{i}", "opt", "feature", "f32", "time") for i in range(306 - len(CONTRACT.columns)))
    return Contract("standard", (*CONTRACT.columns, *more))


def test_t46_a_small_contract_is_refused_with_the_missing_groups_unless_it_is_named() -> None:
    full = full_contract()
    small = Contract("free", (*KEYS, *(c for c in FEATURES if c.group != "mkt")))
    verdict = check_training_width(small, "", full)
    assert (verdict.passed, verdict.got, verdict.want) == (False, 13, 306)
    assert "mkt (1 of 1 columns: mkt_ret_1d)" in verdict.message and "opt (292 of 292" in verdict.message
    assert "ATFT_CONTRACT=free-13" in verdict.message
    assert check_training_width(small, "free-13", full).passed
    assert not check_training_width(small, "free-12", full).passed
    assert check_training_width(full, "", full).passed


def test_the_width_rule_sleeps_while_the_catalogue_itself_is_narrower() -> None:
    almost = Contract("standard", full_contract().columns[:305])
    assert check_training_width(CONTRACT, "", almost).passed


def test_t46_no_training_panel_is_built_from_a_shrunken_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    market = make_market()
    store_dataset(tmp_path, market)
    split, statistics = fit(tmp_path, market)
    monkeypatch.setattr(contracts, "contract_of", lambda plan: full_contract())
    with pytest.raises(ContractBroken, match=r"at least 306 columns, contract 'test-14' has 14; missing groups: opt"):
        write_training_panel(tmp_path, CONTRACT, panel_arrays(market), split, statistics, thresholds=LIMITS)
    assert not panel_dir(tmp_path).exists()


def test_a_panel_of_a_small_contract_that_exists_is_not_trained_on_unnamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_panel(tmp_path, make_market())
    monkeypatch.setattr(contracts, "contract_of", lambda plan: full_contract())
    with pytest.raises(ContractBroken, match="missing groups: opt"):
        require_trainable(tmp_path, CONTRACT)
    assert require_trainable(tmp_path, CONTRACT, "test-14")["contract"] == "test-14"


def test_t49_a_panel_of_another_dataset_is_not_trained_on(tmp_path: Path) -> None:
    store_panel(tmp_path, make_market())
    store_dataset(tmp_path, make_market(seed=4))
    with pytest.raises(ContractBroken, match="another dataset"):
        require_trainable(tmp_path, CONTRACT, CONTRACT.name)
