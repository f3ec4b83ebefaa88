"""What killed processes left behind, and caches that nothing uses any more.

Safe beside a running pipeline: a temporary file belongs to the process whose id its name carries, and is only touched
when that process is gone. Ids mean something on one machine only, so collect on the machine that writes the lake.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
import zipfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from atft_pipeline.lake.store import LakeError, read_record

UNKNOWN_WRITER_AGE = 24 * 3600.0
"""A temporary file whose name carries no process id is dead after a day, in seconds."""

GRAPH_AGE = 30 * 24 * 3600.0
"""A stored graph that no training read for a month is stale, in seconds; training builds it again when it needs it."""

TEMPORARY = re.compile(
    r"^\..+\.part(\.wal)?$|^\.training_panel\.\d+\.(building|old)$|^\.(last|probe)\.\d+$|^\..+\.(staging|retired)$"
)
"""Names of temporary files and folders of this project's writers."""

_PROCESS = re.compile(r"\.(\d+)\.(?:[a-z0-9_]+\.)?(?:part|part\.wal|building|old)$|^\.(?:last|probe)\.(\d+)$")


@dataclass(frozen=True)
class Leftover:
    """One thing that can go: a file or a folder, why, and its size."""

    path: Path
    why: str
    size: int


def find_leftovers(lake: Path, tables: Collection[str] = ()) -> list[Leftover]:
    """Everything under `lake` that `collect` would remove. `tables` are the declared raw tables (empty: any)."""
    if not lake.exists():
        return []
    found = [*_temporaries(lake), *_staging(lake, tables), *_graphs(lake / "runs")]
    return sorted(found, key=lambda leftover: leftover.path)


def collect(lake: Path, tables: Collection[str] = ()) -> list[Leftover]:
    """Remove what `find_leftovers` finds; returns what was removed."""
    found = find_leftovers(lake, tables)
    for leftover in found:
        if leftover.path.is_dir() and not leftover.path.is_symlink():
            shutil.rmtree(leftover.path, ignore_errors=True)
        else:
            leftover.path.unlink(missing_ok=True)
    return found


def is_abandoned(path: Path, now: float | None = None) -> bool:
    """Whether the writer of a temporary file or folder is gone."""
    match = _PROCESS.search(path.name)
    written = path.lstat().st_mtime
    if match is None:
        return (now or time.time()) - written > UNKNOWN_WRITER_AGE
    started = _started(int(match[1] or match[2]))
    # The id may have been given to a later process.
    return started is None or started > written + 2.0


def _started(process: int) -> float | None:
    """When a living process started, in seconds since 1970; None when there is none with this id."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return 0.0
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
        boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime"))
    except (OSError, StopIteration):
        return 0.0  # no /proc here: take it for the writer
    if fields[0] in "ZX":  # killed, and its parent has not looked yet
        return None
    return float(boot.split()[1]) + int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _temporaries(lake: Path) -> Iterator[Leftover]:
    for folder, folders, files in os.walk(lake):
        for name in [*folders, *files]:
            path = Path(folder, name)
            if TEMPORARY.match(name) and is_abandoned(path):
                yield Leftover(path, "half-written by a process that is gone", _size(path))
        folders[:] = [name for name in folders if not TEMPORARY.match(name)]


def _staging(lake: Path, tables: Collection[str]) -> Iterator[Leftover]:
    """Fetched days that wait for a month which is stored since, or that nothing can use."""
    for folder in sorted((lake / "raw").glob("*/_staging/*")):
        table, month = folder.parents[1].name, folder.name
        if not folder.is_dir():
            continue
        if tables and table not in tables:
            yield Leftover(folder, f"days of {table}, which is no table of this project", _size(folder))
        elif not _is_useful(folder, folder.parents[1] / f"{month}.parquet"):
            yield Leftover(folder, f"days of {month}, which is stored since", _size(folder))


def _is_useful(folder: Path, stored: Path) -> bool:
    """Whether a staged file is newer knowledge than the stored month (or there is no stored month)."""
    as_of = ""
    if stored.exists():
        try:
            as_of = read_record(stored).source.get("as_of", "")
        except LakeError:
            as_of = ""  # damaged: the staged days are all there is
    for path in folder.iterdir():
        if TEMPORARY.match(path.name) and not is_abandoned(path):
            return True
        if path.suffix != ".parquet":
            continue
        try:
            staged = read_record(path).source.get("as_of", "")
        except LakeError:
            continue
        if staged > as_of:
            return True
    return False


def _graphs(runs: Path) -> Iterator[Leftover]:
    """Cached graphs that are damaged or long unused; none while a training holds the lock."""
    if not (runs / "graphs").exists() or _is_training(runs):
        return
    for path in sorted((runs / "graphs").glob("*.npz")):
        used = path.stat().st_mtime
        if not zipfile.is_zipfile(path):
            yield Leftover(path, "damaged graph", _size(path))
        elif time.time() - used > GRAPH_AGE:
            yield Leftover(path, "graph that no training used for 30 days", _size(path))


def _is_training(runs: Path) -> bool:
    lock = runs / "gpu.lock"
    if not lock.exists():
        return False
    with lock.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(stream, fcntl.LOCK_UN)
    return False


def _size(path: Path) -> int:
    if path.is_dir() and not path.is_symlink():
        return sum(part.lstat().st_size for part in path.rglob("*") if not part.is_dir())
    return path.lstat().st_size
