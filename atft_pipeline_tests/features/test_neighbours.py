"""The graph columns: against a second writing from raw tables, membership, and peers that move together."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from atft_pipeline.features import residuals
from atft_pipeline.features.group import Inputs, compute_group
from atft_pipeline.features.neighbours import GROUP
from atft_pipeline.panel.operators import ts_beta
from atft_pipeline.panel.panel import Panel, build_panel
from atft_pipeline.verdict import ContractBroken
from atft_pipeline_tests.features.plain_exposure import exposure_columns
from atft_pipeline_tests.features.plain_formulas import Market
from atft_pipeline_tests.features.plain_market import market_columns
from atft_pipeline_tests.panel.plain_graph import plain_graph
from atft_pipeline_tests.synthetic import Frames, market

Columns = dict[str, NDArray[np.float32]]
AT = (60, 99, 100, 150, 151, 249, 250, 329)
PLAIN = {
    "gr_degree": "degree", "gr_strength": "strength", "gr_peer_corr_mean": "mean", "gr_peer_corr_max": "highest",
    "gr_clustering": "clustering",
}  # fmt: skip


@pytest.fixture(scope="module")
def frames() -> Frames:
    return market(codes=60)


@pytest.fixture(scope="module")
def panel(frames: Frames) -> Panel:
    return build_panel(frames.calendar, frames.master, frames.bars)


@pytest.fixture(scope="module")
def columns(panel: Panel, frames: Frames) -> Columns:
    return compute_group(GROUP, Inputs(panel, frames.events))


def plain_columns(frames: Frames) -> dict[str, NDArray[np.float64]]:
    """The columns on the rows `AT` from the raw tables."""
    m = Market(frames)
    with np.errstate(all="ignore"):
        e = exposure_columns(m, {"vol_cc_60": m.c}, market_columns(frames))["mb_resid_ret_1d"]
    one, five = (plain_graph(e, m.universe, m.ret(n), rows=60, min_obs=45, least=0.3, k=10, at=AT) for n in (1, 5))
    plain = {name: one[number] for name, number in PLAIN.items()}
    return plain | {
        "gr_peer_ret_1d": one["peers"],
        "gr_peer_ret_5d": five["peers"],
        "gr_rel_peer_ret_5d": m.ret(5) - five["peers"],
    }


def test_columns_are_their_formulas(columns: Columns, frames: Frames) -> None:
    plain = plain_columns(frames)
    assert list(plain) == list(columns)
    for name, values in plain.items():
        np.testing.assert_allclose(columns[name][list(AT)], values[list(AT)], rtol=2e-4, atol=1e-5, err_msg=name)
        assert name == "gr_clustering" or np.isfinite(values[list(AT)]).sum() > 100, name


def test_a_graph_of_raw_returns_would_be_noticed(
    panel: Panel, frames: Frames, columns: Columns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the residual every stock would be the market's neighbour."""
    monkeypatch.setattr(residuals, "ts_beta", lambda r, m, rows, least: 0 * ts_beta(r, m, rows, least))
    raw = compute_group(GROUP, Inputs(panel, frames.events))
    different = np.abs(raw["gr_strength"] - columns["gr_strength"])[list(AT)]
    assert np.nanmax(different) > 1e-3


def test_only_members_of_the_universe_have_a_place(columns: Columns, panel: Panel) -> None:
    for name, values in columns.items():
        assert np.isnan(values[~panel.universe]).all(), name
    assert np.isnan(columns["gr_degree"][:85]).all(), "40 pairs for the beta, one row of lag, 45 residuals"
    assert np.isfinite(columns["gr_degree"][90][panel.universe[90]]).mean() > 0.9


def test_stock_without_an_edge_has_zeros_and_nulls(columns: Columns) -> None:
    alone = columns["gr_strength"] == 0
    assert alone.sum() > 10
    for name in ("gr_peer_corr_mean", "gr_peer_corr_max", "gr_peer_ret_1d", "gr_peer_ret_5d", "gr_rel_peer_ret_5d"):
        assert np.isnan(columns[name][alone]).all(), name
    few = columns["gr_degree"] < 2
    assert (columns["gr_clustering"][few] == 0).all()


def test_values_lie_where_their_meaning_puts_them(columns: Columns) -> None:
    known = np.isfinite(columns["gr_peer_corr_mean"])
    mean, high = columns["gr_peer_corr_mean"][known], columns["gr_peer_corr_max"][known]
    assert (mean >= 0.3).all() and (high >= mean - 1e-6).all() and (high <= 1).all()
    edges = columns["gr_strength"][known] / mean
    np.testing.assert_allclose(edges, np.rint(edges), atol=1e-4)
    assert edges.max() <= 10.001 and (columns["gr_degree"][known] >= np.rint(edges)).all()
    assert np.nanmin(columns["gr_clustering"]) == 0 and np.nanmax(columns["gr_clustering"]) <= 1


def test_the_index_is_required(panel: Panel) -> None:
    with pytest.raises(ContractBroken, match="topix"):
        compute_group(GROUP, Inputs(panel, {}))
