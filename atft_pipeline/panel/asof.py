"""The one as-of join: which event of an entity was the newest that a row of the panel could know.

Every event table (statements, flows, margin, ...) meets the panel here and nowhere else. The caller states the first
trading day on which each event may be used (`availability`); the join sorts explicitly, carries that day along, and
proves on every used row that it is not after the row's date.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.panel.axes import Axes
from atft_pipeline.panel.operators import event_account, gather, gather_column, latest_events
from atft_pipeline.verdict import ContractBroken, Verdict

Ints = NDArray[np.integer]
Series = pl.Series | NDArray[np.generic]


@dataclass(frozen=True)
class Audit:
    """What one as-of join saw."""

    events: int
    unknown_entity: int
    """Events whose entity is not on the axis; they can reach no row."""
    not_yet_available: int
    """Events that become available after the last row."""
    rows_inspected: int
    """Cells that hold an event, each compared with its row's date."""
    hit_rate: float
    """Share of the cells (listed cells where the entities are the panel's codes) that hold an event."""


@dataclass(frozen=True)
class AsOf:
    """The newest known event per cell. E is the number of events, G the number of entities."""

    index: NDArray[np.int32]
    """[T, G] position in the events as the caller gave them; -1 where none is known yet."""
    days: NDArray[np.datetime64]
    """[E] first trading day on which each event could be used."""
    staleness_td: NDArray[np.int32]
    """[T, G] rows since that day (since the first row, for an earlier day), 0 on it; -1 where none."""
    audit: Audit

    @property
    def available_on(self) -> NDArray[np.datetime64]:
        """[T, G] first trading day on which the cell's event could be used; NaT where none."""
        return np.append(self.days, np.datetime64("NaT", "D"))[self.index]

    def only(self, cells: NDArray[np.bool_]) -> AsOf:
        """The same join with no event where `cells` [T, G] is false."""
        return replace(self, index=np.where(cells, self.index, np.int32(-1)))

    def take(self, values: NDArray[np.generic], max_staleness: int | None = None) -> NDArray[np.float64]:
        """Event values [E] on the panel, [T, G]; null where no event is known or it is older than `max_staleness`."""
        if max_staleness is None:
            return gather(values, self.index)
        return gather(values, self.index, self.staleness_td, max_staleness)

    def column(self, values: NDArray[np.generic], max_staleness: int | None = None) -> NDArray[np.float32]:
        """As `take`, in float32: for a column that holds the event values themselves."""
        if max_staleness is None:
            return gather_column(values, self.index)
        return gather_column(values, self.index, self.staleness_td, max_staleness)


_collected: ContextVar[list[Audit] | None] = ContextVar("_collected", default=None)


@contextmanager
def collecting_audits() -> Iterator[list[Audit]]:
    """The audits of all joins made inside the context: a group is a pure function, so its joins report this way."""
    audits: list[Audit] = []
    token = _collected.set(audits)
    try:
        yield audits
    finally:
        _collected.reset(token)


def total_audit(audits: Sequence[Audit]) -> dict[str, float]:
    """One account over several joins, with the lowest hit rate; empty when there were none."""
    if not audits:
        return {}
    return {
        "joins": len(audits),
        "events": sum(audit.events for audit in audits),
        "rows_inspected": sum(audit.rows_inspected for audit in audits),
        "hit_rate": min(audit.hit_rate for audit in audits),
    }


def as_of(
    available: Series, entity: Series, axes: Axes, entities: int | None = None, *, order: Sequence[Series] = ()
) -> AsOf:
    """The newest event per (date, entity) with available <= date.

    `entity` is the column of a code (`Axes.code_index`), or with `entities` an id in 0..entities-1 of something else,
    such as a market section. Among events of one entity with one availability day the last by the `order` keys wins
    (ascending), then the last as given: a later vintage. Raises ContractBroken when an event has no availability day,
    when no event's entity is known (a broken key join), or when a row would use an event from its future.
    """
    days = _array(available).astype("datetime64[D]")
    ids = _array(entity).astype(np.int64)
    if np.isnat(days).any():
        raise ContractBroken(
            f"{int(np.isnat(days).sum())} of {len(days)} events have no availability day; state a rule"
        )
    width = len(axes.codes) if entities is None else entities
    known = (ids >= 0) & (ids < width)
    if len(ids) and not known.any():
        raise ContractBroken(f"none of {len(ids)} events belongs to an entity of the panel; check the join key's form")
    first = place(days, axes)
    used = known & (first < len(axes.dates))
    latest = _latest_rows(days, ids, first, used, order, (len(axes.dates), width))
    staleness, hits, early = event_account(latest, first, days.astype(np.int64), axes.dates.astype(np.int64))
    if early:
        verify(latest, np.append(days, np.datetime64("NaT", "D"))[latest], axes).require()
    if entities is None and axes.listed.any():
        hit_rate = float(np.count_nonzero((latest >= 0) & axes.listed) / np.count_nonzero(axes.listed))
    else:
        hit_rate = hits / max(latest.size, 1)
    audit = Audit(
        events=len(ids),
        unknown_entity=int((~known).sum()),
        not_yet_available=int((known & ~used).sum()),
        rows_inspected=hits,
        hit_rate=hit_rate,
    )
    collected = _collected.get()
    if collected is not None:
        collected.append(audit)
    return AsOf(latest, days, staleness, audit)


def place(days: NDArray[np.datetime64], axes: Axes) -> NDArray[np.int64]:
    """First row that may use an event available on each day; T if none yet."""
    return axes.first_row_from(days)


def verify(index: Ints, available_on: NDArray[np.datetime64], axes: Axes) -> Verdict:
    """Whether every used cell's availability day is on or before its row's date, on all of them."""
    used = index >= 0
    early = used & ~(available_on <= axes.dates[:, None])
    rows = int(used.sum())
    message = f"{rows} rows inspected, all available by their date"
    if early.any():
        row, column = np.argwhere(early)[0]
        message = (
            f"{int(early.sum())} of {rows} rows use an event before it is available: entity {column} on "
            f"{axes.dates[row]} uses one of {available_on[row, column]}; correct the availability rule"
        )
    return Verdict(not early.any(), float(early.sum()), 0.0, message, {"rows_inspected": rows})


def _latest_rows(
    days: NDArray[np.datetime64], ids: Ints, first: Ints, used: NDArray[np.bool_], order: Sequence[Series],
    shape: tuple[int, int],
) -> NDArray[np.int32]:  # fmt: skip
    keys = [*(_sortable(key) for key in reversed(order)), days]
    known_by = np.lexsort(keys) if len(keys) > 1 else np.argsort(days, kind="stable")
    return latest_events(known_by[used[known_by]], first, ids, shape)


def _sortable(key: Series) -> NDArray[np.generic]:
    """A tie-break key as dense ranks, nulls first."""
    return pl.Series(key).rank("dense").fill_null(0).to_numpy()


def _array(values: Series) -> NDArray[np.generic]:
    return values.to_numpy() if isinstance(values, pl.Series) else np.asarray(values)
