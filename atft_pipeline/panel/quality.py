"""Checks of the market panel's axes."""

from __future__ import annotations

import numpy as np

from atft_pipeline.panel.panel import Panel
from atft_pipeline.verdict import Verdict


def check_listing(panel: Panel) -> Verdict:
    """Codes whose listing life has a hole: a missing list of issues looks like a delisting; want 0."""
    listed = panel.axes.listed
    ever = listed.any(axis=0)
    first = listed.argmax(axis=0)
    last = len(listed) - 1 - listed[::-1].argmax(axis=0)
    holes = np.where(ever, last - first + 1 - listed.sum(axis=0), 0)
    broken = panel.axes.codes[holes > 0]
    return Verdict(
        passed=not len(broken),
        got=float(len(broken)),
        want=0.0,
        message=f"{len(panel.axes.codes)} codes on {len(panel.axes.dates)} days; {len(broken)} with a gap in their life"
        + (f": {', '.join(broken[:5])}; ingest raw/master of those days again" if len(broken) else ""),
        details={"days": len(panel.axes.dates), "codes": len(panel.axes.codes), "missing_cells": int(holes.sum())},
    )
