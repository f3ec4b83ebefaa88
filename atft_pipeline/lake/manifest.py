"""What was fetched when: `raw/<table>/manifest.json`, one entry per stored partition.

Kept beside the data, not in it, so that the same rows give the same bytes whenever they were fetched. A partition is
written in three steps: its coming entry is noted (`next`), the file is renamed into place, the entry becomes `current`.
Each entry names the content hash that it speaks of, so after a kill at any point the file still decides which of the
two entries holds, and the two never contradict each other: a file matches `current` or `next`.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from atft_pipeline.lake.store import LakeError, Record, read_json, read_record, write_json, write_table

NAME = "manifest.json"
VERSION = 1


def write_fetched(
    path: Path,
    frame: pl.DataFrame,
    *,
    keys: Sequence[str],
    source: Mapping[str, str],
    requests: int,
    now: datetime | None = None,
    before_rename: Callable[[Record], None] | None = None,
) -> Record:
    """`write_table` of fetched rows, recorded in the table's manifest with the time and the requests that it took.

    `before_rename` is called with the record just before the file becomes visible.
    """
    facts = {
        "fetched_at": (now or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds"),
        "requests": requests,
    }

    def announce(record: Record) -> None:
        entry = {"content_hash": record.content_hash, "rows": record.rows, **facts}
        with _changing(path.parent) as files:
            files.setdefault(path.name, {})["next"] = entry
        if before_rename:
            before_rename(record)

    record = write_table(path, frame, keys=keys, source=source, before_rename=announce)
    with _changing(path.parent) as files:
        entry = files[path.name]
        if entry.get("next", {}).get("content_hash") == record.content_hash:
            files[path.name] = {"current": entry["next"]}
    return record


def fetched(path: Path) -> dict[str, Any] | None:
    """The entry that speaks of the stored partition: content_hash, rows, fetched_at, requests; None when none does."""
    entry = entries(path.parent).get(path.name, {})
    stored = read_record(path).content_hash
    return next((said for said in entry.values() if said["content_hash"] == stored), None)


def entries(folder: Path) -> dict[str, dict[str, Any]]:
    """File name -> its entries (`current`, `next`); empty when nothing was recorded yet. Raises `LakeError`."""
    path = folder / NAME
    if not path.exists():
        return {}
    stored = read_json(path)
    if not isinstance(stored, dict) or stored.get("version") != VERSION or not isinstance(stored.get("files"), dict):
        raise LakeError(f"{path}: not a manifest of version {VERSION}; remove it, the next fetch writes it again")
    files: dict[str, dict[str, Any]] = stored["files"]
    return files


@contextmanager
def _changing(folder: Path) -> Iterator[dict[str, dict[str, Any]]]:
    """The entries, to be changed in place; stored on leaving. Writers of other months wait."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".{NAME}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        files = entries(folder)
        yield files
        write_json(folder / NAME, {"version": VERSION, "files": dict(sorted(files.items()))})
