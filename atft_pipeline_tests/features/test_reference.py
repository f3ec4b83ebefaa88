"""docs/columns.md says what the catalogue declares, column by column."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from atft_pipeline.features import catalog
from atft_pipeline.features.reference import COMMAND, render

PAGE = Path(__file__).parents[2] / "docs" / "columns.md"


def test_the_page_is_current() -> None:
    current = PAGE.read_text(encoding="utf-8") == render()
    assert current, f"docs/columns.md is not what the catalogue says; run: {COMMAND}"


def test_every_column_has_one_row_in_contract_order() -> None:
    rows = [line.split("`")[1] for line in render().splitlines() if line.startswith("| `")]
    assert rows == [entry.name for entry in catalog.columns("premium")]


def test_a_changed_declaration_changes_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    before = render()
    first, *others = catalog.GROUPS
    column = replace(first.columns[0], formula="a|b", nulls="never")
    changed = replace(first, columns=(column, *first.columns[1:]))
    monkeypatch.setattr(catalog, "GROUPS", (changed, *others))
    assert render() != before
    assert f"| `{column.name}` | {column.dtype} | `a\\|b` |" in render()
