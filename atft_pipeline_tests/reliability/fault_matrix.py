"""Every fault of the exchange against every way that the heaviest tables take: what a run makes of it.

`python -m atft_pipeline_tests.reliability.fault_matrix` runs all cells and writes their table into
docs/reliability.md; the test runs the same cells and compares. An outcome is one letter:

- `c`: the run completes; the stored file is byte for byte that of a run without faults.
- `e`: one clear error; what was stored stays byte for byte, nothing partial; the next run without the fault is `c`.
- `r`: the service has rewritten its past (a file, a split announced late): stored is exactly what a new lake reads from
  it now, other days untouched, every change of stored rows in the revisions log; the next night follows it again.
- `s`: a well-formed answer that lacks rows which nothing demands: stored as shown, other days untouched; the next night
  is complete.
- `x`: anything else. There must be none.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import polars as pl

import atft_pipeline
from atft_pipeline.exchange.faults import KINDS
from atft_pipeline.jquants.errors import NOTHING_STORED, ExchangeError
from atft_pipeline.jquants.fetch import ingest_calendar
from atft_pipeline.jquants.ingest import ingest_table
from atft_pipeline.jquants.months import MonthReport
from atft_pipeline.jquants.revisions import read_revisions
from atft_pipeline.jquants.routes import route_of
from atft_pipeline.jquants.table import Table
from atft_pipeline.jquants.tables import TABLES, partition_path
from atft_pipeline.lake.store import read_table
from atft_pipeline_tests.reliability.small_market import SIZE, Service, service

TABLE_NAMES = (
    "master", "bars_daily", "breakdown", "margin_interest", "fin_summary", "options_225",
)  # fmt: skip
COMMAND = "python -m atft_pipeline_tests.reliability.fault_matrix"
DOCUMENT = Path(atft_pipeline.__file__).parent.parent / "docs" / "reliability.md"
BEGIN, END = f"<!-- written by {COMMAND} -->", "<!-- end of the matrix -->"

LETTERS = ("c", "e", "r", "s")

SCOPES = ("passing", "one day", "always")
"""The fault hits one request of a day and goes away; every request of that day; every request of the table."""

SLOW, TIMEOUT = 0.25, 0.06
"""Seconds of the slow reply, and the client's patience with one reply."""


@dataclass(frozen=True)
class Way:
    """How a month is read here: which one, what was stored of it before, and up to which date it is wanted."""

    name: str
    month: str
    held: date
    bulk: bool


BY_DATE = Way("by date", "2024-05", held=date(2024, 5, 7), bulk=False)
BY_BULK = Way("by bulk file", "2024-04", held=date(2024, 4, 19), bulk=True)
WAYS = (BY_DATE, BY_BULK)
EARLIER = {(BY_DATE.name, "margin_interest"): date(2024, 5, 1), (BY_BULK.name, "fin_summary"): date(2024, 4, 5)}
"""May has one weekly balance by its tenth, and April few statements at its end: some must be new."""

ROWS = {
    "400": "", "403": "", "413": "", "429": "", "429 ": "retry_after=1", "500": "", "503": "", "lockout": "",
    "burst": "requests=1", "210": "body=empty", "210 ": "body=data", "slow": f"seconds={SLOW}", "reset": "",
    "truncate": "", "malformed": "", "null": "", "text": "", "array": "", "object": "", "endless": "mode=repeat",
    "endless ": "mode=change", "duplicate": "", "drop_column": "column={column}", "extra_column": "column=Extra",
    "retype": "", "all_null": "", "partial": "share=0.5", "late": "", "split": "code={code}",
    "expired": "", "cut_file": "", "rewrite": "",
}  # fmt: skip
"""Row of the matrix (the kind; blanks tell variants apart) -> its options."""

OF_FILES = ("expired", "cut_file", "rewrite")
OF_THE_SERVICE = tuple(row for row in ROWS if row.strip() not in (
    *OF_FILES, "burst", "array", "endless", "duplicate", "drop_column", "extra_column", "retype", "all_null", "partial",
    "late", "split",
))  # fmt: skip
"""Faults that /bulk/list and /bulk/get can have too."""

REWRITTEN = ("rewrite", "split")
"""Kinds after which another past is the true one."""

OF_ROWS = ("duplicate", "drop_column", "all_null", "partial", "late", *OF_FILES)
"""Faults that one day can have while the others are sound."""

COLUMNS = {
    "master": "S33", "bars_daily": "AdjFactor", "breakdown": "LongBuyVa", "margin_interest": "LongVol",
    "fin_summary": "NP", "options_225": "Settle",
}  # fmt: skip
"""The column that is dropped."""


@dataclass(frozen=True)
class Cell:
    way: Way
    row: str
    table: str
    scope: str


def cells(way: Way, table: str) -> Iterator[Cell]:
    """All cells of one table and way."""
    rows: Iterable[str] = ROWS if way is BY_DATE else (*OF_THE_SERVICE, *OF_FILES)
    for row in rows:
        if way is BY_DATE and row in OF_FILES:
            continue
        if row == "split" and table != "bars_daily":
            continue
        for scope in SCOPES:
            if scope == "one day" and row not in OF_ROWS:
                continue  # a reply that never arrives fails the run on its first day anyway
            yield Cell(way, row, table, scope)


class Bench:
    """One table and way: the lake before the run, and what a run without faults makes of it."""

    def __init__(self, served: Service, lake: Path, way: Way, table: Table) -> None:
        self.served, self.lake, self.way, self.table = served, lake, way, table
        self.folder = lake / "raw" / table.name
        self.path = lake / partition_path(table, way.month)
        self._before = lake.parent / "before" / way.name / table.name
        served.plant()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.held = EARLIER.get((way.name, table.name), way.held)
        list(ingest_table(served.client(), lake, table, [way.month], last_date=self.held, bulk=False))
        shutil.rmtree(self._before, ignore_errors=True)
        shutil.copytree(self.folder, self._before)
        reports = self._run()
        assert {report.route for report in reports} == {"bulk files" if way.bulk else "by date"}
        self._clean = self.path.read_bytes()
        self.rows = read_table(self.path)
        self.day = self._new_day()

    def outcome(self, cell: Cell) -> str:
        """Run the cell; a letter, or `x` with what is wrong."""
        self._restore()
        fault = self.fault(cell)
        self.served.plant(fault)
        timeout = TIMEOUT if cell.row == "slow" else None
        before = _content(self.folder)
        try:
            self._run(timeout)
        except ExchangeError as error:
            wrong = self._error_is_clear(error) or self._changed(before)
            letter = "e"
        else:
            letter, wrong = ("c", "") if self._is_clean(cell) else (self._kind(cell), self._differs_elsewhere(cell))
        if not self.served.faults_met:
            wrong = "the fault met no request"
        if wrong:
            return f"x: {fault}: {wrong}"
        if letter == "c":
            return letter
        self.served.plant()
        try:
            self._run(next_night=letter in ("r", "s"))
        except ExchangeError as error:
            return f"x: {fault}: outcome {letter}, but the run after it fails: {error}"
        if letter == "e" and not self._is_clean(cell):
            return f"x: {fault}: after the error, the next run is not that without faults"
        if not self._facts(read_table(self.path)).equals(self._facts(self.rows)):
            return f"x: {fault}: the next night does not complete it"
        return letter

    def _kind(self, cell: Cell) -> str:
        """`r` when the service has another past now and the stored rows are those that a new lake reads from it."""
        if cell.row.strip() not in REWRITTEN:
            return "s"
        fresh = self.lake.parent / "fresh"
        shutil.rmtree(fresh, ignore_errors=True)
        for needed in ("calendar", "master"):
            shutil.copytree(self.lake / "raw" / needed, fresh / "raw" / needed)
        client, bulk = self.served.client(), self.way.bulk
        list(ingest_table(client, fresh, self.table, [self.way.month], last_date=SIZE.end, bulk=bulk))
        new = self._facts(read_table(fresh / self.path.relative_to(self.lake)))
        return "r" if new.equals(self._facts(read_table(self.path))) else "s"

    def _facts(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Without what the service restates after a split: everything downstream derives that itself."""
        return rows.drop(name for name in route_of(self.table).restated if name in rows.columns)

    def fault(self, cell: Cell) -> str:
        """The fault of a cell as the exchange's switch."""
        kind, options = cell.row.strip(), ROWS[cell.row]
        code = self.rows.filter(pl.col(self.table.date_column) == self.day)["Code"][0]
        options = options.format(column=COLUMNS[self.table.name], code=code)
        on_service = self.way is BY_BULK and cell.row not in OF_FILES
        if cell.row == "rewrite" and self.table.name in ("master", "fin_summary"):
            options = f"column={COLUMNS[self.table.name]}"  # their numbers are text: one must be named
        texts = [kind, "bulk" if on_service else self.table.name, *([options] if options else [])]
        if not on_service and (cell.scope != "always" or kind in ("split", "rewrite")):
            texts.append(f"date={self.day}")
        if cell.scope == "passing" and kind not in ("late", "split", "rewrite"):
            texts.append("times=1")
        return ":".join(texts)

    def _run(self, timeout: float | None = None, next_night: bool = False) -> list[MonthReport]:
        last = SIZE.end + timedelta(days=next_night)
        months = [self.way.month, BY_DATE.month] if next_night and self.way.bulk else [self.way.month]
        client = self.served.client(timeout)
        return list(ingest_table(client, self.lake, self.table, months, last_date=last, bulk=self.way.bulk))

    def _restore(self) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(self._before, self.folder)
        shutil.rmtree(self.lake / "revisions", ignore_errors=True)

    def _new_day(self) -> date:
        """The newest day that was not stored before and has enough rows for half of them to be missing."""
        sizes = self.rows.group_by(self.table.date_column).len().filter(pl.col("len") > 1)
        newest = sizes[self.table.date_column].max()
        assert isinstance(newest, date) and newest > self.held
        return newest

    def _is_clean(self, cell: Cell) -> bool:
        if cell.row == "extra_column":  # raw keeps what the client passes on; the declared columns are as they were
            return read_table(self.path).drop("Extra", strict=False).equals(self.rows)
        return self.path.read_bytes() == self._clean

    def _error_is_clear(self, error: ExchangeError) -> str:
        """What the error's text lacks: endpoint, date or file, remedy, and that nothing was stored."""
        text = str(error)
        names = rf"({re.escape(self.table.path)}|/bulk/(list|get)) \S*(\d{{4}}-?\d\d|{re.escape(self.table.path)})"
        if not re.match(names, text):
            return f"the error names no endpoint with its date or file: {text}"
        if not re.search(rf": .+; .+; {NOTHING_STORED}$", text):
            return f"the error has no remedy: {text}"
        return ""

    def _changed(self, before: Mapping[str, bytes]) -> str:
        after = _content(self.folder)
        return (
            ""
            if after == before
            else f"after an error {sorted(set(after.items()) ^ set(before.items()))[0][0]} differs"
        )

    def _differs_elsewhere(self, cell: Cell) -> str:
        """Whether a run that stored something else touched days that the fault does not concern, or kept it quiet."""
        stored, column = read_table(self.path), self.table.date_column
        others = pl.col(column) != self.day
        if cell.scope != "always" and not self._facts(stored.filter(others)).equals(
            self._facts(self.rows.filter(others))
        ):
            return "days that the fault does not concern differ"
        held = read_table(self._before / self.path.name)
        again = stored.filter(pl.col(column) <= self.held)
        if not again.equals(held) and not read_revisions(self.lake, self.table.name):
            return "stored rows changed and no revision was logged"
        return ""


def _content(folder: Path) -> dict[str, bytes]:
    """Every file of a table but the staged days and locks."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "_staging" not in path.parts and not path.name.endswith(".lock")
    }


@contextmanager
def prepared(folder: Path) -> Iterator[tuple[Service, Path]]:
    """The exchange over the small market, and a lake with its calendar and its lists of issues."""
    lake = folder / "lake"
    with service(folder) as served:
        client = served.client()
        ingest_calendar(client, lake, SIZE.start, SIZE.end + timedelta(days=120))
        list(ingest_table(client, lake, TABLES["master"], ["2024-04", "2024-05"], last_date=SIZE.end, bulk=False))
        yield served, lake


def run_column(served: Service, lake: Path, way: Way, table: str) -> dict[str, list[str]]:
    """Outcomes of one table and way: row -> a letter per scope."""
    bench = Bench(served, lake, way, TABLES[table])
    found: dict[str, list[str]] = {}
    for cell in cells(way, table):
        found.setdefault(cell.row, []).append(bench.outcome(cell))
    return found


Matrix = Mapping[tuple[str, str], Mapping[str, list[str]]]
"""(way, table) -> its outcomes."""


def render(matrix: Matrix) -> str:
    """The matrix as Markdown, with counts."""
    lines = []
    for way in WAYS:
        columns = {table: matrix[way.name, table] for table in TABLE_NAMES}
        lines += ["", f"**{way.name[0].upper()}{way.name[1:]}**", ""]
        lines += [f"| fault | {' | '.join(TABLE_NAMES)} |", "|---" * (len(TABLE_NAMES) + 1) + "|"]
        for row in (row for row in ROWS if any(row in column for column in columns.values())):
            shown = [" ".join(columns[table].get(row, ["-"])) for table in TABLE_NAMES]
            lines.append(f"| {label(row)} | {' | '.join(shown)} |")
    return "\n".join([counted(matrix), *lines])


def label(row: str) -> str:
    """`endless mode=change`: the row's name in the document."""
    options = "" if row in ("slow", "drop_column", "extra_column", "split", "partial", "burst") else ROWS[row]
    return f"`{row.strip()}{' ' + options if options else ''}`"


def counted(matrix: Matrix) -> str:
    """One line with the number of cells of each outcome."""
    letters = Counter(letter for column in matrix.values() for row in column.values() for letter in row)
    strange = sum(count for letter, count in letters.items() if letter not in LETTERS)
    return (
        f"{sum(letters.values())} cells: {letters['c']} complete and equal (`c`), {letters['e']} one clear error with "
        f"the old content in place (`e`), {letters['r']} the service's new past as a new lake reads it (`r`), "
        f"{letters['s']} stored as shown and completed by the next night (`s`), {strange} otherwise."
    )


def documented(text: str) -> dict[tuple[str, str], dict[str, list[str]]]:
    """The matrix as the document has it."""
    rows = {label(row): row for row in ROWS}
    found: dict[tuple[str, str], dict[str, list[str]]] = {}
    way = ""
    for line in text.partition(BEGIN)[2].partition(END)[0].splitlines():
        if line.startswith("**"):
            way = line.strip("*").lower()
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] in rows:
            for table, shown in zip(TABLE_NAMES, cells[1:], strict=True):
                if shown != "-":
                    found.setdefault((way, table), {})[rows[cells[0]]] = shown.split()
    return found


def main() -> int:
    """Run every cell and write the document; returns 1 where a cell is neither complete nor a clear error."""
    matrix: dict[tuple[str, str], dict[str, list[str]]] = {}
    with tempfile.TemporaryDirectory() as folder, prepared(Path(folder)) as (served, lake):
        for way in WAYS:
            for table in TABLE_NAMES:
                matrix[way.name, table] = run_column(served, lake, way, table)
    strange = [text for column in matrix.values() for row in column.values() for text in row if text[0] == "x"]
    print("\n".join([*strange, counted(matrix)]))
    text = DOCUMENT.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    DOCUMENT.write_text(f"{head}{BEGIN}\n{render(matrix)}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    return 1 if strange else 0


assert {row.strip() for row in ROWS} == set(KINDS), "every kind of fault has a row in the matrix"

if __name__ == "__main__":
    sys.exit(main())
