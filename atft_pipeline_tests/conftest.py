"""Order of the suite."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of minutes first: begun last, one of them would keep a single worker busy after the others have ended."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
