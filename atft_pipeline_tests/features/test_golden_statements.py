"""Statement columns against a second writing that computes each cell from the documents known on its day alone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from atft_pipeline.features.group import Inputs, compute_group
from atft_pipeline.features.statements import GROUP
from atft_pipeline.panel.panel import Panel, build_panel
from atft_pipeline_tests.features.plain_statements import Stock, statement_columns
from atft_pipeline_tests.synthetic_events import Row, company, document, market_tables, revision, typed, weekdays

DAYS = weekdays(520, date(2021, 1, 4))
CODES = ("10010", "10020", "10030", "10040")
NAMES = [column.name for column in GROUP.columns]


def documents(code: str, rng: np.random.Generator) -> list[Row]:
    """Four years of results, with restatements and forecast and dividend revisions dropped in at any hour."""
    rows = company(code, (2019, 2020, 2021, 2022) if code != CODES[3] else (2019, 2020), rng)
    hours = ("09:00:00", "14:59:00", "15:00:00", "15:30:00", None)
    for n in range(24):
        day = DAYS[0] + timedelta(days=int(rng.integers(0, 720)))
        extra: dict[str, Any] = {"DiscTime": hours[int(rng.integers(5))], "DiscNo": f"{n:03d}"}
        amount = float(rng.choice([4e9, 8e9, 12e9]))
        kind = n % 3
        if kind == 0:
            rows.append(revision(code, day, day.year, FOP=amount, FNP=amount / 2, **extra))
        elif kind == 1:
            rows.append(revision(code, day, day.year, "DividendForecastRevision", FDivAnn=float(20 + n), **extra))
        else:
            again = dict(rows[int(rng.integers(0, 16)) % 8])
            if again["DiscDate"] < day:  # type: ignore[operator]
                changed = {name: again[name] * 1.1 for name in ("Sales", "OP", "NP", "TA", "Eq")}  # type: ignore[operator]
                rows.append({**again, "DiscDate": day, **changed, **extra})
    return [row for row in rows if row["DiscDate"] <= DAYS[-1]]  # type: ignore[operator]


@pytest.fixture(scope="module")
def panel() -> Panel:
    """Four stocks; the first splits 1 to 2, the second 10 to 1, the third both ways within a month."""
    tables = market_tables(CODES, DAYS, np.random.default_rng(3), sectors=["3650"])
    splits = {(CODES[0], 200): 0.5, (CODES[1], 260): 10.0, (CODES[2], 300): 0.25, (CODES[2], 320): 2.0}
    factor: pl.Expr = pl.col("AdjFactor")
    for (code, row), value in splits.items():
        factor = pl.when((pl.col("Code") == code) & (pl.col("Date") == DAYS[row])).then(value).otherwise(factor)
    return build_panel(tables["calendar"], tables["master"], tables["bars_daily"].with_columns(AdjFactor=factor))


def stock(panel: Panel, rows: Sequence[Row], column: int) -> Stock:
    own = [row for row in rows if row["Code"] == CODES[column]]
    return Stock(DAYS, own, panel.close[:, column], panel.volume[:, column], panel.factor[:, column])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_cells_are_what_the_documents_of_the_day_say(panel: Panel, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [row for code in CODES for row in documents(code, rng)]
    built = compute_group(GROUP, Inputs(panel, {"fin_summary": typed("fin_summary", rows)}))
    compared = dict.fromkeys(NAMES, 0)
    for column in range(len(CODES)):
        plain = stock(panel, rows, column)
        events = {plain.usable_from(d) for d in plain.documents}
        at_events = {row for on in events for row in (on - 1, on, on + 60, on + 61, on + 160, on + 161, on + 240)}
        for row in sorted(r for r in at_events if 0 <= r < len(DAYS)):
            expected = statement_columns(plain, row)
            assert list(expected) == NAMES
            for name, value in expected.items():
                ours = float(built[name][row, column])
                where = f"{name} of {CODES[column]} on {DAYS[row]}"
                assert ours == pytest.approx(value, rel=2e-5, abs=1e-6, nan_ok=True), where
                compared[name] += int(np.isfinite(value) and value != 0)
    assert min(compared.values()) > 50, compared


def test_a_document_of_the_next_day_would_be_noticed(panel: Panel) -> None:
    """The comparison is sharp: moving one result's hour past the close changes a compared cell."""
    early = document(CODES[0], DAYS[50], "FY", 2020, "14:00:00", Sales=9.0, OP=3.0, NP=1.0, TA=8.0, Eq=4.0)
    late = {**early, "DiscTime": "15:00:00"}
    built = compute_group(GROUP, Inputs(panel, {"fin_summary": typed("fin_summary", [early])}))
    ours = float(built["fs_equity_ratio"][50, 0])
    assert ours == statement_columns(stock(panel, [early], 0), 50)["fs_equity_ratio"] == 0.5
    assert np.isnan(statement_columns(stock(panel, [late], 0), 50)["fs_equity_ratio"])
