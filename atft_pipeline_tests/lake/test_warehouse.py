"""Every stored table can be asked in SQL under a predictable name, while runs go on and wherever the lake lies."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import duckdb
import polars as pl
import pytest

import atft_pipeline
from atft_pipeline.lake.__main__ import main
from atft_pipeline.lake.manifest import write_fetched
from atft_pipeline.lake.store import LakeError, write_json, write_table
from atft_pipeline.lake.warehouse import build_warehouse, open_warehouse
from atft_pipeline_tests.small_lake import make_market, store_dataset

RUN = "0123456789ab"
DAY = date(2024, 6, 28)
DOCS = Path(atft_pipeline.__file__).parents[1] / "docs" / "warehouse.md"
ROWS = pl.DataFrame({"Code": ["13010"], "C": [1.5]})


def _bars(lake: Path, month: str, rows: pl.DataFrame = ROWS) -> None:
    write_table(lake / "raw" / "bars_daily" / f"{month}.parquet", rows, keys=["Code"])


def _count(lake: Path, sql: str = "select count(*), sum(C) from raw_bars_daily") -> object:
    with open_warehouse(lake) as connection:
        return connection.execute(sql).fetchone()


def test_each_table_has_a_current_read_only_view(tmp_path: Path) -> None:
    _bars(tmp_path, "2024-01")
    write_table(tmp_path / "dataset" / "2024.parquet", ROWS, keys=["Code"])
    _, names = build_warehouse(tmp_path)
    assert names == ["raw_bars_daily", "dataset", "fetches", "columns", "runs", "verdicts", "promotions"]
    _bars(tmp_path, "2024-02")
    assert _count(tmp_path) == (2, 3.0)
    with open_warehouse(tmp_path) as connection, pytest.raises(duckdb.Error):
        connection.execute("create table t (x int)")


def test_months_may_have_different_columns_in_any_order(tmp_path: Path) -> None:
    _bars(tmp_path, "2024-01")
    _bars(tmp_path, "2024-02", pl.DataFrame({"C": [2.0], "MO": [1.0], "Code": ["72030"]}))
    build_warehouse(tmp_path)
    assert _count(tmp_path, "select count(*), sum(C), count(MO), max(Code) from raw_bars_daily") == (2, 3.5, 1, "72030")


def test_staged_and_temporary_files_are_no_rows(tmp_path: Path) -> None:
    _bars(tmp_path, "2024-01")
    staged = tmp_path / "raw" / "bars_daily" / "_staging" / "2024-02" / "a.parquet"
    write_table(staged, ROWS, keys=["Code"])
    (staged.parents[2] / ".2024-02.parquet.1.x.part").write_bytes(b"half")
    build_warehouse(tmp_path)
    assert _count(tmp_path) == (1, 1.5)


def test_a_reader_keeps_it_open_while_it_is_rebuilt(tmp_path: Path) -> None:
    """The reader is another process, as people's are: it holds the file, reads before and after, and opens anew."""
    _bars(tmp_path, "2024-01")
    build_warehouse(tmp_path)
    script = (
        "import sys, pathlib\nfrom atft_pipeline.lake.warehouse import open_warehouse\n"
        "lake, ask = pathlib.Path(sys.argv[1]), 'select count(*) from raw_bars_daily'\n"
        "one = open_warehouse(lake)\nprint(one.execute(ask).fetchone()[0], flush=True)\ninput()\n"
        "print(one.execute(ask).fetchone()[0], 'topix' in str(one.execute('show tables').fetchall()))\n"
        "one.close()\ntwo = open_warehouse(lake)\nprint('topix' in str(two.execute('show tables').fetchall()))\n"
    )
    reader = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert reader.stdout is not None and reader.stdout.readline() == "1\n"
    _bars(tmp_path, "2024-02")
    write_table(tmp_path / "raw" / "topix" / "2024-01.parquet", ROWS, keys=["Code"])
    build_warehouse(tmp_path)
    said, _ = reader.communicate("\n")
    assert reader.returncode == 0 and said.splitlines() == ["2 False", "True"]


def test_a_failed_rebuild_leaves_the_old_one(tmp_path: Path) -> None:
    _bars(tmp_path, "2024-01")
    path, _ = build_warehouse(tmp_path)
    before = path.read_bytes()
    (tmp_path / "raw" / "topix").mkdir()
    (tmp_path / "raw" / "topix" / "2024-01.parquet").write_bytes(b"no parquet")
    with pytest.raises(duckdb.Error):
        build_warehouse(tmp_path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.glob("*duckdb*")] == ["warehouse.duckdb"]
    assert not list(tmp_path.glob(".warehouse*"))


def test_it_survives_moving_the_lake(tmp_path: Path) -> None:
    _bars(tmp_path / "here's one", "2024-01")
    build_warehouse(tmp_path / "here's one")
    shutil.move(tmp_path / "here's one", tmp_path / "there")
    assert _count(tmp_path / "there") == (1, 1.5)


def test_no_warehouse_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(LakeError, match="materialise warehouse first"):
        open_warehouse(tmp_path)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small lake with what the documented queries ask for."""
    lake = tmp_path_factory.mktemp("warehouse")
    store_dataset(lake, make_market(dates=60, stocks=20))
    bars = pl.DataFrame({"Date": [DAY] * 2, "Code": ["13010", "130A0"], "C": [10.0, None], "Va": [5e8, None]})
    names = bars.select("Date", "Code", CoName=pl.lit("A"))
    for table, rows in {"bars_daily": bars, "master": names}.items():
        path = lake / "raw" / table / "2024-06.parquet"
        write_fetched(path, rows, keys=["Date", "Code"], source={}, requests=3)
    scores = pl.DataFrame({"date": [DAY] * 2, "code": ["13010", "130A0"], "horizon": [5, 5], "score": [0.1, 0.3]})
    write_table(lake / "predictions" / f"{DAY}.parquet", scores.with_columns(run_id=pl.lit(RUN)), keys=["code"])
    daily = {"model": ["model"] * 3, "measure": ["rank_ic"] * 3, "part": ["test"] * 3, "delay": [1] * 3}
    daily |= {"horizon": [1] * 3, "date": [date(2024, 6, n) for n in (3, 4, 5)], "value": [0.01, 0.03, 0.02]}
    for run, shift in ((RUN, 0.0), ("ba9876543210", 0.05)):
        frame = pl.DataFrame(daily).with_columns(value=pl.col("value") + shift)
        write_table(lake / "evaluation" / run / "daily.parquet", frame, keys=["date"])
        write_json(lake / "runs" / run / "status.json", {"state": "complete"})
        write_json(lake / "runs" / run / "metrics_summary.json", {"RankIC": 0.02 + shift, "phase": 3, "preset": "demo"})
    rule = {"passed": False, "got": 0.01, "want": 0.02, "message": "RankIC +0.01"}
    write_json(lake / "evaluation" / RUN / "verdict.json", {"passed": False, "rules": {"rank_ic": rule}})
    (lake / "runs" / "last").symlink_to(RUN)
    build_warehouse(lake)
    return lake


QUERIES = re.findall(r"```sql\n(.*?)```", DOCS.read_text(), re.S)


def test_there_are_five_documented_queries() -> None:
    assert len(QUERIES) == 5


@pytest.mark.parametrize("query", QUERIES, ids=range(len(QUERIES)))
def test_documented_queries_run_and_find_rows(lake: Path, query: str) -> None:
    with open_warehouse(lake) as connection:
        assert connection.execute(query).fetchall()


def test_the_documented_answers_are_right(lake: Path) -> None:
    with open_warehouse(lake) as connection:
        answers = [connection.execute(query).fetchall() for query in QUERIES]
    assert answers[0][0] == (DAY, "13010", "A", 10.0, 500.0)
    assert [(row[0], row[4], row[5]) for row in answers[1]] == [(RUN, 0.02, 0.0058), ("ba9876543210", 0.07, 0.0058)]
    assert [row[0] for row in answers[2]] == list(range(1, 11))
    assert [row[1] for row in answers[3]] == ["130A0", "13010"]
    assert [(row[0], row[1], row[2], row[3]) for row in answers[4]] == [("bars_daily", 1, 2, 3), ("master", 1, 2, 3)]


def test_runs_and_verdicts_are_tables(lake: Path) -> None:
    assert _count(lake, f"select RankIC, phase, state, passed from runs where run_id = '{RUN}'") == (
        0.02, 3, "complete", False,
    )  # fmt: skip
    assert _count(lake, "select count(*), count(passed) from runs") == (2, 1)
    assert _count(lake, "select run_id, rule, got, want from verdicts") == (RUN, "rank_ic", 0.01, 0.02)
    assert _count(lake, "select dtype, role, \"group\" from columns where name = 'ret_5d'") == ("f32", "feature", "ret")


def test_promotions_are_a_table(lake: Path) -> None:
    entry = {"run_id": RUN, "at": "2024-06-28T20:00:00+00:00", "reason": "better", "before": None}
    history = [{**entry, "comparison": None}, {**entry, "comparison": {"mean": 0.01, "low": 0.002, "n_dates": 90}}]
    write_json(lake / "champion" / "champion.json", {"run_id": RUN, "history": history})
    build_warehouse(lake)
    assert _count(lake, "select count(*), max(difference), max(low), max(n_dates) from promotions") == (
        2, 0.01, 0.002, 90,
    )  # fmt: skip


def test_the_documented_names_exist(lake: Path) -> None:
    told = set(re.findall(r"`([a-z_]+)`", DOCS.read_text().split("## Five questions")[0].split("| name |")[1]))
    with open_warehouse(lake) as connection:
        found = {row[0] for row in connection.execute("show tables").fetchall()}
    missing = told - found - {"code", "date", "validation_predictions"}  # this small lake has no validation history
    assert missing == set()


def test_the_command_answers_and_refuses_to_write(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask = ["query", "--lake", str(lake), "--csv"]
    assert main([*ask, "select run_id from runs order by 1 limit 1"]) == 0
    assert capsys.readouterr().out == f"run_id\n{RUN}\n"
    assert main([*ask, "drop table runs"]) == 1
    assert "read-only" in capsys.readouterr().err


def test_as_many_rules_as_columns_are_still_rows(lake: Path) -> None:
    """Six rules of six columns: a square must not be read the other way round."""
    run = "c0ffee012345"
    rules = {f"rule_{n}": {"passed": True, "got": n / 10, "want": 0.0, "message": "fine"} for n in range(6)}
    write_json(lake / "evaluation" / run / "verdict.json", {"passed": True, "rules": rules})
    write_json(lake / "evaluation" / RUN / "verdict.json", {"passed": True, "rules": {}})
    build_warehouse(lake)
    with open_warehouse(lake) as connection:
        found = connection.execute(f"select rule, got from verdicts where run_id = '{run}' order by rule").fetchall()
    assert found == [(f"rule_{n}", n / 10) for n in range(6)]
