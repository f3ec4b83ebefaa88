"""The graph: what it may know, what it must keep under permutation, and where edges may run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from atft_pipeline.training.graph import GraphRules, GraphStore, build_graph, code_seeds, correlations
from atft_pipeline.training.panel_data import PanelData, load_panel
from atft_pipeline_tests.training.tiny_panel import write_tiny_panel

RULES = GraphRules()


@pytest.fixture(scope="module")
def panel(tmp_path_factory: pytest.TempPathFactory) -> PanelData:
    folder = tmp_path_factory.mktemp("tiny") / "panel"
    return load_panel(write_tiny_panel(folder, dates=130, stocks=40, lagged_peers=0.5))


def day_edges(panel: PanelData, day: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    columns = np.flatnonzero(panel.row_ok[day])
    return columns, *GraphStore(panel).edges(day, columns)


def test_t52_a_graph_never_uses_a_return_after_its_date(panel: PanelData) -> None:
    for day in (70, 73, 74):
        poisoned = np.array(panel.returns)
        poisoned[day + 1 :] = 9.0
        other = replace(panel, returns=poisoned)
        before, after = day_edges(panel, day), day_edges(other, day)
        for a, b in zip(before, after, strict=True):
            np.testing.assert_array_equal(a, b)
    poisoned[:71] = np.random.default_rng(0).normal(size=poisoned[:71].shape)
    assert not np.array_equal(day_edges(replace(panel, returns=poisoned), 70)[2], day_edges(panel, 70)[2])


def test_correlations_match_a_direct_weighted_computation() -> None:
    rng = np.random.default_rng(1)
    returns = rng.normal(size=(60, 12)).astype(np.float32)
    residual = returns - returns.mean(axis=1, keepdims=True)
    weight = 0.5 ** (np.arange(60)[::-1] / RULES.half_life)
    wanted = np.corrcoef(residual.T) * 0
    for i in range(12):
        for j in range(12):
            cov = np.cov(residual[:, i], residual[:, j], aweights=weight)
            wanted[i, j] = cov[0, 1] / np.sqrt(cov[0, 0] * cov[1, 1])
    np.fill_diagonal(wanted, 0)
    np.testing.assert_allclose(correlations(returns, RULES), wanted * RULES.shrinkage, atol=1e-5)


def test_too_few_joint_sessions_give_no_correlation() -> None:
    returns = np.random.default_rng(2).normal(size=(60, 3)).astype(np.float32)
    returns[:, 1] = returns[:, 0]
    returns[:25, 1] = np.nan
    assert correlations(returns, RULES)[0, 1] == 0


def test_t52_edges_are_symmetric_strong_and_bounded(panel: PanelData) -> None:
    graph = GraphStore(panel).graph(75)
    pairs = set(zip(graph.source.tolist(), graph.target.tolist(), strict=True))
    assert pairs and all((b, a) in pairs for a, b in pairs) and all(a != b for a, b in pairs)
    assert len(pairs) == len(graph.source)
    same_cluster = graph.source // 8 == graph.target // 8
    strong = np.abs(graph.attributes[:, 0]) >= RULES.min_correlation
    alike = graph.attributes[:, 0] >= RULES.min_correlation
    assert same_cluster[alike].mean() > 0.9  # the planted clusters, found from returns alone
    mates = graph.attributes[~strong]
    assert (mates[:, 1] == 1).all()  # weak edges are sector mates


def test_t52_permuting_the_stocks_permutes_the_graph(panel: PanelData) -> None:
    nodes = np.flatnonzero(panel.row_ok[75])
    given = panel.returns[16:76][:, nodes], nodes, panel.sector[75, nodes], panel.market[75, nodes]
    seeds = code_seeds(panel.codes)[nodes]
    order = np.random.default_rng(3).permutation(len(nodes))
    straight = build_graph(*given, seeds, RULES)
    shuffled = build_graph(given[0][:, order], nodes[order], given[2][order], given[3][order], seeds[order], RULES)

    def as_set(graph: object) -> dict[tuple[int, int], tuple[float, ...]]:
        return {
            (s, t): tuple(np.round(a, 4))
            for s, t, a in zip(graph.source.tolist(), graph.target.tolist(), graph.attributes, strict=True)  # type: ignore[attr-defined]
        }

    assert as_set(straight) == as_set(shuffled)


def test_t52_lonely_nodes_get_sector_mates_and_every_node_its_loop(panel: PanelData) -> None:
    noise = np.random.default_rng(4).normal(size=panel.returns.shape).astype(np.float32)
    columns, index, attributes = day_edges(replace(panel, returns=noise), 75)
    loops = index[0] == index[1]
    assert sorted(index[0][loops]) == list(range(len(columns))) and (attributes[loops] == 1).all()
    degree = np.bincount(index[1][~loops], minlength=len(columns))
    assert (degree >= RULES.min_degree).all()


def test_t52_days_between_refreshes_reuse_the_graph_by_code(panel: PanelData) -> None:
    store = GraphStore(panel)
    assert store.as_of(79) == 75 and store.graph(79) is store.graph(75) and store.built == 1
    everyone = np.flatnonzero(panel.row_ok[75])
    fewer = everyone[3:]
    index, _ = store.edges(76, fewer)
    full, _ = store.edges(76, everyone)
    named = {(fewer[a], fewer[b]) for a, b in index.T}
    assert named == {(everyone[a], everyone[b]) for a, b in full.T if everyone[a] in fewer and everyone[b] in fewer}


def test_stored_graphs_are_found_by_content_and_pruned(panel: PanelData, tmp_path: Path) -> None:
    first = GraphStore(panel, tmp_path)
    made = first.graph(75)
    second = GraphStore(panel, tmp_path)
    found = second.graph(75)
    assert (first.built, second.built, second.reused) == (1, 0, 1)
    for name in ("source", "target", "attributes"):
        np.testing.assert_array_equal(getattr(made, name), getattr(found, name))
    changed = np.array(panel.returns)
    changed[70] += 0.01 * np.arange(changed.shape[1])
    third = GraphStore(replace(panel, returns=changed), tmp_path)
    third.graph(75)
    assert third.built == 1 and third.prune() == 1 and len(list(tmp_path.glob("*.npz"))) == 1


def test_graphs_made_ready_by_threads_are_those_made_one_by_one(panel: PanelData, tmp_path: Path) -> None:
    heard: list[int] = []
    together, single = GraphStore(panel, tmp_path), GraphStore(panel)
    together.prepare(range(60, 100), threads=4, progress=lambda: heard.append(1))
    assert together.built == 8 == len(heard) and len(list(tmp_path.glob("*.npz"))) == 8
    for day in range(60, 100):
        for name in ("source", "target", "attributes"):
            np.testing.assert_array_equal(getattr(together.graph(day), name), getattr(single.graph(day), name))
    assert together.built == 8 and together.prune() == 0
    again = GraphStore(panel, tmp_path)
    again.prepare(range(60, 100), threads=2)
    assert (again.built, again.reused) == (0, 8)
