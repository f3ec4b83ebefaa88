"""A refused challenger is visible in Dagster: asset metadata and the check carry the reason."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import dagster as dg
import numpy as np

from atft_pipeline.defs.evaluation import EVALUATION, EVALUATION_CHECKS, promotion
from atft_pipeline.defs.resources import TOKYO, Pipeline
from atft_pipeline.evaluation.champion import RULES, champion_run, promote
from atft_pipeline_tests.evaluation.test_champion import DAYS, FIRST, SECOND, judged, series
from atft_pipeline_tests.small_lake import make_market, store_panel


def test_a_regression_is_refused_with_its_reason_in_the_metadata(tmp_path: Path) -> None:
    lake = tmp_path / "simulated"
    panel_hash = str(store_panel(lake, make_market(dates=200))["hash"])
    resources = {"pipeline": Pipeline(overrides={"ATFT_DATA_DIR": str(tmp_path), "ATFT_MARKET": "simulated"})}
    checks = [check for check in EVALUATION_CHECKS if {key.name for key in check.check_keys} <= set(RULES)]

    def night(run_id: str, rank_ic: np.ndarray, recipe: str) -> dg.ExecuteInProcessResult:
        judged(lake, run_id, panel_hash, rank_ic, recipe=recipe)
        (lake / "runs" / "last").unlink(missing_ok=True)
        (lake / "runs" / "last").symlink_to(run_id)
        return dg.materialize([promotion, *checks], resources=resources)

    first = night(FIRST, series(0.03), "r1")
    assert [found.passed for found in first.get_asset_check_evaluations()] == [True] * len(RULES)
    second = night(SECOND, series(0.03) * np.where(np.arange(len(DAYS)) % 2, 1.0, 0.0) - 0.01, "half the inputs zeroed")
    assert second.success  # the champion stays, so what follows may go on
    metadata = second.asset_materializations_for_node("promotion")[0].metadata
    assert metadata["promoted"].value is False and metadata["champion"].value == FIRST
    assert str(metadata["reason"].value).startswith("a regression: worse than the champion")
    judged_by = {found.check_name: found for found in second.get_asset_check_evaluations()}
    found = judged_by.pop("regression_against_champion")
    assert not found.passed and str(found.description).startswith("a regression")
    assert all(other.passed for other in judged_by.values())
    assert float(found.metadata["got"].value or 0) < -0.01  # type: ignore[arg-type]
    assert champion_run(lake) == FIRST


def test_the_markets_clock_knows_the_last_date_and_what_a_plan_hides(tmp_path: Path) -> None:
    def clock(**environment: str) -> datetime | None:
        key = {
            "ATFT_DATA_DIR": str(tmp_path),
            "ATFT_MARKET": "jquants",
            "JQUANTS_API_KEY": "k",
            "JQUANTS_PLAN": "light",
        }
        return Pipeline(overrides={**key, **environment}).now

    assert clock(ATFT_MARKET="simulated") is None
    assert clock(ATFT_END="2024-01-31") == datetime(2024, 1, 31, 23, 59, 59, 999_999, TOKYO)
    shown, hidden = clock(), clock(JQUANTS_PLAN="free")
    assert shown is not None and hidden is not None
    assert timedelta(days=83) < shown - hidden <= timedelta(days=84)


def test_a_rule_that_the_challenger_breaks_blocks_only_where_there_is_no_champion(tmp_path: Path) -> None:
    """Without a champion nothing may follow; with one, its predictions may."""
    lake = tmp_path / "simulated"
    panel_hash = str(store_panel(lake, make_market(dates=200))["hash"])
    resources = {"pipeline": Pipeline(overrides={"ATFT_DATA_DIR": str(tmp_path), "ATFT_MARKET": "simulated"})}
    (check,) = (c for c in EVALUATION_CHECKS if {key.name for key in c.check_keys} == {"rank_ic"})
    written: list[str] = []

    @dg.asset(key=EVALUATION)
    def evaluated() -> None:
        """Stands for the evaluation: its verdict is stored already."""

    @dg.asset(deps=[EVALUATION])
    def after() -> None:
        written.append("after")

    def night(run_id: str, *, passed: bool) -> dg.AssetCheckEvaluation:
        judged(lake, run_id, panel_hash, series(0.03), recipe="r1", passed=passed)
        (lake / "runs" / "last").unlink(missing_ok=True)
        (lake / "runs" / "last").symlink_to(run_id)
        done = dg.materialize([evaluated, after, check], resources=resources, raise_on_error=False)
        return done.get_asset_check_evaluations()[0]

    assert night(FIRST, passed=False).severity == dg.AssetCheckSeverity.ERROR and written == []
    assert night(FIRST, passed=True).passed and written == ["after"]
    promote(lake, FIRST, "first")
    found = night(SECOND, passed=False)
    assert not found.passed and found.severity == dg.AssetCheckSeverity.WARN and written == ["after"] * 2
    assert f"Champion {FIRST} gives the predictions" in str(found.description)
