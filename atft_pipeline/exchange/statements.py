"""What a disclosure says: results, forecasts and their revisions, as the 111 strings of /fins/summary."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.exchange.accounts import Accounts, Floats, draw_accounts
from atft_pipeline.exchange.filings import (
    CORRECTION,
    DIVIDEND,
    FORECAST,
    Documents,
    document_numbers,
    draw_documents,
    starts,
)
from atft_pipeline.exchange.summary_fields import COLUMNS, DECIMALS, FLAGS
from atft_pipeline.exchange.universe import Universe

if TYPE_CHECKING:
    from atft_pipeline.exchange.drawing import Market
    from atft_pipeline.exchange.sources import SpanTable

_PERIODS = np.array(["1Q", "2Q", "3Q", "FY"])


def fin_summary(market: Market) -> SpanTable:
    """Source of /fins/summary: every document disclosed in the history, all fields as strings ("" for missing)."""
    universe, linear, seed = market.universe, market.hidden.linear, market.size.seed
    trading = market.trading_days
    accounts = draw_accounts(universe, linear, trading, seed)
    adjustment = np.asarray(np.cumprod(market.closes.factor, axis=0), dtype=np.float64)
    documents, numbers = draw_figures(universe, accounts, linear, adjustment, market.business, trading, seed)
    serials = document_numbers(documents)

    def rows(first: date, last: date) -> pl.DataFrame:
        at = np.flatnonzero((documents.day >= np.datetime64(first)) & (documents.day <= np.datetime64(last)))
        told = Documents(**{name: values[at] for name, values in vars(documents).items()})
        stated = {name: values[at] for name, values in numbers.items()}
        return _as_strings(universe, accounts, told, stated, serials[at])

    return rows


def draw_figures(
    universe: Universe,
    accounts: Accounts,
    linear: Floats,
    adjustment: Floats,
    business: list[date],
    trading: list[date],
    seed: int,
) -> tuple[Documents, dict[str, Floats]]:
    """Every document of the history with its figures, by their names in /fins/summary; NaN where it states none.

    `linear` and `adjustment` (product of the factors so far) are [trading days, issues].
    """
    rng = np.random.default_rng([seed, 11])
    documents = draw_documents(universe, accounts, linear, business, seed)
    days = np.array(trading, dtype="datetime64[D]")
    known = np.maximum(np.searchsorted(days, documents.day) - 1, 0)  # last close before the day of disclosure
    mood = linear[known, documents.issue]
    ratio = adjustment[np.minimum(np.searchsorted(days, documents.day), len(days) - 1), documents.issue]
    ended = np.clip(
        np.searchsorted(days, accounts.quarter_end[documents.issue, documents.quarter], side="right") - 1, 0, None
    )
    shares = np.round(universe.shares[documents.issue] / adjustment[ended, documents.issue])
    numbers = _forecasts(rng, accounts, documents, mood, ratio, shares)
    numbers |= _actuals(rng, accounts, documents, shares, ratio)
    _choose_basis(accounts, documents, numbers)
    return documents, numbers


def _forecasts(
    rng: np.random.Generator, accounts: Accounts, documents: Documents, mood: Floats, ratio: Floats, shares: Floats
) -> dict[str, Floats]:
    """Forecast fields. A new forecast is the plan, moved by the characteristic as it stood before the disclosure."""
    issue, target = documents.issue, documents.target
    year = target[:, None] - np.arange(3, -1, -1)
    sales = accounts.planned_sales[issue[:, None], year].sum(axis=1)
    operating = accounts.planned_operating[issue[:, None], year].sum(axis=1)
    noise = rng.standard_normal((2, len(issue)))
    sales = sales * (1 + 0.03 * mood + 0.02 * noise[0])
    operating = operating + (0.22 * mood + 0.10 * noise[1]) * (0.01 * sales + np.abs(operating))
    latest = np.maximum.accumulate(np.where(documents.revises, np.arange(len(issue)), 0))
    sales, operating = np.round(sales[latest] / 1e6) * 1e6, np.round(operating[latest] / 1e6) * 1e6
    raises = documents.kind == DIVIDEND
    steps = np.cumsum(np.where(raises, np.where(mood + rng.standard_normal(len(issue)) > -0.3, 1, -1), 0))
    start = np.maximum.accumulate(np.where(starts(documents), np.arange(len(issue)), 0))
    before = np.where(start > 0, steps[np.maximum(start - 1, 0)], 0)
    planned = accounts.dividend[issue, target] * ratio
    dividend = np.round(planned * np.maximum(1 + 0.12 * (steps - before), 0.0))
    half = np.floor(dividend / 2)
    net = shares * (1 - accounts.treasury[issue])
    profit = np.round(0.7 * operating / 1e6) * 1e6
    ordinary = np.round(1.02 * operating / 1e6) * 1e6
    full = {"Sales": sales, "OP": operating, "OdP": ordinary, "NP": profit, "EPS": profit / net}
    full |= {"Div2Q": half, "DivFY": dividend - half, "DivAnn": dividend}
    full["PayoutRatioAnn"] = np.where(profit > 0, dividend * net / np.maximum(profit, 1.0), np.nan)
    result = documents.kind <= CORRECTION
    next_year = result & (documents.quarter % 4 == 3)
    fields: dict[str, Floats] = {}
    for name, values in full.items():
        is_dividend = name.startswith(("Div", "Payout"))
        wanted = documents.kind != (FORECAST if is_dividend else DIVIDEND)
        fields[f"F{name}"] = np.where(wanted & ~next_year, values, np.nan)
        fields[f"NxF{'Np' if name == 'NP' else name}"] = np.where(wanted & next_year, values, np.nan)
    first_half = (issue % 3 == 0) & result & (documents.quarter % 4 == 0)
    for name in ("Sales", "OP", "OdP", "NP", "EPS"):
        part = 0.48 * full[name] if name == "EPS" else np.round(0.48 * full[name] / 1e6) * 1e6
        fields[f"F{name}2Q"] = np.where(first_half, part, np.nan)
    return fields


def _actuals(
    rng: np.random.Generator, accounts: Accounts, documents: Documents, shares: Floats, ratio: Floats
) -> dict[str, Floats]:
    """Fields of the period's results; NaN in revisions. A restatement moves the profits a little."""
    issue, quarter = documents.issue, documents.quarter
    result = documents.kind <= CORRECTION
    final = result & (quarter % 4 == 3)
    half_or_final = result & (quarter % 2 == 1)
    change = np.where(documents.kind == CORRECTION, 1 + 0.01 * rng.standard_normal(len(issue)), 1.0)

    def yen(flow: Floats) -> Floats:
        return np.where(result, np.round(accounts.year_to_date(flow)[issue, quarter] * change / 1e6) * 1e6, np.nan)

    treasury = np.round(shares * accounts.treasury[issue])
    net = shares - treasury
    profit = yen(accounts.profit)
    equity = np.where(result, np.round(accounts.equity[issue, quarter] / 1e6) * 1e6, np.nan)
    assets = np.where(result, np.round(accounts.assets[issue, quarter] / 1e6) * 1e6, np.nan)
    operations = profit * 1.3 + 0.01 * assets * rng.standard_normal(len(issue))
    investing = -0.6 * np.abs(operations) * rng.uniform(0.5, 1.5, len(issue))
    dividend = np.round(accounts.dividend[issue, quarter // 4 * 4 + 3] * ratio)
    half = np.floor(dividend / 2)
    return {
        "Sales": yen(accounts.sales),
        "OP": yen(accounts.operating),
        "OdP": yen(accounts.ordinary),
        "NP": profit,
        "EPS": profit / net,
        "TA": assets,
        "Eq": equity,
        "ShEq": equity,
        "EqAR": equity / assets,
        "BPS": np.where(final, equity / net, np.nan),
        "ROE": np.where(final, profit / equity, np.nan),
        "CFO": np.where(half_or_final, np.round(operations / 1e6) * 1e6, np.nan),
        "CFI": np.where(half_or_final, np.round(investing / 1e6) * 1e6, np.nan),
        "CFF": np.where(half_or_final, np.round(-0.3 * operations / 1e6) * 1e6, np.nan),
        "CashEq": np.where(half_or_final, np.round(0.12 * assets / 1e6) * 1e6, np.nan),
        "ShOutFY": np.where(result, shares, np.nan),
        "TrShFY": np.where(result, treasury, np.nan),
        "AvgSh": np.where(result, net, np.nan),
        "Div2Q": np.where(result & (quarter % 4 >= 1), half, np.nan),
        "DivFY": np.where(final, dividend - half, np.nan),
        "DivAnn": np.where(final, dividend, np.nan),
        "DivTotalAnn": np.where(final, np.round(dividend * net), np.nan),
        "PayoutRatioAnn": np.where(final & (profit > 0), dividend * net / np.maximum(profit, 1.0), np.nan),
    }


def _choose_basis(accounts: Accounts, documents: Documents, numbers: dict[str, Floats]) -> None:
    """Blank what a company does not report, and move an unconsolidated company's figures to the NC fields."""
    issue = documents.issue
    for name in list(numbers):
        if name.endswith(("OP", "OP2Q")):
            numbers[name][accounts.bank[issue]] = np.nan
        if "OdP" in name:
            numbers[name][accounts.ifrs[issue]] = np.nan
    alone = accounts.unconsolidated[issue]
    for name in ("Sales", "OP", "OdP", "NP", "EPS", "TA", "Eq", "EqAR", "BPS", "ShEq", "ROE"):
        _move(numbers, name, f"NC{name}", alone)
    for stem in ("Sales", "OP", "OdP", "NP", "EPS"):
        _move(numbers, f"F{stem}", f"FNC{stem}", alone)
        _move(numbers, f"F{stem}2Q", f"FNC{stem}2Q", alone)
        _move(numbers, f"NxF{'Np' if stem == 'NP' else stem}", f"NxFNC{stem}", alone)


def _move(numbers: dict[str, Floats], source: str, target: str, where: NDArray[np.bool_]) -> None:
    numbers[target] = np.where(where, numbers[source], np.nan)
    numbers[source] = np.where(where, np.nan, numbers[source])


def document_types(accounts: Accounts, documents: Documents) -> NDArray[np.str_]:
    """The DocType of each document."""
    issue = documents.issue
    basis = np.where(accounts.unconsolidated[issue], "NonConsolidated", "Consolidated")
    standard = np.where(accounts.ifrs[issue] & ~accounts.unconsolidated[issue], "IFRS", "JP")
    period = _PERIODS[documents.quarter % 4]
    results = np.char.add(np.char.add(np.char.add(period, "FinancialStatements_"), np.char.add(basis, "_")), standard)
    revision = np.where(documents.kind == FORECAST, "EarnForecastRevision", "DividendForecastRevision")
    return np.where(documents.kind <= CORRECTION, results, revision)


def _as_strings(
    universe: Universe,
    accounts: Accounts,
    documents: Documents,
    numbers: dict[str, Floats],
    serials: NDArray[np.str_],
) -> pl.DataFrame:
    """The table: keys, numbers as strings, flags as "true" or "false"."""
    issue, quarter = documents.issue, documents.quarter
    one, ends = np.timedelta64(1, "D"), quarter // 4 * 4 + 3
    year_end = accounts.quarter_end[issue, ends]
    next_end = accounts.quarter_end[issue, ends + 4]
    start = (year_end.astype("datetime64[M]") - 11).astype("datetime64[D]")
    keys = {
        "DiscDate": documents.day,
        "CurPerSt": start,
        "CurPerEn": accounts.quarter_end[issue, quarter],
        "CurFYSt": start,
        "CurFYEn": year_end,
        "NxtFYSt": np.where(documents.target > ends, year_end + one, np.datetime64("NaT")),
        "NxtFYEn": np.where(documents.target > ends, next_end, np.datetime64("NaT")),
    }
    columns = {name: np.where(np.isnat(days), "", np.datetime_as_string(days)) for name, days in keys.items()}
    columns |= {
        "DiscTime": documents.time,
        "Code": np.array(universe.codes)[issue],
        "DocType": document_types(accounts, documents),
        "CurPerType": np.where(documents.kind <= CORRECTION, _PERIODS[quarter % 4], "FY"),
    }
    series = {name: pl.Series(name, values.astype(str), dtype=pl.String) for name, values in columns.items()}
    for name, values in numbers.items():
        decimals = DECIMALS.get(name, 0)
        number = pl.Series(name, np.round(values, decimals)).fill_nan(None)
        series[name] = (number if decimals else number.cast(pl.Int64)).cast(pl.String).fill_null("")
    for name in FLAGS:
        raised = documents.kind == CORRECTION if name == "RetroRst" else np.zeros(len(issue), dtype=bool)
        flag = np.where(documents.kind <= CORRECTION, np.where(raised, "true", "false"), "")
        series[name] = pl.Series(name, flag, dtype=pl.String)
    series["DiscNo"] = pl.Series("DiscNo", serials, dtype=pl.String)
    blank = pl.lit("").cast(pl.String)
    table = pl.DataFrame(list(series.values()))
    table = table.with_columns(blank.alias(name) for name in COLUMNS if name not in series)
    return table.select(COLUMNS).sort("DiscDate", "Code", "DiscTime", "DiscNo")
