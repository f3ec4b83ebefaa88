"""Groups that are computed a few stocks at a time: the columns are those of all stocks at once, to the bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from atft_pipeline.features import group as groups
from atft_pipeline.features import ranks
from atft_pipeline.features.catalog import GROUPS
from atft_pipeline.features.group import Group, Inputs, compute_group
from atft_pipeline.panel.panel import build_panel
from atft_pipeline.verdict import ContractBroken
from atft_pipeline_tests.synthetic import market

BY_STOCK = [group for group in GROUPS if group.by_stock]


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    whole = market(days=300)
    return Inputs(build_panel(whole.calendar, whole.master, whole.bars), {"topix": whole.topix})


@pytest.fixture
def few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "STOCKS", 7)
    monkeypatch.setattr(groups, "SMALL", 0)


def differing(group: Group, inputs: Inputs) -> list[str]:
    """Columns that another number of stocks at a time would change."""
    at_once = compute_group(replace(group, by_stock=False), inputs)
    apart = compute_group(replace(group, by_stock=True), inputs)
    return [name for name in at_once if not np.array_equal(at_once[name], apart[name], equal_nan=True)]


@pytest.mark.parametrize("group", BY_STOCK, ids=lambda group: group.name)
@pytest.mark.usefixtures("few_at_a_time")
def test_columns_do_not_depend_on_how_many_stocks_are_computed_at_a_time(group: Group, inputs: Inputs) -> None:
    assert differing(group, inputs) == []


@pytest.mark.usefixtures("few_at_a_time")
def test_a_group_that_compares_stocks_would_be_noticed(inputs: Inputs) -> None:
    assert differing(ranks.GROUP, inputs)


@pytest.mark.usefixtures("few_at_a_time")
def test_an_infinity_is_named_by_its_date_and_code(inputs: Inputs) -> None:
    group, place = next(g for g in BY_STOCK if g.name == "ret"), (40, 30)
    date, code = inputs.panel.axes.dates[place[0]], inputs.panel.axes.codes[place[1]]

    def with_an_infinity(given: Inputs):  # type: ignore[no-untyped-def]
        for name, values in group.compute(given):
            wrong = np.array(values)
            wrong[(given.panel.axes.dates == date)[:, None] & (given.panel.axes.codes == code)] = np.inf
            yield name, wrong

    assert inputs.panel.axes.listed[place]
    with pytest.raises(ContractBroken, match=f"infinite on {date}, code {code}"):
        compute_group(replace(group, compute=with_an_infinity), inputs)
