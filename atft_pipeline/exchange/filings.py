"""When companies disclose: results by their deadlines, corrections, and revised forecasts in between."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from atft_pipeline.exchange.accounts import Accounts, Dates, Floats, Ints
from atft_pipeline.exchange.universe import Universe

CLOSE_CHANGE = np.datetime64("2024-11-05")
"""From here on the favourite minute of disclosure is 15:30, not 15:00."""

RESULT, CORRECTION, FORECAST, DIVIDEND = range(4)
"""Kinds of documents: results, their restatement, a revised earnings forecast, a revised dividend forecast."""

_LATEST_DAYS = 45
_REVISIONS_A_MONTH = 0.10
_DIVIDEND_REVISIONS_A_MONTH = 0.025
_REVISED_WITH_RESULTS = 0.15
_CORRECTED = 0.012
_TIMES = ("15:00:00", "15:30:00", "16:00:00", "11:30:00", "12:00:00", "13:00:00", "14:00:00", "10:30:00", "17:10:00")
_TIME_ODDS = (0.36, 0.13, 0.10, 0.09, 0.07, 0.07, 0.10, 0.04, 0.04)


@dataclass(frozen=True)
class Documents:
    """Documents in order of issue, target year and disclosure; every array has one entry per document."""

    kind: Ints
    issue: Ints
    quarter: Ints
    """Column of the accounts: the period of a result, the last quarter of the year that a revision speaks of."""
    day: Dates
    time: NDArray[np.str_]
    revises: NDArray[np.bool_]
    """The document states a new earnings forecast; otherwise it repeats the last one for the same year."""

    @property
    def target(self) -> Ints:
        """Column of the accounts that ends the year the forecast speaks of: results of a year forecast the next."""
        ends = self.quarter // 4 * 4 + 3
        return np.where((self.kind <= CORRECTION) & (self.quarter % 4 == 3), ends + 4, ends)


def due_days(accounts: Accounts, seed: int) -> Dates:
    """[issues, quarters]: the day by which each result is due; it comes out on the last business day up to there."""
    return _due_days(np.random.default_rng([seed, 12]), accounts)


def _due_days(rng: np.random.Generator, accounts: Accounts) -> Dates:
    issues, quarters = accounts.quarter_end.shape
    habit: Floats = np.clip(_LATEST_DAYS - rng.exponential(4.5, issues), 24, _LATEST_DAYS)
    lag = np.clip(habit[:, None] + rng.integers(-1, 2, (issues, quarters)), 22, _LATEST_DAYS).astype(np.int64)
    return np.asarray(accounts.quarter_end + lag.astype("timedelta64[D]"), dtype="datetime64[D]")


def draw_documents(
    universe: Universe,
    accounts: Accounts,
    linear: Floats,
    business: list[date],
    seed: int,
) -> Documents:
    """Draw every document of the history over the `business` days; `linear` [trading days, issues] drives revisions."""
    rng = np.random.default_rng([seed, 12])
    open_days = np.array(business, dtype="datetime64[D]")
    issues = len(accounts.quarter_end)
    wanted = _due_days(rng, accounts)
    place = np.searchsorted(open_days, wanted, side="right") - 1
    known = (place >= 0) & (wanted <= open_days[-1])
    told = np.where(known, open_days[np.maximum(place, 0)], wanted)
    inside = known & (told > accounts.quarter_end) & universe.common[:, None]
    inside &= _listed(universe, np.maximum(place, 0), np.arange(issues)[:, None])
    issue, quarter = np.nonzero(inside)
    count = len(issue)
    clock = _times(rng, told[issue, quarter], rng.choice(np.arange(len(_TIMES)), p=_TIME_ODDS, size=issues)[issue])
    results = Documents(
        np.full(count, RESULT), issue, quarter, told[issue, quarter], clock, rng.random(count) < _REVISED_WITH_RESULTS
    )
    both = (rng.random(count) < 0.5) & results.revises & (quarter % 4 != 3)
    restated = rng.random(count) < _CORRECTED
    following = np.minimum(np.searchsorted(open_days, results.day) + 1, len(open_days) - 1)
    restated &= (open_days[following] > results.day) & _listed(universe, following, issue)
    parts = [
        results,
        Documents(
            np.full(both.sum(), FORECAST), issue[both], quarter[both] // 4 * 4 + 3,
            results.day[both], clock[both], np.zeros(both.sum(), dtype=bool),
        ),
        Documents(
            np.full(restated.sum(), CORRECTION), issue[restated], quarter[restated], open_days[following][restated],
            np.full(restated.sum(), "15:00:00"), np.zeros(restated.sum(), dtype=bool),
        ),
        _revisions(rng, FORECAST, universe, accounts, linear, open_days, told),
        _revisions(rng, DIVIDEND, universe, accounts, linear, open_days, told),
    ]  # fmt: skip
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(results)}
    return _in_order(Documents(**joined))


def _listed(universe: Universe, place: Ints, issue: Ints) -> NDArray[np.bool_]:
    return (place >= universe.first[issue]) & (place < universe.last[issue])


def _times(rng: np.random.Generator, day: Dates, habit: Ints) -> NDArray[np.str_]:
    """Times of disclosure: each company has a habit and keeps it four times out of five."""
    other = rng.choice(np.arange(len(_TIMES)), p=_TIME_ODDS, size=len(day))
    time = np.array(_TIMES)[np.where(rng.random(len(day)) < 0.8, habit, other)]
    return np.where((day >= CLOSE_CHANGE) & (time == "15:00:00"), "15:30:00", time)


def _revisions(
    rng: np.random.Generator,
    kind: int,
    universe: Universe,
    accounts: Accounts,
    linear: Floats,
    open_days: Dates,
    told: Dates,
) -> Documents:
    """Revisions between results, likelier while the characteristic is far from zero; a few fall on a Saturday."""
    months = np.unique(open_days.astype("datetime64[M]"))
    issues = len(universe.codes)
    month, issue = np.divmod(np.arange(len(months) * issues), issues)
    rate = _REVISIONS_A_MONTH if kind == FORECAST else _DIVIDEND_REVISIONS_A_MONTH
    first = np.searchsorted(open_days, months.astype("datetime64[D]"))
    length = np.diff(np.append(first, len(open_days)))
    place = first[month] + (rng.random(len(month)) * length[month]).astype(np.int64)
    strength = np.abs(linear[np.clip(place - 2, 0, len(linear) - 1), issue])
    chosen = rng.random(len(month)) < rate * (0.4 + 0.75 * strength)
    chosen &= _listed(universe, place, issue) & universe.common[issue]
    place, issue = place[chosen], issue[chosen]
    day = open_days[place]
    friday = day.astype(np.int64) % 7 == 1  # 1970-01-02 was one
    saturday = friday & (rng.random(len(day)) < 0.02) & (day < open_days[-1])
    saturday &= place + 1 < universe.last[issue]
    day = np.where(saturday, day + np.timedelta64(1, "D"), day)
    year_ends = told[:, 3::4]
    quarter = (day[:, None] >= year_ends[issue]).sum(axis=1) * 4 + 3  # the first year whose results are not out
    time = _times(rng, day, rng.choice(np.arange(len(_TIMES)), p=_TIME_ODDS, size=issues)[issue])
    keep = quarter < accounts.quarter_end.shape[1] - 4
    count = int(keep.sum())
    return Documents(
        np.full(count, kind), issue[keep], quarter[keep], day[keep], time[keep], np.full(count, kind == FORECAST)
    )


def _in_order(documents: Documents) -> Documents:
    """By issue, target year, day and time, results first; the first document of a target year states its forecast."""
    order = np.lexsort((documents.kind, documents.time, documents.day, documents.target, documents.issue))
    moved = Documents(**{name: values[order] for name, values in vars(documents).items()})
    moved.revises[starts(moved)] = True
    return moved


def starts(documents: Documents) -> NDArray[np.bool_]:
    """First document of each issue and target year."""
    start = np.ones(len(documents.issue), dtype=bool)
    same = documents.issue[1:] == documents.issue[:-1]
    start[1:] = ~(same & (documents.target[1:] == documents.target[:-1]))
    return start


def document_numbers(documents: Documents) -> NDArray[np.str_]:
    """Unique 14-digit document numbers in order of disclosure; the date in one of twenty is the day before."""
    order = np.lexsort((documents.issue, documents.kind, documents.time, documents.day))
    serial = np.empty(len(order), dtype=np.int64)
    serial[order] = np.arange(len(order))
    received = documents.day - (serial % 20 == 7).astype("timedelta64[D]")
    stamp = np.char.replace(np.datetime_as_string(received).astype(str), "-", "")
    return np.char.add(stamp, np.char.zfill((serial % 1_000_000).astype(str), 6))
