"""`gr`: the correlation graph of residual returns: how many stocks move with a stock, and what they did.

The graph of date T is drawn from the last 60 trading days up to T among the members of U(T). It is an input like any
other column; the graph on which the model passes messages is drawn in training.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.features.group import Column, Group, Inputs
from atft_pipeline.features.residuals import residual_return
from atft_pipeline.features.tables import required_table
from atft_pipeline.features.topix import read_topix
from atft_pipeline.panel.operators import correlation_graph

ROWS, MIN_COMMON = 60, 45
PEERS, LEAST_CORRELATION = 10, 0.30


def compute(inputs: Inputs) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Yield the group's columns; see `COLUMNS` for the formulas."""
    panel = inputs.panel
    topix = read_topix(required_table(inputs.tables, "topix"), panel.axes.dates)
    graph = correlation_graph(
        residual_return(panel, topix),
        panel.universe,
        (panel.ret_1d, panel.ret(5)),
        rows=ROWS,
        min_obs=MIN_COMMON,
        least=LEAST_CORRELATION,
        k=PEERS,
    )
    peers_1d, peers_5d = graph.peers
    yield "gr_degree", graph.degree
    yield "gr_strength", graph.strength
    yield "gr_peer_corr_mean", graph.mean
    yield "gr_peer_corr_max", graph.highest
    yield "gr_clustering", graph.clustering
    yield "gr_peer_ret_1d", peers_1d
    yield "gr_peer_ret_5d", peers_5d
    yield "gr_rel_peer_ret_5d", panel.ret(5) - peers_5d


_CS = "cross_section"
_OWN = "null outside U(T) and below 45 own observations"
COLUMNS = (
    Column("gr_degree", "i16", "neighbours in the union of out-edges: the 10 highest rho >= .30", "60/45", _OWN, _CS),
    Column("gr_strength", "f32", "sum of rho over own out-edges, 0 without any", "60/45", _OWN, _CS),
    Column("gr_peer_corr_mean", "f32", "mean rho over own out-edges", "60/45", "null without an edge", _CS),
    Column("gr_peer_corr_max", "f32", "highest rho", "60/45", "null without an edge", _CS),
    Column("gr_clustering", "f32", "2 triangles/(d (d - 1)), 0 if d < 2", "60/45", _OWN, _CS),
    Column("gr_peer_ret_1d", "f32", "mean ret_1d of out-edges, weighted by rho", "60/45", "null without an edge", _CS),
    Column("gr_peer_ret_5d", "f32", "mean ret_5d of out-edges, weighted by rho", "60/45", "null without an edge", _CS),
    Column("gr_rel_peer_ret_5d", "f32", "ret_5d - gr_peer_ret_5d", "60/45", "null without an edge", _CS),
)

GROUP = Group(
    name="gr",
    tier="standard",
    tables=("calendar", "master", "bars_daily", "topix"),
    availability="T, after the close",
    columns=COLUMNS,
    compute=compute,
)
