"""Do the newest inputs look like those of training? The population stability index of every input, on plain arrays.

PSI = sum over bins of (p - q) ln(p / q): q the share of training values in the bin, p the share of new values. What is
usual differs between inputs: a market-wide one has a single value a date, days since an announcement cluster by
season. So each input's PSI is also measured on single dates and on blocks of dates inside the training span, and the
newest ones are held against the most that was usual there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Mask = NDArray[np.bool_]

BINS = 10
FLOOR = 1e-4
"""Smallest share in a bin: an empty one would make the index infinite."""
RECENT = 20
"""Dates of the recent block."""
BLOCKS = 16
"""Blocks of the training span that are looked at, evenly spread."""
STOCKS = 300
"""Stocks taken per training date, evenly spread."""
USUAL = 0.99


@dataclass(frozen=True)
class Drift:
    """One input's index on the newest date and over the recent block, with the most that is usual in training."""

    name: str
    newest: float
    usual_newest: float
    recent: float
    usual_recent: float
    dead: bool
    """One value for all stocks on the newest date, which hardly a training date has: its table did not arrive."""

    def exceeds(self, least: float, factor: float) -> bool:
        """Above `least`, and above `factor` times what is usual, on the newest date or over the recent block."""
        return self.newest > max(least, factor * self.usual_newest) or self.recent > max(
            least, factor * self.usual_recent
        )


def psi(p: Array, q: Array) -> Array:
    """Population stability index of shares p [..., bins] against q [bins]."""
    p, q = np.maximum(p, FLOOR), np.maximum(q, FLOOR)
    return np.asarray(((p - q) * np.log(p / q)).sum(axis=-1))


def edges_of(values: Array, bins: int = BINS) -> Array:
    """Borders from the values' quantiles, smallest and largest included, each once."""
    return np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)))


def place(values: Array, edges: Array, heavy: Array) -> NDArray[np.int64]:
    """Bin of each value: between the edges, below or above them, or one of its own for a `heavy` value (a flag's
    state, the zero of what is missing), which would otherwise hide in a neighbour's."""
    bins = np.searchsorted(edges, values, "right")
    for number, value in enumerate(heavy):
        bins = np.where(values == value, len(edges) + 1 + number, bins)
    return np.asarray(bins)


def heavy_values(values: Array, edges: Array) -> Array:
    """The edges that more than half of a bin's share of all values sit on. A rank's own steps are lighter."""
    return np.array([edge for edge in edges if (values == edge).mean() > 0.5 / BINS])


@dataclass(frozen=True)
class InputRange:
    """What one input was like in training: bins, their shares, and how far single dates and blocks are from these.

    Plain numbers, so that a run can carry it to dates that its own panel does not hold."""

    name: str
    edges: tuple[float, ...]
    heavy: tuple[float, ...]
    expected: tuple[float, ...]
    """Share of the training rows in each bin."""
    usual_newest: float
    usual_recent: float
    usually_flat: float
    """Share of the training dates on which all stocks have one value."""

    @property
    def dead(self) -> bool:
        """One value for all stocks on all training dates: the input tells nothing."""
        return len(self.edges) == 1


def training_range(
    x: NDArray[np.floating], row_ok: Mask, train: slice, names: Sequence[str], *, recent: int = RECENT
) -> list[InputRange]:
    """The range of every input of x [T, N, F] over the usable rows of the training dates."""
    seen, days, looked_at = _training_rows(x, row_ok, train, recent)
    if not len(seen):
        raise ValueError("no usable row in the training part: nothing to compare with")
    found = []
    for f, name in enumerate(names):
        edges = edges_of(seen[:, f])
        heavy = heavy_values(seen[:, f], edges)
        bins = len(edges) + 1 + len(heavy)
        by_day = np.bincount(days * bins + place(seen[:, f], edges, heavy), minlength=looked_at * bins).reshape(
            -1, bins
        )
        found.append(_range_of(name, edges, heavy, by_day, recent))
    return found


def _range_of(name: str, edges: Array, heavy: Array, by_day: NDArray[np.integer], recent: int) -> InputRange:
    expected = by_day.sum(axis=0) / by_day.sum()
    by_block = by_day.reshape(-1, recent, by_day.shape[1]).sum(axis=1)
    return InputRange(
        name=name,
        edges=tuple(edges.tolist()),
        heavy=tuple(heavy.tolist()),
        expected=tuple(expected.tolist()),
        usual_newest=float(np.quantile(psi(_shares(by_day), expected), USUAL)),
        usual_recent=float(psi(_shares(by_block), expected).max()),
        usually_flat=float(np.mean((by_day > 0).sum(axis=1)[by_day.sum(axis=1) > 0] == 1)),
    )


def measure_drift(
    x: NDArray[np.floating], row_ok: Mask, ranges: Sequence[InputRange], *, recent: int = RECENT
) -> list[Drift]:
    """Drift of every input of x [T, N, F] on the last date and the last `recent` ones, over the rows of `row_ok`,
    from its range in training (in the order of the inputs)."""
    newest = np.asarray(x[-1][row_ok[-1]], np.float32)
    block = np.concatenate([np.asarray(x[t][row_ok[t]], np.float32) for t in range(len(x) - recent, len(x))])
    if not len(newest):
        raise ValueError("no usable row on the newest date: nothing to compare")
    return [_drift_of(known, newest[:, f], block[:, f]) for f, known in enumerate(ranges)]


def _drift_of(known: InputRange, newest: Array, block: Array) -> Drift:
    edges, heavy, expected = (np.asarray(part) for part in (known.edges, known.heavy, known.expected))

    def index(values: Array) -> float:
        return float(psi(np.bincount(place(values, edges, heavy), minlength=len(expected)) / len(values), expected))

    return Drift(
        name=known.name,
        newest=index(newest),
        usual_newest=known.usual_newest,
        recent=index(block),
        usual_recent=known.usual_recent,
        dead=bool(np.ptp(newest) == 0 and known.usually_flat < 1 - USUAL),
    )


def _shares(counts: NDArray[np.integer]) -> Array:
    known = counts[counts.sum(axis=1) > 0]
    return np.asarray(known / known.sum(axis=1, keepdims=True))


def _training_rows(
    x: NDArray[np.floating], row_ok: Mask, train: slice, recent: int
) -> tuple[Array, NDArray[np.int64], int]:
    """Rows [R, F] of blocks of `recent` consecutive training dates, the number of each row's date, and how many dates
    there are."""
    starts = np.arange(train.start, train.stop - recent + 1, recent)
    if len(starts) > BLOCKS:
        starts = starts[np.round(np.linspace(0, len(starts) - 1, BLOCKS)).astype(int)]
    rows, days = [np.zeros((0, x.shape[2]), np.float32)], [np.zeros(0, np.int64)]
    for number, t in enumerate(t for start in starts for t in range(start, start + recent)):
        use = np.flatnonzero(row_ok[t])
        use = use[:: max(1, -(-len(use) // STOCKS))]
        rows.append(np.asarray(x[t][use], np.float32))
        days.append(np.full(len(use), number))
    return np.concatenate(rows), np.concatenate(days), len(starts) * recent
