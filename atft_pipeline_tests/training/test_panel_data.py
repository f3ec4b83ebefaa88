"""The panel on disk: verified, refused when damaged, mislabelled or of another width."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from atft_pipeline.training.faults import PanelError
from atft_pipeline.training.files import write_json
from atft_pipeline.training.panel_data import load_panel, manifest_hash
from atft_pipeline_tests.training.tiny_panel import labels, write_tiny_panel


def rewrite_manifest(folder: Path, **changes: object) -> None:
    manifest = json.loads((folder / "manifest.json").read_text()) | changes
    manifest["hash"] = manifest_hash(manifest)
    write_json(folder / "manifest.json", manifest)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_panel(tmp_path / "panel", dates=110, stocks=25)


def test_a_sound_panel_loads_with_its_declared_width(folder: Path) -> None:
    panel = load_panel(folder)
    assert panel.x.shape == (110, 25, panel.n_features)
    assert panel.feature_names[panel.return_channel] == "ret_1d" and panel.spectral == (0, 1, 2)


def test_a_changed_byte_is_refused(folder: Path) -> None:
    with (folder / "y.npy").open("r+b") as stream:
        stream.seek(-1, 2)
        byte = stream.read(1)
        stream.seek(-1, 2)
        stream.write(bytes([byte[0] ^ 1]))
    with pytest.raises(PanelError, match=r"y\.npy does not match the manifest"):
        load_panel(folder)


def test_a_missing_array_and_an_edited_manifest_are_refused(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    write_json(folder / "manifest.json", manifest | {"n_dates": 1})
    with pytest.raises(PanelError, match="its own hash"):
        load_panel(folder)
    write_json(folder / "manifest.json", manifest)
    (folder / "x.npy").unlink()
    with pytest.raises(PanelError, match=r"x\.npy is missing"):
        load_panel(folder)


def test_another_feature_count_than_declared_stops_training(folder: Path) -> None:
    features = json.loads((folder / "manifest.json").read_text())["features"]
    rewrite_manifest(folder, features=features[:-1])
    with pytest.raises(PanelError, match="feature count"):
        load_panel(folder)


@pytest.mark.parametrize("name", ["target_ret_1d", "feat_ret_5d", "fwd_1", "label_x"])
def test_t30_label_like_inputs_are_refused_by_name(tmp_path: Path, name: str) -> None:
    folder = write_tiny_panel(tmp_path / "panel", dates=110, stocks=25, extra_names={5: name}, leak=True)
    with pytest.raises(PanelError, match=name):
        load_panel(folder)


def test_training_labels_may_not_reach_validation(folder: Path) -> None:
    index = json.loads((folder / "manifest.json").read_text())["split_index"]
    index["train"][1] += 1
    rewrite_manifest(folder, split_index=index)
    with pytest.raises(PanelError, match="embargo"):
        load_panel(folder)


def test_a_window_needs_the_newest_row_and_four_fifths_of_the_others(folder: Path) -> None:
    panel = load_panel(folder)
    found = panel.windows(20, 0.8)
    ok = np.asarray(panel.row_ok)
    for day in (18, 19, 40, 77, 109):
        for stock in range(25):
            seen = ok[max(0, day - 19) : day + 1, stock].sum()
            assert found[day, stock] == (day >= 19 and ok[day, stock] and seen >= 16)


def test_the_tiny_panels_labels_follow_their_definition() -> None:
    returns = np.array([[0.1], [0.2], [-0.5], [0.3], [np.nan], [0.1]])
    y = labels(np.pad(returns, [(0, 30), (0, 0)], constant_values=0.0))
    assert y[0, 0, 0, 0] == pytest.approx(0.2)  # delay 0, 1 day: the return of day 1
    assert y[0, 0, 1, 1] == pytest.approx(0.5 * 1.3 - 1)  # delay 1, 2 days: days 2 and 3
    assert np.isnan(y[3, 0, 0, 0]) and np.isnan(y[4, 0, 0, 0])
