"""Which commit of the code is running: for metadata of datasets and runs, never part of their identity."""

from __future__ import annotations

import subprocess
from pathlib import Path


def git_revision() -> str | None:
    """The checkout's commit, or None outside a checkout (an installed package may lie in somebody else's)."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
