"""Which signal a market carries: the five parts, named mixtures, and schedules that fade, stop or flip a part.

A plant is text: a name (`demo`, `all`, `null`, or one part's name) or a list such as
`linear=.05,graph=.03:off@2023-06-01`. The number is the part's information coefficient on the 1-day, delay-0 label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

PARTS = ("linear", "reversal", "interaction", "graph", "cycle")
"""Order of the parts everywhere."""

FADE_DAYS = 245
"""Trading days over which `fade` takes a part to nothing."""

NAMED: Mapping[str, Mapping[str, float]] = {
    "demo": dict.fromkeys(PARTS, 0.045),
    "all": dict.fromkeys(PARTS, 0.03),
    "null": {},
    **{part: {part: 0.05} for part in PARTS},
}

_CHANGES = ("off", "flip", "fade")


class PlantError(ValueError):
    """The plant text names no known signal; the message lists what is known."""


@dataclass(frozen=True)
class Planted:
    """One part's size and, if any, what happens to it from `since` on."""

    ic: float
    change: str = ""
    since: date | None = None

    def schedule(self, acting: Sequence[date]) -> NDArray[np.float64]:
        """Multiplier of the part on each acting date: 1, then 0 (`off`), -1 (`flip`) or a line down to 0 (`fade`)."""
        weight = np.ones(len(acting))
        if self.since is None:
            return weight
        first = sum(day < self.since for day in acting)
        after = np.arange(len(acting) - first)
        weight[first:] = {"off": 0.0 * after, "flip": -1.0 - 0.0 * after, "fade": np.maximum(0, 1 - after / FADE_DAYS)}[
            self.change
        ]
        return weight


def parse_plant(text: str) -> dict[str, Planted]:
    """The parts that `text` plants, keyed by part. Raises `PlantError` naming what is wrong and what is known."""
    name = text.strip().lower()
    if name in NAMED:
        return {part: Planted(ic) for part, ic in NAMED[name].items()}
    if "=" not in name:
        raise PlantError(
            f"plant {text!r} is unknown; use one of {', '.join(NAMED)}, or a list such as 'linear=.05,graph=.03'"
        )
    planted: dict[str, Planted] = {}
    for item in name.split(","):
        part, _, size = item.strip().partition("=")
        if part not in PARTS:
            raise PlantError(f"plant {text!r}: part {part!r} is unknown; the parts are {', '.join(PARTS)}")
        if part in planted:
            raise PlantError(f"plant {text!r}: part {part!r} is given twice")
        planted[part] = _planted(text, part, size)
    return planted


def _planted(text: str, part: str, size: str) -> Planted:
    number, _, change = size.partition(":")
    try:
        ic = float(number)
    except ValueError:
        raise PlantError(f"plant {text!r}: {part}={number!r} is not a number") from None
    if not 0.0 <= ic <= 0.3:
        raise PlantError(f"plant {text!r}: {part}={ic} lies outside 0 to 0.3")
    if not change:
        return Planted(ic)
    kind, _, day = change.partition("@")
    if kind not in _CHANGES:
        raise PlantError(f"plant {text!r}: change {kind!r} is unknown; use {', '.join(_CHANGES)}@YYYY-MM-DD")
    try:
        return Planted(ic, kind, date.fromisoformat(day))
    except ValueError:
        raise PlantError(f"plant {text!r}: {day!r} is not a date YYYY-MM-DD") from None
