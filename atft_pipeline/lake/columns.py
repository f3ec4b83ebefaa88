"""Columns as a Parquet file holds them: encoded one by one, and put side by side into a file.

A column of a file is its encoded pages, one piece per row group, and a piece does not depend on its neighbours. So
columns are encoded while others are still computed, and a column that is stored already moves to another file as it
is, neither decoded nor compressed again. A file made here is the one that pyarrow would write of the whole table.
"""

from __future__ import annotations

import hashlib
import io
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from atft_pipeline.lake import footer
from atft_pipeline.lake.footer import MAGIC, Struct
from atft_pipeline.lake.seal import filled

ROW_GROUP_ROWS = 262_144


@dataclass(frozen=True)
class Piece:
    """One row group's part of a column: its bytes, what the footer says of them, where that says they begin."""

    rows: int
    data: memoryview
    said: Struct
    """The footer's ColumnChunk."""
    begin: int


@dataclass(frozen=True)
class EncodedColumn:
    """A column ready to be put into a file."""

    name: str
    dtype: str
    """Its Polars type, as a record names it."""
    hash: str
    """Of the values, as `column_hash`."""
    field: pa.Field
    pieces: tuple[Piece, ...]

    @property
    def rows(self) -> int:
        return sum(piece.rows for piece in self.pieces)


def column_hash(column: pl.Series) -> str:
    """SHA-256 (its first half) over validity and values; the type and the name are not part of it."""
    digest = hashlib.sha256()
    if column.null_count():
        digest.update(column.is_null().to_numpy().data)
    if column.dtype == pl.String:
        # Arrow's own buffers; the slot of a null is made empty first, as its bytes are otherwise arbitrary.
        text = column.fill_null("").rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
        for buffer in text.buffers()[1:]:
            digest.update(buffer)
    else:
        values = column.to_physical()
        values = values.cast(pl.UInt8) if values.dtype == pl.Boolean else values
        digest.update(np.ascontiguousarray(values.fill_null(0).to_numpy()).data)
    return digest.hexdigest()[:32]


def encode(column: pl.Series, known_hash: str | None = None) -> EncodedColumn:
    """The column's pages, compressed. One thread's work; others run meanwhile."""
    table = pl.DataFrame([column]).rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    out = pa.BufferOutputStream()
    pq.write_table(
        table,
        out,
        compression="zstd",
        compression_level=1,
        # A dictionary of single-precision values costs three times the encoding and gains nothing.
        use_dictionary=column.dtype != pl.Float32,
        row_group_size=ROW_GROUP_ROWS,
        write_page_checksum=True,
    )
    pieces = _pieces(memoryview(out.getvalue()), {column.name})[column.name]
    return EncodedColumn(
        column.name, str(column.dtype), known_hash or column_hash(column), table.schema.field(0), tuple(pieces)
    )


def stored_columns(path: Path, record: Any, names: Sequence[str]) -> list[EncodedColumn]:
    """Columns of a stored file as they are, on the mapped file. Raises ValueError when its footer cannot be read."""
    with path.open("rb") as stream:
        data = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    schema = pq.read_schema(path)
    pieces = _pieces(data, set(names))
    return [
        EncodedColumn(name, record.columns[name], record.column_hashes[name], schema.field(name), tuple(pieces[name]))
        for name in names
    ]


def write_file(out: BinaryIO, columns: Sequence[EncodedColumn], metadata: Mapping[bytes, bytes]) -> None:
    """A whole Parquet file of the columns in order, with `metadata` in its footer and the seal filled in.

    Raises ValueError when the columns do not have the same rows in each row group.
    """
    heights = {tuple(piece.rows for piece in column.pieces) for column in columns}
    if len(heights) > 1:
        raise ValueError(f"columns with row groups of different heights: {sorted(heights)[:3]}")
    digest = hashlib.sha256()
    place = 0

    def write(data: bytes | memoryview) -> None:
        nonlocal place
        out.write(data)
        digest.update(data)
        place += len(data)

    write(MAGIC)
    groups = []
    for g, rows in enumerate(heights.pop()):
        begin, chunks = place, []
        for piece in (column.pieces[g] for column in columns):
            chunks.append(_moved(piece.said, place - piece.begin))
            write(piece.data)
        groups.append(_row_group(rows, begin, place - begin, chunks))
    fields = _empty_footer([column.field for column in columns], metadata)
    fields[footer.NUM_ROWS] = (footer.I64, columns[0].rows)
    fields[footer.ROW_GROUPS] = (footer.LIST, (footer.STRUCT, groups))
    out.write(filled(footer.write_footer(fields), digest))


def _pieces(data: memoryview, names: set[str]) -> dict[str, list[Piece]]:
    """Column -> its pieces in a whole Parquet file."""
    found: dict[str, list[Piece]] = {name: [] for name in names}
    for group in footer.read_footer(data).fields[footer.ROW_GROUPS][1][1]:
        for chunk in group[footer.COLUMNS][1][1]:
            said = chunk[footer.META_DATA][1]
            name = said[footer.PATH][1][1][0].decode()
            if name in found:
                begin = said[footer.DICTIONARY_PAGE if footer.DICTIONARY_PAGE in said else footer.DATA_PAGE][1]
                end = begin + said[footer.COMPRESSED_SIZE][1]
                found[name].append(Piece(group[footer.GROUP_ROWS][1], data[begin:end], chunk, begin))
    return found


def _moved(chunk: Struct, by: int) -> Struct:
    said = dict(chunk[footer.META_DATA][1])
    for number in (footer.DATA_PAGE, footer.DICTIONARY_PAGE):
        if number in said and said[number][1]:  # 0 where there are no pages
            said[number] = (footer.I64, said[number][1] + by)
    return {**chunk, footer.META_DATA: (footer.STRUCT, said)}


def _row_group(rows: int, begin: int, size: int, chunks: list[Struct]) -> Struct:
    plain = sum(chunk[footer.META_DATA][1][footer.UNCOMPRESSED_SIZE][1] for chunk in chunks)
    return {
        footer.COLUMNS: (footer.LIST, (footer.STRUCT, chunks)),
        footer.TOTAL_BYTES: (footer.I64, plain),
        footer.GROUP_ROWS: (footer.I64, rows),
        footer.FILE_OFFSET: (footer.I64, begin),
        footer.COMPRESSED_BYTES: (footer.I64, size),
    }


def _empty_footer(fields: Sequence[pa.Field], metadata: Mapping[bytes, bytes]) -> Struct:
    """The footer that pyarrow writes for a table of these fields without rows."""
    out = io.BytesIO()
    pq.write_table(pa.schema(fields, metadata=metadata).empty_table(), out, compression="zstd", store_schema=True)
    return footer.read_footer(out.getbuffer()).fields
