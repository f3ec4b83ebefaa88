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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from atft_pipeline.lake.seal import BLANK, SEAL_KEY, is_intact, seal
from atft_pipeline.verdict import ContractBroken

RECORD_KEY = b"atft_pipeline.record"
ROW_GROUP_ROWS = 262_144


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


def content_hash(frame: pl.DataFrame) -> str:
    """SHA-256 over names, types, validity and values, column by column; equal content gives an equal hash."""
    digest = hashlib.sha256()
    schema = {name: str(dtype) for name, dtype in frame.schema.items()}
    digest.update(json.dumps(schema).encode())
    for column in frame.iter_columns():
        if column.null_count():
            digest.update(column.is_null().to_numpy().tobytes())
        if column.dtype == pl.String:
            # Arrow's own buffers; the slot of a null is made empty first, as its bytes are otherwise arbitrary.
            text = column.fill_null("").rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
            digest.update(b"".join(bytes(buffer) for buffer in text.buffers()[1:]))
            continue
        values = column.to_physical()
        values = values.cast(pl.UInt8) if values.dtype == pl.Boolean else values
        digest.update(values.fill_null(0).to_numpy().tobytes())
    return digest.hexdigest()


def write_table(
    path: Path,
    frame: pl.DataFrame,
    *,
    keys: Sequence[str],
    source: Mapping[str, str] | None = None,
    before_rename: Callable[[Record], None] | None = None,
    known_hash: str | None = None,
) -> Record:
    """Store `frame` at `path`, whole or not at all, in the row order given.

    `known_hash` is the frame's content hash where the caller has it already.

    `before_rename` is called with the record when the file is finished but not yet visible.
    Raises `ContractBroken` when a key column is missing, null or not unique; nothing is written then.
    """
    _require_keys(path, frame, keys)
    record = Record(
        rows=frame.height,
        columns={name: str(dtype) for name, dtype in frame.schema.items()},
        keys=tuple(keys),
        content_hash=known_hash or content_hash(frame),
        source=dict(sorted((source or {}).items())),
    )
    table = frame.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    table = table.replace_schema_metadata({RECORD_KEY: json.dumps(asdict(record)).encode(), SEAL_KEY: BLANK})
    with replacing(path) as part:
        pq.write_table(
            table,
            part,
            compression="zstd",
            compression_level=1,
            # A dictionary of single-precision values costs three times the encoding and gains nothing.
            use_dictionary=[name for name, dtype in frame.schema.items() if dtype != pl.Float32] or False,
            row_group_size=ROW_GROUP_ROWS,
            write_page_checksum=True,
            store_schema=True,
        )
        seal(part)
        if before_rename:
            before_rename(record)
    return record


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
    found = content_hash(frame)
    if path.exists():
        try:
            old = read_record(path)
        except LakeError:
            old = None
        # A file without a sound seal is written again even when its content is equal.
        if old is not None and is_intact(path) and old.content_hash == found and old.source == dict(source or {}):
            return old, False
    return write_table(path, frame, keys=keys, source=source, known_hash=found), True


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
