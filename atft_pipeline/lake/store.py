"""Atomic, verified files. Every file that the project stores is written and read here.

A Parquet file carries its own record (rows, keys, content hash, source) and a seal over all of its bytes in its
footer, so data and record become visible together in one rename: there is no moment at which one exists without the
other. Nothing in a file depends on when it was written, so the same content gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from atft_pipeline.lake.columns import EncodedColumn, column_hash, encode, stored_columns, write_file
from atft_pipeline.lake.seal import BLANK, SEAL_KEY, is_intact
from atft_pipeline.verdict import ContractBroken

RECORD_KEY = b"atft_pipeline.record"

_PARSING = Lock()
"""numpy parses an array's header as Python source, which two threads cannot do at once in CPython 3.11 (gh-106905)."""


class LakeError(Exception):
    """A stored file is missing, damaged or not ours; the text names the file and the remedy."""


@dataclass(frozen=True)
class Record:
    """What a stored table says of itself. `columns` maps each name to its Polars type, in order."""

    rows: int
    columns: dict[str, str]
    keys: tuple[str, ...]
    content_hash: str
    source: dict[str, str]
    column_hashes: dict[str, str] = field(default_factory=dict)
    """Hash of each column's values; the content hash is made of them."""


def content_hash(frame: pl.DataFrame) -> str:
    """SHA-256 over names, types, validity and values; equal content gives an equal hash."""
    return _content_hash(_schema(frame), [column_hash(column) for column in frame.iter_columns()])


def _schema(frame: pl.DataFrame) -> dict[str, str]:
    return {name: str(dtype) for name, dtype in frame.schema.items()}


def _content_hash(schema: Mapping[str, str], hashes: Iterable[str]) -> str:
    return hashlib.sha256("".join([json.dumps(schema), *hashes]).encode()).hexdigest()


def write_table(
    path: Path,
    frame: pl.DataFrame,
    *,
    keys: Sequence[str],
    source: Mapping[str, str] | None = None,
    before_rename: Callable[[Record], None] | None = None,
) -> Record:
    """Store `frame` at `path`, whole or not at all, in the row order given.

    `before_rename` is called with the record when the file is finished but not yet visible.
    Raises `ContractBroken` when a key column is missing, null or not unique; nothing is written then.
    """
    _require_keys(path, frame, keys)
    columns = [encode(column) for column in frame.iter_columns()]
    return write_columns(path, columns, keys=keys, source=source, before_rename=before_rename)


def write_columns(
    path: Path,
    columns: Sequence[EncodedColumn],
    *,
    keys: Sequence[str],
    source: Mapping[str, str] | None = None,
    before_rename: Callable[[Record], None] | None = None,
) -> Record:
    """Store encoded columns of equal height side by side at `path`, as `write_table` does their frame.

    The caller vouches for the keys. Raises `LakeError` when the columns' rows are grouped differently.
    """
    record = _record(columns, keys, source)
    with replacing(path) as part:
        try:
            with part.open("wb") as out:
                write_file(out, columns, {RECORD_KEY: json.dumps(asdict(record)).encode(), SEAL_KEY: BLANK})
        except ValueError as error:
            raise LakeError(f"{path}: {error}; rebuild the files that the columns come from") from error
        if before_rename:
            before_rename(record)
    return record


def _record(columns: Sequence[EncodedColumn], keys: Sequence[str], source: Mapping[str, str] | None) -> Record:
    schema = {column.name: column.dtype for column in columns}
    return Record(
        rows=columns[0].rows if columns else 0,
        columns=schema,
        keys=tuple(keys),
        content_hash=_content_hash(schema, [column.hash for column in columns]),
        source=dict(sorted((source or {}).items())),
        column_hashes={column.name: column.hash for column in columns},
    )


def read_columns(path: Path, names: Sequence[str]) -> list[EncodedColumn]:
    """Stored columns as they are in the file, after its seal was found sound. Raises `LakeError` as `read_table`."""
    record = read_record(path)
    lost = [name for name in names if name not in record.column_hashes]
    if lost:
        raise LakeError(f"{path}: lacks {', '.join(lost[:8])}, or an older version wrote it; rebuild this file")
    stat = path.stat()
    if not _sealed(path, stat.st_ino, stat.st_size, stat.st_mtime_ns):
        raise LakeError(f"{path}: damaged (no sound seal); rebuild this file")
    return stored_columns(path, record, names)


def read_table(path: Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """The stored rows, verified. Raises `LakeError` if the file is missing, damaged or foreign.

    A file's seal is compared once in a process, which costs a tenth of its page checksums; the checksums serve a file
    whose seal is not sound.
    """
    read_record(path)
    try:
        stat = path.stat()
        checked = not _sealed(path, stat.st_ino, stat.st_size, stat.st_mtime_ns)
        table = pq.read_table(path, columns=list(columns) if columns else None, page_checksum_verification=checked)
    except (OSError, pa.ArrowException) as error:
        raise LakeError(f"{path}: damaged ({error}); rebuild this file") from error
    return pl.DataFrame(pl.from_arrow(table))


@lru_cache(maxsize=4096)
def _sealed(path: Path, _inode: int, _size: int, _changed_ns: int) -> bool:
    """Whether the file, as it is now, has a sound seal: a file that is replaced or rewritten is looked at again."""
    return is_intact(path)


def read_record(path: Path) -> Record:
    """The record in the file's footer, without reading any rows. Raises `LakeError` as `read_table` does."""
    try:
        metadata = pq.read_schema(path).metadata or {}
    except FileNotFoundError:
        raise LakeError(f"{path}: missing; build the asset that writes it first") from None
    except (OSError, pa.ArrowException) as error:
        raise LakeError(f"{path}: damaged ({error}); rebuild this file") from error
    if RECORD_KEY not in metadata:
        raise LakeError(f"{path}: not written by this project (no record in its footer); move it away and rebuild")
    try:
        fields = json.loads(metadata[RECORD_KEY])
        return Record(**{**fields, "keys": tuple(fields["keys"])})
    except (ValueError, TypeError, KeyError) as error:
        raise LakeError(f"{path}: damaged record ({error}); rebuild this file") from error


def is_stored(path: Path) -> bool:
    """Whether a table of ours is at `path` (a damaged or foreign file raises: it must not pass for an absent one)."""
    return path.exists() and read_record(path) is not None


def verify_table(path: Path) -> Record:
    """Re-read every byte and every value and compare with seal and record. Raises `LakeError` naming the file."""
    if path.exists() and not is_intact(path):
        raise LakeError(f"{path}: no sound seal: a byte changed, or an older version wrote it; rebuild this file")
    record = read_record(path)
    frame = read_table(path)
    if frame.height != record.rows or content_hash(frame) != record.content_hash:
        raise LakeError(f"{path}: content does not match its record; rebuild this file")
    return record


def write_table_if_changed(
    path: Path, frame: pl.DataFrame, *, keys: Sequence[str], source: Mapping[str, str] | None = None
) -> tuple[Record, bool]:
    """Like `write_table`, but an equal stored file is left alone. Returns the record and whether it was written."""
    hashes = [column_hash(column) for column in frame.iter_columns()]
    old = _equal_record(path, _content_hash(_schema(frame), hashes), source)
    if old:
        return old, False
    _require_keys(path, frame, keys)
    columns = [encode(column, known) for column, known in zip(frame.iter_columns(), hashes, strict=True)]
    return write_columns(path, columns, keys=keys, source=source), True


def write_columns_if_changed(
    path: Path, columns: Sequence[EncodedColumn], *, keys: Sequence[str], source: Mapping[str, str] | None = None
) -> tuple[Record, bool]:
    """Like `write_columns`, but an equal stored file is left alone. Returns the record and whether it was written."""
    old = _equal_record(path, _record(columns, keys, source).content_hash, source)
    return (old, False) if old else (write_columns(path, columns, keys=keys, source=source), True)


def _equal_record(path: Path, found: str, source: Mapping[str, str] | None) -> Record | None:
    """The record of a sound stored file of that content. One without a sound seal counts as different."""
    if not path.exists():
        return None
    try:
        old = read_record(path)
    except LakeError:
        return None
    return old if old.content_hash == found and old.source == dict(source or {}) and is_intact(path) else None


def write_json(path: Path, value: Any) -> None:
    """Store JSON atomically; NaN and infinities become null, as JSON has none."""
    with replacing(path) as part:
        part.write_text(json.dumps(_finite(value), indent=1, default=str) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Parse a stored JSON file. Raises `LakeError` when it is missing or malformed."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LakeError(f"{path}: missing; build the asset that writes it first") from None
    except ValueError as error:
        raise LakeError(f"{path}: malformed JSON ({error}); rebuild this file") from error


def write_array(path: Path, array: np.ndarray) -> None:
    """Store an array as .npy, atomically."""
    with replacing(path) as part, part.open("wb") as out:
        np.save(out, array, allow_pickle=False)


def read_array(path: Path, mmap: bool = True) -> np.ndarray:
    """The stored array, memory-mapped read-only unless `mmap` is False."""
    try:
        with _PARSING:
            return np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)
    except FileNotFoundError:
        raise LakeError(f"{path}: missing; build the asset that writes it first") from None
    except ValueError as error:
        raise LakeError(f"{path}: damaged ({error}); rebuild this file") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success fsync it and rename it over `path`, else remove it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process id lets garbage collection tell a killed writer's file from a living one's.
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.{os.getpid()}.", suffix=".part", dir=path.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.chmod(0o644)
        part.replace(path)
        _fsync_dir(path.parent)
    finally:
        part.unlink(missing_ok=True)


def _require_keys(path: Path, frame: pl.DataFrame, keys: Sequence[str]) -> None:
    missing = [key for key in keys if key not in frame.columns]
    if missing:
        raise ContractBroken(f"{path.name}: key columns {missing} are not among {frame.columns[:8]}")
    empty = [key for key in keys if frame[key].null_count()]
    if empty:
        raise ContractBroken(f"{path.name}: key columns {empty} contain nulls")
    if keys and frame.select(keys).is_duplicated().any():
        sample = frame.filter(frame.select(keys).is_duplicated()).select(keys).row(0)
        raise ContractBroken(f"{path.name}: key {tuple(keys)} is not unique, e.g. {sample}")


def _fsync_dir(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
