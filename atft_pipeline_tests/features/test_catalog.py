"""The contract: names, order, roles and types against a typed list; plans; refusals that name the groups."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from atft_pipeline.features import catalog
from atft_pipeline.features.catalog import CatalogError
from atft_pipeline.jquants.tables import TABLES
from atft_pipeline.settings import PLANS

CONTRACT = Path(__file__).with_name("contract.tsv")
"""All 395 columns of the full dataset, one line each: name, group, role, dtype."""

COUNTS = {
    "N": 13, "meta": 9, "px": 6, "ret": 16, "vol": 13, "ta": 22, "liq": 13, "evt": 6, "cal": 6, "xs": 8,
    "mkt": 22, "mb": 12, "idx": 14, "sec": 26, "flow": 18, "wm": 16, "dm": 16, "ss": 18, "fs": 26, "ev": 6,
    "opt": 12, "gr": 8, "bd": 20, "ses": 14, "div": 14, "fut": 24, "bs": 17,
}  # fmt: skip
LANDED = ("N", *(group.name for group in catalog.GROUPS))
CHEAPEST_PLAN = {
    "free": ("N", "meta", "px", "ret", "vol", "ta", "liq", "evt", "cal", "xs", "fs"),
    "light": ("mkt", "mb", "sec", "flow", "ev", "gr"),
    "standard": ("idx", "wm", "dm", "ss", "opt"),
    "premium": ("bd", "ses", "div", "fut", "bs"),
}
"""The first plan that has each group's tables."""


def contract_lines(plan: str = "premium") -> list[str]:
    """The contract's lines for the groups that the catalogue has and the plan delivers."""
    cheaper = PLANS[: PLANS.index(plan) + 1]
    delivered = {group for name in cheaper for group in CHEAPEST_PLAN[name] if group in LANDED}
    lines = CONTRACT.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.split("\t")[1] in delivered]


def test_the_contract_is_395_columns_in_27_groups() -> None:
    lines = CONTRACT.read_text(encoding="utf-8").splitlines()
    counted: dict[str, int] = {}
    for line in lines:
        counted[line.split("\t")[1]] = counted.get(line.split("\t")[1], 0) + 1
    assert list(counted.items()) == list(COUNTS.items())
    assert len(lines) == 395
    assert sorted(group for groups in CHEAPEST_PLAN.values() for group in groups) == sorted(COUNTS)


def test_command_prints_the_contract_line_by_line() -> None:
    command = [sys.executable, "-m", "atft_pipeline.features.catalog", "--plan", "standard"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert printed == contract_lines("standard")


def test_groups_have_their_declared_sizes_and_order() -> None:
    sizes = {group.name: len(group.columns) for group in catalog.GROUPS}
    assert sizes == {group: COUNTS[group] for group in sizes}
    assert list(sizes) == [group for group in COUNTS if group in sizes]


@pytest.mark.parametrize("plan", PLANS)
def test_a_group_exists_exactly_when_the_plan_delivers_its_tables(plan: str) -> None:
    assert list(catalog.expected_columns(plan)) == [line.split("\t")[0] for line in contract_lines(plan)]
    for group in catalog.GROUPS:
        delivered = set(group.tables) <= set(catalog.PLAN_TABLES[plan])
        delivered &= PLANS.index(plan) >= PLANS.index(group.plan)
        assert (group in catalog.groups(plan)) == delivered


def test_plans_deliver_the_tables_that_ingestion_declares_for_them() -> None:
    for position, plan in enumerate(PLANS):
        cheaper = PLANS[: position + 1]
        assert set(catalog.PLAN_TABLES[plan]) == {name for name, table in TABLES.items() if table.plan in cheaper}


def test_unknown_plan_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        catalog.main(["--plan", "gold"])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "'gold'" in error
    assert "standard" in error


def test_removed_group_is_named_with_its_count() -> None:
    present = [e.name for e in catalog.columns("standard") if e.group != "sec" and e.name != "fs_valid"]
    missing = catalog.missing_groups(present, "standard")
    assert {group: len(names) for group, names in missing.items()} == {"sec": 26, "fs": 1}
    assert catalog.describe_missing(missing, "standard") == "sec 26 of 26, fs 1 of 26 (fs_valid)"
    assert catalog.missing_groups(catalog.expected_columns("standard"), "standard") == {}


def test_feature_index_describes_every_column_and_marks_market_wide_ones() -> None:
    index = catalog.feature_index("standard")
    assert [row["name"] for row in index] == list(catalog.expected_columns("standard"))
    assert json.loads(json.dumps(index)) == index
    wide = {str(row["group"]) for row in index if row["market_wide"]}
    assert wide >= {"cal", "mkt", "idx"}
    assert not wide & {"sec", "flow", "fs", "mb", "gr"}


def test_normalised_series_include_the_return_channel() -> None:
    spectral = [e for e in catalog.columns("standard") if e.spectral]
    assert len(spectral) == 16
    assert "ret_1d" in {e.name for e in spectral}
    assert not any(e.market_wide for e in spectral)


def test_warm_up_covers_the_longest_declared_window() -> None:
    assert 240 <= catalog.lookback("standard") <= catalog.WARM_UP_DAYS


@pytest.mark.parametrize(
    ("window", "rows"), [("60/45", 60), ("240 lag", 240), ("14", 14), ("240 td", 240), ("52/26 weeks", 0), ("", 0)]
)
def test_window_is_read_in_rows(window: str, rows: int) -> None:
    assert catalog.window_rows(window) == rows


def test_group_of_knows_every_column_and_refuses_strangers() -> None:
    assert catalog.group_of("fs_log_mcap") == "fs"
    assert catalog.group_of("target_ret_5d") == "N"
    with pytest.raises(CatalogError, match="days_to_split"):
        catalog.group_of("days_to_split")


@pytest.mark.parametrize(
    ("name", "problem"),
    [("ret_1d", "declared twice"), ("RetOneDay", "not snake_case"), ("fwd_ret_1d", "forbidden")],
)
def test_t47_bad_names_are_refused(name: str, problem: str) -> None:
    entries = catalog.columns("standard")
    with pytest.raises(CatalogError, match=problem):
        catalog.check_names([*entries, replace(entries[-1], name=name)])


def write_selection(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_without_a_selection_every_feature_is_an_input() -> None:
    assert catalog.select_features(None, "light") == catalog.feature_columns("light")


def test_selection_keeps_contract_order(tmp_path: Path) -> None:
    chosen = write_selection(tmp_path / "s.json", {"selected_features": ["fs_log_mcap", "ret_1d"]})
    assert catalog.select_features(chosen, "standard") == ("ret_1d", "fs_log_mcap")


@pytest.mark.parametrize(
    ("names", "plan", "said"),
    [
        (["ret_1d", "feat_ret_5d"], "standard", "no group: feat_ret_5d"),
        (["target_up_1d"], "standard", "N: target_up_1d"),
        (["code"], "standard", "N: code"),
        (["ret_1d", "nonsense"], "standard", "not among the columns of the standard plan: no group: nonsense"),
        (["mkt_ret_1d", "flow_valid"], "free", "of the free plan: mkt: mkt_ret_1d, flow: flow_valid"),
        (["ret_1d", "ret_1d"], "standard", "listed more than once: ret: ret_1d"),
        ([], "standard", "empty"),
    ],
)
def test_t46_bad_selection_is_refused_by_group(tmp_path: Path, names: list[str], plan: str, said: str) -> None:
    path = write_selection(tmp_path / "s.json", {"selected_features": names})
    with pytest.raises(CatalogError, match="s.json") as refused:
        catalog.select_features(path, plan)
    assert said in str(refused.value)


@pytest.mark.parametrize("content", [["ret_1d"], {"features": ["ret_1d"]}, {"selected_features": [1]}])
def test_malformed_selection_says_what_the_file_must_hold(tmp_path: Path, content: object) -> None:
    with pytest.raises(CatalogError, match="selected_features"):
        catalog.select_features(write_selection(tmp_path / "s.json", content), "standard")


def test_missing_selection_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"absent\.json"):
        catalog.select_features(tmp_path / "absent.json", "standard")


def test_importing_the_catalogue_loads_neither_torch_nor_dagster() -> None:
    code = "import sys, atft_pipeline.features.catalog; print({'torch', 'dagster', 'jquantsapi'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "set()"
