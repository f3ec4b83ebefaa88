"""README and docs/settings.md say how many columns each plan gives, as the catalogue has them."""

from __future__ import annotations

from pathlib import Path

import pytest

import atft_pipeline
from atft_pipeline.dataset.contract import FULL_COLUMNS, contract_of
from atft_pipeline.settings import PLANS

ROOT = Path(atft_pipeline.__file__).parent.parent


@pytest.mark.parametrize("plan", PLANS)
def test_the_settings_page_counts_a_plan_s_columns(plan: str) -> None:
    contract = contract_of(plan)
    width = len(contract.columns)
    named = "nothing to set" if width >= FULL_COLUMNS else f"`ATFT_CONTRACT={contract.name}`"
    line = f"| {plan} | {width} | {len(contract.features)} | {named} |"
    assert line in (ROOT / "docs" / "settings.md").read_text(encoding="utf-8").splitlines()


def test_the_readme_counts_them_too() -> None:
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert ", ".join(f"{plan} {len(contract_of(plan).columns)}" for plan in PLANS) in text
