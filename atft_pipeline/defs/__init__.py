"""The Dagster layer: assets, checks, jobs and schedules. Thin: every body calls a plain function of another room.

Modules here do without `from __future__ import annotations`: Dagster reads the annotations of what it decorates.
"""

import warnings

import dagster as dg

# `backfill_policy` is marked beta; on every asset it would print two lines at each start.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
