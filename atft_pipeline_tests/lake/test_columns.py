"""A file put together from encoded columns is the one that pyarrow writes, and a stored column moves unchanged."""

from __future__ import annotations

import io
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from atft_pipeline.lake import columns, footer, store
from atft_pipeline.lake.seal import BLANK, SEAL_KEY, is_intact


def table(rows: int) -> pl.DataFrame:
    """Text, dates, whole numbers, truth and single precision, each but the first two with nulls."""
    number = np.arange(rows)
    single = np.where(number % 5, np.sin(number), np.nan).astype(np.float32)
    return pl.DataFrame(
        {
            "Code": [f"{i % 7:05d}" for i in range(rows)],
            "Date": [date(2024, 1, 1) + timedelta(days=i) for i in range(rows)],
            "small": pl.Series(number % 11, dtype=pl.Int8).set(pl.Series(number % 4 == 1), None),
            "double": pl.Series(np.cos(number)).set(pl.Series(number % 3 == 1), None),
            "flag": pl.Series(number % 2 == 0),
            "single": pl.Series(single, nan_to_null=True),
            "text": [None if i % 9 == 0 else f"é{i % 13}" for i in range(rows)],
        }
    )


def as_pyarrow_writes(frame: pl.DataFrame, metadata: dict[bytes, bytes]) -> bytes:
    out = io.BytesIO()
    pq.write_table(
        frame.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest()).replace_schema_metadata(metadata),
        out,
        compression="zstd",
        compression_level=1,
        use_dictionary=[name for name, dtype in frame.schema.items() if dtype != pl.Float32],
        row_group_size=columns.ROW_GROUP_ROWS,
        write_page_checksum=True,
        store_schema=True,
    )
    return out.getvalue()


@pytest.mark.parametrize("rows", [0, 1, 1000])
def test_a_file_of_columns_is_the_one_that_pyarrow_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(columns, "ROW_GROUP_ROWS", 300)
    path = tmp_path / "a.parquet"
    frame = table(rows)
    store.write_table(path, frame, keys=["Date"])
    assert pq.read_metadata(path).num_row_groups == max(1, -(-rows // 300)) and is_intact(path)
    metadata = {k: v for k, v in pq.read_schema(path).metadata.items() if k != SEAL_KEY}
    seal = pq.read_metadata(path).metadata[SEAL_KEY]
    assert path.read_bytes().replace(seal, BLANK) == as_pyarrow_writes(frame, {**metadata, SEAL_KEY: BLANK})


def test_a_stored_column_moves_to_another_file_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "ROW_GROUP_ROWS", 300)
    frame = table(1000)
    order = ["Code", "Date", "text", "single", "small", "flag", "double"]
    for name, some in {"left": ["Code", "Date", "small", "single"], "right": ["text", "flag", "double"]}.items():
        store.write_table(tmp_path / f"{name}.parquet", frame.select(some), keys=())
    parts = store.read_columns(tmp_path / "left.parquet", ["Code", "Date", "small", "single"])
    parts += store.read_columns(tmp_path / "right.parquet", ["double", "flag", "text"])
    by_name = {part.name: part for part in parts}
    record = store.write_columns(tmp_path / "moved.parquet", [by_name[name] for name in order], keys=["Code", "Date"])
    assert store.write_table(tmp_path / "whole.parquet", frame.select(order), keys=["Code", "Date"]) == record
    assert (tmp_path / "moved.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert store.verify_table(tmp_path / "moved.parquet") == record
    assert store.read_table(tmp_path / "moved.parquet").equals(frame.select(order))


def test_columns_that_do_not_fit_side_by_side_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    store.write_table(path, table(5), keys=["Date"])
    before = path.read_bytes()
    short = [columns.encode(table(5)["Date"]), columns.encode(table(4)["single"])]
    with pytest.raises(store.LakeError, match=r"a\.parquet: columns with row groups of different heights"):
        store.write_columns(path, short, keys=["Date"])
    assert path.read_bytes() == before


def test_columns_of_a_damaged_or_older_file_are_not_moved(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    store.write_table(path, table(50), keys=["Date"])
    assert store.read_columns(path, ["single"])[0].rows == 50
    with pytest.raises(store.LakeError, match=r"a\.parquet: lacks nope"):
        store.read_columns(path, ["nope"])
    damaged = bytearray(path.read_bytes())
    damaged[200] ^= 1
    path.write_bytes(bytes(damaged))
    with pytest.raises(store.LakeError, match=r"a\.parquet: damaged"):
        store.read_columns(path, ["single"])


def test_a_footer_survives_reading_and_writing_and_a_cut_one_is_named() -> None:
    whole = as_pyarrow_writes(table(40), {b"key": b"x" * 300})
    fields, begin = footer.read_footer(whole)
    assert footer.write_footer(fields) == whole[begin:]
    for cut in (whole[:-1], whole[-6:], b""):
        with pytest.raises(ValueError, match="Parquet|footer"):
            footer.read_footer(cut)


@pytest.mark.parametrize("change", [{"single": pl.lit(1.0, pl.Float32)}, {"single": pl.col("single").fill_null(0.0)}])
def test_a_column_hash_sees_values_and_nulls(change: dict[str, pl.Expr]) -> None:
    frame = table(50)
    changed = frame.with_columns(**change)
    for name in frame.columns:
        equal = columns.column_hash(frame[name]) == columns.column_hash(changed[name])
        assert equal == (name not in change), name
