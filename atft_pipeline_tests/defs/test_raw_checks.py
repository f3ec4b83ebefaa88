"""One step reports every check of a raw table, with numbers, and only errors stop a run."""

from collections.abc import Iterator

import dagster as dg
import pytest

from atft_pipeline.defs import raw_checks
from atft_pipeline.defs.raw_checks import RAW_CHECKS
from atft_pipeline.defs.resources import Pipeline
from atft_pipeline.jquants.checks.judge import checks_of
from atft_pipeline.jquants.tables import TOPIX
from atft_pipeline.verdict import Verdict


def test_each_table_has_one_function_for_all_its_checks() -> None:
    keys = {spec.asset_key.to_user_string() for check in RAW_CHECKS for spec in check.check_specs}
    assert {"raw/calendar", "raw/bars_daily", "raw/topix"} <= keys
    assert len(RAW_CHECKS) == len(keys) < sum(len(list(check.check_specs)) for check in RAW_CHECKS) / 4


@pytest.mark.parametrize(("severity", "success"), [("warn", True), ("error", False)])
def test_a_warning_shows_and_an_error_stops(monkeypatch: pytest.MonkeyPatch, severity: str, success: bool) -> None:
    def verdicts(*args: object, **kwargs: object) -> dict[str, Verdict]:
        good = {check.name: Verdict(True, 1.0, 1.0, "fine", {"rows": 3}) for check in checks_of(TOPIX)}
        return good | {"prices_ordered": Verdict(False, 2.0, 0.0, "two bad rows", {}, severity)}  # type: ignore[arg-type]

    monkeypatch.setattr(raw_checks, "judge_table", verdicts)

    @dg.asset(key=["raw", "topix"])
    def topix() -> None: ...

    @dg.asset(deps=[topix])
    def after() -> None: ...

    checks = raw_checks.table_checks(TOPIX)
    with dg.DagsterInstance.ephemeral() as instance:
        done = dg.materialize(
            [topix, after, checks], instance=instance, resources={"pipeline": Pipeline()}, raise_on_error=False
        )
        found = {event.check_name: event for event in _evaluations(done)}
    assert done.success is success
    assert bool(done.asset_materializations_for_node("after")) is success
    assert set(found) == {check.name for check in checks_of(TOPIX)}
    bad = found["prices_ordered"]
    assert not bad.passed and bad.severity.name == severity.upper()
    assert (bad.metadata["got"].value, bad.metadata["want"].value) == (2.0, 0.0)


def _evaluations(done: dg.ExecuteInProcessResult) -> Iterator[dg.AssetCheckEvaluation]:
    yield from done.get_asset_check_evaluations()
