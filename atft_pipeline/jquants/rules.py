"""What a well-formed answer must also contain: the right dates, every business day, (almost) every listed code.

The client returns an empty frame for a holiday, for an unpublished day and for a broken answer alike; the calendar
and the list of issues tell them apart. Each rule raises `IncompleteError` with the numbers and the remedy.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import polars as pl

from atft_pipeline.jquants.errors import NOTHING_STORED, IncompleteError
from atft_pipeline.jquants.table import Table
from atft_pipeline.jquants.tables import CALENDAR, OUTAGE_DAYS
from atft_pipeline.jquants.units import Unit

MIN_DAY_SHARE = 0.8
"""A day of a dense table with fewer rows than this share of the month's median day lost rows on the way."""

_WAIT = (
    "if the day is recent it may not be fully published: run the same command again later, or set ATFT_END to the "
    "previous trading day"
)

_TAKEN_BACK = (
    "run the same command again later; if the service has really taken them back, read the month again (refetch), "
    "which accepts it"
)


def incomplete(table: Table, request: str, what: str, remedy: str = _WAIT) -> IncompleteError:
    """The error for an answer that lacks rows."""
    return IncompleteError(
        f"{table.path} {request}: {what}; {remedy}; {NOTHING_STORED}",
        endpoint=table.path,
        request=request,
        status=200,
    )


def require_unit(
    table: Table,
    unit: Unit,
    frame: pl.DataFrame,
    due: Sequence[date],
    listed: pl.DataFrame | None = None,
) -> None:
    """Raise unless `frame` is a whole answer for `unit`: its dates only, every day that is `due`, the listed codes.

    `listed`: Date and Code of the issues that must have a row (the table's `coverage` of them).
    """
    days = set(frame[table.date_column].unique())
    foreign = sorted(day for day in days if not unit.covers(day))
    if foreign:
        raise incomplete(table, unit.text, f"the answer holds rows of {foreign[0]}")
    require_values(table, frame)
    absent = sorted(day for day in set(due) - days if unit.covers(day) and day not in OUTAGE_DAYS)
    if absent:
        raise incomplete(table, unit.text, f"no rows for business day {', '.join(map(str, absent[:5]))}")
    if listed is None:
        return
    wanted = listed.filter(pl.col("Date").is_in(list(days)))
    if wanted.equals(frame.select(pl.col(table.date_column).alias("Date"), "Code")):  # the usual case, without a join
        return
    found = frame.select(pl.col(table.date_column).alias("Date"), "Code", found=pl.lit(True))
    joined = wanted.join(found, on=["Date", "Code"], how="left")
    shares = joined.group_by("Date").agg(pl.len(), got=pl.col("found").sum())
    poor = shares.filter(pl.col("got") < table.coverage * pl.col("len")).sort("Date")
    for day, codes, got in poor.head(1).iter_rows():
        text = unit.text if unit.first == unit.last else f"date={day}"
        raise incomplete(table, text, f"{got} of {codes} listed codes have a row (want {table.coverage:.0%})")


def require_values(table: Table, frame: pl.DataFrame) -> None:
    """Raise when a day has rows but not one value beside their keys (or in `given`): no real day looks like that.

    (Bars of 2020-10-01, when the exchange could not open, still have their adjustment factors.)
    """
    values = table.given or [name for name in table.schema if name not in table.keys]
    if not values or not frame.height:
        return
    given = frame.select(table.date_column, given=pl.any_horizontal(pl.col(values).is_not_null()))
    empty = given.group_by(table.date_column).agg(pl.col("given").any(), pl.len()).filter(~pl.col("given"))
    for day, _, rows in empty.sort(table.date_column).head(1).iter_rows():
        raise incomplete(table, f"date={day}", f"every value of its {rows} rows is null")


def require_kept(table: Table, old: pl.DataFrame, new: pl.DataFrame) -> None:
    """Raise when a later reading (`new`) of stored days (`old`) lacks many of a day's rows: they were lost on the way.

    The service corrects rows and adds some; that it takes back a fifth of a day is far less likely than a lost page.
    """
    lost = old.join(new, on=table.keys, how="anti").group_by(table.date_column).len("lost")
    sizes = old.group_by(table.date_column).len().join(lost, on=table.date_column)
    poor = sizes.filter(pl.col("lost") > (1 - MIN_DAY_SHARE) * pl.col("len")).sort(table.date_column)
    for day, rows, gone in poor.head(1).iter_rows():
        raise incomplete(
            table,
            f"date={day}",
            f"{gone} of {rows} stored rows are missing from the answer",
            _TAKEN_BACK,
        )


def thin_days(table: Table, frame: pl.DataFrame) -> list[date]:
    """Days of a dense daily table with far fewer rows than the month's median day."""
    if not (table.dense and table.even) or table.unit != "day" or not frame.height:
        return []
    sizes = frame.group_by(table.date_column).len()
    typical = sizes["len"].median()
    thin = sizes.filter(pl.col("len") < MIN_DAY_SHARE * pl.lit(typical))
    return sorted(day for day in thin[table.date_column] if day not in OUTAGE_DAYS)


def require_even_days(table: Table, month: str, frame: pl.DataFrame) -> None:
    """Raise when a day of the month is thin (see `thin_days`)."""
    thin = thin_days(table, frame)
    if thin:
        rows = frame.filter(pl.col(table.date_column) == thin[0]).height
        raise incomplete(
            table, f"date={thin[0]}", f"{rows} rows, less than {MIN_DAY_SHARE:.0%} of the median day of {month}"
        )


def require_standing(table: Table, frame: pl.DataFrame, before: pl.DataFrame | None = None) -> None:
    """Raise when a day lacks many of the contracts that the trading day before it had and that trade on.

    `before`: the newest day stored before `frame`, with Date, Code and LTD at least. A contract stays listed up to its
    last trading day, so an expiry, after which a day has far fewer rows, is not mistaken for a loss.
    """
    if not table.standing or not frame.height:
        return
    columns = [table.date_column, "Code", "LTD"]
    rows = pl.concat([part.select(columns) for part in (before, frame) if part is not None]).unique()
    days = rows[table.date_column].unique().sort()
    following = pl.DataFrame({table.date_column: days[:-1], "next": days[1:]})
    standing = rows.join(following, on=table.date_column).filter(pl.col("LTD") >= pl.col("next"))
    there = rows.select(pl.col(table.date_column).alias("next"), "Code", found=pl.lit(1))
    joined = standing.join(there, on=["next", "Code"], how="left")
    kept = joined.group_by("next").agg(pl.len(), got=pl.col("found").is_not_null().sum())
    poor = kept.filter(pl.col("got") < MIN_DAY_SHARE * pl.col("len")).sort("next")
    for day, contracts, got in poor.head(1).iter_rows():
        what = f"{got} of {contracts} contracts that were there a trading day before and have not expired"
        raise incomplete(table, f"date={day}", f"{what} (want {MIN_DAY_SHARE:.0%})", _TAKEN_BACK)


def require_calendar(frame: pl.DataFrame, start: date, end: date) -> tuple[date, date]:
    """First and last day that a calendar answer vouches for; raises when a day is missing in between.

    The market may begin inside the month of `start`: then nothing exists before, and the answer vouches for `start` on.
    """
    request = f"from={start} to={end}"
    remedy = "set ATFT_START to a date that the plan covers, or run the same command again"
    if not frame.height:
        raise incomplete(CALENDAR, request, "no rows", remedy)
    days = frame["Date"]
    first, last = days[0], days[-1]
    begins_in_month = start <= first and (first.year, first.month) == (start.year, start.month)
    if not begins_in_month or frame.height != (last - first).days + 1:
        raise incomplete(CALENDAR, request, f"{frame.height} days between {first} and {last}", remedy)
    odd = frame.filter(~pl.col("HolDiv").is_in(["0", "1", "2", "3"]))
    if odd.height:
        raise incomplete(CALENDAR, request, f"HolDiv {odd['HolDiv'][0]!r} on {odd['Date'][0]}", remedy)
    return start, last
