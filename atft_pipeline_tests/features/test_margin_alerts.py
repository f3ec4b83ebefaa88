"""Daily published margin columns: golden values, vintages, gaps, the list as a regime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

import numpy as np
import pytest
from numpy.typing import NDArray

from atft_pipeline.features.group import Inputs, compute_group
from atft_pipeline.features.margin_alerts import GROUP, LEVELS
from atft_pipeline.panel.panel import Panel
from atft_pipeline.verdict import ContractBroken
from atft_pipeline_tests.synthetic import START, calendar_frame, one_code_panel, trading_days
from atft_pipeline_tests.synthetic_trading import alert, typed_rows

CODE = "13010"
DAYS = trading_days(calendar_frame(START, date(2023, 3, 1)))
FLAGS = ("dm_reg_level", "dm_is_restricted", "dm_is_caution", "dm_spell_td", "dm_staleness_td", "dm_valid")


def columns(rows: Sequence[Mapping[str, object]], panel: Panel | None = None) -> dict[str, NDArray[np.float32]]:
    panel = panel or one_code_panel(DAYS, [100.0] * len(DAYS))
    tables = {"margin_alert": typed_rows("margin_alert", rows)}
    return {name: values[:, 0] for name, values in compute_group(GROUP, Inputs(panel, tables)).items()}


def published(t: int, long: float = 30_000.0, short: float = 5_000.0, **values: object) -> dict[str, object]:
    """The record of application day t, published on the next day; the row after that is the first to know it."""
    return alert(CODE, DAYS[t + 1], DAYS[t], long, short, **values)


def test_values_of_a_record() -> None:
    numbers = {"LongOutChg": 2_000.0, "ShrtOutChg": -500.0, "LongOutRatio": 4.5, "ShrtOutRatio": 0.75}
    before = [published(t, 30_000.0 + t, 5_000.0) for t in range(50, 55)]
    found = columns([*before, published(55, 30_000.0, 5_000.0, reasons=("Restricted",), **numbers)])
    wanted = {
        "dm_long_to_adv20": 30.0,
        "dm_short_to_adv20": 5.0,
        "dm_net_to_adv20": 25.0,
        "dm_short_long_log": np.log(5_100 / 30_100),
        "dm_imbalance": 25 / 35,
        "dm_long_chg_1d": 2.0,
        "dm_short_chg_1d": -0.5,
        "dm_net_chg_5d": -0.05,  # the record of five application days ago had 50 shares more
        "dm_long_to_listed": 0.045,
        "dm_short_to_listed": 0.0075,
        "dm_reg_level": 3.0,
        "dm_is_restricted": 1.0,
        "dm_is_caution": 0.0,
        "dm_spell_td": 6.0,
        "dm_staleness_td": 0.0,
        "dm_valid": 1.0,
    }
    assert {name: found[name][57] for name in wanted} == pytest.approx(wanted, rel=1e-6)


def test_a_record_is_known_the_day_after_its_publication_and_carried_for_five_days() -> None:
    found = columns([published(50)])
    assert np.flatnonzero(np.isfinite(found["dm_imbalance"])).tolist() == list(range(52, 58))
    assert found["dm_reg_level"][50:60].tolist() == [0, 0, 3, 3, 3, 3, 3, 3, 0, 0]
    assert found["dm_spell_td"][50:60].tolist() == [0, 0, 1, 2, 3, 4, 5, 6, 0, 0]
    assert found["dm_valid"][50:60].tolist() == [0, 0, 1, 1, 0, 0, 0, 0, 0, 0]
    assert found["dm_staleness_td"][[51, 52, 60]].tolist() == [250, 0, 8]
    assert all(np.isfinite(found[name]).all() for name in FLAGS)


def test_numbers_that_raw_has_as_null_stay_null() -> None:
    """Where the exchange writes "-" or "*"."""
    found = columns([published(50)])
    for name in ("dm_long_chg_1d", "dm_short_chg_1d", "dm_long_to_listed", "dm_short_to_listed", "dm_net_chg_5d"):
        assert np.isnan(found[name]).all()


def test_a_correction_counts_from_its_own_publication() -> None:
    original, corrected = published(50, long=30_000.0), alert(CODE, DAYS[53], DAYS[50], 42_000.0, 5_000.0)
    found = columns([corrected, original])
    assert found["dm_long_to_adv20"][52:57].tolist() == [30.0, 30.0, 42.0, 42.0, 42.0]
    assert found["dm_staleness_td"][54] == 2  # the record is no fresher for having been wrong


def test_a_late_correction_of_an_older_day_does_not_replace_the_newest() -> None:
    rows = [published(t, long=1_000.0 * t) for t in range(50, 56)]
    late = alert(CODE, DAYS[56], DAYS[50], 99_000.0, 5_000.0)
    found = columns([*rows, late])
    assert found["dm_long_to_adv20"][57] == 55.0
    assert found["dm_net_chg_5d"][57] == pytest.approx(55.0 - 99.0)  # but it is the version of day 50 that is known
    assert columns(rows)["dm_net_chg_5d"][57] == pytest.approx(5.0)


def test_a_missing_day_leaves_the_five_day_change_null() -> None:
    rows = [published(t) for t in range(40, 60) if t != 50]
    found = columns(rows)
    known = np.flatnonzero(np.isfinite(found["dm_net_chg_5d"]))
    assert 56 in known and 57 not in known and 58 in known  # row 57 knows day 55, whose day 50 is missing


@pytest.mark.parametrize(("gap", "spell"), [(5, 12.0), (6, 3.0)])
def test_gaps_of_more_than_five_days_end_a_spell(gap: int, spell: float) -> None:
    rows = [published(t) for t in (*range(40, 44), *range(44 + gap, 47 + gap))]
    assert columns(rows)["dm_spell_td"][48 + gap] == spell


@pytest.mark.parametrize(("regulation", "level"), [*LEVELS.items(), (None, 0), ("", 0)])
def test_classes_are_ordered_by_severity(regulation: str | None, level: int) -> None:
    assert columns([published(50, TSEMrgnRegCls=regulation)])["dm_reg_level"][52] == level


@pytest.mark.parametrize(
    ("reason", "restricted", "caution"),
    [("RestrictedByJSF", 1, 0), ("PrecautionByJSF", 0, 1), ("Monitoring", 0, 1), ("UnclearOrSecOnAlert", 0, 1)],
)
def test_reasons_are_read_from_the_nested_object(reason: str, restricted: int, caution: int) -> None:
    found = columns([published(50, reasons=(reason,))])
    assert (found["dm_is_restricted"][52], found["dm_is_caution"][52]) == (restricted, caution)


def test_reasons_that_cannot_be_read_are_an_error() -> None:
    with pytest.raises(ContractBroken, match="no PubReason has Restricted"):
        columns([published(50, PubReason="{'Restricted': '1'}")])


def test_a_split_changes_no_ratio() -> None:
    factor = [1.0] * len(DAYS)
    factor[60] = 0.5
    volume = [1000.0 if t < 60 else 2000.0 for t in range(len(DAYS))]
    panel = one_code_panel(DAYS, [100.0] * len(DAYS), Vo=volume, AdjFactor=factor)
    rows = [published(t, 30_000.0 * (1 if t < 60 else 2), 5_000.0 * (1 if t < 60 else 2)) for t in range(50, 70)]
    found = columns(rows, panel)
    np.testing.assert_allclose(found["dm_long_to_adv20"][52:71], 30.0, rtol=1e-6)
    np.testing.assert_allclose(found["dm_net_chg_5d"][58:71], 0.0, atol=1e-6)
