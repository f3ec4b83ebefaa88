"""The Dagster layer: assets, checks, jobs and schedules. Thin: every body calls a plain function of another room."""
