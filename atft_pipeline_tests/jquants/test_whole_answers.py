"""What a well-formed answer must contain although no list says so: balances that are due, contracts that stand."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from atft_pipeline.exchange.tokyo_calendar import calendar_table
from atft_pipeline.jquants.errors import IncompleteError
from atft_pipeline.jquants.fetch import listed_codes
from atft_pipeline.jquants.rules import require_standing, require_unit
from atft_pipeline.jquants.tables import CALENDAR, MASTER, TABLES, partition_path
from atft_pipeline.jquants.units import Unit, clamp, month_span
from atft_pipeline.lake.store import write_table

MARGIN, OPTIONS = TABLES["margin_interest"], TABLES["options_225"]
BALANCE = date(2024, 5, 2)
"""Thursday before a holiday: the last session of its week, out on Wednesday 2024-05-08."""


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lake")
    days = calendar_table(date(2024, 4, 1), date(2024, 6, 28)).with_columns(pl.col("Date").str.to_date())
    write_table(folder / partition_path(CALENDAR), days, keys=CALENDAR.keys, source={})
    codes = [f"{number}0" for number in range(1301, 1351)]
    kinds = ["1"] * 20 + ["2"] * 20 + ["3"] * 10
    listed = pl.DataFrame({"Date": [BALANCE] * 50, "Code": codes, "Mrgn": kinds})
    write_table(folder / partition_path(MASTER, "2024-05"), listed, keys=MASTER.keys, source={})
    return folder


@pytest.mark.parametrize(
    ("last", "due"), [((5, 7), []), ((5, 8), []), ((5, 9), [2]), ((5, 15), [2, 10]), ((6, 28), [2, 10, 17, 24, 31])]
)
def test_a_balance_is_due_the_day_after_it_was_published(lake: Path, last: tuple[int, int], due: list[int]) -> None:
    """At what hour of the day of publication a run asks makes no difference."""
    span = month_span(lake, "2024-05", date(2024, *last))
    assert [day.day for day in span.due(MARGIN)] == due
    window = clamp(span, (date(2024, 5, 13), None))
    assert window is None or [day.day for day in window.due(MARGIN)] == [day for day in due if day >= 13]


def test_the_week_in_which_the_calendar_begins_owes_nothing(tmp_path: Path) -> None:
    """How many sessions it had is not known, so it may have no balance."""
    days = calendar_table(date(2024, 5, 9), date(2024, 6, 28)).with_columns(pl.col("Date").str.to_date())
    write_table(tmp_path / partition_path(CALENDAR), days, keys=CALENDAR.keys, source={})
    span = month_span(tmp_path, "2024-05", date(2024, 6, 28))
    assert [day.day for day in span.days(MARGIN)] == [10, 17, 24, 31]
    assert [day.day for day in span.due(MARGIN)] == [17, 24, 31]


def balances(codes: list[str]) -> pl.DataFrame:
    rows = {"Date": [BALANCE] * len(codes), "Code": codes, "LongVol": [100.0] * len(codes)}
    empty = {name: [None] * len(codes) for name in MARGIN.schema if name not in rows}
    return pl.DataFrame(rows | empty, schema=dict(MARGIN.schema))


def test_a_weekly_balance_that_is_due_must_have_rows_of_most_issues(lake: Path) -> None:
    unit, listed = Unit(BALANCE, BALANCE), listed_codes(lake, MARGIN, "2024-05")
    assert listed is not None and listed.height == 40  # of category 3 none need have one
    codes = listed["Code"].to_list()
    require_unit(MARGIN, unit, balances(codes[:30]), [BALANCE], listed)
    with pytest.raises(IncompleteError, match=r"date=2024-05-02: 20 of 40 listed codes have a row .want 70%"):
        require_unit(MARGIN, unit, balances(codes[:20]), [BALANCE], listed)
    with pytest.raises(IncompleteError, match="no rows for business day 2024-05-02"):
        require_unit(MARGIN, unit, balances([]), [BALANCE], listed)
    require_unit(MARGIN, unit, balances([]), [], listed)  # not due yet


@dataclass(frozen=True)
class Chain:
    """Contracts of an option chain: so many that expire on the 9th, and so many that trade on."""

    expiring: int = 30
    lasting: int = 10

    def day(self, day: int, lost: int = 0) -> pl.DataFrame:
        ends = [date(2024, 5, 9)] * (self.expiring if day <= 9 else 0) + [date(2024, 6, 13)] * (self.lasting - lost)
        names = (
            [f"{end:%m}{n:03d}" for n, end in enumerate(ends)]
            if day <= 9
            else [f"06{30 + n:03d}" for n in range(len(ends))]
        )
        return pl.DataFrame({"Date": [date(2024, 5, day)] * len(ends), "Code": names, "LTD": ends})


def test_an_expiry_is_no_loss_and_a_lost_page_is_one() -> None:
    """The number of rows falls by three quarters overnight, rightly; then by half, wrongly."""
    chain = Chain()
    sound = [chain.day(8), chain.day(9), chain.day(10)]
    require_standing(OPTIONS, pl.concat(sound))
    require_standing(OPTIONS, pl.concat([*sound, chain.day(13, lost=2)]))
    with pytest.raises(IncompleteError, match=r"date=2024-05-13: 5 of 10 contracts .* have not expired .want 80%"):
        require_standing(OPTIONS, pl.concat([*sound, chain.day(13, lost=5)]))


def test_the_first_day_of_a_month_is_held_against_the_last_of_the_month_before() -> None:
    chain = Chain()
    require_standing(OPTIONS, chain.day(13, lost=5))  # nothing is known before it
    with pytest.raises(IncompleteError, match="5 of 10 contracts"):
        require_standing(OPTIONS, chain.day(13, lost=5), before=chain.day(10))


def test_contracts_without_a_known_end_demand_nothing() -> None:
    rows = pl.concat([Chain().day(9), Chain().day(10, lost=9)])
    with pytest.raises(IncompleteError, match="1 of 10 contracts"):
        require_standing(OPTIONS, rows)
    require_standing(OPTIONS, rows.with_columns(LTD=pl.lit(None, pl.Date)))
