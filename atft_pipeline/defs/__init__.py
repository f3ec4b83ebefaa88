"""The Dagster layer: assets, checks, jobs and schedules. Thin: every body calls a plain function of another room.

Modules here do without `from __future__ import annotations`: Dagster reads the annotations of what it decorates.
"""
