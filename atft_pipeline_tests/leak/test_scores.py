"""From raw tables to scores: everything published after a day is replaced, and no score up to it changes by a bit.

The whole way is built twice, panel, features, dataset, statistics and training panel, and one model with the graph and
open gates scores both. The dates lie in the validation and test parts, at the edge and in the middle of a block.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from atft_pipeline import steps
from atft_pipeline.dataset.contract import contract_of
from atft_pipeline.features import catalog
from atft_pipeline.lake.store import write_table
from atft_pipeline.settings import Thresholds
from atft_pipeline.training.batches import BlockSource
from atft_pipeline.training.config import TrainingConfig
from atft_pipeline.training.engine import build_model
from atft_pipeline.training.graph import GraphStore
from atft_pipeline.training.panel_data import PanelData, load_panel
from atft_pipeline.training.scoring import score_dates
from atft_pipeline_tests.leak.test_everything import poisoned
from atft_pipeline_tests.synthetic import Frames, market

PLAN = "free"
RAW = {"calendar": "calendar", "master": "master", "bars_daily": "bars", "fin_summary": "fin_summary"}
CONFIG = TrainingConfig.resolve("demo", env={}, overrides={"sequence_length": 20, "hidden": 8, "value_width": 4})


def panel_of(frames: Frames, lake: Path) -> PanelData:
    """The training panel of a lake that holds these raw tables."""
    for table, field in RAW.items():
        frame = getattr(frames, field)
        keys = [name for name in ("Date", "DiscDate", "Code", "DiscNo") if name in frame.columns]
        write_table(lake / "raw" / table / "all.parquet", frame, keys=keys)
    steps.build_market_panel(lake)
    for group in catalog.groups(PLAN):
        steps.build_features(lake, group.name)
    steps.build_dataset(lake, PLAN, "synthetic")
    steps.build_statistics(lake, PLAN)
    steps.build_training_panel(lake, PLAN, Thresholds(), {}, smaller_contract=contract_of(PLAN).name)
    return load_panel(lake / "training_panel")


def scores_of(panel: PanelData, dates: range) -> NDArray[np.float32]:
    """Scores [D, N, H] of the one model, whose weights depend on the seed alone."""
    model = build_model(CONFIG, panel)
    model.set_switches(adaptive_norm=True, graph=True)
    with torch.no_grad():
        for gate in model.parameter_groups()["gates"]:
            gate.add_(0.3)
    source = BlockSource(
        panel, GraphStore(panel), length=20, min_window_share=0.8, min_cross_section=20, device=torch.device("cpu")
    )
    return score_dates(model, source, dates, dates_per_block=8)[0]


@pytest.fixture(scope="module")
def frames() -> Frames:
    return market()


@pytest.fixture(scope="module")
def before(frames: Frames, tmp_path_factory: pytest.TempPathFactory) -> PanelData:
    return panel_of(frames, tmp_path_factory.mktemp("before"))


@pytest.mark.parametrize("offset", [0, 3])
def test_no_score_changes_with_what_comes_after_it(
    frames: Frames, before: PanelData, tmp_path: Path, offset: int
) -> None:
    dates = range(before.part("valid").start, before.part("test").stop - 10)
    s = dates.start + 8 + offset
    after = panel_of(poisoned(frames, frames.dates[s]), tmp_path)
    np.testing.assert_array_equal(before.dates, after.dates)
    place = {str(code): i for i, code in enumerate(after.codes)}
    shared = [str(code) for code in before.codes if str(code) in place]
    one = scores_of(before, dates)[:, np.isin(before.codes, shared)]
    other = scores_of(after, dates)[:, [place[code] for code in shared]]
    known = s + 1 - dates.start
    assert np.isfinite(one[:known]).any(axis=(1, 2)).all()
    np.testing.assert_array_equal(one[:known], other[:known])
    assert not np.array_equal(one[known:], other[known:], equal_nan=True)
