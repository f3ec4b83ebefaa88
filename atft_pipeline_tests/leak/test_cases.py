"""Every known leak and fault is tested, beside a planted fault, by tests that exist; docs/leaks.md says where."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from atft_pipeline.features import catalog, prices
from atft_pipeline.features.group import Group
from atft_pipeline.jquants.tables import TABLES
from atft_pipeline_tests.leak.cases import CASES, COMMAND, Case, render

ROOT = Path(__file__).parents[1]
PAGE = ROOT.parent / "docs" / "leaks.md"
LANDED = frozenset(group.name for group in catalog.GROUPS)
GROUPS_TO_COME = frozenset({"opt", "ses", "div", "fut", "bs"})


@cache
def functions_of(module: str) -> frozenset[str]:
    """Names of the test functions of a module below atft_pipeline_tests."""
    path = ROOT / f"{module}.py"
    if not path.exists():
        return frozenset()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def problems(cases: Sequence[Case], landed: Collection[str]) -> Iterator[str]:
    """What the table owes: tests that do not exist, cases without tests, groups without theirs."""
    for case in cases:
        own = [test for tests in case.groups.values() for test in tests]
        for name in (*case.tests, *case.faults, *own):
            module, _, test = name.partition("::")
            if test not in functions_of(module):
                yield f"{case.id}: no test {test} in atft_pipeline_tests/{module}.py"
        for group, tests in case.groups.items():
            if group in landed and not tests:
                yield f"{case.id}: group {group} has landed; name its tests in atft_pipeline_tests/leak/cases.py"
        waits = not case.tests and not case.faults
        if waits and not case.groups:
            yield f"{case.id}: no test at all"
        if not case.groups and not (case.tests and case.faults):
            yield f"{case.id}: needs a test and a planted fault"


def test_every_case_is_tested_beside_a_planted_fault() -> None:
    assert list(problems(CASES, LANDED)) == []


def test_the_table_has_every_case_once_and_only_known_groups() -> None:
    leaks = [f"L{n}" for n in range(1, 24)]
    leaks[6:7] = ["L7a", "L7b"]
    assert [case.id for case in CASES] == [*leaks, *(f"Q{n}" for n in range(1, 39))]
    assert {group for case in CASES for group in case.groups} <= LANDED | GROUPS_TO_COME


def test_a_missing_test_and_a_group_that_lands_without_one_are_named() -> None:
    waiting = next(case for case in CASES if case.id == "L15")
    assert list(problems([replace(waiting, groups={"div": ()})], {"div"})) == [
        "L15: group div has landed; name its tests in atft_pipeline_tests/leak/cases.py"
    ]
    assert list(problems([replace(waiting, groups={"div": ("leak/test_cases::test_nothing",)})], {"div"})) == [
        "L15: no test test_nothing in atft_pipeline_tests/leak/test_cases.py"
    ]
    assert len(list(problems([Case("X1", "untested")], ()))) == 2


def test_the_page_is_current() -> None:
    current = PAGE.read_text(encoding="utf-8") == render()
    assert current, f"docs/leaks.md is not what the table says; run: {COMMAND}"


def foreign_sources(groups: Sequence[Group]) -> list[str]:
    return [f"{group.name}: {table}" for group in groups for table in group.tables if table not in TABLES]


def test_every_source_is_a_j_quants_table() -> None:
    """L21."""
    assert foreign_sources(catalog.GROUPS) == []
    official = ("/markets/", "/equities/", "/indices/", "/fins/", "/derivatives/")
    assert all(table.path.startswith(official) for table in TABLES.values())


def test_a_foreign_source_would_be_noticed() -> None:
    assert foreign_sources([replace(prices.GROUP, tables=("bars_daily", "fx_daily"))]) == ["px: fx_daily"]


def test_inputs_are_numbers_not_dates() -> None:
    """L22."""
    inputs = [entry for entry in catalog.columns("premium") if entry.role == "feature"]
    assert {entry.dtype for entry in inputs} <= {"f32", "i8", "i16", "i32"}
