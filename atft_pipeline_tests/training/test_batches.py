"""Blocks of whole dates: coverage, order, reproducibility, and nothing from after the date."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from atft_pipeline.training.batches import BlockSource, Days, cut, epoch_order
from atft_pipeline.training.graph import GraphStore
from atft_pipeline.training.panel_data import PanelData, load_panel
from atft_pipeline.training.targets import Targets
from atft_pipeline_tests.training.tiny_panel import write_tiny_panel

LENGTH = 20


@pytest.fixture(scope="module")
def panel(tmp_path_factory: pytest.TempPathFactory) -> PanelData:
    return load_panel(write_tiny_panel(tmp_path_factory.mktemp("tiny") / "panel", dates=130, stocks=30))


def source_of(panel: PanelData, min_cross_section: int = 20) -> BlockSource:
    return BlockSource(
        panel, GraphStore(panel), length=LENGTH, min_window_share=0.8, min_cross_section=min_cross_section,
        device=torch.device("cpu"),
    )  # fmt: skip


@pytest.mark.parametrize(("dates", "size"), [(range(19, 60), 8), (range(5, 12), 8), (range(16), 8), (range(3, 3), 4)])
def test_t50_blocks_cover_every_date_once_and_are_consecutive(dates: range, size: int) -> None:
    blocks = cut(dates, size)
    assert [d for b in blocks for d in range(b.first, b.first + b.count)] == list(dates)
    assert all(b.count >= min(size, len(dates)) for b in blocks)


def test_t50_the_order_differs_by_epoch_and_is_fixed_by_the_seed() -> None:
    blocks = cut(range(100), 5)
    first, second = epoch_order(blocks, 7, 0, 0, 0), epoch_order(blocks, 7, 0, 0, 1)
    assert first != second and first != blocks and sorted(first, key=lambda b: b.first) == blocks
    assert first == epoch_order(blocks, 7, 0, 0, 0) and first != epoch_order(blocks, 8, 0, 0, 0)
    assert epoch_order(blocks, 7, 0, 0, 0, steps=4) == first[:4]


def test_t27_every_valid_stock_of_every_date_is_in_its_block(panel: PanelData) -> None:
    source = source_of(panel)
    for days in cut(panel.part("valid"), 6):
        batch = source.batch(days, with_graph=False)
        assert batch is not None
        rows = batch.block.pairs[:, 0].numpy() + days.first, batch.columns[batch.block.pairs[:, 1].numpy()]
        expected = np.zeros_like(source.eligible)
        expected[days.first : days.first + days.count] = source.eligible[days.first : days.first + days.count]
        got = np.zeros_like(expected)
        got[rows] = True
        np.testing.assert_array_equal(got, expected)
        assert np.bincount(batch.block.pairs[:, 0]).min() >= 20


def test_t50_thin_dates_are_dropped_and_counted(panel: PanelData) -> None:
    source = source_of(panel, min_cross_section=29)
    counts = source.eligible.sum(axis=1)
    assert source.dates_dropped > 0 and set(np.unique(counts[counts < 29])) <= {0}


def test_a_block_holds_the_windows_of_its_pairs(panel: PanelData) -> None:
    days = Days(40, 5)
    batch = source_of(panel).batch(days, with_graph=False)
    assert batch is not None
    for d, i in batch.block.pairs[::17].tolist():
        window = batch.block.x[d : d + LENGTH, i].numpy()
        t, column = days.first + d, batch.columns[i]
        np.testing.assert_array_equal(window, np.asarray(panel.x[t - LENGTH + 1 : t + 1, column], np.float32))
        assert int(batch.block.sector[(batch.block.pairs == torch.tensor([d, i])).all(1)][0]) == panel.sector[t, column]


def test_targets_of_a_block_belong_to_its_own_stocks_and_dates(panel: PanelData) -> None:
    source = source_of(panel)
    targets = Targets(panel.labels(1), source.counted(), panel.horizons, panel.part("train"))
    batch = source.batch(Days(panel.part("train").start + 3, 4), with_graph=False, targets=targets)
    assert batch is not None and batch.targets is not None
    mask = batch.targets.day_mask.numpy()
    raw = panel.labels(1)[batch.days.first : batch.days.first + 4][:, batch.columns, 0]
    np.testing.assert_array_equal(batch.targets.day_return.numpy()[mask], raw[mask])
    assert not (mask & ~source.counted()[batch.days.first : batch.days.first + 4][:, batch.columns]).any()


def test_preparing_ahead_gives_the_same_batches_and_passes_errors_on(
    panel: PanelData, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, blocks = source_of(panel), cut(panel.part("train"), 8)
    plain = [b.block.x for b in source.batches(blocks, with_graph=True)]
    ahead = [b.block.x for b in source.batches(blocks, with_graph=True, prefetch=True)]
    assert all(torch.equal(a, b) for a, b in zip(plain, ahead, strict=True))

    def broken(*_: object, **__: object) -> None:
        raise OSError("the disk went away")

    monkeypatch.setattr(source, "batch", broken)
    with pytest.raises(OSError, match="the disk went away"):
        list(source.batches(blocks, with_graph=True, prefetch=True))
