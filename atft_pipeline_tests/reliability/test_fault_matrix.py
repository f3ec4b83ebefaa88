"""The fault matrix holds, and docs/reliability.md shows it as it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from atft_pipeline.jquants.errors import IncompleteError
from atft_pipeline.jquants.ingest import ingest_table
from atft_pipeline.jquants.revisions import read_revisions
from atft_pipeline.jquants.tables import TABLES
from atft_pipeline_tests.reliability.fault_matrix import (
    BY_DATE,
    COMMAND,
    DOCUMENT,
    LETTERS,
    TABLE_NAMES,
    WAYS,
    Bench,
    Cell,
    Way,
    counted,
    documented,
    prepared,
    run_column,
)
from atft_pipeline_tests.reliability.small_market import SIZE, Service


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Path]]:
    """The served market and a lake. Nothing here is about power failures, so nothing waits for the disk."""
    with pytest.MonkeyPatch.context() as patch, prepared(tmp_path_factory.mktemp("matrix")) as found:
        patch.setattr(os, "fsync", lambda handle: None)
        yield found


@pytest.mark.parametrize("table", TABLE_NAMES)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_every_fault_ends_complete_or_in_one_clear_error(place: tuple[Service, Path], way: Way, table: str) -> None:
    found = run_column(*place, way, table)
    strange = [text for row in found.values() for text in row if text not in LETTERS]
    assert strange == []
    shown = documented(DOCUMENT.read_text(encoding="utf-8"))[way.name, table]
    assert found == shown, f"docs/reliability.md is not current: run {COMMAND}"


def test_the_document_counts_what_it_shows() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert counted(documented(text)) in text, f"docs/reliability.md is not current: run {COMMAND}"


@pytest.mark.parametrize(
    ("rule", "row", "table"),
    [("require_kept", "partial", "options_225"), ("require_unit", "all_null", "breakdown")],
)
def test_a_rule_taken_away_shows_in_the_matrix(
    place: tuple[Service, Path], monkeypatch: pytest.MonkeyPatch, rule: str, row: str, table: str
) -> None:
    bench = Bench(*place, BY_DATE, TABLES[table])
    cell = Cell(BY_DATE, row, table, "always")
    assert bench.outcome(cell) == "e"
    monkeypatch.setattr(f"atft_pipeline.jquants.{'months' if rule == 'require_kept' else 'fetch'}.{rule}", _nothing)
    assert bench.outcome(cell) != "e"


def _nothing(*_: object) -> None:
    """A rule that never objects."""


def test_rows_that_the_service_took_back_are_accepted_when_the_month_is_read_anew(place: tuple[Service, Path]) -> None:
    served, lake = place
    table = TABLES["options_225"]
    Bench(served, lake, BY_DATE, table)
    served.plant("partial:options_225:date=2024-05-09:share=0.5")

    def read(refetch: bool) -> None:
        list(ingest_table(served.client(), lake, table, ["2024-05"], last_date=SIZE.end, bulk=False, refetch=refetch))

    with pytest.raises(IncompleteError, match=r"date=2024-05-09: \d+ of \d+ stored rows are missing .*refetch"):
        list(ingest_table(served.client(), lake, table, ["2024-05"], last_date=date(2024, 5, 11), bulk=False))
    read(refetch=True)
    assert read_revisions(lake, "options_225")[-1]["removed"] > 0
