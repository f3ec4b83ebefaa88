"""Does a column see the future? Build it twice, from inputs that agree up to a cut, and compare bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Built = Mapping[str, NDArray[np.generic]]
"""Column name -> values [T, N] or [T], rows in date order."""

Inputs = TypeVar("Inputs")


class SeesTheFuture(AssertionError):
    """A column's rows up to the cut changed with inputs after the cut; the text names the columns and first rows."""


def assert_prefix_equal(build: Callable[[Inputs], Built], inputs: Inputs, changed: Inputs, rows: int) -> None:
    """Assert that `build(inputs)` and `build(changed)` agree bit for bit on their first `rows` rows.

    `changed` is `inputs` with everything after the cut removed (truncation) or replaced (poison). Values are compared
    as stored, in float32, with null equal to null. Raises ValueError when nothing could have been compared.
    """
    whole, cut = build(inputs), build(changed)
    if list(whole) != list(cut):
        raise SeesTheFuture(f"the columns themselves differ: {set(whole) ^ set(cut)}")
    if rows < 1 or not whole:
        raise ValueError("nothing to compare: no rows before the cut, or no columns")
    moved = []
    known = 0
    for name, values in whole.items():
        before, after = (np.asarray(v, np.float32)[:rows] for v in (values, cut[name]))
        if before.shape != after.shape:
            raise SeesTheFuture(f"{name}: {after.shape} against {before.shape} before the cut")
        known += int(np.isfinite(before).sum())
        same = before.view(np.int32) == after.view(np.int32)
        same |= np.isnan(before) & np.isnan(after)
        if not same.all():
            where = np.argwhere(~same)[0]
            moved.append(f"{name} (first at row {where[0]} of {rows})")
    if moved:
        raise SeesTheFuture("columns changed before the cut: " + ", ".join(moved))
    if not known:
        raise ValueError("every compared value is null; lengthen the history or move the cut")
