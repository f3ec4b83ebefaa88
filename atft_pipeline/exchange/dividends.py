"""Dividend notices: forecasts, revisions, decisions, corrections and deletions, in step with /fins/summary.

Every document that states another dividend per share than the one before it gives a notice at the same minute. The
notices of one dividend form a chain: all of them name the first one in CARefNo.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from jquantsapi import constants

from atft_pipeline.exchange.accounts import Dates
from atft_pipeline.exchange.disclosures import Disclosures, disclosures_of
from atft_pipeline.exchange.drawing import Market
from atft_pipeline.exchange.tokyo_calendar import business_days

if TYPE_CHECKING:
    from atft_pipeline.exchange.sources import SpanTable

SETTLEMENT_CHANGE = np.datetime64("2019-07-18")
"""From record dates here on trades settle in two days, so the ex-date is one business day before, not two."""

COLUMNS = tuple(constants.FINS_DIVIDEND_COLUMNS_V2)
UNDETERMINED, UNSET = "-", ""

_OPEN = 0.04
"""Share of dividends whose first forecast states no amount."""
_MISTAKEN = 0.02
"""Share of dividends whose first notice is deleted on the next business day and given anew."""
_DECIDED_WITHIN = 60
"""Days after the record date in which an amount is still news."""
_EXTRA = 0.03
"""Share of dividends with a commemorative or special part."""
_CHAIN = ("issue", "year", "kind")
_INTERIM, _FINAL = 0, 1


def dividends(market: Market) -> SpanTable:
    """Every notice of the history, sorted by (PubDate, Code, RefNo)."""
    rng = np.random.default_rng([market.size.seed, 52])
    disclosed = disclosures_of(market)
    notices = _with_chains(_with_mistakes(_notices(disclosed), market, rng), rng)
    table = _as_strings(notices, disclosed, market)

    def rows(begin: date, end: date) -> pl.DataFrame:
        return table.filter(pl.col("PubDate").is_between(pl.lit(begin.isoformat()), pl.lit(end.isoformat())))

    return rows


def _notices(disclosed: Disclosures) -> pl.DataFrame:
    """What the documents say about each dividend, where it differs from what was said before.

    One row per issue, fiscal year (column of the accounts), kind and document; `decided` marks the final amount.
    """
    documents, numbers = disclosed.documents, disclosed.numbers
    own_year = documents.quarter // 4 * 4 + 3
    parts = []
    for kind, field in ((_INTERIM, "Div2Q"), (_FINAL, "DivFY")):
        this, following = numbers[f"F{field}"], numbers[f"NxF{field}"]
        forecast = np.where(np.isnan(this), following, this)
        for decided, year, amount in ((False, documents.target, forecast), (True, own_year, numbers[field])):
            parts.append(
                pl.DataFrame(
                    {
                        "issue": documents.issue,
                        "year": year,
                        "kind": np.full(len(year), kind),
                        "day": documents.day,
                        "time": documents.time,
                        "amount": amount,
                        "decided": np.full(len(year), decided),
                    }
                ).filter(pl.col("amount").is_not_nan())
            )
    said = pl.concat(parts).sort(*_CHAIN, "day", "time", "decided", descending=[False] * 5 + [True])
    settled = pl.col("decided").cum_max().shift(1, fill_value=False).over(_CHAIN)
    said = said.filter(pl.col("decided") | ~settled)
    record = pl.Series(record_dates(said, disclosed.accounts.quarter_end))
    said = said.filter((pl.col("day") - record).dt.total_days() <= _DECIDED_WITHIN)
    before = [pl.col(name).shift(1).over(_CHAIN) for name in ("amount", "decided")]
    changed = before[0].is_null() | (pl.col("amount") != before[0]) | (pl.col("decided") != before[1])
    said = said.filter(changed).with_columns(paid=(pl.col("amount").max() > 0).over(_CHAIN))
    return said.filter("paid").drop("paid").with_columns(status=pl.lit("1"))


def _with_mistakes(notices: pl.DataFrame, market: Market, rng: np.random.Generator) -> pl.DataFrame:
    """Some first notices are wrong: the next business day they are deleted, and the dividend is announced anew."""
    opening = notices.with_row_index("row").filter(pl.col("row") == pl.col("row").min().over(_CHAIN))
    after = notices.with_columns(next=pl.col("day").shift(-1).over(_CHAIN)).select("next")
    opening = opening.with_columns(after["next"].gather(opening["row"]))
    days = np.array(market.business, dtype="datetime64[D]")
    place = np.searchsorted(days, opening["day"].to_numpy(), side="right")
    inside = place < np.minimum(len(days), market.universe.last[opening["issue"].to_numpy()])
    day = days[np.minimum(place, len(days) - 1)]
    opening = opening.with_columns(pl.Series("repaired", day).cast(pl.Date))
    free = (pl.col("next").is_null() | (pl.col("next") > pl.col("repaired"))) & pl.Series(inside)
    wrong = opening.filter(free & pl.Series(rng.random(opening.height) < _MISTAKEN))
    marked = notices.with_row_index("row").with_columns(
        amount=pl.when(pl.col("row").is_in(wrong["row"].implode())).then(2 * pl.col("amount")).otherwise("amount"),
        part=pl.lit(0),
    )
    fixed = wrong.with_columns(day=pl.col("repaired"), part=pl.lit(0)).drop("repaired", "next")
    deletion = fixed.with_columns(
        status=pl.lit("3"), amount=2 * pl.col("amount"), time=pl.lit("12:00:00"), part=pl.lit(1)
    )
    anew = fixed.with_columns(time=pl.lit("13:00:00"), part=pl.lit(2))
    return pl.concat([frame.select(marked.columns) for frame in (marked, deletion, anew)]).drop("row")


def _with_chains(notices: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Reference numbers in order of publication, the first one of each chain, and what is special about the chain."""
    ordered = notices.sort("day", "time", "issue", *_CHAIN[1:], "part").with_row_index("serial")
    stamp = pl.col("day").dt.strftime("%Y%m%d")
    ordered = ordered.with_columns(ref=stamp + (pl.col("serial") % 1_000_000).cast(pl.String).str.zfill(6))
    ordered = ordered.sort(*_CHAIN, "serial")
    ordered = ordered.with_columns(life=(pl.col("part") == 2).cum_sum().over(_CHAIN))
    chain = [*_CHAIN, "life"]
    ordered = ordered.with_columns(
        root=pl.col("ref").first().over(chain),
        status=pl.when(pl.col("status") == "3")
        .then(pl.lit("3"))
        .when(pl.col("ref") == pl.col("ref").first().over(chain))
        .then(pl.lit("1"))
        .otherwise(pl.lit("2")),
    )
    chains = ordered.select(_CHAIN).unique(maintain_order=True)
    luck = rng.random((2, chains.height))
    kind = np.where(luck[1] < _EXTRA, rng.integers(1, 4, chains.height), 0)
    drawn = chains.with_columns(open=pl.Series(luck[0] < _OPEN), extra=pl.Series(kind))
    joined = ordered.join(drawn, on=list(_CHAIN), how="left", maintain_order="left")
    first = (pl.col("status") == "1") & ~pl.col("decided")
    return joined.with_columns(open=pl.col("open") & first)


def record_dates(notices: pl.DataFrame, quarter_end: Dates) -> Dates:
    """The last day of the half year (interim) or of the fiscal year (final) of each notice."""
    year, interim = notices["year"].to_numpy(), notices["kind"].to_numpy() == _INTERIM
    return np.asarray(quarter_end[notices["issue"].to_numpy(), np.where(interim, year - 2, year)])


def ex_dates_of(record: Dates, days: Dates) -> tuple[Dates, Dates]:
    """The business day on which holders are recorded, and the ex-date before it, for each record date."""
    place = np.searchsorted(days, record, side="right") - 1
    counted = days[place]
    return counted, days[place - np.where(counted >= SETTLEMENT_CHANGE, 1, 2)]


def _as_strings(notices: pl.DataFrame, disclosed: Disclosures, market: Market) -> pl.DataFrame:
    """The 23 columns of the API, all text."""
    record = record_dates(notices, disclosed.accounts.quarter_end)
    first, last = record.min().astype(date), record.max().astype(date)
    days = np.array(business_days(first - timedelta(days=30), last + timedelta(days=130)), dtype="datetime64[D]")
    counted, ex = ex_dates_of(record, days)
    interim = notices["kind"].to_numpy() == _INTERIM
    paid = days[np.searchsorted(days, record + np.where(interim, 65, 88).astype("timedelta64[D]"))]

    def iso(values: Dates) -> pl.Series:
        return pl.Series(np.datetime_as_string(values).astype(str))

    def amount(part: pl.Expr) -> pl.Expr:
        stated = pl.when("open").then(pl.lit(UNDETERMINED)).otherwise(part.round(1).cast(pl.String))
        return stated.cast(pl.String)

    special = (pl.col("amount") * 0.2).floor()
    code = pl.col("extra").cast(pl.String)
    columns: dict[str, pl.Expr | pl.Series] = {
        "PubDate": pl.col("day").cast(pl.String),
        "PubTime": pl.col("time").str.slice(0, 5),
        "Code": pl.Series(market.universe.codes).gather(notices["issue"]),
        "RefNo": pl.col("ref"),
        "StatCode": pl.col("status"),
        "BoardDate": pl.col("day").cast(pl.String),
        "IFCode": pl.when(pl.col("kind") == _INTERIM).then(pl.lit("1")).otherwise(pl.lit("2")),
        "FRCode": pl.when("decided").then(pl.lit("1")).otherwise(pl.lit("2")),
        "IFTerm": iso(record).str.slice(0, 7),
        "DivRate": amount(pl.col("amount")),
        "RecDate": iso(record),
        "ExDate": iso(ex),
        "ActRecDate": iso(counted),
        "PayDate": pl.when("decided").then(iso(paid)).otherwise(pl.lit(UNDETERMINED)),
        "CARefNo": pl.col("root"),
        "CommSpecCode": code,
        "CommDivRate": pl.when(code.is_in(["1", "3"])).then(amount(special)).otherwise(pl.lit(UNSET)),
        "SpecDivRate": pl.when(code.is_in(["2", "3"])).then(amount(special)).otherwise(pl.lit(UNSET)),
    }
    unset = {name: pl.lit(UNSET) for name in COLUMNS if name not in columns}
    table = notices.select(**{name: values for name, values in (columns | unset).items()})
    return table.select(COLUMNS).sort("PubDate", "Code", "RefNo")
