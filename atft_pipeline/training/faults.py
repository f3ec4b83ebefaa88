"""The reasons for which training stops: each is one exception with a text that names the remedy."""

from __future__ import annotations


class TrainingFault(RuntimeError):
    """Training cannot go on honestly: non-finite loss, constant scores, a dead graph, an unapplied rate."""


class PanelError(RuntimeError):
    """The training panel is missing, damaged or of another shape than its manifest says."""


class ConfigError(ValueError):
    """A training setting is unknown, malformed or forbidden."""


class Stopped(Exception):
    """The run was asked to stop (SIGINT or SIGTERM); its state is saved and the same command resumes it."""


class Busy(RuntimeError):
    """Another training holds the lock."""
