"""Company documents become quarters, trailing years and revisions that use nothing published later."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import numpy as np
import polars as pl
import pytest

from atft_pipeline.features.statement_documents import read_documents
from atft_pipeline.features.statement_events import derive_events
from atft_pipeline.verdict import ContractBroken
from atft_pipeline_tests.synthetic_events import Row, company, document, revision, typed

A = "10010"


def events(rows: Sequence[Row], split: float = 1.0) -> pl.DataFrame:
    """Events of documents that become usable on their own day; the split index is 1 unless given."""
    frame = typed("fin_summary", rows)
    documents = read_documents(frame, frame["DiscDate"].to_numpy()).with_columns(
        company=pl.col("code").rank("dense").cast(pl.Int64) - 1,
        split_available=pl.lit(split),
        split_period=pl.lit(split),
    )
    return derive_events(documents)


def year_of(year: int, quarterly: Sequence[float], **extra: object) -> list[Row]:
    """Four results of a calendar year whose single quarters are `quarterly`, in sales, OP and NP alike."""
    total, rows = 0.0, []
    days = (date(year, 5, 10), date(year, 8, 10), date(year, 11, 10), date(year + 1, 2, 10))
    for kind, day, amount in zip(("1Q", "2Q", "3Q", "FY"), days, quarterly, strict=True):
        total += amount
        rows.append(document(A, day, kind, year, Sales=total, OP=total, NP=total, TA=400.0, Eq=200.0, **extra))
    return rows


def g(a: float, b: float) -> float:
    return 2 * (a - b) / (abs(a) + abs(b))


def last(frame: pl.DataFrame, column: str) -> float:
    return float(frame[column].to_numpy()[-1])


def test_trailing_year_is_the_sum_of_four_single_quarters_around_a_mid_year_forecast() -> None:
    quarters = {2021: [10.0, 20.0, 30.0, 40.0], 2022: [11.0, 23.0, 35.0, 47.0]}
    rows = [row for year, amounts in quarters.items() for row in year_of(year, amounts)]
    rows.append(revision(A, date(2022, 9, 1), 2022, FOP=130.0))
    frame = events(rows).sort("available")
    flat = [*quarters[2021], *quarters[2022]]
    trailing = frame["sales_ttm"].to_numpy()
    results = [*range(6), 7, 8]  # the forecast document is the seventh row
    for n, row in enumerate(results):
        if n >= 3:
            assert trailing[row] == pytest.approx(sum(flat[n - 3 : n + 1]))
    assert np.isnan(trailing[:3]).all()
    assert trailing[6] == trailing[5], "a forecast-only document must not blank the actuals"


def test_single_quarter_growth_compares_quarters_not_cumulative_values() -> None:
    rows = year_of(2021, [10.0, 20.0, 30.0, 40.0]) + year_of(2022, [11.0, 25.0, 30.0, 20.0])
    frame = events(rows)
    expected = [g(11, 10), g(25, 20), 0.0, g(20, 40)]
    assert frame["fs_op_q_yoy"].to_numpy()[4:] == pytest.approx(expected)
    assert np.isnan(frame["fs_op_q_yoy"].to_numpy()[:4]).all()


def test_restatement_changes_growth_from_its_own_day_only_and_adds_no_rows() -> None:
    rows = year_of(2021, [10.0, 20.0, 30.0, 40.0]) + year_of(2022, [11.0, 25.0, 30.0, 20.0])[:2]
    late = document(A, date(2022, 11, 5), "1Q", 2021, Sales=2.0, OP=2.0, NP=2.0, TA=400.0, Eq=200.0)
    before, after = events(rows), events([*rows, late])
    assert after.height == len(rows) + 1
    assert after.head(len(rows)).equals(before)
    assert last(before, "fs_sales_q_yoy") == pytest.approx(g(25, 20))
    assert last(after, "fs_sales_q_yoy") == pytest.approx(g(25, 28)), "the newest period stays 2Q of 2022"


def test_earlier_vintage_of_the_same_period_stays_what_it_was() -> None:
    rows = year_of(2021, [10.0, 20.0, 30.0, 40.0])
    correction = document(A, date(2022, 2, 20), "FY", 2021, Sales=120.0, OP=90.0, NP=90.0, TA=400.0, Eq=200.0)
    frame = events([*rows, correction])
    assert frame["sales_ttm"].to_numpy()[-2:].tolist() == [100.0, 120.0]


def test_revision_compares_the_same_target_year_across_the_roll_over() -> None:
    rows = year_of(2021, [10.0, 20.0, 30.0, 40.0], FOP=90.0)
    rows[-1] = {**rows[-1], "FOP": None, "NxFOP": 200.0}
    rows.append(document(A, date(2022, 5, 10), "1Q", 2022, OP=11.0, FOP=200.0))
    rows.append(revision(A, date(2022, 6, 1), 2022, FOP=250.0))
    frame = events(rows)
    assert np.isnan(frame["rev_op"].to_numpy()[:-1]).all(), "a first forecast for a new year is no revision"
    assert last(frame, "rev_op") == pytest.approx(g(250, 200))
    assert frame["rev_op_on"][-1] == date(2022, 6, 1)


def test_growth_of_the_forecast_speaks_of_the_next_year_after_full_year_results() -> None:
    rows = year_of(2021, [10.0, 20.0, 30.0, 40.0], FOP=90.0)
    rows[-1] = {**rows[-1], "FOP": None, "NxFOP": 200.0, "NxFNp": 70.0}
    frame = events(rows)
    assert last(frame, "fs_fc_op_growth") == pytest.approx(g(200, 100))
    assert last(frame, "f_np") == 70.0


def test_progress_is_cumulative_profit_over_the_forecast_of_the_same_year() -> None:
    rows = year_of(2021, [10.0, 20.0, 30.0, 40.0]) + year_of(2022, [11.0, 25.0, 30.0, 20.0], FOP=120.0)
    frame = events(rows)
    assert frame["fs_fc_op_progress"].to_numpy()[4:7] == pytest.approx([11 / 120, 36 / 120, 66 / 120])
    assert frame["fs_fc_op_progress_gap"].to_numpy()[4:7] == pytest.approx([11 / 120 - 0.1, 0.0, 66 / 120 - 0.6])
    assert np.isnan(frame["fs_fc_op_progress"].to_numpy()[7]), "nothing is left to progress to at the year's end"


def test_bank_without_operating_profit_uses_ordinary_profit_for_quarter_growth_only() -> None:
    rows = [
        {**row, "OP": None, "OdP": row["OP"]}
        for year, amounts in ((2021, [10.0, 20.0, 30.0, 40.0]), (2022, [11.0, 25.0, 30.0, 20.0]))
        for row in year_of(year, amounts)
    ]
    frame = events(rows)
    assert frame["fs_op_q_yoy"].to_numpy()[4] == pytest.approx(g(11, 10))
    assert np.isnan(frame["fs_op_margin_ttm"].to_numpy()).all()


def test_non_consolidated_fields_stand_in_only_for_a_document_without_consolidated_ones() -> None:
    parent = {"NCSales": 5.0, "NCOP": 4.0, "NCTA": 50.0, "NCEq": 10.0}
    alone = document(A, date(2022, 5, 10), "1Q", 2022, **parent)
    group = document("10020", date(2022, 5, 10), "1Q", 2022, TA=400.0, **parent)
    frame = events([alone, group])
    assert frame["fs_equity_ratio"][0] == pytest.approx(0.2)
    assert np.isnan(frame["fs_equity_ratio"][1]), "a group's total assets are not divided into its parent's equity"


def test_period_of_the_wrong_length_has_no_flows_but_keeps_its_balance_sheet() -> None:
    rows = year_of(2021, [10.0, 20.0, 30.0, 40.0])
    short = document(A, date(2022, 11, 10), "FY", 2022, Sales=70.0, OP=7.0, NP=7.0, TA=400.0, Eq=100.0)
    rows.append({**short, "CurPerEn": date(2022, 9, 30), "CurFYEn": date(2022, 9, 30)})
    frame = events(rows)
    assert np.isnan(last(frame, "sales_ttm"))
    assert last(frame, "fs_equity_ratio") == pytest.approx(0.25)


def test_accruals_come_from_the_newest_full_year() -> None:
    rows = year_of(2021, [10.0, 20.0, 30.0, 40.0], CFO=60.0) + year_of(2022, [11.0, 25.0, 30.0, 20.0])[:1]
    assert last(events(rows), "fs_accruals_fy") == pytest.approx((100 - 60) / 400)


def test_shares_belong_to_the_newest_period_and_survive_a_late_correction_of_an_old_one() -> None:
    rows = [
        document(A, date(2022, 2, 10), "FY", 2021, ShOutFY=100.0, TrShFY=10.0),
        document(A, date(2022, 5, 10), "1Q", 2022, ShOutFY=120.0, TrShFY=10.0),
        document(A, date(2022, 6, 10), "FY", 2021, ShOutFY=90.0, TrShFY=0.0),
    ]
    assert events(rows)["base_shares"].to_list() == [90.0, 110.0, 110.0]


def test_one_companys_documents_never_reach_another() -> None:
    rng = np.random.default_rng(3)
    one, two = company("10010", (2021, 2022), rng), company("10020", (2021, 2022), rng)
    alone = events(one).drop("company")
    both = events([*two, *one]).filter(pl.col("code") == "10010").drop("company")
    assert both.equals(alone)


KINDS = ("FY", "1Q", "2Q", "3Q", "OtherPeriod")
STANDARDS = ("JP", "US", "IFRS", "JMIS", "Foreign")


@pytest.mark.parametrize(
    ("doc_type", "streams"),
    [
        *(
            (f"{kind}FinancialStatements_{basis}_{standard}", (True, True, True))
            for kind in KINDS
            for basis in ("Consolidated", "NonConsolidated")
            for standard in STANDARDS
        ),
        ("FYFinancialStatements_Consolidated_REIT", (True, True, True)),
        ("EarnForecastRevision", (False, True, False)),
        ("REITEarnForecastRevision", (False, True, False)),
        ("DividendForecastRevision", (False, False, True)),
        ("REITDividendForecastRevision", (False, False, True)),
    ],
)
def test_every_document_type_feeds_its_streams(doc_type: str, streams: tuple[bool, bool, bool]) -> None:
    frame = typed("fin_summary", [{**document(A, date(2022, 5, 10), "1Q", 2022), "DocType": doc_type}])
    read = read_documents(frame, frame["DiscDate"].to_numpy())
    assert read.select("is_actual", "is_forecast", "is_dividend").row(0) == streams


def test_missing_source_field_is_named() -> None:
    frame = typed("fin_summary", [document(A, date(2022, 5, 10), "1Q", 2022)]).drop("OdP", "NxFNp")
    with pytest.raises(ContractBroken, match=r"OdP.*NxFNp"):
        read_documents(frame, frame["DiscDate"].to_numpy())
