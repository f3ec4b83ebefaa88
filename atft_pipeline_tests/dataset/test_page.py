"""docs/dataset.md states what the catalogue declares and what benchmarks/contracts.py measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from atft_pipeline.defs.dataset import DATASET_CHECKS
from atft_pipeline.features import catalog
from atft_pipeline.settings import PLANS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "dataset.md").read_text(encoding="utf-8")
RESULT = sorted((ROOT / "benchmarks" / "results").glob("*-contracts.jsonl"))[-1]


def measured(plan: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in RESULT.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line["plan"] == plan]


def share(value: float) -> str:
    return f"{100 * value:.1f}".removesuffix(".0")


def coverage_row(band: dict[str, Any]) -> str:
    """One line of the page's coverage table, in percent."""
    low, high = (share(bound) for bound in band["expected"])
    expected = low if low == high else f"{low} to {high}"
    ((column, least),) = band["least"].items()
    name = f"`{band['group']}`" + (f" `{band['of'].replace('|', chr(92) + '|')}`" if band["of"] else "")
    return f"| {name} | {band['columns']} | {expected} | {share(band['measured'])} | `{column}` {share(least)} |"


@pytest.mark.parametrize("plan", PLANS)
def test_the_page_counts_columns_as_the_catalogue_does(plan: str) -> None:
    counts = (len(catalog.expected_columns(plan)), len(catalog.feature_columns(plan)), len(catalog.groups(plan)))
    assert f"| {plan} | {counts[0]} | {counts[1]} | {counts[2]} |" in PAGE


def test_the_page_shows_the_coverage_that_was_measured() -> None:
    bands = [line["coverage"] for line in measured("premium") if "coverage" in line]
    assert len({band["group"] for band in bands}) == len(catalog.groups("premium")) - 3  # meta, evt and cal have none
    assert [row for row in map(coverage_row, bands) if row not in PAGE] == []
    assert f"benchmarks/results/{RESULT.name}" in PAGE


@pytest.mark.parametrize("plan", ["standard", "premium"])
def test_the_measured_dataset_had_every_check_and_the_width_of_today(plan: str) -> None:
    whole = measured(plan)[-1]
    assert len(whole["dataset_checks"]) == len(DATASET_CHECKS)
    assert (whole["columns"], whole["inputs"]) == (
        len(catalog.expected_columns(plan)),
        len(catalog.feature_columns(plan)),
    )
    assert whole["passed"] == whole["checks"] and whole["bands_below"] == []
    assert f"| {plan} | {whole['rows']:,} | {whole['checks']} | {whole['passed']} |" in PAGE
