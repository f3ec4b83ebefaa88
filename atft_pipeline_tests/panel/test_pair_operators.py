"""The correlation graph against numpy's own correlations and plain sets, and its edges, ties and holes by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from atft_pipeline.panel import pair_operators
from atft_pipeline.panel.element_operators import SMALL
from atft_pipeline.panel.operators import CorrelationGraph, correlation_graph
from atft_pipeline_tests.panel.plain_graph import GRAPH_NUMBERS, plain_graph

Array = NDArray[np.float64]
RULES = {"rows": 30, "min_obs": 20, "least": 0.3, "k": 4}


def market(days: int = 70, stocks: int = 41, holes: float = 0.1) -> tuple[Array, NDArray[np.bool_], Array]:
    """Three sectors; a third of the stocks has holes, one is constant, one short, one never a member."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(days, stocks)) + rng.normal(size=(days, 3))[:, np.arange(stocks) % 3]
    x[(rng.random(x.shape) < holes) & (np.arange(stocks) % 3 == 1)] = np.nan
    x[:, 5], x[:40, 6] = 0.3, np.nan
    members = rng.random(x.shape) < 0.95
    members[:, 7] = False
    value = rng.normal(size=x.shape)
    value[rng.random(x.shape) < 0.2] = np.nan
    return x, members, value


def as_columns(graph: CorrelationGraph) -> dict[str, Array]:
    return {**{name: getattr(graph, name) for name in GRAPH_NUMBERS}, "peers": graph.peers[0]}


def build(x: Array, members: NDArray[np.bool_], value: Array, **rules: float) -> dict[str, Array]:
    return as_columns(correlation_graph(x, members, [value], **{**RULES, **rules}))  # type: ignore[arg-type]


@pytest.mark.parametrize("holes", [0.0, 0.1])
def test_graph_is_that_of_the_plain_writing(holes: float) -> None:
    x, members, value = market(holes=holes)
    ours, plain = build(x, members, value), plain_graph(x, members, value, **RULES)  # type: ignore[arg-type]
    assert np.nanmax(plain["degree"]) > 5 and np.nanmean(plain["clustering"]) > 0.1
    for name, values in plain.items():
        np.testing.assert_allclose(ours[name], values, rtol=1e-4, atol=1e-5, err_msg=name)


def test_widths_beyond_one_block_of_lanes() -> None:
    """More stocks than one inner loop holds, whole and holed ones on both sides of its border."""
    rng = np.random.default_rng(3)
    stocks = pair_operators.LANES + 90
    x = rng.normal(size=(31, stocks)) + rng.normal(size=(31, 40))[:, np.arange(stocks) % 40]
    x[rng.random(x.shape) < np.where(np.arange(stocks) % 30 == 4, 0.1, 0.0)] = np.nan
    members = np.zeros(x.shape, bool)
    members[-1] = True
    ours, plain = build(x, members, x), plain_graph(x, members, x, at=[30], **RULES)  # type: ignore[arg-type]
    for name, values in plain.items():
        np.testing.assert_allclose(ours[name][-1], values[-1], rtol=1e-4, atol=1e-5, err_msg=name)


def test_equal_stocks_are_peers_at_one_and_ties_go_to_the_lower_column() -> None:
    rng = np.random.default_rng(4)
    x = np.repeat(rng.normal(size=(30, 1)), 7, axis=1)
    value = np.broadcast_to(np.arange(7.0), x.shape)
    ours = build(x, np.ones(x.shape, bool), value)
    assert ours["highest"][-1] == pytest.approx(1.0) and ours["strength"][-1] == pytest.approx(4.0)
    assert ours["peers"][-1].tolist() == pytest.approx([2.5, 2.25, 2.0, 1.75, 1.5, 1.5, 1.5])
    assert ours["degree"][-1].tolist() == [6, 6, 6, 6, 4, 4, 4]  # the first four are on every list
    assert np.nanmax(ours["highest"]) <= 1.0


def test_opposites_and_strangers_have_no_edge() -> None:
    rng = np.random.default_rng(5)
    a = rng.normal(size=30)
    x = np.column_stack([a, -a, np.full(30, 2.0)])
    ours = build(x, np.ones(x.shape, bool), x)
    for name in ("degree", "strength", "clustering"):
        assert (ours[name][-1] == 0).all(), name
    for name in ("mean", "highest", "peers"):
        assert np.isnan(ours[name][-1]).all(), name


def test_too_few_observations_are_null_and_too_few_common_ones_no_edge() -> None:
    rng = np.random.default_rng(6)
    a = rng.normal(size=30)
    x = np.column_stack([a, a, a])
    x[:10, 0], x[20:, 1] = np.nan, np.nan  # 20 own days each, 10 in common; with the third stock 20
    ours = build(x, np.ones(x.shape, bool), x)
    assert ours["degree"][-1].tolist() == [1, 1, 2]
    assert build(x, np.ones(x.shape, bool), x, min_obs=21)["degree"][-1, 2] == 0
    assert np.isnan(build(x, np.ones(x.shape, bool), x, min_obs=21)["degree"][-1, :2]).all()
    assert np.isnan(ours["degree"][18]).all() and np.isfinite(ours["degree"][19, 1:]).all()


def test_triangle_and_star() -> None:
    """Three stocks that move together are a triangle; one that moves with two strangers is the middle of a star."""
    rng = np.random.default_rng(7)
    base = np.linalg.qr(rng.normal(size=(30, 8)) - 0.0)[0]
    base -= base.mean(axis=0)
    a, b, c, d = base[:, 0], base[:, 1], base[:, 2], base[:, 3]
    together = [a + 0.1 * c, a + 0.1 * d, a]
    star = [b + base[:, 4], b, base[:, 4]]
    x = np.column_stack(together + star)
    ours = build(x, np.ones(x.shape, bool), x)
    assert ours["degree"][-1].tolist() == [2, 2, 2, 2, 1, 1]
    assert ours["clustering"][-1].tolist() == [1, 1, 1, 0, 0, 0]


def test_who_else_is_on_the_axis_and_what_comes_later_changes_no_bit() -> None:
    x, members, value = market()
    whole = build(x, members, value)
    kept = np.arange(x.shape[1]) != 7  # never a member
    fewer = build(x[:55][:, kept], members[:55][:, kept], value[:55][:, kept])
    for name, values in fewer.items():
        np.testing.assert_array_equal(values, whole[name][:55, kept], err_msg=name)


def test_large_arrays_take_the_threaded_path_to_the_same_bits() -> None:
    x, members, value = market(days=420, stocks=170)
    assert x.size > SMALL > x[:210].size
    whole, half = build(x, members, value), build(x[:210], members[:210], value[:210])
    for name, values in half.items():
        np.testing.assert_array_equal(values, whole[name][:210], err_msg=name)


def test_a_window_that_reads_one_row_ahead_would_be_noticed() -> None:
    x, members, value = market()
    ahead = np.vstack([x[1:], x[-1:]])
    plain = plain_graph(x, members, value, **RULES)  # type: ignore[arg-type]
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(build(ahead, members, value)["strength"], plain["strength"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("wrong", [{"rows": 1}, {"min_obs": 1}, {"k": 0}, {"least": 0.0}])
def test_rules_that_make_no_graph_are_refused(wrong: dict[str, float]) -> None:
    x, members, value = market(days=5)
    with pytest.raises(ValueError, match="a graph needs"):
        build(x, members, value, **wrong)
